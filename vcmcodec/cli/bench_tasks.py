"""`vcm bench tasks`: how well machines see at what rate, ours beside other codecs."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from vcmcodec import catalogue
from vcmcodec.cli import files, options

if TYPE_CHECKING:
    from vcmcodec.evaluation.labelled import LabelledSet
    from vcmcodec.evaluation.task_lineup import Plan

_FILE = click.Path(dir_okay=False, path_type=Path)
_METRICS = {
    "detection": ("mAP50", "mAP"),
    "segmentation": ("mIoU",),
    "classification": ("presence",),
}
# As in evaluation.task_codecs, which is not imported for `--help`; a test compares them.
_FEATURES = tuple(
    f"vcm-{variant}"
    for spec in catalogue.PROFILES
    if spec.source == "features"
    for variant in spec.variants
)
CODECS = (
    *("vcm-base", *_FEATURES, "vcm-preview", "vcm-picture"),
    *("jpeg", "webp", "avif", "jxl", "hevc"),
)


@click.command("tasks", short_help="Rate against accuracy of detection, areas, presence.")
@click.argument(
    "labels", metavar="LABELS.json", type=click.Path(exists=True, dir_okay=False, path_type=Path)
)
@click.option(
    "--files",
    "folder",
    type=click.Path(exists=True, file_okay=False, path_type=Path),
    help="Where the pictures (or the tars that the labels name) are.  [default: beside the labels]",
)
@click.option("--limit", type=click.IntRange(1), help="Only so many pictures, evenly spread.")
@click.option(
    "--codecs",
    type=options.Names(CODECS),
    default=",".join(CODECS),
    help="What is measured.  [default: all that can be run here]",
)
@click.option(
    "--tasks",
    type=options.Names(tuple(_METRICS)),
    help="What is scored.  [default: all that labels and network allow]",
)
@click.option(
    "--judge",
    metavar="ID|FILE",
    help="Another network for everyone's decoded pixels, as `vcm analyze --model` takes it, or a"
    " .pth file beside taps.py.  [default: the reference network]",
)
@click.option(
    "--judge-labels",
    type=click.Path(exists=True, dir_okay=False, path_type=Path),
    help="Class names of an .onnx file, one a line.",
)
@click.option("--model", help="Name of our model.  [default: the profile's]")
@click.option("--base-quality", type=options.Numbers(), help="Ladder of our base layer, 0 to 100.")
@click.option(
    "--within",
    type=options.Numbers(),
    default="1,3,5",
    show_default=True,
    help="Points under the uncompressed result at which bytes are compared.",
)
@click.option("--resamples", type=click.IntRange(0), default=200, show_default=True,
              help="Bootstrap draws behind each interval.")  # fmt: skip
@click.option("-j", "--jobs", type=click.IntRange(1), default=1, show_default=True,
              help="Pictures done at once, each in a process of its own.")  # fmt: skip
@click.option("--threads", type=click.IntRange(1), default=2, show_default=True,
              help="Threads of each process.")  # fmt: skip
@click.option("--no-cache", is_flag=True, help="Neither use nor keep what was measured before.")
@click.option("--csv", "csv_target", type=_FILE, help="Write every point as a line.")
@click.option("--html", type=_FILE, help="Write a page with curves, figures and detections.")
@click.option("--html-pictures", type=click.IntRange(0), default=3, show_default=True,
              help="Pictures on the page.")  # fmt: skip
@options.figures_as_json
@click.option("-q", "--quiet", is_flag=True, help="No progress.")
def command(
    labels: Path,
    *,
    folder: Path | None,
    limit: int | None,
    csv_target: Path | None,
    html: Path | None,
    html_pictures: int,
    json_target: str | None,
    quiet: bool,
    **asked: Any,
) -> None:
    r"""Rate against accuracy of machine tasks on labelled pictures.

    Each codec's files are decoded and shown to one vision network; of our base layer the results
    come straight from the file.  Other codecs are run twice: at full size, and first reduced to
    the size at which the network looks; the better one at each accuracy is compared.  LABELS.json
    is a COCO label file; classes are matched by name.  What other codecs reached is kept in the
    user's cache.

    \b
      vcm bench tasks voc-val.json --json tasks.json --html tasks.html
      vcm bench tasks my-labels.json --files photos/ --limit 50 --codecs vcm-base,avif
      vcm bench tasks voc-val.json --judge yolov8s.onnx --tasks detection
    """
    from vcmcodec.cli import bench
    from vcmcodec.evaluation import task_bench, task_report
    from vcmcodec.evaluation.labelled import LabelledSet

    labelled = LabelledSet(labels, folder, limit)
    plan = _plan(asked)
    wanted = [metric for task in asked["tasks"] or _METRICS for metric in _METRICS[task]]
    with bench.telling(quiet) as progress:
        result = task_bench.run(
            labelled,
            plan,
            metrics=wanted,
            within=asked["within"],
            resamples=asked["resamples"],
            jobs=asked["jobs"],
            threads=asked["threads"],
            progress=progress,
        )
        if csv_target is not None:
            files.write_whole(csv_target, task_report.csv_text(result).encode("utf-8"))
        if html is not None:
            _page(result, labelled, plan, html, html_pictures, progress)
    bench.finish({"tasks": result}, task_report.tables(result), json_target)


def _plan(asked: dict[str, Any]) -> Plan:
    from vcmcodec.evaluation.prediction_cache import default_path
    from vcmcodec.evaluation.task_lineup import Plan

    names = None
    if asked["judge_labels"] is not None:
        lines = asked["judge_labels"].read_text(encoding="utf-8").splitlines()
        names = tuple(line.strip() for line in lines if line.strip())
    return Plan(
        asked["codecs"],
        judge=asked["judge"],
        judge_labels=names,
        tasks=asked["tasks"],
        base_ladder=asked["base_quality"],
        model=asked["model"],
        threads=asked["threads"],
        cache=None if asked["no_cache"] else default_path(),
    )


def _page(
    result: Any, labelled: LabelledSet, plan: Plan, target: Path, limit: int, progress: Any
) -> None:
    from vcmcodec.evaluation import task_gallery, task_page

    exhibits = task_gallery.collect(labelled, plan(), result, limit=limit, progress=progress)
    files.write_whole(target, task_page.html_page(result, exhibits).encode("utf-8"))
