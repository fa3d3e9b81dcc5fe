"""`vcm train scene`: the run itself."""

from __future__ import annotations

import dataclasses
import json
import math
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from vcmcodec.models import find_tasks, load_model, load_tasks
from vcmcodec.nn.blocks import NestedBlock, SlimmableBlock
from vcmcodec.nn.feature_transform import FeatureTransform
from vcmcodec.nn.gain import Level
from vcmcodec.nn.picture_codec import PictureCodec, start_at_klt
from vcmcodec.profiles import scene as profile
from vcmcodec.training import coder
from vcmcodec.training.eyes import Eyes, report_means, split_tensor
from vcmcodec.training.loop import Means, Run, TrainingError, learn, schedule
from vcmcodec.training.optimiser_groups import Rates, codec_groups
from vcmcodec.training.photographs import PhotographCrops, Views, read_pictures
from vcmcodec.training.scene import (
    Draw,
    SceneRecipe,
    code,
    draw,
    loss,
    task_loss,
)
from vcmcodec.training.starting import start_at_model
from vcmcodec.training.tasks import transform_shape
from vcmcodec.vision.config import VisionConfig
from vcmcodec.vision.network import VisionNetwork

KLT_CROPS = 150
REPORT_EVERY, SAVE_EVERY, EVALUATE_EVERY = 50, 500, 1500
EVALUATED_LEVELS = (0, 2500, 5000, 7500, 10000)
COLLAPSED_BPP = 1e-3


class Learned(coder.Learned[PictureCodec]):
    """Codec and prior, and what takes the base to a vision network."""

    def __init__(self, vision: VisionConfig | None = None) -> None:
        codec = profile.build()
        super().__init__(codec)
        shape = transform_shape(vision or VisionConfig(), codec.transform, codec.latent.levels)
        self.transform = FeatureTransform(shape)


def parameter_groups(learned: Learned, recipe: SceneRecipe) -> list[dict[str, object]]:
    """Optimiser groups: integer networks and transforms have their own rates, and clip apart."""
    rates = Rates(
        recipe.rate_transforms, recipe.rate_integers, recipe.rate_tables, recipe.rate_gains
    )
    return [
        *codec_groups(learned.codec, [learned.prior], rates),
        {"params": list(learned.transform.parameters()), "base": recipe.rate_features},
    ]


def use_bfloat16(codec: PictureCodec, on: bool) -> None:
    """Run the residual branches of the transforms in bfloat16 (about twice as fast)."""
    for module in codec.modules():
        if isinstance(module, NestedBlock | SlimmableBlock):
            module.mixed = on


@torch.no_grad()
def spread_opening(run: Run, learned: Learned, crops: Tensor, recipe: SceneRecipe) -> None:
    """Carry over to all levels what the opening taught the two around its one level.

    Gains, inverse gains and table offsets of the other levels get the same change from their start
    as those two had; level features are copied.  Without this the other levels start with the
    steps of a transform that is no longer there.
    """
    codec = learned.codec
    start = PictureCodec(codec.transform, codec.latent, codec.lmbdas)
    start_at_klt(start, crops)
    levels = codec.latent.levels
    low = Level(recipe.opening_level, levels).low
    others = [level for level in range(levels) if level not in (low, low + 1)]
    pairs = (
        ("codec.gains.log_gain", start.gains.log_gain),
        ("codec.gains.log_inverse", start.gains.log_inverse),
        ("codec.entropy.level_index", start.entropy.level_index),
        ("codec.entropy.level_features", start.entropy.level_features),
    )
    for name, first in pairs:
        for table in (learned.get_parameter(name), run.averaged[name]):
            change = (table[low : low + 2] - first[low : low + 2]).mean(0)
            table[others] = first[others] + change


def padded(image: Tensor) -> Tensor:
    """(3, H, W) -> (1, 3, H', W'), whole cells, edges repeated."""
    height, width = image.shape[1:]
    return F.pad(image[None], (0, -width % 16, 0, -height % 16), mode="replicate")


