"""Training of what takes base layers to a vision network: feature transform and preview front.

Codec and vision network stand still.  Every step takes views that were coded at a random level,
rebuilds the split tensor from their base layers, by the front from previews or by the transform
from latents (now and then with groups left out), and compares what the rest of the network makes of
it with what it makes of the clean views (`eyes`).

The transform begins far away: at first it learns the split tensor and the stage behind it, in large
steps, then in small ones everything that is seen.  Every batch of views is shown to it several
times, since coding them takes as long as a step.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn

from vcmcodec.errors import RequestError
from vcmcodec.models import TasksModel
from vcmcodec.nn.feature_transform import FeatureTransform, FeatureTransformConfig
from vcmcodec.nn.gain import RATE_LEVEL_MAX, Level
from vcmcodec.nn.transforms import Synthesis, TransformShape
from vcmcodec.training.eyes import Eyes, split_tensor
from vcmcodec.training.learner import Learner, go_on
from vcmcodec.training.loop import warm_stable_decay
from vcmcodec.training.muon import MuonAdamW, parameter_groups
from vcmcodec.training.near_first import NearFirstRecipe
from vcmcodec.training.photographs import Views, random_labels
from vcmcodec.training.preview_front import (
    MULTIPLE,
    PreviewFront,
    best_shares,
    previews,
    random_sides,
    scaled,
)
from vcmcodec.training.vision_stages import Replayed
from vcmcodec.vision.config import VisionConfig
from vcmcodec.vision.network import VisionNetwork, VisionOutput
from vcmcodec.vision.sight import Seen

CELL = 16
GREY = 0.45  # of the cells that are not there, in the picture that the network should have seen
# views (N, 3, H, W) in 0..1, a rate level, whether to adapt -> base latents (N, rows, columns,
# channels)
LatentSource = Callable[[Tensor, int, bool], Tensor]
SHARE_BATCHES = 6  # that the shares of the front are chosen on


@dataclass(frozen=True)
class TasksRecipe(NearFirstRecipe):
    """Numbers of the training; `rate` and `near_rate` are the transform's.

    Attributes:
        top_quality: highest quality of the base layer that is taught.
        low: share of the views that are below a third of it, beside those that are by chance.
        previews: share of the steps in which the preview front learns; the transform does in the
            others.
        dropped: share of the transform's batches in which groups are missing.
        adapted: share of them whose base layers are adapted to the network, by the tasks model
            that is installed.
        front: step size of the preview front, from the first step to the last.
        sight_prices: (base quality, bits a pixel that a distance of 1 is worth) for encoders that
            adapt a base layer; half again of what the next bits of quality buy.
    """

    top_quality: float = 80.0
    low: float = 0.5
    previews: float = 0.3
    dropped: float = 0.25
    adapted: float = 0.0
    front: float = 3e-5
    sight_prices: tuple[tuple[float, float], ...] = ((0.0, 0.105), (100.0, 25.7))
    seed: int = 1

    def front_rate_at(self, step: int) -> float:
        """Step size of the front."""
        return self.front * warm_stable_decay(step, self.steps, self.warm_up, self.decay)


def transform_shape(
    config: VisionConfig, codec: TransformShape, levels: int
) -> FeatureTransformConfig:
    """The feature transform's shape between a codec's base layer and a network's stages."""
    return FeatureTransformConfig(
        base_channels=codec.latent[0], levels=levels, blocks=codec.latent_blocks,
        halves=codec.trunk[0], fine_blocks=codec.trunk_blocks, channels=config.c3,
    )  # fmt: skip


@dataclass(frozen=True)
class Lesson:
    """Views that were coded, for the transform.

    Attributes:
        latent: their base latents (N, rows, columns, channels), bfloat16.
        rate_level: at which they were coded.
        present: (N, rows, columns, 1), 1 where a cell is there.
        clean: what the network sees in the views, grey where no cell is there; bfloat16.
    """

    latent: Tensor
    rate_level: int
    present: Tensor
    clean: Seen[VisionOutput]


class Taught(nn.Module):
    """What is learned: the feature transform and the preview front."""

    def __init__(self, transform: FeatureTransform, front: PreviewFront) -> None:
        super().__init__()
        self.transform, self.front = transform, front


