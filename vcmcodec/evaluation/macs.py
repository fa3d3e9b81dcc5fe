"""Multiplications a pixel of everything that torch runs inside a call.

Counted by torch's own flop counter (convolutions, matrix products), so the figure is of what ran,
not of what a design says.  Arithmetic that is no matrix product (additions, shifts and
multiplications of whole maps, pooling) is not in it.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class PartMacs:
    """Thousands of multiply-accumulates a pixel of the outermost modules of one class."""

    part: str
    kmacs_per_pixel: float


def count_kmacs(operation: Callable[[], Any], pixels: int) -> tuple[float, tuple[PartMacs, ...]]:
    """Run `operation` once and return its total and its parts, in kMAC a pixel.

    Args:
        operation: what to count.
        pixels: true pixels of the picture that it works on.

    Returns:
        The total, and its parts: the modules that were called from outside any other, by class,
        and "no module" for the rest.  Parts add up to the total.
    """
    from torch.utils.flop_counter import FlopCounterMode

    counter = FlopCounterMode(display=False, depth=1)
    with counter:
        operation()
    scale = 2.0 * 1000.0 * pixels
    total = counter.get_total_flops()
    flops = {
        name: sum(counts.values())
        for name, counts in counter.get_flop_counts().items()
        if name != "Global" and "." not in name
    }
    flops["no module"] = total - sum(flops.values())
    parts = [PartMacs(name, count / scale) for name, count in flops.items() if count > 0]
    return total / scale, tuple(sorted(parts, key=lambda part: -part.kmacs_per_pixel))
