"""Probabilities become integers here, and nowhere else: the tables of the entropy coder.

A table is a cumulative distribution of integers, 0 .. 65536.  Its last symbol is the *escape*,
which says that the value lies outside the table; what follows an escape is the same for all
tables (`split_escapes`).  Tables are built once, stored with the weights and covered by the
model's fingerprint; nothing that decodes ever computes one.

Knows no torch, no bytes and no coder.  Norm: "Entropy coding", tables and escapes.
"""

from __future__ import annotations

import heapq
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
import numpy.typing as npt

from vcmcodec.errors import WeightsError

IntArray = npt.NDArray[np.int32]
LongArray = npt.NDArray[np.int64]
FloatArray = npt.NDArray[np.float64]

PRECISION = 16
TOTAL = 1 << PRECISION
LARGEST_OFFSET = 1 << 24  # tables lie within +-2**24, so that every distance below fits 32 bits
LARGEST_TABLES = 4096
PIECE = 8  # mantissa bits of an escape that one symbol carries


def _escape_frequencies() -> IntArray:
    """Frequencies of the 64 escape classes: symbol 2 * c + side, for distances in [2**c, 2**(c+1)).

    An Elias-gamma prior (class c has probability 2**-(c + 1), split evenly between the sides)
    down to c = 9; the 64 counts left go to the rarer classes, 11 to c = 10 and one to each other.
    """
    per_class = [1 << (14 - c) for c in range(10)] + [11] + [1] * 21
    return np.repeat(np.array(per_class, np.int32), 2)


ESCAPE_CDF: IntArray = np.concatenate([[0], np.cumsum(_escape_frequencies())]).astype(np.int32)
_ESCAPE_BITS: FloatArray = np.asarray(PRECISION - np.log2(_escape_frequencies()), np.float64)


@dataclass(frozen=True)
class Escapes:
    """Values outside their tables, as the coder writes them; three arrays of equal length.

    Attributes:
        classes: 2 * c + side, side 0 above the table and 1 below it, 0 <= c <= 31.
        widths: c, the number of mantissa bits.
        mantissas: distance - 2**c, where distance is 1 for the value next to the table.
    """

    classes: LongArray
    widths: LongArray
    mantissas: LongArray


def split_escapes(values: LongArray, lows: LongArray, highs: LongArray) -> Escapes:
    """Split values outside [low, high] into side, class and mantissa."""
    below = values < lows
    distance = np.where(below, lows - values, values - highs)
    widths = np.frexp(distance.astype(np.float64))[1].astype(np.int64) - 1  # exact below 2**53
    return Escapes(2 * widths + below, widths, distance - (np.int64(1) << widths))


def join_escapes(escapes: Escapes, lows: LongArray, highs: LongArray) -> LongArray:
    """Undo `split_escapes`; the result may lie outside int32 if the classes were damaged."""
    distance = escapes.mantissas + (np.int64(1) << escapes.widths)
    return np.where(escapes.classes & 1, lows - distance, highs + distance)


