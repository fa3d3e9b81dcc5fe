"""Trainings whose steps are functions of seed and step alone: their state, and the loop.

Nothing random is kept, so a state is weights, their average, the optimiser's moments and the step,
in one file.  Trainings that draw as they go have `loop.Run`.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from contextlib import closing
from copy import deepcopy
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from vcmcodec.errors import RequestError
from vcmcodec.training.loop import (
    Log,
    check_behind,
    descend,
    follow,
    mean_of_rows,
    write_checkpoint,
)

REPORT_EVERY = 20


class Learner:
    """A module that learns, its average, the optimiser and the place in the run.

    Args:
        learned: the module.
        optimiser: of its parameters.
        shape: what must be the same for a checkpoint to fit.
        behind: fingerprints of what stands still before and behind it; likewise.
        clip, ema: of gradients' norm, of the averaged weights.
        device: where all of it is.
    """

    def __init__(
        self, learned: nn.Module, optimiser: torch.optim.Optimizer, *, shape: Mapping[str, Any],
        behind: str, clip: float, ema: float, device: torch.device,
    ) -> None:  # fmt: skip
        self.learned, self.optimiser, self.device = learned, optimiser, device
        self.average = deepcopy(learned).eval().requires_grad_(False)
        self.shape, self.behind, self.clip, self.ema = dict(shape), behind, clip, ema
        self.step = 0

    def begin_average(self) -> None:
        """Let the average be what is learned now."""
        self.average.load_state_dict(self.learned.state_dict())

    def descend(self, loss: Tensor, rate_of: Callable[[dict[str, Any]], float]) -> None:
        """One step of the optimiser.

        Args:
            loss: what is minimised.
            rate_of: a group of its parameters -> the step size.

        Raises:
            TrainingError: loss or gradient is not finite.
        """
        for group in self.optimiser.param_groups:
            group["lr"] = rate_of(group)
        descend(self.optimiser, loss, list(self.learned.parameters()), self.clip, self.step)
        self.step += 1
        follow(self.average, self.learned, self.step, self.ema)

    def save(self, path: Path) -> None:
        """Write a checkpoint; the file appears whole or not at all."""
        state = {
            "learned": self.learned.state_dict(),
            "average": self.average.state_dict(),
            "optimiser": self.optimiser.state_dict(),
            "shape": self.shape,
            "behind": self.behind,
            "step": self.step,
        }
        write_checkpoint(path, state)

    def load(self, path: Path) -> None:
        """Go on from a checkpoint.

        Raises:
            RequestError: it is of another shape, or was begun behind other models.
        """
        state = read_checkpoint(path, self.device)
        if state["shape"] != self.shape:
            raise RequestError(f"{path} is a checkpoint of another shape: {state['shape']}")
        check_behind(path, state["behind"], self.behind)
        self.learned.load_state_dict(state["learned"])
        self.average.load_state_dict(state["average"])
        self.optimiser.load_state_dict(state["optimiser"])
        self.step = state["step"]


def read_checkpoint(path: Path, device: torch.device) -> dict[str, Any]:
    """What `Learner.save` wrote."""
    return dict(torch.load(path, map_location=device, weights_only=True))


def go_on(
    learner: Learner,
    take_step: Callable[[], dict[str, float]],
    last: int,
    checkpoint: Path,
    folder: Path,
    *,
    report: Callable[[dict[str, float]], None] = lambda row: None,
    minutes: float | None = None,
    save_every: int = 200,
    should_stop: Callable[[], bool] = lambda: False,
) -> None:
    """Take steps until `last`, log their means, and leave a checkpoint.

    Args:
        learner: where it stands.
        take_step: one step; what it tells goes to the log.
        last: the step at which to stop.
        checkpoint: the file that is written.
        folder: of the log; it is made.
        report: told every line of the log.
        minutes: stop after so much time.
        save_every: steps between checkpoints.
        should_stop: asked after every step.

    Raises:
        TrainingError: loss or gradient is not finite.
    """
    folder.mkdir(parents=True, exist_ok=True)
    rows, began = list[dict[str, float]](), time.monotonic()
    with closing(Log(folder, report)) as log:
        while learner.step < last:
            rows.append(take_step())
            if learner.step % REPORT_EVERY == 0:
                log.report(learner.step, **mean_of_rows(rows))
                rows.clear()
            if learner.step % save_every == 0:
                learner.save(checkpoint)
            if should_stop() or (minutes is not None and time.monotonic() - began > 60 * minutes):
                break
    learner.save(checkpoint)
