"""Results as JSON and as plain tables; no measuring, no printing."""

from __future__ import annotations

import dataclasses
import json
import math
from dataclasses import dataclass
from typing import Any

from vcmcodec.evaluation.environment import Environment
from vcmcodec.evaluation.metrics import ms_ssim_db
from vcmcodec.evaluation.rate_curve import BdResult, RateCurve
from vcmcodec.evaluation.rate_distortion import Comparison, RateDistortion

MINUS = "-"
UNKNOWN = "n/a"


@dataclass(frozen=True)
class Table:
    """Text cells under column names; `notes` are lines below that say what the figures are."""

    title: str
    columns: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]
    notes: tuple[str, ...] = ()


def plain(value: Any) -> Any:
    """Return a result as JSON-ready objects; numbers JSON cannot hold (infinity) become null."""
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return {f.name: plain(getattr(value, f.name)) for f in dataclasses.fields(value)}
    if isinstance(value, dict):
        return {str(key): plain(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [plain(item) for item in value]
    if isinstance(value, float) and not math.isfinite(value):
        return None
    return value


def to_json(result: Any) -> str:
    """Return a result dataclass as JSON text with a line break at its end."""
    return json.dumps(plain(result), indent=1, allow_nan=False) + "\n"


def environment_note(environment: Environment) -> str:
    """Return one line with everything a figure depends on."""
    versions = ", ".join(f"{k} {v}" for k, v in environment.versions.items() if v is not None)
    return (
        f"{environment.processor}, {environment.cores} cores, {environment.threads} threads; "
        f"Python {environment.python}, {versions}"
    )


def signed(value: float | None, digits: int = 1, unit: str = "") -> str:
    """Return a number with its sign, or "n/a"."""
    return UNKNOWN if value is None else f"{value:+.{digits}f}{unit}"


def decibel(value: float | None) -> str:
    """Return dB with two digits, "exact" where infinite, "n/a" where not defined."""
    if value is None:
        return UNKNOWN
    return "exact" if math.isinf(value) else f"{value:.2f}"


def _similarity(value: float | None) -> str:
    return UNKNOWN if value is None else f"{value:.4f} ({decibel(ms_ssim_db(value))} dB)"


def points_table(curves: tuple[RateCurve, ...]) -> Table:
    """Return the averaged points of the curves of this run."""
    rows = [
        (
            curve.name,
            f"{point.setting:g}",
            f"{point.bpp:.4f}",
            decibel(point.psnr_db),
            _similarity(point.ms_ssim),
        )
        for curve in curves
        if not curve.published
        for point in curve.points
    ]
    return Table(
        "Rate points",
        ("codec", "quality", "bits a pixel", "PSNR dB", "MS-SSIM"),
        tuple(rows),
        (
            (
                "Means over pictures: of bits a pixel (whole files, true pixels), of each "
                "picture's own RGB PSNR, of each picture's MS-SSIM."
            ),
        ),
    )


def _interval(result: BdResult | None) -> str:
    if result is None:
        return UNKNOWN
    dropped = f", dominated points: {result.dropped}" if result.dropped else ""
    return f"{result.low:.1f}-{result.high:.1f} ({100 * result.anchor_share:.0f} %){dropped}"


def comparison_table(comparisons: tuple[Comparison, ...], title: str = "BD figures") -> Table:
    """Return BD-rates and their intervals, one row a comparison."""
    rows = []
    for c in comparisons:
        name = f"{c.anchor} (published)" if c.published else c.anchor
        spread = UNKNOWN if c.spread is None else f"{c.spread[0]:+.1f} .. {c.spread[1]:+.1f}"
        rows.append(
            (
                f"{c.test} against {name}",
                c.metric,
                signed(c.rate.value if c.rate else None, 1, " %"),
                spread,
                signed(c.picture_mean, 1, " %"),
                signed(c.picture_worst, 1, " %"),
                signed(c.quality.value if c.quality else None, 2, " dB"),
                c.reason or _interval(c.rate),
            )
        )
    return Table(
        title,
        (
            "pair",
            "metric",
            "BD-rate",
            "95 %",
            "mean of pictures",
            "worst picture",
            "BD quality",
            "common interval, dB (of the anchor's)",
        ),
        tuple(rows),
        (
            (
                "BD-rate: of the curves averaged over pictures (the field's standard), PCHIP over "
                "log rate, common interval only; negative: fewer bits. 95 %: bootstrap over "
                "pictures. Mean of pictures: each picture's own BD-rate, averaged."
            ),
        ),
    )


def rate_distortion_tables(result: RateDistortion) -> tuple[Table, ...]:
    """Return the tables of a rate-distortion run; the last one carries the run's facts."""
    points = points_table(result.curves)
    facts = tuple(f"{name}: {words}" for name, words in result.settings.items())
    noted = dataclasses.replace(
        comparison_table(result.comparisons),
        notes=(
            *comparison_table(result.comparisons).notes,
            *facts,
            f"Pictures ({len(result.pictures)}): {', '.join(result.pictures)}.",
            environment_note(result.environment),
        ),
    )
    return points, noted