def mantissa_pieces(widths: LongArray) -> tuple[LongArray, LongArray, LongArray]:
    """Cut mantissas into pieces of at most PIECE bits, most significant first, in order.

    Returns:
        per piece: the escape it belongs to, its number of bits (1 .. PIECE), the bits below it.
    """
    counts = -(-widths // PIECE)
    owner = np.repeat(np.arange(counts.size), counts)
    rank = np.arange(owner.size) - np.repeat(np.cumsum(counts) - counts, counts)
    below = (counts[owner] - 1 - rank) * PIECE
    return owner, np.minimum(widths[owner] - below, PIECE), below


@dataclass(frozen=True, eq=False)
class Tables:
    """A set of integer tables, chosen from by index.

    Attributes:
        cdfs: per table, int32 of n + 2 entries for n >= 1 values and the escape: strictly
            increasing from 0 to 65536.
        offsets: int32, per table the value of its first symbol.
        skip: tables with an index below this one are never coded: their symbols are zero by
            rule, which the encoder must obey and the decoder assumes.

    Raises:
        WeightsError: a table is not legal (see `validate`).
    """

    cdfs: tuple[IntArray, ...]
    offsets: IntArray
    skip: int = 1

    def __post_init__(self) -> None:
        self.validate()
        for array in (*self.cdfs, self.offsets):
            array.setflags(write=False)

    def __len__(self) -> int:
        return len(self.cdfs)

    def validate(self) -> None:
        """Check every promise that the coders rely on.

        Raises:
            WeightsError: the table and what is wrong with it.
        """
        if not 1 <= len(self.cdfs) <= LARGEST_TABLES:
            raise WeightsError(f"tables: {len(self.cdfs)} of them, 1 to {LARGEST_TABLES} expected")
        if not 0 <= self.skip <= len(self.cdfs):
            raise WeightsError(f"tables: skip {self.skip} is outside 0 to {len(self.cdfs)}")
        if self.offsets.dtype != np.int32 or self.offsets.shape != (len(self.cdfs),):
            raise WeightsError("tables: offsets must be one int32 per table")
        for i, (cdf, offset) in enumerate(zip(self.cdfs, self.offsets.tolist(), strict=True)):
            if cdf.dtype != np.int32 or cdf.ndim != 1 or not 3 <= cdf.size <= TOTAL + 1:
                raise WeightsError(f"table {i}: not a flat int32 array of at least three entries")
            if cdf[0] != 0 or cdf[-1] != TOTAL:
                raise WeightsError(f"table {i}: runs from {cdf[0]} to {cdf[-1]}, not 0 to {TOTAL}")
            if not bool((cdf[1:] > cdf[:-1]).all()):
                raise WeightsError(f"table {i}: a symbol has no probability")
            if not -LARGEST_OFFSET <= offset <= offset + cdf.size - 3 <= LARGEST_OFFSET:
                raise WeightsError(f"table {i}: its values are beyond +-{LARGEST_OFFSET}")

    # -- derived once --------------------------------------------------------------------------

    @cached_property
    def sizes(self) -> LongArray:
        """Number of values of each table, the escape not counted; also the escape's symbol."""
        return np.array([cdf.size - 2 for cdf in self.cdfs], np.int64)

    @cached_property
    def lows(self) -> LongArray:
        """Smallest value of each table."""
        return self.offsets.astype(np.int64)

    @cached_property
    def highs(self) -> LongArray:
        """Largest value of each table."""
        return self.lows + self.sizes - 1

    @cached_property
    def symbol_bits(self) -> tuple[FloatArray, LongArray]:
        """Cost of each symbol, all tables in one array, and where each table starts in it."""
        starts = np.concatenate([[0], np.cumsum(self.sizes + 1)[:-1]]).astype(np.int64)
        flat = np.concatenate([PRECISION - np.log2(np.diff(cdf)) for cdf in self.cdfs])
        return flat, starts

    def to_symbols(self, values: LongArray, table_index: LongArray) -> LongArray:
        """Positions of values in their tables, 0 .. sizes[i]; what lies outside is an escape."""
        symbols = values - self.lows[table_index]
        sizes = self.sizes[table_index]
        return np.where((symbols < 0) | (symbols > sizes), sizes, symbols)

    # -- cost ----------------------------------------------------------------------------------

    def bits(self, values: npt.ArrayLike, table_index: npt.ArrayLike) -> FloatArray:
        """Ideal cost in bits of each value under its table, escapes included.

        Args:
            values: integers of any shape.
            table_index: the same shape.

        Returns:
            float64 of that shape: -log2 of the integer probabilities.  A skipped place costs 0
            if its value is zero, else infinity.
        """
        value = np.asarray(values, np.int64)
        index = np.asarray(table_index, np.int64)
        flat, starts = self.symbol_bits
        symbols = self.to_symbols(value, index)
        cost = flat[starts[index] + symbols]
        escaped = symbols == self.sizes[index]
        if escaped.any():
            of = index[escaped]
            escapes = split_escapes(value[escaped], self.lows[of], self.highs[of])
            cost[escaped] += _ESCAPE_BITS[escapes.classes] + escapes.widths
        skipped = index < self.skip
        return np.where(skipped, np.where(value == 0, 0.0, np.inf), cost)

    def cost_table(self, half_width: int) -> npt.NDArray[np.float32]:
        """Cost in bits of the values -half_width .. half_width under every table.

        Returns:
            float32 (tables, 2 * half_width + 1); for an encoder that weighs rate against error.
        """
        values = np.arange(-half_width, half_width + 1)
        grid = np.broadcast_to(values, (len(self), values.size))
        index = np.broadcast_to(np.arange(len(self))[:, None], grid.shape)
        return self.bits(grid, index).astype(np.float32)

    # -- storing -------------------------------------------------------------------------------

    def pack(self) -> dict[str, npt.NDArray[Any]]:
        """Flat int32 arrays for a weight file.

        Returns:
            `cdf` (all tables in a row), `sizes` (entries of each), `offsets`, `skip` (one number).
        """
        return {
            "cdf": np.concatenate(self.cdfs),
            "sizes": np.array([cdf.size for cdf in self.cdfs], np.int32),
            "offsets": np.array(self.offsets),
            "skip": np.array([self.skip], np.int32),
        }

    @classmethod
    def unpack(cls, arrays: Mapping[str, npt.ArrayLike]) -> Tables:
        """Undo `pack`.

        Raises:
            WeightsError: an array is missing, of another kind, or the tables are not legal.
        """
        parts = {}
        for name in ("cdf", "sizes", "offsets", "skip"):
            if name not in arrays:
                raise WeightsError(f"tables: the array {name!r} is missing")
            part = np.asarray(arrays[name])
            if part.dtype != np.int32 or part.ndim != 1:
                raise WeightsError(f"tables: {name!r} must be flat int32, not {part.dtype}")
            parts[name] = part
        sizes, cdf = parts["sizes"].astype(np.int64), parts["cdf"]
        if parts["skip"].size != 1 or (sizes < 3).any() or sizes.sum() != cdf.size:
            raise WeightsError("tables: the arrays do not fit each other")
        cdfs = tuple(np.array(part) for part in np.split(cdf, np.cumsum(sizes)[:-1]))
        return cls(cdfs, np.array(parts["offsets"]), int(parts["skip"][0]))


# -- building ------------------------------------------------------------------------------------


def quantize_frequencies(probabilities: npt.ArrayLike) -> IntArray:
    """Integer frequencies >= 1 that sum to 65536 and cost the fewest bits.

    Args:
        probabilities: at least two non-negative weights, of any sum above zero.

    Returns:
        int32 of the same length.

    Raises:
        WeightsError: too many symbols, or weights that are no probabilities.
    """
    p = np.asarray(probabilities, np.float64)
    if p.ndim != 1 or not 2 <= p.size <= TOTAL:
        raise WeightsError(f"a table of shape {p.shape} cannot be made, 2 to {TOTAL} symbols can")
    if not np.isfinite(p).all() or (p < 0).any() or not p.sum() > 0:
        raise WeightsError("a table needs finite, non-negative probabilities")
    p = p / p.sum()
    frequencies: list[int] = np.maximum(1, np.floor(p * TOTAL)).astype(np.int64).tolist()
    missing = TOTAL - sum(frequencies)
    step = 1 if missing > 0 else -1

    def price(i: int) -> float:  # bits gained by one step more (negated), or lost by one less
        f = frequencies[i]
        if step < 0 and f == 1:
            return math.inf
        return -float(p[i]) * math.log((f + step) / f)

    heap = [(price(i), i) for i in range(p.size)]
    heapq.heapify(heap)
    for _ in range(abs(missing)):
        _, i = heap[0]
        frequencies[i] += step
        heapq.heapreplace(heap, (price(i), i))
    return np.array(frequencies, np.int32)


def _to_cdf(probabilities: npt.ArrayLike) -> IntArray:
    return np.concatenate([[0], np.cumsum(quantize_frequencies(probabilities))]).astype(np.int32)


def gaussian_tables(scales: Sequence[float], tail: float = 1e-4, skip: int = 1) -> Tables:
    """Tables of rounded zero-mean Gaussians.

    Args:
        scales: standard deviations, in units of one symbol; table i is that of scales[i].
        tail: the mass on both sides together that is left to the escape.
        skip: how many of the first tables are never coded.

    Raises:
        WeightsError: a scale or the tail is out of range.
    """
    if not 0.0 < tail < 0.5:
        raise WeightsError(f"tail {tail} is outside 0 to 0.5")
    cdfs, offsets = [], []
    for scale in scales:
        if not 0.0 < scale <= 4096.0:
            raise WeightsError(f"scale {scale} is outside 0 to 4096")
        unit = 1.0 / (scale * math.sqrt(2.0))
        half = 1
        while math.erfc((half + 0.5) * unit) > tail:
            half += 1
        upper = np.array([math.erfc((k - 0.5) * unit) for k in range(half + 2)])
        one_side = (upper[1:-1] - upper[2:]) / 2  # of 1 .. half; erfc keeps small tails exact
        centre = 1.0 - upper[1]
        cdfs.append(_to_cdf([*one_side[::-1], centre, *one_side, upper[-1]]))
        offsets.append(-half)
    return Tables(tuple(cdfs), np.array(offsets, np.int32), skip)


def tables_from_counts(
    counts: Sequence[npt.ArrayLike],
    offsets: Sequence[int],
    *,
    prior_weight: float = 8.0,
    tail: float = 1e-4,
    skip: int = 0,
) -> Tables:
    """Tables from histograms, smoothed so that values never seen can be coded.

    Each histogram is mixed with a two-sided geometric of its own centre and spread, which counts
    as `prior_weight` observations; then its ends are given to the escape, as far as `tail` allows.

    Args:
        counts: per table, how often each value was seen, from offsets[i] upward; a factorized
            model has one table a channel.
        offsets: the first value of each histogram.
        prior_weight: observations that the prior is worth, above zero.
        tail: the mass on both sides together that is left to the escape.
        skip: how many of the first tables are never coded.

    Raises:
        WeightsError: counts that are no histogram.
    """
    if prior_weight <= 0.0 or not 0.0 < tail < 0.5 or len(counts) != len(offsets):
        raise WeightsError("tables_from_counts: prior_weight, tail or the number of offsets")
    cdfs, firsts = [], []
    for count, offset in zip(counts, offsets, strict=True):
        histogram = np.asarray(count, np.float64)
        if histogram.ndim != 1 or not histogram.size or not (histogram >= 0).all():
            raise WeightsError("a histogram is a flat array of counts")
        mixed = _with_prior(histogram, prior_weight)
        below = int(np.searchsorted(np.cumsum(mixed), tail / 2, side="right"))
        above = int(np.searchsorted(np.cumsum(mixed[::-1]), tail / 2, side="right"))
        kept = mixed[below : mixed.size - above]
        cdfs.append(_to_cdf([*kept, max(1.0 - float(kept.sum()), 0.0)]))
        firsts.append(offset + below)
    return Tables(tuple(cdfs), np.array(firsts, np.int32), skip)


def _with_prior(histogram: FloatArray, weight: float) -> FloatArray:
    """Probabilities of a histogram's values under the mixture; they sum to a little below one."""
    places = np.arange(histogram.size, dtype=np.float64)
    observed = float(histogram.sum())
    pseudo = histogram + 1e-9 if observed == 0.0 else histogram
    centre = float(np.average(places, weights=pseudo))
    spread = float(np.average(np.abs(places - centre), weights=pseudo))
    ratio = spread / (1.0 + spread) + 0.02  # geometric whose mean deviation is about the spread
    prior = ratio ** np.abs(places - centre)
    prior *= (1.0 - 1e-3) / prior.sum()  # a thousandth of the prior lies outside the histogram
    mixed: FloatArray = (histogram + weight * prior) / (observed + weight)
    return mixed
