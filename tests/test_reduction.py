"""Pictures with groups are scaled down group by group: what is scaled knows its own group alone."""

from __future__ import annotations

import tracemalloc

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from photographs import photograph, pixels_of
from vcmcodec import grouping, pixels, reduction

Drawn = tuple[np.ndarray, tuple[int, int], grouping.GroupPlan]


@st.composite
def reductions(draw: st.DrawFn) -> Drawn:
    """A piece of a photograph, a smaller size, and groups: boxes, or a mask of cells."""
    height, width = draw(st.integers(1, 150)), draw(st.integers(1, 170))
    rgb = photograph("astronaut", height, width, 30, 150)
    size = draw(st.integers(1, height)), draw(st.integers(1, width))
    seed = draw(st.integers(0, 2**32 - 1))
    random = np.random.default_rng(seed)
    if draw(st.booleans()):
        cells = random.integers(0, 5, (-(-height // 16), -(-width // 16))).astype(np.uint8)
        return rgb, size, grouping.from_mask(cells, height, width)
    boxes = [
        {"box": [*(random.random(2) * (width, height)), *(random.random(2) * (width, height))]}
        for _ in range(random.integers(1, 5))
    ]
    return rgb, size, grouping.from_boxes(boxes, height, width)


def by_masks(rgb: np.ndarray, size: tuple[int, int], plan: grouping.GroupPlan) -> list[np.ndarray]:
    """Each group's picture times its mask, and its mask, reduced by Pillow on floats."""
    out = []
    for position in range(len(plan.groups)):
        mask = pixels_of(plan.labels == position, *rgb.shape[:2]).astype(np.float32)
        planes = [*(rgb[..., channel] * mask for channel in range(3)), mask]
        scaled = [
            np.asarray(Image.fromarray(plane).resize(size[::-1], Image.Resampling.BILINEAR))
            for plane in planes
        ]
        out.append(np.stack(scaled, -1))
    return out


@settings(max_examples=60, deadline=None, derandomize=True)
@given(reductions())
def test_a_coded_pixel_is_the_mean_of_its_own_groups_pixels(drawn: Drawn) -> None:
    rgb, size, plan = drawn
    coded = reduction.reduce_groups(plan, (rgb.shape[0], rgb.shape[1]), size)
    found = reduction.reduce(rgb, size, plan.ids, coded.ids)
    assert found.shape == (*size, 3)
    ids, checked = pixels_of(coded.ids, *size), 0
    for group, wanted in zip(plan.groups, by_masks(rgb, size, plan), strict=True):
        weight = wanted[..., 3]
        there = (ids == group.id) & (weight > 1e-3)
        colours = wanted[there][:, :3] / weight[there][:, None]
        assert np.abs(found[there] - colours).max(initial=0) < 0.6
        checked += int(there.sum())
    assert checked > 0


@settings(max_examples=60, deadline=None, derandomize=True)
@given(reductions(), st.integers(0, 4))
def test_what_other_groups_show_does_not_matter(drawn: Drawn, which: int) -> None:
    rgb, size, plan = drawn
    coded = reduction.reduce_groups(plan, (rgb.shape[0], rgb.shape[1]), size)
    group = coded.groups[which % len(coded.groups)].id
    inside = pixels_of(plan.ids == group, *rgb.shape[:2])[..., None]
    mine = pixels_of(coded.ids == group, *size)
    found = reduction.reduce(rgb, size, plan.ids, coded.ids)[mine]
    lowest, highest = (f(rgb[inside[..., 0]], 0) for f in (np.min, np.max))
    assert ((found >= lowest) & (found <= highest)).all()  # nor does what nobody showed
    for other in (255 - rgb, np.zeros_like(rgb)):
        changed = np.where(inside, rgb, other)
        assert np.array_equal(reduction.reduce(changed, size, plan.ids, coded.ids)[mine], found)


def test_what_a_group_does_not_fill_of_a_cell_is_completed_from_the_nearest() -> None:
    rgb = np.full((64, 64, 3), 200, np.uint8)
    rgb[:, :16] = 10
    rgb[:, 16:32] = 30
    plan = grouping.from_boxes([{"box": [0, 0, 32, 64]}], 64, 64)
    coded = reduction.reduce_groups(plan, (64, 64), (24, 24))
    assert coded.ids.tolist() == [[1, 0], [1, 0]]
    found = reduction.reduce(rgb, (24, 24), plan.ids, coded.ids)[0, :, 0]
    assert found[:5].tolist() == [10] * 5
    assert found[7:].tolist() == [30] * 9 + [200] * 8  # its true cells end at 12


@pytest.mark.parametrize("size", [(30, 40), (119, 159), (120, 7), (1, 1)])
def test_one_group_is_scaled_as_a_picture_without_groups(size: tuple[int, int]) -> None:
    rgb = photograph("coffee", 120, 160, 60, 150)
    cells = np.zeros((8, 10), np.uint8)
    coded = np.zeros((-(-size[0] // 16), -(-size[1] // 16)), np.uint8)
    found = reduction.reduce(rgb, size, cells, coded).astype(int)
    assert np.abs(found - pixels.reduce(rgb, size)).max() <= 1


def test_a_large_picture_is_never_held_as_floats() -> None:
    rgb = np.zeros((2400, 3200, 3), np.uint8)
    cells = (np.indices((150, 200)).sum(0) // 20 % 7).astype(np.uint8)
    plan = grouping.from_mask(cells, 2400, 3200)
    coded = reduction.reduce_groups(plan, (2400, 3200), (312, 416))
    tracemalloc.start()
    reduction.reduce(rgb, (312, 416), plan.ids, coded.ids)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 0.25 * rgb.nbytes
