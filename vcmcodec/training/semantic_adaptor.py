"""`vcm train semantic --stage adaptor`: from the feature to a network; the export.

Encoder, filter and codec are frozen, and so is the vision network.  The adaptor sees the feature as
it comes out of the codec at random rate levels, and learns to make of it what that network has at
its own c3: first to be near it, then so that everything behind sees the same (`eyes`).  It reads no
label itself, but the network that it learns from did; nothing of it reaches the first two stages.
"""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Callable, Sequence
from copy import deepcopy
from pathlib import Path

import numpy as np
import torch
from safetensors.torch import load_file, save, save_file
from torch import Tensor

from vcmcodec.errors import RequestError
from vcmcodec.nn.gain import RATE_LEVEL_MAX
from vcmcodec.nn.model_tensors import Model
from vcmcodec.nn.semantic_codec import FEATURE
from vcmcodec.profiles import semantic as profile
from vcmcodec.training import export, semantic_run
from vcmcodec.training.eyes import Eyes
from vcmcodec.training.loop import (
    Log,
    descend,
    follow,
    mean_of_rows,
    warm_stable_decay,
    write_checkpoint,
)
from vcmcodec.training.muon import MuonAdamW, parameter_groups
from vcmcodec.training.photographs import PhotographCrops, Views
from vcmcodec.training.semantic import AdaptorRecipe, Draw, code
from vcmcodec.training.vision_teacher import stage_loss
from vcmcodec.vision import generic
from vcmcodec.vision.backend import ReferenceBackend, open_backend
from vcmcodec.vision.generic import Adaptor, GenericFacts
from vcmcodec.vision.layers import channels_last
from vcmcodec.vision.network import VisionNetwork

STAGE = "adaptor"
REPORT_EVERY, SAVE_EVERY = 20, 200
EYE_BATCHES = 10  # clean ones, that the spread of the network's channels is taken from


def reference(name: str | None, device: str) -> tuple[VisionNetwork, str]:
    """The network that the adaptor leads to, and its fingerprint.

    Raises:
        RequestError: it is not of the reference kind.
    """
    backend = open_backend(name, device=device)
    if not isinstance(backend, ReferenceBackend):
        raise RequestError("an adaptor leads to a vision network of the reference kind")
    return backend.model.network, backend.fingerprint


