"""The networks of a picture codec, and where their training starts."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from dataclasses import asdict
from typing import ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor

from vcmcodec.errors import WeightsError
from vcmcodec.nn.gain import LOG_UNIT
from vcmcodec.nn.lapped import lapped_forward
from vcmcodec.nn.latent_codec import LatentCodec, shape_of, tuples
from vcmcodec.nn.latent_codec import cell_grid as cell_grid
from vcmcodec.nn.latent_model import LatentShape
from vcmcodec.nn.transforms import Analysis, Synthesis, TransformShape, merge_2x2, to_patches


class PictureCodec(LatentCodec):
    """Everything that is learned for one picture profile.

    Args:
        transform: widths and depths.
        latent: slices; its channels are those of the transform's widest latent, and its base
            channels those of the narrowest.
        lmbdas: Lagrange weight of each trained level (loss: lmbda * 255**2 * MSE + bpp).
    """

    KIND: ClassVar[str] = "picture codec"
    REFINED: ClassVar[bool] = True
    # The first and last linear maps carry the whole signal; the residual branches only add to it,
    # and what leaves `merge` is rounded to steps that half precision does not reach.
    FULL_PRECISION: ClassVar[tuple[str, ...]] = ("mean", "patch", "split", "log_inverse")
    analysis: Analysis
    synthesis: Synthesis

    def __init__(
        self, transform: TransformShape, latent: LatentShape, lmbdas: tuple[float, ...]
    ) -> None:
        super().__init__(latent, lmbdas)
        self.transform = transform
        self.analysis = Analysis(transform)
        self.synthesis = Synthesis(transform)

    def description(self) -> dict[str, str]:
        """See `LatentCodec`."""
        return {"transform": json.dumps(asdict(self.transform)), **super().description()}

    @classmethod
    def rebuild(cls, metadata: Mapping[str, str]) -> PictureCodec:
        """See `LatentCodec`."""
        transform = TransformShape(**tuples(json.loads(metadata["transform"])))
        return cls(transform, *shape_of(metadata))

    def check_shape(self) -> None:
        """See `LatentCodec`."""
        widths = self.latent.layer_channels
        if widths != self.transform.latent:
            raise WeightsError(f"slices fill {widths} channels, transforms {self.transform.latent}")


@torch.no_grad()
def start_at_klt(codec: PictureCodec, crops: Tensor) -> None:
    """Set all linear maps to the Karhunen-Loève transform of photographs.

    First the KLT of 8x8 patches (of the lapped picture), then, width by width, the KLT of 2x2 of
    them in the space orthogonal to the narrower widths.  The synthesis gets the transposes, the
    gains the step sizes that are best for an orthonormal transform and loss
    lmbda * 255**2 * MSE + bpp, and the tables each channel's own deviation.

    Args:
        crops: (n, 3, H, W) in 0..1, H and W multiples of 16; 200 crops of 256 pixels serve well.
    """
    shape, analysis, synthesis = codec.transform, codec.analysis, codec.synthesis

    patches = to_patches(lapped_forward(crops, analysis.lapped, None))
    flat = patches.reshape(-1, patches.shape[-1])
    colours = flat.mean(0).view(3, -1).mean(1, keepdim=True)
    mean = colours.expand(3, flat.shape[1] // 3).reshape(-1)
    centred = (flat - mean).double()
    _, vectors = torch.linalg.eigh(centred.T @ centred / len(centred))
    patch = vectors.flip(1).T.float()[: shape.trunk[-1]]
    analysis.mean.copy_(mean)
    analysis.patch.copy_(patch)
    synthesis.patch.weight.copy_(patch.T)
    synthesis.patch.bias.copy_(mean)

    merged = merge_2x2(F.linear(patches - mean, patch)).reshape(-1, shape.merged[-1]).double()
    covariance = merged.T @ merged / len(merged)
    basis = torch.zeros(0, shape.merged[-1], dtype=torch.double)
    for inputs, outputs in zip(shape.merged, shape.latent, strict=True):
        seen = torch.zeros(shape.merged[-1], dtype=torch.double)
        seen[:inputs] = 1
        free = torch.diag(seen)
        if len(basis):
            free = free - (basis * seen).T @ (basis * seen)
        inside = free @ covariance @ free
        _, vectors = torch.linalg.eigh((inside + inside.T) / 2)
        basis = torch.cat([basis, vectors.flip(1).T[: outputs - len(basis)]])
    deviation = (basis @ covariance @ basis.T).diagonal().clamp(min=0).sqrt().float()
    analysis.merge.weight.copy_(basis.float())
    synthesis.split.weight.copy_(basis.T.float())

    for number, lmbda in enumerate(codec.lmbdas):
        step = math.sqrt(26 * 1.2 / (lmbda * 255**2))
        codec.gains.log_gain[number] = -math.log2(step) * LOG_UNIT
        codec.gains.log_inverse[number] = math.log2(step) * LOG_UNIT
        scale = (deviation / step * 0.6).clamp(min=0.11)
        codec.entropy.level_index[number] = torch.log(scale / 0.11) / 0.118
