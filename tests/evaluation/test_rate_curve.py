"""BD figures against published ones, and the rules by which they are refused."""

from __future__ import annotations

import itertools
import json
import math
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from vcmcodec.errors import RequestError
from vcmcodec.evaluation.rate_curve import (
    Measurement,
    RateCurve,
    RatePoint,
    average_curve,
    bd_psnr,
    bd_rate,
    bd_rate_spread,
)

PUBLISHED = json.loads(Path(__file__).with_name("kodak-published.json").read_text())["curves"]


def published(name: str) -> RateCurve:
    curve = PUBLISHED[name]
    pairs = zip(curve["bpp"], curve["psnr-rgb"], strict=True)
    return RateCurve(name, tuple(RatePoint(i, *pair) for i, pair in enumerate(pairs)))


def curve_of(rates: list[float], qualities: list[float], name: str = "curve") -> RateCurve:
    pairs = zip(rates, qualities, strict=True)
    return RateCurve(name, tuple(RatePoint(i, *pair) for i, pair in enumerate(pairs)))


@pytest.mark.parametrize(
    ("test", "anchor", "percent"),
    [
        ("elic", "vtm", -7.0),
        ("elic", "bpg", -26.6),
        ("elic", "jpeg", -67.9),
        ("bpg", "vtm", 22.0),
        ("vtm", "jpeg", -67.6),
        ("mbt2018-mean", "vtm", 21.3),
        ("mbt2018-mean", "bpg", -3.3),
        ("webp", "vtm", 78.7),
        ("webp", "jpeg", -36.2),
        ("jpeg", "vtm", 208.5),
    ],
)
def test_bd_rate_of_published_kodak_curves(test: str, anchor: str, percent: float) -> None:
    assert bd_rate(published(anchor), published(test)).value == pytest.approx(percent, abs=0.06)


def test_bd_figures_of_a_known_pair_of_video_curves() -> None:
    # JCT-VC's spreadsheet form: four points, kbit/s and dB; each side monotone, so the area can
    # be bounded by the trapezoids through the points, an independent computation.
    anchor = curve_of([85.95, 157.11, 309.58, 686.76], [31.42, 34.24, 37.18, 40.28])
    test = curve_of([112.75, 204.93, 407.8, 893.34], [31.24, 34.17, 37.21, 40.39])
    result = bd_rate(anchor, test)

    def log_rate(curve: RateCurve, quality: float) -> float:
        points = list(curve.points)
        for a, b in itertools.pairwise(points):
            if a.psnr_db <= quality <= b.psnr_db:
                part = (quality - a.psnr_db) / (b.psnr_db - a.psnr_db)
                return math.log(a.bpp) + part * math.log(b.bpp / a.bpp)
        raise AssertionError(quality)

    steps = [31.42 + (40.28 - 31.42) * (i + 0.5) / 2000 for i in range(2000)]
    gap = sum(log_rate(test, q) - log_rate(anchor, q) for q in steps) / len(steps)
    assert result.value == pytest.approx(100 * math.expm1(gap), abs=0.6)
    assert (result.low, result.high) == (31.42, 40.28)
    assert bd_psnr(anchor, test).value < -1.0


@given(
    factor=st.floats(0.2, 5.0),
    steps=st.lists(st.floats(0.05, 1.5), min_size=4, max_size=9),
)
def test_scaling_every_rate_is_exactly_that_percentage(factor: float, steps: list[float]) -> None:
    rates = [0.1 * math.exp(sum(steps[: i + 1])) for i in range(len(steps))]
    qualities = [25 + 1.5 * sum(steps[: i + 1]) for i in range(len(steps))]
    plain = curve_of(rates, qualities)
    scaled = curve_of([rate * factor for rate in rates], qualities)
    assert bd_rate(plain, scaled).value == pytest.approx(100 * (factor - 1), rel=1e-6, abs=1e-6)
    assert bd_rate(plain, plain).value == pytest.approx(0, abs=1e-9)


@given(shift=st.floats(-3.0, 3.0))
def test_raising_every_psnr_is_exactly_that_gain(shift: float) -> None:
    plain = published("vtm")
    raised = RateCurve(
        "raised", tuple(RatePoint(p.setting, p.bpp, p.psnr_db + shift) for p in plain.points)
    )
    assert bd_psnr(plain, raised).value == pytest.approx(shift, abs=1e-6)


def test_only_the_common_interval_counts() -> None:
    whole = published("bpg")
    part = RateCurve("part", whole.points[2:7])
    # Inside its span a part of a curve is that curve but for the slopes at its ends.
    result = bd_rate(whole, part)
    assert result.value == pytest.approx(0, abs=0.3)
    qualities = sorted(p.psnr_db for p in part.points)
    assert (result.low, result.high) == (qualities[0], qualities[-1])
    assert 0.4 < result.anchor_share < 0.8


def test_three_points_are_refused() -> None:
    whole = published("bpg")
    with pytest.raises(RequestError, match="3 usable points"):
        bd_rate(whole, RateCurve("short", whole.points[:3]))


def test_curves_apart_are_refused() -> None:
    low = curve_of([0.1, 0.2, 0.3, 0.4], [20, 21, 22, 23])
    high = curve_of([0.1, 0.2, 0.3, 0.4], [30, 31, 32, 33])
    with pytest.raises(RequestError, match="no common interval"):
        bd_rate(low, high)


def test_dominated_points_are_left_out_and_counted() -> None:
    good = curve_of([0.1, 0.2, 0.4, 0.8], [26, 29, 32, 35])
    with_waste = curve_of([0.1, 0.2, 0.3, 0.4, 0.8], [26, 29, 28.5, 32, 35])
    result = bd_rate(good, with_waste)
    assert result.dropped == 1
    assert result.value == pytest.approx(0, abs=1e-9)


def measured(picture: str, setting: float, bpp: float, psnr: float) -> Measurement:
    return Measurement("codec", picture, setting, round(bpp * 1000), bpp, psnr, None)


def test_average_is_of_each_pictures_own_figures() -> None:
    curve = average_curve(
        "codec",
        [
            measured("a", 10, 0.2, 30.0),
            measured("b", 10, 0.4, 34.0),
            measured("a", 20, 0.5, 33.0),
            measured("b", 20, 0.7, 39.0),
        ],
    )
    assert [(p.setting, p.pictures) for p in curve.points] == [(10, 2), (20, 2)]
    assert [p.bpp for p in curve.points] == pytest.approx([0.3, 0.6])
    assert [p.psnr_db for p in curve.points] == pytest.approx([32.0, 36.0])
    assert curve.points[0].ms_ssim is None


def test_average_over_different_pictures_is_refused() -> None:
    with pytest.raises(RequestError, match="different pictures"):
        average_curve("codec", [measured("a", 10, 0.2, 30.0), measured("b", 20, 0.5, 33.0)])


def test_spread_covers_the_figure_and_needs_five_pictures() -> None:
    def side(factor: float, names: str) -> list[Measurement]:
        return [
            measured(name, setting, factor * (1 + 0.2 * i) * 0.1 * 2**setting, 26 + 3 * setting)
            for i, name in enumerate(names)
            for setting in range(5)
        ]

    low, high = bd_rate_spread(side(1.0, "abcdef"), side(0.8, "abcdef")) or (0.0, 0.0)
    assert low <= -20 + 1e-6
    assert high >= -20 - 1e-6
    assert bd_rate_spread(side(1.0, "abcd"), side(0.8, "abcd")) is None
