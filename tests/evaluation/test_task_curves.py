"""The distance between noisy curves: published values, values by hand, and the better of two."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from vcmcodec.errors import RequestError
from vcmcodec.evaluation.rate_curve import RateCurve, RatePoint, bd_psnr, bd_rate
from vcmcodec.evaluation.task_compare import Curves, Samples, compare, reach
from vcmcodec.evaluation.task_curves import BestFit, Fit, interval, pool, rate_gap, value_gap

PUBLISHED = json.loads(Path(__file__).with_name("kodak-published.json").read_text())["curves"]


def fit(rates: list[float], values: list[float]) -> Fit:
    return Fit(np.array(rates, np.float64), np.array(values, np.float64))


def at(curve: Fit | BestFit, value: float) -> float:
    return float(np.exp(curve.log_rate(np.array([value]))[0]))


@pytest.mark.parametrize(("test", "anchor"), [("elic", "vtm"), ("webp", "jpeg"), ("jpeg", "vtm")])
def test_curves_that_rise_have_the_bd_figures_of_the_picture_bench(test: str, anchor: str) -> None:
    curves, fits = [], []
    for name in (anchor, test):
        pairs = list(zip(PUBLISHED[name]["bpp"], PUBLISHED[name]["psnr-rgb"], strict=True))
        curves.append(RateCurve(name, tuple(RatePoint(i, *p) for i, p in enumerate(pairs))))
        fits.append(BestFit([fit(*map(list, zip(*pairs, strict=True)))]))  # type: ignore[arg-type]
    known = bd_rate(*curves)
    found = rate_gap(*fits)
    assert found.rate == pytest.approx(known.value, abs=0.02)
    assert (found.low, found.high) == (known.low, known.high)
    assert found.anchor_share == pytest.approx(known.anchor_share)
    assert value_gap(*fits) == pytest.approx(bd_psnr(*curves).value, abs=0.002)


def test_half_the_bits_at_every_accuracy_is_half_the_bits() -> None:
    anchor = BestFit([fit([100, 200, 400, 900, 2000], [20, 35, 44, 50, 52])])
    test = BestFit([fit([50, 100, 200, 450, 1000], [20, 35, 44, 50, 52])])
    assert rate_gap(anchor, test).rate == pytest.approx(-50)
    assert rate_gap(test, anchor).rate == pytest.approx(100)
    higher = BestFit([fit([100, 200, 400, 900, 2000], [23, 38, 47, 53, 55])])
    assert value_gap(anchor, higher) == pytest.approx(3)


def test_a_run_that_falls_becomes_a_plateau_at_its_mean() -> None:
    rates, values = pool(np.array([0.0, 1, 2, 3, 4]), np.array([10.0, 30, 20, 25, 40]))
    assert rates.tolist() == [0, 1, 3, 4]
    assert values.tolist() == [10, 25, 25, 40]
    curve = fit([10, 20, 40, 80, 160], [10, 30, 20, 25, 40])
    assert at(curve, 25) == pytest.approx(20)  # the plateau costs its first rate
    assert 75 < at(curve, 25.5) < 90  # and what is above it, more than its last
    assert at(curve, 40) == pytest.approx(160)


def test_a_plateau_at_the_end_costs_its_first_rate() -> None:
    curve = fit([10, 20, 40, 80, 160], [10, 20, 31, 29, 30])
    assert at(curve, 30) == pytest.approx(40)
    assert np.isinf(at(curve, 30.01))


def test_below_a_curve_its_smallest_file_is_paid_and_above_it_nothing_helps() -> None:
    curve = fit([10, 20, 40, 80], [10, 20, 30, 35])
    assert at(curve, 3) == pytest.approx(10)
    assert np.isinf(at(curve, 36))
    below, beyond = curve.value(np.log([9.0, 500.0]))
    assert np.isneginf(below)
    assert beyond == 35


def test_equal_accuracies_everywhere_are_no_error() -> None:
    curve = fit([10, 20, 40, 80], [30, 30, 30, 30])
    assert at(curve, 30) == pytest.approx(10)
    with pytest.raises(RequestError, match="no accuracy in common"):
        rate_gap(BestFit([curve]), BestFit([fit([10, 20, 40, 80], [40, 50, 60, 70])]))
    with pytest.raises(RequestError, match="too few"):
        fit([10, 20, 40], [1, 2, 3])


def test_the_better_of_two_sizes_counts_at_each_accuracy() -> None:
    whole = fit([100, 200, 400, 800], [10, 30, 50, 60])
    small = fit([20, 40, 80, 160], [5, 20, 35, 40])
    best = BestFit([whole, small])
    assert (best.low, best.high) == (5, 60)
    assert best.which(35) == 1
    assert best.which(55) == 0
    assert best.which(61) is None
    for value in (6, 20, 33, 39.9, 41, 58):
        assert at(best, value) == pytest.approx(min(at(whole, value), at(small, value)))
    # at an accuracy that a curve surpasses with its smallest file, that file is the offer
    assert at(best, 5) == pytest.approx(20)


@given(
    st.lists(st.tuples(st.floats(1, 1e5), st.floats(0, 100)), min_size=4, max_size=10),
    st.lists(st.floats(0, 100), min_size=2, max_size=20),
)
def test_any_points_give_a_curve_that_never_falls(
    points: list[tuple[float, float]], values: list[float]
) -> None:
    curve = fit(*map(list, zip(*points, strict=True)))  # type: ignore[arg-type]
    rates = curve.log_rate(np.sort(values))
    assert not np.isnan(rates).any()
    both = rates[np.isfinite(rates)]
    assert (np.diff(both) >= -1e-9).all()
    back = curve.value(np.linspace(0, 12, 30))
    assert (np.diff(back[np.isfinite(back)]) >= -1e-9).all()


def test_an_interval_needs_enough_draws_that_mean_something() -> None:
    values = np.arange(1001.0)
    assert interval(values) == pytest.approx((25, 975))
    assert interval(np.append(values[:400], np.full(601, np.nan))) is None
    assert interval(values[:5]) is None


def samples(codec: str, ours: bool, factor: float, variant: str = "full size") -> Samples:
    """A made-up codec on 41 choices of pictures, of which the later ones are noisy."""
    rng = np.random.default_rng(len(codec))
    noise = np.append(0.0, rng.normal(0, 1, 40))
    scores = tuple({"mAP50": value + noise} for value in (20.0, 40.0, 50.0, 54.0, 55.0))
    rates = factor * np.outer([1000, 2000, 4000, 8000, 16000], np.ones(41))
    return Samples(codec, variant, ours, (0.0, 1.0, 2.0, 3.0, 4.0), rates, rates / 2e4, scores)


def uncompressed() -> Samples:
    one = np.full((1, 41), 1e5)
    return Samples("uncompressed", "", False, (0.0,), one, one, ({"mAP50": np.full(41, 56.0)},))


def test_a_codec_of_a_quarter_of_the_bytes_is_told_as_such() -> None:
    curves = Curves(
        [
            samples("ours", True, 0.25),
            samples("theirs", False, 3.0),
            samples("theirs", False, 1.0, "reduced"),
        ]
    )
    (found,) = compare(curves, uncompressed(), ("mAP50",), (1.0, 6.0))
    assert (found.test, found.anchor) == ("ours", "theirs")
    assert found.rate is not None
    assert found.rate.value == pytest.approx(-75)
    assert found.rate.low is not None
    assert found.rate.high is not None
    assert found.rate.low < -75 < found.rate.high
    assert found.anchor_share == pytest.approx(1)
    assert [ratio.bytes.value for ratio in found.ratios if ratio.bytes] == pytest.approx([0.25] * 2)
    ours, theirs = reach(curves, uncompressed(), ("mAP50",), (6.0,))
    assert ours.num_bytes is not None
    assert theirs.num_bytes is not None
    assert (ours.num_bytes.value, theirs.num_bytes.value) == pytest.approx((1000, 4000))
    assert theirs.bpp is not None
    assert theirs.bpp.value == pytest.approx(0.2)
    assert theirs.variant == "reduced"
    assert (theirs.setting, theirs.setting_bytes) == (2.0, 4000)
    assert not theirs.at_most


def test_what_is_never_reached_or_always_is_said() -> None:
    curves = Curves([samples("ours", True, 0.25), samples("theirs", False, 1.0)])
    near, far = reach(curves, uncompressed(), ("mAP50",), (0.5,))
    assert near.num_bytes is None
    assert near.setting is None
    assert near.variant == ""
    (found,) = compare(curves, uncompressed(), ("mAP50",), (0.5,))
    assert found.ratios[0].bytes is None
    assert "ours and theirs" in found.ratios[0].reason
    easy, _ = reach(curves, uncompressed(), ("mAP50",), (50.0,))
    assert easy.at_most
    assert easy.num_bytes is not None
    assert easy.num_bytes.value == pytest.approx(250)
    assert far.codec == "theirs"


def test_without_ours_everyone_is_compared_with_the_first() -> None:
    curves = Curves([samples("a", False, 1.0), samples("b", False, 0.5), samples("c", False, 2.0)])
    found = compare(curves, uncompressed(), ("mAP50",), (3.0,))
    assert [(one.test, one.anchor) for one in found] == [("b", "a"), ("c", "a")]
