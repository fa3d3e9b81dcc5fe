"""`vcm analyze`: what a machine sees in pictures."""

from __future__ import annotations

import io
import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from vcmcodec.bitstream.limits import Limits
from vcmcodec.cli import batch, files, options, show

if TYPE_CHECKING:
    from vcmcodec.vision.backend import Backend
    from vcmcodec.vision.predictions import Predictions

TASKS = ("detection", "classification", "segmentation")
BARS = 20  # characters of a bar that stands for 100 %


@dataclass(frozen=True)
class Finding:
    """What was found in one picture, and the pictures that were made of it, as PNG bytes."""

    predictions: Predictions
    mask: bytes | None
    drawing: bytes | None


@dataclass(frozen=True)
class Settings:
    """What one run of `vcm analyze` asks for."""

    task: str
    score: float
    model: str | None
    size: int | None
    labels: tuple[str, ...] | None
    outputs: tuple[tuple[str, str], ...] | None
    device: str
    limits: Limits

    @property
    def tasks(self) -> tuple[str, ...]:
        """Names of the tasks that are run."""
        return TASKS if self.task == "all" else (self.task,)


@dataclass(frozen=True)
class Outputs:
    """Where one picture's mask and drawing go; None where they are not asked for."""

    mask: Path | None = None
    drawing: Path | None = None


class Analysis:
    """Looks at inputs one by one and tells of each."""

    def __init__(
        self, settings: Settings, outputs: dict[str, Outputs], style: batch.Style, coco: str | None
    ) -> None:
        self._settings, self._outputs, self._style = settings, outputs, style
        self._coco = coco
        self._backend: Backend | None = None
        self.images: list[dict[str, Any]] = []
        self.results: list[dict[str, Any]] = []

    @property
    def backend(self) -> Backend:
        """The network, loaded when it is first needed."""
        if self._backend is None:
            from vcmcodec.vision.backend import open_backend

            asked = self._settings
            self._backend = open_backend(
                asked.model,
                device=asked.device,
                longer_side=asked.size,
                labels=asked.labels,
                outputs=None if asked.outputs is None else dict(asked.outputs),
            )
        return self._backend

    def look(self, source: str | bytes, outputs: Outputs) -> Finding:
        """Analyze one picture, a path or the bytes of its file."""
        from vcmcodec import pixels
        from vcmcodec.vision import drawing

        picture = pixels.read(source, self._settings.limits)
        tasks = [task for task in self._settings.tasks if task in self.backend.tasks]
        if not tasks:
            from vcmcodec.errors import RequestError

            able = ", ".join(self.backend.tasks)
            raise RequestError(f"this network does not do {self._settings.task}; it does {able}")
        found = self.backend.predict(picture.rgb, tasks, self._settings.score)
        mask = drawn = None
        if outputs.mask is not None and found.label_map is not None:
            mask = _png(drawing.mask_image(found.label_map))
        if outputs.drawing is not None:
            drawn = _png(drawing.draw(picture.rgb, found, self.backend.labels))
        return Finding(found, mask, drawn)

    def run(self, inputs: list[files.Input]) -> int:
        """Analyze all inputs; returns the exit code."""
        code = 0
        batch.start_worker(self._style.threads)
        with show.progress(len(inputs), "analyzed", self._style.quiet) as bar:
            for each in inputs:
                outputs = self._outputs.get(each.name, Outputs())
                outcome = batch.attempt(self._work(each, outputs), b"")
                if isinstance(outcome, batch.Failure):
                    batch.fail(each.name, outcome, self._style)
                    code = 1
                bar.advance()
        if self._coco is not None:
            self._write_coco(self._coco)
        return code

    def _work(self, each: files.Input, outputs: Outputs) -> Callable[[str | bytes], None]:
        return lambda _: self._one(each, outputs)

    def _one(self, each: files.Input, outputs: Outputs) -> None:
        finding = self.look(each.source(), outputs)
        for target, data in ((outputs.mask, finding.mask), (outputs.drawing, finding.drawing)):
            if target is not None and data is not None:
                files.write_whole(target, data)
        if self._coco is not None:
            self._collect(each, finding.predictions)
        if self._style.json:
            show.json_line(finding.predictions.to_json(each.name, self._settings.task))
        elif not self._style.quiet:
            tell(each.name, finding.predictions, self._settings.score)

    def _collect(self, each: files.Input, found: Predictions) -> None:
        from vcmcodec.vision.predictions import to_coco

        number = len(self.images) + 1
        self.images.append(
            {"id": number, "file_name": each.name, "width": found.width, "height": found.height}
        )
        self.results += to_coco([found], [number], self.backend.labels)

    def _write_coco(self, target: str) -> None:
        """A COCO data set whose annotations have scores: readable as labels and as results."""
        labels = self.backend.labels if self.images else ()
        whole = {
            "images": self.images,
            "categories": [{"id": i, "name": name} for i, name in enumerate(labels, start=1)],
            "annotations": [
                {"id": i, "iscrowd": 0, "area": r["bbox"][2] * r["bbox"][3], **r}
                for i, r in enumerate(self.results, start=1)
            ],
        }
        data = (json.dumps(whole) + "\n").encode()
        files.write_result(None if target == files.STANDARD else Path(target), data)


