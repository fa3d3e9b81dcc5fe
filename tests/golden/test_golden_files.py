"""Files of version 1 that must decode, and damaged ones that must be refused for the right reason.

`v1/decode/NAME.vcm` decodes to `NAME.png`, each pixel within 1 of 255; every file carries digests,
so its symbols are exact or decoding fails.  `v1/refuse/FIELD--why.vcm` is refused with an error
that names FIELD.  A missing file fails; `VCMCODEC_WRITE_GOLDEN=1 pytest tests/golden` writes them
anew, which until 1.0 is done when the model changes, in the commit that changes it.
"""

from __future__ import annotations

import io
import os
import struct
import zlib
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import skimage
from PIL import Image
from skimage import data

import vcmcodec
from vcmcodec import codec
from vcmcodec.errors import FormatError, LimitError, UnsupportedError
from vcmcodec.profiles import scene

FOLDER = Path(__file__).parent / "v1"
WRITE = os.environ.get("VCMCODEC_WRITE_GOLDEN") == "1"


def _photograph(height: int, width: int) -> np.ndarray:
    return np.ascontiguousarray(data.astronaut()[20 : 20 + height, 130 : 130 + width])


def _mask(height: int, width: int) -> np.ndarray:
    mask = np.zeros((height, width), np.uint8)
    mask[16:64, 24:70] = 3
    mask[50:, 60:] = 200
    return mask


def _tiled() -> bytes:
    before = scene.TILED_FROM_CELLS, scene.TILE_CELLS
    scene.TILED_FROM_CELLS, scene.TILE_CELLS = 4, 4
    try:
        return codec.encode(_photograph(100, 150), groups=_mask(100, 150), digest=True)
    finally:
        scene.TILED_FROM_CELLS, scene.TILE_CELLS = before


def _with_icc() -> bytes:
    with Image.open(Path(skimage.__file__).parent / "data" / "astronaut.png") as whole:
        profile = whole.info["icc_profile"]
    picture = Image.fromarray(_photograph(40, 50))
    picture.info["icc_profile"] = profile
    return codec.encode(picture, digest=True, text={"title": "golden"})


DECODED: dict[str, Callable[[], bytes]] = {
    "layers": lambda: codec.encode(_photograph(96, 128), digest=True, quality=60),
    "base-only": lambda: codec.encode(
        _photograph(96, 128), tasks=["detection"], base_quality=45, longer_side=0, digest=True
    ),
    "adapted": lambda: codec.encode(_photograph(96, 128), tasks=["detection"], digest=True),
    "people-only-low": lambda: codec.encode(
        _photograph(96, 128), tasks=["human"], quality=0, digest=True
    ),
    "refined-high": lambda: codec.encode(
        _photograph(96, 128), quality=100, base_quality=5, digest=True
    ),
    "groups": lambda: codec.encode(_photograph(96, 128), groups=_mask(96, 128), digest=True),
    "one-group-kept": lambda: vcmcodec.extract(
        codec.encode(_photograph(96, 128), groups=_mask(96, 128), digest=True), groups=[3]
    ),
    "redacted": lambda: vcmcodec.extract(
        codec.encode(_photograph(96, 128), groups=_mask(96, 128), digest=True),
        drop_groups=[200],
        redact=True,
    ),
    "reduced-groups": lambda: codec.encode(
        _photograph(96, 128), longer_side=85, groups=_mask(96, 128), digest=True
    ),
    "grey-odd-size": lambda: codec.encode(_photograph(37, 53)[..., 1], digest=True),
    "one-pixel": lambda: codec.encode(_photograph(1, 1), digest=True),
    "tiled-groups": _tiled,
    "icc-text": _with_icc,
}


@pytest.mark.weights
@pytest.mark.parametrize("name", DECODED)
def test_files_of_this_version_decode_to_their_pictures(name: str) -> None:
    file, picture = FOLDER / "decode" / f"{name}.vcm", FOLDER / "decode" / f"{name}.png"
    if WRITE:
        file.write_bytes(DECODED[name]())
        codec.decode(file).save(picture)
    shown = codec.decode(file.read_bytes())
    with Image.open(picture) as wanted:
        assert shown.mode == wanted.mode
        assert shown.size == wanted.size
        assert shown.info.get("icc_profile") == wanted.info.get("icc_profile")
        apart = np.abs(np.asarray(shown, np.int16) - np.asarray(wanted, np.int16))
    assert apart.max() <= 1
    assert bool(shown.info.get("icc_profile")) == (name == "icc-text")


def test_every_file_is_one_that_this_test_knows() -> None:
    assert {path.stem for path in (FOLDER / "decode").iterdir()} == set(DECODED)
    assert {path.stem for path in (FOLDER / "refuse").iterdir()} == set(REFUSED)


