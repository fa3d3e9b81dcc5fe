"""The coders of encoding and decoding: where integer tensors meet entropy-coded runs.

Both implement `nn.latent_model.Coder`.  A *run* is what one group holds of one layer and tile; the
networks run over all cells at once, and the symbols are handed out to the groups' runs here.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping

import numpy as np
import torch
from torch import Tensor

from vcmcodec.entropy.cdf import Tables
from vcmcodec.entropy.rans import RansDecoder, RansEncoder
from vcmcodec.errors import FormatError, RequestError
from vcmcodec.nn.integer import VALUE_BOUND, VALUE_UNIT
from vcmcodec.nn.latent_model import SCALE_COUNT

RATE_WINDOW = 15  # symbols of a larger size are simply rounded


class Hand:
    """Hands rows (cells) out to the groups that they belong to.

    Args:
        labels: (cells,) group position of each cell.
        groups: how many positions there are.
    """

    def __init__(self, labels: np.ndarray, groups: int) -> None:
        self.labels, self.groups = labels, groups
        self._known: dict[int, list[tuple[int, np.ndarray | None]]] = {}
        self._keep: list[Tensor] = []

    def deal(self, rows: Tensor) -> list[tuple[int, np.ndarray | None]]:
        """(group, which of the rows) for every group that has some; None means all."""
        key = id(rows)
        if key not in self._known:
            self._keep.append(rows)  # keeps the id from being used again
            labels = self.labels[rows.numpy()]
            present = np.unique(labels)
            if len(present) == 1:
                self._known[key] = [(int(present[0]), None)]
            else:
                self._known[key] = [(int(g), np.flatnonzero(labels == g)) for g in present]
        return self._known[key]


def _pick(matrix: np.ndarray, which: np.ndarray | None) -> np.ndarray:
    return (matrix if which is None else matrix[which]).reshape(-1)


def _integers(values: Tensor) -> np.ndarray:
    return values.to(torch.int32).numpy()


def _in_bounds(*parts: Tensor) -> bool:
    """Whether all means and values are below `VALUE_BOUND` in size, and none is no number."""
    ends = [end for part in parts if part.numel() for end in part.aminmax()]
    return all(-VALUE_BOUND < float(end) < VALUE_BOUND for end in ends)


def refuse_out_of_bounds(*parts: Tensor) -> None:
    """Raise RequestError where a latent, in steps, is too large for any file, or not finite."""
    if not _in_bounds(*parts):
        most = VALUE_BOUND // VALUE_UNIT
        raise RequestError(
            f"the features are too large: a value of their latent is not below {most} steps"
        )


class Rounder:
    """Chooses symbols: the nearest, or one nearer to zero whose bits saved are worth its error.

    Args:
        tables: the model's; where one is closed, every symbol is zero.
        price: bits that one squared step of error is worth, (channels,); None rounds plainly.
    """

    def __init__(self, tables: Tables, price: Tensor | None) -> None:
        self.skip, self.price = tables.skip, price
        costs = torch.from_numpy(tables.cost_table(RATE_WINDOW)[:SCALE_COUNT])
        self._costs = costs.clamp(max=1e6)

    def __call__(self, away: Tensor, index: Tensor, where: slice) -> tuple[Tensor, float]:
        """Symbols of values, and what closed tables lose.

        Args:
            away: (rows, channels), in steps from the means.
            index: of the tables, likewise.
            where: which of the price's channels these are.

        Returns:
            Symbols, and the worth in bits, by the price, of the error where a table is closed.
        """
        symbols = torch.floor(away + 0.5)
        shut = index < self.skip
        if self.price is None:
            symbols[shut] = 0
            return symbols, 0.0
        closed = _lost(away, symbols, shut, self.price[where])
        symbols[shut] = 0
        return self._weigh(away, symbols, index, self.price[where]), closed

    def _weigh(self, away: Tensor, symbols: Tensor, index: Tensor, price: Tensor) -> Tensor:
        """Round towards zero where the bits saved are worth more than the error added."""
        row, column = symbols.nonzero(as_tuple=True)
        near = symbols[row, column].clamp(-RATE_WINDOW, RATE_WINDOW)
        lower = near - torch.sign(near)
        table = index[row, column].long()
        before = self._costs[table, near.long() + RATE_WINDOW]
        after = self._costs[table, lower.long() + RATE_WINDOW]
        target = away[row, column]
        added = ((target - lower) ** 2 - (target - near) ** 2) * price[column]
        better = (before - after > added) & (near == symbols[row, column])
        symbols[row, column] = torch.where(better, lower, symbols[row, column])
        return symbols


class EncodingCoder:
    """Rounds a known latent and writes the symbols, one run a group.

    Args:
        latent: (cells, channels) in steps.
        hyper: (cells, n) float hyper-latent, where this run holds it.
        tables: the model's; hyper-latent channel k has table 64 + k.
        hand: who owns which cell.
        price: bits that one squared step of error is worth, (channels,); None rounds plainly.
        digests: also hash the symbols of every run.

    Raises:
        RequestError: the latent is too large for any file, or not finite; no picture's is.

    Attributes:
        bits: spent so far, by the integer tables.
        closed: worth in bits, by `price`, of the error where a table allows zero alone.
    """

    exact = True

    def __init__(
        self,
        latent: Tensor,
        hyper: Tensor | None,
        tables: Tables,
        hand: Hand,
        *,
        price: Tensor | None = None,
        digests: Mapping[int, hashlib._Hash] | None = None,
    ) -> None:
        refuse_out_of_bounds(latent, *(() if hyper is None else (hyper,)))
        self.latent, self._hyper, self.tables, self.hand = latent, hyper, tables, hand
        self.runs = {g: RansEncoder(tables) for g in range(hand.groups)}
        self.digests = digests
        self.bits = self.closed = 0.0
        self._rounder = Rounder(tables, price)

    def _push(self, rows: Tensor, symbols: np.ndarray, index: np.ndarray) -> None:
        self.bits += float(self.tables.bits(symbols, index).sum())
        for group, which in self.hand.deal(rows):
            flat = _pick(symbols, which)
            self.runs[group].push(flat, _pick(index, which))
            if self.digests is not None:
                self.digests[group].update(flat.astype("<i4").tobytes())

    def hyper(self, channels: int) -> Tensor:
        """Round the hyper-latent and write it."""
        assert self._hyper is not None
        symbols = torch.floor(self._hyper + 0.5)
        index = np.broadcast_to(np.arange(channels, dtype=np.int32) + SCALE_COUNT, symbols.shape)
        every = torch.arange(len(symbols))
        self._push(every, _integers(symbols), index)
        return symbols

    def values(self, where: slice, rows: Tensor, mean: Tensor, index: Tensor) -> Tensor:
        """Round the latent around its means and write the symbols.

        Raises:
            RequestError: a value is too large for any file.
        """
        away = self.latent[rows, where] - mean / VALUE_UNIT
        symbols, closed = self._rounder(away, index, where)
        values = symbols * VALUE_UNIT + mean
        refuse_out_of_bounds(mean, values)
        self.closed += closed
        self._push(rows, _integers(symbols), _integers(index))
        return values

    def finish(self) -> dict[int, bytes]:
        """The bytes of every group's run."""
        return {group: run.finish() for group, run in self.runs.items()}


