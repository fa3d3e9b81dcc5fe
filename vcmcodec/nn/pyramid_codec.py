"""One latent for several levels of a feature pyramid, at stride 16 of the network's input.

    encoder   p3 /8 -> 2x2 merge -> map -> block --+--> block --+--> block -> latent /16
                                    p4 /16 -> map -'            |
                                    p5 /32 -> map -> 2x -------'
    decoder   latent -> blocks -+-> 2x2 split -> blocks at /8 -> p3 --.
                                +---------------------------> p4 <----' 2x2 merge (bottom-up mixing)
                                '-> 2x2 merge -> p5 <-- 2x2 merge of p4

Levels are fused stepwise, so that what is large is reduced before more is added.  A level that
`coded` does not name is derived: the encoder never sees it, the decoder rebuilds it from the
latent and the finer level.  The decoder runs only the branches of the levels that are asked for.

Every spatial tap stays inside its group (`geometry.py`).  A coarse cell belongs to the group of
its top left position, and only positions of that group reach it.

Source: Kim, Jeong, Lee, Choi, "End-to-end learnable multi-scale feature compression for VCM",
TCSVT 2023 (L-MSFC); ours has no GDN, no attention, one model for all rates, and groups.
"""

from __future__ import annotations

import json
from collections.abc import Collection, Mapping
from dataclasses import asdict, dataclass
from typing import ClassVar

import numpy as np
import torch
from torch import Tensor, nn

from vcmcodec.errors import WeightsError
from vcmcodec.nn.blocks import NestedBlock, SlimmableBlock
from vcmcodec.nn.geometry import GroupGeometry
from vcmcodec.nn.latent_codec import LatentCodec, shape_of, tuples
from vcmcodec.nn.latent_model import LatentShape
from vcmcodec.nn.transforms import merge_2x2, split_2x2

LATENT_STRIDE = 16  # pixels of the network's input
# Scale of the latent at the start of training: makes the first maps about orthonormal, so that the
# optimiser's steps, which have the size of the learning rate, are small beside their entries.
LATENT_UNIT = 16.0
STRIDES = (8, 16, 32)  # of a level, in terms of the same pixels


@dataclass(frozen=True)
class PyramidShape:
    """Levels, widths and depths.

    Attributes:
        names: of all levels that are rebuilt, the finest first.
        channels, strides: of each, strides from `STRIDES`.
        coded: names of the levels that the encoder sees; the others are derived.
        mixing: (level, finer level) pairs: the finer one, rebuilt, helps to rebuild the coarser.
        width: channels of the decoder's trunk.
        blocks: residual blocks of the trunk.
        fine_blocks: residual blocks at stride 8.
        interleaved: fuse while encoding; else all levels are joined first, and then encoded.
    """

    names: tuple[str, ...]
    channels: tuple[int, ...]
    strides: tuple[int, ...]
    coded: tuple[str, ...]
    mixing: tuple[tuple[str, str], ...] = ()
    width: int = 192
    blocks: int = 2
    fine_blocks: int = 1
    interleaved: bool = True

    @property
    def of(self) -> dict[str, tuple[int, int]]:
        """Channels and stride of each level, by name."""
        pairs = zip(self.channels, self.strides, strict=True)
        return dict(zip(self.names, pairs, strict=True))


def to_grid(level: Tensor, stride: int) -> Tensor:
    """A level (B, h, w, C) at the latent's stride: 2x2 merged, as it is, or repeated."""
    if stride < LATENT_STRIDE:
        return merge_2x2(level)
    if stride > LATENT_STRIDE:
        return level.repeat_interleave(2, 1).repeat_interleave(2, 2)
    return level


class LevelGeometry:
    """Where groups lie on the grids of all strides.

    Args:
        labels: (rows, columns) group positions on the latent's grid, both sides even.

    Attributes:
        masks: of depthwise taps, by stride; see `GroupGeometry`.
        owned: (rows, columns, 1), 1 where a position is of the group of its coarse cell, which is
            that of the cell's top left position; None where there is one group.
    """

    def __init__(self, labels: np.ndarray, device: torch.device | None = None) -> None:
        device = device or torch.device("cpu")
        coarse = labels[::2, ::2]
        fine, wide = GroupGeometry(labels).to(device), GroupGeometry(coarse).to(device)
        self.masks = {8: fine.masks8, 16: fine.masks16, 32: wide.masks16}
        self.owned: Tensor | None = None
        if fine.masks16 is not None:
            owned = labels == coarse.repeat(2, 0).repeat(2, 1)
            self.owned = torch.from_numpy(owned).float()[..., None].to(device)

    def merge(self, x: Tensor) -> Tensor:
        """2x2 merge of (B, h, w, C) on the latent's grid; zeros from cells of other groups."""
        return merge_2x2(x if self.owned is None else x * self.owned)


