"""`vcm train pyramid`: the run itself, and the export of its weights."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from vcmcodec.errors import RequestError, WeightsError
from vcmcodec.nn.model_tensors import Model
from vcmcodec.nn.pyramid_codec import LATENT_STRIDE, PyramidCodec, PyramidShape
from vcmcodec.profiles import pyramid as profile
from vcmcodec.profiles.pyramid import latent_of
from vcmcodec.training import export
from vcmcodec.training.coder import Learned
from vcmcodec.training.loop import Means, Run, TrainingError, learn, schedule
from vcmcodec.training.optimiser_groups import Rates, codec_groups
from vcmcodec.training.photographs import PhotographCrops, read_pictures
from vcmcodec.training.pyramid import Draw, Levels, PyramidRecipe, code, draw, loss, start_at_pca
from vcmcodec.training.starting import start_at_model
from vcmcodec.vision.backend import ReferenceBackend, open_backend
from vcmcodec.vision.network import VisionNetwork

PCA_CROPS = 64
REPORT_EVERY, SAVE_EVERY, EVALUATE_EVERY = 50, 500, 1000
EVALUATED_LEVELS = (0, 2500, 5000, 7500, 10000)
COLLAPSED_BPP = 1e-5


@torch.no_grad()
def levels_of(network: VisionNetwork, images: Tensor) -> dict[str, Tensor]:
    """Levels that a network finds in pictures (B, 3, H, W) in 0..1, sides multiples of 32."""
    images = images.to(network.mean.device).contiguous(memory_format=torch.channels_last)
    seen = network.front_end(images, profile.SPLIT)
    return {name: level.float() for name, level in seen.items()}


def build(backend: ReferenceBackend, recipe: PyramidRecipe) -> PyramidCodec:
    """The codec that a recipe asks for, untrained.

    Raises:
        RequestError: a level that the network does not have.
        WeightsError: the network comes from no weight file, so no model could name it.
    """
    if not backend.model.fingerprint:
        raise WeightsError("a pyramid model needs a vision network from a weight file")
    shape = profile.shape_for(backend.model.network.config, interleaved=recipe.interleaved)
    if recipe.levels:
        shape = only(shape, recipe.levels)
    mark = backend.model.fingerprint
    return PyramidCodec(shape, profile.LATENT, profile.LMBDAS, mark, profile.SPLIT)


def only(shape: PyramidShape, names: Sequence[str]) -> PyramidShape:
    """The same shape with some of the levels alone, each of them coded: for ablations.

    Raises:
        RequestError: there is no such level.
    """
    unknown = set(names) - set(shape.names)
    if unknown:
        known = ", ".join(shape.names)
        raise RequestError(f"no level {', '.join(sorted(unknown))}; there are {known}")
    kept = tuple(name for name in shape.names if name in names)
    return dataclasses.replace(
        shape,
        names=kept,
        channels=tuple(shape.of[name][0] for name in kept),
        strides=tuple(shape.of[name][1] for name in kept),
        coded=kept,
        mixing=tuple(pair for pair in shape.mixing if set(pair) <= set(kept)),
    )


@torch.no_grad()
def evaluate(learned: Learned[PyramidCodec], seen: Sequence[Levels]) -> dict[str, float]:
    """Estimated bits a pixel of the network's input, and relative errors, at five levels."""
    out: dict[str, float] = {}
    for level in EVALUATED_LEVELS:
        rates, errors = [], []
        for levels in seen:
            grid = _grid(learned.codec, levels)
            plan = Draw(level, np.zeros(grid, np.int64))
            outcome = code(learned.codec, learned.prior, levels, plan, noisy=False)
            rates.append(float(outcome.bits) / (grid[0] * grid[1] * LATENT_STRIDE**2))
            errors.append([float(value) for value in outcome.errors.values()])
        out[f"bpp_{level}"] = round(float(np.mean(rates)), 5)
        for name, value in zip(learned.codec.shape.names, np.mean(errors, 0), strict=True):
            out[f"error_{name}_{level}"] = round(float(value), 4)
    return out


def _grid(codec: PyramidCodec, levels: Levels) -> tuple[int, int]:
    """Rows and columns of the latent of levels."""
    name = codec.shape.names[0]
    stride = codec.shape.of[name][1]
    _, _, rows, columns = levels[name].shape
    return rows * stride // LATENT_STRIDE, columns * stride // LATENT_STRIDE


