"""Bottleneck units: one small encoder and decoder for each tensor that crosses a split point.

    edge     tensor -> depthwise 3x3 -> 2x2 merge (fine tensors) -> 1x1 -> block -> gains -> round
    server   symbols -> inverse gains -> 1x1 -> 2x2 split (fine tensors) -> block -> tensor

The network on both sides is frozen and never changed; a unit is a few ten thousand parameters.
Another split point is another set of units, another rate another vector of steps.  Every tensor
that crosses has a unit, so nothing reaches the server that was not coded.

A tensor at stride 4 is looked at in 2x2 blocks, as one of stride 8 with four times the channels.
The server's residual block is narrower than its tensor where that is very wide.

Symbols are coded by one static table a channel and trained rate level, so a unit needs no entropy
network.  Every spatial tap stays inside its group (`geometry.py`).

Source: Ahuja, Datta, Kanzariya, Somayazulu, Tickoo, "Neural rate estimator and unsupervised
learning for efficient distributed image analytics in split-DNN models", CVPR 2023 (SPIC); ours has
signed latents that start at principal components, residual blocks, gains for all rates, and groups.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass

import torch
from torch import Tensor, nn

from vcmcodec.errors import WeightsError
from vcmcodec.nn.blocks import NestedBlock, SlimmableBlock, depthwise
from vcmcodec.nn.gain import RATE_LEVEL_MAX, Gains, Level
from vcmcodec.nn.latent_codec import tuples
from vcmcodec.nn.pyramid_codec import LATENT_STRIDE, LevelGeometry
from vcmcodec.nn.pyramid_codec import STRIDES as LEVEL_STRIDES
from vcmcodec.nn.transforms import merge_2x2, split_2x2

STRIDES = (4, *LEVEL_STRIDES)
FOLDED = 4  # the stride of tensors that are looked at in 2x2 blocks
MAX_PARAMETERS = 600_000  # of one unit
BLOCK_PARAMETERS = 200_000  # about as many of them may its server's residual block have
MAX_LEVELS = 64
MAX_LAYERS = 3


@dataclass(frozen=True)
class UnitShape:
    """One unit.

    Attributes:
        split: split point at which it stands.
        name: of the tensor that it codes.
        channels: of that tensor.
        stride: picture pixels a cell of that tensor, one of `STRIDES`.
        latent: channels that are coded.
        layer: of a file that holds it, 0 for the base.
    """

    split: str
    name: str
    channels: int
    stride: int
    latent: int
    layer: int = 0

    @property
    def latent_stride(self) -> int:
        """Picture pixels a position of the latent: 16 or 32."""
        return max(self.stride, LATENT_STRIDE)

    @property
    def values(self) -> int:
        """Numbers of the tensor under one position of the latent."""
        return self.channels * (self.latent_stride // self.stride) ** 2

    @property
    def block_stride(self) -> int:
        """Picture pixels a cell of the grid on which taps and residual block work."""
        return 2 * FOLDED if self.stride == FOLDED else self.stride

    @property
    def block_channels(self) -> int:
        """Numbers of the tensor under one cell of that grid."""
        return self.channels * (self.block_stride // self.stride) ** 2

    @property
    def block_hidden(self) -> int:
        """Channels inside the server's residual block."""
        return min(self.block_channels, BLOCK_PARAMETERS // (2 * self.block_channels))


@dataclass(frozen=True)
class BottleneckShape:
    """All units of a model, and how many rate levels each was trained for."""

    units: tuple[UnitShape, ...]
    levels: int

    @property
    def splits(self) -> tuple[str, ...]:
        """Names of the split points, in the order of the units."""
        return tuple(dict.fromkeys(unit.split for unit in self.units))

    def of(self, split: str) -> dict[str, UnitShape]:
        """Units of a split point by the tensor's name."""
        return {unit.name: unit for unit in self.units if unit.split == split}

    def layers(self, split: str) -> tuple[tuple[str, ...], ...]:
        """Names of the tensors that each layer of a file adds, base first."""
        units = self.of(split).values()
        count = 1 + max(unit.layer for unit in units)
        return tuple(tuple(u.name for u in units if u.layer == i) for i in range(count))


def key(split: str, name: str) -> str:
    """What a unit is called in state dictionaries and weight files."""
    return f"{split}_{name}"


def nearest_level(rate_level: int, levels: int) -> int:
    """The trained level, 0 .. levels - 1, whose tables code a rate level; in integers."""
    return (2 * rate_level * (levels - 1) + RATE_LEVEL_MAX) // (2 * RATE_LEVEL_MAX)


class Unit(nn.Module):
    """Encoder and decoder of one tensor; see the module.

    Attributes:
        mean, deviation: of the tensor's channels and of all its values, from training pictures.
    """

    mean: Tensor
    deviation: Tensor

    def __init__(self, shape: UnitShape, levels: int) -> None:
        super().__init__()
        self.shape = shape
        self.register_buffer("mean", torch.zeros(shape.channels))
        self.register_buffer("deviation", torch.ones(1))
        self.taps = nn.Parameter(torch.zeros(shape.block_channels, 1, 3, 3))
        self.taps.data[:, 0, 1, 1] = 1
        self.taps_bias = nn.Parameter(torch.zeros(shape.block_channels))
        self.enter = nn.Linear(shape.values, shape.latent)
        self.refine = NestedBlock((shape.latent,), expansion=1)
        self.gains = Gains(levels, shape.latent)
        self.leave = nn.Linear(shape.latent, shape.values)
        self.restore = SlimmableBlock(shape.block_channels, hidden=shape.block_hidden)

    @property
    def merges(self) -> bool:
        """Whether the grid of taps and blocks is finer than the latent's."""
        return self.shape.block_stride < self.shape.latent_stride

    @property
    def folds(self) -> bool:
        """Whether the tensor is looked at in 2x2 blocks."""
        return self.shape.stride < self.shape.block_stride

    def normal(self, tensor: Tensor) -> Tensor:
        """The tensor with mean 0 and variance 1, channels last, on the grid of taps and blocks.

        Args:
            tensor: (B, C, h, w) as the network gives it.

        Returns:
            (B, h, w, C), or (B, h / 2, w / 2, 4 C) where it is looked at in 2x2 blocks.
        """
        values = (tensor.permute(0, 2, 3, 1) - self.mean) / self.deviation
        return merge_2x2(values) if self.folds else values

    def analyse(self, tensor: Tensor, geometry: LevelGeometry) -> Tensor:
        """Edge: (B, C, h, w) -> latent (B, rows, columns, latent), before any gain."""
        x = depthwise(
            self.normal(tensor), self.taps, self.taps_bias, geometry.masks[self.shape.block_stride]
        )
        latent: Tensor = self.enter(merge_2x2(x) if self.merges else x)
        (latent,) = self.refine([latent], geometry.masks[self.shape.latent_stride])
        return latent

    def steps(self, latent: Tensor, level: Level) -> Tensor:
        """Latent (..., latent) in quantisation steps of a level."""
        return latent * self.gains.gain(level, slice(None))

    def synthesise(self, symbols: Tensor, level: Level, geometry: LevelGeometry) -> Tensor:
        """Server: symbols (B, rows, columns, latent) -> tensor (B, C, h, w)."""
        out = self.synthesise_normal(symbols, level, geometry)
        return (out * self.deviation + self.mean).permute(0, 3, 1, 2)

    def synthesise_normal(self, symbols: Tensor, level: Level, geometry: LevelGeometry) -> Tensor:
        """The same before mean and deviation are put back: (B, h, w, C)."""
        out = self.leave(symbols * self.gains.inverse(level, slice(None)))
        if self.merges:
            out = split_2x2(out)
        restored: Tensor = self.restore(out, geometry.masks[self.shape.block_stride])
        return split_2x2(restored) if self.folds else restored


class BottleneckCodec(nn.Module):
    """All units of one network.

    Args:
        shape: the units.
        lmbdas: Lagrange weight of each trained level (loss: lmbda * distance + bits a pixel of the
            network's input).
        binding: fingerprint of the vision network whose tensors these are.
        network: that network as `vision.backend.open_backend` knows it, without its file
            (`torchvision:resnet18`), where it is not the package's own.

    Attributes:
        FULL_PRECISION: parts of names of tensors that are stored in float32, not float16.
    """

    FULL_PRECISION = ("log_inverse", "mean", "deviation")

    def __init__(
        self, shape: BottleneckShape, lmbdas: tuple[float, ...], binding: str, network: str = ""
    ) -> None:
        super().__init__()
        self.shape, self.lmbdas, self.binding, self.network = shape, lmbdas, binding, network
        self.units = nn.ModuleDict(
            {key(unit.split, unit.name): Unit(unit, shape.levels) for unit in shape.units}
        )
        self.check_shape()

    def unit(self, split: str, name: str) -> Unit:
        """The unit of a tensor at a split point."""
        found = self.units[key(split, name)]
        assert isinstance(found, Unit)
        return found

    def level(self, rate_level: int) -> Level:
        """A rate level 0..10000 as a place between the trained ones."""
        return Level(rate_level, self.shape.levels)

    def lmbda(self, level: Level) -> float:
        """The Lagrange weight of a rate level, interpolated in the log domain."""
        return float(torch.exp(level.floats(torch.log(torch.tensor(self.lmbdas)))))

    def description(self) -> dict[str, str]:
        """Metadata of a weight file from which `rebuild` makes the same codec, untrained."""
        about = {
            "bottleneck": json.dumps(asdict(self.shape)),
            "lmbdas": json.dumps(self.lmbdas),
            "vision": self.binding,
        }
        return about | ({"network": self.network} if self.network else {})

    @classmethod
    def rebuild(cls, metadata: Mapping[str, str]) -> BottleneckCodec:
        """The codec that `description` described; may raise KeyError, TypeError, ValueError."""
        fields = tuples(json.loads(metadata["bottleneck"]))
        units = tuple(UnitShape(**unit) for unit in fields["units"])
        shape = BottleneckShape(units, int(fields["levels"]))
        network = metadata.get("network", "")
        return cls(shape, tuple(json.loads(metadata["lmbdas"])), metadata["vision"], network)

    def check_shape(self) -> None:
        """Raise WeightsError where units cannot be built or are too large."""
        if not 2 <= self.shape.levels <= MAX_LEVELS or len(self.lmbdas) != self.shape.levels:
            raise WeightsError(f"{self.shape.levels} rate levels, {len(self.lmbdas)} weights")
        for split in self.shape.splits:
            layers = self.shape.layers(split)
            if len(layers) > MAX_LAYERS or not all(layers):
                raise WeightsError(f"split point {split} has layers {layers}")
        for name, unit in self.units.items():
            assert isinstance(unit, Unit)
            if unit.shape.stride not in STRIDES:
                raise WeightsError(f"unit {name} has stride {unit.shape.stride}, not {STRIDES}")
            size = sum(value.numel() for value in unit.parameters())
            if size > MAX_PARAMETERS:
                raise WeightsError(f"unit {name} has {size} parameters; {MAX_PARAMETERS} allowed")
