"""A file of the real codec: its parts, its private copies, and the third reader."""

from __future__ import annotations

import numpy as np
import pytest
from PIL import Image
from test_kaitai import assert_agrees

import vcmcodec
from vcmcodec import edit
from vcmcodec.bitstream.container import Container

pytestmark = pytest.mark.weights


@pytest.fixture(scope="module")
def picture():
    noise = np.random.default_rng(0).integers(0, 255, (6, 8, 3), dtype=np.uint8)
    return Image.fromarray(noise).resize((118, 87), Image.Resampling.BICUBIC)


@pytest.fixture(scope="module")
def mask():
    mask = np.zeros((87, 118), np.uint8)
    mask[20:70, 30:80] = 3
    mask[:30, 90:] = 7
    return mask


@pytest.fixture(scope="module")
def whole(picture, mask):
    return vcmcodec.encode(picture, quality=60, groups=mask, digest=True)


def test_encode_for_a_task_is_extract_by_that_task_at_the_same_base_quality(picture, mask, whole):
    with vcmcodec.open(whole) as reader:
        base = reader.header.layers[0].rate_level / 100
    for_task = vcmcodec.encode(
        picture, base_quality=base, groups=mask, digest=True, tasks=["detection"], longer_side=0
    )
    assert edit.extract(whole, tasks=["detection"]) == for_task
    assert edit.merge([for_task, edit.extract(whole, layers=["mid", "full"])]) == whole


def test_parts_by_group_give_the_whole(whole):
    assert edit.merge([edit.extract(whole, groups=[group]) for group in (7, 0, 3)]) == whole


def test_a_redacted_copy_decodes_to_the_same_pixels(whole):
    copy = edit.extract(whole, drop_groups=[3], redact=True)
    assert edit.verify(copy).ok
    ours = vcmcodec.decode(copy, background="black")
    theirs = vcmcodec.decode(whole, groups=[0, 7], background="black")
    assert np.array_equal(np.asarray(ours), np.asarray(theirs))


def test_the_third_reader_agrees(whole):
    assert_agrees(whole)
    assert_agrees(edit.extract(whole, drop_groups=[3], redact=True))


def test_every_byte_of_the_file_is_verified(whole):
    assert edit.verify(whole).ok
    header_bytes = Container.read(whole).header_bytes
    for place in range(header_bytes, len(whole), 17):
        damaged = bytearray(whole)
        damaged[place] ^= 0x10
        assert not edit.verify(bytes(damaged)).ok
