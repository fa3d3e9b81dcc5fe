"""Optimiser groups of a latent codec: its parts learn at rates of their own, and clip apart."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from torch import nn

from vcmcodec.nn.integer import IntegerLinear
from vcmcodec.nn.latent_codec import LatentCodec


@dataclass(frozen=True)
class Rates:
    """Base learning rates.

    Attributes:
        transforms: of everything that holds floats.
        integers: of integer weights, in units of 1, up to 127.
        tables: of level vectors and biases, in output units.
        gains: in 1/256 octave.
    """

    transforms: float
    integers: float
    tables: float
    gains: float


def codec_groups(
    codec: LatentCodec, others: Iterable[nn.Module], rates: Rates
) -> list[dict[str, object]]:
    """Groups for `loop.Run`; `others` (a prior, say) learn at the rate of the transforms."""
    weights, tables, gains = [], [], list(codec.gains.parameters())
    seen: set[int] = {id(p) for p in gains}
    for module in codec.entropy.modules():
        if isinstance(module, IntegerLinear):
            weights.append(module.weight)
            tables.append(module.bias)
    seen |= {id(p) for p in weights}
    tables += [p for p in codec.entropy.parameters() if id(p) not in seen | {id(t) for t in tables}]
    seen |= {id(p) for p in tables}
    rest: list[nn.Parameter] = [p for p in codec.parameters() if id(p) not in seen]
    for module in others:
        rest += list(module.parameters())
    return [
        {"params": rest, "base": rates.transforms},
        {"params": weights, "base": rates.integers},
        {"params": tables, "base": rates.tables},
        {"params": gains, "base": rates.gains},
    ]
