"""Rate curves and the distance between two of them (BD-rate, BD-PSNR).

A curve is what one codec reaches over its settings.  `average_curve` makes it the way the field's
tables are made: at each setting, the mean over pictures of the bits a pixel and the mean over
pictures of each picture's PSNR (not the PSNR of the mean error).

Source: Bjontegaard, VCEG-M33 (2001); piecewise cubic (PCHIP) interpolation of the logarithm of
the rate instead of one cubic, as JVET and the learned-compression literature do today.
"""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from scipy.interpolate import PchipInterpolator  # type: ignore[import-untyped]

from vcmcodec.errors import RequestError
from vcmcodec.evaluation.metrics import ms_ssim_db

# Fewer points leave the shape of the curve to the interpolation (VCEG-M33 was made for four).
FEWEST_POINTS = 4

Axis = npt.NDArray[np.float64]


@dataclass(frozen=True)
class Measurement:
    """One picture, coded once, as written to disk and decoded again.

    Attributes:
        codec: name of the codec as tables print it.
        picture: name of the picture.
        setting: the codec's own quality number.
        num_bytes: the whole file.
        bpp: 8 * num_bytes over the true pixels of the picture.
        psnr_db: RGB PSNR; infinite where exact.
        ms_ssim: linear; None for pictures too small for it.
    """

    codec: str
    picture: str
    setting: float
    num_bytes: int
    bpp: float
    psnr_db: float
    ms_ssim: float | None


@dataclass(frozen=True)
class RatePoint:
    """One setting of a codec: means over `pictures` pictures."""

    setting: float
    bpp: float
    psnr_db: float
    ms_ssim: float | None = None
    pictures: int = 1

    def quality(self, metric: str) -> float:
        """Return the point's value on the axis `metric`: "psnr" or "ms-ssim", both in dB."""
        if metric == "psnr":
            return self.psnr_db
        if metric == "ms-ssim":
            return math.nan if self.ms_ssim is None else ms_ssim_db(self.ms_ssim)
        raise RequestError(f"unknown metric {metric!r}: psnr or ms-ssim")


@dataclass(frozen=True)
class RateCurve:
    """The points of one codec in order of rate; `published` marks figures of another machine."""

    name: str
    points: tuple[RatePoint, ...]
    published: bool = False


@dataclass(frozen=True)
class BdResult:
    """Distance of a curve from an anchor, over the interval that both cover.

    Attributes:
        value: percent of rate (BD-rate; negative: fewer bits) or dB (BD-PSNR; positive: better).
        low: start of the common interval: dB for BD-rate, bits a pixel for BD-PSNR.
        high: end of it.
        anchor_share: part of the anchor's own range that the interval covers, 0..1.
        dropped: points left out since another point has fewer bits and is at least as good.
    """

    value: float
    low: float
    high: float
    anchor_share: float
    dropped: int


def average_curve(name: str, measurements: Iterable[Measurement]) -> RateCurve:
    """Average measurements of one codec over pictures, setting by setting.

    Raises:
        RequestError: no measurement, or the settings were not all run on the same pictures
            (their means would then be of different things).
    """
    by_setting: dict[float, list[Measurement]] = defaultdict(list)
    for measurement in measurements:
        by_setting[measurement.setting].append(measurement)
    if not by_setting:
        raise RequestError(f"{name}: nothing was measured")
    sets = {tuple(sorted(m.picture for m in group)) for group in by_setting.values()}
    if len(sets) != 1:
        raise RequestError(f"{name}: the settings were run on different pictures")
    points = []
    for setting, group in by_setting.items():
        similarities = [m.ms_ssim for m in group if m.ms_ssim is not None]
        points.append(
            RatePoint(
                setting=setting,
                bpp=float(np.mean([m.bpp for m in group])),
                psnr_db=float(np.mean([m.psnr_db for m in group])),
                ms_ssim=float(np.mean(similarities)) if len(similarities) == len(group) else None,
                pictures=len(group),
            )
        )
    return RateCurve(name, tuple(sorted(points, key=lambda point: point.bpp)))


def _axes(curve: RateCurve, metric: str) -> tuple[Axis, Axis, int]:
    """Return (log rate, quality, dropped) with both strictly rising."""
    rates: list[float] = []
    qualities: list[float] = []
    points = sorted(curve.points, key=lambda point: (point.bpp, -point.quality(metric)))
    for point in points:
        quality = point.quality(metric)
        if not math.isfinite(quality) or point.bpp <= 0:
            continue
        if not qualities or quality > qualities[-1]:
            rates.append(point.bpp)
            qualities.append(quality)
    if len(rates) < FEWEST_POINTS:
        raise RequestError(
            f"{curve.name}: {len(rates)} usable points for {metric}, "
            f"at least {FEWEST_POINTS} are needed for a BD figure"
        )
    return np.log(rates), np.asarray(qualities), len(points) - len(rates)


