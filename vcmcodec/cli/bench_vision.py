"""`vcm bench vision`: how well and how fast vision networks see labelled pictures."""

from __future__ import annotations

import io
from pathlib import Path
from typing import Any

import click

from vcmcodec.cli import files, options, show


@click.command("vision", short_help="How well vision networks see labelled pictures.")
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
    "--model",
    "models",
    multiple=True,
    metavar="ID|FILE",
    help="Networks to measure, as `vcm analyze --model` takes them.  [default: the installed one]",
)
@click.option("--size", type=click.IntRange(32), help="Input size of these networks, pixels.")
@click.option(
    "--teachers",
    type=click.Path(exists=True, file_okay=False, path_type=Path),
    help="Folder of teachers and judges with taps.py, measured beside.",
)
@click.option("--no-speed", is_flag=True, help="Leave out the times.")
@click.option("--sheet", type=options.Result(".png", ".jpg", ".jpeg", ".webp"),
              help="Write the 24 worst pictures of the first network as one picture.")  # fmt: skip
@click.option("--threads", type=click.IntRange(1), default=2, show_default=True,
              help="Speed is measured at one thread of torch and at so many.")  # fmt: skip
@options.figures_as_json
@click.option("-q", "--quiet", is_flag=True, help="No progress.")
def command(
    labels: Path,
    *,
    folder: Path | None,
    limit: int | None,
    models: tuple[str, ...],
    size: int | None,
    teachers: Path | None,
    no_speed: bool,
    sheet: Path | None,
    threads: int,
    json_target: str | None,
    quiet: bool,
) -> None:
    r"""How well and how fast vision networks see labelled pictures.

    LABELS.json is a COCO label file; annotations may be `difficult`, images may name a class
    `mask`.

    \b
      vcm bench vision voc-val.json --teachers teachers/ --sheet worst.png
      vcm bench vision my-labels.json --files photos/ --model detector.onnx
    """
    from vcmcodec.cli import bench
    from vcmcodec.evaluation import vision_bench
    from vcmcodec.evaluation.labelled import LabelledSet
    from vcmcodec.evaluation.timing import torch_threads
    from vcmcodec.vision.backend import open_backend

    labelled = LabelledSet(labels, folder, limit)
    backends: list[Any] = [
        (Path(name).stem if name else "ours", open_backend(name, longer_side=size))
        for name in models or (None,)
    ]
    if teachers is not None:
        backends += vision_bench.open_teachers(teachers)
    seen: list[Any] = []
    with bench.telling(quiet) as progress, torch_threads(threads):
        counts = () if no_speed else sorted({1, threads})
        result = vision_bench.run(
            labelled, backends, threads=counts, progress=progress, told=seen.append
        )
        if sheet is not None:
            progress("drawing the worst pictures")
            _write_sheet(labelled, seen[0], sheet)
            if not quiet:
                show.say(f"{sheet}: the 24 worst pictures; truth is white")
    bench.finish({"vision": result}, vision_bench.tables(result), json_target)


def _write_sheet(labelled: Any, found: Any, target: Path) -> None:
    from vcmcodec import pixels
    from vcmcodec.evaluation import failures

    out = io.BytesIO()
    sheet = failures.contact_sheet(labelled, found.predictions)
    pixels.save(sheet, out, target.suffix.removeprefix("."))
    files.write_whole(target, out.getvalue())
