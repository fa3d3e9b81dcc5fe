"""Where groups and tiles lie on the cell grid, in the forms that networks need.

Every spatial operation of the codec asks one question: "does that neighbour belong to my group?"
This module answers it three ways: as colour masks for depthwise convolutions, as edge masks for the
lapped filter, and as a table of neighbour rows for the entropy networks.  All three give exact
zeros for neighbours of other groups, so nothing a group holds can reach another group's numbers.
"""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

TAPS = tuple((dy, dx) for dy in (-1, 0, 1) for dx in (-1, 0, 1))


def colour_groups(labels: np.ndarray, reach: int = 1) -> np.ndarray:
    """Give groups that come near each other different colours, greedily.

    Args:
        labels: (rows, columns) integers, group position of each cell.
        reach: cells of two groups are near within so many rows and columns; 1 where they touch,
            also at a corner.

    Returns:
        (rows, columns) int64 colours 0..k-1; k is usually 2 to 4, whatever the number of groups.
    """
    ids, flat = np.unique(labels, return_inverse=True)
    flat = flat.reshape(labels.shape)
    rows, columns = flat.shape
    touching: list[set[int]] = [set() for _ in ids]
    away = [(y, x) for y in range(reach + 1) for x in range(-reach if y else 1, reach + 1)]
    for dy, dx in away:
        if dy >= rows or abs(dx) >= columns:
            continue
        near = flat[dy:, max(dx, 0) : columns + min(dx, 0)]
        far = flat[: rows - dy, max(-dx, 0) : columns - max(dx, 0)]
        differ = near != far
        for a, b in np.unique(np.stack([near[differ], far[differ]], 1), axis=0):
            touching[a].add(int(b))
            touching[b].add(int(a))
    colours = np.zeros(len(ids), np.int64)
    for position in sorted(range(len(ids)), key=lambda k: -len(touching[k])):
        taken = {int(colours[other]) for other in touching[position] if colours[other] > 0}
        colours[position] = next(c for c in range(1, len(ids) + 1) if c not in taken)
    return colours[flat] - 1


class GroupGeometry:
    """Masks of one rectangle of cells.

    Args:
        labels: (rows, columns) group position of each cell.
        reach: cells that a spatial tap may reach away; see `colour_groups`.

    Attributes:
        masks16, masks8: one (rows, columns, 1) float tensor a colour at stride 16 and 8, or None
            where the rectangle holds one group only (then no masking is needed at all).
        same_x: (rows, columns - 1) bool: is the cell to the right in my group?  None as above.
        same_y: (rows - 1, columns) bool, likewise downwards.
    """

    def __init__(self, labels: np.ndarray, reach: int = 1) -> None:
        self.rows, self.columns = labels.shape
        self.masks16: tuple[Tensor, ...] | None = None
        self.masks8: tuple[Tensor, ...] | None = None
        self.same_x: Tensor | None = None
        self.same_y: Tensor | None = None
        if labels.size and (labels != labels.flat[0]).any():
            colours = torch.from_numpy(colour_groups(labels, reach))
            masks = [(colours == c).float()[..., None] for c in range(int(colours.max()) + 1)]
            self.masks16 = tuple(masks)
            self.masks8 = tuple(
                m.repeat_interleave(2, 0).repeat_interleave(2, 1).contiguous() for m in masks
            )
            self.same_x = torch.from_numpy(labels[:, 1:] == labels[:, :-1])
            self.same_y = torch.from_numpy(labels[1:] == labels[:-1])

    def to(self, device: torch.device) -> GroupGeometry:
        """Move the masks to a device; returns itself."""
        if self.masks16 is not None and device.type != "cpu":
            assert self.masks8 is not None
            assert self.same_x is not None
            assert self.same_y is not None
            self.masks16 = tuple(mask.to(device) for mask in self.masks16)
            self.masks8 = tuple(mask.to(device) for mask in self.masks8)
            self.same_x, self.same_y = self.same_x.to(device), self.same_y.to(device)
        return self


def neighbour_rows(labels: np.ndarray, batch: int = 1, reach: int = 1) -> Tensor:
    """Row numbers of the 3x3 neighbourhood of every cell.

    Cells are rows of a matrix, picture after picture, in raster order.  Where a neighbour lies
    outside the rectangle or in another group, the table points at one row past the end, which the
    caller keeps at zero.

    Args:
        labels: (rows, columns) group position of each cell.
        batch: pictures that share this map.
        reach: how many cells apart the nine are.

    Returns:
        (batch * rows * columns, 9) int64, taps in raster order, the centre at index 4.
    """
    rows, columns = labels.shape
    size = rows * columns
    inside = (slice(reach, -reach), slice(reach, -reach))
    index = np.full((rows + 2 * reach, columns + 2 * reach), -1, np.int64)
    index[inside] = np.arange(size).reshape(rows, columns)
    padded = np.full(index.shape, -1, np.int64)
    padded[inside] = labels
    table = np.empty((size, len(TAPS)), np.int64)
    for tap, (dy, dx) in enumerate(TAPS):
        top, left = reach * (1 + dy), reach * (1 + dx)
        window = (slice(top, top + rows), slice(left, left + columns))
        table[:, tap] = np.where(padded[window] == labels, index[window], -1).reshape(-1)
    offsets = np.arange(batch)[:, None, None] * size
    whole = np.where(table[None] >= 0, table[None] + offsets, batch * size)
    return torch.from_numpy(whole.reshape(batch * size, len(TAPS)))


def phase_rows(rows: int, columns: int, phases: int, batch: int = 1) -> tuple[Tensor, ...]:
    """Which cells are coded in which pass.

    One phase: all cells at once.  Two: the checkerboard, even cells first.  Four: one cell of each
    2x2 square at a time, in the order top left, bottom right, top right, bottom left, so that three
    quarters of the cells have neighbours to lean on.  Six: the first of the four in three passes,
    of which the later ones lie between the earlier ones, two cells apart.

    Returns:
        One tensor of row numbers a phase (see `neighbour_rows`), in increasing order.
    """
    y, x = np.mgrid[:rows, :columns]
    six = np.array([[0, 4, 2, 4], [5, 3, 5, 3], [2, 4, 1, 4], [5, 3, 5, 3]])
    patterns = {
        1: y * 0,
        2: (y + x) % 2,
        4: np.array([[0, 2], [3, 1]])[y % 2, x % 2],
        6: six[y % 4, x % 4],
    }
    which = patterns[phases]
    which = np.tile(which.reshape(-1), batch)
    return tuple(torch.from_numpy(np.flatnonzero(which == phase)) for phase in range(phases))
