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
    """Thousands of multiply-accumulates a pixel of one network part."""

    part: str
    kmacs_per_pixel: float


def count_kmacs(
    operation: Callable[[], Any], pixels: int, depth: int = 2
) -> tuple[float, tuple[PartMacs, ...]]:
    """Run `operation` once and return its total and its parts, in kMAC a pixel.

    Args:
        operation: what to count.
        pixels: true pixels of the picture that it works on.
        depth: how deep in the tree of modules parts are told apart.

    Returns:
        The total, and the parts (outermost modules first, by name) that have any.
    """
    from torch.utils.flop_counter import FlopCounterMode

    counter = FlopCounterMode(display=False, depth=depth)
    with counter:
        operation()
    scale = 2.0 * 1000.0 * pixels
    parts = [
        PartMacs(name, sum(counts.values()) / scale)
        for name, counts in counter.get_flop_counts().items()
        if name != "Global" and name.count(".") < depth and sum(counts.values()) > 0
    ]
    return counter.get_total_flops() / scale, tuple(parts)