class TasksTrainer(Learner):
    """What is taught, its average, the optimiser and the place in the run.

    Attributes:
        transform, front: what is taught.
    """

    def __init__(
        self,
        recipe: TasksRecipe,
        latents: LatentSource,
        views: Views,
        vision: VisionNetwork,
        *,
        levels: int,
        synthesis: Synthesis,
        behind: str = "",
    ) -> None:
        """Measure how far features spread, and begin with an untaught transform.

        `behind` names what stands still, by fingerprints.
        """
        torch.manual_seed(recipe.seed)
        self.recipe, self.latents, self.views = recipe, latents, views
        random = np.random.default_rng(recipe.seed)
        crops = [views.batch(4, random) for _ in range(12)]
        self.eyes = Eyes(vision, crops)
        shape = transform_shape(vision.config, synthesis.shape, levels)
        self.transform = FeatureTransform(shape)
        self.transform.start_from_synthesis(synthesis)
        self.transform.mixed = True
        self.synthesis = synthesis
        self.lessons = Replayed(self._lesson, recipe.lessons.kept)
        self.front = PreviewFront(vision)
        taught = Taught(self.transform, self.front)
        groups = [
            group | {"part": name}
            for name, part in taught.named_children()
            for group in parameter_groups(part, recipe.weight_decay)
        ]
        super().__init__(
            taught, MuonAdamW(groups, recipe.rate),
            shape=asdict(shape), behind=behind, clip=recipe.clip, ema=recipe.ema,
            device=vision.mean.device,
        )  # fmt: skip
        self._rates = {"transform": recipe.rate_at, "front": recipe.front_rate_at}

    def start_from(self, model: TasksModel) -> None:
        """Begin with another model's front, and with its transform where the shape is the same.

        Raises:
            RequestError: its front is of another shape, or it has none.
        """
        own = dict(self.front.named_parameters())
        shapes = {name: value.shape for name, value in model.replaced.items()}
        if shapes != {name: value.shape for name, value in own.items()}:
            raise RequestError(f"{model.id} has no preview front of this shape")
        with torch.no_grad():
            for name, value in model.replaced.items():
                own[name].copy_(value)
        if model.facts.config == self.transform.config:
            self.transform.load_state_dict(model.transform.state_dict())
        self.begin_average()

    def train_step(self) -> dict[str, float]:
        """One step; what it says depends on the recipe's seed and the step alone."""
        recipe = self.recipe
        random = np.random.default_rng((recipe.seed, self.step))
        if random.random() < recipe.previews:
            rate_level = self._rate_level(random)
            distance = self._of_previews(recipe.batch, rate_level, random)
            news = {"preview": float(distance.detach())}
        else:
            lesson = self.lessons[recipe.lessons.number(self.step, recipe.seed)]
            rate_level = lesson.rate_level
            near = self.step < recipe.near_steps
            distance, parts = self._of_latents(lesson, near)
            news = {"near" if near else "distance": float(distance.detach()), **parts}
        self.descend(distance, lambda group: self._rates[group["part"]](self.step))
        third = min(2, int(3 * rate_level / (self._top + 1)))
        name = next(iter(news))
        return news | {f"{name}_{third}": news[name]}

    @property
    def _top(self) -> float:
        return self.recipe.top_quality * RATE_LEVEL_MAX / 100

    def _rate_level(self, random: np.random.Generator) -> int:
        level = self._top * random.random()
        return int(level / 3 if random.random() < self.recipe.low else level)

    @torch.no_grad()
    def _lesson(self, number: int) -> Lesson:
        """Code new views; what they are depends on the recipe's seed and the number alone."""
        recipe = self.recipe
        random = np.random.default_rng((recipe.seed, 2, number))
        images, rate_level = self.views.batch(recipe.batch, random), self._rate_level(random)
        adapted = random.random() < recipe.adapted
        latent = self.latents(images, rate_level, adapted)
        present = torch.ones(*latent.shape[:3], 1)
        if random.random() < recipe.dropped:
            labels = random_labels(latent.shape[1], latent.shape[2], random)
            left = labels != random.integers(labels.max() + 1)
            present = present * torch.from_numpy(left).float()[None, :, :, None]
            shown = torch.from_numpy(np.kron(left, np.ones((CELL, CELL)))).float()
            images = images * shown + GREY * (1 - shown)
        return Lesson(latent.to(torch.bfloat16), rate_level, present, self.eyes.clean(images))

    def _of_latents(self, lesson: Lesson, near: bool) -> tuple[Tensor, dict[str, float]]:
        """How far the transform is from what the network sees in the views."""
        level = Level(lesson.rate_level, self.transform.config.levels)
        split = split_tensor(self.transform, lesson.latent.float(), level, lesson.present)
        if not near:
            return self.eyes.distance(self.eyes.going_on({"c3": split}), lesson.clean)
        return self.eyes.near(split, lesson.clean)

    def _of_previews(self, count: int, rate_level: int, random: np.random.Generator) -> Tensor:
        """How far the front is, on previews of new views."""
        images = self.views.batch(count, random)
        coded, seen = random_sides(self.recipe.side, random)
        latent = self.latents(scaled(images, coded), rate_level, False)
        shown = self.front(scaled(previews(self.synthesis, latent), seen))
        clean = self.eyes.clean(scaled(images, seen))
        return self.eyes.distance(self.eyes.decoded(*shown), clean)[0]

    def preview_shares(self, front: PreviewFront) -> list[tuple[float, float]]:
        """The best share of a taught front at some qualities of the base layer.

        Half of the views are coded as they are and reduced to be seen, half the other way round.
        """
        random = np.random.default_rng((self.recipe.seed, 1))
        whole, less = self.recipe.side, CELL * round(0.875 * self.recipe.side / CELL)
        sizes = [(whole, MULTIPLE * (less // MULTIPLE)), (less, whole)]
        drawn = [self.views.batch(self.recipe.batch, random) for _ in range(SHARE_BATCHES)]

        def look(quality: float) -> Iterator[tuple[Tensor, Tensor]]:
            for number, images in enumerate(drawn):
                coded, seen = sizes[number % 2]
                rate_level = int(quality * RATE_LEVEL_MAX / 100)
                latent = self.latents(scaled(images, coded), rate_level, False)
                yield scaled(previews(self.synthesis, latent), seen), scaled(images, seen)

        return best_shares(front, self.eyes, look)


def train_tasks(
    trainer: TasksTrainer,
    run: Path,
    *,
    minutes: float | None = None,
    report: Callable[[dict[str, float]], None] = lambda line: None,
) -> Taught:
    """Train, or go on where the run stopped; returns the average.

    Args:
        trainer: at its start; the state of an earlier run is loaded into it.
        run: folder of checkpoint and log.
        minutes: stop, and save, after so long.
        report: told the mean of the last steps.
    """
    last = run / "last.pt"
    if last.exists():
        trainer.load(last)
    steps = trainer.recipe.steps
    go_on(trainer, trainer.train_step, steps, last, run, report=report, minutes=minutes)
    taught = trainer.average
    assert isinstance(taught, Taught)
    return taught
