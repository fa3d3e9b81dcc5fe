"""ICC profiles come back byte for byte, in few bytes, and bad ones never fill the memory."""

from __future__ import annotations

import hashlib
import io
import re
import zlib
from base64 import b64decode
from pathlib import Path

import pytest
import skimage
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image, ImageCms
from random_files import plain_header

from vcmcodec import edit
from vcmcodec.bitstream import icc
from vcmcodec.bitstream.constants import MAX_ICC_BYTES, Kind, LayerId
from vcmcodec.bitstream.container import Substream, write
from vcmcodec.bitstream.header import LayerInfo
from vcmcodec.errors import FormatError, RequestError

NORM = (Path(__file__).parents[2] / "formats" / "vcm-1.md").read_text(encoding="utf-8")


def embedded() -> bytes:
    """The profile that most programs embed, from a real photograph."""
    with Image.open(Path(skimage.__file__).parent / "data" / "astronaut.png") as image:
        return image.info["icc_profile"]


def raw_deflate(data: bytes) -> bytes:
    deflate = zlib.compressobj(9, zlib.DEFLATED, -15)
    return deflate.compress(data) + deflate.flush()


@given(st.binary(min_size=1, max_size=2000))
def test_any_profile_comes_back(profile):
    assert icc.expand(icc.compress(profile)) == profile


def test_the_common_profiles_take_the_bytes_that_the_norm_tells():
    profile = embedded()
    [before, deflated, after] = re.findall(
        r"The commonest one has (\d+) bytes, (\d+) deflated, (\d+) with", NORM
    )[0]
    stored = icc.compress(profile)
    sizes = len(profile), len(raw_deflate(profile)), len(stored)
    assert sizes == (int(before), int(deflated), int(after))
    assert icc.expand(stored) == profile
    parametric = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
    assert len(icc.compress(parametric)) < 60
    assert icc.expand(icc.compress(parametric)) == parametric


def test_a_reader_made_from_the_norm_alone_agrees():
    section = NORM[NORM.index("### 5.6") : NORM.index("## 6 Profiles")]
    tags = zlib.decompress(b64decode("".join(re.findall(r"^    (\S+)$", section, re.M))), -15)
    [size, sha256] = re.findall(r"has (\d+) bytes and the SHA-256\n`(\w+)`", section)[0]
    curve = b"curv" + bytes(4) + (1024).to_bytes(4, "big")
    for i in range(1024):
        x = i / 1023
        light = x / 12.92 if x <= 0.04045 else ((x + 0.055) / 1.055) ** 2.4
        curve += round(65535 * light).to_bytes(2, "big")
    theirs = tags + curve
    assert len(theirs) == int(size)
    assert hashlib.sha256(theirs).hexdigest() == sha256
    assert zlib.decompressobj(-15, theirs).decompress(icc.compress(embedded())) == embedded()


def test_a_stream_of_another_encoder_is_read():
    profile = embedded()
    assert icc.expand(raw_deflate(profile)) == profile
    deflate = zlib.compressobj(0, zlib.DEFLATED, -15)
    assert icc.expand(deflate.compress(profile) + deflate.flush()) == profile


@pytest.mark.parametrize(
    ("data", "words"),
    [
        (b"", "cut off"),
        (b"\xff" * 20, "no"),
        (icc.compress(bytes(range(200)))[:-3], "cut off"),
        (icc.compress(b"profile") + b"\0", "bytes follow"),
        (raw_deflate(b""), "empty"),
        (raw_deflate(bytes(MAX_ICC_BYTES + 1)), "more than 1,048,576"),
        (raw_deflate(bytes(1 << 28)), "more than 1,048,576"),
    ],
)
def test_what_the_norm_does_not_allow_is_refused(data, words):
    with pytest.raises(FormatError, match=f"icc: .*{words}"):
        icc.expand(data)


def test_the_largest_profile_fits_and_no_larger_one():
    largest = bytes(range(256)) * (MAX_ICC_BYTES // 256)
    assert icc.expand(icc.compress(largest)) == largest
    for profile in (largest + b"\0", b""):
        with pytest.raises(RequestError, match="ICC profile"):
            icc.compress(profile)


def test_verify_looks_into_the_profile():
    layers = tuple(LayerInfo(layer, 5000) for layer in LayerId)
    latents = [Substream(Kind.LATENT, layer, 0, b"abcdef") for layer in LayerId]
    for profile, ok in ((icc.compress(embedded()), True), (embedded(), False)):
        parts = [*latents, Substream(Kind.ICC, LayerId.MID, 0, profile)]
        report = edit.verify(io.BytesIO(write(plain_header(layers=layers), parts)))
        assert report.ok is ok
        assert [finding.kind for finding in report.findings if finding.problem] == ["icc"] * (
            not ok
        )
