"""Time, threads and memory of this process.

Medians, since a shared machine only ever adds time; least and most beside them, so that a reader
sees how quiet the machine was.
"""

from __future__ import annotations

import statistics
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from vcmcodec.errors import RequestError


@dataclass(frozen=True)
class Timing:
    """Wall time of one operation in milliseconds over `repeats` runs."""

    median_ms: float
    min_ms: float
    max_ms: float
    repeats: int


def measure_rounds(
    operations: dict[str, Callable[[], Any]], repeats: int, warm_up: int = 1
) -> dict[str, Timing]:
    """Time several operations in turns: one of each, then again.

    In turns, since a machine that slows down half way would otherwise spoil the ratio of the
    operations and not only their times.

    Args:
        operations: name -> function without arguments.
        repeats: timed rounds, at least 1.
        warm_up: rounds before, not counted (first calls load code and fill caches).

    Raises:
        RequestError: no repeats.
    """
    if repeats < 1:
        raise RequestError("at least one repeat is needed to measure time")
    samples: dict[str, list[float]] = {name: [] for name in operations}
    for turn in range(warm_up + repeats):
        for name, operation in operations.items():
            start = time.perf_counter()
            operation()
            elapsed = 1000.0 * (time.perf_counter() - start)
            if turn >= warm_up:
                samples[name].append(elapsed)
    return {
        name: Timing(statistics.median(times), min(times), max(times), len(times))
        for name, times in samples.items()
    }


def over_pictures(timings: Sequence[Timing]) -> Timing:
    """One operation on several pictures: median of medians, least and most of all runs.

    Raises:
        RequestError: no picture.
    """
    if not timings:
        raise RequestError("at least one picture is needed to measure time")
    return Timing(
        statistics.median(one.median_ms for one in timings),
        min(one.min_ms for one in timings),
        max(one.max_ms for one in timings),
        sum(one.repeats for one in timings),
    )


@contextmanager
def torch_threads(count: int) -> Iterator[None]:
    """Run torch on `count` threads inside the block."""
    import torch

    before = torch.get_num_threads()
    torch.set_num_threads(count)
    try:
        yield
    finally:
        torch.set_num_threads(before)


@dataclass
class Stopwatch:
    """Total time spent inside watched methods; `calls` counts outermost calls."""

    seconds: float = 0.0
    calls: int = 0
    _depth: int = field(default=0, repr=False)

    def wrap(self, function: Callable[..., Any]) -> Callable[..., Any]:
        """Return `function` with its time added; a watched call inside another counts once."""

        def timed(*args: Any, **kwargs: Any) -> Any:
            outermost = self._depth == 0
            self._depth += 1
            start = time.perf_counter()
            try:
                return function(*args, **kwargs)
            finally:
                self._depth -= 1
                if outermost:
                    self.seconds += time.perf_counter() - start
                    self.calls += 1

        return timed


@contextmanager
def watch(methods: tuple[tuple[Any, str], ...]) -> Iterator[Stopwatch]:
    """Measure the time inside methods of classes or functions of modules while the block runs.

    Args:
        methods: (owner, attribute name); each is replaced by a timed one and put back after.
    """
    stopwatch = Stopwatch()
    before = [(owner, name, owner.__dict__[name]) for owner, name in methods]
    try:
        for owner, name, function in before:
            setattr(owner, name, stopwatch.wrap(function))
        yield stopwatch
    finally:
        for owner, name, function in before:
            setattr(owner, name, function)


def peak_memory_bytes() -> int:
    """Return the most memory this process has held, in bytes.

    On Linux the high-water mark of the process's own address space is read: `ru_maxrss` of a
    fresh child starts at its parent's size, which would hide anything smaller.
    """
    try:
        for line in Path("/proc/self/status").read_text(encoding="ascii").splitlines():
            if line.startswith("VmHWM:"):
                return int(line.split()[1]) * 1024
    except OSError:
        pass
    if sys.platform == "win32":
        raise RequestError("peak memory is not measured on Windows")
    import resource

    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else peak * 1024
