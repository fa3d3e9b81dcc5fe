"""From the decoded base latent to the tensor at a split point of the vision network.

    latent /16, level -> residual blocks -> split to /8 -> residual block -> with `present`, a 3x3
        of its own for each quarter of a cell -> 1x1 at /4
        = what enters the stem's activation at /2 -> residual stages at /4 and /8 = split tensor c3

Up to the 3x3 stand the layers of the picture codec's own synthesis at its narrowest width: behind
them a picture is a linear image of what they give, the same in every cell, and what enters the
stem's activation is one of the picture.  So the 3x3 and the 1x1 start as the best linear guess, and
no pixel is made.  What follows has the shape of the vision network's own stages c2 and c3.  All but
the guess starts as a copy.  Nothing here decides a symbol, so a better transform may replace this
one without breaking a file.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from vcmcodec.nn.blocks import SlimmableBlock, SlimmableLinear
from vcmcodec.nn.gain import RATE_LEVEL_MAX, Level
from vcmcodec.nn.transforms import Synthesis, split_2x2

LATENT_STRIDE, SPLIT_STRIDE = 16, 8


@dataclass(frozen=True)
class FeatureTransformConfig:
    """Every number that decides the transform's shape.

    Attributes:
        base_channels: channels of the base latent.
        levels: trained rate levels of the codec that the latent comes from.
        channels: channels of the split tensor c3, at stride 8.
        early: channels of the vision network's c2, at stride 4.
        stem: channels of its stem, at stride 2.
        blocks, halves, fine_blocks: residual blocks at stride 16, channels and residual blocks at
            stride 8, as in the codec's synthesis at its narrowest width.
        quarters: channels on the way at stride 4.
        early_blocks, split_blocks: residual blocks of the vision network's c2 and c3.
    """

    base_channels: int = 64
    levels: int = 8
    channels: int = 64
    early: int = 32
    stem: int = 32
    blocks: int = 3
    halves: int = 48
    fine_blocks: int = 1
    quarters: int = 56
    early_blocks: int = 2
    split_blocks: int = 2


def level_features(level: Level, levels: int) -> Tensor:
    """A rate level as (levels,) weights: how near it is to each trained level; they sum to one."""
    share = level.part / RATE_LEVEL_MAX
    features = torch.zeros(levels)
    features[level.low] = 1 - share
    features[level.low + 1] = share
    return features


class _Residual(nn.Module):
    """Two 3x3 convolutions beside a shortcut, ReLU inside; an activation behind."""

    def __init__(self, channels: int, act: Callable[[Tensor], Tensor] = F.silu) -> None:
        super().__init__()
        self.act = act
        self.first = nn.Conv2d(channels, channels, 3, padding=1)
        self.second = nn.Conv2d(channels, channels, 3, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        """(N, channels, h, w) to the same shape."""
        return self.act(x + self.second(F.relu(self.first(x))))


def _before_last(channels: int, blocks: int) -> nn.Sequential:
    """All residual blocks of a stage but the last, as in `vision.network.stage`."""
    return nn.Sequential(*(_Residual(channels, F.relu) for _ in range(blocks - 1)))


class FeatureTransform(nn.Module):
    """Base latent of some cells -> the split tensor `c3` of a picture of those cells."""

    def __init__(self, config: FeatureTransformConfig | None = None) -> None:
        super().__init__()
        self.config = config = config or FeatureTransformConfig()
        base, halves = config.base_channels, config.halves
        self.level = nn.Linear(config.levels, base, bias=False)
        nn.init.zeros_(self.level.weight)
        self.blocks = nn.ModuleList(SlimmableBlock(base) for _ in range(config.blocks))
        self.part = SlimmableLinear(base, 4 * halves)
        self.fine_blocks = nn.ModuleList(SlimmableBlock(halves) for _ in range(config.fine_blocks))
        self.guess = nn.ModuleList(  # one for each place in a cell: the lapped filter spans a cell
            nn.Conv2d(halves + 1, 4 * config.quarters, 3, stride=2) for _ in range(4)
        )
        self.rise = nn.Conv2d(config.quarters, 4 * config.stem, 1)
        self.descend = nn.Conv2d(config.stem, config.early, 3, stride=2, padding=1)
        self.early_first = _before_last(config.early, config.early_blocks)
        self.early = _Residual(config.early)
        self.down = nn.Conv2d(config.early, config.channels, 3, stride=2, padding=1)
        self.split_first = _before_last(config.channels, config.split_blocks)
        self.split = _Residual(config.channels)

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

    @torch.no_grad()
    def start_guess(self, latent: Tensor, wanted: Tensor) -> None:
        """Begin with the best linear guess, from 3 x 3 halves of cells, of what enters the stem.

        Args:
            latent: (N, rows, columns, base channels), dequantised, after `start_from_synthesis`.
            wanted: (N, stem, 8 * rows, 8 * columns).
        """
        config = self.config
        known = self._halves(latent, torch.zeros(config.levels), torch.ones_like(latent[..., :1]))
        # (N, stem * 4, 4 rows, 4 columns), then (cells, 4 halves, 4 quarters, stem * 4)
        count, rows, columns, _ = latent.shape
        size = 4 * config.stem
        quarters = F.pixel_unshuffle(wanted.double(), 2)
        nested = quarters.reshape(count, size, rows, 2, 2, columns, 2, 2)
        parts = nested.permute(0, 2, 5, 3, 6, 4, 7, 1).reshape(-1, 4, 4, size)
        guesses, said = [], []
        for place, seen in enumerate(_places(known)):
            around = F.unfold(seen, 3, stride=2).transpose(1, 2).flatten(0, 1).double()
            around = torch.cat((around, torch.ones_like(around[:, :1])), 1)
            gram = around.T @ around
            ridge = 1e-4 * gram.diagonal().mean() * torch.eye(len(gram), dtype=gram.dtype)
            guesses.append(torch.linalg.solve(gram + ridge, around.T @ parts[:, place].flatten(1)))
            said.append((around @ guesses[-1]).reshape(-1, parts.shape[-1]))
        middle = parts.mean((0, 1, 2))
        spread = torch.cat(said) - middle
        _, vectors = torch.linalg.eigh(spread.T @ spread)
        basis = vectors.flip(1)[:, : config.quarters]
        kept = basis.shape[1]
        for layer, guess in zip(self.guess, guesses, strict=True):
            assert isinstance(layer, nn.Conv2d)
            assert layer.bias is not None
            nn.init.normal_(layer.weight, std=1e-3)
            coefficients = guess.reshape(-1, 4, len(middle)) @ basis
            coefficients[-1] -= middle @ basis
            turned = coefficients.permute(2, 1, 0)  # (quarters, 4 corners, inputs and the constant)
            shape = (4 * kept, *layer.weight.shape[1:])
            layer.weight[: 4 * kept] = turned[..., :-1].reshape(shape).float()
            layer.bias[: 4 * kept] = turned[..., -1].reshape(-1).float()
        nn.init.normal_(self.rise.weight, std=1e-3)
        # pixel_unshuffle put stem and corner together as pixel_shuffle takes them apart
        self.rise.weight[:, :kept, 0, 0] = basis.float()
        assert self.rise.bias is not None
        self.rise.bias.copy_(middle.float())

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
        known = self._halves(latent, level_features, present)
        places = [guess(seen) for guess, seen in zip(self.guess, _places(known), strict=True)]
        x = F.pixel_shuffle(torch.stack(places, 2).flatten(1, 2), 2)
        x = F.pixel_shuffle(self.rise(F.pixel_shuffle(x, 2)), 2)
        early = self.early(self.early_first(F.silu(self.descend(F.silu(x)))))
        return early, self.split(self.split_first(F.silu(self.down(early))))

    def _halves(self, latent: Tensor, level_features: Tensor, present: Tensor) -> Tensor:
        """What is known at stride 8, (N, halves + 1, h, w); last, what is there."""
        x = latent * present + self.level(level_features).reshape(-1, 1, 1, latent.shape[-1])
        for block in self.blocks:
            x = block(x, None)
        x = split_2x2(self.part(x, 4 * self.config.halves))
        for block in self.fine_blocks:
            x = block(x, None)
        there = present.repeat_interleave(2, 1).repeat_interleave(2, 2)
        return torch.cat((x, there), -1).permute(0, 3, 1, 2)


def _places(known: Tensor) -> list[Tensor]:
    """(N, C, h, w), padded and moved so that a 3x3 of stride 2 is around one half of each cell."""
    padded = F.pad(known, (1, 1, 1, 1))
    return [padded[:, :, row:, column:] for row in (0, 1) for column in (0, 1)]


def _copy_corner(own: SlimmableLinear, other: SlimmableLinear) -> None:
    outputs, inputs = own.weight.shape
    own.weight.copy_(other.weight[:outputs, :inputs])
    own.bias.copy_(other.bias[:outputs])
