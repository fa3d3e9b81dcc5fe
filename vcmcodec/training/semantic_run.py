"""`vcm train semantic --stage codec`: the codec of the filtered feature, without a label."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors import safe_open
from safetensors.torch import load_file, save_file
from torch import Tensor

from vcmcodec.errors import RequestError
from vcmcodec.nn.latent_model import LatentShape
from vcmcodec.nn.pyramid_codec import LATENT_STRIDE
from vcmcodec.nn.semantic_codec import SemanticCodec, SemanticShape
from vcmcodec.profiles import semantic as profile
from vcmcodec.training import semantic_features
from vcmcodec.training.coder import Learned
from vcmcodec.training.loop import Means, Run, TrainingError, learn, schedule
from vcmcodec.training.optimiser_groups import Rates, codec_groups
from vcmcodec.training.photographs import PhotographCrops, read_pictures
from vcmcodec.training.semantic import (
    CodecRecipe,
    Draw,
    code,
    draw,
    error,
    errors,
    loss,
    spreads,
    start_at_pca,
)
from vcmcodec.vision import generic
from vcmcodec.vision.config import VisionConfig
from vcmcodec.vision.generic import GenericNetwork
from vcmcodec.vision.geometry import prepare

STAGE = "codec"
LONGER_SIDE = 352  # pixels of the network's input, as of the pictures that it learned from
PCA_CROPS = 64
REPORT_EVERY, SAVE_EVERY, EVALUATE_EVERY = 50, 500, 1000
EVALUATED_LEVELS = (0, 2500, 5000, 7500, 10000)
COLLAPSED_BPP = 1e-5


# ---- what the stages hand to each other


def result(folder: Path, stage: str) -> Path:
    """The file that a stage leaves in the folder of all stages.

    Raises:
        RequestError: the stage has not been run there.
    """
    path = folder / f"{stage}.safetensors"
    if not path.exists():
        raise RequestError(f"{folder} holds no {path.name}: run --stage {stage} first")
    return path


def facts_of(path: Path) -> dict[str, Any]:
    """Recipe and the like that a stage wrote beside its weights."""
    with safe_open(path, "pt") as file:
        found: dict[str, Any] = json.loads(next(iter((file.metadata() or {}).values())))
    return found


def read_network(path: Path) -> GenericNetwork:
    """A network as a stage left it, with its norms."""
    about = facts_of(path)
    network = GenericNetwork(VisionConfig.read(about["config"]), filtered=about["filtered"])
    network.load_state_dict(load_file(path))
    return network.eval()


def build(network: GenericNetwork, mark: str, recipe: CodecRecipe) -> SemanticCodec:
    """The codec that a recipe asks for, untrained."""
    latent: LatentShape = profile.LATENT
    if not recipe.checkerboard:
        latent = dataclasses.replace(latent, phases=(1,) * len(latent.phases))
    shape = SemanticShape(network.network.config.c3, kind=recipe.kind)
    return SemanticCodec(shape, latent, profile.LMBDAS, mark)


def read_codec(folder: Path) -> tuple[Learned[SemanticCodec], GenericNetwork]:
    """Codec and prior of a finished stage, and the network as it ships."""
    path = result(folder, STAGE)
    network, mark = generic.rounded(read_network(result(folder, semantic_features.STAGE)))
    about = facts_of(path)
    learned = Learned(build(network, mark, CodecRecipe(**about["recipe"])))
    if about["encoder"] != mark:
        raise RequestError(f"{path.name} was trained for other features: run --stage codec again")
    learned.load_state_dict(load_file(path))
    return learned.eval().requires_grad_(False), network


# ---- training


@torch.no_grad()
def evaluate(
    learned: Learned[SemanticCodec],
    network: GenericNetwork,
    seen: Sequence[Tensor],
    unit: Mapping[str, float],
    levels: Sequence[int] = EVALUATED_LEVELS,
) -> dict[str, float]:
    """Estimated bits a pixel of the network's input, and errors of the depths, at some levels."""
    out: dict[str, float] = {}
    for level in levels:
        rates, wrong = [], []
        for feature in seen:
            side = feature.shape[2] // 2, feature.shape[3] // 2
            plan = Draw(level, np.zeros(side, np.int64))
            decoded, bits = code(learned.codec, learned.prior, feature, plan, noisy=False)
            rates.append(float(bits) / (side[0] * side[1] * LATENT_STRIDE**2))
            parts = errors(network, decoded, feature, unit)
            wrong.append({name: float(value) for name, value in parts.items()})
        out[f"bpp_{level}"] = round(float(np.mean(rates)), 5)
        for name in wrong[0]:
            mean = float(np.mean([one[name] for one in wrong]))
            out[f"error_{name}_{level}"] = round(mean, 4)
    return out


