"""A task bench as tables and as CSV; every table says what its figures are and rest on."""

from __future__ import annotations

import csv
import io
from collections.abc import Sequence
from dataclasses import replace

from vcmcodec.evaluation.report import MINUS, UNKNOWN, Table, environment_note
from vcmcodec.evaluation.task_bench import TaskBench, TaskPoint
from vcmcodec.evaluation.task_compare import Comparison, Estimate, Reach
from vcmcodec.evaluation.task_costs import Costs

TITLES = {"mAP50": "mAP50", "mAP": "mAP", "mIoU": "mIoU", "presence": "presence AP"}
MEANING = {
    "mAP50": (
        "mAP50, mAP: COCO's average precision, mean over classes, at overlap 0.5 and over 0.5 to "
        "0.95; difficult objects are neither hit nor miss."
    ),
    "mIoU": "mIoU: mean over classes, background included, of intersection over union of areas.",
    "presence": (
        "Presence AP: mean over classes of average precision of 'is it in the picture'; of a "
        "network that only detects, by the best score of a class's boxes."
    ),
}
_REACH_NOTE = (
    "Whole files, means over pictures, bits over the pixels of the original.  Read off a monotone "
    "curve through the points (isotonic, then PCHIP); 'at most' where the codec's smallest file is "
    "better already.  Of a codec's two sizes the cheaper counts."
)
_PAIR_NOTE = (
    "BD-rate: mean over the common range of accuracies of the difference of log rate, on bits a "
    "pixel; negative: fewer bits.  BD-accuracy: mean difference at equal rate.  Both with the "
    "better of a codec's sizes at each place.  Ratios: bytes of the first over bytes of the second "
    "so many points under uncompressed."
)
_LOSSLESS_NOTE = (
    "Ratio: the tensors that the tasks read at the split point, four bytes a value, over whole "
    "files.  Lost: relative to the result on uncompressed pictures, below zero where it is better; "
    "against own features where the codec brings a network of its own, whose results differ "
    "before anything is coded."
)
Cells = tuple[str, ...]


def tables(bench: TaskBench, costs: Costs | None = None) -> list[Table]:
    """What coming near costs, BD figures, and all points; the last one carries the run's facts.

    Between them what both sides pay, where it was measured, and the highest setting of features.
    """
    beside = _beside(bench, costs)
    return [_reach_table(bench), _comparison_table(bench), *beside, _points_table(bench)]


def profile_tables(bench: TaskBench, costs: Costs) -> list[Table]:
    """One row a codec, for who chooses between profiles; the last one carries the run's facts."""
    *before, last = _beside(bench, costs)
    return [*before, replace(last, notes=(*last.notes, *_meanings(bench), *facts(bench)))]


def _beside(bench: TaskBench, costs: Costs | None) -> list[Table]:
    found = [] if costs is None else [_cost_table(bench, costs)]
    return found + ([_lossless_table(bench)] if bench.near_lossless else [])


def metrics_of(bench: TaskBench) -> tuple[str, ...]:
    """Metrics that were scored, in their usual order."""
    return tuple(bench.uncompressed.scores)


def span(estimate: Estimate | None, form: str) -> str:
    """A figure with its interval, "1.2 [0.9, 1.5]"; "n/a" where there is none."""
    if estimate is None:
        return UNKNOWN
    text = format(estimate.value, form)
    if estimate.low is None or estimate.high is None:
        return text
    return f"{text} [{estimate.low:{form}}, {estimate.high:{form}}]"


def title_of(bench: TaskBench) -> str:
    """Set and size in a few words."""
    masks = f", {bench.masks} with areas" if bench.masks else ""
    return f"{bench.set_name}: {bench.pictures} pictures{masks}"


