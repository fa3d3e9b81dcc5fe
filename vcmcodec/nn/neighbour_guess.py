"""A guess of every value of the first slice from the same channel's values in decoded cells nearby.

The entropy networks see values companded to 7 bits: at forty steps one unit is two steps, and
brightness and colour are often that large.  So their means begin at an exact weighted average of
what is decoded around; the networks add what they know better.  Where nothing of the cell's own
group is decoded near it there is no guess.

Only integers enter.  In coding the average is formed in float64: its sums stay far below 2**53, and
what is divided by is so small that a quotient is never rounded to an integer it does not reach.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from vcmcodec.nn.integer import WEIGHT_MAX, round_through

FAR_PHASES = 6  # phases of a first slice that starts from far apart, and guesses
FAR_FIRST = 3  # of them, the first ones: nothing lies within the networks' 3x3 cells yet
SHARE_ONE = 128
VALUE_LIMIT = 32767  # 1/16 steps


class NeighbourGuess(nn.Module):
    """Weights of the nine cells around, and how their average and the network's mean are mixed.

    Attributes:
        weight: (5, 9, channels), for phases 1 to 5, 0..127, cells in raster order; of phases 1 and
            2 these are two cells apart, of later ones next to each other.
        share, own: (5, channels), 0..128 in 1/128: of the average and of the network's mean.
        index: (5, channels), added to the table index of a value that has a guess.
    """

    def __init__(self, channels: int) -> None:
        """Begin with an eighth of the plain average."""
        super().__init__()
        shape = (FAR_PHASES - 1, channels)  # nothing is decoded before phase 0
        self.weight = nn.Parameter(torch.full((FAR_PHASES - 1, 9, channels), WEIGHT_MAX / 2))
        self.share = nn.Parameter(torch.full(shape, SHARE_ONE / 8))
        self.own = nn.Parameter(torch.full(shape, SHARE_ONE * 7 / 8))
        self.index = nn.Parameter(torch.zeros(shape))
        self._held: list[tuple[Tensor, Tensor, Tensor, Tensor]] | None = None

    def forward(
        self, phase: int, mean: Tensor, values: Tensor, neighbours: Tensor, decoded: Tensor,
        *, exact: bool,
    ) -> tuple[Tensor, Tensor]:  # fmt: skip
        """Improve the means of the rows of one phase.

        Args:
            phase: 1 to 5.
            mean: (rows, channels), the network's, 1/16 steps.
            values: (cells, channels), 1/16 steps; anything where not decoded.
            neighbours: (rows, 9) row numbers; past the end where there is no such cell.
            decoded: (cells,) bool.
            exact: coding (integers), not training (gradients).

        Returns:
            Mean in 1/16 steps and offset of the table index, (rows, channels) each; the network's
            own mean and 0 where no neighbour with a weight is decoded.
        """
        there = torch.cat([decoded, decoded.new_zeros(1)])[neighbours]
        limited = values.clamp(-VALUE_LIMIT, VALUE_LIMIT)
        around = torch.cat([limited, limited.new_zeros(1, limited.shape[1])])[neighbours]
        quotient = _quotient
        if exact:  # the sums do not fit into float32
            weight, share, own, index = self._exactly(phase)
            around, mean, quotient = around.double(), mean.double(), _exact_quotient
        else:
            weight, share, own, index = self._integers(phase)
        counted = weight * there[:, :, None]
        total = counted.sum(1)
        average = quotient((counted * around).sum(1), total.clamp(min=1))
        mixed = quotient(own * mean + share * average, torch.full_like(total, SHARE_ONE))
        sure = total > 0
        return torch.where(sure, mixed, mean).float(), index * sure

    def _exactly(self, phase: int) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        if self._held is not None:
            return self._held[phase - 1]
        weight, share, own, index = self._integers(phase)
        return weight.double(), share.double(), own.double(), index

    @torch.no_grad()
    def hold(self) -> None:
        """Keep the integers as coding needs them; from here on they cannot be taught."""
        self._held = None
        self._held = [self._exactly(phase) for phase in range(1, FAR_PHASES)]

    def _integers(self, phase: int) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        weight = round_through(self.weight[phase - 1].clamp(0, WEIGHT_MAX))
        share = round_through(self.share[phase - 1].clamp(0, SHARE_ONE))
        own = round_through(self.own[phase - 1].clamp(0, SHARE_ONE))
        return weight, share, own, round_through(self.index[phase - 1])

    def in_range(self) -> bool:
        """Whether stored integers can be used just as they are."""
        limits = ((self.weight, WEIGHT_MAX), (self.share, SHARE_ONE), (self.own, SHARE_ONE))
        return all(bool(((part >= 0) & (part <= most)).all()) for part, most in limits)

    @torch.no_grad()
    def freeze(self) -> None:
        """Round to the integers that are stored."""
        for phase in range(1, FAR_PHASES):
            parts = (self.weight, self.share, self.own, self.index)
            for stored, integers in zip(parts, self._integers(phase), strict=True):
                stored[phase - 1] = integers


def _quotient(a: Tensor, b: Tensor) -> Tensor:
    """round(a / b), with the gradient of a / b."""
    return round_through(a / b)


def _exact_quotient(a: Tensor, b: Tensor) -> Tensor:
    """floor(a / b + 1/2) of integers in float64.

    With b at most 9 * 127 a fraction that is no integer is 1 / 2286 away from one, or more.
    """
    return torch.floor((2 * a + b) / (2 * b))