def _common(anchor: Axis, test: Axis, names: str) -> tuple[float, float]:
    low, high = max(anchor[0], test[0]), min(anchor[-1], test[-1])
    if low >= high:
        raise RequestError(f"{names}: the curves have no common interval")
    return float(low), float(high)


def _mean_gap(
    x_anchor: Axis,
    y_anchor: Axis,
    x_test: Axis,
    y_test: Axis,
    interval: tuple[float, float],
) -> float:
    """Return the mean over the interval of test minus anchor, both interpolated by PCHIP."""
    low, high = interval
    area_test = PchipInterpolator(x_test, y_test).integrate(low, high)
    area_anchor = PchipInterpolator(x_anchor, y_anchor).integrate(low, high)
    return float(area_test - area_anchor) / (high - low)


def bd_rate(anchor: RateCurve, test: RateCurve, metric: str = "psnr") -> BdResult:
    """Return how many percent more bits `test` needs than `anchor` at equal quality.

    Args:
        anchor: the curve to compare with.
        test: the curve in question.
        metric: "psnr" or "ms-ssim" (the latter on its dB axis).

    Raises:
        RequestError: under four usable points on either side, or no common interval.
    """
    rate_a, quality_a, dropped_a = _axes(anchor, metric)
    rate_t, quality_t, dropped_t = _axes(test, metric)
    low, high = _common(quality_a, quality_t, f"{anchor.name} and {test.name}")
    gap = _mean_gap(quality_a, rate_a, quality_t, rate_t, (low, high))
    share = (high - low) / float(quality_a[-1] - quality_a[0])
    return BdResult(100.0 * math.expm1(gap), low, high, share, dropped_a + dropped_t)


def bd_psnr(anchor: RateCurve, test: RateCurve, metric: str = "psnr") -> BdResult:
    """Return how many dB `test` is above `anchor` at equal rate; arguments as `bd_rate`."""
    rate_a, quality_a, dropped_a = _axes(anchor, metric)
    rate_t, quality_t, dropped_t = _axes(test, metric)
    low, high = _common(rate_a, rate_t, f"{anchor.name} and {test.name}")
    gap = _mean_gap(rate_a, quality_a, rate_t, quality_t, (low, high))
    share = (high - low) / float(rate_a[-1] - rate_a[0])
    return BdResult(gap, math.exp(low), math.exp(high), share, dropped_a + dropped_t)


def bd_rate_spread(
    anchor: Sequence[Measurement],
    test: Sequence[Measurement],
    metric: str = "psnr",
    resamples: int = 200,
) -> tuple[float, float] | None:
    """Return the 95 % interval of `bd_rate` over the choice of pictures (bootstrap).

    Pictures are drawn with replacement, the same ones for both sides; the generator is seeded, so
    equal measurements give equal intervals.

    Returns:
        (low, high) in percent; None with fewer than five pictures, where it says nothing.
    """
    pictures = sorted({m.picture for m in anchor} & {m.picture for m in test})
    if len(pictures) < 5:
        return None
    generator = np.random.default_rng(0)
    sides = [_by_picture(side) for side in (anchor, test)]
    values = []
    for _ in range(resamples):
        drawn = [pictures[i] for i in generator.integers(0, len(pictures), len(pictures))]
        curves = [_resampled(side, drawn) for side in sides]
        try:
            values.append(bd_rate(curves[0], curves[1], metric).value)
        except RequestError:
            continue
    if len(values) < resamples // 2:
        return None
    low, high = np.percentile(values, [2.5, 97.5])
    return float(low), float(high)


def _by_picture(measurements: Sequence[Measurement]) -> dict[str, dict[float, Measurement]]:
    table: dict[str, dict[float, Measurement]] = defaultdict(dict)
    for measurement in measurements:
        table[measurement.picture][measurement.setting] = measurement
    return table


def _resampled(table: dict[str, dict[float, Measurement]], drawn: Sequence[str]) -> RateCurve:
    """Return the average curve of pictures that may occur more than once."""
    points = []
    for setting in table[drawn[0]]:
        group = [table[picture][setting] for picture in drawn]
        similarities = [m.ms_ssim for m in group if m.ms_ssim is not None]
        points.append(
            RatePoint(
                setting,
                float(np.mean([m.bpp for m in group])),
                float(np.mean([m.psnr_db for m in group])),
                float(np.mean(similarities)) if len(similarities) == len(group) else None,
                len(group),
            )
        )
    return RateCurve("resampled", tuple(points))
