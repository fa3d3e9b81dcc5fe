"""Networks of the pyramid: nothing crosses from group to group, on any of the three grids."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from vcmcodec.nn.latent_model import LatentShape
from vcmcodec.nn.pyramid_codec import LevelGeometry, PyramidCodec, PyramidShape

SHAPE = PyramidShape(
    names=("p3", "p4", "c5", "p5"),
    channels=(5, 7, 9, 6),
    strides=(8, 16, 32, 32),
    coded=("p3", "p4", "c5"),
    mixing=(("p4", "p3"), ("p5", "p4")),
    width=12,
)
LATENT = LatentShape(slices=(4, 8), phases=(2, 2), layers=(0, 0), hyper=2, levels=2)
ROWS, COLUMNS = 6, 8


def codec() -> PyramidCodec:
    """All branches do something."""
    torch.manual_seed(2)
    made = PyramidCodec(SHAPE, LATENT, (1.0, 2.0), "", "fpn")
    with torch.no_grad():
        for name, value in made.named_parameters():
            if name.startswith(("analysis", "synthesis")):
                value.add_(torch.randn(value.shape) * 0.1)
    return made.eval().requires_grad_(False)


def maps() -> list[np.ndarray]:
    y, x = np.mgrid[:ROWS, :COLUMNS]
    scattered = np.random.default_rng(4).integers(0, 5, (ROWS, COLUMNS))
    # 0 and 2 do not touch, and may have one colour, but on the coarse grid they are neighbours
    thin = np.array([0, 1, 2, 2, 3, 4, 2, 2])[x]
    return [x // 4, (x + y) % 3, scattered, thin, (y // 2 * 5 + x // 2) % 7]


def owner(labels: np.ndarray, stride: int) -> np.ndarray:
    """Group of each cell of a level."""
    if stride == 8:
        return labels.repeat(2, 0).repeat(2, 1)
    return labels if stride == 16 else labels[::2, ::2]


@pytest.mark.parametrize("number", range(5))
def test_a_group_is_rebuilt_from_its_own_positions(number: int) -> None:
    labels, made = maps()[number], codec()
    geometry = LevelGeometry(labels)
    latent = torch.randn(1, ROWS, COLUMNS, LATENT.channels)
    whole = made.synthesis(latent, geometry)
    for group in np.unique(labels):
        inside = torch.from_numpy(labels == group)[None, ..., None]
        other = made.synthesis(torch.where(inside, latent, 7 - 3 * latent), geometry)
        for name, (_, stride) in SHAPE.of.items():
            mine = torch.from_numpy(owner(labels, stride) == group)
            assert torch.equal(whole[name] * mine, other[name] * mine), (name, group)
            if not bool(mine.all()) and bool((~mine).any()):
                assert not torch.equal(whole[name], other[name])


@pytest.mark.parametrize("number", range(5))
def test_a_group_is_coded_from_the_cells_over_its_positions(number: int) -> None:
    labels, made = maps()[number], codec()
    geometry = LevelGeometry(labels)
    levels = {
        name: torch.randn(1, count, ROWS * 16 // stride, COLUMNS * 16 // stride)
        for name, (count, stride) in SHAPE.of.items()
    }
    whole = made.analysis(levels, geometry)
    for group in np.unique(labels):
        inside = labels == group
        coarse = inside.reshape(ROWS // 2, 2, COLUMNS // 2, 2).any((1, 3))
        seen = {8: inside.repeat(2, 0).repeat(2, 1), 16: inside, 32: coarse}
        changed = {
            name: torch.where(torch.from_numpy(seen[stride]), levels[name], -5 * levels[name] + 2)
            for name, (_, stride) in SHAPE.of.items()
        }
        other = made.analysis(changed, geometry)
        mine = torch.from_numpy(inside)[None, ..., None]
        assert torch.equal(whole * mine, other * mine), group
        assert not torch.equal(whole, other)


def test_the_derived_level_is_not_seen_by_the_encoder() -> None:
    made, geometry = codec(), LevelGeometry(np.zeros((ROWS, COLUMNS), np.int64))
    levels = {
        name: torch.randn(1, count, ROWS * 16 // stride, COLUMNS * 16 // stride)
        for name, (count, stride) in SHAPE.of.items()
        if name != "p5"
    }
    assert made.analysis(levels, geometry).shape == (1, ROWS, COLUMNS, LATENT.channels)


@pytest.mark.parametrize(
    ("names", "run"),
    [(["c5"], ["c5"]), (["p3", "c5"], ["p3", "c5"]), (["p5"], ["p3", "p4", "p5"])],
)
def test_only_what_is_asked_for_is_rebuilt(names: list[str], run: list[str]) -> None:
    made, geometry = codec(), LevelGeometry(maps()[0])
    latent = torch.randn(1, ROWS, COLUMNS, LATENT.channels)
    called: list[str] = []
    for name, level in made.synthesis.levels.items():
        level.register_forward_hook(lambda *_, name=name: called.append(name))
    part = made.synthesis(latent, geometry, names)
    assert called == run
    assert sorted(part) == sorted(names)
    whole = made.synthesis(latent, geometry)
    assert all(torch.equal(part[name], whole[name]) for name in names)
