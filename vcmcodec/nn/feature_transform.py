"""From the decoded base latent to the tensor at a split point of the vision network.

    latent /16, level, present -> 1x1 -> residual blocks at /16
                               -> 1x1 to 2x2 -> residual blocks at /8 -> split tensor

Plain 3x3 convolutions, no norms: what comes in is scaled channel by channel to about one, and every
residual branch starts at zero.  Nothing here decides a symbol, so a better transform may replace
this one without breaking a file.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from vcmcodec.nn.gain import RATE_LEVEL_MAX, Level

LATENT_STRIDE, SPLIT_STRIDE = 16, 8


@dataclass(frozen=True)
class FeatureTransformConfig:
    """Every number that decides the transform's shape.

    Attributes:
        base_channels: channels of the base latent.
        levels: trained rate levels of the codec that the latent comes from.
        channels: channels of the split tensor.
        width: channels of the blocks at stride 16.
        blocks: residual blocks at stride 16.
        fine_blocks: residual blocks at stride 8.
    """

    base_channels: int = 64
    levels: int = 8
    channels: int = 64
    width: int = 96
    blocks: int = 2
    fine_blocks: int = 1


def level_features(level: Level, levels: int) -> Tensor:
    """A rate level as (levels,) weights: how near it is to each trained level; they sum to one."""
    share = level.part / RATE_LEVEL_MAX
    features = torch.zeros(levels)
    features[level.low] = 1 - share
    features[level.low + 1] = share
    return features


class _Residual(nn.Module):
    """Two 3x3 convolutions beside a shortcut; the second starts at zero."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.first = nn.Conv2d(channels, channels, 3, padding=1)
        self.second = nn.Conv2d(channels, channels, 3, padding=1)
        nn.init.zeros_(self.second.weight)
        nn.init.zeros_(self.second.bias)  # type: ignore[arg-type]

    def forward(self, x: Tensor) -> Tensor:
        """(N, channels, h, w) to the same shape."""
        out: Tensor = x + self.second(F.silu(self.first(F.silu(x))))
        return out


class FeatureTransform(nn.Module):
    """Base latent of some cells -> the split tensor `c3` of a picture of those cells.

    Attributes:
        mean, scale: (base channels,) buffers: (latent - mean) * scale is about normal; set them
            with `adapt` before training.
    """

    mean: Tensor
    scale: Tensor

    def __init__(self, config: FeatureTransformConfig | None = None) -> None:
        super().__init__()
        self.config = config = config or FeatureTransformConfig()
        self.register_buffer("mean", torch.zeros(config.base_channels))
        self.register_buffer("scale", torch.ones(config.base_channels))
        self.entry = nn.Conv2d(config.base_channels + 1, config.width, 1)
        self.level = nn.Linear(config.levels, config.width, bias=False)
        nn.init.zeros_(self.level.weight)
        self.blocks = nn.Sequential(*(_Residual(config.width) for _ in range(config.blocks)))
        self.split = nn.Conv2d(config.width, 4 * config.channels, 1)
        self.fine = nn.Sequential(*(_Residual(config.channels) for _ in range(config.fine_blocks)))
        self.out = nn.Conv2d(config.channels, config.channels, 1)

    @torch.no_grad()
    def adapt(self, latent: Tensor) -> None:
        """Set mean and scale from latents, (..., base channels)."""
        flat = latent.reshape(-1, latent.shape[-1])
        self.mean.copy_(flat.mean(0))
        self.scale.copy_(1 / flat.std(0).clamp(min=1e-3))

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
        known = (latent - self.mean) * self.scale * present
        x = self.entry(torch.cat((known, present), -1).permute(0, 3, 1, 2))
        x = x + self.level(level_features.to(x.device)).reshape(-1, self.config.width, 1, 1)
        fine = F.pixel_shuffle(self.split(self.blocks(x)), LATENT_STRIDE // SPLIT_STRIDE)
        out: Tensor = self.out(F.silu(self.fine(fine)))
        return out
