"""Numbers of the vision network's training, and how they scale."""

from __future__ import annotations

import math
from dataclasses import dataclass, field, replace

from vcmcodec.training.loop import warm_stable_decay
from vcmcodec.training.vision_stages import DeepRecipe
from vcmcodec.vision.config import VisionConfig


def falling(between: tuple[int, int], step: int) -> float:
    """1 until the first of two steps, 0 from the second on, linear between."""
    first, last = between
    return min(1.0, max(0.0, (last - step) / max(1, last - first)))


@dataclass(frozen=True)
class Phase:
    """Steps up to `until` use square views of `side` pixels, `size` a batch."""

    until: int
    side: int
    size: int


@dataclass(frozen=True)
class AreasRecipe(DeepRecipe):
    """Numbers of the deep segmentation head's training, after all others.

    Attributes:
        width: `VisionConfig.areas`.
        rate, warm_up, decay, ema: as of `VisionRecipe`, whose `segmentation`, `soft`, `mosaic`,
            `weight_decay` and `clip` hold here, too.
        forced: as of `VisionRecipe`, for the head's own stages.
        through: share of a stage's gradient that goes on to the stage before.
        teach: weight of a stage's distance to the teacher's.
        zoom: range of the picture's longer side over the view's.
        mixed: share of the views that are mixtures of two (`mixtures`).
    """

    steps: int = 0
    size: int = 12
    kept: int = 130
    width: int = 160
    rate: float = 2.5e-3
    warm_up: int = 40
    decay: float = 0.5
    ema: float = 0.995
    forced: tuple[int, int] = (1200, 2400)
    through: float = 0.3
    teach: float = 2.0
    zoom: tuple[float, float] = (0.8, 2.0)
    mixed: float = 0.5

    def forced_at(self, step: int) -> float:
        """Share of the views whose stages see the teacher's stage before them."""
        return falling(self.forced, step)


@dataclass(frozen=True)
class VisionRecipe:
    """Every number of the training.

    Attributes:
        steps: length of the run.
        phases: view sizes, small first: small views teach most a second.
        rate: step size in the stable part.
        warm_up: steps of linear growth.
        decay: share of the steps in which the rate falls to zero (half a cosine).
        forced: until the first of these steps every stage is taught on the teacher's features, not
            on those of the stages in front of it; from the second on never; linear between.
        through: share of a stage's gradient that goes on to the stage before.
        still: from this step on the stem, c2 and c3 stay as they are.
        deep: from there on, for its steps, the stages behind them learn alone.
        areas: afterwards, when the others are done, the deep segmentation head learns alone.
        pace: step size of those stages afterwards, in `rate`: few views a step would undo what
            many have taught.
        weight_decay: on convolution weights.
        clip: largest gradient norm.
        ema: decay of the averaged weights that are kept.
        mosaic: share of mosaics until the decay; half of it afterwards.
        zoom: range of the picture's longer side over the view's.
        teach: weights of the stages' distance to the teacher's at the start and at the end.
        taught: weight of the detector's word on every cell.
        detection, box, segmentation, soft, presence: weights of the other losses.
        seed: of the network's start and of the batches.
        config: shape of the network.
    """

    steps: int = 9000
    phases: tuple[Phase, ...] = (Phase(5400, 256, 8), Phase(10**9, 320, 6))
    rate: float = 2.5e-3
    warm_up: int = 100
    decay: float = 0.4
    forced: tuple[int, int] = (600, 2000)
    through: float = 0.2
    still: int = 10**9
    deep: DeepRecipe = field(default_factory=DeepRecipe)
    areas: AreasRecipe = field(default_factory=AreasRecipe)
    pace: float = 1.0
    weight_decay: float = 0.03
    clip: float = 10.0
    ema: float = 0.998
    mosaic: float = 0.15
    zoom: tuple[float, float] = (0.9, 2.0)
    teach: tuple[float, float] = (8.0, 4.0)
    taught: float = 0.5
    detection: float = 0.15
    box: float = 2.0
    segmentation: float = 0.7
    soft: float = 2.0
    presence: float = 0.1
    seed: int = 1
    config: VisionConfig = field(default_factory=VisionConfig)

    def rate_at(self, step: int) -> float:
        """Step size at a step."""
        return self.rate * warm_stable_decay(step, self.steps, self.warm_up, self.decay)

    def forced_at(self, step: int) -> float:
        """Share of the views whose stages see the teacher's features."""
        return falling(self.forced, step)

    def phase_at(self, step: int) -> Phase:
        """The phase that a step belongs to."""
        return next(phase for phase in self.phases if step < phase.until)


# An hour or two on one CPU core: few views, so weak augmentation and small pictures.
SHORT = VisionRecipe(
    steps=8700,
    phases=(Phase(4500, 256, 8), Phase(10**9, 320, 8)),
    decay=0.25,
    still=4500,
    deep=DeepRecipe(steps=2400),
    areas=AreasRecipe(steps=4200),
    pace=0.2,
)
# An accelerator: hundreds of views of each picture, so strong augmentation and true sizes.
LONG = VisionRecipe(
    steps=24000,
    phases=(Phase(12000, 256, 64), Phase(19000, 320, 48), Phase(10**9, 416, 32)),
    warm_up=800,
    decay=0.4,
    ema=0.9995,
    forced=(4000, 10000),
    mosaic=0.4,
    zoom=(0.6, 2.2),
    areas=AreasRecipe(
        steps=12000, size=48, replays=0, forced=(3000, 6000), warm_up=200, zoom=(0.6, 2.2)
    ),
)
RECIPES = {"short": SHORT, "long": LONG}


def with_steps(recipe: VisionRecipe, steps: int) -> VisionRecipe:
    """The recipe for a shorter or longer run, phases and forcing scaled alike."""
    ratio = steps / recipe.steps
    phases = tuple(
        replace(phase, until=max(1, round(phase.until * ratio))) if phase.until < 10**9 else phase
        for phase in recipe.phases
    )
    return replace(
        recipe,
        steps=steps,
        phases=phases,
        forced=_scaled(recipe.forced, ratio),
        still=round(recipe.still * ratio),
        deep=replace(recipe.deep, steps=round(recipe.deep.steps * ratio)),
        areas=_areas_scaled(recipe.areas, ratio),
    )


def with_area_steps(recipe: VisionRecipe, steps: int) -> VisionRecipe:
    """The recipe for as many steps of the deep segmentation head; what comes before stays."""
    return replace(recipe, areas=_areas_scaled(recipe.areas, steps / recipe.areas.steps))


def _areas_scaled(areas: AreasRecipe, ratio: float) -> AreasRecipe:
    return replace(areas, steps=round(areas.steps * ratio), forced=_scaled(areas.forced, ratio))


def _scaled(between: tuple[int, int], ratio: float) -> tuple[int, int]:
    first, last = between
    return round(first * ratio), max(1, round(last * ratio))


def with_batches(recipe: VisionRecipe, scale: float) -> VisionRecipe:
    """The recipe with every batch `scale` times as large and the step size by its root."""
    phases = tuple(replace(p, size=max(1, round(p.size * scale))) for p in recipe.phases)
    areas = replace(
        recipe.areas,
        size=max(1, round(recipe.areas.size * scale)),
        rate=recipe.areas.rate * math.sqrt(scale),
    )
    return replace(recipe, phases=phases, rate=recipe.rate * math.sqrt(scale), areas=areas)
