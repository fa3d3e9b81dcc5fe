"""Ratios of gains as fixed-point integers, so that both ends of the codec scale alike.

A refinement, or a base that is carried over to another level, multiplies decoded integers by the
ratio of two gains; what comes out chooses probability tables, so no float may be involved.
"""

from __future__ import annotations

import torch
from torch import Tensor

from vcmcodec.nn.gain import LOG_UNIT

RATIO_BITS = 12  # fixed-point digits of the ratio between two levels' gains


def scale_exactly(values: Tensor, octaves: Tensor) -> Tensor:
    """Multiply integers by 2**(octaves / 256), in integers alone.

    Args:
        values: (cells, channels) integer-valued, below 2**23 in size (`integer.VALUE_BOUND`).
        octaves: (channels,) integers, 1/256 octave.

    Returns:
        floor(values * ratio + 1/2), where the ratio is a fixed-point number with 12 binary digits
        taken from a table of the 256 roots of two.  Beyond 2**24 it is what float32 has nearest:
        no mean can be made of it (profiles/coding.py), and companding knows 4095 and no more.
    """
    table = ratio_table(values.device)
    steps = octaves.long()
    whole = torch.div(steps, LOG_UNIT, rounding_mode="floor")
    ratio = table[steps - whole * LOG_UNIT]
    ratio = torch.where(whole >= 0, ratio << whole.clamp(min=0), ratio >> (-whole).clamp(min=0))
    product = values.detach().long() * ratio + (1 << (RATIO_BITS - 1))
    scaled = (product >> RATIO_BITS).float()
    if not values.requires_grad:
        return scaled
    smooth = values * torch.exp2(octaves / LOG_UNIT)  # training: the gradient of the true product
    return smooth + (scaled - smooth).detach()


def ratio_table(device: torch.device) -> Tensor:
    """floor(2**12 * 2**(k / 256)) for k = 0..255, by integer roots: no float is involved."""
    return torch.tensor(_RATIOS, dtype=torch.int64, device=device)


def _ratios() -> list[int]:
    out = []
    for k in range(LOG_UNIT):
        target = 1 << (RATIO_BITS * LOG_UNIT + k)  # (2**12 * 2**(k/256)) ** 256
        low, high = 1 << RATIO_BITS, 2 << RATIO_BITS
        while high - low > 1:
            middle = (low + high) // 2
            low, high = (middle, high) if middle**LOG_UNIT <= target else (low, middle)
        out.append(low)
    return out


_RATIOS = _ratios()