class FeatureScale(nn.Module):
    """Means of channels and one deviation a level: what makes levels comparable."""

    def __init__(self, names: tuple[str, ...], channels: tuple[int, ...]) -> None:
        super().__init__()
        self.names = names
        for name, count in zip(names, channels, strict=True):
            self.register_buffer(f"mean_{name}", torch.zeros(count))
            self.register_buffer(f"deviation_{name}", torch.ones(1))

    @torch.no_grad()
    def adapt(self, name: str, values: Tensor) -> None:
        """Take mean and deviation from many values of a level, (n, C)."""
        mean = values.mean(0)
        self.get_buffer(f"mean_{name}").copy_(mean)
        deviation = (values - mean).square().mean().sqrt().clamp(min=1e-6)
        self.get_buffer(f"deviation_{name}").copy_(deviation)

    def normal(self, name: str, level: Tensor) -> Tensor:
        """(B, C, h, w) as the network gives it -> (B, h, w, C) with mean 0 and variance 1."""
        centred = level.permute(0, 2, 3, 1) - self.get_buffer(f"mean_{name}")
        return centred / self.get_buffer(f"deviation_{name}")

    def restore(self, name: str, level: Tensor) -> Tensor:
        """Undo `normal`."""
        scaled = level * self.get_buffer(f"deviation_{name}") + self.get_buffer(f"mean_{name}")
        return scaled.permute(0, 3, 1, 2)


class Fusion(nn.Module):
    """g_a: normalised levels -> latent (B, h, w, channels)."""

    def __init__(self, shape: PyramidShape, channels: int) -> None:
        super().__init__()
        self.shape = shape
        self.scale = FeatureScale(shape.names, shape.channels)
        inputs = {name: shape.of[name] for name in shape.coded}
        self.enter = nn.ModuleDict(
            {
                name: nn.Linear(4 * count if stride < LATENT_STRIDE else count, channels)
                for name, (count, stride) in inputs.items()
            }
        )
        self.blocks = nn.ModuleList(NestedBlock((channels,), expansion=1) for _ in shape.coded)

    def forward(self, levels: Mapping[str, Tensor], geometry: LevelGeometry) -> Tensor:
        """Fuse the coded levels, each (B, C, h, w) as the network gives it, the finest first."""
        masks = geometry.masks[LATENT_STRIDE]
        total: Tensor | None = None
        for name, block in zip(self.shape.coded, self.blocks, strict=True):
            level = self.scale.normal(name, levels[name])
            stride = self.shape.of[name][1]
            if stride > LATENT_STRIDE:  # the map first: it is cheaper on the coarser grid
                seen = to_grid(self.enter[name](level), stride)
            else:
                seen = self.enter[name](to_grid(level, stride))
            total = seen if total is None else total + seen
            if self.shape.interleaved:
                (total,) = block([total], masks)
        assert total is not None
        if not self.shape.interleaved:
            for block in self.blocks:
                (total,) = block([total], masks)
        return total


class RebuiltLevel(nn.Module):
    """One level of the decoder: trunk -> level, with the finer level's help."""

    def __init__(self, shape: PyramidShape, name: str) -> None:
        super().__init__()
        count, self.stride = shape.of[name]
        inputs, outputs = shape.width, count
        if self.stride < LATENT_STRIDE:
            outputs = 4 * count
        elif self.stride > LATENT_STRIDE:
            inputs = 4 * shape.width
        self.leave = nn.Linear(inputs, outputs)
        self.mix: nn.Linear | None = None
        finer = dict(shape.mixing).get(name)
        if finer is not None:
            self.mix = nn.Linear(4 * shape.of[finer][0], count)
            nn.init.zeros_(self.mix.weight)
            nn.init.zeros_(self.mix.bias)
        fine = shape.fine_blocks if self.stride < LATENT_STRIDE else 1
        self.blocks = nn.ModuleList(SlimmableBlock(count) for _ in range(fine))

    def forward(self, trunk: Tensor, finer: Tensor | None, geometry: LevelGeometry) -> Tensor:
        """Rebuild (B, h, w, C); `finer` is the normalised finer level where there is mixing."""
        if self.stride > LATENT_STRIDE:
            trunk = geometry.merge(trunk)
        out: Tensor = self.leave(trunk)
        if self.stride < LATENT_STRIDE:
            out = split_2x2(out)
        if self.mix is not None and finer is not None:
            merged = geometry.merge(finer) if self.stride > LATENT_STRIDE else merge_2x2(finer)
            out = out + self.mix(merged)
        for block in self.blocks:
            out = block(out, geometry.masks[self.stride])
        return out


