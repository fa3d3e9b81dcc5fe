"""Colours, masks, neighbour tables and phases against plain loops."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays

from vcmcodec.nn.geometry import (
    TAPS,
    GroupGeometry,
    colour_groups,
    neighbour_rows,
    phase_rows,
)
from vcmcodec.profiles.tiles import Rectangle, expand, tiles

label_maps = arrays.arrays(
    np.int64,
    st.tuples(st.integers(1, 7), st.integers(1, 7)),
    elements=st.integers(0, 5),
)
quick = settings(max_examples=80, deadline=None, derandomize=True)


def around(labels: np.ndarray, y: int, x: int) -> list[tuple[int, int] | None]:
    """The nine places around a cell; None where the place is outside or another group's."""
    rows, columns = labels.shape
    out: list[tuple[int, int] | None] = []
    for dy, dx in TAPS:
        at = y + dy, x + dx
        inside = 0 <= at[0] < rows and 0 <= at[1] < columns
        out.append(at if inside and labels[at] == labels[y, x] else None)
    return out


def cells(labels: np.ndarray) -> list[tuple[int, int]]:
    return [(y, x) for y in range(labels.shape[0]) for x in range(labels.shape[1])]


@quick
@given(label_maps)
def test_groups_that_touch_have_different_colours(labels: np.ndarray) -> None:
    colours = colour_groups(labels)
    assert colours.min() == 0
    assert set(np.unique(colours)) == set(range(int(colours.max()) + 1))
    assert len(np.unique(colours)) <= len(np.unique(labels))
    for y, x in cells(labels):
        for dy, dx in TAPS:
            at = y + dy, x + dx
            if 0 <= at[0] < labels.shape[0] and 0 <= at[1] < labels.shape[1]:
                assert (colours[at] == colours[y, x]) or (labels[at] != labels[y, x])
                assert (colours[at] != colours[y, x]) or (labels[at] == labels[y, x])


@quick
@given(label_maps, st.integers(1, 3))
def test_colours_keep_as_far_apart_as_taps_reach(labels: np.ndarray, reach: int) -> None:
    colours = colour_groups(labels, reach)
    for y, x in cells(labels):
        for v, u in cells(labels):
            if max(abs(v - y), abs(u - x)) <= reach and labels[v, u] != labels[y, x]:
                assert colours[v, u] != colours[y, x]


def test_few_colours_for_many_groups() -> None:
    y, x = np.mgrid[:16, :16]
    squares = (y // 2) * 8 + x // 2  # 64 squares, each touching eight others
    assert colour_groups(squares).max() + 1 <= 6
    islands = np.zeros((15, 15), np.int64)
    islands[1::2, 1::2] = np.arange(1, 50).reshape(7, 7)
    assert colour_groups(islands).max() == 1


@quick
@given(label_maps, st.integers(1, 3))
def test_neighbours_are_those_of_the_own_group(labels: np.ndarray, batch: int) -> None:
    table = neighbour_rows(labels, batch)
    size, columns = labels.size, labels.shape[1]
    assert table.shape == (batch * size, 9)
    for picture in range(batch):
        for row, (y, x) in enumerate(cells(labels)):
            wanted = [
                batch * size if at is None else picture * size + at[0] * columns + at[1]
                for at in around(labels, y, x)
            ]
            assert table[picture * size + row].tolist() == wanted


@pytest.mark.parametrize("phases", [1, 2, 4, 6])
@pytest.mark.parametrize("shape", [(1, 1), (1, 7), (5, 1), (4, 6), (5, 3)])
def test_phases_cover_every_cell_once(shape: tuple[int, int], phases: int) -> None:
    batch, size = 2, shape[0] * shape[1]
    rows = phase_rows(*shape, phases, batch)
    assert len(rows) == phases
    assert sorted(torch.cat(rows).tolist()) == list(range(batch * size))
    order = {
        1: [[0]],
        2: [[0, 1], [1, 0]],
        4: [[0, 2], [3, 1]],
        6: [[0, 4, 2, 4], [5, 3, 5, 3], [2, 4, 1, 4], [5, 3, 5, 3]],
    }[phases]
    for phase, mine in enumerate(rows):
        assert mine.tolist() == sorted(mine.tolist())
        for row in mine.tolist():
            y, x = divmod(row % size, shape[1])
            assert order[y % len(order)][x % len(order)] == phase


@quick
@given(label_maps)
def test_masks_say_the_same_as_the_labels(labels: np.ndarray) -> None:
    geometry = GroupGeometry(labels)
    if len(np.unique(labels)) == 1:
        assert geometry.masks16 is geometry.masks8 is geometry.same_x is geometry.same_y is None
        return
    assert geometry.masks16 is not None
    assert geometry.masks8 is not None
    assert geometry.same_x is not None
    assert geometry.same_y is not None
    assert torch.equal(sum(geometry.masks16), torch.ones(*labels.shape, 1))
    for coarse, fine in zip(geometry.masks16, geometry.masks8, strict=True):
        assert np.array_equal(fine.numpy(), coarse.numpy().repeat(2, 0).repeat(2, 1))
    for y, x in cells(labels):
        if x + 1 < labels.shape[1]:
            assert bool(geometry.same_x[y, x]) == (labels[y, x] == labels[y, x + 1])
        if y + 1 < labels.shape[0]:
            assert bool(geometry.same_y[y, x]) == (labels[y, x] == labels[y + 1, x])


@quick
@given(st.integers(1, 20), st.integers(1, 20), st.integers(0, 7), st.integers(0, 5))
def test_tiles_cover_the_grid_once(rows: int, columns: int, side: int, halo: int) -> None:
    count = np.zeros((rows, columns), np.int64)
    for where in tiles((rows, columns), side):
        count[where.slices] += 1
        assert where.size == where.rows * where.columns > 0
        assert not side or max(where.rows, where.columns) <= side
        wide = expand(where, halo, (rows, columns))
        inner = where.inside(wide)
        numbers = np.arange(rows * columns).reshape(rows, columns)
        assert np.array_equal(numbers[wide.slices][inner.slices], numbers[where.slices])
        assert wide.top == max(0, where.top - halo)
        assert wide.right == min(columns, where.right + halo)
    assert (count == 1).all()


def test_pixels_of_a_rectangle() -> None:
    assert Rectangle(1, 3, 0, 2).pixel_slices == (slice(16, 48), slice(0, 32))
