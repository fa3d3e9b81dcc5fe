"""How `scene` is trained: rate plus distortion over rate levels, widths, layers and group maps."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from vcmcodec.nn.gain import RATE_LEVEL_MAX, Level
from vcmcodec.nn.geometry import GroupGeometry
from vcmcodec.nn.picture_codec import PictureCodec, cell_grid
from vcmcodec.profiles.scene import REFINED_FROM
from vcmcodec.training.coder import HyperPrior, TrainingCoder
from vcmcodec.training.photographs import random_labels


@dataclass(frozen=True)
class Draw:
    """What one step trains.

    Attributes:
        level: rate level of the widest layer that is coded.
        base_level: rate level of the base; below `level` it is refined or carried over.
        widths: 1 base, 2 up to mid, 3 full.
        labels: (rows, columns) group map of every crop of the batch.
        tasks: whether the step is for the machines: what a vision network sees decides.
    """

    level: int
    base_level: int
    widths: int
    labels: np.ndarray
    tasks: bool = False


@dataclass(frozen=True)
class SceneRecipe:
    """Numbers of the training; reasons in docs/decisions/0002-training-scene.md."""

    crop: int = 256
    batch: int = 2
    steps: int = 24000
    opening: int = 6000  # steps at the middle rate and full width only
    opening_level: int = 5000
    warm_up: int = 200
    rate_transforms: float = 2e-3
    rate_integers: float = 0.15  # weights in units of 1, up to 127
    rate_tables: float = 0.1  # level vectors and biases, in output units
    rate_gains: float = 0.4  # 1/256 octave
    rate_features: float = 1e-3  # of the feature transform
    last_rate: float = 0.03  # share of the learning rate that is left at the end
    average: float = 0.999  # of the weights
    grouped: float = 0.25
    refined: float = 0.35
    narrow: tuple[float, float, float] = (0.15, 0.12, 0.73)
    tasks: float = 0.3  # share of the steps that are for the machines, where a network is given
    task_crop: int = 256
    task_batch: int = 2
    task_level: int = 7000  # highest level of those
    feature_price: float = 330.0  # of feature distance 1, in lmbda
    pixel_share: float = 0.15  # of the pixels' price that is left where machines look
    preview_share: float = 0.5  # of the base's own picture beside people's


def draw(
    recipe: SceneRecipe, step: int, random: np.random.Generator, *, eyes: bool = False
) -> Draw:
    """Choose levels, width and group map of one step; `eyes`: there is a vision network."""
    cells = recipe.crop // 16
    single = np.zeros((cells, cells), np.int64)
    if step < recipe.opening:
        return Draw(recipe.opening_level, recipe.opening_level, 3, single)
    if eyes and random.random() < recipe.tasks:
        level = int(random.integers(recipe.task_level + 1))
        return Draw(level, level, 1, single, tasks=True)
    level = int(random.integers(RATE_LEVEL_MAX + 1))
    widths = int(random.choice([1, 2, 3], p=recipe.narrow))
    base_level = level
    if widths > 1 and random.random() < recipe.refined:
        base_level = int(random.integers(level + 1))
    grouped = random.random() < recipe.grouped
    labels = random_labels(cells, cells, random) if grouped else single
    return Draw(level, base_level, widths, labels)


@dataclass(frozen=True)
class Outcome:
    """What a forward pass gives: pictures (B, 3, H, W) and bits (scalar tensors)."""

    picture: Tensor
    bits: Tensor
    preview: Tensor | None  # the base's own picture, where it was coded at a coarser level
    base_bits: Tensor
    parts: list[float]
    base: Tensor | None = None  # dequantised, (B, rows, columns, base channels), of base-only steps


def code(
    codec: PictureCodec, prior: HyperPrior, images: Tensor, plan: Draw, *, noisy: bool
) -> Outcome:
    """Run analysis, entropy model and synthesis over pictures (B, 3, H, W) of whole cells."""
    rows, columns = plan.labels.shape
    geometry = GroupGeometry(plan.labels)
    grid = cell_grid(plan.labels, codec.latent.phases, len(images))
    level = Level(plan.level, codec.latent.levels)
    base_level = Level(plan.base_level, codec.latent.levels)
    parts = codec.analysis(images, geometry, plan.widths)
    latent = torch.cat(parts, -1).reshape(grid.size, -1)
    base_channels = codec.latent.base_channels

    steps = latent[:, :base_channels] * codec.gains.gain(base_level, slice(0, base_channels))
    coder = TrainingCoder(steps, codec.hyper_analysis(steps), prior, noisy=noisy)
    hyper = codec.entropy.hyper_context(coder.hyper(codec.latent.hyper), grid)
    values = codec.entropy.code_slices(coder, grid, base_level, hyper, 0, steps[:, :0])
    bits = base_bits = coder.bits
    counted = coder.parts
    preview = None

    def dense(decoded: Tensor, at: Level) -> Tensor:
        return codec.dequantise(decoded, at).reshape(len(images), rows, columns, -1)

    def synthesise(decoded: Tensor, at: Level) -> Tensor:
        return codec.synthesis(dense(decoded, at), geometry)

    if plan.widths > 1:
        steps = latent * codec.gains.gain(level, slice(0, latent.shape[1]))
        coder = TrainingCoder(steps, None, prior, noisy=noisy)
        if plan.base_level < plan.level:
            preview = synthesise(values, base_level)
            log_gain = codec.gains.log_gain[:, :base_channels]
            if plan.level - plan.base_level >= REFINED_FROM:
                values = codec.entropy.code_refinement(
                    coder, grid, level, base_level, hyper, values, log_gain
                )
            else:
                values = codec.entropy.carry_over(values, level, base_level, log_gain)
        for layer in range(1, plan.widths):
            values = codec.entropy.code_slices(coder, grid, level, hyper, layer, values)
        bits = bits + coder.bits
        counted = counted + coder.parts
    if plan.widths > 1:
        return Outcome(synthesise(values, level), bits, preview, base_bits, counted)
    base = dense(values, base_level)
    return Outcome(codec.synthesis(base, geometry), bits, None, base_bits, counted, base)


def balance(weight: float) -> float:
    """What the loss of a level is divided by, so that no level drowns the others."""
    return 20 * weight**0.5 + 0.02


def loss(
    codec: PictureCodec, images: Tensor, plan: Draw, outcome: Outcome, recipe: SceneRecipe
) -> Tensor:
    """Rate plus lmbda * 255**2 * MSE."""
    pixels = images.shape[0] * images.shape[2] * images.shape[3]

    def term(picture: Tensor, bits: Tensor, rate_level: int) -> Tensor:
        weight = codec.lmbda(Level(rate_level, codec.latent.levels))
        squared = ((picture - images) ** 2).mean() * 255**2
        return (weight * squared + bits / pixels) / balance(weight)

    total = term(outcome.picture, outcome.bits, plan.level)
    if outcome.preview is not None:
        preview = term(outcome.preview, outcome.base_bits, plan.base_level)
        total = total + recipe.preview_share * preview
    return total


def task_loss(
    codec: PictureCodec, images: Tensor, plan: Draw, outcome: Outcome, distance: Tensor,
    recipe: SceneRecipe,
) -> Tensor:  # fmt: skip
    """Rate plus what a vision network sees differently, plus a little of the pixels."""
    pixels = images.shape[0] * images.shape[2] * images.shape[3]
    weight = codec.lmbda(Level(plan.level, codec.latent.levels))
    squared = ((outcome.picture - images) ** 2).mean() * 255**2
    wrong = recipe.feature_price * distance + recipe.pixel_share * squared
    return (weight * wrong + outcome.bits / pixels) / balance(weight)
