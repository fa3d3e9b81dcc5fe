"""How bottleneck units are trained: rate plus what the rest of the frozen network makes of them.

Without labels the rest of the network must find what it finds on the untouched tensors, at every
depth behind the split point (`eyes.Watcher`).  With labels it must find what the labels say.  The
rate is a neural estimate (`RateEstimator`), or an l1 term to compare with.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
import torch
from torch import Tensor, nn

from vcmcodec.nn.bottleneck_codec import BottleneckCodec, Unit, key, nearest_level
from vcmcodec.nn.gain import LOG_UNIT, RATE_LEVEL_MAX
from vcmcodec.nn.integer import round_through
from vcmcodec.nn.pyramid_codec import LATENT_STRIDE, LevelGeometry
from vcmcodec.nn.transforms import merge_2x2
from vcmcodec.training.eyes import Watcher
from vcmcodec.training.photographs import random_labels
from vcmcodec.training.rate_estimator import RateEstimator, absolute_bits
from vcmcodec.training.vision_batches import Batch
from vcmcodec.training.vision_losses import detection_loss, mask_loss, presence_loss
from vcmcodec.vision.network import VisionOutput
from vcmcodec.vision.sight import Seen

# Scale of the latents: about orthonormal maps, beside which steps of the optimiser are small.
UNIT = 16.0
# weights of the losses by labels, as in the training of the vision network
CLASSES, BOXES, AREAS, PRESENCE = 0.6, 2.5, 1.5, 0.12


@dataclass(frozen=True)
class BottleneckRecipe:
    """Numbers of the training.

    Attributes:
        splits: split points that get units; a step trains one of them, drawn at random.
        rate: how bits are estimated: by the neural estimator, or by the latents' size.
        settle: share of the steps, at the end, in which the estimator learns alone, so that it
            describes the units as they ship.
    """

    splits: tuple[str, ...]
    rate: Literal["estimator", "l1"] = "estimator"
    crop: int = 256
    batch: int = 4
    steps: int = 20000
    warm_up: int = 100
    rate_units: float = 1e-3
    rate_gains: float = 0.4  # 1/256 octave
    rate_estimator: float = 1e-2
    last_rate: float = 0.03  # share of the learning rate that is left at the end
    average: float = 0.998  # of the weights
    grouped: float = 0.2
    settle: float = 0.1


class Learned(nn.Module):
    """Units and the estimators that only training needs.

    Attributes:
        codec: the units.
        estimators: by unit (`bottleneck_codec.key`).
    """

    def __init__(self, codec: BottleneckCodec) -> None:
        super().__init__()
        self.codec = codec
        levels = codec.shape.levels
        self.estimators = nn.ModuleDict(
            {key(u.split, u.name): RateEstimator(levels, u.latent) for u in codec.shape.units}
        )

    def estimator(self, split: str, name: str) -> RateEstimator:
        """The estimator of a unit."""
        found = self.estimators[key(split, name)]
        assert isinstance(found, RateEstimator)
        return found


@dataclass(frozen=True)
class Draw:
    """What one step trains: a split point, a rate level, the group map of every crop."""

    split: str
    level: int
    labels: np.ndarray


def draw(recipe: BottleneckRecipe, random: np.random.Generator) -> Draw:
    """Choose split point, level and group map of one step."""
    side = recipe.crop // LATENT_STRIDE
    split = recipe.splits[int(random.integers(len(recipe.splits)))]
    level = int(random.integers(RATE_LEVEL_MAX + 1))
    grouped = random.random() < recipe.grouped
    labels = random_labels(side, side, random) if grouped else np.zeros((side, side), np.int64)
    return Draw(split, level, labels)


@dataclass(frozen=True)
class Coded:
    """Tensors as the server gets them, (B, C, h, w), and the estimated bits of all of them."""

    tensors: dict[str, Tensor]
    bits: Tensor


def code(
    learned: Learned, tensors: Mapping[str, Tensor], plan: Draw, *, noisy: bool, l1: bool = False
) -> Coded:
    """Pass the tensors of a split point through their units.

    Args:
        learned: units and estimators.
        tensors: (B, C, h, w) each, as the network gives them.
        plan: split point, level, groups.
        noisy: bits of the steps plus uniform noise (training) or of the symbols (evaluation).
        l1: bits by size instead of the estimator.
    """
    codec = learned.codec
    level, trained = codec.level(plan.level), nearest_level(plan.level, codec.shape.levels)
    first = next(iter(tensors.values()))
    geometry = LevelGeometry(plan.labels, first.device)
    bits, out = first.new_zeros(()), {}
    for name, tensor in tensors.items():
        unit = codec.unit(plan.split, name)
        steps = unit.steps(unit.analyse(tensor, geometry), level)
        symbols = round_through(steps)
        seen = steps + torch.rand_like(steps) - 0.5 if noisy else symbols
        flat = seen.reshape(-1, seen.shape[-1])
        if l1:
            bits = bits + absolute_bits(flat).sum()
        else:
            bits = bits + learned.estimator(plan.split, name).bits(flat, trained).sum()
        out[name] = unit.synthesise(symbols, level, geometry)
    return Coded(out, bits)


def label_loss(output: VisionOutput, batch: Batch) -> tuple[Tensor, dict[str, float]]:
    """What the labels say of the results, all tasks together, and its parts."""
    classes, boxes = detection_loss(output, batch)
    parts = {
        "classes": CLASSES * classes,
        "boxes": BOXES * boxes,
        "areas": AREAS * mask_loss(output, batch),
        "presence": PRESENCE * presence_loss(output, batch),
    }
    total = torch.stack(list(parts.values())).sum()
    return total, {name: float(value.detach()) for name, value in parts.items()}


def distortion(
    eyes: Watcher, coded: Coded, clean: Seen, labelled: Batch | None
) -> tuple[Tensor, dict[str, float]]:
    """How far the results are from those on untouched tensors, or from the labels where given.

    Labels are those of the reference network's tasks.
    """
    seen = eyes.going_on(coded.tensors)
    if labelled is not None:
        return label_loss(seen.output, labelled)
    return eyes.distance(seen, clean)


def loss(codec: BottleneckCodec, coded: Coded, distance: Tensor, plan: Draw, pixels: int) -> Tensor:
    """Rate plus lmbda times distance, balanced between levels so that none drowns the others.

    Args:
        pixels: of the network's input, of the whole batch.
    """
    weight = codec.lmbda(codec.level(plan.level))
    return (weight * distance + coded.bits / pixels) / (0.5 * weight**0.5)


# ---- the start


@torch.no_grad()
def start_at_pca(learned: Learned, samples: Sequence[Mapping[str, Tensor]]) -> None:
    """Set every unit to the principal components of real tensors, gains and estimators to match.

    Residual branches start at zero, so training starts from a transform codec.

    Args:
        samples: all tensors that cross any split point, by name, (B, C, h, w) each.
    """
    codec = learned.codec
    for shape in codec.shape.units:
        unit = codec.unit(shape.split, shape.name)
        tensors = [one[shape.name].float() for one in samples]
        deviation = _start_maps(unit, tensors)
        _start_gains(codec, unit, deviation, learned.estimator(shape.split, shape.name))


def _start_maps(unit: Unit, tensors: Sequence[Tensor]) -> Tensor:
    """Means and maps of a unit; returns the deviation of each channel of the latent."""
    flat = torch.cat([t.permute(0, 2, 3, 1).reshape(-1, t.shape[1]) for t in tensors])
    unit.mean.copy_(flat.mean(0))
    unit.deviation.copy_((flat - unit.mean).square().mean().sqrt().clamp(min=1e-6))
    grids = [unit.normal(t) for t in tensors]
    rows = [(merge_2x2(g) if unit.merges else g).reshape(-1, unit.shape.values) for g in grids]
    values = torch.cat(rows).double()
    variances, vectors = torch.linalg.eigh(values.T @ values / len(values))
    count = unit.shape.latent
    basis = vectors.flip(1)[:, :count].T.float()
    scale = UNIT * unit.shape.values**-0.5
    unit.enter.weight.copy_(basis * scale)
    unit.leave.weight.copy_(basis.T / scale)
    unit.enter.bias.zero_()
    unit.leave.bias.zero_()
    return variances.flip(0)[:count].clamp(min=0).sqrt().float() * scale


def _start_gains(
    codec: BottleneckCodec, unit: Unit, deviation: Tensor, estimator: RateEstimator
) -> None:
    """Gains that are best for an orthonormal transform at each lmbda.

    A step of s costs lmbda (s / UNIT)**2 / (12 tensors) a coefficient, and saves log2(s) bits of
    it, which is one of as many pixels as a position has.
    """
    pixels = unit.shape.latent_stride**2
    tensors = len(codec.shape.of(unit.shape.split))
    for number, lmbda in enumerate(codec.lmbdas):
        step = UNIT * math.sqrt(6 * tensors / (pixels * math.log(2) * lmbda))
        unit.gains.log_gain[number] = -math.log2(step) * LOG_UNIT
        unit.gains.log_inverse[number] = math.log2(step) * LOG_UNIT
        estimator.spread[number] = (deviation / step).clamp(min=0.05)
