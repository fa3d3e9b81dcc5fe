"""Training of the reference vision network, resumable to the step.

The rate of learning is "warm-up, stable, decay": it stays constant until the last quarter, so a
longer run may go on from any checkpoint of the stable part.  Batch `i` depends on the seed and on
`i` alone, and the checkpoint holds everything else, so a run that was stopped ends in the same
place as one that was not.
"""

from __future__ import annotations

import math
import os
import time
from collections.abc import Callable, Iterator
from copy import deepcopy
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path

import torch
from torch import Tensor, nn

from vcmcodec.errors import RequestError
from vcmcodec.training.loop import Log, TrainingError, warm_stable_decay
from vcmcodec.training.muon import MuonAdamW, parameter_groups
from vcmcodec.training.vision_batches import Batch, VisionBatches
from vcmcodec.training.vision_losses import (
    detection_loss,
    mask_loss,
    presence_loss,
    taught_detection_loss,
    taught_mask_loss,
    taught_presence_loss,
)
from vcmcodec.training.vision_teacher import Lesson, stage_loss, start_at_means, taught_features
from vcmcodec.vision.layers import channels_last
from vcmcodec.vision.network import VisionConfig, VisionNetwork

Look = Callable[[Tensor], Lesson]


@dataclass(frozen=True)
class Phase:
    """Steps up to `until` use square views of `side` pixels, `size` a batch."""

    until: int
    side: int
    size: int


@dataclass(frozen=True)
class VisionRecipe:
    """Every number of the training.

    Attributes:
        steps: length of the run.
        phases: view sizes, small first: small views teach most a second.
        rate: step size in the stable part.
        warmup: steps of linear growth.
        decay: share of the steps in which the rate falls to zero (half a cosine).
        forced: until the first of these steps every stage is taught on the teacher's features, not
            on those of the stages in front of it; from the second on never; linear between.
        through: share of a stage's gradient that goes on to the stage before.
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
    warmup: int = 100
    decay: float = 0.4
    forced: tuple[int, int] = (600, 2000)
    through: float = 0.2
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
        return self.rate * warm_stable_decay(step, self.steps, self.warmup, self.decay)

    def forced_at(self, step: int) -> float:
        """Share of the views whose stages see the teacher's features."""
        first, last = self.forced
        return min(1.0, max(0.0, (last - step) / max(1, last - first)))

    def phase_at(self, step: int) -> Phase:
        """The phase that a step belongs to."""
        return next(phase for phase in self.phases if step < phase.until)


# An hour or two on one CPU core: few views, so weak augmentation and small pictures.
SHORT = VisionRecipe()
# An accelerator: hundreds of views of each picture, so strong augmentation and true sizes.
LONG = VisionRecipe(
    steps=24000,
    phases=(Phase(12000, 256, 64), Phase(19000, 320, 48), Phase(10**9, 416, 32)),
    warmup=800,
    decay=0.4,
    ema=0.9995,
    forced=(4000, 10000),
    mosaic=0.4,
    zoom=(0.6, 2.2),
)
RECIPES = {"short": SHORT, "long": LONG}


