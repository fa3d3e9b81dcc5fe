"""Nested encoder and slimmable decoder: views of the wide one, at their own cost."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch

from photographs import NAMES, astronaut, photograph
from vcmcodec.evaluation.macs import count_kmacs
from vcmcodec.models import load_model
from vcmcodec.nn.blocks import NestedBlock, NestedLinear, SlimmableBlock, depthwise, part_slices
from vcmcodec.nn.gain import Level
from vcmcodec.nn.geometry import GroupGeometry
from vcmcodec.nn.picture_codec import PictureCodec, start_at_klt
from vcmcodec.profiles import scene

LABELS = np.array([[0, 0, 1, 1], [0, 2, 2, 1], [3, 2, 0, 0]])


def images(count: int = 2) -> torch.Tensor:
    """(count, 3, 48, 64) in 0..1."""
    rgb = np.stack([photograph(NAMES[i % 4], 48, 64, 90 + 16 * i, 130) for i in range(count)])
    return torch.from_numpy(rgb).permute(0, 3, 1, 2).float() / 255


def shaken(codec: PictureCodec) -> PictureCodec:
    """Untrained networks in which every residual branch does something."""
    torch.manual_seed(4)
    with torch.no_grad():
        for name, value in codec.named_parameters():
            if "blocks" in name:
                value.add_(torch.randn(value.shape) * 0.05)
    return codec.requires_grad_(False)


@pytest.fixture(scope="module")
def codec() -> PictureCodec:
    return shaken(scene.build())


@pytest.mark.parametrize("masked", [False, True])
def test_a_narrow_encoder_is_a_view_of_the_wide_one(codec: PictureCodec, masked: bool) -> None:
    geometry = GroupGeometry(LABELS) if masked else None
    wide = codec.analysis(images(), geometry, 3)
    assert [p.shape[-1] for p in wide] == [64, 96, 160]
    for widths in (1, 2):
        narrow = codec.analysis(images(), geometry, widths)
        assert len(narrow) == widths
        for part, same in zip(narrow, wide, strict=False):
            assert torch.equal(part, same)


def test_wide_parts_see_narrow_ones_and_not_the_other_way() -> None:
    torch.manual_seed(1)
    layer = NestedLinear((2, 4, 8), (3, 6, 9))
    x = [torch.randn(1, 2, 2, c) for c in (2, 2, 4)]
    out = layer(x)
    assert [tuple(o.shape) for o in out] == [(1, 2, 2, 3)] * 3
    for changed in range(3):
        other = layer([p + (k == changed) for k, p in enumerate(x)])
        for k, (a, b) in enumerate(zip(out, other, strict=True)):
            assert torch.equal(a, b) == (k < changed)
    assert not NestedLinear((2, 4), (3, 6)).weight[:3, 2:].any()


@pytest.mark.parametrize("masked", [False, True])
def test_taps_are_a_3x3_convolution_inside_groups(masked: bool) -> None:
    """Against a plain loop over cells and neighbours."""
    torch.manual_seed(1)
    geometry = GroupGeometry(LABELS)
    x = torch.randn(1, 3, 4, 5)
    weight, bias = torch.randn(5, 1, 3, 3), torch.randn(5)
    found = depthwise(x, weight, bias, geometry.masks16 if masked else None)
    for y in range(3):
        for column in range(4):
            total = bias.clone()
            for dy in (-1, 0, 1):
                for dx in (-1, 0, 1):
                    at = y + dy, column + dx
                    if not (0 <= at[0] < 3 and 0 <= at[1] < 4):
                        continue
                    if not masked or LABELS[at] == LABELS[y, column]:
                        total += weight[:, 0, dy + 1, dx + 1] * x[0, at[0], at[1]]
            assert torch.allclose(found[0, y, column], total, atol=1e-5)


def test_a_new_block_changes_nothing() -> None:
    x = torch.randn(1, 2, 3, 8)
    parts = [x[..., s] for s in part_slices((2, 4, 8))]
    assert all(map(torch.equal, NestedBlock((2, 4, 8))(parts, None), parts))
    assert torch.equal(SlimmableBlock(8)(x, None), x)


def test_a_narrow_width_costs_at_most_a_quarter(codec: PictureCodec) -> None:
    image, pixels = images(1), 48 * 64
    encoder = [
        count_kmacs(lambda w=w: codec.analysis(image, None, w), pixels)[0]  # type: ignore[misc]
        for w in (1, 2, 3)
    ]
    decoder = [
        count_kmacs(lambda c=c: codec.synthesis(torch.randn(1, 3, 4, c), None), pixels)[0]  # type: ignore[misc]
        for c in codec.transform.latent
    ]
    for cost in (encoder, decoder):
        assert cost == sorted(cost)
        assert cost[0] <= cost[2] / 4
        assert cost[0] <= 2.5  # kMAC a pixel, the design's budget
        assert cost[2] <= 10


def test_the_start_is_a_transform_codec() -> None:
    """At its KLT start and unquantised, full width gives a photograph back."""
    torch.manual_seed(2)
    codec = scene.build().requires_grad_(False)
    pieces = [
        photograph(name, 128, 128, top, left)
        for name in NAMES
        for top in (0, 100, 170)
        for left in (60, 200)
    ]
    crops = torch.from_numpy(np.stack(pieces)).permute(0, 3, 1, 2).float() / 255
    start_at_klt(codec, crops)
    image = torch.from_numpy(astronaut(96, 128)).permute(2, 0, 1)[None].float() / 255
    errors = []
    for widths in (1, 2, 3):
        latent = torch.cat(codec.analysis(image, None, widths), -1)
        shown = codec.synthesis(latent, None)
        errors.append(-10 * math.log10(float((shown - image).square().mean())))
    assert errors == sorted(errors)
    assert errors[2] > 30, errors
    merge = codec.analysis.merge.weight
    assert torch.allclose(merge @ merge.T, torch.eye(len(merge)), atol=1e-4)
    for number in range(3):  # what a wide width adds is unseen by narrow ones
        rows = part_slices(codec.transform.latent)[number]
        assert not merge[rows, codec.transform.merged[number] :].any()
    gain = codec.gains.gain(Level(5000, scene.LEVELS), slice(0, 3))
    inverse = codec.gains.inverse(Level(5000, scene.LEVELS), slice(0, 3))
    assert torch.allclose(gain * inverse, torch.ones(3), atol=1e-5)


def test_the_halo_is_how_far_values_reach(codec: PictureCodec) -> None:
    """Not a cell less, or tiles would show; not a cell more, or they would cost."""
    halo, columns = codec.transform.halo_cells, 11
    image = torch.rand(1, 3, 16, 16 * columns, generator=torch.Generator().manual_seed(1))
    latent = torch.cat(codec.analysis(image, None, 3), -1)
    touched = image.clone()
    touched[..., 80:96] = 1 - touched[..., 80:96]  # the middle cell
    other = torch.cat(codec.analysis(touched, None, 3), -1)
    cells = (latent != other).any(-1)[0, 0].nonzero().flatten().tolist()
    assert cells == list(range(5 - halo, 5 + halo + 1))
    shown = codec.synthesis(latent, None)
    moved = latent.clone()
    moved[:, :, 5] += 1
    pixels = (codec.synthesis(moved, None) != shown).any(2).any(1)[0]
    cells = pixels.reshape(columns, 16).any(1).nonzero().flatten().tolist()
    assert cells == list(range(5 - halo, 5 + halo + 1))


def test_the_trained_encoder_is_nested_too() -> None:
    codec = load_model("scene").codec
    wide = codec.analysis(images(1), GroupGeometry(LABELS), 3)
    assert torch.equal(codec.analysis(images(1), GroupGeometry(LABELS), 1)[0], wide[0])