def _lost(away: Tensor, symbols: Tensor, shut: Tensor, price: Tensor) -> float:
    """Worth of the error that is added where symbols have to be zero."""
    row, column = ((symbols != 0) & shut).nonzero(as_tuple=True)
    target, near = away[row, column], symbols[row, column]
    return float(((target**2 - (target - near) ** 2) * price[column]).sum())


class DecodingCoder:
    """Takes symbols out of the runs that are at hand; cells of other groups stay zero.

    Args:
        runs: bytes of each group that is decoded.
        cells: number of cells of this rectangle.
    """

    exact = True

    def __init__(
        self,
        runs: Mapping[int, bytes],
        cells: int,
        tables: Tables,
        hand: Hand,
        digests: Mapping[int, hashlib._Hash] | None = None,
    ) -> None:
        self.runs = {group: RansDecoder(tables, data) for group, data in runs.items()}
        self.cells, self.tables, self.hand, self.digests = cells, tables, hand, digests

    def _pull(self, rows: Tensor, index: np.ndarray) -> tuple[np.ndarray, np.ndarray | None]:
        """Symbols of all rows, and which rows are absent (None: none)."""
        symbols = np.zeros(index.shape, np.int32)
        absent: np.ndarray | None = None
        for group, which in self.hand.deal(rows):
            if group not in self.runs:
                if absent is None:
                    absent = np.zeros(len(index), bool)
                absent[slice(None) if which is None else which] = True
                continue
            flat = self.runs[group].pull(_pick(index, which))
            if self.digests is not None:
                self.digests[group].update(flat.astype("<i4").tobytes())
            if which is None:
                symbols = flat.reshape(index.shape)
            else:
                symbols[which] = flat.reshape(len(which), -1)
        return symbols, absent

    def hyper(self, channels: int) -> Tensor:
        """Take the hyper-latent out of the runs; zero where a group is absent."""
        index = np.broadcast_to(
            np.arange(channels, dtype=np.int32) + SCALE_COUNT, (self.cells, channels)
        )
        symbols, _ = self._pull(torch.arange(self.cells), index)
        return torch.from_numpy(symbols).float()

    def values(self, where: slice, rows: Tensor, mean: Tensor, index: Tensor) -> Tensor:
        """Take symbols out of the runs and add the means; zero where a group is absent.

        Raises:
            FormatError: the run is damaged, or a value is too large to be legal.
        """
        symbols, absent = self._pull(rows, _integers(index))
        decoded = torch.from_numpy(symbols).float() * VALUE_UNIT + mean
        if absent is not None:
            decoded[torch.from_numpy(absent)] = 0
        if not _in_bounds(mean, decoded):
            raise FormatError("run", f"a value is not below {VALUE_BOUND} sixteenths of a step")
        return decoded

    def finish(self) -> None:
        """Check that every run ended where it should.

        Raises:
            FormatError: a run is out of step with its tables.
        """
        for run in self.runs.values():
            run.finish()
