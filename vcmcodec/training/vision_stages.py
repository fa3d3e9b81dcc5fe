"""Teaching the vision network's deep stages alone, on many views at once.

At stride 32 a view of 320 pixels has a hundred positions, so c5 and the pyramid learn slowly beside
everything else although they cost next to nothing.  Once the first stages stand still, a view is
for the deep ones its own c3 and the teacher's features of it: both are made once and kept, and
every view is shown several times.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Generic, TypeVar

import numpy as np
import torch
from torch import Tensor

from vcmcodec.training.vision_batches import VisionBatches
from vcmcodec.training.vision_teacher import c5_in_parts, softened, stage_loss
from vcmcodec.vision.network import VisionNetwork

DEEP = ("c4", "c5_halved", "c5_wide", "c5", "p3", "p4", "p5")
Lesson = TypeVar("Lesson")
LookAtStages = Callable[[Tensor], Mapping[str, Tensor]]


@dataclass(frozen=True)
class DeepRecipe:
    """Numbers of this part of the training.

    Attributes:
        steps: its length.
        side, size: pixels of a view's side, views a batch.
        replays: how often a batch is shown again, for each new one.
        kept: batches that are kept for it; one of 16 views of 320 pixels is 12 MB.
    """

    steps: int = 0
    side: int = 320
    size: int = 16
    replays: int = 3
    kept: int = 100

    def number(self, step: int, seed: int) -> int:
        """Which batch a step shows: a new one, or one of the last `kept`, drawn by the step."""
        newest, turn = divmod(step, self.replays + 1)
        if turn == 0:
            return newest
        first = max(0, newest - self.kept + 1)
        return int(np.random.default_rng((seed, step)).integers(first, newest + 1))


class Replayed(Generic[Lesson]):
    """Lessons by number, of which the last ones are kept.

    What was dropped, or never made in this process, is made again, so a run that is resumed goes on
    with the same lessons.
    """

    def __init__(self, make: Callable[[int], Lesson], kept: int) -> None:
        """Take what makes a lesson of its number, and how many to keep."""
        self._make, self._kept = make, kept
        self._made: dict[int, Lesson] = {}

    def __getitem__(self, number: int) -> Lesson:
        if number not in self._made:
            self._made[number] = self._make(number)
            for old in [n for n in self._made if n <= number - self._kept]:
                del self._made[old]
        return self._made[number]


def stage_lessons(
    network: VisionNetwork, source: VisionBatches, look: LookAtStages, kept: int
) -> Replayed[dict[str, Tensor]]:
    """The network's own c3, whose front no longer learns, and the teacher's stages behind it."""

    @torch.no_grad()
    def make(number: int) -> dict[str, Tensor]:
        rgb = source[number].rgb.to(network.mean.device)
        stages = look(rgb)
        with torch.autocast(rgb.device.type, torch.bfloat16):
            own = network.front_end(rgb, "c3")["c3"]
        shown = {"c3": own, **{name: stages[name] for name in DEEP}}
        return {name: value.to(torch.bfloat16) for name, value in shown.items()}

    return Replayed(make, kept)


def deep_losses(
    network: VisionNetwork, lesson: Mapping[str, Tensor], through: float
) -> dict[str, Tensor]:
    """Distance of each deep stage to the teacher's, by name; see `vision_teacher.stage_loss`.

    A share `through` of a stage's gradient goes on to the stage before.
    """
    with torch.autocast(lesson["c3"].device.type, torch.bfloat16):
        c4 = network.c4(lesson["c3"])
        five = c5_in_parts(network, softened(c4, through), lambda _, own: softened(own, through))
        levels = network.fpn(lesson["c3"], softened(c4, through), softened(five["c5"], through))
    made = {"c4": c4, **five, **dict(zip(("p3", "p4", "p5"), levels, strict=True))}
    return {name: stage_loss(made[name], lesson[name].float()) for name in DEEP}
