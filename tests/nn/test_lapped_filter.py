"""The lapped filter is orthonormal, exactly invertible, and stays inside groups."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from photographs import astronaut
from vcmcodec.nn.geometry import GroupGeometry
from vcmcodec.nn.lapped import lapped_forward, lapped_inverse, lapped_matrix
from vcmcodec.nn.transforms import from_patches, merge_2x2, split_2x2, to_patches

quick = settings(max_examples=25, deadline=None, derandomize=True)


@pytest.mark.parametrize("half", [4, 8])
def test_the_matrix_is_orthonormal(half: int) -> None:
    matrix = lapped_matrix(half)
    assert matrix.shape == (2 * half, 2 * half)
    assert np.abs(matrix @ matrix.T - np.eye(2 * half)).max() < 1e-12


def test_the_matrix_prepares_an_edge() -> None:
    """Not the identity; a flat line across an edge stays flat, so flat pictures cost nothing."""
    matrix = lapped_matrix()
    assert np.abs(matrix - np.eye(16)).max() > 0.1
    assert np.abs(matrix @ np.ones(16) - 1).max() < 1e-12
    steep = np.linspace(-1, 1, 16)
    assert np.abs(matrix @ steep - steep).max() > 0.01


@st.composite
def pictures(draw: st.DrawFn) -> tuple[torch.Tensor, np.ndarray]:
    rows, columns = draw(st.integers(1, 5)), draw(st.integers(1, 5))
    flat = draw(st.lists(st.integers(0, 3), min_size=rows * columns, max_size=rows * columns))
    labels = np.array(flat).reshape(rows, columns)
    random = torch.Generator().manual_seed(draw(st.integers(0, 99)))
    image = torch.rand(2, 3, 16 * rows, 16 * columns, generator=random, dtype=torch.float64)
    return image, labels


@quick
@given(pictures())
def test_the_filter_is_undone_exactly(case: tuple[torch.Tensor, np.ndarray]) -> None:
    image, labels = case
    matrix = torch.from_numpy(lapped_matrix())
    for geometry in (None, GroupGeometry(labels)):
        turned = lapped_forward(image, matrix, geometry)
        assert torch.allclose(lapped_inverse(turned, matrix, geometry), image, atol=1e-12)
        assert torch.isclose(turned.square().sum(), image.square().sum(), rtol=1e-12)


@quick
@given(pictures(), st.sampled_from([2, 4, 8]))
def test_means_are_those_of_the_whole_picture(
    case: tuple[torch.Tensor, np.ndarray], mean: int
) -> None:
    image, labels = case
    matrix = torch.from_numpy(lapped_matrix())
    for geometry in (None, GroupGeometry(labels)):
        whole = lapped_inverse(image, matrix, geometry)
        means = lapped_inverse(image, matrix, geometry, mean)
        assert torch.allclose(means, torch.nn.functional.avg_pool2d(whole, mean), atol=1e-12)


@quick
@given(pictures())
def test_the_filter_stays_inside_groups(case: tuple[torch.Tensor, np.ndarray]) -> None:
    image, labels = case
    matrix = torch.from_numpy(lapped_matrix())
    geometry = GroupGeometry(labels)
    group = labels.flat[0]
    inside = torch.from_numpy((labels == group).repeat(16, 0).repeat(16, 1))
    other = torch.where(inside, image, 1 - image)
    for run in (lapped_forward, lapped_inverse):
        one, two = run(image, matrix, geometry), run(other, matrix, geometry)
        assert torch.equal(one[..., inside], two[..., inside])


def test_edges_between_cells_of_a_group_are_filtered() -> None:
    image = torch.rand(1, 1, 48, 48, dtype=torch.float64)
    matrix = torch.from_numpy(lapped_matrix())
    changed = (lapped_forward(image, matrix, None) - image).abs() > 1e-9
    inner = torch.zeros(48, dtype=torch.bool)
    inner[8:40] = True  # half a cell from the picture's own edge on
    assert not changed[0, 0][~inner][:, ~inner].any()
    assert changed[0, 0][inner].float().mean() > 0.9
    assert changed[0, 0][:, inner].float().mean() > 0.9


def test_a_flat_picture_stays_flat() -> None:
    image = torch.full((1, 3, 64, 48), 0.3, dtype=torch.float64)
    matrix = torch.from_numpy(lapped_matrix())
    assert torch.allclose(lapped_forward(image, matrix, None), image, atol=1e-12)


def test_merging_and_patches_are_undone() -> None:
    x = torch.rand(2, 6, 8, 5)
    assert torch.equal(split_2x2(merge_2x2(x)), x)
    merged = merge_2x2(x)
    assert merged.shape == (2, 3, 4, 20)
    assert torch.equal(merged[0, 1, 2, 4:8], x[0, 2:4, 4:6, 1].flatten())  # channel-major
    assert torch.equal(merge_2x2(x[..., :3]), merged[..., :12])  # a prefix stays a prefix
    image = torch.from_numpy(astronaut(64, 96)).permute(2, 0, 1)[None].float()
    patches = to_patches(image)
    assert torch.equal(from_patches(patches), image)
    assert torch.equal(patches[0, 2, 3, 64:128], image[0, 1, 16:24, 24:32].flatten())
