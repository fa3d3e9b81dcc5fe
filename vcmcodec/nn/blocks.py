"""Nested and slimmable layers: the parts of which the transforms are made.

Features are (B, rows, columns, channels), so that a 1x1 convolution is one matrix product.
The encoder carries its features as a list of parts, one a width: the narrow part, then what each
wider width adds.  Each part is computed by its own matrix product from itself and the narrower
ones, so the narrow part's bits are the same whether or not the others are computed.
"""

from __future__ import annotations

from itertools import pairwise

import torch
import torch.nn.functional as F
from torch import Tensor, nn

Masks = tuple[Tensor, ...] | None


def part_slices(widths: tuple[int, ...]) -> list[slice]:
    """Channels that each width adds."""
    return [slice(low, high) for low, high in pairwise((0, *widths))]


def depthwise(x: Tensor, weight: Tensor, bias: Tensor, masks: Masks) -> Tensor:
    """Depthwise convolution of (B, H, W, C) inside groups; taps (C, 1, k, k), k odd.

    With masks, each colour is convolved alone and kept on its own cells; what other groups hold is
    multiplied by an exact zero.  Cost grows with the colours, not with the groups.  The masks must
    have been drawn for the reach of the taps (`geometry.GroupGeometry`).
    """
    image = x.permute(0, 3, 1, 2)
    channels, reach = image.shape[1], weight.shape[-1] // 2
    if masks is None:
        out = F.conv2d(image, weight, bias, padding=reach, groups=channels)
        return out.permute(0, 2, 3, 1)
    total = None
    for mask in masks:
        plane = mask.permute(2, 0, 1)
        one = F.conv2d(image * plane, weight, None, padding=reach, groups=channels) * plane
        total = one if total is None else total + one
    assert total is not None
    return total.permute(0, 2, 3, 1) + bias


class NestedLinear(nn.Module):
    """A 1x1 map whose matrix is block lower triangular over the widths (encoder)."""

    def __init__(
        self, inputs: tuple[int, ...], outputs: tuple[int, ...], *, zero: bool = False
    ) -> None:
        super().__init__()
        self.inputs, self.outputs = inputs, outputs
        weight = torch.zeros(outputs[-1], inputs[-1])
        if not zero:
            for rows, columns in zip(part_slices(outputs), inputs, strict=True):
                weight[rows, :columns] = torch.randn(weight[rows, :columns].shape) / columns**0.5
        self.weight = nn.Parameter(weight)
        self.bias = nn.Parameter(torch.zeros(outputs[-1]))

    def forward(self, parts: list[Tensor]) -> list[Tensor]:
        """Parts (B, H, W, inputs added by each width) -> parts of the outputs."""
        out = []
        for k, rows in enumerate(part_slices(self.outputs)[: len(parts)]):
            x = parts[0] if k == 0 else torch.cat(parts[: k + 1], -1)
            out.append(F.linear(x, self.weight[rows, : self.inputs[k]], self.bias[rows]))
        return out


class NestedBlock(nn.Module):
    """Residual block of the encoder: depthwise 3x3, 1x1 to twice the channels, ReLU, 1x1 back.

    The last map starts at zero, so a new block changes nothing until it is trained.
    """

    def __init__(self, widths: tuple[int, ...], expansion: int = 2) -> None:
        super().__init__()
        self.widths = widths
        hidden = tuple(expansion * c for c in widths)
        self.taps = nn.Parameter(torch.randn(widths[-1], 1, 3, 3) * 0.1)
        self.taps.data[:, 0, 1, 1] += 1
        self.taps_bias = nn.Parameter(torch.zeros(widths[-1]))
        self.expand = NestedLinear(widths, hidden)
        self.reduce = NestedLinear(hidden, widths, zero=True)
        self.mixed = False  # training may run the branch in bfloat16; the sum stays float32

    def forward(self, parts: list[Tensor], masks: Masks) -> list[Tensor]:
        """Parts (B, H, W, channels a width adds) -> parts of the same shapes."""
        slices = part_slices(self.widths)
        spread = [
            depthwise(x, self.taps[s], self.taps_bias[s], masks)
            for x, s in zip(parts, slices, strict=False)
        ]
        with torch.autocast(parts[0].device.type, torch.bfloat16, enabled=self.mixed):
            branch = self.reduce([F.relu(h) for h in self.expand(spread)])
        return [x + b.float() for x, b in zip(parts, branch, strict=True)]


class SlimmableLinear(nn.Module):
    """A 1x1 map of which a narrow decoder uses the top left corner (decoder, dense)."""

    def __init__(self, inputs: int, outputs: int, *, zero: bool = False) -> None:
        super().__init__()
        weight = torch.zeros(outputs, inputs)
        if not zero:
            weight.normal_(0, inputs**-0.5)
        self.weight = nn.Parameter(weight)
        self.bias = nn.Parameter(torch.zeros(outputs))

    def forward(self, x: Tensor, outputs: int) -> Tensor:
        """(B, H, W, inputs used) -> (B, H, W, outputs)."""
        return F.linear(x, self.weight[:outputs, : x.shape[-1]], self.bias[:outputs])


class SlimmableBlock(nn.Module):
    """Residual block of the decoder: as `NestedBlock`, dense at every width.

    Args:
        channels: of the widest width.
        expansion: channels between the two maps, in multiples of those of a width.
        hidden: channels between the two maps at every width, in place of `expansion`.
    """

    def __init__(self, channels: int, expansion: int = 2, *, hidden: int | None = None) -> None:
        super().__init__()
        self.expansion, self.hidden = expansion, hidden
        between = expansion * channels if hidden is None else hidden
        self.taps = nn.Parameter(torch.randn(channels, 1, 3, 3) * 0.1)
        self.taps.data[:, 0, 1, 1] += 1
        self.taps_bias = nn.Parameter(torch.zeros(channels))
        self.expand = SlimmableLinear(channels, between)
        self.reduce = SlimmableLinear(between, channels, zero=True)
        self.mixed = False

    def forward(self, x: Tensor, masks: Masks) -> Tensor:
        """(B, H, W, channels of one width) -> the same shape."""
        channels = x.shape[-1]
        spread = depthwise(x, self.taps[:channels], self.taps_bias[:channels], masks)
        with torch.autocast(x.device.type, torch.bfloat16, enabled=self.mixed):
            between = self.expansion * channels if self.hidden is None else self.hidden
            branch = self.reduce(F.relu(self.expand(spread, between)), channels)
        return x + branch.float()