def tell(name: str, found: Predictions, score: float) -> None:
    """Print a table of everything that was found in one picture."""
    from rich.table import Table

    table = Table(
        title=show.printable(f"{name}  {found.width} x {found.height}"),
        title_justify="left",
        box=None,
        pad_edge=False,
    )
    for column in ("what", "label", "score", "", "where (x, y, width, height)"):
        table.add_column(column)
    for thing in found.objects or ():
        box = ", ".join(f"{v:.0f}" for v in thing.box)
        table.add_row("object", thing.label, f"{100 * thing.score:.0f} %", _bar(thing.score), box)
    shown = [c for c in found.classes or () if c.score >= score] or list(found.classes or ())[:1]
    for item in shown:
        table.add_row("class", item.label, f"{100 * item.score:.0f} %", _bar(item.score))
    if found.label_map is not None:
        for label, part in found.label_map.areas().items():
            table.add_row("area", label, f"{100 * part:.1f} %", _bar(part), "of the picture")
    if not table.row_count:
        table.add_row("nothing", f"of a score of {score:g} or more")
    show.rich_print(table)


def _bar(part: float) -> str:
    return "━" * round(BARS * part)


def _png(image: Any) -> bytes:
    out = io.BytesIO()
    image.save(out, "PNG")
    return out.getvalue()


def _pairs(given: tuple[str, ...] | None) -> tuple[tuple[str, str], ...] | None:
    if given is None:
        return None
    for pair in given:
        if "=" not in pair:
            raise click.BadParameter(f"{pair!r} is not KEY=NAME", param_hint="--outputs")
    return tuple((pair.partition("=")[0], pair.partition("=")[2]) for pair in given)


def _targets(
    found: list[files.Input], inputs: tuple[str, ...], mask: str | None, draw: str | None
) -> dict[str, Outputs]:
    planned: dict[str, dict[str, Path | None]] = {each.name: {} for each in found}
    for name, output in (("mask", mask), ("drawing", draw)):
        if output == files.STANDARD:
            raise click.UsageError("masks and drawings go to files, not to standard output")
        if output is not None:
            for job in files.plan(found, inputs, output, ".png"):
                planned[job.input.name][name] = job.target
    clashes = [p for p in planned.values() if len(p) == 2 and p["mask"] == p["drawing"]]
    if clashes:
        raise click.UsageError("--mask and --draw would write to the same file")
    return {name: Outputs(**paths) for name, paths in planned.items()}


@click.command("analyze", short_help="Say what is in pictures: objects, classes, areas.")
@options.inputs("PICTURE|DIR|-...")
@click.option(
    "-t",
    "--task",
    type=click.Choice([*TASKS, "all"]),
    default="all",
    show_default=True,
    help="What to look for.",
)
@click.option(
    "--score",
    type=click.FloatRange(0, 1),
    default=0.3,
    show_default=True,
    help="Leave out objects below this score.",
)
@click.option(
    "--mask",
    metavar="FILE|DIR/",
    help="Write the areas as a palette PNG: pixel value 0 is background, 1 and up are classes.",
)
@click.option("--draw", metavar="FILE|DIR/", help="Write the picture with everything drawn on it.")
@click.option(
    "--coco", metavar="FILE", help="Write all objects of all pictures as one COCO JSON file."
)
@click.option(
    "--model",
    metavar="ID|FILE",
    help="Another network: one of `vcm models`, a .safetensors or .onnx file, or"
    " torchvision:NAME=FILE with your own weights (=download lets torchvision fetch its own)."
    "  [default: the one that is installed]",
)
@click.option(
    "--size",
    type=click.IntRange(32, 4096),
    help="Longer side that the network looks at, in pixels.  [default: the model's own]",
)
@click.option(
    "--labels",
    type=click.Path(exists=True, dir_okay=False, path_type=Path),
    help="Class names of an .onnx file, one a line.",
)
@click.option(
    "--outputs",
    type=options.CommaList(),
    metavar="KEY=NAME,...",
    help="What the outputs of an .onnx file are: boxes=A,scores=B,labels=C or logits=A;"
    " layout=cxcywh for boxes by centre and size.  [default: guessed]",
)
@click.option("--device", default="cpu", show_default=True, help="cpu, cuda, cuda:1, ...")
@click.option("--threads", type=click.IntRange(1), help="Threads of torch.  [default: all]")
@options.recursive
@options.limits("max_pixels")
@options.as_json
@options.loudness
def command(
    inputs: tuple[str, ...],
    *,
    recursive: bool,
    max_pixels: int,
    mask: str | None,
    draw: str | None,
    coco: str | None,
    labels: Path | None,
    outputs: tuple[str, ...] | None,
    **given: Any,
) -> int:
    r"""Say what is in pictures: objects, classes, areas.

    \b
      vcm analyze street.jpg
      vcm analyze photos/ --task detection --score 0.5 --json > found.jsonl
      vcm analyze street.jpg --draw seen.png --mask areas.png
    """
    from vcmcodec import pixels

    if given["as_json"] and coco == files.STANDARD:
        raise click.UsageError("standard output takes --json or --coco -, not both")
    if mask is not None and given["task"] not in ("segmentation", "all"):
        raise click.UsageError("--mask needs --task segmentation or all")
    if coco is not None and given["task"] not in ("detection", "all"):
        raise click.UsageError("--coco needs --task detection or all")
    names = None
    if labels is not None:
        names = tuple(line.strip() for line in labels.read_text().splitlines() if line.strip())
    settings = Settings(
        limits=Limits(max_pixels=max_pixels),
        labels=names,
        outputs=_pairs(outputs),
        **{key: given[key] for key in ("task", "score", "model", "size", "device")},
    )
    style = batch.Style(
        what="analyzed",
        threads=given["threads"],
        json=given["as_json"],
        quiet=given["quiet"] or coco == files.STANDARD,
        verbose=given["verbose"],
    )
    found = files.gather(inputs, pixels.READ_EXTENSIONS, recursive)
    return Analysis(settings, _targets(found, inputs, mask, draw), style, coco).run(found)
