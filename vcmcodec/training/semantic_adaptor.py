"""`vcm train semantic --stage adaptor`: from the feature to a network.

Encoder, filter and codec are frozen, and so is the vision network.  The adaptor sees the feature as
it comes out of the codec at random rate levels, and learns to make of it what that network has at
its own c3: at first that and the stage behind it alone, in large steps, then in small ones so that
everything behind sees the same (`eyes`).  It reads no label itself, but the network that it learns
from did; nothing of it reaches the first two stages.

The two stages before lie in the run's folder, or in an installed model, whose files then go on
working: nothing that decides a symbol changes.
"""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Callable, Sequence
from copy import deepcopy
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from safetensors.torch import save_file
from torch import Tensor

from vcmcodec.bitstream.constants import Kind
from vcmcodec.errors import RequestError
from vcmcodec.models import load_model
from vcmcodec.nn.gain import RATE_LEVEL_MAX
from vcmcodec.nn.pyramid_codec import LATENT_STRIDE
from vcmcodec.nn.semantic_codec import FEATURE, geometry_of
from vcmcodec.profiles import base_layer
from vcmcodec.profiles import semantic as profile
from vcmcodec.profiles.semantic import SemanticModel
from vcmcodec.training import semantic_run
from vcmcodec.training.eyes import Eyes
from vcmcodec.training.learner import Learner, go_on
from vcmcodec.training.muon import MuonAdamW, parameter_groups
from vcmcodec.training.near_first import NearFirstRecipe
from vcmcodec.training.photographs import Views
from vcmcodec.training.semantic import Draw, code
from vcmcodec.training.vision_stages import Replayed
from vcmcodec.vision.backend import ReferenceBackend, open_backend
from vcmcodec.vision.generic import Adaptor
from vcmcodec.vision.layers import channels_last
from vcmcodec.vision.network import VisionNetwork, VisionOutput
from vcmcodec.vision.sight import Seen

STAGE = "adaptor"
EYE_BATCHES = 10  # clean ones, that the spread of the network's channels is taken from
# views (N, 3, H, W) in 0..1 and a rate level -> the feature (N, C, H / 8, W / 8) as it is decoded
FeatureSource = Callable[[Tensor, int], Tensor]


def reference(name: str | None, device: str) -> tuple[VisionNetwork, str]:
    """The network that the adaptor leads to, and its fingerprint.

    Raises:
        RequestError: it is not of the reference kind.
    """
    backend = open_backend(name, device=device)
    if not isinstance(backend, ReferenceBackend):
        raise RequestError("an adaptor leads to a vision network of the reference kind")
    return backend.model.network, backend.fingerprint


def installed(name: str, device: str) -> SemanticModel:
    """The installed model of that name.

    Raises:
        WeightsError: there is none.
    """
    model = load_model(profile.NAME, name, device=device)
    assert isinstance(model, SemanticModel)
    return model


@dataclass(frozen=True)
class Front:
    """What the stages before have left.

    Attributes:
        channels: of the feature.
        mark: fingerprint of what makes it, and of the codec where that has one.
        decoded: codes views.
        adaptor: to begin with; None: an untaught one.
    """

    channels: int
    mark: str
    decoded: FeatureSource
    adaptor: Adaptor | None = None


def front_of_run(folder: Path, device: torch.device) -> Front:
    """Features and codec of a run; what is coded is estimated, since there are no tables yet.

    Raises:
        RequestError: a stage is missing.
    """
    learned, encoder = semantic_run.read_codec(folder)
    learned, encoder = learned.to(device), encoder.to(device)

    @torch.no_grad()
    def decoded(rgb: Tensor, level: int) -> Tensor:
        feature = semantic_run.features_of(encoder, rgb)
        side = feature.shape[2] // 2, feature.shape[3] // 2
        plan = Draw(level, np.zeros(side, np.int64))
        return code(learned.codec, learned.prior, feature, plan, noisy=False)[0]

    return Front(encoder.network.config.c3, learned.codec.binding, decoded)


