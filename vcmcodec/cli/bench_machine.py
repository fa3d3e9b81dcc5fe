"""`vcm bench analyze` and `vcm bench objects`: what seeing from base layers costs and keeps."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import click

from vcmcodec.cli import options


def _shared(command: Callable[..., Any]) -> Callable[..., Any]:
    """Options of both measurements."""
    for decorate in (
        click.option("-q", "--quiet", is_flag=True, help="No progress."),
        click.option("--threads", type=click.IntRange(1), default=2, show_default=True),
        click.option("--model", metavar="ID", help="Picture model.  [default: the installed one]"),
        click.option(
            "--base-quality",
            type=click.FloatRange(0, 100),
            help="Of the base layer.  [default: what the tasks need]",
        ),
    ):
        command = decorate(command)
    return options.figures_as_json(command)


@click.command("analyze", short_help="Time of seeing from a base layer, and from a JPEG.")
@click.argument("picture", required=False, type=click.Path(exists=True, path_type=Path))
@click.option("--repeats", type=click.IntRange(1), default=15, show_default=True)
@_shared
def analyze_command(
    *,
    picture: Path | None,
    repeats: int,
    base_quality: float | None,
    model: str | None,
    threads: int,
    json_target: str | None,
    quiet: bool,
) -> None:
    """Time of seeing from a base layer, beside decoding a JPEG of the same picture and looking.

    PICTURE defaults to a photograph of 500x375; of a folder, its first picture is taken.
    """
    from vcmcodec.cli import bench
    from vcmcodec.evaluation import analyze_speed, corpora

    named = corpora.picture_or_photo(picture, 500, 375)
    with bench.telling(quiet) as progress:
        result = analyze_speed.run(
            named,
            threads=threads,
            repeats=repeats,
            base_quality=base_quality,
            model=model,
            progress=progress,
        )
    bench.finish({"analyze": result}, analyze_speed.tables(result), json_target)


@click.command("objects", short_help="What files without background keep, and weigh.")
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
    "--groups",
    type=click.Choice(["labels", "auto"]),
    default="labels",
    show_default=True,
    help="Groups are the true boxes, or what the vision network finds.",
)
@click.option(
    "--margin",
    type=click.FloatRange(0),
    default=0.0,
    show_default=True,
    help="Pixels by which boxes grow on each side.",
)
@click.option("--together", is_flag=True, help="One group for all objects of a picture.")
@click.option(
    "--effort",
    type=click.IntRange(0, 1000),
    metavar="LOOKS",
    help="How often the network looks while base layers are adapted to it, all groups together; 0:"
    " never, as `vcm encode --groups` does unasked.  [default: the tasks model's]",
)
@_shared
def objects_command(
    labels: Path,
    *,
    folder: Path | None,
    limit: int | None,
    threads: int,
    json_target: str | None,
    quiet: bool,
    **asked: Any,
) -> None:
    r"""What files without background keep of detection, and what they weigh.

    LABELS.json is a COCO label file; annotations may be `difficult`.

    \b
      vcm bench objects voc-val.json
      vcm bench objects my-labels.json --files photos/ --groups auto --margin 16
    """
    from vcmcodec.cli import bench
    from vcmcodec.evaluation import objects_only
    from vcmcodec.evaluation.labelled import LabelledSet
    from vcmcodec.evaluation.timing import torch_threads

    labelled = LabelledSet(labels, folder, limit)
    settings = objects_only.ObjectsOnlySettings(**asked)
    with bench.telling(quiet) as progress, torch_threads(threads):
        result = objects_only.run(labelled, settings, threads=threads, progress=progress)
    bench.finish({"objects_only": result}, objects_only.tables(result), json_target)
