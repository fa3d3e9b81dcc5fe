"""Recursive gated convolutions: their start, their arithmetic, their reach."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode

from vcmcodec.nn.interactions import GATED, PLAIN, GatedConvolution, InteractionBlock
from vcmcodec.nn.semantic_codec import SemanticCodec, SemanticShape, geometry_of
from vcmcodec.profiles import semantic


def awake(module: torch.nn.Module) -> torch.nn.Module:
    """The same, with nothing left at zero."""
    torch.manual_seed(2)
    with torch.no_grad():
        for value in module.parameters():
            value.add_(torch.randn(value.shape) * 0.1)
    return module.requires_grad_(False)


@pytest.mark.parametrize("kind", [GATED, PLAIN])
def test_a_new_block_changes_nothing(kind: str) -> None:
    x = torch.randn(1, 6, 5, 16)
    assert torch.equal(InteractionBlock(16, 3, 5, kind)(x, None), x)


def test_a_product_of_as_many_factors_as_the_order() -> None:
    """Without biases, a gated convolution of order n is a form of degree n + 1."""
    for order in (1, 2, 3):
        module = awake(GatedConvolution(16, order, 3))
        for name, value in module.named_parameters():
            if name.endswith("bias"):
                value.zero_()
        x = torch.randn(1, 5, 5, 16)
        assert torch.allclose(module(2 * x, None), 2 ** (order + 1) * module(x, None), rtol=1e-4)


@pytest.mark.parametrize(("channels", "size"), [(64, 7), (160, 5)])
def test_both_kinds_cost_the_same(channels: int, size: int) -> None:
    gated, plain = (InteractionBlock(channels, 3, size, kind).macs() for kind in (GATED, PLAIN))
    assert plain == pytest.approx(gated, rel=0.01)


@pytest.mark.parametrize("kind", [GATED, PLAIN])
def test_multiplications_are_counted_right(kind: str) -> None:
    shape = SemanticShape(16, width=24, kind=kind)
    codec = SemanticCodec(shape, semantic.LATENT, semantic.LMBDAS, "")
    labels = np.zeros((4, 6), np.int64)
    feature = torch.randn(1, 16, 8, 12)
    counted = []
    for run in (
        lambda: codec.analysis(feature, geometry_of(labels)),
        lambda: codec.synthesis(torch.randn(1, 4, 6, codec.latent.channels), geometry_of(labels)),
    ):
        with FlopCounterMode(display=False) as counter, torch.no_grad():
            run()
        counted.append(counter.get_total_flops() / 2 / (labels.size * 256))
    assert codec.macs() == pytest.approx(tuple(counted), rel=1e-6)


@pytest.mark.parametrize("kind", [GATED, PLAIN])
def test_blocks_stay_inside_groups(kind: str) -> None:
    block = awake(InteractionBlock(16, 3, 5, kind))
    labels = np.zeros((8, 9), np.int64)
    labels[2:5, 1:3], labels[2:5, 4:6] = 1, 2
    masks = geometry_of(labels).masks16
    x = torch.randn(1, 8, 9, 16)
    for group in range(3):
        inside = torch.from_numpy(labels == group)[..., None]
        other = torch.where(inside, x, x.flip(-1) * 3 + 1)
        assert torch.equal(block(x, masks) * inside, block(other, masks) * inside)
    free = block(torch.where(inside, x, x + 1), None)
    assert not torch.equal(free * inside, block(x, None) * inside)
