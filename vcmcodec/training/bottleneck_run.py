"""`vcm train bottleneck`: the run itself."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from vcmcodec.errors import RequestError, WeightsError
from vcmcodec.nn.bottleneck_codec import BottleneckCodec
from vcmcodec.nn.pyramid_codec import LATENT_STRIDE
from vcmcodec.profiles import bottleneck as profile
from vcmcodec.training.bottleneck import (
    BottleneckRecipe,
    Coded,
    Draw,
    Learned,
    code,
    distortion,
    draw,
    loss,
    start_at_pca,
)
from vcmcodec.training.classifier_eyes import ClassifierCrops, ClassifierEyes
from vcmcodec.training.eyes import Eyes, Watcher
from vcmcodec.training.labelled_batches import LabelledBatches
from vcmcodec.training.loop import Means, Run, TrainingError, learn, schedule
from vcmcodec.training.photographs import PhotographCrops
from vcmcodec.training.starting import start_at_model
from vcmcodec.training.vision_batches import Batch
from vcmcodec.vision.backend import open_backend
from vcmcodec.vision.cut_classifier import ClassifierModel
from vcmcodec.vision.weights import VisionModel

PCA_CROPS = 64
REPORT_EVERY, SAVE_EVERY, EVALUATE_EVERY = 50, 500, 1000
EVALUATED_LEVELS = (0, 2500, 5000, 7500, 10000)
COLLAPSED_BPP = 1e-5
SETTLE_RATE = 0.3  # share of the estimator's learning rate while it learns alone


Frozen = VisionModel | ClassifierModel


def open_network(vision: str | None, device: str) -> Frozen:
    """The frozen network: of the reference kind, or a classifier of torchvision.

    Raises:
        RequestError: it is of another kind.
        WeightsError: it comes from no weight file, so no model could name it.
    """
    backend = open_backend(vision, device=device)
    model = getattr(backend, "model", None)
    if not isinstance(model, VisionModel | ClassifierModel):
        raise RequestError(
            "units are trained with a network of the reference kind or a classifier of torchvision"
        )
    if not model.fingerprint:
        raise WeightsError("a bottleneck model needs a vision network from a weight file")
    return model


def build(frozen: Frozen, splits: Sequence[str]) -> BottleneckCodec:
    """Untrained units for split points of a network.

    Raises:
        RequestError: one of them cannot be coded.
    """
    if isinstance(frozen, ClassifierModel):
        shape = profile.classifier_shape_for(frozen.network.points(), splits)
        return profile.build(shape, frozen.fingerprint, frozen.name)
    return profile.build(profile.shape_for(frozen.network.config, splits), frozen.fingerprint)


def watcher(frozen: Frozen, crops: Sequence[Tensor]) -> Watcher:
    """A network as the judge of what comes through; clean batches give its channels' spread."""
    if isinstance(frozen, ClassifierModel):
        return ClassifierEyes(frozen.network, crops)
    return Eyes(frozen.network, crops)


# So many views as asked for: pictures (N, 3, n, n) in 0..1, and what is known about them.
Views = Callable[[int, np.random.Generator], tuple[Tensor, Batch | None]]


def open_views(data: Sequence[Path], labels: Path | None, frozen: Frozen, side: int) -> Views:
    """Views of photographs of which nothing is known, or of labelled pictures.

    Args:
        data: folders or tar shards of photographs; none where there are labels.
        labels: COCO JSON of labelled pictures.
        frozen: the network that looks at them.
        side: of the views in pixels.

    Raises:
        RequestError: neither or both, or labels of other classes or for a classifier.
    """
    if bool(data) == (labels is not None):
        raise RequestError("give photographs, or labelled pictures, and not both")
    if labels is None:
        photographs = _photographs(data, frozen, side)
        return lambda count, random: (photographs.batch(count, random), None)
    if isinstance(frozen, ClassifierModel):
        raise RequestError("labels teach with the reference network alone: give photographs")
    labelled = LabelledBatches(labels, frozen.labels, side)

    def views(count: int, random: np.random.Generator) -> tuple[Tensor, Batch | None]:
        batch = labelled.batch(count, random)
        return batch.rgb, batch

    return views


def _photographs(data: Sequence[Path], frozen: Frozen, side: int) -> PhotographCrops:
    """Crops as the network will see pictures: at their own scale, or whole in a square."""
    if isinstance(frozen, ClassifierModel):
        return ClassifierCrops(data, side)
    return PhotographCrops(data, side, upright=True)


@dataclass(frozen=True)
class _Teaching:
    """What every step needs besides the run."""

    recipe: BottleneckRecipe
    learned: Learned
    eyes: Watcher
    views: Views


