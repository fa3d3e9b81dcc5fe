"""One latent at stride 16 for one generic feature at stride 8.

    encoder   feature /8 -> blocks /8 -> 2x2 merge -> map -> blocks /16 -> latent
    decoder   latent -> map -> blocks /16 -> map -> 2x2 split -> blocks /8 -> feature

The blocks are recursive gated convolutions (`interactions.py`): 7x7 taps at stride 8, 5x5 at
stride 16, all inside groups.  Linear maps start at principal components and every block at zero,
so that training starts from a transform codec.

Source: the scheme of DICM, a self-supervised and filtered feature that is coded once for several
tasks; ours has no attention, real bits, one model for all rates, and groups.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import ClassVar

import numpy as np
import torch
from torch import Tensor, nn

from vcmcodec.errors import WeightsError
from vcmcodec.nn.geometry import GroupGeometry
from vcmcodec.nn.interactions import GATED, KINDS, InteractionBlock
from vcmcodec.nn.latent_codec import LatentCodec, shape_of, tuples
from vcmcodec.nn.latent_model import LatentShape
from vcmcodec.nn.pyramid_codec import LATENT_STRIDE, FeatureScale
from vcmcodec.nn.transforms import merge_2x2, split_2x2

FEATURE = "c3"  # its name, and that of the split point
REACH = 2  # positions of the latent that any tap reaches


@dataclass(frozen=True)
class SemanticShape:
    """Widths and depths.

    Attributes:
        channels: of the feature.
        width: of the decoder's trunk at stride 16.
        blocks: at stride 16, on either side.
        fine_blocks: at stride 8, on either side.
        order: of the interactions.
        kind: `interactions.GATED` or `PLAIN`.
    """

    channels: int
    width: int = 160
    blocks: int = 1
    fine_blocks: int = 1
    order: int = 3
    kind: str = GATED


def geometry_of(labels: np.ndarray, device: torch.device | None = None) -> GroupGeometry:
    """Masks of a map of group positions (rows, columns) on the latent's grid."""
    return GroupGeometry(labels, REACH).to(device or torch.device("cpu"))


def _blocks(shape: SemanticShape, channels: int, count: int, size: int) -> nn.ModuleList:
    return nn.ModuleList(
        InteractionBlock(channels, shape.order, size, shape.kind) for _ in range(count)
    )


class SemanticAnalysis(nn.Module):
    """g_a: feature (B, C, h, w) -> latent (B, h / 2, w / 2, channels)."""

    def __init__(self, shape: SemanticShape, channels: int) -> None:
        super().__init__()
        self.scale = FeatureScale((FEATURE,), (shape.channels,))
        self.fine = _blocks(shape, shape.channels, shape.fine_blocks, 7)
        self.enter = nn.Linear(4 * shape.channels, channels)
        self.coarse = _blocks(shape, channels, shape.blocks, 5)

    def forward(self, feature: Tensor, geometry: GroupGeometry) -> Tensor:
        """See the class."""
        x = self.scale.normal(FEATURE, feature)
        for block in self.fine:
            x = block(x, geometry.masks8)
        x = self.enter(merge_2x2(x))
        for block in self.coarse:
            x = block(x, geometry.masks16)
        return x


class SemanticSynthesis(nn.Module):
    """g_s: latent (B, h, w, channels) -> feature (B, C, 2 h, 2 w)."""

    def __init__(self, shape: SemanticShape, channels: int) -> None:
        super().__init__()
        self.scale = FeatureScale((FEATURE,), (shape.channels,))
        self.enter = nn.Linear(channels, shape.width)
        self.coarse = _blocks(shape, shape.width, shape.blocks, 5)
        self.leave = nn.Linear(shape.width, 4 * shape.channels)
        self.fine = _blocks(shape, shape.channels, shape.fine_blocks, 7)

    def forward(self, latent: Tensor, geometry: GroupGeometry) -> Tensor:
        """See the class."""
        x = self.enter(latent)
        for block in self.coarse:
            x = block(x, geometry.masks16)
        x = split_2x2(self.leave(x))
        for block in self.fine:
            x = block(x, geometry.masks8)
        return self.scale.restore(FEATURE, x)


class SemanticCodec(LatentCodec):
    """Everything that is learned to code one generic feature.

    Args:
        shape: widths and depths.
        latent: slices.
        lmbdas: Lagrange weight of each trained level (loss: lmbda * error of the feature and of
            what lies behind it, relative to their variance + bits a pixel of the network's input).
        binding: fingerprint of the encoder whose feature this is.
    """

    KIND: ClassVar[str] = "semantic codec"
    FULL_PRECISION: ClassVar[tuple[str, ...]] = ("log_inverse", "scale")
    analysis: SemanticAnalysis
    synthesis: SemanticSynthesis

    def __init__(
        self, shape: SemanticShape, latent: LatentShape, lmbdas: tuple[float, ...], binding: str
    ) -> None:
        super().__init__(latent, lmbdas, binding)
        self.shape = shape
        self.analysis = SemanticAnalysis(shape, latent.channels)
        self.synthesis = SemanticSynthesis(shape, latent.channels)

    def description(self) -> dict[str, str]:
        """See `LatentCodec`."""
        own = {"semantic": json.dumps(asdict(self.shape)), "encoder": self.binding}
        return {**super().description(), **own}

    @classmethod
    def rebuild(cls, metadata: Mapping[str, str]) -> SemanticCodec:
        """See `LatentCodec`."""
        latent, lmbdas = shape_of(metadata)
        shape = SemanticShape(**tuples(json.loads(metadata["semantic"])))
        return cls(shape, latent, lmbdas, metadata["encoder"])

    def check_shape(self) -> None:
        """See `LatentCodec`."""
        if set(self.latent.layers) != {0}:
            raise WeightsError("a semantic feature has a base layer alone")
        if self.shape.kind not in KINDS:
            raise WeightsError(f"no interactions {self.shape.kind}; there are {', '.join(KINDS)}")

    def macs(self) -> tuple[float, float]:
        """Multiplications a pixel of the network's input, of analysis and of synthesis."""
        fine, coarse = (LATENT_STRIDE // 2) ** 2, LATENT_STRIDE**2
        analysis, synthesis = self.analysis, self.synthesis
        entered = analysis.enter.weight.numel()
        left = synthesis.enter.weight.numel() + synthesis.leave.weight.numel()
        return (
            _macs(analysis.fine) / fine + (entered + _macs(analysis.coarse)) / coarse,
            _macs(synthesis.fine) / fine + (left + _macs(synthesis.coarse)) / coarse,
        )


def _macs(blocks: nn.ModuleList) -> int:
    return sum(block.macs() for block in blocks if isinstance(block, InteractionBlock))
