"""How `pyramid` is trained: rate plus feature error over rate levels and group maps.

The error of a level is its squared error over its variance, so 1 is a level of which nothing came
through; the loss takes the mean over all levels, derived ones included.  The vision network is
frozen, no label is read.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor, nn

from vcmcodec.nn.gain import LOG_UNIT, RATE_LEVEL_MAX, Level
from vcmcodec.nn.latent_codec import cell_grid
from vcmcodec.nn.pyramid_codec import (
    LATENT_STRIDE,
    LATENT_UNIT,
    LevelGeometry,
    PyramidCodec,
    RebuiltLevel,
    to_grid,
)
from vcmcodec.nn.rate_estimate import SCALE_FIRST, SCALE_RATIO
from vcmcodec.profiles.base_layer import code_base
from vcmcodec.training.coder import HyperPrior, TrainingCoder
from vcmcodec.training.photographs import random_labels

Levels = Mapping[str, Tensor]


@dataclass(frozen=True)
class PyramidRecipe:
    """Numbers of the training.

    Attributes:
        levels: names of the levels that are coded and rebuilt; empty for all.
        interleaved: fuse while encoding; see `PyramidShape`.
    """

    crop: int = 256
    batch: int = 4
    steps: int = 20000
    warm_up: int = 200
    rate_transforms: float = 1e-3
    rate_integers: float = 0.15  # weights in units of 1, up to 127
    rate_tables: float = 0.1  # level vectors and biases, in output units
    rate_gains: float = 0.4  # 1/256 octave
    last_rate: float = 0.03  # share of the learning rate that is left at the end
    average: float = 0.999  # of the weights
    grouped: float = 0.2
    levels: tuple[str, ...] = ()
    interleaved: bool = True


@dataclass(frozen=True)
class Draw:
    """What one step trains: a rate level, and the group map of every crop of the batch."""

    level: int
    labels: np.ndarray


def draw(recipe: PyramidRecipe, random: np.random.Generator) -> Draw:
    """Choose level and group map of one step."""
    side = recipe.crop // LATENT_STRIDE
    level = int(random.integers(RATE_LEVEL_MAX + 1))
    if random.random() < recipe.grouped:
        return Draw(level, random_labels(side, side, random))
    return Draw(level, np.zeros((side, side), np.int64))


@dataclass(frozen=True)
class Outcome:
    """What a forward pass gives.

    Attributes:
        errors: of each level, relative to its variance; scalars.
        bits: estimated, scalar.
    """

    errors: dict[str, Tensor]
    bits: Tensor

    @property
    def error(self) -> Tensor:
        """Mean over the levels."""
        return torch.stack(list(self.errors.values())).mean()


def code(
    codec: PyramidCodec, prior: HyperPrior, levels: Levels, plan: Draw, *, noisy: bool
) -> Outcome:
    """Fuse, code and rebuild levels, each (B, C, h, w) as the network gives it."""
    first = codec.shape.names[0]
    count = levels[first].shape[0]
    device = levels[first].device
    geometry = LevelGeometry(plan.labels, device)
    grid = cell_grid(plan.labels, codec.latent.phases, count).to(device)
    level = Level(plan.level, codec.latent.levels)
    latent = codec.analysis(levels, geometry).reshape(grid.size, -1)
    steps = latent * codec.gains.gain(level, slice(0, latent.shape[1]))
    coder = TrainingCoder(steps, codec.hyper_analysis(steps), prior, noisy=noisy)
    values = code_base(codec, coder, grid, level)
    decoded = codec.dequantise(values, level).reshape(count, *plan.labels.shape, -1)
    rebuilt = codec.synthesis.normal(decoded, geometry)
    scale = codec.synthesis.scale
    errors = {
        name: (rebuilt[name] - scale.normal(name, levels[name])).square().mean()
        for name in codec.shape.names
    }
    return Outcome(errors, coder.bits)


def loss(codec: PyramidCodec, outcome: Outcome, plan: Draw, pixels: int) -> Tensor:
    """Rate plus lmbda times error, balanced between levels so that none drowns the others.

    Args:
        pixels: of the network's input, of the whole batch.
    """
    weight = codec.lmbda(Level(plan.level, codec.latent.levels))
    return (weight * outcome.error + outcome.bits / pixels) / (0.5 * weight**0.5)


@torch.no_grad()
def start_at_pca(codec: PyramidCodec, samples: Sequence[Levels]) -> None:
    """Set means, linear maps, gains and tables to the principal components of real features.

    The components are those of all coded levels at one position of the latent, each level scaled
    so that squared error counts as in the loss.  Derived levels start as the linear regression on
    the components.  Residual branches start at zero, so training starts from a transform codec.

    Args:
        samples: levels by name, (B, C, h, w) each; some hundred thousand positions serve well.
    """
    shape, scale = codec.shape, codec.analysis.scale
    for name in shape.names:
        flat = torch.cat([_rows(one[name]) for one in samples])
        scale.adapt(name, flat)
        codec.synthesis.scale.adapt(name, flat)
    parts = {name: _on_grid(codec, samples, name) for name in shape.coded}
    weights = {name: values.shape[1] ** -0.5 for name, values in parts.items()}
    joined = torch.cat([parts[name] * weights[name] for name in shape.coded], 1).double()
    variances, vectors = torch.linalg.eigh(joined.T @ joined / len(joined))
    count = min(codec.latent.channels, vectors.shape[1])
    basis = vectors.flip(1)[:, :count].T.float()
    deviation = torch.zeros(codec.latent.channels)
    deviation[:count] = variances.flip(0)[:count].clamp(min=0).sqrt().float()
    trunk = codec.synthesis.enter
    trunk.weight.zero_()
    trunk.bias.zero_()
    trunk.weight[:count, :count] = torch.eye(count)[: trunk.weight.shape[0]]
    done = 0
    for name in shape.coded:
        size = parts[name].shape[1]
        part = basis[:, done : done + size]
        done += size
        enter = codec.analysis.enter[name]
        assert isinstance(enter, nn.Linear)
        enter.weight.zero_()
        enter.bias.zero_()
        enter.weight[:count] = part * (LATENT_UNIT * weights[name])
        _leave(codec, name, part.T / (LATENT_UNIT * weights[name]))
    latent = joined.float() @ (LATENT_UNIT * basis.T)
    for name in set(shape.names) - set(shape.coded):
        _regress(codec, name, latent, samples)
    _start_levels(codec, LATENT_UNIT * deviation)


def _rows(level: Tensor) -> Tensor:
    """(B, C, h, w) -> (positions, C)."""
    return level.permute(0, 2, 3, 1).reshape(-1, level.shape[1])


def _on_grid(codec: PyramidCodec, samples: Sequence[Levels], name: str) -> Tensor:
    """Normalised level at the latent's stride, (positions, values)."""
    stride = codec.shape.of[name][1]
    rows = [to_grid(codec.analysis.scale.normal(name, one[name]), stride) for one in samples]
    return torch.cat([row.reshape(-1, row.shape[-1]) for row in rows])