class AdaptorTrainer:
    """The adaptor, its average, the optimiser and the place in the run."""

    def __init__(
        self, folder: Path, data: Sequence[Path], objects: Sequence[Path], recipe: AdaptorRecipe,
        network: VisionNetwork, *, seed: int,
    ) -> None:  # fmt: skip
        """Load what the stages before have left, and begin at the mean of what is wanted.

        Raises:
            RequestError: a stage is missing.
        """
        torch.manual_seed(seed)
        self.learned, self.encoder = semantic_run.read_codec(folder)
        self.recipe, self.seed, self.step = recipe, seed, 0
        self.views = Views(data, objects, recipe.side)
        device = network.mean.device
        self.learned, self.encoder = self.learned.to(device), self.encoder.to(device)
        random = np.random.default_rng(seed)
        crops = [self._views(random)[:4] for _ in range(EYE_BATCHES)]
        self.eyes = Eyes(network, crops)
        config = self.encoder.network.config
        self.adaptor = channels_last(Adaptor(config.c3, network.config.c3).to(device))
        assert self.adaptor.leave.bias is not None
        with torch.no_grad():
            wanted = torch.cat([self.eyes.clean(crop).features["c3"].float() for crop in crops])
            self.adaptor.leave.bias.copy_(wanted.mean((0, 2, 3)))
        self.average = deepcopy(self.adaptor).eval().requires_grad_(False)
        self.optimiser = MuonAdamW(parameter_groups(self.adaptor, recipe.weight_decay), recipe.rate)

    def _views(self, random: np.random.Generator) -> Tensor:
        return self.views.batch(self.recipe.batch, random).to(self.encoder.network.mean.device)

    @torch.no_grad()
    def decoded(self, rgb: Tensor, level: int) -> Tensor:
        """The feature of pictures as it comes out of the codec."""
        feature = semantic_run.features_of(self.encoder, rgb)
        side = feature.shape[2] // 2, feature.shape[3] // 2
        plan = Draw(level, np.zeros(side, np.int64))
        found, _ = code(self.learned.codec, self.learned.prior, feature, plan, noisy=False)
        return found.contiguous(memory_format=torch.channels_last)

    def train_step(self) -> dict[str, float]:
        """One step; what it says depends on the seed and the step alone."""
        recipe = self.recipe
        random = np.random.default_rng((self.seed, self.step))
        rgb = self._views(random)
        level = int(RATE_LEVEL_MAX * random.random())
        decoded, clean = self.decoded(rgb, level), self.eyes.clean(rgb)
        self.adaptor.train()
        with torch.autocast(rgb.device.type, torch.bfloat16):
            made = self.adaptor(decoded)
        near = stage_loss(made, clean.features[FEATURE].float())
        news, loss = {"c3": float(near.detach())}, recipe.near * near
        if self.step >= recipe.behind_from * recipe.steps:
            away, _ = self.eyes.distance(self.eyes.going_on({FEATURE: made}), clean)
            third = min(2, 3 * level // (RATE_LEVEL_MAX + 1))
            news |= {"distance": float(away.detach()), f"distance_{third}": float(away.detach())}
            loss = loss + away
        self._descend(loss)
        return news

    def _descend(self, loss: Tensor) -> None:
        recipe = self.recipe
        share = warm_stable_decay(self.step, recipe.steps, recipe.warm_up, recipe.decay)
        for group in self.optimiser.param_groups:
            group["lr"] = recipe.rate * share
        descend(self.optimiser, loss, list(self.adaptor.parameters()), recipe.clip, self.step)
        self.step += 1
        follow(self.average, self.adaptor, self.step, recipe.average)

    def save(self, path: Path) -> None:
        """Write a checkpoint; the file appears whole or not at all."""
        state = {
            "adaptor": self.adaptor.state_dict(),
            "average": self.average.state_dict(),
            "optimiser": self.optimiser.state_dict(),
            "step": self.step,
        }
        write_checkpoint(path, state)

    def load(self, path: Path) -> None:
        """Go on from a checkpoint."""
        state = torch.load(path, map_location=self.eyes.device, weights_only=True)
        self.adaptor.load_state_dict(state["adaptor"])
        self.average.load_state_dict(state["average"])
        self.optimiser.load_state_dict(state["optimiser"])
        self.step = state["step"]


def train(
    data: Sequence[Path],
    folder: Path,
    recipe: AdaptorRecipe,
    show: Callable[[dict[str, float]], None],
    *,
    objects: Sequence[Path] = (),
    vision: str | None = None,
    seed: int = 1,
    until: int | None = None,
    device: str = "cpu",
) -> Adaptor:
    """Train, or go on where the run in `folder / adaptor` stopped.

    Args:
        data, objects: folders or tar shards of photographs, and of objects, which are enlarged at
            random; no label is read.
        folder: of all stages; features and codec must be done.
        vision: name of the vision network; None for the default one.
        until: stop (and save) at this step; by default at the recipe's last.

    Returns:
        The averaged adaptor; it is also written to `folder / adaptor.safetensors`.

    Raises:
        RequestError: a stage is missing, or the network is of another kind.
        TrainingError: the loss is not finite.
    """
    network, mark = reference(vision, device)
    trainer = AdaptorTrainer(folder, data, objects, recipe, network, seed=seed)
    run = folder / STAGE
    run.mkdir(parents=True, exist_ok=True)
    if (run / "last.pt").exists():
        trainer.load(run / "last.pt")
    last = recipe.steps if until is None else min(recipe.steps, until)
    log, rows = Log(run, show), list[dict[str, float]]()
    try:
        while trainer.step < last:
            rows.append(trainer.train_step())
            if trainer.step % REPORT_EVERY == 0:
                log.report(trainer.step, **mean_of_rows(rows))
                rows.clear()
            if trainer.step % SAVE_EVERY == 0:
                trainer.save(run / "last.pt")
    finally:
        log.close()
    trainer.save(run / "last.pt")
    adaptor = trainer.average.cpu()
    about = {"adaptor": adaptor.shape, "reference": mark, "step": trainer.step}
    about |= {"recipe": dataclasses.asdict(recipe)}
    state = {name: value.contiguous() for name, value in adaptor.state_dict().items()}
    save_file(state, folder / f"{STAGE}.safetensors", {STAGE: json.dumps(about)})
    return adaptor


def read_adaptor(folder: Path) -> tuple[Adaptor, str]:
    """A finished stage's adaptor, folded, and the fingerprint of the network that it leads to."""
    path = semantic_run.result(folder, STAGE)
    about = semantic_run.facts_of(path)
    adaptor = Adaptor(**about["adaptor"])
    adaptor.load_state_dict(load_file(path))
    return adaptor.fold(), str(about["reference"])


# ---- export


def export_model(
    folder: Path,
    data: Sequence[Path],
    *,
    crops: int = 400,
    crop: int = 256,
    seed: int = 7,
    show: Callable[[str], None] = print,
) -> tuple[bytes, str, str]:
    """Freeze everything that ships, count symbols on training crops, fit the tables.

    Args:
        folder: of all stages, each of them done.
        data: folders or tar shards of photographs.

    Returns:
        The bytes of a safetensors file, the model's fingerprint and that of its encoder, both in
        hexadecimal digits.
    """
    learned, network = semantic_run.read_codec(folder)
    adaptor, mark = read_adaptor(folder)
    facts = GenericFacts(semantic_run.LONGER_SIDE, mark)
    random = np.random.default_rng(seed)
    pool = PhotographCrops(data, crop, upright=True)

    def count(model: Model) -> np.ndarray:
        def latent_of(crop: Tensor, labels: np.ndarray) -> Tensor:
            feature = semantic_run.features_of(network, crop)
            return profile.latent_of(model.codec, feature, labels)

        drawn = pool.batch(crops, random)
        return export.count_base_symbols(model, drawn, random, latent_of, profile.price)

    model = export.fit_model(learned.codec, count, show)
    tensors, metadata = profile.pack(model, generic.encoder_of(network), adaptor, facts)
    profile.read_model(dict(tensors), dict(metadata))
    return save(tensors, metadata), metadata["fingerprint"], learned.codec.binding
