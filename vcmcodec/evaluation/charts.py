"""Rate curves as PNG or SVG."""

from __future__ import annotations

import io
from collections.abc import Sequence
from pathlib import Path

from matplotlib import rc_context
from matplotlib.axes import Axes
from matplotlib.backends.backend_svg import FigureCanvasSVG
from matplotlib.figure import Figure

from vcmcodec.errors import OutputError, RequestError
from vcmcodec.evaluation.rate_curve import RateCurve

# Okabe and Ito's palette: distinct for colour-blind readers and in grey.
COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9")
MARKERS = ("s", "^", "D", "v", "P", "X")
GREYS = ("#555555", "#999999", "#777777", "#BBBBBB")
DASHES = ((0, (5, 2)), (0, (1, 1.5)), (0, (5, 1.5, 1, 1.5)), (0, (8, 2)))
AXES = {"psnr": "PSNR of RGB, dB", "ms-ssim": "MS-SSIM of RGB, dB  (-10 log10(1 - x))"}
RATE_LIMIT = 2.0


def _draw(axes: Axes, curves: Sequence[RateCurve], metric: str, subject: str | None) -> None:
    own = [curve for curve in curves if not curve.published]
    published = [curve for curve in curves if curve.published]
    order = [c for c in own if c.name == subject] + [c for c in own if c.name != subject]
    for i, curve in enumerate(order):
        ours = curve.name == subject
        axes.plot(
            [p.bpp for p in curve.points],
            [p.quality(metric) for p in curve.points],
            color="black" if ours else COLOURS[i % len(COLOURS)],
            marker="o" if ours else MARKERS[i % len(MARKERS)],
            linewidth=2.4 if ours else 1.4,
            markersize=5.5 if ours else 4,
            zorder=3 if ours else 2,
            label=curve.name,
        )
    for i, curve in enumerate(published):
        axes.plot(
            [p.bpp for p in curve.points],
            [p.quality(metric) for p in curve.points],
            color=GREYS[i % len(GREYS)],
            linestyle=DASHES[i // len(GREYS) % len(DASHES)],
            linewidth=1.2,
            zorder=1,
            label=f"{curve.name} (published)",
        )
    axes.set_xlabel("Rate, bits a pixel (whole files)")
    axes.set_ylabel(AXES[metric])
    _frame(axes, curves, metric)
    axes.grid(True, color="#DDDDDD", linewidth=0.6)
    for side in ("top", "right"):
        axes.spines[side].set_visible(False)


def _frame(axes: Axes, curves: Sequence[RateCurve], metric: str) -> None:
    """Show the rates people use; rare points far to the right would squeeze all others."""
    shown = [p for curve in curves for p in curve.points if 0 < p.bpp <= RATE_LIMIT]
    values = [p.quality(metric) for p in shown if abs(p.quality(metric)) < 1e3]
    if not values:
        return
    axes.set_xlim(0, min(RATE_LIMIT, 1.05 * max(p.bpp for p in shown)))
    margin = 0.04 * (max(values) - min(values)) + 0.1
    axes.set_ylim(min(values) - margin, max(values) + margin)


def draw_curves(curves: Sequence[RateCurve], *, subject: str | None, title: str) -> Figure:
    """Draw PSNR and, where there is any, MS-SSIM over rate, side by side.

    Args:
        curves: at least one; `published` ones are drawn thin and grey.
        subject: name of the curve to stand out.
        title: one line on top: which pictures, how many.
    """
    similar = [c for c in curves if all(p.ms_ssim is not None for p in c.points)]
    metrics = ("psnr", "ms-ssim") if similar else ("psnr",)
    figure = Figure(figsize=(6.6 * len(metrics), 5.0), layout="constrained")
    panels = figure.subplots(1, len(metrics), squeeze=False)[0]
    for axes, metric in zip(panels, metrics, strict=True):
        _draw(axes, curves if metric == "psnr" else similar, metric, subject)
    panels[0].legend(loc="lower right", fontsize=9, framealpha=0.95)
    figure.suptitle(title, fontsize=11)
    return figure


def save_chart(figure: Figure, path: Path) -> None:
    """Write a figure as PNG or SVG, by the name's ending.

    Raises:
        RequestError: another ending.
        OutputError: the file cannot be written.
    """
    form = path.suffix.lower().lstrip(".")
    if form not in ("png", "svg"):
        raise RequestError(f"{path}: a chart is written as .png or .svg")
    try:
        figure.savefig(path, format=form, dpi=140)
    except OSError as error:
        raise OutputError(f"{path}: {error.strerror or error}") from None


def svg_text(figure: Figure) -> str:
    """Return a figure as an SVG element to be put into a page, with text as text."""
    with rc_context({"svg.fonttype": "none"}):
        sink = io.StringIO()
        FigureCanvasSVG(figure).print_svg(sink, metadata={"Date": None})  # type: ignore[no-untyped-call]
    text = sink.getvalue()
    return text[text.index("<svg") :]
