"""The networks of a picture codec: transforms, gains, hyper analysis and the entropy model."""

from __future__ import annotations

import math

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from vcmcodec.nn.gain import LOG_UNIT, Gains, Level
from vcmcodec.nn.geometry import neighbour_rows, phase_rows
from vcmcodec.nn.integer import VALUE_UNIT
from vcmcodec.nn.lapped import lapped_forward
from vcmcodec.nn.latent_model import CellGrid, LatentModel, LatentShape
from vcmcodec.nn.transforms import Analysis, Synthesis, TransformShape, merge_2x2, to_patches

HYPER_MAX = 127
HYPER_INPUT = 0.2  # the latent in steps, tamed for the hyper analysis


class HyperAnalysis(nn.Module):
    """h_a: the base's latent in steps (cells, base channels) -> hyper-latent (cells, n), float.

    Encoder side only; 1x1 maps, so groups cannot mix.
    """

    def __init__(self, inputs: int, outputs: int, hidden: int = 64) -> None:
        super().__init__()
        self.first = nn.Linear(inputs, hidden)
        self.last = nn.Linear(hidden, outputs)

    def forward(self, latent: Tensor) -> Tensor:
        """See the class."""
        out: Tensor = self.last(F.relu(self.first(latent * HYPER_INPUT)))
        return out.clamp(-HYPER_MAX, HYPER_MAX)


class PictureCodec(nn.Module):
    """Everything that is learned for one picture profile.

    Args:
        transform: widths and depths.
        latent: slices; its channels are those of the transform's widest latent, and its base
            channels those of the narrowest.
        lmbdas: Lagrange weight of each trained level (loss: lmbda * 255**2 * MSE + bpp).
    """

    def __init__(
        self, transform: TransformShape, latent: LatentShape, lmbdas: tuple[float, ...]
    ) -> None:
        super().__init__()
        self.transform, self.latent, self.lmbdas = transform, latent, lmbdas
        self.analysis = Analysis(transform)
        self.synthesis = Synthesis(transform)
        self.hyper_analysis = HyperAnalysis(latent.base_channels, latent.hyper)
        self.gains = Gains(latent.levels, latent.channels)
        self.entropy = LatentModel(latent)

    def lmbda(self, level: Level) -> float:
        """The Lagrange weight of a rate level, interpolated in the log domain."""
        return float(torch.exp(level.floats(torch.log(torch.tensor(self.lmbdas)))))

    def dequantise(self, values: Tensor, level: Level) -> Tensor:
        """Values in 1/16 steps, (cells, channels) -> latent, float, for the synthesis."""
        inverse = self.gains.inverse(level, slice(0, values.shape[-1]))
        return values * (inverse / VALUE_UNIT)


def cell_grid(labels: np.ndarray, phases: tuple[int, ...], batch: int = 1) -> CellGrid:
    """The traversal tables of a rectangle of cells; labels (rows, columns) are group positions."""
    rows, columns = labels.shape
    return CellGrid(
        neighbours=neighbour_rows(labels, batch),
        phases={n: phase_rows(rows, columns, n, batch) for n in sorted(set(phases))},
    )


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
