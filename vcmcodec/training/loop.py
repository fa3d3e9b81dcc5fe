"""The training loop: seeded, resumable to the step, averaged, watched.

A run is a folder: `state-*.safetensors` (weights, averages, optimiser moments; each file of at most
16 MiB), `state.json` (step, random generators, recipe), `log.jsonl` (one line a report) and
TensorBoard files where tensorboard is installed.

Trainings whose steps are functions of seed and step alone need no generators (`learner`).
"""

from __future__ import annotations

import base64
import json
import math
import os
import time
from collections.abc import Callable, Iterable, Sequence
from contextlib import closing
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from vcmcodec.errors import RequestError, VcmError

SHARD_BYTES = 15 * 2**20


class TrainingError(VcmError):
    """A run went wrong: the loss is not finite, or the rate has collapsed."""

    code = "training"


def schedule(step: int, steps: int, warm_up: int, last: float) -> float:
    """Share of the learning rate: linear warm-up, then a cosine down to `last`."""
    rise = min(1.0, (step + 1) / warm_up)
    fall = 0.5 * (1 + math.cos(math.pi * min(1.0, step / steps)))
    return rise * (last + (1 - last) * fall)


def warm_stable_decay(step: int, steps: int, warm_up: int, decay: float) -> float:
    """Share of the learning rate: linear warm-up, 1, then half a cosine over the last `decay`."""
    if step < warm_up:
        return (step + 1) / warm_up
    start = steps * (1 - decay)
    done = max(0.0, min(1.0, (step - start) / max(1.0, steps - start)))
    return 0.01 + 0.99 * 0.5 * (1 + math.cos(math.pi * done))


def in_two_parts(
    step: int, steps: int, first: int, rates: tuple[float, float], warm_up: int, decay: float
) -> float:
    """Learning rate of a run whose first `first` steps have one rate and the others another.

    Each part grows, stays and falls as `warm_stable_decay` does, the first to next to nothing
    before the second begins.
    """
    if step < first:
        return rates[0] * warm_stable_decay(step, first, warm_up, decay)
    return rates[1] * warm_stable_decay(step - first, steps - first, warm_up, decay)


def descend(
    optimiser: torch.optim.Optimizer, loss: Tensor, parameters: Iterable[Tensor], clip: float,
    step: int,
) -> float:  # fmt: skip
    """One step of an optimiser, from a fresh gradient; returns the gradient's norm.

    Args:
        parameters: whose gradient is clipped to a norm of `clip`.
        step: for the message.

    Raises:
        TrainingError: loss or gradient is not finite.
    """
    optimiser.zero_grad(set_to_none=True)  # what does not learn in this step stays
    loss.backward()  # type: ignore[no-untyped-call]
    norm = nn.utils.clip_grad_norm_(parameters, clip)
    if not torch.isfinite(norm):
        raise TrainingError(f"step {step}: loss or gradient is not finite")
    optimiser.step()
    return float(norm)


@torch.no_grad()
def follow(average: nn.Module, model: nn.Module, step: int, ema: float) -> None:
    """Move the average of a model's floats, norms' statistics included, after a step."""
    decay = min(ema, (1 + step) / (20 + step))
    new, old = model.state_dict(), average.state_dict()
    floats = [name for name, value in old.items() if value.is_floating_point()]
    torch._foreach_lerp_([old[n] for n in floats], [new[n] for n in floats], 1 - decay)


def check_behind(place: Path, found: str, wanted: str) -> None:
    """Raise RequestError where a run was begun behind other models than it is to go on with.

    Args:
        place: of the run, for the message.
        found: the fingerprints that its state names.
        wanted: those of now.
    """
    if found != wanted:
        raise RequestError(
            f"{place} was begun behind {found or 'nothing'}, not behind {wanted or 'nothing'}: name"
            " another folder, or remove it"
        )


def write_checkpoint(path: Path, state: dict[str, Any]) -> None:
    """Save a state by torch; the file appears whole or not at all."""
    part = path.with_suffix(".part")
    torch.save(state, part)
    os.replace(part, path)


