"""A neural estimator of the bits that static tables will cost; training's alone, it never ships.

Per coded channel and trained rate level a small monotonic network is the cumulative distribution of
the symbols, so that its estimate is the cost of one table a channel and level: just what the file's
coder pays.  Gradients pass through uniform noise in place of rounding.

Source: Ballé, Minnen, Singh, Hwang, Johnston, "Variational image compression with a scale
hyperprior", ICLR 2018, appendix 6.1.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

WIDTH = 3
LEAST_MASS = 1e-9


class RateEstimator(nn.Module):
    """Bits of the symbols of one unit.

    Args:
        levels: trained rate levels.
        channels: coded channels.

    Attributes:
        spread: (levels, channels) deviation of the symbols at the start; see `start`.
    """

    spread: Tensor

    def __init__(self, levels: int, channels: int) -> None:
        super().__init__()
        size = levels * channels
        self.levels, self.channels = levels, channels
        self.register_buffer("spread", torch.ones(levels, channels))
        # softplus(0.54) = 1: the cumulative starts as about a logistic one
        self.first = nn.Parameter(torch.full((size, WIDTH, 1), 0.54))
        self.second = nn.Parameter(torch.full((size, WIDTH, WIDTH), -0.93))
        self.last = nn.Parameter(torch.full((size, 1, WIDTH), -0.93))
        self.biases = nn.Parameter(torch.zeros(size, 2 * WIDTH + 1, 1))
        self.biases.data[:, :WIDTH, 0] = torch.linspace(-1, 1, WIDTH)
        self.bends = nn.Parameter(torch.zeros(size, 2 * WIDTH, 1))

    @torch.no_grad()
    def start(self, spread: Tensor) -> None:
        """Begin with distributions of these deviations, (levels, channels)."""
        self.spread.copy_(spread.clamp(min=0.05))

    def _logits(self, x: Tensor, part: slice) -> Tensor:
        """Of the cumulative distributions at x (channels, 1, n)."""
        biases, bends = self.biases[part], torch.tanh(self.bends[part])
        x = F.softplus(self.first[part]) @ x + biases[:, :WIDTH]
        x = x + bends[:, :WIDTH] * torch.tanh(x)
        x = F.softplus(self.second[part]) @ x + biases[:, WIDTH : 2 * WIDTH]
        x = x + bends[:, WIDTH:] * torch.tanh(x)
        return F.softplus(self.last[part]) @ x + biases[:, 2 * WIDTH :]

    def bits(self, values: Tensor, level: int) -> Tensor:
        """-log2 of the mass of [values - 1/2, values + 1/2].

        Args:
            values: (n, channels) symbols, or steps with noise.
            level: trained level, 0 ..

        Returns:
            (n, channels).
        """
        part = slice(level * self.channels, (level + 1) * self.channels)
        x = values.T[:, None]
        unit = self.spread[level][:, None, None]
        low, high = (self._logits((x + side) / unit, part) for side in (-0.5, 0.5))
        flip = -torch.sign(low + high).detach()  # take the difference where both are small
        mass = (torch.sigmoid(flip * high) - torch.sigmoid(flip * low)).abs()
        return -torch.log2(mass.clamp(min=LEAST_MASS))[:, 0].T


def absolute_bits(values: Tensor) -> Tensor:
    """The l1 term in place of the estimator: a bit for every step away from zero."""
    return values.abs()
