"""`vcm bench tasks`: how well machines see at what rate, ours beside other codecs."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from vcmcodec import catalogue
from vcmcodec.cli import files, options
from vcmcodec.errors import OutputError

if TYPE_CHECKING:
    from vcmcodec.evaluation.labelled import LabelledSet
    from vcmcodec.evaluation.task_bench import TaskBench
    from vcmcodec.evaluation.task_costs import Costs
    from vcmcodec.evaluation.task_lineup import Plan

_RESULT = options.Result()
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
    *("vcm-base", "vcm-base-plain", *_FEATURES),
    *("vcm-preview", "vcm-preview-adapted", "vcm-picture"),
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
@click.option("--model", metavar="ID", help="Name of our model.  [default: the profile's]")
@click.option(
    "--base-quality",
    type=options.Numbers(),
    help="Ladder of our base layer and features, 0 to 100.",
)
@click.option(
    "--base-sides",
    type=options.Numbers(),
    help="Pixels to which pictures are reduced for our base layer; 0 for not at all."
    "  [default: 0 and what the tasks model asks for]",
)
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
@click.option("--costs", type=click.IntRange(0), default=3, show_default=True,
              help="Pictures on which both sides of each codec are timed; 0 for none.")  # fmt: skip
@click.option("--no-cache", is_flag=True, help="Neither use nor keep what was measured before.")
@click.option("--csv", "csv_target", type=_RESULT, help="Write every point as a line.")
@click.option("--markdown", type=_RESULT, help="Write one row a codec with its costs; into a page"
              " that has a place for tables, there (docs/profiles.md).")  # fmt: skip
@click.option("--html", type=_RESULT, help="Write a page with curves, figures and detections.")
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
    markdown: Path | None,
    json_target: str | None,
    quiet: bool,
    **asked: Any,
) -> None:
    r"""Rate against accuracy of machine tasks on labelled pictures.

    Each codec's files are decoded and shown to one vision network; of our base layer the results
    come straight from the file.  Codecs of pictures are run twice: at full size, and first reduced
    to the size at which the network looks; the better one at each accuracy is compared.

    LABELS.json is a COCO label file; classes are matched by name.  What other codecs reached is
    kept in the user's cache.  What edge and server pay is timed at the end, with nothing from the
    cache, at each codec's cheapest setting within the largest of --within.

    \b
      vcm bench tasks voc-val.json --json tasks.json --html tasks.html
      vcm bench tasks my-labels.json --files photos/ --limit 50 --codecs vcm-base,avif
      vcm bench tasks voc-val.json --judge yolov8s.onnx --tasks detection
      vcm bench tasks voc-val.json --codecs vcm-base,vcm-pyramid,jpeg,avif --markdown table.md
    """
    from vcmcodec.cli import bench
    from vcmcodec.evaluation import task_bench, task_costs, task_report
    from vcmcodec.evaluation.labelled import LabelledSet

    if markdown is not None:
        if not asked["costs"]:
            raise click.UsageError("--markdown is a table of costs: --costs must not be 0")
        _fill("", markdown)  # refused now, not after an hour
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
        costs = None
        if asked["costs"]:
            near, limit = max(asked["within"]), asked["costs"]
            costs = task_costs.run(
                labelled, plan(), result, within=near, limit=limit, progress=progress
            )
        if asked["html"] is not None:
            _page(result, costs, labelled, plan, asked, progress)
    if markdown is not None and costs is not None:
        _write_tables(result, costs, markdown)
    bench.finish({"tasks": result, "costs": costs}, task_report.tables(result, costs), json_target)


def _plan(asked: dict[str, Any]) -> Plan:
    from vcmcodec.evaluation.prediction_cache import default_path
    from vcmcodec.evaluation.task_lineup import Plan

    names = None
    if asked["judge_labels"] is not None:
        names = options.class_names(asked["judge_labels"], "--judge-labels")
    sides = asked["base_sides"]
    return Plan(
        asked["codecs"],
        judge=asked["judge"],
        judge_labels=names,
        tasks=asked["tasks"],
        base_ladder=asked["base_quality"],
        base_sides=None if sides is None else tuple(int(side) for side in sides),
        model=asked["model"],
        threads=asked["threads"],
        cache=None if asked["no_cache"] else default_path(),
    )


def _page(
    result: TaskBench, costs: Costs | None, labelled: LabelledSet, plan: Plan,
    asked: dict[str, Any], progress: Any,
) -> None:  # fmt: skip
    from vcmcodec.evaluation import task_gallery, task_page

    limit = asked["html_pictures"]
    exhibits = task_gallery.collect(labelled, plan(), result, limit=limit, progress=progress)
    text = task_page.html_page(result, exhibits, costs)
    files.write_whole(asked["html"], text.encode("utf-8"))


def _write_tables(result: TaskBench, costs: Costs, target: Path) -> None:
    from vcmcodec.evaluation.markdown import markdown_text
    from vcmcodec.evaluation.task_report import profile_tables

    text = markdown_text(profile_tables(result, costs))
    files.write_whole(target, _fill(text, target).encode("utf-8"))


def _fill(text: str, target: Path) -> str:
    """What a file of tables is to hold: `text`, within the page that is there if there is one.

    Raises:
        RequestError: the page has no place for tables.
        OutputError: it cannot be read.
    """
    from vcmcodec.evaluation import markdown

    if not target.is_file():  # nothing there yet, or a device
        return text
    try:
        page = target.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise OutputError(f"{target}: {error}") from error
    return markdown.insert(text, page)