def mean_of_rows(rows: Sequence[dict[str, float]]) -> dict[str, float]:
    """Mean of each figure over the rows that have it, rounded for a log."""
    names = sorted({name for row in rows for name in row})
    return {n: round(float(np.mean([row[n] for row in rows if n in row])), 4) for n in names}


class Run:
    """Weights, their average, optimiser and random state of one run folder.

    Args:
        folder: where the run lives; an existing run is resumed.
        model: everything that is learned.
        groups: optimiser groups, each with its own "base" learning rate.
        average: decay of the exponential average of the weights.
        behind: fingerprints of what stands still beside it; a run is resumed behind the same alone.
    """

    def __init__(
        self,
        folder: Path,
        model: nn.Module,
        groups: list[dict[str, object]],
        *,
        average: float,
        seed: int,
        behind: str = "",
    ) -> None:
        self.folder, self.model, self.average, self.behind = folder, model, average, behind
        self.optimiser = torch.optim.Adam(
            [{**g, "lr": g["base"]} for g in groups], betas=(0.9, 0.98), eps=1e-9
        )
        self.step = 0
        self.random = np.random.default_rng(seed)
        torch.manual_seed(seed)
        self.averaged = {k: v.detach().clone() for k, v in model.named_parameters()}
        folder.mkdir(parents=True, exist_ok=True)
        if (folder / "state.json").exists():
            self._resume()

    # ---- steps

    def apply(self, loss: Tensor, share: float, clip: float = 1.0) -> None:
        """One optimiser step at a share of the base learning rates."""
        if not bool(torch.isfinite(loss)):
            raise TrainingError(f"step {self.step}: the loss is {loss.item()}")
        self.optimiser.zero_grad(set_to_none=True)
        loss.backward()  # type: ignore[no-untyped-call]
        for group in self.optimiser.param_groups:
            group["lr"] = group["base"] * share
            norm = nn.utils.clip_grad_norm_(group["params"], clip)
            if not bool(torch.isfinite(norm)):
                raise TrainingError(f"step {self.step}: a gradient is not finite")
        self.optimiser.step()
        self.step += 1
        decay = min(self.average, (1 + self.step) / (10 + self.step))
        with torch.no_grad():
            for name, value in self.model.named_parameters():
                self.averaged[name].lerp_(value, 1 - decay)

    def with_average(self) -> AveragedWeights:
        """Context in which the model carries the averaged weights."""
        return AveragedWeights(self)

    def take_average(self) -> None:
        """Leave the averaged weights in the model."""
        _put(self.model, self.averaged)

    # ---- keeping

    def save(self) -> None:
        """Write the whole state; an interrupted save leaves the previous one whole."""
        state: dict[str, Tensor] = {}
        for name, value in self.model.named_parameters():
            state[f"weight.{name}"] = value.detach()
            state[f"average.{name}"] = self.averaged[name]
            for key, moment in self.optimiser.state.get(value, {}).items():
                state[f"adam.{key}.{name}"] = moment.detach()
        state |= {f"buffer.{name}": value for name, value in self.model.named_buffers()}
        shards = list(_shards(state))
        stem = f"state-{self.step:07d}"
        names = []
        for number, shard in enumerate(shards):
            names.append(f"{stem}-{number:02d}.safetensors")
            piece = self.folder / f"{names[-1]}.part"  # the step may be saved already
            save_file({k: v.contiguous() for k, v in shard.items()}, piece)
            os.replace(piece, self.folder / names[-1])
        drawn = base64.b64encode(torch.get_rng_state().numpy().tobytes()).decode()
        text = {
            "step": self.step, "files": names, "behind": self.behind,
            "random": {"numpy": self.random.bit_generator.state, "torch": drawn},
        }  # fmt: skip
        part = self.folder / "state.json.part"
        part.write_text(json.dumps(text))
        os.replace(part, self.folder / "state.json")
        for old in self.folder.glob("state-*.safetensors*"):
            if old.name not in names:
                old.unlink()

    def _resume(self) -> None:
        text = json.loads((self.folder / "state.json").read_text())
        check_behind(self.folder, text.get("behind", ""), self.behind)
        state: dict[str, Tensor] = {}
        for name in text["files"]:
            state.update(load_file(self.folder / name))
        self.step = text["step"]
        for name, value in self.model.named_parameters():
            value.data.copy_(state[f"weight.{name}"])
            self.averaged[name].copy_(state[f"average.{name}"])
            moments = {}
            for key in ("step", "exp_avg", "exp_avg_sq"):
                if f"adam.{key}.{name}" in state:
                    moments[key] = state[f"adam.{key}.{name}"]
            if moments:
                self.optimiser.state[value] = moments
        for name, buffer in self.model.named_buffers():
            buffer.copy_(state.get(f"buffer.{name}", buffer))
        self.random.bit_generator.state = text["random"]["numpy"]
        drawn = np.frombuffer(base64.b64decode(text["random"]["torch"]), np.uint8)
        torch.set_rng_state(torch.from_numpy(drawn.copy()))