def facts(bench: TaskBench) -> tuple[str, ...]:
    """One line for each thing that the figures rest on."""
    lines = [f"Judge: {bench.judge}."]
    lines.append(f"Classes ({len(bench.labels)}): {', '.join(bench.labels)}.")
    if bench.unknown:
        lines.append(f"Left out, unknown to the network: {', '.join(bench.unknown)}.")
    lines += [f"Not measured: {reason}." for reason in bench.missing]
    for codec in dict.fromkeys(curve.codec for curve in bench.curves):
        own = [curve for curve in bench.curves if curve.codec == codec]
        settings = ", ".join(f"{value:g}" for value in sorted(p.setting for p in own[0].points))
        version = bench.versions.get(codec)
        lines.append(
            f"{codec}: {own[0].description}; settings {settings}; "
            f"{' and '.join(curve.variant for curve in own)}{'; ' + version if version else ''}."
        )
    lines.append(
        f"Intervals: 95 %, {bench.resamples} bootstrap draws of pictures, the same for all codecs; "
        f"{bench.jobs} {'processes' if bench.jobs > 1 else 'process'}."
    )
    lines.append(environment_note(bench.environment))
    return tuple(lines)


def _reach_table(bench: TaskBench) -> Table:
    whole = {metric: bench.uncompressed.scores[metric].value for metric in metrics_of(bench)}
    return Table(
        f"Bytes a picture for accuracy near uncompressed; {title_of(bench)}",
        (
            "at",
            "codec",
            "bytes",
            "bits a pixel",
            "cheaper size",
            "cheapest setting run",
            "its bytes",
        ),
        tuple(
            (f"{TITLES[one.metric]} {whole[one.metric]:.1f} - {one.within:g}", *_reach_cells(one))
            for one in bench.reaches
        ),
        (_REACH_NOTE,),
    )


def _reach_cells(one: Reach) -> tuple[str, ...]:
    if one.num_bytes is None:
        rates = ("never", "never")
    else:
        lead = "at most " if one.at_most else ""
        rates = (lead + span(one.num_bytes, ",.0f"), lead + span(one.bpp, ".4f"))
    setting = UNKNOWN if one.setting is None else f"{one.setting:g}"
    paid = UNKNOWN if one.setting_bytes is None else f"{one.setting_bytes:,.0f}"
    return one.codec, *rates, one.variant or UNKNOWN, setting, paid


def _comparison_table(bench: TaskBench) -> Table:
    within = [ratio.within for ratio in bench.comparisons[0].ratios] if bench.comparisons else []
    return Table(
        "At equal accuracy",
        (
            "pair", "metric", "BD-rate, %", "BD-accuracy, points",
            *(f"bytes, ratio at -{points:g}" for points in within), "compared between",
        ),
        tuple(_comparison_cells(one) for one in bench.comparisons),
        (_PAIR_NOTE,),
    )  # fmt: skip


def _comparison_cells(one: Comparison) -> tuple[str, ...]:
    between = one.reason or UNKNOWN
    if one.low is not None and one.high is not None and one.anchor_share is not None:
        between = f"{one.low:.1f}-{one.high:.1f} ({100 * one.anchor_share:.0f} % of the anchor's)"
    return (
        f"{one.test} against {one.anchor}",
        TITLES[one.metric],
        span(one.rate, "+.1f"),
        span(one.accuracy, "+.2f"),
        *(span(ratio.bytes, ".2f") for ratio in one.ratios),
        between,
    )


def _cost_table(bench: TaskBench, costs: Costs) -> Table:
    metrics = metrics_of(bench)

    def row(start: Cells, point: TaskPoint, paid: Cells) -> Cells:
        scores = (f"{point.scores[m].value:.1f}" for m in metrics)
        return *start, f"{point.num_bytes:,.0f}", f"{point.bpp:.4f}", *scores, *paid

    looking = (MINUS, MINUS, f"{costs.uncompressed.median_ms:.0f}")
    rows = [row(("uncompressed", "as given", MINUS, MINUS), bench.uncompressed, looking)]
    for one in costs.codecs:
        at = one.at
        paid = (
            MINUS if one.edge_kmacs is None else f"{one.edge_kmacs:.2f}",
            f"{one.edge.median_ms:.0f}",
            f"{one.server.median_ms:.0f}",
        )
        start = (at.codec, at.variant, f"{at.point.setting:g}", "yes" if at.near else "never")
        rows.append(row(start, at.point, paid))
    near = f"within {costs.within:g} of {TITLES[costs.metric]}"
    return Table(
        f"Bytes, accuracy, and what edge and server pay; {title_of(bench)}",
        ("codec", "coded", "setting", near, "bytes", "bits a pixel", *(TITLES[m] for m in metrics),
         "edge kMAC a pixel", "edge ms", "server ms"),
        tuple(rows),
        (_cost_note(bench, costs),),
    )  # fmt: skip