def train(
    data: Sequence[Path],
    folder: Path,
    recipe: PyramidRecipe,
    show: Callable[[dict[str, float]], None],
    *,
    vision: str | None = None,
    evaluation: Sequence[Path] = (),
    evaluated: int = 12,
    seed: int = 1,
    until: int | None = None,
    start: str | None = None,
    device: str = "cpu",
) -> Learned[PyramidCodec]:
    """Train, or go on where the run in `folder` stopped; the vision network stays as it is.

    Args:
        data: folders or tar shards of photographs; no label is read.
        vision: name of the vision network; None for the default one.
        evaluation: pictures that are only ever measured on.
        until: stop (and save) at this step; by default at the recipe's last.
        start: name of an installed model, perhaps of an earlier network, to begin with.

    Raises:
        WeightsError: `start` is not installed, or is of another shape.
        TrainingError: the loss is not finite or the rate has collapsed.
    """
    backend = open_backend(vision, device=device)
    if not isinstance(backend, ReferenceBackend):
        raise RequestError("a pyramid is trained with a network of the reference kind")
    torch.manual_seed(seed)  # only now: to load a network for the first time draws numbers too
    network = backend.model.network
    pool = PhotographCrops(data, recipe.crop, upright=True)
    fresh = not (folder / "state.json").exists()
    learned = _begin(backend, recipe, pool, seed, fresh=fresh and start is None)
    if start is not None:
        start_at_model(learned.codec, profile.NAME, start)
    learned = learned.to(device)
    rates = Rates(
        recipe.rate_transforms, recipe.rate_integers, recipe.rate_tables, recipe.rate_gains
    )
    groups = codec_groups(learned.codec, [learned.prior], rates)
    run = Run(
        folder, learned, groups, average=recipe.average, seed=seed, behind=learned.codec.binding
    )
    (folder / "recipe.json").write_text(json.dumps(dataclasses.asdict(recipe), indent=2) + "\n")
    pictures = read_pictures(evaluation, evaluated)
    seen = [dict(backend.head(rgb, profile.SPLIT).tensors) for rgb in pictures]
    learn(
        run, recipe.steps if until is None else min(recipe.steps, until),
        partial(_step, run, learned, network, pool, recipe), show,
        evaluate=partial(evaluate, learned, seen) if seen else None,
        report_every=REPORT_EVERY, save_every=SAVE_EVERY, evaluate_every=EVALUATE_EVERY,
    )  # fmt: skip
    return learned.cpu()


def _begin(
    backend: ReferenceBackend, recipe: PyramidRecipe, pool: PhotographCrops, seed: int, *,
    fresh: bool,
) -> Learned[PyramidCodec]:  # fmt: skip
    """The networks, at their start where the run is a fresh one."""
    learned = Learned(build(backend, recipe))
    if fresh:
        crops = pool.batch(PCA_CROPS, np.random.default_rng(seed))
        parts = torch.split(crops, 8)
        start_at_pca(learned.codec, [_cpu(levels_of(backend.model.network, p)) for p in parts])
    return learned


def _cpu(levels: Levels) -> dict[str, Tensor]:
    return {name: level.cpu() for name, level in levels.items()}


def _step(
    run: Run, learned: Learned[PyramidCodec], network: VisionNetwork, pool: PhotographCrops,
    recipe: PyramidRecipe, means: Means,
) -> float:  # fmt: skip
    """One step; keeps running means, and returns the share of the learning rates."""
    plan = draw(recipe, run.random)
    images = pool.batch(recipe.batch, run.random)
    levels = levels_of(network, images)
    outcome = code(learned.codec, learned.prior, levels, plan, noisy=True)
    pixels = images.numel() // 3
    value = loss(learned.codec, outcome, plan, pixels)
    share = schedule(run.step, recipe.steps, recipe.warm_up, recipe.last_rate)
    run.apply(value, share)
    bpp = float(outcome.bits.detach()) / pixels
    news = {"loss": value.item(), "bpp": bpp, "error": float(outcome.error.detach())}
    for name, new in news.items():
        means[name] = 0.99 * means.get(name, new) + 0.01 * new
    if run.step > 10 * recipe.warm_up and means["bpp"] < COLLAPSED_BPP:
        raise TrainingError(f"step {run.step}: the rate has collapsed to {means['bpp']:.2g} bpp")
    return share


# ---- export


def export_model(
    codec: PyramidCodec,
    data: Sequence[Path],
    *,
    vision: str | None = None,
    crops: int = 400,
    crop: int = 256,
    seed: int = 7,
    show: Callable[[str], None] = print,
) -> tuple[bytes, str]:
    """Freeze the networks, count symbols on training crops, fit the tables.

    Returns:
        The bytes of a safetensors file and the fingerprint in hexadecimal digits.
    """
    backend = open_backend(vision)
    assert isinstance(backend, ReferenceBackend)
    if backend.model.fingerprint != codec.binding:
        raise WeightsError(f"the codec was trained with network {codec.binding}, not this one")
    network, random = backend.model.network, np.random.default_rng(seed)
    pool = PhotographCrops(data, crop, upright=True)

    def count(model: Model) -> np.ndarray:
        def latent(crop: Tensor, labels: np.ndarray) -> Tensor:
            return latent_of(model, levels_of(network, crop), labels)

        drawn = pool.batch(crops, random)
        return export.count_base_symbols(model, drawn, random, latent, profile.price)

    return export.write_model(export.fit_model(codec, count, show))
