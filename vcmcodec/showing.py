"""Decoded pixels as the picture that people look at: its true size or a smaller one, its gaps."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from PIL import Image

from vcmcodec import grouping, pixels
from vcmcodec.bitstream.constants import CELL, LayerId
from vcmcodec.bitstream.header import Header
from vcmcodec.errors import RequestError


@dataclass(frozen=True, eq=False)
class Shown:
    """Decoded pixels, at the size at which the picture is coded or at a fraction of it.

    Attributes:
        rgb: (H, W, 3) uint8, black where nothing was decoded.
        mean: so many coded pixels a side stand behind each.
        there: (rows, columns) bool, the cells that were decoded.
        layer: the highest layer that all of it comes from.
        groups: ids of the groups that it shows.
        icc_profile: of the picture, where it was asked for.
    """

    rgb: np.ndarray
    mean: int
    there: np.ndarray
    layer: LayerId
    groups: tuple[int, ...]
    icc_profile: bytes | None


def size_of(header: Header, longer_side: int | None) -> tuple[int, int]:
    """Height and width of a picture that is reduced to a longer side, where it is larger.

    Raises:
        RequestError: the side is below one pixel.
    """
    true = header.height, header.width
    if longer_side is None:
        return true
    if longer_side < 1:
        raise RequestError(f"a longer side of {longer_side} pixels shows nothing")
    return pixels.size_within(true, longer_side)


def finish(
    shown: Shown, header: Header, size: tuple[int, int], colour: tuple[int, int, int] | None
) -> tuple[Image.Image, float]:
    """The picture in a size, and the share of its pixels that nothing was decoded for.

    There it is transparent, or of the background's colour.
    """
    rgb, mask = shown.rgb, None
    icc_profile = shown.icc_profile
    if not shown.there.all():
        mask = grouping.as_pixels(shown.there, (rgb.shape[0], rgb.shape[1]), CELL // shown.mean)
    larger = size[0] > header.coded_size[0] or size[1] > header.coded_size[1]
    if larger:
        rgb = pixels.enlarge(rgb, size)
        mask = None if mask is None else pixels.enlarge(mask, size)
    if mask is None:
        image, absent = pixels.to_image(rgb, header.grey, icc_profile), 0.0
    else:
        absent = 1 - float(grouping.as_pixels(shown.there, header.coded_size).mean())
        image = _with_gaps(rgb, mask, header.grey, icc_profile, colour)
    if not larger and image.size != size[::-1]:
        rows, columns = (side / shown.mean for side in header.coded_size)
        kept = image.info
        image = image.resize(size[::-1], Image.Resampling.LANCZOS, (0, 0, columns, rows))
        image.info = kept
    return image, absent


def _with_gaps(
    rgb: np.ndarray, mask: np.ndarray, grey: bool, icc_profile: bytes | None,
    colour: tuple[int, int, int] | None,
) -> Image.Image:  # fmt: skip
    """A picture of which only the pixels of a mask are there; `rgb` is changed."""
    if colour is None:
        rgb[~mask] = 0
        alpha = np.where(mask, 255, 0).astype(np.uint8)
        return pixels.to_image(rgb, grey, icc_profile, alpha)
    rgb[~mask] = colour
    is_grey = grey and len(set(colour)) == 1
    fits = is_grey == grey  # a profile of grey cannot be applied to colours
    return pixels.to_image(rgb, is_grey, icc_profile if fits else None)
