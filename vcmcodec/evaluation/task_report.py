"""A task bench as tables and as CSV; every table says what its figures are and rest on."""

from __future__ import annotations

import csv
import io
from collections.abc import Sequence

from vcmcodec.evaluation.report import UNKNOWN, Table, environment_note
from vcmcodec.evaluation.task_bench import TaskBench, TaskPoint
from vcmcodec.evaluation.task_compare import Comparison, Estimate, Reach

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


def tables(bench: TaskBench) -> list[Table]:
    """What coming near costs, BD figures, and all points; the last one carries the run's facts."""
    return [_reach_table(bench), _comparison_table(bench), _points_table(bench)]


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
    meanings = [MEANING[m] for m in metrics if m in MEANING]
    return Table(
        f"Points; {title_of(bench)}",
        ("codec", "coded", "setting", "bytes", "bits a pixel", *(TITLES[m] for m in metrics)),
        tuple(rows),
        (*meanings, *facts(bench)),
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
