"""From the decoded base latent to the tensor at a split point of the vision network.

    latent /16, level, present -> 1x1 -> residual block at /16 -> 1x1 to 2x2 -> 3x3 to 2x2 at /8
        -> residual blocks at /4 -> 3x3 down -> residual blocks at /8 = split tensor c3

What stands before the stage at stride 4 unpacks the latent, which is nearly a linear image of the
picture, and starts as the best linear guess; what follows has the shape of the vision network's own
stages c2 (without its first layer) and c3, and starts as a copy of them.  No pixel is made.
Nothing here decides a symbol, so a better transform may replace this one without breaking a file.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
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
        channels: channels of the split tensor c3, at stride 8.
        early: channels of the vision network's c2, at stride 4.
        width: channels of the block at stride 16.
        blocks: residual blocks at stride 16.
        unpacked: channels at stride 8 on the way to stride 4.
        early_blocks, split_blocks: residual blocks of the vision network's c2 and c3.
    """

    base_channels: int = 64
    levels: int = 8
    channels: int = 64
    early: int = 32
    width: int = 96
    blocks: int = 1
    unpacked: int = 64
    early_blocks: int = 1
    split_blocks: int = 1


def level_features(level: Level, levels: int) -> Tensor:
    """A rate level as (levels,) weights: how near it is to each trained level; they sum to one."""
    share = level.part / RATE_LEVEL_MAX
    features = torch.zeros(levels)
    features[level.low] = 1 - share
    features[level.low + 1] = share
    return features


class _Residual(nn.Module):
    """Two 3x3 convolutions beside a shortcut, ReLU inside; behind it an activation, or nothing.

    Where nothing is behind it, it starts as the identity.
    """

    def __init__(self, channels: int, act: Callable[[Tensor], Tensor] | None = F.silu) -> None:
        super().__init__()
        self.act = act
        self.first = nn.Conv2d(channels, channels, 3, padding=1)
        self.second = nn.Conv2d(channels, channels, 3, padding=1)
        for layer, gain in ((self.first, 1.0), (self.second, 0.2 if act else 0.0)):
            nn.init.kaiming_normal_(layer.weight, nonlinearity="relu")
            assert layer.bias is not None
            nn.init.zeros_(layer.bias)
            with torch.no_grad():
                layer.weight.mul_(gain)

    def forward(self, x: Tensor) -> Tensor:
        """(N, channels, h, w) to the same shape."""
        x = x + self.second(F.relu(self.first(x)))
        return self.act(x) if self.act else x


