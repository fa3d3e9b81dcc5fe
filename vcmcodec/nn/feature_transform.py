"""From the decoded base latent to the tensor at a split point of the vision network.

    latent /16, level -> residual blocks -> split to /8 -> residual block -> 3x3
                      -> 3x3, residual block, split to /8 -----------------> sum
        -> residual blocks -> split tensor c3 /8

No pixel is made, and nothing runs at a finer stride than the split tensor's, so this takes half as
long as a preview and the network's first stages.  The first path begins with the layers of the
picture codec's own synthesis at its narrowest width: behind them a picture is a linear image of
what they give.  The second sees a wider surrounding, which tells what a few coefficients belong to.
Nothing here decides a symbol, so a better transform may replace this one without breaking a file.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from vcmcodec.nn.blocks import SlimmableBlock, SlimmableLinear
from vcmcodec.nn.gain import RATE_LEVEL_MAX, Level
from vcmcodec.nn.transforms import Synthesis, split_2x2

SPLIT_STRIDE = 8


@dataclass(frozen=True)
class FeatureTransformConfig:
    """Every number that decides the transform's shape.

    Attributes:
        base_channels: channels of the base latent.
        levels: trained rate levels of the codec that the latent comes from.
        channels: channels of the split tensor c3, at stride 8.
        blocks, halves, fine_blocks: residual blocks at stride 16, channels and residual blocks at
            stride 8, as in the codec's synthesis at its narrowest width.
        around: channels of the second path, at stride 16.
        split_blocks: residual blocks behind the sum.
    """

    base_channels: int = 64
    levels: int = 8
    channels: int = 64
    blocks: int = 3
    halves: int = 48
    fine_blocks: int = 1
    around: int = 128
    split_blocks: int = 4


def level_features(level: Level, levels: int) -> Tensor:
    """A rate level as (levels,) weights: how near it is to each trained level; they sum to one."""
    share = level.part / RATE_LEVEL_MAX
    features = torch.zeros(levels)
    features[level.low] = 1 - share
    features[level.low + 1] = share
    return features


class _Residual(nn.Module):
    """Two 3x3 convolutions beside a shortcut, ReLU inside; an activation behind."""

    def __init__(self, channels: int, act: Callable[[Tensor], Tensor] = F.relu) -> None:
        super().__init__()
        self.act = act
        self.first = nn.Conv2d(channels, channels, 3, padding=1)
        self.second = nn.Conv2d(channels, channels, 3, padding=1)
        nn.init.normal_(self.second.weight, std=0.2 / (9 * channels) ** 0.5)

    def forward(self, x: Tensor) -> Tensor:
        """(N, channels, h, w) to the same shape."""
        return self.act(x + self.second(F.relu(self.first(x))))


class FeatureTransform(nn.Module):
    """Base latent of some cells -> the split tensor `c3` of a picture of those cells."""

    def __init__(self, config: FeatureTransformConfig | None = None) -> None:
        super().__init__()
        self.config = config = config or FeatureTransformConfig()
        base, halves, channels = config.base_channels, config.halves, config.channels
        self.level = nn.Linear(config.levels, base, bias=False)
        nn.init.zeros_(self.level.weight)
        self.blocks = nn.ModuleList(SlimmableBlock(base) for _ in range(config.blocks))
        self.part = SlimmableLinear(base, 4 * halves)
        self.fine_blocks = nn.ModuleList(SlimmableBlock(halves) for _ in range(config.fine_blocks))
        self.enter = nn.Conv2d(halves + 1, channels, 3, padding=1)
        self.around = nn.Sequential(
            nn.Conv2d(base + 1, config.around, 3, padding=1),
            nn.SiLU(),
            _Residual(config.around),
            nn.Conv2d(config.around, 4 * channels, 1),
        )
        self.split = nn.Sequential(
            *(_Residual(channels) for _ in range(config.split_blocks - 1)),
            _Residual(channels, F.silu),  # c3 ends in SiLU, and reaches below zero
        )
        self.mixed = False  # whether the convolutions run in bfloat16

    @torch.no_grad()
    def start_from_synthesis(self, synthesis: Synthesis) -> None:
        """Copy the layers at strides 16 and 8 of a picture codec's synthesis, narrowest width."""
        for own, others in (
            (self.blocks, synthesis.latent_blocks),
            (self.fine_blocks, synthesis.trunk_blocks),
        ):
            for mine, other in zip(own, others, strict=True):
                assert isinstance(mine, SlimmableBlock)
                assert isinstance(other, SlimmableBlock)
                channels = len(mine.taps)
                mine.taps.copy_(other.taps[:channels])
                mine.taps_bias.copy_(other.taps_bias[:channels])
                _copy_corner(mine.expand, other.expand)
                _copy_corner(mine.reduce, other.reduce)
        _copy_corner(self.part, synthesis.split)

    def forward(self, latent: Tensor, level_features: Tensor, present: Tensor) -> Tensor:
        """Rebuild the split tensor.

        Args:
            latent: (N, rows, columns, base channels) dequantised, float32, as
                `PictureCodec.dequantise` gives it; cells that are not there hold anything finite.
            level_features: (N, levels) or (levels,), from `level_features`.
            present: (N, rows, columns, 1), 1 where the cell's group was decoded, else 0.

        Returns:
            (N, channels, 2 * rows, 2 * columns).
        """
        known = latent * present + self.level(level_features).reshape(-1, 1, 1, latent.shape[-1])
        x = known
        for block in self.blocks:
            x = block(x, None)
        x = split_2x2(self.part(x, 4 * self.config.halves))
        for block in self.fine_blocks:
            x = block(x, None)
        there = present.repeat_interleave(2, 1).repeat_interleave(2, 2)
        fine, coarse = _planes(torch.cat((x, there), -1)), _planes(torch.cat((known, present), -1))
        with torch.autocast(latent.device.type, torch.bfloat16, enabled=self.mixed):
            joined = self.enter(fine) + F.pixel_shuffle(self.around(coarse), 2)
            split: Tensor = self.split(F.silu(joined))
        return split.float()


def _planes(x: Tensor) -> Tensor:
    """(N, h, w, C) as (N, C, h, w), channels last in memory."""
    return x.permute(0, 3, 1, 2).contiguous(memory_format=torch.channels_last)


def _copy_corner(own: SlimmableLinear, other: SlimmableLinear) -> None:
    outputs, inputs = own.weight.shape
    own.weight.copy_(other.weight[:outputs, :inputs])
    own.bias.copy_(other.bias[:outputs])