class AveragedWeights:
    """Swaps the averaged weights in, and the trained ones back at the end."""

    def __init__(self, run: Run) -> None:
        self.run = run

    def __enter__(self) -> None:
        self.kept = {k: v.detach().clone() for k, v in self.run.model.named_parameters()}
        _put(self.run.model, self.run.averaged)

    def __exit__(self, *_: object) -> None:
        _put(self.run.model, self.kept)


@torch.no_grad()
def _put(model: nn.Module, values: dict[str, Tensor]) -> None:
    for name, value in model.named_parameters():
        value.copy_(values[name])


def _shards(state: dict[str, Tensor]) -> Iterable[dict[str, Tensor]]:
    shard: dict[str, Tensor] = {}
    size = 0
    for name, value in state.items():
        if shard and size + value.nbytes > SHARD_BYTES:
            yield shard
            shard, size = {}, 0
        shard[name] = value
        size += value.nbytes
    yield shard


class Log:
    """One JSON line a report, TensorBoard where it is installed, and a callback for the screen."""

    def __init__(self, folder: Path, show: Callable[[dict[str, float]], None]) -> None:
        self._file = open(folder / "log.jsonl", "a")  # noqa: SIM115 - lives as long as the run
        self._show = show
        self._board = None
        try:
            from torch.utils.tensorboard import SummaryWriter

            self._board = SummaryWriter(str(folder / "tensorboard"))
        except ImportError:
            pass
        self._start = time.monotonic()

    def report(self, step: int, **values: float) -> None:
        """Write one line."""
        minutes = (time.monotonic() - self._start) / 60
        line = {"step": step, "minutes": round(minutes, 2), **values}
        self._file.write(json.dumps(line) + "\n")
        self._file.flush()
        if self._board:
            for name, value in values.items():
                self._board.add_scalar(name, value, step)
        self._show(line)

    def close(self) -> None:
        """Close the files."""
        self._file.close()
        if self._board:
            self._board.close()


Means = dict[str, float]


def learn(
    run: Run,
    last: int,
    step: Callable[[Means], float],
    show: Callable[[dict[str, float]], None],
    *,
    evaluate: Callable[[], dict[str, float]] | None = None,
    report_every: int,
    save_every: int,
    evaluate_every: int = 1,
    digits: int = 5,
) -> None:
    """Go on with a run to a step, and save it; the model then holds the averaged weights.

    Args:
        last: the step at which to stop.
        step: takes one step, keeps running means, and returns the share of the learning rates.
        show: told every line of the log.
        evaluate: figures of the averaged weights; None to measure nothing.
        report_every, save_every, evaluate_every: steps between them; the last step is evaluated.
        digits: behind the point, of the means.

    Raises:
        TrainingError: the run went wrong.
    """
    means: Means = {}
    with closing(Log(run.folder, show)) as log:
        while run.step < last:
            share = step(means)
            if run.step % report_every == 0:
                log.report(run.step, **{k: round(v, digits) for k, v in means.items()}, share=share)
            if run.step % save_every == 0:
                run.save()
            if evaluate is not None and (run.step % evaluate_every == 0 or run.step == last):
                with run.with_average():
                    log.report(run.step, **evaluate())
    run.save()
    run.take_average()
