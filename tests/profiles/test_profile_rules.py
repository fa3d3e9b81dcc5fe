"""Real files whose headers break a rule of their profile: refused by whatever reads them."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from functools import cache
from typing import Any
from unittest import mock

import pytest

import vcmcodec
from photographs import astronaut, substreams
from vcmcodec.bitstream import profile_rules
from vcmcodec.bitstream.constants import CoderId, LayerId
from vcmcodec.bitstream.container import Container, Substream, write
from vcmcodec.bitstream.header import Header, LayerInfo
from vcmcodec.errors import FormatError, RequestError

Change = Callable[[Header], dict[str, Any]]


@cache
def file(profile: str) -> bytes:
    options = {"split": "fpn"} if profile == "bottleneck" else {}
    return vcmcodec.encode(astronaut(64, 80), profile=profile, **options)


def forged(data: bytes, change: Change) -> bytes:
    """The file with other header fields, its CRC-32 set right; no writer of ours makes it."""
    header = Container.read(data).header
    parts = [
        Substream(key[0], LayerId(key[1]), key[2], part, key[3])
        for key, part in substreams(data).items()
    ]
    changed = replace(header, **change(header))
    with pytest.raises(RequestError):
        write(changed, parts)
    with mock.patch.object(profile_rules, "check"):
        return write(changed, parts)


def fields(**changed: Any) -> Change:
    return lambda header: changed


def levels(*rates: int) -> Change:
    return fields(layers=tuple(map(LayerInfo, LayerId, rates)))


def more_parameters(data: bytes) -> Change:
    return lambda header: {"parameters": header.parameters + data}


def less_parameters(header: Header) -> dict[str, Any]:
    return {"parameters": header.parameters[:-1]}


def flipped_parameters(header: Header) -> dict[str, Any]:
    return {"parameters": bytes(byte ^ 0x80 for byte in header.parameters)}


STATIC = fields(coder=CoderId.RANGE_STATIC)
RANS = fields(coder=CoderId.RANS_16)
TILED = fields(tile=64)
EMPTY = fields(parameters=b"")
FEATURES = ("pyramid", "semantic", "bottleneck")
WRONG: dict[str, tuple[str, Change, str]] = {
    "scene, coder": ("scene", STATIC, "coder"),
    "scene, mid below base": ("scene", levels(6000, 5999, 5999), "layers[1].rate_level"),
    "scene, full unlike mid": ("scene", levels(100, 6000, 100), "layers[2].rate_level"),
    "pyramid, coder": ("pyramid", STATIC, "coder"),
    "semantic, coder": ("semantic", STATIC, "coder"),
    "bottleneck, coder": ("bottleneck", RANS, "coder"),
    "bottleneck, levels": ("bottleneck", levels(5000, 9999), "layers[1].rate_level"),
    "pyramid, two layers": ("pyramid", levels(5000, 5000), "layers[1].layer"),
    **{f"{p}, tiled": (p, TILED, "tile") for p in FEATURES},
    **{f"{p}, no parameters": (p, EMPTY, "parameters") for p in FEATURES},
    **{f"{p}, cut parameters": (p, less_parameters, "parameters") for p in FEATURES},
    **{f"{p}, flipped parameters": (p, flipped_parameters, "parameters") for p in FEATURES},
    **{f"{p}, junk": (p, more_parameters(b"junk"), "parameters") for p in FEATURES},
}


@pytest.mark.weights
@pytest.mark.parametrize("name", WRONG)
def test_a_header_that_its_profile_does_not_allow_is_refused(name: str) -> None:
    profile, change, field = WRONG[name]
    data = forged(file(profile), change)
    readers: tuple[Callable[[bytes], object], ...] = (
        vcmcodec.open,
        vcmcodec.verify,
        lambda wrong: vcmcodec.verify(wrong, deep=True),
        lambda wrong: vcmcodec.extract(wrong, layers=["base"]),
        vcmcodec.decode if profile == "scene" else vcmcodec.decode_features,
        vcmcodec.analyze,
    )
    for read in readers:
        with pytest.raises(FormatError) as caught:
            read(data)
        assert caught.value.field == field


@pytest.mark.weights
@pytest.mark.parametrize("profile", ["scene", *FEATURES])
def test_the_files_that_these_were_made_of_are_good(profile: str) -> None:
    assert vcmcodec.verify(file(profile), deep=True).ok