@torch.no_grad()
def features_of(network: GenericNetwork, images: Tensor) -> Tensor:
    """The filtered feature of pictures (B, 3, H, W) in 0..1, wherever the network is."""
    device = network.network.mean.device
    images = images.to(device).contiguous(memory_format=torch.channels_last)
    return network.feature(images).float().contiguous()


@dataclass(frozen=True)
class _Bench:
    """What the steps of one run share."""

    network: GenericNetwork
    pool: PhotographCrops
    unit: Mapping[str, float]
    recipe: CodecRecipe


def _step(run: Run, learned: Learned[SemanticCodec], bench: _Bench, means: Means) -> float:
    """One step; keeps running means, and returns the share of the learning rates."""
    recipe = bench.recipe
    plan = draw(recipe.crop // LATENT_STRIDE, recipe.grouped, run.random)
    images = bench.pool.batch(recipe.batch, run.random)
    feature = features_of(bench.network, images)
    decoded, bits = code(learned.codec, learned.prior, feature, plan, noisy=True)
    wrong = error(errors(bench.network, decoded, feature, bench.unit))
    pixels = images.numel() // 3
    value = loss(learned.codec, wrong, bits, plan, pixels)
    share = schedule(run.step, recipe.steps, recipe.warm_up, recipe.last_rate)
    run.apply(value, share)
    news = {
        "loss": value.item(),
        "bpp": float(bits.detach()) / pixels,
        "error": float(wrong.detach()),
    }
    for name, new in news.items():
        means[name] = 0.99 * means.get(name, new) + 0.01 * new
    if run.step > 10 * recipe.warm_up and means["bpp"] < COLLAPSED_BPP:
        raise TrainingError(f"step {run.step}: the rate has collapsed to {means['bpp']:.2g} bpp")
    return share


def train(
    data: Sequence[Path],
    folder: Path,
    recipe: CodecRecipe,
    show: Callable[[dict[str, float]], None],
    *,
    evaluation: Sequence[Path] = (),
    evaluated: int = 12,
    seed: int = 1,
    until: int | None = None,
    device: str = "cpu",
) -> Learned[SemanticCodec]:
    """Train, or go on where the run in `folder / codec` stopped; the network stays as it is.

    Args:
        data: folders or tar shards of photographs; no label is read.
        folder: of all stages; the stage of features must be done.
        evaluation: pictures that are only ever measured on.
        until: stop (and save) at this step; by default at the recipe's last.

    Returns:
        The averaged codec; it is also written to `folder / codec.safetensors`.

    Raises:
        RequestError: there are no features in the folder.
        TrainingError: the loss is not finite or the rate has collapsed.
    """
    torch.manual_seed(seed)
    network, mark = generic.rounded(read_network(result(folder, semantic_features.STAGE)))
    network = network.to(device)
    learned = Learned(build(network, mark, recipe))
    pool = PhotographCrops(data, recipe.crop, upright=True)
    crops = pool.batch(PCA_CROPS, np.random.default_rng(seed))
    samples = [features_of(network, part) for part in torch.split(crops, 8)]
    unit = spreads(network, samples)
    if not (folder / STAGE / "state.json").exists():
        start_at_pca(learned.codec, [one.cpu() for one in samples])
    learned = learned.to(device)
    rates = Rates(
        recipe.rate_transforms, recipe.rate_integers, recipe.rate_tables, recipe.rate_gains
    )
    groups = codec_groups(learned.codec, [learned.prior], rates)
    run = Run(
        folder / STAGE, learned, groups, average=recipe.average, seed=seed,
        behind=learned.codec.binding,
    )  # fmt: skip
    pictures = [prepare(rgb, LONGER_SIDE)[0] for rgb in read_pictures(evaluation, evaluated)]
    seen = [features_of(network, one) for one in pictures]
    bench = _Bench(network, pool, unit, recipe)
    learn(
        run, recipe.steps if until is None else min(recipe.steps, until),
        partial(_step, run, learned, bench), show,
        evaluate=partial(evaluate, learned, network, seen, unit) if seen else None,
        report_every=REPORT_EVERY, save_every=SAVE_EVERY, evaluate_every=EVALUATE_EVERY,
    )  # fmt: skip
    learned = learned.cpu()
    about = {"recipe": dataclasses.asdict(recipe), "encoder": mark, "step": run.step}
    state = {name: value.contiguous() for name, value in learned.state_dict().items()}
    save_file(state, folder / f"{STAGE}.safetensors", {STAGE: json.dumps(about)})
    return learned
