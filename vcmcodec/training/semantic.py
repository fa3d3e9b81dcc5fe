"""Recipes of `semantic`, one a stage, and how its codec is trained.

    features   encoder and filter learn from pictures alone     semantic_features.py
    codec      the filtered feature is coded                    semantic_run.py
    adaptor    from the decoded feature to a vision network     semantic_adaptor.py

The codec's error is hierarchical: that of the feature and of the two stages behind it, each over
its own variance, so 1 is a stage of which nothing came through.  Stages behind the feature are
frozen while the codec learns, and no label is read.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from vcmcodec.nn.gain import LOG_UNIT, RATE_LEVEL_MAX, Level
from vcmcodec.nn.interactions import GATED
from vcmcodec.nn.latent_codec import cell_grid
from vcmcodec.nn.pyramid_codec import LATENT_STRIDE, LATENT_UNIT
from vcmcodec.nn.rate_estimate import SCALE_FIRST, SCALE_RATIO
from vcmcodec.nn.semantic_codec import FEATURE, SemanticCodec, geometry_of
from vcmcodec.nn.transforms import merge_2x2
from vcmcodec.profiles.base_layer import code_base
from vcmcodec.training.coder import HyperPrior, TrainingCoder
from vcmcodec.training.photographs import random_labels
from vcmcodec.vision.generic import GenericNetwork

# share of each depth in the error
DEPTHS = {FEATURE: 0.5, "c4": 0.25, "c5": 0.25}


@dataclass(frozen=True)
class FeaturesRecipe:
    """Numbers of the self-supervised stage.

    Attributes:
        crop: side of a view, pixels.
        batch: pictures of a step, two views each.
        rate: base learning rate of Adam.
        rate_filter: the same of the filter, whose gates have far to go.
        momentum: of the key encoder, the running average of the weights.
        temperature: of the contrastive losses.
        queue: keys of earlier steps that are negatives too.
        dense: share of the dense loss beside the global one.
        points: that are matched between the views of a picture.
        area: least share of the picture that a view shows.
        guided: whether crops follow the feature's own heat.
        refresh: steps between looks at the heat of all pictures.
        filtered: whether there is a filter.
        filter_from: share of the steps after which its price counts.
        price: weight of the price, in bits a value.
        retained: weight of what a linear map cannot tell of the picture from the filtered feature.
    """

    crop: int = 128
    batch: int = 32
    steps: int = 20000
    warm_up: int = 200
    rate: float = 1e-3
    rate_filter: float = 1e-2
    last_rate: float = 0.02
    momentum: float = 0.99
    temperature: float = 0.2
    queue: int = 4096
    dense: float = 0.5
    points: int = 8
    area: float = 0.2
    guided: bool = True
    refresh: int = 1000
    filtered: bool = True
    filter_from: float = 0.4
    price: float = 0.4
    retained: float = 3.0


@dataclass(frozen=True)
class CodecRecipe:
    """Numbers of the codec's training; see `PyramidRecipe` for those not named here.

    Attributes:
        kind: interactions of the transforms, `interactions.GATED` or `PLAIN`.
        checkerboard: whether every slice is coded in two passes or in one.
    """

    crop: int = 256
    batch: int = 4
    steps: int = 12000
    warm_up: int = 200
    rate_transforms: float = 1e-3
    rate_integers: float = 0.15
    rate_tables: float = 0.1
    rate_gains: float = 0.4
    last_rate: float = 0.03
    average: float = 0.999
    grouped: float = 0.2
    kind: str = GATED
    checkerboard: bool = True


@dataclass(frozen=True)
class Draw:
    """What one step trains: a rate level, and the group map of every crop of the batch."""

    level: int
    labels: np.ndarray


def draw(side: int, grouped: float, random: np.random.Generator) -> Draw:
    """Choose level and group map of one step; `side` in positions of the latent."""
    level = int(random.integers(RATE_LEVEL_MAX + 1))
    if random.random() < grouped:
        return Draw(level, random_labels(side, side, random))
    return Draw(level, np.zeros((side, side), np.int64))


def code(
    codec: SemanticCodec, prior: HyperPrior, feature: Tensor, plan: Draw, *, noisy: bool
) -> tuple[Tensor, Tensor]:
    """Code a feature (B, C, h, w) as it would be coded: what comes back, and estimated bits."""
    count = len(feature)
    geometry = geometry_of(plan.labels, feature.device)
    grid = cell_grid(plan.labels, codec.latent.phases, count)
    level = Level(plan.level, codec.latent.levels)
    latent = codec.analysis(feature, geometry).reshape(grid.size, -1)
    steps = latent * codec.gains.gain(level, slice(0, latent.shape[1]))
    coder = TrainingCoder(steps, codec.hyper_analysis(steps), prior, noisy=noisy)
    values = code_base(codec, coder, grid, level)
    decoded = codec.dequantise(values, level).reshape(count, *plan.labels.shape, -1)
    return codec.synthesis(decoded, geometry), coder.bits


def depths(network: GenericNetwork, feature: Tensor) -> dict[str, Tensor]:
    """A feature and the stages behind it; these in bfloat16 inside, as where heads are trained."""
    with torch.autocast(feature.device.type, torch.bfloat16):
        behind = network.deeper(feature)
    return {FEATURE: feature, **{name: value.float() for name, value in behind.items()}}


@torch.no_grad()
def spreads(network: GenericNetwork, features: Sequence[Tensor]) -> dict[str, float]:
    """Variance of each depth about its channels' means: the unit of its error."""
    found: dict[str, list[Tensor]] = {name: [] for name in DEPTHS}
    for feature in features:
        for name, value in depths(network, feature).items():
            found[name].append(value.transpose(0, 1).flatten(1))
    return {name: float(torch.cat(rows, 1).var(1).mean()) for name, rows in found.items()}


