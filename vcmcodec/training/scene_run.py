"""`vcm train scene`: the run itself."""

from __future__ import annotations

import dataclasses
import io
import json
import math
from collections.abc import Callable, Sequence
from contextlib import closing
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from PIL import Image
from torch import Tensor, nn

from vcmcodec.errors import WeightsError
from vcmcodec.models import load_model
from vcmcodec.nn.blocks import NestedBlock, SlimmableBlock
from vcmcodec.nn.gain import Level
from vcmcodec.nn.picture_codec import PictureCodec, start_at_klt
from vcmcodec.profiles import scene as profile
from vcmcodec.training.coder import HyperPrior
from vcmcodec.training.loop import Log, Run, TrainingError, schedule
from vcmcodec.training.photographs import PhotographCrops, picture_bytes
from vcmcodec.training.scene import Draw, SceneRecipe, code, draw, loss, parameter_groups

KLT_CROPS = 150
REPORT_EVERY, SAVE_EVERY, EVALUATE_EVERY = 50, 500, 1500
EVALUATED_LEVELS = (0, 2500, 5000, 7500, 10000)
COLLAPSED_BPP = 1e-3


class Learned(nn.Module):
    """Codec and the prior that only training needs."""

    def __init__(self) -> None:
        super().__init__()
        self.codec = profile.build()
        self.prior = HyperPrior(profile.LATENT.hyper)


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
    out = []
    for _, data in list(picture_bytes(sources))[:limit]:
        rgb = np.asarray(Image.open(io.BytesIO(data)).convert("RGB"))
        out.append(torch.from_numpy(rgb.copy()).permute(2, 0, 1).float() / 255)
    return out


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
) -> Learned:
    """Train, or go on where the run in `folder` stopped.

    Args:
        data: folders or tar shards of photographs.
        evaluation: pictures that are only ever measured on.
        until: stop (and save) at this step; by default at the recipe's last.
        start: name of an installed model to begin with, in place of the KLT and the opening.

    Raises:
        WeightsError: `start` is not installed, or is of another shape.
        TrainingError: the loss is not finite or the rate has collapsed.
    """
    torch.manual_seed(seed)
    learned = Learned()
    pool = PhotographCrops(data, recipe.crop)
    if start is not None:
        recipe = dataclasses.replace(recipe, opening=0)
        _start_at_model(learned, start)
    elif not (folder / "state.json").exists():
        start_at_klt(learned.codec, pool.batch(KLT_CROPS, np.random.default_rng(seed)))
    use_bfloat16(learned.codec, bfloat16)
    groups = parameter_groups(learned.codec, learned.prior, recipe)
    run = Run(folder, learned, groups, average=recipe.average, seed=seed)
    (folder / "recipe.json").write_text(json.dumps(dataclasses.asdict(recipe), indent=2) + "\n")
    pictures = load_pictures(evaluation, evaluated)
    last = recipe.steps if until is None else min(recipe.steps, until)
    means: dict[str, float] = {}
    with closing(Log(folder, show)) as log:
        while run.step < last:
            if 0 < run.step == recipe.opening:
                crops = pool.batch(KLT_CROPS, np.random.default_rng(seed))
                spread_opening(run, learned, crops, recipe)
            share = _step(run, learned, pool, recipe, means)
            if run.step % REPORT_EVERY == 0:
                log.report(run.step, **{k: round(v, 4) for k, v in means.items()}, share=share)
            if run.step % SAVE_EVERY == 0:
                run.save()
            if pictures and (run.step % EVALUATE_EVERY == 0 or run.step == last):
                with run.with_average():
                    use_bfloat16(learned.codec, False)
                    log.report(run.step, **evaluate(learned, pictures))
                    use_bfloat16(learned.codec, bfloat16)
    run.save()
    with torch.no_grad():
        for name, value in learned.named_parameters():
            value.copy_(run.averaged[name])
    return learned


def _start_at_model(learned: Learned, name: str) -> None:
    """Take the weights of an exported model; a run that is resumed puts its own over them."""
    model = load_model(profile.NAME, name)
    try:
        learned.codec.load_state_dict(model.codec.state_dict())
    except RuntimeError as error:
        raise WeightsError(f"model {name} has another shape than the one that is taught") from error


def _step(
    run: Run, learned: Learned, pool: PhotographCrops, recipe: SceneRecipe, means: dict[str, float]
) -> float:
    """One step; keeps running means of loss and rate, and returns the share of the rates."""
    plan = draw(recipe, run.step, run.random)
    images = pool.batch(recipe.batch, run.random)
    outcome = code(learned.codec, learned.prior, images, plan, noisy=True)
    value = loss(learned.codec, images, plan, outcome)
    share = schedule(run.step, recipe.steps, recipe.warm_up, recipe.last_rate)
    run.apply(value, share)
    bpp = float(outcome.bits.detach()) * 3 / images.numel()
    for name, new in (("loss", value.item()), ("bpp", bpp)):
        means[name] = 0.99 * means.get(name, new) + 0.01 * new
    if means["bpp"] < COLLAPSED_BPP:
        raise TrainingError(f"step {run.step}: the rate has collapsed ({means['bpp']:.5f} bpp)")
    return share
