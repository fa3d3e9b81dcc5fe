"""Pictures with groups, scaled down so that no pixel of one group reaches another (decisions/0003).

Scaling mixes neighbours, and groups must not know of each other.  So a coded pixel is the mean of
those true pixels under its filter that belong to its own group: the picture times the group's mask,
reduced, over the mask, reduced (normalised convolution).  A coded cell that its group does not fill
is completed from the group's own pixels in it, the nearest first.

A true cell has one group.  So each is summed up once for every coded pixel that it reaches, and the
sums of other groups' cells are left out: the time does not grow with the number of groups.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from vcmcodec.bitstream.constants import CELL
from vcmcodec.grouping import MAX_ID, GroupPlan, make_plan, one_sentence

if TYPE_CHECKING:
    from numpy.typing import NDArray


def reduce_groups(plan: GroupPlan, true: tuple[int, int], coded: tuple[int, int]) -> GroupPlan:
    """The same groups on the cells of a picture that is reduced before it is coded.

    Boxes claim every cell that their true cells touch, the smaller on top.  Of a mask a cell
    belongs to the group of the true cell under its centre.

    Args:
        plan: of the true picture.
        true, coded: height and width before and after.
    """
    sides = list(zip(true, coded, strict=True))
    if plan.stacked:
        ranks = np.zeros(MAX_ID + 1, np.uint8)
        ranks[list(plan.stacked)] = np.arange(len(plan.stacked))
        topmost = ranks[plan.ids]
        for axis, (before, after) in enumerate(sides):
            topmost = _greatest_touched(topmost, before, after, axis)
        ids = np.array(plan.stacked, np.uint8)[topmost]
    else:
        ids = plan.ids[np.ix_(*(_under_centres(before, after) for before, after in sides))]
    facts = {group.id: (group.label, group.score) for group in plan.groups}
    kept = {int(value) for value in np.unique(ids)}
    lost = one_sentence(
        [group.label or str(group.id) for group in plan.groups if group.id not in kept],
        "group {} has no cell left in the reduced picture; it vanishes, and its pixels with it",
        "{} groups have no cell left in the reduced picture, and vanish with their pixels: {}",
    )
    return make_plan(ids, facts, [*plan.warnings, *lost], plan.stacked)


def _greatest_touched(
    values: NDArray[np.uint8], before: int, after: int, axis: int
) -> NDArray[np.uint8]:
    """The greatest value among the true cells that each coded cell touches along one axis."""
    edges = np.minimum(np.arange(-(-after // CELL) + 1) * CELL, after) * before  # in 1 / after
    spans = np.stack([edges[:-1] // (CELL * after), -(-edges[1:] // (CELL * after))], 1)
    padded = np.insert(values, values.shape[axis], 0, axis)  # a span may end behind the last cell
    return np.asarray(np.maximum.reduceat(padded, spans.reshape(-1), axis)).take(
        np.arange(0, spans.size, 2), axis
    )


def _under_centres(before: int, after: int) -> NDArray[np.int64]:
    """The true cell under the centre of each coded cell along one side."""
    centre = np.minimum(np.arange(-(-after // CELL)) * CELL + CELL // 2, after - 1)
    return np.asarray((2 * centre + 1) * before // (2 * after) // CELL)


def reduce(
    rgb: NDArray[np.uint8], size: tuple[int, int],
    true: NDArray[np.uint8], coded: NDArray[np.uint8],
) -> NDArray[np.uint8]:  # fmt: skip
    """Scale a picture down, each group on its own, with the filter of `pixels.reduce`.

    Args:
        rgb: (H, W, 3).
        size: height and width to which it is scaled, each at most the true one.
        true: (rows, columns) group id of each cell of `rgb`.
        coded: the same of each cell of the result; each of its cells must have the id of some true
            cell that it overlaps.

    Returns:
        (height, width, 3); of one group within 1 of what `pixels.reduce` gives.
    """
    down, across = (_reach(*sides) for sides in zip(rgb.shape[:2], size, strict=True))
    out = np.empty((*size, 3), np.uint8)
    for row, ids in enumerate(coded):  # of cells: large pictures are never held as floats
        top, bottom = row * CELL, min((row + 1) * CELL, size[0])
        sums = np.zeros((size[1], bottom - top, 4), np.float32)  # colours, and their weight
        columns = np.minimum(across.first[:, None] + np.arange(across.most), size[1] - 1)
        last = down.first + down.most - 1
        for cell in np.flatnonzero((down.first < bottom) & (last >= top)):
            own = ids[columns // CELL] == true[cell][:, None]
            rows = slice(max(top, down.first[cell]), min(bottom, last[cell] + 1))
            if own.any():
                weights = down.weights[cell, rows.start - down.first[cell] :][: _length(rows)]
                strip = rgb[cell * CELL : (cell + 1) * CELL]
                part = sums[:, rows.start - top : rows.stop - top]
                np.add.at(part, columns[own], _partial_sums(strip, weights, across)[own])
        out[top:bottom] = _pixels(sums)
    return out


@dataclass(frozen=True, eq=False)
class _Reach:
    """Which coded pixels the pixels of each true cell reach along one side, and how much.

    Attributes:
        first: (cells,) the first coded pixel that a cell may reach.
        weights: (cells, most, CELL) float32, of the cell's pixels in the coded pixels from `first`
            on; 0 where there is no such pixel.
    """

    first: NDArray[np.int64]
    weights: NDArray[np.float32]

    @property
    def most(self) -> int:
        """How many coded pixels a cell may reach."""
        return int(self.weights.shape[1])


def _reach(before: int, after: int) -> _Reach:
    """Weights of a triangle filter as wide as two coded pixels, with `before` >= `after`."""
    cells = -(-before // CELL)
    pixels = np.arange(cells * CELL).reshape(cells, CELL)
    place = (pixels + 0.5) * (after / before) - 0.5  # in coded pixels
    first = np.maximum(np.floor(place[:, 0]).astype(np.int64), 0)
    most = int((np.floor(place[:, -1]).astype(np.int64) + 2 - first).max())
    reached = first[:, None] + np.arange(most)
    weights = np.maximum(1 - np.abs(place[:, None] - reached[:, :, None]), 0)
    weights[np.broadcast_to(pixels[:, None] >= before, weights.shape)] = 0
    weights[reached >= after] = 0
    return _Reach(first, weights.astype(np.float32))


def _length(span: slice) -> int:
    return int(span.stop - span.start)


def _partial_sums(
    strip: NDArray[np.uint8], weights: NDArray[np.float32], across: _Reach
) -> NDArray[np.float32]:
    """What each cell of one row of true cells adds to the coded pixels that it reaches.

    Args:
        strip: (up to CELL, W, 3), the row's pixels.
        weights: (coded rows, CELL).
        across: of its columns.

    Returns:
        (cells, columns reached, coded rows, 4), colours and weight.
    """
    height, width = strip.shape[:2]
    cells, rows = len(across.first), len(weights)
    values = np.zeros((rows, cells * CELL * 3), np.float32)
    flat = strip.reshape(height, -1).astype(np.float32)
    np.matmul(weights[:, :height], flat, out=values[:, : 3 * width])
    by_cell = values.reshape(rows, cells, CELL, 3).transpose(1, 2, 0, 3).reshape(cells, CELL, -1)
    sums = np.empty((cells, across.most, rows, 4), np.float32)
    sums[..., :3] = np.matmul(across.weights, by_cell).reshape(cells, across.most, rows, 3)
    sums[..., 3] = across.weights.sum(2)[:, :, None] * weights.sum(1)
    return sums


def _pixels(sums: NDArray[np.float32]) -> NDArray[np.uint8]:
    """Pixels (rows, width, 3) of one row of coded cells, of sums (width, rows, 4)."""
    width, height = sums.shape[:2]
    cells = -(-width // CELL)
    padded = np.zeros((cells * CELL, height, 4), np.float32)
    padded[:width] = sums
    total = padded[..., 3]
    values = padded[..., :3] / np.where(total > 0, total, 1)[..., None]
    values = values.reshape(cells, CELL, height, 3)
    there = (total > 0).reshape(cells, CELL, height)
    if not there.all():
        across = _nearest(there.transpose(0, 2, 1)).transpose(0, 2, 1)
        values = np.take_along_axis(values, across[..., None], 1)
        rows = np.broadcast_to(there.any(1)[:, None], there.shape)
        values = np.take_along_axis(values, _nearest(rows)[..., None], 2)
    shown = np.floor(np.clip(values, 0, 255) + 0.5).astype(np.uint8)
    return np.asarray(shown.reshape(-1, height, 3)[:width].transpose(1, 0, 2))


def _nearest(there: NDArray[np.bool_]) -> NDArray[np.int64]:
    """Along the last axis, where the nearest true value is; everywhere 0 where there is none."""
    count = there.shape[-1]
    places = np.arange(count)
    before = np.maximum.accumulate(np.where(there, places, -count), -1)
    after = np.minimum.accumulate(np.where(there, places, 2 * count)[..., ::-1], -1)[..., ::-1]
    nearest = np.where(places - before <= after - places, before, after)
    return np.where(there.any(-1, keepdims=True), nearest, 0)
