"""The integer networks of one slice of a latent, and the cells that they walk over.

hyper features, earlier slices of the cell and around it -> context       once a slice
context, this slice's earlier phases around the cell     -> mean, table   once a phase
"""

from __future__ import annotations

from contextlib import AbstractContextManager
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from vcmcodec.nn.integer import VALUE_UNIT, IntegerLinear, floor_through

MEAN_MAX = 2047  # in 1/16 of a step


@dataclass(frozen=True)
class CellGrid:
    """The cells of one traversal: neighbour tables and the rows of each phase.

    Attributes:
        neighbours: (cells, 9) the 3x3 cells around each; see `geometry.neighbour_rows`.
        far: the same two cells apart, where a slice starts from far apart; else no rows.
        phases: for each number of phases, the rows of each.
    """

    neighbours: Tensor
    far: Tensor
    phases: dict[int, tuple[Tensor, ...]]

    @property
    def size(self) -> int:
        """Cells, of all pictures of a batch."""
        return self.neighbours.shape[0]

    def to(self, device: torch.device) -> CellGrid:
        """The same tables on a device."""
        phases = {n: tuple(rows.to(device) for rows in each) for n, each in self.phases.items()}
        return CellGrid(self.neighbours.to(device), self.far.to(device), phases)


def gather(values: Tensor, neighbours: Tensor) -> Tensor:
    """(cells, C) and (n, 9) row numbers -> (n, 9 C); rows past the end are zero."""
    padded = torch.cat([values, values.new_zeros(1, values.shape[1])])
    return padded[neighbours].reshape(len(neighbours), neighbours.shape[1] * values.shape[1])


class SliceModel(nn.Module):
    """Mean and table index of one slice, from the hyper features and two kinds of context."""

    HYPER, POINT, AROUND, OWN, NARROW, HIDDEN = 96, 96, 64, 96, 24, 128
    DIRECT = 12  # own channels that are seen around without reduction

    def __init__(self, channels: int, before: int) -> None:
        super().__init__()
        self.channels, self.before = channels, before
        self.direct = min(self.DIRECT, channels)
        inputs = self.HYPER + self.OWN
        if before:
            self.point = IntegerLinear(2 * before, self.POINT)
            self.narrow = IntegerLinear(2 * before, self.NARROW)
            self.around = IntegerLinear(9 * self.NARROW, self.AROUND)
            inputs += self.POINT + self.AROUND
        self.own_narrow = IntegerLinear(2 * channels, self.NARROW)
        self.own = IntegerLinear(9 * (self.NARROW + 2 * self.direct), self.OWN)
        self.first = IntegerLinear(inputs, self.HIDDEN)
        self.second = IntegerLinear(self.HIDDEN, self.HIDDEN)
        self.last = IntegerLinear(self.HIDDEN, 2 * channels, limit=MEAN_MAX, relu=False, zero=True)

    def context(self, hyper: Tensor, before: Tensor | None, grid: CellGrid) -> Tensor:
        """What is known of every cell before this slice; `before` is companded, (cells, 2n).

        In use it is already summed into the first layer, since all phases share it.
        """
        with self._recording():
            known = hyper
            if before is not None:
                around = self.around(gather(self.narrow(before), grid.neighbours))
                known = torch.cat([hyper, self.point(before), around], 1)
            return self.first.begin(known) if self.first.held else known

    def look(self, own: Tensor) -> Tensor:
        """What is seen around of this slice's own values; companded, (cells, 2 channels)."""
        with self._recording():
            parts = [self.own_narrow(own), own[:, : self.direct]]
            parts.append(own[:, self.channels : self.channels + self.direct])
            return torch.cat(parts, 1)

    def look_at_nothing(self, cells: int) -> Tensor:
        """The same before anything is decoded, and one row past the end that stays zero."""
        blank = self.look(torch.zeros(1, 2 * self.channels, device=self.own.weight.device))
        return torch.cat([blank.expand(cells, -1), torch.zeros_like(blank)])

    def predict(
        self, context: Tensor, own: Tensor | None, rows: Tensor, grid: CellGrid
    ) -> tuple[Tensor, Tensor]:
        """Mean in 1/16 steps and offset of the table index, (rows, channels) each.

        Args:
            context: see there.
            own: what `look` gives of each cell, and a row of zeros; None: nothing is decoded.
        """
        with self._recording():
            seen = None
            if own is not None:
                seen = self.own(own[grid.neighbours[rows]].flatten(1))
            known = context[rows]
            if self.first.held:
                hidden = self.first.end(known, seen)
            else:
                if seen is None:
                    seen = known.new_zeros(len(rows), self.OWN)
                hidden = self.first(torch.cat([known, seen], 1))
            mean, scale = self.last(self.second(hidden)).chunk(2, 1)
            return mean, floor_through((scale + VALUE_UNIT / 2) / VALUE_UNIT)

    def _recording(self) -> AbstractContextManager[object]:
        """No graph where layers are held: their gradient is zero, so it would be of no use."""
        return torch.set_grad_enabled(torch.is_grad_enabled() and not self.first.held)
