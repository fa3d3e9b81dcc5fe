"""Curves of accuracy over rate, and the distance between two of them.

Accuracy over rate is noisy: with few pictures a finer setting may score lower.  So points go
through an isotonic fit first (pool adjacent violators; MPEG's machine-vision groups fit a monotone
cubic for the same reason): a run that falls becomes a plateau at its mean, from its first rate to
its last.  PCHIP joins what is left.  On points that rise already this is the BD-rate of
`rate_curve`.

Of a codec that was run at several sizes, the cheaper one at each accuracy counts.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import numpy.typing as npt
from scipy.interpolate import PchipInterpolator  # type: ignore[import-untyped]

from vcmcodec.errors import RequestError

Floats = npt.NDArray[np.float64]

# Points where two curves are compared; the mean gap changes by less than 0.01 % beyond it.
SAMPLES = 400
# Fewer points leave the shape of the curve to the interpolation.
FEWEST_POINTS = 4
# Accuracies nearer than this, in points, are the same; and so are rates, in logarithms.
_SAME = 1e-6
# Part of the step behind a plateau that the curve climbs on it, so that its rate is a function of
# accuracy still.
_TILT = 1e-3


def pool(rates: Floats, values: Floats) -> tuple[Floats, Floats]:
    """Points as a curve that never falls: runs that fall are pooled into plateaus.

    Args:
        rates: logarithms of rates, any order.
        values: accuracies.

    Returns:
        Rates, rising, and values, never falling; a plateau is given by its two ends.
    """
    order = np.lexsort((values, rates))
    blocks: list[tuple[float, float, float, int]] = []  # first and last rate, sum, count
    for rate, value in zip(rates[order], values[order], strict=True):
        block = (float(rate), float(rate), float(value), 1)
        # Points of one rate are one point, at their mean.
        while blocks and (
            blocks[-1][2] / blocks[-1][3] >= block[2] / block[3] - _SAME
            or blocks[-1][1] >= block[0] - _SAME
        ):
            last = blocks.pop()
            block = (last[0], block[1], last[2] + block[2], last[3] + block[3])
        blocks.append(block)
    knots = []
    for first, last_rate, total, count in blocks:
        knots.append((first, total / count))
        if last_rate > first:
            knots.append((last_rate, total / count))
    table = np.array(knots)
    return table[:, 0], table[:, 1]


class Fit:
    """One monotone curve through points."""

    def __init__(self, rates: Floats, values: Floats) -> None:
        """Fit.

        Args:
            rates: (n,) bytes or bits a pixel, above 0.
            values: (n,) accuracies; NaN are left out.

        Raises:
            RequestError: there are under `FEWEST_POINTS` points.
        """
        usable = np.isfinite(values) & (rates > 0)
        if usable.sum() < FEWEST_POINTS:
            raise RequestError(f"under {FEWEST_POINTS} points are too few for a curve")
        self.log_rates, self.values = pool(np.log(rates[usable]), values[usable])

    @cached_property
    def _rate_of(self) -> PchipInterpolator | None:
        rates, values = self.log_rates, self.values.copy()
        if len(values) > 1 and values[-1] == values[-2]:
            rates, values = rates[:-1], values[:-1]  # the best accuracy costs its first rate
        if len(values) < 2:
            return None
        flat = np.flatnonzero(np.diff(values) == 0) + 1
        values[flat] += _TILT * (values[flat + 1] - values[flat])
        return PchipInterpolator(values, rates, extrapolate=False)

    @cached_property
    def _value_of(self) -> PchipInterpolator | None:
        if len(self.values) < 2:
            return None
        return PchipInterpolator(self.log_rates, self.values, extrapolate=False)

    def log_rate(self, values: Floats) -> Floats:
        """Rate at which accuracies are reached; infinite above the curve.

        Below the curve it is the lowest rate: that much has to be paid, and more is reached.
        """
        found = np.full(np.shape(values), self.log_rates[0])
        if self._rate_of is not None:
            found = self._rate_of(np.clip(values, self.values[0], self.values[-1]))
        return np.where(values > self.values[-1], np.inf, found)

    def value(self, log_rates: Floats) -> Floats:
        """Accuracy at rates; minus infinity below the curve, its highest value beyond."""
        found = np.full(np.shape(log_rates), self.values[0])
        if self._value_of is not None:
            found = self._value_of(np.clip(log_rates, self.log_rates[0], self.log_rates[-1]))
        return np.where(log_rates < self.log_rates[0], -np.inf, found)


class BestFit:
    """The better of several curves at each place."""

    def __init__(self, fits: Sequence[Fit]) -> None:
        """Take at least one."""
        self.fits = tuple(fits)
        self.low = min(float(fit.values[0]) for fit in fits)
        self.high = max(float(fit.values[-1]) for fit in fits)
        self.low_rate = min(float(fit.log_rates[0]) for fit in fits)
        self.high_rate = max(float(fit.log_rates[-1]) for fit in fits)

    def log_rate(self, values: Floats) -> Floats:
        """See `Fit.log_rate`."""
        return np.min([fit.log_rate(values) for fit in self.fits], axis=0)

    def value(self, log_rates: Floats) -> Floats:
        """See `Fit.value`."""
        return np.max([fit.value(log_rates) for fit in self.fits], axis=0)

    def which(self, value: float) -> int | None:
        """The curve that is cheapest at an accuracy; None where none reaches it."""
        rates = [float(fit.log_rate(np.array([value]))[0]) for fit in self.fits]
        best = int(np.argmin(rates))
        return best if np.isfinite(rates[best]) else None


@dataclass(frozen=True)
class Gap:
    """Mean distance of a curve from an anchor over what both cover.

    Attributes:
        rate: percent of rate at equal accuracy (BD-rate); negative: fewer bits.
        low, high: accuracies between which they were compared.
        anchor_share: part of the anchor's own range of accuracies, 0..1.
    """

    rate: float
    low: float
    high: float
    anchor_share: float


def rate_gap(anchor: BestFit, test: BestFit) -> Gap:
    """BD-rate at equal accuracy.

    Raises:
        RequestError: the curves have no accuracy in common.
    """
    low, high = max(anchor.low, test.low), min(anchor.high, test.high)
    if low >= high:
        raise RequestError("the curves have no accuracy in common")
    gap = float(np.mean(_between(test.log_rate, low, high) - _between(anchor.log_rate, low, high)))
    share = (high - low) / (anchor.high - anchor.low)
    return Gap(100.0 * float(np.expm1(gap)), low, high, share)


def value_gap(anchor: BestFit, test: BestFit) -> float:
    """BD-accuracy: points that `test` is above `anchor` at equal rate.

    Raises:
        RequestError: the curves have no rate in common.
    """
    low = max(anchor.low_rate, test.low_rate)
    high = min(anchor.high_rate, test.high_rate)
    if low >= high:
        raise RequestError("the curves have no rate in common")
    return float(np.mean(_between(test.value, low, high) - _between(anchor.value, low, high)))


def _between(curve: object, low: float, high: float) -> Floats:
    middles = (np.arange(SAMPLES) + 0.5) / SAMPLES
    assert callable(curve)
    found: Floats = curve(low + (high - low) * middles)
    return found


def interval(values: Floats) -> tuple[float, float] | None:
    """95 % interval of bootstrap values; None where over half of them do not exist."""
    usable = values[np.isfinite(values)]
    if len(usable) < max(20, len(values) / 2):
        return None
    low, high = np.percentile(usable, [2.5, 97.5])
    return float(low), float(high)
