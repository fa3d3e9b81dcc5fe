"""Rectangles of cells: tiles, their halos, and the pixels under them."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from vcmcodec.bitstream.constants import CELL


@dataclass(frozen=True)
class Rectangle:
    """Rows top..bottom and columns left..right of the cell grid, ends excluded."""

    top: int
    bottom: int
    left: int
    right: int

    @property
    def rows(self) -> int:
        """Its height in cells."""
        return self.bottom - self.top

    @property
    def columns(self) -> int:
        """Its width in cells."""
        return self.right - self.left

    @property
    def size(self) -> int:
        """Its cells."""
        return self.rows * self.columns

    @property
    def slices(self) -> tuple[slice, slice]:
        """Index of a (rows, columns, ...) array."""
        return slice(self.top, self.bottom), slice(self.left, self.right)

    @property
    def pixel_slices(self) -> tuple[slice, slice]:
        """Index of a (height, width, ...) array; beyond the picture's edge it is cut by numpy."""
        return self.slices_of(CELL)

    def slices_of(self, cell: int) -> tuple[slice, slice]:
        """The same where a cell is `cell` pixels a side."""
        return (
            slice(cell * self.top, cell * self.bottom),
            slice(cell * self.left, cell * self.right),
        )

    def inside(self, other: Rectangle) -> Rectangle:
        """This rectangle in the coordinates of one that holds it."""
        return Rectangle(
            self.top - other.top, self.bottom - other.top,
            self.left - other.left, self.right - other.left,
        )  # fmt: skip


def grid_of(labels: np.ndarray) -> tuple[int, int]:
    """Rows and columns of a map of cells."""
    rows, columns = labels.shape
    return rows, columns


def tiles(grid: tuple[int, int], side: int) -> Iterator[Rectangle]:
    """The tiles of a (rows, columns) grid, row by row; one for all where `side` is 0."""
    down, across = _tiling(grid, side)
    return (tile_at(grid, side, number) for number in range(down * across))


def tile_at(grid: tuple[int, int], side: int, number: int) -> Rectangle:
    """One tile of a grid, by its number in the order of `tiles`."""
    rows, columns = grid
    step_y, step_x = side or rows, side or columns
    at_y, at_x = divmod(number, _tiling(grid, side)[1])
    top, left = at_y * step_y, at_x * step_x
    return Rectangle(top, min(top + step_y, rows), left, min(left + step_x, columns))


def tile_numbers(grid: tuple[int, int], side: int) -> np.ndarray:
    """The number of the tile that each cell lies in, (rows, columns) int64."""
    rows, columns = grid
    down = np.arange(rows, dtype=np.int64) // (side or rows)
    across = np.arange(columns, dtype=np.int64) // (side or columns)
    return down[:, None] * _tiling(grid, side)[1] + across


def _tiling(grid: tuple[int, int], side: int) -> tuple[int, int]:
    """Rows and columns of tiles."""
    rows, columns = grid
    return -(-rows // (side or rows)), -(-columns // (side or columns))


def expand(where: Rectangle, halo: int, grid: tuple[int, int]) -> Rectangle:
    """The rectangle with up to `halo` cells more on every side."""
    rows, columns = grid
    return Rectangle(
        max(where.top - halo, 0), min(where.bottom + halo, rows),
        max(where.left - halo, 0), min(where.right + halo, columns),
    )  # fmt: skip


def bounds(cells: np.ndarray, within: Rectangle) -> Rectangle | None:
    """The smallest rectangle inside `within` that holds all of its true cells; None for none.

    Args:
        cells: (rows, columns) bool.
    """
    inside = cells[within.slices]
    rows, columns = (np.flatnonzero(inside.any(axis)) for axis in (1, 0))
    if not len(rows):
        return None
    return Rectangle(
        within.top + int(rows[0]), within.top + int(rows[-1]) + 1,
        within.left + int(columns[0]), within.left + int(columns[-1]) + 1,
    )  # fmt: skip


def padded_pixels(rgb: np.ndarray, where: Rectangle) -> Tensor:
    """Pixels under whole cells, (1, 3, H, W) in 0..1; the picture's edge pixels are repeated."""
    part = rgb[where.pixel_slices]
    missing = (CELL * where.rows - part.shape[0], CELL * where.columns - part.shape[1])
    if any(missing):
        part = np.pad(part, ((0, missing[0]), (0, missing[1]), (0, 0)), mode="edge")
    image = torch.from_numpy(np.ascontiguousarray(part.transpose(2, 0, 1)))
    return image[None].float() / 255