# ---- files that must be refused


def _whole() -> bytes:
    return (FOLDER / "decode" / "groups.vcm").read_bytes()


def _header_end(file: bytes) -> int:
    """First byte behind the header's CRC-32 (its length is a varint at byte 10)."""
    length, shift, at = 0, 0, 10
    while True:
        length |= (file[at] & 0x7F) << shift
        shift, at = shift + 7, at + 1
        if not file[at - 1] & 0x80:
            return at + length


def _sealed(file: bytes) -> bytes:
    """Set the header's CRC-32 right again after a change in front of it."""
    end = _header_end(file) - 4
    return file[:end] + struct.pack("<I", zlib.crc32(file[:end])) + file[end + 4 :]


def _changed(at: int, value: int) -> bytes:
    file = bytearray(_whole())
    file[at] = value
    return bytes(file)


def _flags_at() -> int:
    file, at = _whole(), 10
    while file[at] & 0x80:
        at += 1
    return at + 2


def _latent_bit_flipped() -> bytes:
    at = _header_end(_whole()) + 60  # behind the group map, within the base of the first group
    return _changed(at, _whole()[at] ^ 1)


def _coded_larger() -> bytes:
    file = bytearray((FOLDER / "decode" / "reduced-groups.vcm").read_bytes())
    at = file.index(bytes((2, 64, 85)))  # parameters: two bytes, 64 x 85 pixels of 96 x 128
    file[at + 1] = 97
    return _sealed(bytes(file))


def _header_replaced(old: bytes, new: bytes) -> bytes:
    """Other bytes of equal number at a place in the header that occurs once."""
    file = _whole()
    front = file[: _header_end(file) - 4]
    assert front.count(old) == 1
    assert len(old) == len(new)
    return _sealed(front.replace(old, new) + file[len(front) :])


def _levels(base: int, mid: int, full: int) -> bytes:
    """The table of layers: rate levels in two bytes each."""
    return b"\x03" + b"".join(
        bytes((layer, level & 0x7F | 0x80, level >> 7))
        for layer, level in enumerate((base, mid, full))
    )


_SIZE = bytes((128, 1, 96, 0))  # 128 x 96 pixels, not tiled; the coder follows
_RATES = _levels(5000, 6000, 6000)

REFUSED: dict[str, tuple[Callable[[], bytes], type[Exception]]] = {
    "signature--line-ends-changed": (lambda: _whole().replace(b"\r\n", b"\n", 1), FormatError),
    "signature--seven-bits": (lambda: _changed(0, 0x09), FormatError),
    "signature--a-png": (
        lambda: (FOLDER / "decode" / "groups.png").read_bytes(), FormatError,
    ),
    "major-version--two": (lambda: _sealed(_changed(8, 2)), UnsupportedError),
    "profile--unknown": (lambda: _sealed(_changed(_flags_at() - 1, 99)), UnsupportedError),
    "flags--reserved-bit": (lambda: _sealed(_changed(_flags_at(), 0x80)), FormatError),
    "parameters--coded-larger": (_coded_larger, FormatError),
    "coder--of-another-profile": (
        lambda: _header_replaced(_SIZE + b"\x01", _SIZE + b"\x02"), FormatError,
    ),
    "layers--mid-below-base": (
        lambda: _header_replaced(_RATES, _levels(5000, 4999, 4999)), FormatError,
    ),
    "layers--full-unlike-mid": (
        lambda: _header_replaced(_RATES, _levels(5000, 6000, 6001)), FormatError,
    ),
    "header_crc32--one-bit": (lambda: _changed(_flags_at() + 3, 0x55), FormatError),
    "header--cut-off": (lambda: _whole()[:40], FormatError),
    "substreams--bytes-behind": (lambda: _whole() + b"\0", FormatError),
    "latent--one-bit": (_latent_bit_flipped, FormatError),
    "latent--cut-within-base": (lambda: _whole()[: _header_end(_whole()) + 60], FormatError),
}  # fmt: skip


@pytest.mark.weights
@pytest.mark.parametrize("name", REFUSED)
def test_damaged_files_are_refused_for_the_reason_in_their_name(name: str) -> None:
    file = FOLDER / "refuse" / f"{name}.vcm"
    make, kind = REFUSED[name]
    if WRITE:
        file.write_bytes(make())
    field = name.split("--")[0].replace("-", " ")
    with pytest.raises(kind) as caught:
        codec.decode(io.BytesIO(file.read_bytes()))
    error = caught.value
    named = getattr(error, "what", None) or getattr(error, "field", "")
    assert field in named, f"{named}: {error}"
    assert not isinstance(error, LimitError)