def _before_last(channels: int, blocks: int) -> nn.Sequential:
    """All residual blocks of a stage but the last, as in `vision.network.stage`."""
    return nn.Sequential(*(_Residual(channels, F.relu) for _ in range(blocks - 1)))


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
        self.blocks = nn.Sequential(*(_Residual(config.width, None) for _ in range(config.blocks)))
        self.spread = nn.Conv2d(config.width, 4 * config.unpacked, 1)
        self.unpack = nn.Conv2d(config.unpacked, 4 * config.early, 3, padding=1)
        self.early_first = _before_last(config.early, config.early_blocks)
        self.early = _Residual(config.early)
        self.down = nn.Conv2d(config.early, config.channels, 3, stride=2, padding=1)
        self.split_first = _before_last(config.channels, config.split_blocks)
        self.split = _Residual(config.channels)

    @torch.no_grad()
    def adapt(self, latent: Tensor) -> None:
        """Set mean and scale from latents, (..., base channels)."""
        flat = latent.reshape(-1, latent.shape[-1])
        self.mean.copy_(flat.mean(0))
        self.scale.copy_(1 / flat.std(0).clamp(min=1e-3))

    @torch.no_grad()
    def start_unpacking(self, latent: Tensor, wanted: Tensor) -> None:
        """Begin with the best linear guess, cell by cell, of what enters the stage at stride 4.

        The guess, (4 x 4 positions) x channels a cell, goes through `unpacked` channels at stride
        8: the principal components of its 2 x 2 positions.

        Args:
            latent: (N, rows, columns, base channels), dequantised, after `adapt`.
            wanted: (N, early, 4 * rows, 4 * columns), before the activation.
        """
        config = self.config
        known = ((latent - self.mean) * self.scale).reshape(-1, config.base_channels)
        known = torch.cat((known, torch.ones(len(known), 1)), 1).double()
        # (N, early * 4, 2 rows, 2 columns), then the four of a cell as blocks of early * 4
        halves = F.pixel_unshuffle(wanted.double(), 2)
        cells = torch.stack([halves[:, :, y::2, x::2] for y in (0, 1) for x in (0, 1)], 1)
        cells = cells.permute(0, 3, 4, 1, 2).reshape(len(known), 4, -1)
        gram = known.T @ known
        ridge = 1e-3 * gram.diagonal().mean() * torch.eye(len(gram), dtype=gram.dtype)
        guess = torch.linalg.solve(gram + ridge, known.T @ cells.flatten(1))
        said = (known @ guess).reshape(-1, cells.shape[-1])
        middle = cells.mean((0, 1))
        _, vectors = torch.linalg.eigh((said - middle).T @ (said - middle))
        basis = vectors.flip(1)[:, : config.unpacked]
        spread = guess.reshape(-1, 4, len(middle)) @ basis
        spread[-1] -= middle @ basis
        self._write_unpacking(spread, basis, middle)

    def _write_unpacking(self, spread: Tensor, basis: Tensor, middle: Tensor) -> None:
        """Set layers: spread (base channels + 1, 4, k), the constant last; basis (early * 4, k)."""
        count = self.config.base_channels
        for layer in (self.entry, self.spread, self.unpack):
            nn.init.normal_(layer.weight, std=1e-3)
            assert layer.bias is not None
            nn.init.zeros_(layer.bias)
        self.entry.weight[:count, :count, 0, 0] += torch.eye(count)
        assert self.spread.bias is not None
        assert self.unpack.bias is not None
        for where in range(4):  # pixel_shuffle reads channel c * 4 + where
            for k in range(spread.shape[2]):
                row = k * 4 + where
                self.spread.weight[row, :count, 0, 0] = spread[:-1, where, k].float()
                self.spread.bias[row] = spread[-1, where, k].float()
        self.unpack.weight[:, : basis.shape[1], 1, 1] += basis.float()
        self.unpack.bias.copy_(middle.float())

    @torch.no_grad()
    def start_from(self, stages: Mapping[str, tuple[Tensor, Tensor]]) -> None:
        """Copy the vision network's own stages.

        Args:
            stages: kernel and bias of every layer from `early_first` on, by its name here.

        Raises:
            ValueError: a kernel is of another shape.
        """
        for name, (kernel, bias) in stages.items():
            layer = self.get_submodule(name)
            assert isinstance(layer, nn.Conv2d)
            assert layer.bias is not None
            if layer.weight.shape != kernel.shape:
                raise ValueError(
                    f"{name} is {tuple(kernel.shape)}, not {tuple(layer.weight.shape)}"
                )
            layer.weight.copy_(kernel)
            layer.bias.copy_(bias)

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
        return self.stages(latent, level_features, present)[1]

    def stages(
        self, latent: Tensor, level_features: Tensor, present: Tensor
    ) -> tuple[Tensor, Tensor]:
        """What is rebuilt at stride 4 (the vision network's c2) and at stride 8 (its c3)."""
        known = (latent - self.mean) * self.scale * present
        x = self.entry(torch.cat((known, present), -1).permute(0, 3, 1, 2))
        x = x + self.level(level_features).reshape(-1, self.config.width, 1, 1)
        x = F.pixel_shuffle(self.spread(self.blocks(x)), 2)
        early = self.early(self.early_first(F.silu(F.pixel_shuffle(self.unpack(x), 2))))
        return early, self.split(self.split_first(F.silu(self.down(early))))