def _leave(codec: PyramidCodec, name: str, back: Tensor) -> None:
    """Set the last map of a level to a matrix (values, components)."""
    level = codec.synthesis.levels[name]
    assert isinstance(level, RebuiltLevel)
    width = codec.synthesis.enter.weight.shape[0]
    level.leave.weight.zero_()
    level.leave.bias.zero_()
    used = min(width, back.shape[1])
    if level.stride > LATENT_STRIDE:  # four positions, channel-major: their mean
        wide = back[:, :used, None].expand(-1, -1, 4) / 4
        level.leave.weight[:, : 4 * used] = wide.reshape(len(back), -1)
    else:
        level.leave.weight[:, :used] = back[:, :used]


def _regress(codec: PyramidCodec, name: str, latent: Tensor, samples: Sequence[Levels]) -> None:
    """Start a derived level as the regression of its values on the components."""
    target = _on_grid(codec, samples, name).double()
    inputs = latent.double()
    gram = inputs.T @ inputs
    gram += torch.eye(len(gram)) * (1e-4 * float(gram.diagonal().mean()) + 1e-9)
    _leave(codec, name, torch.linalg.solve(gram, inputs.T @ target).T.float())


def _start_levels(codec: PyramidCodec, deviation: Tensor) -> None:
    """Gains that are best for an orthonormal transform at each lmbda, and tables to go with them.

    A step of s costs lmbda (s / LATENT_UNIT)**2 / (12 levels) a coefficient, and saves
    log2(s) / 256 bits a pixel.
    """
    for number, lmbda in enumerate(codec.lmbdas):
        pixels = LATENT_STRIDE**2
        step = LATENT_UNIT * math.sqrt(
            1.2 * 6 * len(codec.shape.names) / (pixels * math.log(2) * lmbda)
        )
        codec.gains.log_gain[number] = -math.log2(step) * LOG_UNIT
        codec.gains.log_inverse[number] = math.log2(step) * LOG_UNIT
        scale = (deviation / step * 0.6).clamp(min=SCALE_FIRST)
        codec.entropy.level_index[number] = torch.log(scale / SCALE_FIRST) / SCALE_RATIO
