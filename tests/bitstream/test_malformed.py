"""Files that are wrong in one way, built by hand, and the error that each must meet."""

from __future__ import annotations

import zlib
from dataclasses import dataclass, replace

import pytest

from vcmcodec.bitstream.container import Container
from vcmcodec.errors import FormatError, LimitError, UnsupportedError

PAYLOAD = b"payload"
CRC = zlib.crc32(PAYLOAD).to_bytes(4, "little")
DIGEST_CRC = zlib.crc32(b"8 bytes.").to_bytes(4, "little")


def entry(kind=0x81, layer=0, group=0, length=b"\x07", crc=CRC, tile=b""):
    return bytes([kind, layer, group]) + tile + length + crc


def group(number=0, score=0, label=b"", box=(0, 0, 3, 2), cells=6):
    return bytes([number, score, len(label)]) + label + bytes((*box, cells))


@dataclass(frozen=True)
class Raw:
    """The fields of a legal file of 48 x 32 pixels (3 x 2 cells), each as raw bytes."""

    signature: bytes = b"\x89VCM\r\n\x1a\n"
    version: bytes = b"\x01\x00"
    header_length: bytes | None = None
    profile: bytes = b"\x01"
    flags: bytes = b"\x00"
    fingerprint: bytes = b"12345678"
    size: bytes = b"\x30\x20"
    tile: bytes = b"\x00"
    coder: bytes = b"\x01"
    parameters: bytes = b"\x00"
    tasks: bytes = b"\x01\x01\x00"
    layers: bytes = b"\x02\x00\x00\x01\x00"
    groups: bytes = b"\x00"
    directory: bytes = b"\x01" + entry()
    extra: bytes = b""
    crc32: bytes | None = None
    payload: bytes = PAYLOAD

    def build(self) -> bytes:
        body = b"".join(
            (self.profile, self.flags, self.fingerprint, self.size, self.tile, self.coder)
        )
        body += self.parameters + self.tasks + self.layers + self.groups + self.directory
        body += self.extra
        length = self.header_length
        if length is None:
            number = len(body) + 4
            length = bytes([number]) if number < 128 else bytes([number & 127 | 128, number >> 7])
        front = self.signature + self.version + length + body
        crc32 = zlib.crc32(front).to_bytes(4, "little") if self.crc32 is None else self.crc32
        return front + crc32 + self.payload


MAP = entry(0x80, length=b"\x00", crc=b"\0\0\0\0")
TWO_GROUPS = b"\x02" + group(4, box=(0, 0, 2, 2), cells=4) + group(9, box=(2, 0, 1, 2), cells=2)
EACH = MAP + entry(group=4) + entry(group=9)
FEATURES = b"\x05\x02p3\x20\x30"  # split point p3, scaled to 48 x 32 pixels
PYRAMID = Raw(profile=b"\x02", parameters=FEATURES, layers=b"\x01\x00\x07")
BOTTLENECK = Raw(
    profile=b"\x03", coder=b"\x02", parameters=FEATURES, layers=b"\x02\x00\x07\x01\x07"
)
LEGAL = {
    "plain": Raw(),
    "people's level above the base's": Raw(layers=b"\x03\x00\x01\x01\x02\x02\x02"),
    "pyramid": PYRAMID,
    "semantic": replace(PYRAMID, profile=b"\x04"),
    "bottleneck": BOTTLENECK,
    "grey": Raw(flags=b"\x01"),
    "later minor version": Raw(version=b"\x01\x09", extra=b"new"),
    "unknown task": Raw(tasks=b"\x01\xc8\x00"),
    "no task": Raw(tasks=b"\x00"),
    "one group": Raw(groups=b"\x01" + group(), directory=b"\x02" + MAP + entry()),
    "two groups": Raw(groups=TWO_GROUPS, directory=b"\x03" + EACH, payload=PAYLOAD * 2),
    "redacted": Raw(
        flags=b"\x02",
        groups=b"\x01" + group(4, box=(0, 0, 2, 2), cells=3),
        directory=b"\x02" + MAP + entry(group=4),
    ),
    "enhancement without map": Raw(groups=TWO_GROUPS, directory=b"\x01" + entry(layer=1, group=9)),
    "tiles": Raw(tile=b"\x02", directory=b"\x01" + entry(tile=b"\x01")),
    "unknown ancillary": Raw(directory=b"\x02" + entry() + entry(0x2A), payload=PAYLOAD * 2),
    "digest": Raw(
        directory=b"\x02" + entry() + entry(0x02, length=b"\x08", crc=DIGEST_CRC),
        payload=PAYLOAD + b"8 bytes.",
    ),
    "icc": Raw(directory=b"\x02" + entry() + entry(0x01, layer=1), payload=PAYLOAD * 2),
}