def _cost_note(bench: TaskBench, costs: Costs) -> str:
    threads = bench.environment.threads
    return (
        f"Each codec at its cheapest setting within {costs.within:g} points of uncompressed on "
        f"{TITLES[costs.metric]}, or where none is, at its most accurate.  Edge: pixels in memory "
        "to the file, with the network up to the split point where features are coded; server: "
        "the file to results, of JPEG and others the decoder and the whole network.  kMAC: "
        "thousands of multiply-accumulates a pixel of the picture, convolutions and matrix "
        f"products that ran.  Medians over {', '.join(costs.pictures)}, {costs.repeats} rounds "
        f"each, codecs in turns, {threads} {'threads' if threads > 1 else 'thread'}."
    )


def _lossless_table(bench: TaskBench) -> Table:
    metrics = metrics_of(bench)
    rows = []
    for one in bench.near_lossless:
        start = (
            one.codec, f"{one.setting:g}", f"{one.num_bytes:,.0f}", f"{one.raw_bytes:,.0f}",
            span(one.ratio, ",.0f"),
        )  # fmt: skip
        rows.append((*start, "pictures", *(span(one.losses[m], "+.1f") for m in metrics)))
        if one.coding_losses != one.losses:
            own = (span(one.coding_losses[m], "+.1f") for m in metrics)
            rows.append((*start, "own features", *own))
    return Table(
        f"Features at the highest setting; {title_of(bench)}",
        ("codec", "setting", "bytes", "bytes as float32", "ratio", "against uncompressed",
         *(f"{TITLES[m]} lost, %" for m in metrics)),
        tuple(rows),
        (_LOSSLESS_NOTE,),
    )  # fmt: skip


def _meanings(bench: TaskBench) -> list[str]:
    return [MEANING[m] for m in metrics_of(bench) if m in MEANING]


def _points_table(bench: TaskBench) -> Table:
    metrics = metrics_of(bench)

    def row(codec: str, variant: str, point: TaskPoint, setting: str) -> tuple[str, ...]:
        scores = (span(point.scores[m], ".1f") for m in metrics)
        return (
            codec, variant, setting, f"{point.num_bytes:,.0f}", f"{point.bpp:.4f}", *scores
        )  # fmt: skip

    rows = [row("uncompressed", "as given", bench.uncompressed, "-")]
    for curve in bench.curves:
        rows += [row(curve.codec, curve.variant, p, f"{p.setting:g}") for p in curve.points]
    return Table(
        f"Points; {title_of(bench)}",
        ("codec", "coded", "setting", "bytes", "bits a pixel", *(TITLES[m] for m in metrics)),
        tuple(rows),
        (*_meanings(bench), *facts(bench)),
    )


def csv_text(bench: TaskBench) -> str:
    """Every point as a line: codec, variant, setting, bytes, bits a pixel, scores, intervals."""
    metrics = metrics_of(bench)
    sink = io.StringIO()
    writer = csv.writer(sink, lineterminator="\n")
    head = ["codec", "variant", "setting", "pictures", "judge", "bytes", "bpp"]
    writer.writerow(head + [m + end for m in metrics for end in ("", "_low", "_high")])

    def cells(point: TaskPoint) -> list[str]:
        return [_plain(v) for m in metrics for v in _three(point.scores[m])]

    def line(codec: str, variant: str, point: TaskPoint) -> Sequence[str]:
        return [
            codec, variant, f"{point.setting:g}", str(bench.pictures), bench.judge,
            f"{point.num_bytes:.2f}", f"{point.bpp:.6f}", *cells(point),
        ]  # fmt: skip

    writer.writerow(line("uncompressed", "as given", bench.uncompressed))
    for curve in bench.curves:
        for point in curve.points:
            writer.writerow(line(curve.codec, curve.variant, point))
    return sink.getvalue()


def _three(estimate: Estimate) -> tuple[float | None, float | None, float | None]:
    return estimate.value, estimate.low, estimate.high


def _plain(value: float | None) -> str:
    return "" if value is None else f"{value:.4f}"