class VisionTrainer:
    """Network, averaged network, adaptors, optimiser and the place in the run."""

    def __init__(self, recipe: VisionRecipe, device: torch.device, look: Look) -> None:
        torch.manual_seed(recipe.seed)
        self.look = look
        self.recipe, self.device, self.step = recipe, device, 0
        self.network = channels_last(VisionNetwork(recipe.config).to(device))
        self.average = deepcopy(self.network).eval().requires_grad_(False)
        self.optimiser = MuonAdamW(parameter_groups(self.network, recipe.weight_decay), recipe.rate)
        self.seconds = 0.0

    def losses(self, batch: Batch) -> dict[str, Tensor]:
        """Each loss of one batch, weighted; their sum is what is minimised."""
        recipe, network = self.recipe, self.network
        lesson = self.look(batch.rgb)
        with torch.autocast(self.device.type, torch.bfloat16):
            forced = recipe.forced_at(self.step)
            random = torch.Generator().manual_seed(recipe.seed * 10**6 + self.step)
            chosen = torch.rand(len(batch.rgb), generator=random) < forced
            features, output = taught_features(
                network, batch.rgb, lesson, chosen, forced, recipe.through
            )
        teach = [stage_loss(features[name], stage) for name, stage in lesson.stages.items()]
        done = self.step / recipe.steps
        share = recipe.teach[0] + (recipe.teach[1] - recipe.teach[0]) * min(1.0, done)
        classes, boxes = detection_loss(output, batch)
        taught_classes, taught_boxes = taught_detection_loss(output, lesson)
        return {
            "class": recipe.detection * classes,
            "box": recipe.detection * recipe.box * boxes,
            "taught_class": recipe.taught * taught_classes,
            "taught_box": recipe.taught * recipe.box * taught_boxes,
            "mask": recipe.segmentation * mask_loss(output, batch),
            "soft": recipe.soft * taught_mask_loss(output, batch, lesson),
            "presence": recipe.presence * presence_loss(output, batch),
            "taught_presence": recipe.presence * taught_presence_loss(output, lesson),
            "teach": share * torch.stack(teach).mean(),
        } | {f"stage_{n}": v.detach() for n, v in zip(lesson.stages, teach, strict=True)}

    def train_step(self, batch: Batch) -> dict[str, float]:
        """One step of the optimiser; returns the losses and the gradient's norm."""
        if self.step == 0:
            start_at_means(self.network, batch.rgb, self.look(batch.rgb))
            self.average.load_state_dict(self.network.state_dict())
        rate = self.recipe.rate_at(self.step)
        for group in self.optimiser.param_groups:
            group["lr"] = rate
        self.network.train()
        parts = self.losses(batch)
        total = torch.stack([v for v in parts.values() if v.requires_grad]).sum()
        self.optimiser.zero_grad(set_to_none=True)
        total.backward()  # type: ignore[no-untyped-call]
        parameters = [p for group in self.optimiser.param_groups for p in group["params"]]
        norm = nn.utils.clip_grad_norm_(parameters, self.recipe.clip)
        if not torch.isfinite(norm):
            raise TrainingError(f"step {self.step}: loss or gradient is not finite")
        self.optimiser.step()
        self._update_average()
        self.step += 1
        return {name: float(value.detach()) for name, value in parts.items()} | {
            "total": float(total.detach()),
            "norm": float(norm),
        }

    @torch.no_grad()
    def _update_average(self) -> None:
        decay = min(self.recipe.ema, (1 + self.step) / (20 + self.step))
        new, old = self.network.state_dict(), self.average.state_dict()
        floats = [name for name, value in old.items() if value.is_floating_point()]
        torch._foreach_lerp_([old[n] for n in floats], [new[n] for n in floats], 1 - decay)

    def save(self, path: Path) -> None:
        """Write a checkpoint; the file appears whole or not at all."""
        state = {
            "network": self.network.state_dict(),
            "average": self.average.state_dict(),
            "optimiser": self.optimiser.state_dict(),
            "step": self.step,
            "seconds": self.seconds,
            "recipe": asdict(self.recipe),
        }
        part = path.with_suffix(".part")
        torch.save(state, part)
        os.replace(part, path)

    def load(self, path: Path) -> None:
        """Go on from a checkpoint of the same network; the recipe of this trainer stays."""
        state = torch.load(path, map_location=self.device, weights_only=True)
        if state["recipe"]["config"] != asdict(self.recipe.config):
            raise RequestError(f"{path} is a checkpoint of a network of another shape")
        self.network.load_state_dict(state["network"])
        self.average.load_state_dict(state["average"])
        self.optimiser.load_state_dict(state["optimiser"])
        self.step, self.seconds = state["step"], state["seconds"]


class CollapseWatch:
    """Early warnings: what usually precedes a wasted night."""

    def __init__(self) -> None:
        self._first: dict[str, float] = {}

    def look(self, step: int, means: dict[str, float]) -> list[str]:
        """Warnings for the mean losses of the last steps."""
        warnings = []
        for name in ("teach", "mask", "class"):
            first = self._first.setdefault(name, means[name])
            if step > 1500 and means[name] > 0.98 * first:
                warnings.append(f"{name} loss has not fallen since the start")
        if means["norm"] > 100:
            warnings.append(f"gradient norm is {means['norm']:.0f}")
        return warnings