def train(
    data: Sequence[Path],
    folder: Path,
    recipe: BottleneckRecipe,
    show: Callable[[dict[str, float]], None],
    *,
    labels: Path | None = None,
    vision: str | None = None,
    evaluation: Sequence[Path] = (),
    evaluated: int = 12,
    seed: int = 1,
    until: int | None = None,
    start: str | None = None,
    device: str = "cpu",
) -> Learned:
    """Train, or go on where the run in `folder` stopped; the vision network stays as it is.

    Args:
        data: folders or tar shards of photographs, of which no label is read; none with `labels`.
        labels: COCO JSON of labelled pictures: what is matched are its labels.
        vision: name of the vision network as in `vision.backend.open_backend`; None for the
            default one.
        evaluation: pictures that are only ever measured on.
        evaluated: how many crops of them.
        until: stop (and save) at this step; by default at the recipe's last.
        start: name of an installed model, perhaps of an earlier network, to begin with.

    Raises:
        WeightsError: `start` is not installed, or is of another shape.
        TrainingError: the loss is not finite or the rate has collapsed.
        RequestError: neither data nor labels, or a split point that cannot be coded.
    """
    torch.manual_seed(seed)
    frozen = open_network(vision, device)
    learned = Learned(build(frozen, recipe.splits))
    views = open_views(data, labels, frozen, recipe.crop)
    first, _ = views(PCA_CROPS, np.random.default_rng(seed))
    parts = [part.to(device) for part in torch.split(first, 8)]
    eyes = watcher(frozen, parts)
    teaching = _Teaching(recipe, learned, eyes, views)
    if start is not None:
        start_at_model(learned.codec, profile.NAME, start)
    elif not (folder / "state.json").exists():
        names = dict.fromkeys(unit.name for unit in learned.codec.shape.units)
        seen = [eyes.clean(part).features for part in parts]
        start_at_pca(learned, [{name: one[name].float().cpu() for name in names} for one in seen])
    learned.to(device)
    run = Run(
        folder, learned, _groups(learned, recipe), average=recipe.average, seed=seed,
        behind=learned.codec.binding,
    )  # fmt: skip
    (folder / "recipe.json").write_text(json.dumps(dataclasses.asdict(recipe), indent=2) + "\n")
    held = _held_out(evaluation, frozen, recipe.crop, evaluated)
    learn(
        run, recipe.steps if until is None else min(recipe.steps, until),
        partial(_step, run, teaching), show,
        evaluate=None if held is None else partial(evaluate, learned, eyes, held),
        report_every=REPORT_EVERY, save_every=SAVE_EVERY, evaluate_every=EVALUATE_EVERY,
    )  # fmt: skip
    return learned.cpu()


def _held_out(sources: Sequence[Path], frozen: Frozen, crop: int, count: int) -> Tensor | None:
    """Crops (count, 3, n, n) to measure on, always the same."""
    if not sources:
        return None
    return _photographs(sources, frozen, crop).batch(count, np.random.default_rng(0))


def _groups(learned: Learned, recipe: BottleneckRecipe) -> list[dict[str, object]]:
    gains = [value for name, value in learned.codec.named_parameters() if ".gains." in name]
    known = {id(value) for value in gains}
    maps = [value for value in learned.codec.parameters() if id(value) not in known]
    return [
        {"params": maps, "base": recipe.rate_units},
        {"params": gains, "base": recipe.rate_gains},
        {"params": list(learned.estimators.parameters()), "base": recipe.rate_estimator},
    ]


def _step(run: Run, teaching: _Teaching, means: Means) -> float:
    """One step; keeps running means, and returns the share of the learning rates."""
    recipe, learned, eyes = teaching.recipe, teaching.learned, teaching.eyes
    plan = draw(recipe, run.random)
    images, labelled = teaching.views(recipe.batch, run.random)
    device = eyes.device
    images, labelled = images.to(device), labelled and labelled.to(device)
    clean = eyes.clean(images)
    names = learned.codec.shape.of(plan.split)
    tensors = {name: clean.features[name].float() for name in names}
    pixels = images.numel() // 3
    settling = run.step >= recipe.steps * (1 - recipe.settle)
    if settling:
        coded, value = _settle(learned, tensors, plan, pixels)
        share, news = SETTLE_RATE, {}
    else:
        coded = code(learned, tensors, plan, noisy=True, l1=recipe.rate == "l1")
        distance, _ = distortion(eyes, coded, clean, labelled)
        value = loss(learned.codec, coded, distance, plan, pixels)
        moving = int(recipe.steps * (1 - recipe.settle))
        share = schedule(run.step, moving, recipe.warm_up, recipe.last_rate)
        news = {"loss": value.item(), "distance": float(distance.detach())}
    run.apply(value, share)
    news["bpp"] = float(coded.bits.detach()) / pixels
    for name, new in news.items():
        means[name] = 0.99 * means.get(name, new) + 0.01 * new
    if run.step > 10 * recipe.warm_up and means["bpp"] < COLLAPSED_BPP:
        raise TrainingError(f"step {run.step}: the rate has collapsed to {means['bpp']:.2g} bpp")
    return share


def _settle(
    learned: Learned, tensors: Mapping[str, Tensor], plan: Draw, pixels: int
) -> tuple[Coded, Tensor]:
    """Bits of the units as they are; only the estimator has a gradient."""
    units = list(learned.codec.parameters())
    for value in units:
        value.requires_grad_(False)
    coded = code(learned, tensors, plan, noisy=False)
    for value in units:
        value.requires_grad_(True)
    return coded, coded.bits / pixels


@torch.no_grad()
def evaluate(learned: Learned, eyes: Watcher, images: Tensor) -> dict[str, float]:
    """Estimated bits a pixel of the network's input, and distances, at five levels of each split.

    Args:
        images: (N, 3, H, W) in 0..1, sides multiples of 32.
    """
    out: dict[str, float] = {}
    labels = np.zeros([side // LATENT_STRIDE for side in images.shape[2:]], np.int64)
    device = eyes.device
    for split in learned.codec.shape.splits:
        names = learned.codec.shape.of(split)
        for level in EVALUATED_LEVELS:
            bits, distances = 0.0, []
            for part in torch.split(images, 4):
                clean = eyes.clean(part.to(device))
                tensors = {name: clean.features[name].float() for name in names}
                coded = code(learned, tensors, Draw(split, level, labels), noisy=False)
                distance, _ = eyes.distance(eyes.going_on(coded.tensors), clean)
                bits += float(coded.bits)
                distances.append(float(distance) * len(part))
            out[f"bpp_{split}_{level}"] = round(bits / (images.numel() / 3), 5)
            out[f"distance_{split}_{level}"] = round(sum(distances) / len(images), 4)
    return out