def read_all(data: bytes) -> None:
    container = Container.read(data)
    container.fetch(container.entries)


@pytest.mark.parametrize("name", LEGAL)
def test_legal_by_hand(name):
    read_all(LEGAL[name].build())


# name: (what is wrong, error, field of the norm or words of the message)
ILLEGAL = {
    "signature": (Raw(signature=b"\x89PNG\r\n\x1a\n"), FormatError, "signature"),
    "major version": (Raw(version=b"\x02\x00"), UnsupportedError, "major version 2"),
    "major version 0": (Raw(version=b"\x00\x00"), UnsupportedError, "major version 0"),
    "header length 0": (Raw(header_length=b"\x00"), FormatError, "header_length"),
    "header length too small": (Raw(header_length=b"\x20"), FormatError, "header_crc32"),
    "header length not shortest": (Raw(header_length=b"\xa5\x00"), FormatError, "header_length"),
    "header length of 9 bytes": (Raw(header_length=b"\xff" * 8 + b"\x01"), FormatError, "longer"),
    "header length huge": (Raw(header_length=b"\xff\xff\xff\x7f"), LimitError, "--max-header"),
    "header checksum": (Raw(crc32=b"1234"), FormatError, "header_crc32"),
    "profile": (Raw(profile=b"\x09"), UnsupportedError, "profile 9"),
    "reserved flag": (Raw(flags=b"\x04"), FormatError, "flags"),
    "highest reserved flag": (Raw(flags=b"\x80"), FormatError, "flags"),
    "width 0": (Raw(size=b"\x00\x20"), FormatError, "width"),
    "height 0": (Raw(size=b"\x30\x00"), FormatError, "height"),
    "width beyond 2**30": (Raw(size=b"\x81\x80\x80\x80\x04\x01"), FormatError, "width"),
    "width not shortest": (Raw(size=b"\xb0\x00\x20"), FormatError, "width"),
    "pixels": (Raw(size=b"\x80\x80\x02\x80\x80\x02"), LimitError, "--max-pixels"),
    "tile too large": (Raw(tile=b"\x80\x80\x04"), FormatError, "tile"),
    "coder": (Raw(coder=b"\x00"), UnsupportedError, "coder 0"),
    "65 bytes of parameters": (Raw(parameters=b"\x41" + b"p" * 65), FormatError, "parameters"),
    "half a coded size": (Raw(parameters=b"\x01\x10"), FormatError, "parameters"),
    "more than a coded size": (Raw(parameters=b"\x03\x10\x10\x10"), FormatError, "parameters"),
    "coded at no size": (Raw(parameters=b"\x02\x00\x10"), FormatError, "parameters"),
    "coded larger": (Raw(parameters=b"\x02\x10\x7f"), FormatError, "parameters"),
    "parameters beyond the header": (Raw(parameters=b"\xff"), FormatError, "parameters"),
    "tasks descend": (Raw(tasks=b"\x02\x02\x00\x01\x00"), FormatError, "tasks"),
    "a task twice": (Raw(tasks=b"\x02\x01\x00\x01\x01"), FormatError, "tasks"),
    "task of unknown layer": (Raw(tasks=b"\x01\x01\x03"), UnsupportedError, "layer 3"),
    "task of absent layer": (Raw(tasks=b"\x01\x00\x02"), FormatError, "tasks[0].layer"),
    "no layer": (Raw(tasks=b"\x00", layers=b"\x00"), FormatError, "layers"),
    "layers descend": (Raw(layers=b"\x02\x01\x00\x00\x00"), FormatError, "layers"),
    "a layer twice": (Raw(layers=b"\x02\x00\x00\x00\x01"), FormatError, "layers"),
    "unknown layer": (Raw(layers=b"\x02\x00\x00\x03\x00"), UnsupportedError, "layer 3"),
    "coder of another profile": (Raw(coder=b"\x02"), FormatError, "coder: range_static does not"),
    "coder of features": (replace(PYRAMID, coder=b"\x02"), FormatError, "coder: range_static"),
    "coder of a bottleneck": (replace(BOTTLENECK, coder=b"\x01"), FormatError, "coder: rans_16"),
    "mid below base": (Raw(layers=b"\x02\x00\x02\x01\x01"), FormatError, "layers[1].rate_level"),
    "full below base": (Raw(layers=b"\x02\x00\x02\x02\x01"), FormatError, "below that of the"),
    "full unlike mid": (
        Raw(layers=b"\x03\x00\x01\x01\x02\x02\x03"),
        FormatError,
        "layers[2].rate_level: 3 is not",
    ),
    "unequal levels of features": (
        replace(BOTTLENECK, layers=b"\x02\x00\x07\x01\x08"),
        FormatError,
        "layers[1].rate_level",
    ),
    "a second layer of a pyramid": (
        replace(PYRAMID, layers=b"\x02\x00\x07\x01\x07"),
        FormatError,
        "layers[1].layer: the",
    ),
    "tiled features": (
        replace(PYRAMID, tile=b"\x02", directory=b"\x01" + entry(tile=b"\x00")),
        FormatError,
        "tile: 2 is not 0",
    ),
    "features of nowhere": (replace(PYRAMID, parameters=b"\x00"), FormatError, "parameters: do"),
    "features of half a size": (
        replace(PYRAMID, parameters=b"\x04\x02p3\x20"),
        FormatError,
        "parameters: do not say",
    ),
    "features of no name": (
        replace(PYRAMID, parameters=b"\x05\x02p\x20\x20\x30"),
        FormatError,
        "parameters: do not say",
    ),
    "bytes behind a pyramid's parameters": (
        replace(PYRAMID, parameters=b"\x09" + FEATURES[1:] + b"junk"),
        FormatError,
        "parameters: 4 bytes more",
    ),
    "bytes behind a bottleneck's parameters": (
        replace(BOTTLENECK, parameters=b"\x06" + FEATURES[1:] + b"x"),
        FormatError,
        "parameters: 1 bytes more",
    ),
    "rate level": (Raw(layers=b"\x01\x00\x91\x4e"), FormatError, "layers[0].rate_level"),
    "257 groups": (Raw(groups=b"\x81\x02"), FormatError, "groups"),
    "more groups than bytes": (Raw(groups=b"\x60"), FormatError, "groups["),
    "a group id twice": (
        Raw(groups=b"\x02" + group(1, cells=3) * 2, directory=b"\x02" + MAP + entry(group=1)),
        FormatError,
        "groups",
    ),
    "label not UTF-8": (Raw(groups=b"\x01" + group(label=b"\xff")), FormatError, "[0].label"),
    "label too long": (Raw(groups=b"\x01" + group(label=b"x" * 65)), FormatError, "[0].label"),
    "label that clears a terminal": (
        Raw(groups=b"\x01" + group(label=b"\x1b[2J"), directory=b"\x02" + MAP + entry()),
        FormatError,
        "groups[0].label",
    ),
    "box beyond the picture": (
        Raw(groups=b"\x01" + group(box=(1, 0, 3, 2)), directory=b"\x02" + MAP + entry()),
        FormatError,
        "groups[0].box",
    ),
    "group without cells": (
        Raw(groups=b"\x01" + group(cells=0), directory=b"\x02" + MAP + entry()),
        FormatError,
        "groups[0].cells",
    ),
    "more cells than the box has": (
        Raw(groups=b"\x01" + group(box=(0, 0, 1, 1)), directory=b"\x02" + MAP + entry()),
        FormatError,
        "groups[0].cells",
    ),
    "cells missing": (
        Raw(groups=b"\x01" + group(cells=5), directory=b"\x02" + MAP + entry()),
        FormatError,
        "groups",
    ),
    "redacted without groups": (Raw(flags=b"\x02"), FormatError, "groups"),
    "empty directory": (Raw(directory=b"\x00", payload=b""), FormatError, "directory"),
    "more entries than bytes": (Raw(directory=b"\xff\x7f" + entry()), FormatError, "directory"),
    "fewer entries than written": (
        Raw(directory=b"\x01" + entry() * 2, payload=PAYLOAD * 2),
        FormatError,
        "extra",
    ),
    "the same entry twice": (
        Raw(directory=b"\x02" + entry() * 2, payload=PAYLOAD * 2),
        FormatError,
        "directory[1]",
    ),
    "layers of entries descend": (
        Raw(directory=b"\x02" + entry(layer=1) + entry(), payload=PAYLOAD * 2),
        FormatError,
        "directory[1]",
    ),
    "ancillary before critical": (
        Raw(directory=b"\x02" + entry(0x2A) + entry(), payload=PAYLOAD * 2),
        FormatError,
        "directory[1]",
    ),
    "map behind a latent": (
        Raw(
            groups=TWO_GROUPS,
            directory=b"\x03" + entry(group=4) + MAP + entry(group=9),
            payload=PAYLOAD * 2,
        ),
        FormatError,
        "directory[1]",
    ),
    "groups of entries out of table order": (
        Raw(
            groups=TWO_GROUPS,
            directory=b"\x03" + MAP + entry(group=9) + entry(group=4),
            payload=PAYLOAD * 2,
        ),
        FormatError,
        "directory[2]",
    ),
    "unknown critical kind": (Raw(directory=b"\x01" + entry(0x83)), UnsupportedError, "131"),
    "entry of unknown layer": (
        Raw(directory=b"\x01" + entry(layer=7)),
        FormatError,
        "directory[0].layer",
    ),
    "entry of absent layer": (
        Raw(directory=b"\x01" + entry(layer=2)),
        FormatError,
        "directory[0].layer",
    ),
    "entry of absent group": (
        Raw(directory=b"\x01" + entry(group=1)),
        FormatError,
        "directory[0].group",
    ),
    "latent of group 0 among others": (
        Raw(groups=TWO_GROUPS, directory=b"\x02" + MAP + entry()),
        FormatError,
        "directory[1].group",
    ),
    "tile beyond the picture": (
        Raw(tile=b"\x02", directory=b"\x01" + entry(tile=b"\x02")),
        FormatError,
        "directory[0].tile",
    ),
    "length not shortest": (
        Raw(directory=b"\x01" + entry(length=b"\x87\x00")),
        FormatError,
        "directory[0].length",
    ),
    "substream too long": (
        Raw(directory=b"\x01" + entry(length=b"\xff\xff\xff\xff\x0f")),
        LimitError,
        "--max-substream-bytes",
    ),
    "groups without map": (Raw(groups=b"\x01" + group()), FormatError, "directory"),
    "map without groups": (
        Raw(directory=b"\x02" + MAP + entry()),
        FormatError,
        "directory",
    ),
    "map of a higher layer": (
        Raw(groups=b"\x01" + group(), directory=b"\x01" + entry(0x80, layer=1)),
        FormatError,
        "directory[0]",
    ),
    "icc in the base": (
        Raw(directory=b"\x02" + entry() + entry(0x01), payload=PAYLOAD * 2),
        FormatError,
        "directory[1]",
    ),
    "digest of 7 bytes": (
        Raw(directory=b"\x02" + entry() + entry(0x02), payload=PAYLOAD * 2),
        FormatError,
        "directory[1].length",
    ),
    "bytes behind the directory": (Raw(extra=b"new"), FormatError, "extra"),
    "bytes behind the file": (Raw(payload=PAYLOAD + b"!"), FormatError, "substreams"),
    "payload checksum": (Raw(payload=b"pay1oad"), FormatError, "latent of layer base"),
}


@pytest.mark.parametrize("name", ILLEGAL)
def test_refused_for_the_reason_in_its_name(name):
    raw, error, reason = ILLEGAL[name]
    data = raw.build()
    with pytest.raises(error) as caught:
        read_all(data)
    assert type(caught.value) is error
    assert reason in str(caught.value)
    if error is FormatError:
        assert caught.value.offset is not None


def test_a_damaged_field_is_named_with_its_place():
    data = Raw(layers=b"\x01\x00\x91\x4e").build()
    with pytest.raises(FormatError) as caught:
        Container.read(data)
    assert caught.value.field == "layers[0].rate_level"
    assert data[caught.value.offset :].startswith(b"\x91\x4e")
