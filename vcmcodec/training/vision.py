"""Training of the reference vision network, resumable to the step.

The rate of learning is "warm-up, stable, decay": it stays constant until the last quarter, so a
longer run may go on from any checkpoint of the stable part.  Batch `i` depends on the seed and on
`i` alone, and the checkpoint holds everything else, so a run that was stopped ends in the same
place as one that was not.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterator
from copy import deepcopy
from dataclasses import asdict
from pathlib import Path

import torch
from torch import Tensor

from vcmcodec.errors import RequestError
from vcmcodec.training.loop import Log, descend, follow, write_checkpoint
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
from vcmcodec.training.vision_recipe import VisionRecipe
from vcmcodec.training.vision_stages import LookAtStages, Replayed, deep_losses, stage_lessons
from vcmcodec.training.vision_teacher import Lesson, stage_loss, start_at_means, taught_features
from vcmcodec.vision.config import VisionConfig
from vcmcodec.vision.layers import channels_last
from vcmcodec.vision.network import VisionNetwork

Look = Callable[[Tensor], Lesson]


class VisionTrainer:
    """Network, averaged network, adaptors, optimiser and the place in the run."""

    def __init__(self, recipe: VisionRecipe, device: torch.device, look: Look) -> None:
        torch.manual_seed(recipe.seed)
        self.look = look
        self.recipe, self.device, self.step = recipe, device, 0
        self.network = channels_last(VisionNetwork(recipe.config).to(device))
        self.average = deepcopy(self.network).eval().requires_grad_(False)
        heads = {"detection", "segmentation", "classification"}
        groups = [
            group | {"head": name in heads}
            for name, part in self.network.named_children()
            for group in parameter_groups(part, recipe.weight_decay)
        ]
        self.optimiser = MuonAdamW(groups, recipe.rate)
        self.seconds = 0.0

    @property
    def still(self) -> bool:
        """Whether the front no longer learns."""
        return self.step >= self.recipe.still

    def goes_deep(self) -> bool:
        """Whether in the next step only what lies behind the front learns."""
        return self.still and self.step < self.recipe.still + self.recipe.deep.steps

    def losses(self, batch: Batch) -> dict[str, Tensor]:
        """Each loss of one batch, weighted; their sum is what is minimised."""
        recipe, network = self.recipe, self.network
        lesson = self.look(batch.rgb)
        with torch.autocast(self.device.type, torch.bfloat16):
            forced = recipe.forced_at(self.step)
            random = torch.Generator().manual_seed(recipe.seed * 10**6 + self.step)
            chosen = torch.rand(len(batch.rgb), generator=random) < forced
            features, output = taught_features(
                network, batch.rgb, lesson, chosen, forced, recipe.through, self.still
            )
        teach = {name: stage_loss(features[name], stage) for name, stage in lesson.stages.items()}
        learning = [v for name, v in teach.items() if not (self.still and name in ("c2", "c3"))]
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
            "soft": recipe.soft * taught_mask_loss(output, batch, lesson.segmentation),
            "presence": recipe.presence * presence_loss(output, batch),
            "taught_presence": recipe.presence * taught_presence_loss(output, lesson),
            "teach": share * torch.stack(learning).mean(),
        } | {f"stage_{name}": value.detach() for name, value in teach.items()}

    def train_step(self, batch: Batch) -> dict[str, float]:
        """One step of the optimiser; returns the losses and the gradient's norm."""
        if self.step == 0:
            start_at_means(self.network, batch.rgb, self.look(batch.rgb))
            self.average.load_state_dict(self.network.state_dict())
        self._to_train()
        return self._descend(self.losses(batch))

    def deep_step(self, lessons: Replayed[dict[str, Tensor]]) -> dict[str, float]:
        """One step in which the stages behind c3 learn alone; returns their losses."""
        recipe = self.recipe
        self._to_train()
        lesson = lessons[recipe.deep.number(self.step - recipe.still, recipe.seed)]
        stages = deep_losses(self.network, lesson, recipe.through)
        parts = {"deep": torch.stack(list(stages.values())).sum()}
        return self._descend(parts | {f"stage_{n}": v.detach() for n, v in stages.items()})

    def _to_train(self) -> None:
        self.network.train()
        if self.still:
            for part in self.network.front:
                part.eval()

    def _descend(self, parts: dict[str, Tensor]) -> dict[str, float]:
        recipe, rate = self.recipe, self.recipe.rate_at(self.step)
        slow = recipe.pace if self.step >= recipe.still + recipe.deep.steps else 1.0
        for group in self.optimiser.param_groups:
            group["lr"] = rate * (1.0 if group["head"] else slow)
        total = torch.stack([v for v in parts.values() if v.requires_grad]).sum()
        parameters = [p for group in self.optimiser.param_groups for p in group["params"]]
        norm = descend(self.optimiser, total, parameters, recipe.clip, self.step)
        follow(self.average, self.network, self.step, recipe.ema)
        self.step += 1
        return {name: float(value.detach()) for name, value in parts.items()} | {
            "total": float(total.detach()),
            "norm": norm,
        }

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
        write_checkpoint(path, state)

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
        for name in [n for n in ("teach", "mask", "class") if n in means]:  # deep steps lack them
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


def _rows(
    trainer: VisionTrainer, data: Path, cache: Path, workers: int, look: LookAtStages
) -> Iterator[dict[str, float]]:
    """Train to the recipe's end; the losses of every step."""
    recipe, deep = trainer.recipe, trainer.recipe.deep
    while trainer.step < recipe.steps:
        if trainer.goes_deep():
            views = VisionBatches(
                data, cache, side=deep.side, size=deep.size, seed=recipe.seed + 1,
                mosaic=recipe.mosaic, zoom=recipe.zoom,
            )  # fmt: skip
            lessons = stage_lessons(trainer.network, views, look, deep.kept)
            while trainer.goes_deep():
                yield trainer.deep_step(lessons)
        for batch in batches_from(recipe, data, cache, trainer.step, workers):
            yield trainer.train_step(batch.to(trainer.device))
            if trainer.goes_deep():
                break


def train_vision(
    recipe: VisionRecipe,
    data: Path,
    cache: Path,
    run: Path,
    *,
    look: Look,
    look_at_stages: LookAtStages | None = None,
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
        look_at_stages: the same, for what it says of stages alone; `Teachers.stages`.
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
    for row in _rows(trainer, data, cache, workers, look_at_stages or (lambda v: look(v).stages)):
        sums.add(row)
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
        common = [n for n in rows[0] if all(n in row for row in rows)]  # there are deep steps too
        return {name: sum(row[name] for row in rows) / len(rows) for name in common}


def load_average(path: Path) -> tuple[VisionNetwork, int]:
    """The averaged network of a checkpoint, and the step that it was written at."""
    state = torch.load(path, map_location="cpu", weights_only=True)
    network = VisionNetwork(VisionConfig.read(state["recipe"]["config"]))
    network.load_state_dict(state["average"])
    return network.eval(), int(state["step"])
