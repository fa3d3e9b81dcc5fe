"""High-order spatial interactions: recursive gated convolutions, and plain ones beside them.

A gated convolution (gnConv) of order n multiplies n depthwise views of its input into one product,
widening it step by step, so that a position answers to products of n neighbours and not to sums
alone:

    x -> 1x1 -> p0 | q1 .. qn            p1 = p0 * taps(q1)
                                         pk = 1x1(p(k-1)) * taps(qk)   -> 1x1

Source: Rao et al., "HorNet: efficient high-order spatial interactions with recursive gated
convolutions", NeurIPS 2022; ours is written from the paper, on (B, H, W, C), inside groups, and
starts at zero.  `PlainMixing` spends the same arithmetic on one depthwise and two 1x1 maps.
"""

from __future__ import annotations

from itertools import pairwise

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from vcmcodec.nn.blocks import Masks, depthwise

GATED, PLAIN = "gated", "plain"
KINDS = (GATED, PLAIN)


def _taps(channels: int, size: int) -> nn.Parameter:
    """Depthwise taps that mostly pass on what is there, (channels, 1, size, size)."""
    taps = torch.randn(channels, 1, size, size) * (0.3 / size)
    taps[:, 0, size // 2, size // 2] += 1
    return nn.Parameter(taps)


def _zero(linear: nn.Linear) -> nn.Linear:
    """The map, starting at zero, so that a new residual branch changes nothing."""
    nn.init.zeros_(linear.weight)
    nn.init.zeros_(linear.bias)
    return linear


class GatedConvolution(nn.Module):
    """gnConv; see the module.

    Args:
        channels: in and out; a multiple of 2**(order - 1).
        order: factors of the product.
        size: side of the depthwise taps, odd.
    """

    def __init__(self, channels: int, order: int, size: int) -> None:
        super().__init__()
        self.widths = tuple(channels // 2 ** (order - 1 - k) for k in range(order))
        total = sum(self.widths)
        self.project = nn.Linear(channels, self.widths[0] + total)
        self.taps = _taps(total, size)
        self.taps_bias = nn.Parameter(torch.zeros(total))
        self.lifts = nn.ModuleList(nn.Linear(low, high) for low, high in pairwise(self.widths))
        self.join = _zero(nn.Linear(channels, channels))

    def forward(self, x: Tensor, masks: Masks) -> Tensor:
        """(B, H, W, channels) to the same shape."""
        product, views = torch.split(self.project(x), [self.widths[0], sum(self.widths)], -1)
        spread = depthwise(views, self.taps, self.taps_bias, masks)
        gates = torch.split(spread, list(self.widths), -1)
        product = product * gates[0]
        for lift, gate in zip(self.lifts, gates[1:], strict=True):
            product = lift(product) * gate
        out: Tensor = self.join(product)
        return out

    def macs(self) -> int:
        """Multiplications a position."""
        channels = self.widths[-1]
        lifts = sum(low * high for low, high in pairwise(self.widths))
        ends = channels * (self.widths[0] + sum(self.widths)) + channels**2
        return ends + lifts + self.taps.numel()


class PlainMixing(nn.Module):
    """Depthwise taps, then 1x1 up and back: what `GatedConvolution` is measured against.

    Args:
        channels: in and out.
        size: side of the depthwise taps, odd.
        macs: multiplications a position to spend.
    """

    def __init__(self, channels: int, size: int, macs: int) -> None:
        super().__init__()
        hidden = max(1, round((macs - channels * size**2) / (2 * channels)))
        self.taps = _taps(channels, size)
        self.taps_bias = nn.Parameter(torch.zeros(channels))
        self.expand = nn.Linear(channels, hidden)
        self.reduce = _zero(nn.Linear(hidden, channels))

    def forward(self, x: Tensor, masks: Masks) -> Tensor:
        """(B, H, W, channels) to the same shape."""
        spread = depthwise(x, self.taps, self.taps_bias, masks)
        out: Tensor = self.reduce(F.relu(self.expand(spread)))
        return out

    def macs(self) -> int:
        """Multiplications a position."""
        return self.taps.numel() + self.expand.weight.numel() + self.reduce.weight.numel()


class InteractionBlock(nn.Module):
    """Residual block: spatial mixing, then a 1x1 network, each behind a norm of the position.

    Args:
        channels: in and out.
        order, size: of the gated convolution.
        kind: `GATED`, or `PLAIN` for the same arithmetic without products.
    """

    def __init__(self, channels: int, order: int, size: int, kind: str = GATED) -> None:
        super().__init__()
        gated = GatedConvolution(channels, order, size)
        self.mixing: GatedConvolution | PlainMixing = gated
        if kind != GATED:
            self.mixing = PlainMixing(channels, size, gated.macs())
        self.before_mixing = nn.LayerNorm(channels)
        self.before_network = nn.LayerNorm(channels)
        self.expand = nn.Linear(channels, 2 * channels)
        self.reduce = _zero(nn.Linear(2 * channels, channels))

    def forward(self, x: Tensor, masks: Masks) -> Tensor:
        """(B, H, W, channels) to the same shape."""
        x = x + self.mixing(self.before_mixing(x), masks)
        out: Tensor = x + self.reduce(F.relu(self.expand(self.before_network(x))))
        return out

    def macs(self) -> int:
        """Multiplications a position."""
        return self.mixing.macs() + self.expand.weight.numel() + self.reduce.weight.numel()