def errors(
    network: GenericNetwork, decoded: Tensor, feature: Tensor, unit: Mapping[str, float]
) -> dict[str, Tensor]:
    """Squared error of each depth over its variance; gradients reach `decoded`."""
    with torch.no_grad():
        wanted = depths(network, feature)
    seen = depths(network, decoded)
    return {name: (seen[name] - wanted[name]).square().mean() / unit[name] for name in DEPTHS}


def error(parts: Mapping[str, Tensor]) -> Tensor:
    """The weighted mean of the depths."""
    return torch.stack([share * parts[name] for name, share in DEPTHS.items()]).sum()


def loss(codec: SemanticCodec, wrong: Tensor, bits: Tensor, plan: Draw, pixels: int) -> Tensor:
    """Rate plus lmbda times error, balanced between levels so that none drowns the others."""
    weight = codec.lmbda(Level(plan.level, codec.latent.levels))
    return (weight * wrong + bits / pixels) / (0.5 * weight**0.5)


@torch.no_grad()
def start_at_pca(codec: SemanticCodec, samples: Sequence[Tensor]) -> None:
    """Set means, linear maps, gains and tables to the principal components of real features.

    Args:
        samples: features (B, C, h, w); some hundred thousand positions serve well.
    """
    rows = torch.cat([one.permute(0, 2, 3, 1).reshape(-1, one.shape[1]) for one in samples])
    analysis, synthesis = codec.analysis, codec.synthesis
    for scale in (analysis.scale, synthesis.scale):
        scale.adapt(FEATURE, rows)
    flat = torch.cat(
        [merge_2x2(analysis.scale.normal(FEATURE, one)).flatten(0, 2) for one in samples]
    )
    joined = flat.double() * flat.shape[1] ** -0.5
    variances, vectors = torch.linalg.eigh(joined.T @ joined / len(joined))
    count = min(codec.latent.channels, vectors.shape[1])
    basis = vectors.flip(1)[:, :count].T.float()
    deviation = torch.zeros(codec.latent.channels)
    deviation[:count] = variances.flip(0)[:count].clamp(min=0).sqrt().float()
    for linear in (analysis.enter, synthesis.enter, synthesis.leave):
        linear.weight.zero_()
        linear.bias.zero_()
    size = flat.shape[1] ** -0.5
    analysis.enter.weight[:count] = basis * (LATENT_UNIT * size)
    kept = min(count, synthesis.enter.weight.shape[0])
    synthesis.enter.weight[:kept, :kept] = torch.eye(kept)
    synthesis.leave.weight[:, :kept] = basis[:kept].T / (LATENT_UNIT * size)
    _start_levels(codec, LATENT_UNIT * deviation)


def _start_levels(codec: SemanticCodec, deviation: Tensor) -> None:
    """Gains that are best for an orthonormal transform at each lmbda, and tables to go with them.

    A step of s costs lmbda (s / LATENT_UNIT)**2 / 12 a coefficient, and saves log2(s) / 256 bits
    a pixel.
    """
    for number, lmbda in enumerate(codec.lmbdas):
        step = LATENT_UNIT * math.sqrt(1.2 * 6 / (LATENT_STRIDE**2 * math.log(2) * lmbda))
        codec.gains.log_gain[number] = -math.log2(step) * LOG_UNIT
        codec.gains.log_inverse[number] = math.log2(step) * LOG_UNIT
        scale = (deviation / step * 0.6).clamp(min=SCALE_FIRST)
        codec.entropy.level_index[number] = torch.log(scale / SCALE_FIRST) / SCALE_RATIO