def front_of_model(model: SemanticModel) -> Front:
    """Features and codec of an installed model; what is coded is decoded from its bytes."""
    codec = model.coding.codec

    @torch.inference_mode()
    def decoded(rgb: Tensor, level: int) -> Tensor:
        labels = np.zeros((rgb.shape[2] // LATENT_STRIDE, rgb.shape[3] // LATENT_STRIDE), np.int64)
        feature = model.encoder(rgb.contiguous(memory_format=torch.channels_last))
        found, price = [], profile.price(codec, level)
        for one in feature:
            latent = profile.latent_of(codec, one[None], labels)
            coded = base_layer.encode_base(model.coding, latent, labels, 1, level, price=price)
            runs = {(Kind(p.kind), p.layer, p.group, p.tile): p.data for p in coded}
            found.append(base_layer.decode_base(model.coding, labels, 1, level, runs))
        geometry = geometry_of(labels, rgb.device)
        rebuilt: Tensor = codec.synthesis(torch.stack(found).to(rgb.device), geometry)
        return rebuilt

    return Front(codec.shape.channels, model.fingerprint.hex(), decoded, model.adaptor)


@dataclass(frozen=True)
class Lesson:
    """Views that were coded.

    Attributes:
        decoded: their feature, bfloat16.
        level: the rate level.
        clean: what the network sees in the views, bfloat16.
    """

    decoded: Tensor
    level: int
    clean: Seen[VisionOutput]


class AdaptorTrainer(Learner):
    """The adaptor, its average, the optimiser and the place in the run."""

    def __init__(
        self, front: Front, views: Views, recipe: NearFirstRecipe, network: VisionNetwork, *,
        seed: int, reference: str = "",
    ) -> None:  # fmt: skip
        """Begin with the front's adaptor, or with an untaught one at the mean of what is wanted.

        `reference` is the network's fingerprint.
        """
        torch.manual_seed(seed)
        self.front, self.views, self.recipe, self.seed = front, views, recipe, seed
        self.device = network.mean.device
        random = np.random.default_rng(seed)
        crops = [self._views(random)[:4] for _ in range(EYE_BATCHES)]
        self.eyes = Eyes(network, crops)
        self.adaptor = channels_last(self._begin(crops).to(self.device).requires_grad_(True))
        self.lessons = Replayed(self._lesson, recipe.lessons.kept)
        groups = parameter_groups(self.adaptor, recipe.weight_decay)
        super().__init__(
            self.adaptor, MuonAdamW(groups, recipe.near_rate), shape=self.adaptor.shape,
            behind=f"feature {front.mark}, vision {reference}", clip=recipe.clip, ema=recipe.ema,
            device=network.mean.device,
        )  # fmt: skip

    def _begin(self, crops: Sequence[Tensor]) -> Adaptor:
        own, outputs = self.front.adaptor, self.eyes.network.config.c3
        if own is not None and own.shape["outputs"] == outputs:
            return deepcopy(own)
        adaptor = Adaptor(self.front.channels, outputs)
        assert adaptor.leave.bias is not None
        with torch.no_grad():
            wanted = torch.cat([self.eyes.clean(crop).features["c3"].float() for crop in crops])
            adaptor.leave.bias.copy_(wanted.mean((0, 2, 3)))
        return adaptor

    def _views(self, random: np.random.Generator) -> Tensor:
        return self.views.batch(self.recipe.batch, random).to(self.device)

    @torch.no_grad()
    def _lesson(self, number: int) -> Lesson:
        """Code new views; what they are depends on the seed and the number alone."""
        random = np.random.default_rng((self.seed, number))
        rgb, level = self._views(random), int(RATE_LEVEL_MAX * random.random())
        decoded = self.front.decoded(rgb, level).to(torch.bfloat16)
        decoded = decoded.clone(memory_format=torch.channels_last)  # no tensor of inference mode
        return Lesson(decoded, level, self.eyes.clean(rgb))

    def train_step(self) -> dict[str, float]:
        """One step; what it says depends on the seed and the step alone."""
        recipe = self.recipe
        lesson = self.lessons[recipe.lessons.number(self.step, self.seed)]
        near = self.step < recipe.near_steps
        self.adaptor.train()
        with torch.autocast(self.device.type, torch.bfloat16):
            made = self.adaptor(lesson.decoded)
        if near:
            away, parts = self.eyes.near(made, lesson.clean)
        else:
            away, parts = self.eyes.distance(self.eyes.going_on({FEATURE: made}), lesson.clean)
        self.descend(away, lambda group: recipe.rate_at(self.step))
        name, third = "near" if near else "distance", 3 * lesson.level // (RATE_LEVEL_MAX + 1)
        far = float(away.detach())
        return {name: far, f"{name}_{third}": far, **parts}


def train(
    data: Sequence[Path],
    folder: Path,
    recipe: NearFirstRecipe,
    show: Callable[[dict[str, float]], None],
    *,
    objects: Sequence[Path] = (),
    vision: str | None = None,
    start: SemanticModel | None = None,
    seed: int = 1,
    until: int | None = None,
    device: str = "cpu",
) -> Adaptor:
    """Train, or go on where the run in `folder / adaptor` stopped.

    Args:
        data, objects: folders or tar shards of photographs, and of objects, which are enlarged at
            random; no label is read.
        folder: of all stages; features and codec must be done, unless `start` brings them.
        vision: name of the vision network; None for the default one.
        start: an installed model to teach behind, beginning with its adaptor where that fits.
        until: stop (and save) at this step; by default at the recipe's last.

    Returns:
        The averaged adaptor; it is also written to `folder / adaptor.safetensors`.

    Raises:
        RequestError: a stage is missing, or the network is of another kind.
        TrainingError: the loss is not finite.
    """
    network, mark = reference(vision, device)
    front = front_of_run(folder, network.mean.device) if start is None else front_of_model(start)
    views = Views(data, objects, recipe.side)
    trainer = AdaptorTrainer(front, views, recipe, network, seed=seed, reference=mark)
    run = folder / STAGE
    checkpoint = run / "last.pt"
    if checkpoint.exists():
        trainer.load(checkpoint)
    last = recipe.steps if until is None else min(recipe.steps, until)
    go_on(trainer, trainer.train_step, last, checkpoint, run, report=show)
    average = trainer.average
    assert isinstance(average, Adaptor)
    adaptor = average.cpu().fold()
    about = {"adaptor": adaptor.shape, "reference": mark, "step": trainer.step}
    about |= {"recipe": dataclasses.asdict(recipe)}
    state = {name: value.contiguous() for name, value in adaptor.state_dict().items()}
    save_file(state, folder / f"{STAGE}.safetensors", {STAGE: json.dumps(about)})
    return adaptor
