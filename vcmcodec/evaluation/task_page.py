"""A task bench as one HTML file that needs nothing else: curves, tables, detections drawn."""

from __future__ import annotations

from collections.abc import Sequence

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter

from vcmcodec.evaluation.charts import COLOURS, MARKERS, svg_text
from vcmcodec.evaluation.page_parts import document, picture_styles, slider, table_html
from vcmcodec.evaluation.report import Table
from vcmcodec.evaluation.task_bench import TaskBench
from vcmcodec.evaluation.task_costs import Costs
from vcmcodec.evaluation.task_gallery import SCORE, Scene
from vcmcodec.evaluation.task_report import TITLES, metrics_of, tables, title_of

OURS = ("#000000", "#B00020", "#7A4B00")


def draw_task_curves(bench: TaskBench) -> Figure:
    """Draw every metric over rate: ours in front, each codec's second size dashed."""
    metrics = metrics_of(bench)
    columns = min(2, len(metrics))
    rows = -(-len(metrics) // columns)
    figure = Figure(figsize=(6.6 * columns, 4.6 * rows), layout="constrained")
    panels = figure.subplots(rows, columns, squeeze=False).ravel()
    for axes, metric in zip(panels, metrics, strict=False):
        _draw(axes, bench, metric)
    for axes in panels[len(metrics) :]:
        axes.set_visible(False)
    panels[0].legend(fontsize=8, framealpha=0.95, loc="lower right")
    figure.suptitle(f"{title_of(bench)}; judge {bench.judge}", fontsize=11)
    return figure


def _draw(axes: Axes, bench: TaskBench, metric: str) -> None:
    ours = list(dict.fromkeys(c.codec for c in bench.curves if c.ours))
    others = list(dict.fromkeys(c.codec for c in bench.curves if not c.ours))
    for curve in bench.curves:
        place = (ours if curve.ours else others).index(curve.codec)
        palette = OURS if curve.ours else COLOURS
        first = next(c for c in bench.curves if c.codec == curve.codec) is curve
        alone = sum(c.codec == curve.codec for c in bench.curves) == 1
        axes.plot(
            [p.bpp for p in curve.points],
            [p.scores[metric].value for p in curve.points],
            color=palette[place % len(palette)],
            marker="o" if curve.ours else MARKERS[place % len(MARKERS)],
            linewidth=2.2 if curve.ours else 1.3,
            markersize=5 if curve.ours else 3.5,
            linestyle="-" if first else "--",
            zorder=3 if curve.ours else 2,
            label=curve.codec if alone else f"{curve.codec}, {curve.variant}",
        )
    whole = bench.uncompressed.scores[metric].value
    axes.axhline(whole, color="#333333", linewidth=1.0, linestyle=":", label="uncompressed")
    axes.set_xscale("log")
    axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
    axes.xaxis.set_minor_formatter(
        FuncFormatter(lambda value, _: f"{value:g}" if f"{value:.0e}"[0] in "25" else "")
    )
    axes.set_xlabel("Rate, bits a pixel of the original (whole files)")
    axes.set_ylabel(f"{TITLES[metric]}, %")
    axes.grid(True, which="both", color="#DDDDDD", linewidth=0.6)
    for side in ("top", "right"):
        axes.spines[side].set_visible(False)


def _figures(scene: Scene) -> Table:
    rows = tuple(
        (
            sight.title,
            "-" if sight.num_bytes is None else f"{sight.num_bytes:,}",
            "-" if sight.num_bytes is None else f"{8 * sight.num_bytes / scene.pixels:.4f}",
            ", ".join(sight.found) or "nothing",
        )
        for sight in scene.sights
    )
    return Table(
        scene.picture,
        ("version", "bytes", "bits a pixel", f"found, score {SCORE:g} and up"),
        rows,
        (
            "Others: the finest quality whose file is no larger than ours, or their smallest file.",
        ),
    )  # fmt: skip


def _scene(scene: Scene, number: int) -> str:
    labels = [
        sight.title if sight.num_bytes is None else f"{sight.title}, {sight.num_bytes:,} bytes"
        for sight in scene.sights
    ]
    pair = slider(scene.picture, number, labels, (scene.width, scene.height))
    return f'<section class="exhibit">{table_html(_figures(scene))}{pair}</section>'


def html_page(bench: TaskBench, scenes: Sequence[Scene], paid: Costs | None = None) -> str:
    """Return the page.

    Args:
        bench: a run.
        scenes: pictures to look at; may be none.
        paid: what edge and server pay, where it was measured.
    """
    reaches, comparisons, *costs, points = map(table_html, tables(bench, paid))
    beside = ""
    if scenes:
        shown = "".join(_scene(scene, i) for i, scene in enumerate(scenes))
        beside = (
            "<h2>What is found at equal bytes</h2>"
            f"<p>Drag across a picture, or use its slider.</p>{shown}"
        )
    chart = svg_text(draw_task_curves(bench))
    return document(
        "Rate and accuracy of machine tasks",
        f'<div class="chart">{chart}</div>{reaches}{comparisons}{"".join(costs)}{beside}{points}',
        picture_styles([[sight.webp for sight in scene.sights] for scene in scenes]),
        {"curves": len(bench.curves), "pictures": bench.pictures},
    )
