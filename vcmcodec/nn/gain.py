"""Rate levels: one gain vector a trained level, interpolated in the log domain, in integers.

A quality of 0..100 (hundredths in the file: 0..10000) is a position between the trained levels.
Everything that the entropy coder sees of it (level vectors, scale offsets, logarithms of gains) is
interpolated with integers, so that both ends agree; the inverse gains, which only the synthesis
sees, are floats.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from vcmcodec.nn.integer import round_through

RATE_LEVEL_MAX = 10000
LOG_UNIT = 256  # gains are stored as integers in 1/256 octave


class Level:
    """A rate level as a place between two trained levels: `low`, and `part` of `RATE_LEVEL_MAX`."""

    def __init__(self, rate_level: int, levels: int) -> None:
        self.rate_level = rate_level
        position = rate_level * (levels - 1)
        self.low = min(position // RATE_LEVEL_MAX, levels - 2)
        self.part = position - self.low * RATE_LEVEL_MAX

    def integers(self, table: Tensor) -> Tensor:
        """Interpolate rows of an integer-valued (levels, n) table; integer-valued again.

        Exact: the products are formed in int64.
        """
        low, high = table[self.low].long(), table[self.low + 1].long()
        mixed = low * (RATE_LEVEL_MAX - self.part) + high * self.part
        return torch.div(mixed + RATE_LEVEL_MAX // 2, RATE_LEVEL_MAX, rounding_mode="floor").float()

    def smooth(self, table: Tensor) -> Tensor:
        """The same with a gradient, rounded straight through (training)."""
        return round_through(self.floats(table))

    def floats(self, table: Tensor) -> Tensor:
        """Interpolate rows of a float table."""
        share = self.part / RATE_LEVEL_MAX
        return table[self.low] * (1 - share) + table[self.low + 1] * share


class Gains(nn.Module):
    """Gain vectors and their inverses.

    Attributes:
        log_gain: (levels, channels), 1/256 octave: latent * 2**(log_gain / 256) is rounded.
        log_inverse: (levels, channels), the same units, for the synthesis.
    """

    def __init__(self, levels: int, channels: int) -> None:
        super().__init__()
        self.log_gain = nn.Parameter(torch.zeros(levels, channels))
        self.log_inverse = nn.Parameter(torch.zeros(levels, channels))

    def gain(self, level: Level, channels: slice) -> Tensor:
        """Multipliers of the latent; encoder side, float."""
        return torch.exp2(level.floats(self.log_gain[:, channels]) / LOG_UNIT)

    def inverse(self, level: Level, channels: slice) -> Tensor:
        """Multipliers back; decoder side, float."""
        return torch.exp2(level.floats(self.log_inverse[:, channels]) / LOG_UNIT)

    @torch.no_grad()
    def freeze(self) -> None:
        """Round the gains to the integers that are stored."""
        self.log_gain.round_()
