"""Parts of real files: what is extracted is what would have been encoded, and merges back."""

from __future__ import annotations

import functools
import io

import numpy as np
import pytest
from PIL import Image, ImageCms

from photographs import astronaut, coffee, grid, substreams
from vcmcodec import edit, machine
from vcmcodec.bitstream.constants import FIRST_READ_BYTES, Kind, LayerId
from vcmcodec.bitstream.container import Container
from vcmcodec.codec import decode, encode
from vcmcodec.codec import open as open_file
from vcmcodec.errors import RequestError
from vcmcodec.models import TasksModel
from vcmcodec.reader import PROFILE_CUT_OFF

MACHINES = ("detection", "classification", "segmentation")


def stripes(height: int, width: int, count: int) -> np.ndarray:
    """Groups side by side, one value a cell."""
    rows, columns = grid(height, width)
    return np.tile(np.arange(columns) * count // columns, (rows, 1)).astype(np.uint8)


GROUPS = {"none": 0, "two": 2, "five": 5}


def groups_for(rgb: np.ndarray, count: int) -> np.ndarray | None:
    return stripes(*rgb.shape[:2], count) if count else None


@pytest.mark.parametrize("quality", [0, 17.3, 30, 64, 100])
@pytest.mark.parametrize("count", GROUPS.values(), ids=GROUPS.keys())
def test_extracting_for_machines_is_encoding_for_them(quality: float, count: int) -> None:
    rgb = astronaut()
    groups = groups_for(rgb, count)
    whole = encode(rgb, quality=quality, groups=groups)
    base = Container.read(whole).header.layers[0].rate_level / 100  # what all tasks need together
    for tasks in ([MACHINES[0]], [MACHINES[1]], [MACHINES[2]], list(MACHINES)):
        alone = encode(rgb, tasks=tasks, base_quality=base, groups=groups, longer_side=0)
        assert edit.extract(whole, tasks=tasks) == alone


@pytest.mark.parametrize("base_quality", [0, 12.34, 40, 70])
def test_extracting_with_a_base_quality(base_quality: float) -> None:
    rgb = coffee()
    whole = encode(rgb, quality=70, base_quality=base_quality, digest=True)
    for tasks in ([MACHINES[0]], ["human"], ["human", MACHINES[1]]):
        quality = 70 if "human" in tasks else None
        alone = encode(
            rgb, tasks=tasks, quality=quality, base_quality=base_quality, digest=True, longer_side=0
        )
        assert edit.extract(whole, tasks=tasks) == alone


def test_the_base_is_the_same_whatever_lies_above_it() -> None:
    rgb = astronaut()
    groups = groups_for(rgb, 2)
    alone = encode(rgb, tasks=["detection"], base_quality=30, groups=groups, longer_side=0)
    for quality in (30, 30.01, 55, 100):
        whole = encode(rgb, quality=quality, base_quality=30, groups=groups)
        assert edit.extract(whole, tasks=["detection"]) == alone
        assert edit.extract(whole, width=0.25) == edit.extract(whole, layers=["base"])
        base = {k: v for k, v in substreams(whole).items() if k[1] == LayerId.BASE}
        assert base == substreams(alone)


@pytest.mark.parametrize("count", GROUPS.values(), ids=GROUPS.keys())
def test_merging_the_parts_gives_the_whole(count: int) -> None:
    rgb = coffee()
    whole = encode(rgb, quality=80, groups=groups_for(rgb, count), digest=True, text={"by": "me"})
    layers = [edit.extract(whole, layers=[layer]) for layer in ("base", "mid", "full")]
    assert edit.merge(layers) == whole
    assert edit.merge(layers[::-1]) == whole
    base = edit.extract(whole, tasks=["detection"])
    rest = edit.extract(whole, layers=["mid", "full"])
    merged = edit.merge([rest, base])
    assert substreams(merged) == substreams(whole)
    if count:
        one, others = edit.extract(whole, groups=[1]), edit.extract(whole, drop_groups=[1])
        assert edit.merge([others, one]) == whole


def test_an_enhancement_alone_says_what_is_missing() -> None:
    rest = edit.extract(encode(coffee(), quality=50), layers=["mid", "full"])
    with pytest.raises(RequestError, match="no base layer"):
        decode(rest)


@pytest.mark.parametrize("count", GROUPS.values(), ids=GROUPS.keys())
@pytest.mark.parametrize(("width", "layers"), [(0.25, 1), (0.5, 2), (1.0, 3)])
def test_decoding_a_width_is_decoding_its_layers(count: int, width: float, layers: int) -> None:
    rgb = astronaut()
    whole = encode(rgb, quality=75, groups=groups_for(rgb, count))
    part = edit.extract(whole, layers=range(layers))
    with open_file(whole) as full, open_file(part) as narrow:
        seen, alone = full.inspect(width=width), narrow.inspect()
    assert seen.layer == alone.layer == LayerId(layers - 1)
    assert np.array_equal(np.asarray(seen.image), np.asarray(alone.image))


def test_redacted_copies_show_the_same_pixels() -> None:
    rgb = coffee()
    groups = groups_for(rgb, 5)
    whole = encode(rgb, quality=60, groups=groups)
    secret = edit.extract(whole, drop_groups=[1, 4], redact=True)
    kept = decode(whole, groups=[0, 2, 3])
    assert np.array_equal(np.asarray(decode(secret)), np.asarray(kept))
    assert kept.mode == "RGBA"


@functools.cache  # the profile carries the second in which it was made
def srgb() -> bytes:
    return ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()


@functools.cache
def long_profile() -> bytes:
    """So long that who reads it cannot hide it: no deflate makes noise smaller."""
    noise = np.random.default_rng(1).integers(0, 256, 20_000).astype(np.uint8).tobytes()
    return srgb() + noise  # readers of pictures go by what stands in front


@functools.cache
def profiled() -> bytes:
    file = io.BytesIO()
    Image.fromarray(coffee()).save(file, "png", icc_profile=long_profile())
    return encode(file.getvalue())


@pytest.mark.parametrize("width", [0.25, 0.5, 1.0])
def test_a_preview_keeps_the_colour_profile(width: float) -> None:
    with open_file(profiled()) as reader:
        shown = reader.inspect(width=width)
        assert shown.image.info["icc_profile"] == long_profile()
        assert not shown.warnings


def test_machines_never_read_the_colour_profile(monkeypatch: pytest.MonkeyPatch) -> None:
    end = max(e.end for e in Container.read(profiled()).find(Kind.LATENT, LayerId.BASE))
    wanted = max(end, FIRST_READ_BYTES)
    assert len(profiled()) > wanted + 15_000
    for large in (False, True):  # straight from the latent, and through the preview
        monkeypatch.setattr(TasksModel, "looks_at_preview", lambda *sizes, large=large: large)
        with open_file(profiled()) as reader:
            assert machine.analyze_reader(reader).classes
            assert reader.bytes_read <= wanted


def test_a_preview_of_a_file_that_is_cut_before_the_profile_says_so() -> None:
    whole = Container.read(profiled())
    end = max(e.end for e in whole.find(Kind.LATENT, LayerId.BASE))
    (profile,) = whole.find(Kind.ICC)
    for length in (end, profile.offset, profile.end - 1):
        cut = profiled()[:length]
        for source in (cut, lambda offset, size, cut=cut: cut[offset : offset + size]):
            with open_file(source) as reader:
                shown = reader.inspect(width=0.25)
            assert "icc_profile" not in shown.image.info
            assert "cut off" in shown.warnings[0]
            assert shown.warnings[1:] == (PROFILE_CUT_OFF,)
    with open_file(profiled()[: profile.end]) as reader:
        assert reader.inspect(width=0.25).image.info["icc_profile"] == long_profile()


def test_what_only_people_need_is_in_no_machines_file() -> None:
    file = io.BytesIO()
    Image.fromarray(coffee()).save(file, "png", icc_profile=srgb())
    whole = encode(file.getvalue(), text={"title": "coffee"})
    kinds = {key[0] for key in substreams(whole)}
    assert {int(Kind.ICC), int(Kind.TEXT)} <= kinds
    with open_file(whole) as reader:
        assert reader.text == reader.describe().text == {"title": "coffee"}
    assert decode(whole).info["icc_profile"] == srgb()
    base = edit.extract(whole, tasks=["detection"])
    assert {key[0] for key in substreams(base)} == {int(Kind.LATENT)}
    assert base == encode(file.getvalue(), tasks=["detection"], longer_side=0)
    assert "icc_profile" not in decode(base).info
    with pytest.raises(RequestError, match="texts"):
        encode(coffee(), tasks=["detection"], text={"title": "coffee"})