def batches_from(
    recipe: VisionRecipe, data: Path, cache: Path, start: int, workers: int
) -> Iterator[Batch]:
    """Batches from step `start` on, phase by phase."""
    step = start
    while step < recipe.steps:
        phase = recipe.phase_at(step)
        decaying = step >= recipe.steps * (1 - recipe.decay)
        end = min(phase.until, recipe.steps)
        if not decaying:
            end = min(end, math.ceil(recipe.steps * (1 - recipe.decay)))
        source = VisionBatches(
            data,
            cache,
            side=phase.side,
            size=phase.size,
            seed=recipe.seed,
            mosaic=recipe.mosaic * (0.5 if decaying else 1.0),
            zoom=recipe.zoom,
        )
        loader = torch.utils.data.DataLoader(
            source,
            batch_size=None,
            sampler=range(step, end),
            num_workers=workers,
            prefetch_factor=4 if workers else None,
        )
        yield from loader
        step = end


def train_vision(
    recipe: VisionRecipe,
    data: Path,
    cache: Path,
    run: Path,
    *,
    look: Look,
    device: str = "cpu",
    workers: int = 0,
    minutes: float | None = None,
    save_every: int = 300,
    report: Callable[[int, dict[str, float], list[str]], None] | None = None,
    should_stop: Callable[[], bool] = lambda: False,
) -> Path:
    """Train, or go on training from `run/last.pt` where it exists.

    Args:
        recipe: all numbers.
        data: folder with the training tars and JSON files.
        cache: folder written by `vision_cache.build`.
        run: folder for checkpoints, `log.jsonl` and TensorBoard events.
        look: shows a batch (N, 3, H, W) to the teachers; `Teachers.look`.
        device: torch device.
        workers: processes that prepare batches; 0 prepares them in this one.
        minutes: stop (with a checkpoint) after so much time.
        save_every: steps between checkpoints.
        report: called every 20 steps with the step, the mean losses and early warnings.
        should_stop: asked after every step; True ends the run with a checkpoint.

    Returns:
        Path of the last checkpoint.
    """
    run.mkdir(parents=True, exist_ok=True)
    trainer = VisionTrainer(recipe, torch.device(device), look)
    last = run / "last.pt"
    if last.exists():
        trainer.load(last)
    watch, sums, began = CollapseWatch(), _Means(), time.monotonic()
    mark = began
    log = Log(run, lambda line: None)
    for batch in batches_from(recipe, data, cache, trainer.step, workers):
        sums.add(trainer.train_step(batch.to(trainer.device)))
        step, now = trainer.step, time.monotonic()
        trainer.seconds, mark = trainer.seconds + now - mark, now
        if step % 20 == 0:
            means = sums.take() | {"rate": recipe.rate_at(step), "seconds": trainer.seconds}
            log.report(step, **means)
            if report:
                report(step, means, watch.look(step, means))
        if step % save_every == 0:
            trainer.save(last)
        if step == math.ceil(recipe.steps * (1 - recipe.decay)):
            trainer.save(run / "stable.pt")
        if should_stop() or (minutes is not None and now - began > 60 * minutes):
            break
    log.close()
    trainer.save(last)
    return last


class _Means:
    def __init__(self) -> None:
        self._rows: list[dict[str, float]] = []

    def add(self, row: dict[str, float]) -> None:
        self._rows.append(row)

    def take(self) -> dict[str, float]:
        """Mean of everything since the last call."""
        rows, self._rows = self._rows, []
        return {name: sum(row[name] for row in rows) / len(rows) for name in rows[0]}


def with_steps(recipe: VisionRecipe, steps: int) -> VisionRecipe:
    """The recipe for a shorter or longer run, phases and forcing scaled alike."""
    ratio = steps / recipe.steps
    phases = tuple(
        replace(phase, until=max(1, round(phase.until * ratio))) if phase.until < 10**9 else phase
        for phase in recipe.phases
    )
    first, last = recipe.forced
    forced = round(first * ratio), max(1, round(last * ratio))
    return replace(recipe, steps=steps, phases=phases, forced=forced)


def with_batches(recipe: VisionRecipe, scale: float) -> VisionRecipe:
    """The recipe with every batch `scale` times as large and the step size by its root."""
    phases = tuple(replace(p, size=max(1, round(p.size * scale))) for p in recipe.phases)
    return replace(recipe, phases=phases, rate=recipe.rate * math.sqrt(scale))


def load_average(path: Path) -> tuple[VisionNetwork, int]:
    """The averaged network of a checkpoint, and the step that it was written at."""
    state = torch.load(path, map_location="cpu", weights_only=True)
    config = dict(state["recipe"]["config"])
    config = {k: tuple(v) if isinstance(v, list) else v for k, v in config.items()}
    network = VisionNetwork(VisionConfig(**config))
    network.load_state_dict(state["average"])
    return network.eval(), int(state["step"])