class Rebuild(nn.Module):
    """g_s: latent (B, h, w, channels) -> levels (B, C, h, w), as the network gives them."""

    def __init__(self, shape: PyramidShape, channels: int) -> None:
        super().__init__()
        self.shape = shape
        self.scale = FeatureScale(shape.names, shape.channels)
        self.enter = nn.Linear(channels, shape.width)
        self.blocks = nn.ModuleList(SlimmableBlock(shape.width) for _ in range(shape.blocks))
        self.levels = nn.ModuleDict({name: RebuiltLevel(shape, name) for name in shape.names})

    def forward(
        self, latent: Tensor, geometry: LevelGeometry, names: Collection[str] | None = None
    ) -> dict[str, Tensor]:
        """Rebuild the levels of `names` (all, where it is None), and what they are derived from."""
        normal = self.normal(latent, geometry, names)
        return {name: self.scale.restore(name, normal[name]) for name in normal}

    def normal(
        self, latent: Tensor, geometry: LevelGeometry, names: Collection[str] | None = None
    ) -> dict[str, Tensor]:
        """The same before means and deviations are put back: (B, h, w, C)."""
        trunk = self.enter(latent)
        for block in self.blocks:
            trunk = block(trunk, geometry.masks[LATENT_STRIDE])
        wanted = self.needed(self.shape.names if names is None else names)
        finer = dict(self.shape.mixing)
        out: dict[str, Tensor] = {}
        for name in wanted:
            helper = out[finer[name]] if name in finer else None
            out[name] = self.levels[name](trunk, helper, geometry)
        kept = wanted if names is None else [name for name in wanted if name in names]
        return {name: out[name] for name in kept}

    def needed(self, names: Collection[str]) -> list[str]:
        """Levels that must be rebuilt for those of `names`, each after the one it leans on."""
        finer = dict(self.shape.mixing)
        out: list[str] = []
        for name in self.shape.names:
            chain = [name]
            while chain[-1] in finer:
                chain.append(finer[chain[-1]])
            if name in names:
                out += [one for one in reversed(chain) if one not in out]
        return out


class PyramidCodec(LatentCodec):
    """Everything that is learned for one set of pyramid levels.

    Args:
        shape: levels, widths and depths.
        latent: slices.
        lmbdas: Lagrange weight of each trained level (loss: lmbda * mean over levels of squared
            error relative to the level's variance + bits a pixel of the network's input).
        binding: fingerprint of the vision network whose features these are.
        split: its split point.
    """

    KIND: ClassVar[str] = "pyramid codec"
    FULL_PRECISION: ClassVar[tuple[str, ...]] = ("log_inverse", "scale")
    analysis: Fusion
    synthesis: Rebuild

    def __init__(
        self, shape: PyramidShape, latent: LatentShape, lmbdas: tuple[float, ...], binding: str,
        split: str,
    ) -> None:  # fmt: skip
        super().__init__(latent, lmbdas, binding)
        self.shape, self.split = shape, split
        self.analysis = Fusion(shape, latent.channels)
        self.synthesis = Rebuild(shape, latent.channels)

    def description(self) -> dict[str, str]:
        """See `LatentCodec`."""
        return {
            **super().description(),
            "pyramid": json.dumps(asdict(self.shape)),
            "vision": self.binding,
            "split": self.split,
        }

    @classmethod
    def rebuild(cls, metadata: Mapping[str, str]) -> PyramidCodec:
        """See `LatentCodec`."""
        fields = tuples(json.loads(metadata["pyramid"]))
        fields["mixing"] = tuple(tuple(pair) for pair in fields["mixing"])
        latent, lmbdas = shape_of(metadata)
        shape = PyramidShape(**fields)
        return cls(shape, latent, lmbdas, metadata["vision"], metadata["split"])

    def check_shape(self) -> None:
        """See `LatentCodec`."""
        if set(self.latent.layers) != {0}:
            raise WeightsError("a pyramid has a base layer alone")
        if not set(self.shape.strides) <= set(STRIDES):
            raise WeightsError(f"levels of strides {self.shape.strides}, not {STRIDES}")
