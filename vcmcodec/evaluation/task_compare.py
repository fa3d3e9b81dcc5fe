"""Codecs compared on one network's accuracy: BD figures, and what coming near costs.

Everything is computed once on the set itself and once on every bootstrap draw of its pictures; the
same draw for both sides of a comparison, so that what all codecs find hard cancels.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from vcmcodec.errors import RequestError
from vcmcodec.evaluation.task_curves import BestFit, Fit, Gap, interval, rate_gap, value_gap

Floats = npt.NDArray[np.float64]


@dataclass(frozen=True)
class Estimate:
    """A figure on the set itself and its 95 % interval over pictures, None where unknown."""

    value: float
    low: float | None = None
    high: float | None = None


@dataclass(frozen=True, eq=False)
class Samples:
    """One subject on the set itself (first column) and on every draw.

    Attributes:
        codec, variant, ours: as of the subject.
        settings: of its points.
        num_bytes, bpp: (points, choices) means over the pictures of the choice.
        scores: for each point, (choices,) percent by metric.
    """

    codec: str
    variant: str
    ours: bool
    settings: tuple[float, ...]
    num_bytes: Floats
    bpp: Floats
    scores: tuple[dict[str, Floats], ...]

    def values(self, metric: str) -> Floats:
        """(points, choices) accuracies."""
        return np.stack([scores[metric] for scores in self.scores])


@dataclass(frozen=True)
class Ratio:
    """Bytes of `test` over those of the anchor, both so many points under uncompressed.

    Where one of them never comes so near there is no ratio; `reason` says which.
    """

    within: float
    bytes: Estimate | None
    reason: str = ""


@dataclass(frozen=True)
class Comparison:
    """`test` against `anchor` on one metric, each at the better of its variants.

    Attributes:
        rate: BD-rate in percent on bits a pixel; negative: fewer bits at equal accuracy.
        accuracy: BD-accuracy in points at equal rate; positive: better.
        low, high: accuracies between which the BD-rate was taken.
        anchor_share: part of the anchor's range of accuracies that this is.
        ratios: bytes at given distances from the uncompressed result.
        reason: why a figure is missing.
    """

    metric: str
    test: str
    anchor: str
    rate: Estimate | None
    accuracy: Estimate | None
    low: float | None
    high: float | None
    anchor_share: float | None
    ratios: tuple[Ratio, ...]
    reason: str = ""


@dataclass(frozen=True)
class Reach:
    """What a codec pays to come within some points of the uncompressed result.

    Attributes:
        target: the accuracy, percent.
        num_bytes, bpp: read off the fitted curve; None where it never comes so near.
        at_most: the codec's smallest file is better than that already, so it is an upper bound.
        variant: the one that is cheapest there.
        setting: cheapest setting that was run and is within; None if none is.
        setting_bytes: mean bytes at that setting.
    """

    metric: str
    within: float
    target: float
    codec: str
    num_bytes: Estimate | None
    bpp: Estimate | None
    at_most: bool
    variant: str
    setting: float | None
    setting_bytes: float | None


def estimate(values: Floats) -> Estimate:
    """First the figure itself, then its bootstrap values."""
    spread = interval(values[1:]) if len(values) > 1 else None
    return Estimate(float(values[0]), *(spread or (None, None)))


def estimate_or_none(values: Floats) -> Estimate | None:
    """The same, or None where the figure itself is no number."""
    return estimate(values) if np.isfinite(values[0]) else None


def _families(samples: Sequence[Samples]) -> dict[str, list[Samples]]:
    found: dict[str, list[Samples]] = {}
    for one in samples:
        found.setdefault(one.codec, []).append(one)
    return found


def _best(family: Sequence[Samples], metric: str, choice: int, by_bytes: bool) -> BestFit | None:
    """The fitted curves of a codec on one choice of pictures; None where none can be fitted."""
    fits = []
    for one in family:
        rates = (one.num_bytes if by_bytes else one.bpp)[:, choice]
        try:
            fits.append(Fit(rates, one.values(metric)[:, choice]))
        except RequestError:
            continue
    return BestFit(fits) if fits else None


class Curves:
    """Fitted curves by codec, metric, choice and kind of rate, each made once."""

    def __init__(self, samples: Sequence[Samples]) -> None:
        """Take the subjects."""
        self.families = _families(samples)
        self.choices = samples[0].bpp.shape[1] if samples else 0
        self._made: dict[tuple[str, str, int, bool], BestFit | None] = {}

    def of(self, codec: str, metric: str, choice: int, by_bytes: bool) -> BestFit | None:
        """The fitted curve of a codec on one choice of pictures, if there is one."""
        key = codec, metric, choice, by_bytes
        if key not in self._made:
            self._made[key] = _best(self.families[codec], metric, choice, by_bytes)
        return self._made[key]

    def bytes_at(self, codec: str, metric: str, targets: Floats, by_bytes: bool = True) -> Floats:
        """(choices,) rate at which a codec reaches a target of each choice; infinite if never."""
        rates = np.full(self.choices, np.nan)
        for choice in range(self.choices):
            fit = self.of(codec, metric, choice, by_bytes)
            if fit is not None and np.isfinite(targets[choice]):
                rates[choice] = np.exp(fit.log_rate(targets[choice : choice + 1])[0])
        return rates


def compare(
    curves: Curves, reference: Samples, metrics: Sequence[str], within: Sequence[float]
) -> tuple[Comparison, ...]:
    """Compare each of ours with each other codec; without ours, every codec with the first.

    Args:
        curves: of all subjects.
        reference: the uncompressed pictures.
        metrics: what to compare.
        within: points under the uncompressed result, for ratios of bytes.
    """
    ours = [name for name, family in curves.families.items() if family[0].ours]
    others = [name for name in curves.families if name not in ours]
    pairs = [(test, anchor) for test in ours for anchor in others]
    if not ours:
        pairs = [(test, others[0]) for test in others[1:]]
    return tuple(
        _compare(curves, metric, test, anchor, reference.values(metric)[0], within)
        for metric in metrics
        for test, anchor in pairs
    )


def _compare(
    curves: Curves, metric: str, test: str, anchor: str, whole: Floats, within: Sequence[float]
) -> Comparison:
    rates = np.full(curves.choices, np.nan)
    accuracies = np.full(curves.choices, np.nan)
    gap: Gap | None = None
    reason = ""
    for choice in range(curves.choices):
        own = curves.of(test, metric, choice, False)
        other = curves.of(anchor, metric, choice, False)
        if own is None or other is None:
            reason = reason or ("too few points for a curve" if choice == 0 else "")
            continue
        try:
            found = rate_gap(other, own)
            rates[choice] = found.rate
            gap = found if choice == 0 else gap
        except RequestError as error:
            reason = str(error) if choice == 0 else reason
        try:
            accuracies[choice] = value_gap(other, own)
        except RequestError:
            continue
    return Comparison(
        metric, test, anchor,
        estimate_or_none(rates), estimate_or_none(accuracies),
        gap.low if gap else None, gap.high if gap else None, gap.anchor_share if gap else None,
        tuple(_ratio(curves, metric, test, anchor, whole, points) for points in within),
        reason,
    )  # fmt: skip


def _ratio(
    curves: Curves, metric: str, test: str, anchor: str, whole: Floats, points: float
) -> Ratio:
    own = curves.bytes_at(test, metric, whole - points)
    other = curves.bytes_at(anchor, metric, whole - points)
    missing = [name for name, rate in ((test, own[0]), (anchor, other[0])) if not np.isfinite(rate)]
    if missing:
        return Ratio(points, None, f"never reached by {' and '.join(missing)}")
    with np.errstate(invalid="ignore"):
        return Ratio(points, estimate(own / other))


def reach(
    curves: Curves, reference: Samples, metrics: Sequence[str], within: Sequence[float]
) -> tuple[Reach, ...]:
    """What each codec pays to come within some points of the uncompressed result."""
    return tuple(
        _reach(curves, metric, points, reference.values(metric)[0], codec)
        for metric in metrics
        for points in within
        for codec in curves.families
    )


def _reach(curves: Curves, metric: str, points: float, whole: Floats, codec: str) -> Reach:
    target = float(whole[0] - points)
    fit = curves.of(codec, metric, 0, True)
    place = fit.which(target) if fit is not None else None
    fitted = [one for one in curves.families[codec] if _best([one], metric, 0, True) is not None]
    run = [
        (float(one.num_bytes[i, 0]), setting, one.variant)
        for one in curves.families[codec]
        for i, setting in enumerate(one.settings)
        if one.values(metric)[i, 0] >= target
    ]
    cheapest = min(run, default=None)
    variant = fitted[place].variant if place is not None else cheapest[2] if cheapest else ""
    return Reach(
        metric, points, target, codec,
        estimate_or_none(curves.bytes_at(codec, metric, whole - points)),
        estimate_or_none(curves.bytes_at(codec, metric, whole - points, False)),
        fit is not None and target < fit.low,
        variant,
        cheapest[1] if cheapest else None, cheapest[0] if cheapest else None,
    )  # fmt: skip