@torch.no_grad()
def evaluate(learned: Learned, pictures: Sequence[Tensor]) -> dict[str, float]:
    """Estimated bpp and PSNR on RGB of rounded pictures, mean over pictures, at five levels."""
    out: dict[str, float] = {}
    for level in EVALUATED_LEVELS:
        rates, qualities = [], []
        for image in pictures:
            whole = padded(image)
            cells = np.zeros((whole.shape[2] // 16, whole.shape[3] // 16), np.int64)
            plan = Draw(level, level, 3, cells)
            outcome = code(learned.codec, learned.prior, whole, plan, noisy=False)
            height, width = image.shape[1:]
            shown = (outcome.picture[0, :, :height, :width].clamp(0, 1) * 255).round() / 255
            qualities.append(-10 * math.log10(float(((shown - image) ** 2).mean())))
            rates.append(float(outcome.bits) / (height * width))
        out[f"bpp_{level}"] = round(float(np.mean(rates)), 4)
        out[f"psnr_{level}"] = round(float(np.mean(qualities)), 3)
    return out


def load_pictures(sources: Sequence[Path], limit: int) -> list[Tensor]:
    """Evaluation pictures, (3, H, W) in 0..1."""
    return [
        torch.from_numpy(rgb.copy()).permute(2, 0, 1).float() / 255
        for rgb in read_pictures(sources, limit)
    ]


def train(
    data: Sequence[Path],
    folder: Path,
    recipe: SceneRecipe,
    show: Callable[[dict[str, float]], None],
    *,
    evaluation: Sequence[Path] = (),
    evaluated: int = 6,
    seed: int = 1,
    bfloat16: bool = True,
    until: int | None = None,
    start: str | None = None,
    vision: VisionNetwork | None = None,
    vision_data: Sequence[Path] = (),
) -> Learned:
    """Train, or go on where the run in `folder` stopped.

    Args:
        data: folders or tar shards of photographs.
        evaluation: pictures that are only ever measured on.
        until: stop (and save) at this step; by default at the recipe's last.
        start: name of an installed model to begin with, in place of the KLT and the opening.
        vision: a network, batch norms folded, whose features the base layer is taught to keep.
        vision_data: pictures that are shown to it, besides `data`.

    Raises:
        WeightsError: `start` is not installed, or is of another shape.
        TrainingError: the loss is not finite or the rate has collapsed.
    """
    torch.manual_seed(seed)
    learned = Learned() if vision is None else Learned(vision.config)
    pool = PhotographCrops(data, recipe.crop)
    if start is not None:
        recipe = dataclasses.replace(recipe, opening=0)
        start_at_model(learned.codec, profile.NAME, start)
    elif not (folder / "state.json").exists():
        start_at_klt(learned.codec, pool.batch(KLT_CROPS, np.random.default_rng(seed)))
    looking = None
    if vision is not None:
        looking = Looking(vision, data, vision_data, recipe)
        if not (folder / "state.json").exists():
            start_transform(learned, start)
    use_bfloat16(learned.codec, bfloat16)
    groups = parameter_groups(learned, recipe)
    run = Run(folder, learned, groups, average=recipe.average, seed=seed)
    (folder / "recipe.json").write_text(json.dumps(dataclasses.asdict(recipe), indent=2) + "\n")
    pictures = load_pictures(evaluation, evaluated)

    def step(means: Means) -> float:
        if 0 < run.step == recipe.opening:
            crops = pool.batch(KLT_CROPS, np.random.default_rng(seed))
            spread_opening(run, learned, crops, recipe)
        return _step(run, learned, pool, looking, recipe, means)

    def evaluated_exactly() -> dict[str, float]:
        use_bfloat16(learned.codec, False)
        found = evaluate(learned, pictures)
        use_bfloat16(learned.codec, bfloat16)
        return found

    learn(
        run, recipe.steps if until is None else min(recipe.steps, until), step, show,
        evaluate=evaluated_exactly if pictures else None, report_every=REPORT_EVERY,
        save_every=SAVE_EVERY, evaluate_every=EVALUATE_EVERY, digits=4,
    )  # fmt: skip
    return learned


class Looking:
    """A vision network, and the pictures that are shown to it."""

    CLEAN_BATCHES = 12

    def __init__(
        self,
        network: VisionNetwork,
        data: Sequence[Path],
        more: Sequence[Path],
        recipe: SceneRecipe,
    ) -> None:
        """Read the pictures and measure how far the features spread."""
        self.views = Views(data, more, recipe.task_crop)
        random = np.random.default_rng(3)
        self.eyes = Eyes(network, [self.views.batch(4, random) for _ in range(self.CLEAN_BATCHES)])


def start_transform(learned: Learned, start: str | None = None) -> None:
    """Begin the feature transform with the layers of the codec's synthesis.

    Where `start` names a picture model that a tasks model of the same shape is installed for, its
    transform is taken.
    """
    if start is not None:
        mark = load_model(profile.NAME, start).fingerprint
        found = find_tasks(mark)
        if found is not None and found[1].config == learned.transform.config:
            learned.transform.load_state_dict(load_tasks(mark).transform.state_dict())
            return
    learned.transform.start_from_synthesis(learned.codec.synthesis)


def _step(
    run: Run, learned: Learned, pool: PhotographCrops, looking: Looking | None,
    recipe: SceneRecipe, means: Means,
) -> float:  # fmt: skip
    """One step; keeps running means of loss and rate, and returns the share of the rates."""
    plan = draw(recipe, run.step, run.random, eyes=looking is not None)
    if plan.tasks and looking is not None:
        bits, value = _task_step(learned, plan, looking, recipe, run.random, means)
    else:
        images = pool.batch(recipe.batch, run.random)
        outcome = code(learned.codec, learned.prior, images, plan, noisy=True)
        value = loss(learned.codec, images, plan, outcome, recipe)
        bits = float(outcome.bits.detach()) * 3 / images.numel()
        means["loss"] = 0.99 * means.get("loss", value.item()) + 0.01 * value.item()
    share = schedule(run.step, recipe.steps, recipe.warm_up, recipe.last_rate)
    run.apply(value, share)
    means["bpp"] = 0.99 * means.get("bpp", bits) + 0.01 * bits
    if means["bpp"] < COLLAPSED_BPP:
        raise TrainingError(f"step {run.step}: the rate has collapsed ({means['bpp']:.5f} bpp)")
    return share


def _task_step(
    learned: Learned, plan: Draw, looking: Looking, recipe: SceneRecipe,
    random: np.random.Generator, means: dict[str, float],
) -> tuple[float, Tensor]:  # fmt: skip
    """Bits a pixel and the loss of a step for the machines."""
    images = looking.views.batch(recipe.task_batch, random)
    cells = recipe.task_crop // 16
    plan = replace(plan, labels=np.zeros((cells, cells), np.int64))
    outcome = code(learned.codec, learned.prior, images, plan, noisy=True)
    assert outcome.base is not None
    level = Level(plan.level, learned.codec.latent.levels)
    seen = looking.eyes.going_on({"c3": split_tensor(learned.transform, outcome.base, level)})
    away, parts = looking.eyes.distance(seen, looking.eyes.clean(images))
    value = task_loss(learned.codec, images, plan, outcome, away, recipe)
    bits = float(outcome.bits.detach()) * 3 / images.numel()
    third = min(2, plan.level * 3 // (recipe.task_level + 1))  # rates low, middle, high
    figures = {f"bpp_{third}": bits, f"away_{third}": away.item(), "task_loss": value.item()}
    report_means(means, figures | {f"away_{name}": part for name, part in parts.items()})
    return bits, value
