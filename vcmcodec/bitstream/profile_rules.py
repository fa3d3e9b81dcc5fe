"""What a profile asks of the fields of a header, besides what holds for all of them (norm §6)."""

from __future__ import annotations

from typing import TYPE_CHECKING

from vcmcodec.bitstream.constants import MAX_TILE_CELLS, CoderId, LayerId, ProfileId
from vcmcodec.bitstream.parameters import FEATURE_PROFILES, CodedSize, FeatureParameters
from vcmcodec.errors import FormatError

if TYPE_CHECKING:
    from vcmcodec.bitstream.header import Fail, Header

CODERS = {
    ProfileId.SCENE: CoderId.RANS_16,
    ProfileId.PYRAMID: CoderId.RANS_16,
    ProfileId.BOTTLENECK: CoderId.RANGE_STATIC,
    ProfileId.SEMANTIC: CoderId.RANS_16,
}
_OF_BASE_ALONE = frozenset({ProfileId.PYRAMID, ProfileId.SEMANTIC})


def check(header: Header, fail: Fail) -> None:
    """Hold a header against the rules of its profile; raise what `fail(field, message)` makes."""
    if header.profile not in CODERS:
        raise fail("profile", f"{header.profile} is not known")
    coder = CODERS[header.profile]
    if header.coder != coder:
        raise fail(
            "coder",
            f"{_name(header.coder)} does not code the profile {_name(header.profile)},"
            f" {_name(coder)} does",
        )
    if header.profile in FEATURE_PROFILES:
        _check_features(header, fail)
    else:
        _check_scene_levels(header, fail)
        _check_coded_size(header, fail)
        _check_tile(header, fail)


def _name(known: ProfileId | CoderId) -> str:
    return known.name.lower()


def _check_scene_levels(header: Header, fail: Fail) -> None:
    """The base is never finer than what people see, which has one level (§6.1)."""
    rates = {info.layer: info.rate_level for info in header.layers}
    for position, info in enumerate(header.layers):
        place = f"layers[{position}].rate_level"
        if info.rate_level < rates.get(LayerId.BASE, 0):
            raise fail(place, f"{info.rate_level} is below that of the base")
        if info.layer == LayerId.FULL and info.rate_level != rates.get(
            LayerId.MID, info.rate_level
        ):
            raise fail(place, f"{info.rate_level} is not that of mid, {rates[LayerId.MID]}")


def _check_coded_size(header: Header, fail: Fail) -> None:
    if not header.parameters:
        return
    try:
        size = CodedSize.unpack(header.parameters)
    except FormatError as error:
        raise fail("parameters", "are not a coded height and width") from error
    if not size.fits(header.height, header.width):
        raise fail(
            "parameters",
            f"a picture of {header.width} x {header.height} pixels cannot have been reduced to"
            f" {size.width} x {size.height}",
        )


def _check_tile(header: Header, fail: Fail) -> None:
    """A tile is decoded in one piece, so its cells bound what decoding takes (§3.8)."""
    rows, columns = header.cell_rows, header.cell_columns
    side = header.tile or max(rows, columns)
    cells = min(side, rows) * min(side, columns)
    if cells > MAX_TILE_CELLS:
        raise fail("tile", f"{cells} cells in one piece are more than {MAX_TILE_CELLS}")


def _check_features(header: Header, fail: Fail) -> None:
    """Features say where they were taken and nothing else, are not tiled and have one level."""
    name = _name(header.profile)
    if header.tile:
        raise fail("tile", f"{header.tile} is not 0, and features are never tiled")
    try:
        own = FeatureParameters.unpack(header.parameters).own
    except FormatError as error:
        raise fail("parameters", "do not say where features were taken") from error
    if own:
        raise fail("parameters", f"{len(own)} bytes more than those of the profile {name}")
    for position, info in enumerate(header.layers):
        if info.rate_level != header.layers[0].rate_level:
            message = f"{info.rate_level} is not that of the other layers, which is one for all"
            raise fail(f"layers[{position}].rate_level", message)
        if info.layer != LayerId.BASE and header.profile in _OF_BASE_ALONE:
            raise fail(f"layers[{position}].layer", f"the profile {name} has a base layer alone")
