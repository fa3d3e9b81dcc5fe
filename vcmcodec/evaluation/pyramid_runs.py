"""Ablations of the pyramid codec, from the logs of its trainings: what fusion saves, in bits.

All runs must have been evaluated on the same pictures (`vcm train pyramid --evaluate`).
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from vcmcodec.errors import RequestError
from vcmcodec.evaluation.report import Table


@dataclass(frozen=True)
class RunCurve:
    """The last evaluation of a run.

    Attributes:
        step: of the training.
        bpp: bits a pixel of the network's input, one a rate level, rising.
        errors: of each level of the pyramid, relative to its variance, at the same rate levels.
    """

    step: int
    bpp: tuple[float, ...]
    errors: Mapping[str, tuple[float, ...]]

    @property
    def mean_errors(self) -> tuple[float, ...]:
        """Mean over the levels, at each rate level."""
        return tuple(float(value) for value in np.mean(list(self.errors.values()), 0))


def read_run(folder: Path) -> RunCurve:
    """The last evaluation in the log of a run.

    Raises:
        RequestError: there is no log, or no evaluation in it.
    """
    try:
        lines = [json.loads(line) for line in (folder / "log.jsonl").read_text().splitlines()]
    except (OSError, ValueError) as error:
        raise RequestError(f"{folder}: no log of a training: {error}") from error
    found = [line for line in lines if any(key.startswith("bpp_") for key in line)]
    if not found:
        raise RequestError(f"{folder}: the run was never evaluated; train it with --evaluate")
    last = found[-1]
    rates = sorted(int(key.removeprefix("bpp_")) for key in last if key.startswith("bpp_"))
    names = sorted({key.split("_")[1] for key in last if key.startswith("error_")})
    return RunCurve(
        step=int(last["step"]),
        bpp=tuple(float(last[f"bpp_{rate}"]) for rate in rates),
        errors={
            name: tuple(float(last[f"error_{name}_{rate}"]) for rate in rates) for name in names
        },
    )


def bits_at(curve: RunCurve, name: str, error: float) -> float | None:
    """Bits a pixel at which a level's error is reached; None outside what was measured.

    Interpolated between rate levels, logarithm over logarithm.
    """
    known = sorted(zip(curve.errors[name], curve.bpp, strict=True))
    errors = [math.log(value) for value, _ in known]
    if not errors[0] <= math.log(error) <= errors[-1]:
        return None
    return math.exp(float(np.interp(math.log(error), errors, [math.log(b) for _, b in known])))


def apart(fused: RunCurve, alone: Sequence[RunCurve]) -> list[tuple[float, float]]:
    """What levels cost that are coded each alone, at the errors that the fused latent gives.

    Args:
        fused: all levels in one latent.
        alone: one run a coded level, that level alone.

    Returns:
        (bits a pixel fused, bits a pixel alone) at each rate level at which all are measured.  The
        derived level is free in both.
    """
    pairs = []
    for number, bpp in enumerate(fused.bpp):
        total = 0.0
        for curve in alone:
            (name,) = curve.errors
            bits = bits_at(curve, name, fused.errors[name][number])
            if bits is None:
                break
            total += bits
        else:
            pairs.append((bpp, total))
    return pairs


def saved(one: RunCurve, other: RunCurve) -> float | None:
    """Mean change of bits from `other` to `one` at equal mean error; -0.1 is a tenth fewer.

    None where the curves have no error in common.
    """
    axes = []
    for curve in (one, other):
        known = sorted(zip(curve.mean_errors, curve.bpp, strict=True))
        axes.append(([math.log(e) for e, _ in known], [math.log(b) for _, b in known]))
    low = max(errors[0] for errors, _ in axes)
    high = min(errors[-1] for errors, _ in axes)
    if low >= high:
        return None
    places = np.linspace(low, high, 200)
    gap = np.interp(places, *axes[0]) - np.interp(places, *axes[1])
    return math.exp(float(gap.mean())) - 1


@dataclass(frozen=True)
class Ablation:
    """What fusing saves.

    Attributes:
        fused: the run with all levels in one latent, fused while encoding.
        against_joined: change of bits against joining all levels first, at equal mean error.
        against_alone: (bits fused, bits of each level alone) at equal errors.
    """

    fused: RunCurve
    against_joined: float | None
    against_alone: tuple[tuple[float, float], ...]


def compare(fused: Path, joined: Path | None, alone: Sequence[Path]) -> Ablation:
    """Compare runs by their logs.

    Raises:
        RequestError: a run was not evaluated, or one of `alone` has several levels.
    """
    whole, singles = read_run(fused), [read_run(folder) for folder in alone]
    for folder, curve in zip(alone, singles, strict=True):
        if len(curve.errors) != 1:
            raise RequestError(f"{folder}: codes {', '.join(curve.errors)}, not one level alone")
    change = None if joined is None else saved(whole, read_run(joined))
    return Ablation(whole, change, tuple(apart(whole, singles)) if singles else ())


def tables(result: Ablation) -> tuple[Table, ...]:
    """The result as one table."""
    apart_of = dict(result.against_alone)
    rows = []
    for number, bpp in enumerate(result.fused.bpp):
        other = apart_of.get(bpp)
        cells = [f"{bpp:.4f}", *(f"{e[number]:.3f}" for e in result.fused.errors.values())]
        cells += ["n/a", "n/a"] if other is None else [f"{other:.4f}", f"{bpp / other - 1:+.1%}"]
        rows.append(tuple(cells))
    notes = ["bits a pixel of the network's input; errors relative to each level's variance"]
    if result.against_joined is not None:
        notes.append(
            f"fused while encoding against joined first, at equal mean error:"
            f" {result.against_joined:+.1%} bits"
        )
    columns = ("one latent", *result.fused.errors, "each alone", "saved")
    title = f"one latent for all levels, step {result.fused.step}"
    return (Table(title, columns, tuple(rows), tuple(notes)),)
