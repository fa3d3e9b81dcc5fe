"""`vcm analyze`: what a machine sees in pictures and `.vcm` files."""

from __future__ import annotations

import functools
import json
from pathlib import Path
from typing import Any

import click

from vcmcodec.cli import batch, files, findings, options, show
from vcmcodec.cli.findings import ALL, TASKS, Finding, Outputs, Settings
from vcmcodec.errors import RequestError


class Analysis:
    """Looks at inputs and tells of each."""

    def __init__(
        self, settings: Settings, outputs: dict[str, Outputs], style: batch.Style, coco: str | None
    ) -> None:
        self._settings, self._outputs, self._style = settings, outputs, style
        self._coco = coco
        self.images: list[dict[str, Any]] = []
        self.results: list[dict[str, Any]] = []
        self.labels: list[str] = []

    def run(self, inputs: list[files.Input]) -> int:
        """Analyze all inputs; returns the exit code."""
        if self._coco is not None and self._coco != files.STANDARD:
            files.check_writable(Path(self._coco))
        code = 0
        findings.backend.cache_clear()
        targets = [self._outputs.get(each.name, Outputs()) for each in inputs]
        pieces = [
            (each, functools.partial(findings.look, self._settings, outputs))
            for each, outputs in zip(inputs, targets, strict=True)
        ]
        found = batch.outcomes(pieces, self._style)
        with show.progress(len(inputs), "analyzed", self._style.quiet) as bar:
            for each, outputs, finding in zip(inputs, targets, found, strict=True):
                if not self._finish(each, outputs, finding):
                    code = 1
                bar.advance()
        if self._coco is not None:
            self._write_coco(self._coco)
        return code

    def _finish(
        self, each: files.Input, outputs: Outputs, outcome: Finding | batch.Failure
    ) -> bool:
        """Tell of an input; False where there are no results, or not all."""
        if not isinstance(outcome, batch.Failure):
            finding = outcome
            told = batch.attempt(lambda _: self._tell(each, outputs, finding), b"")
            if not isinstance(told, batch.Failure):
                return told
            outcome = told
        batch.fail(each.name, outcome, self._style, {"file": each.name})
        return False

    def _tell(self, each: files.Input, outputs: Outputs, finding: Finding) -> bool:
        """Write what was made of an input, and tell of it; False where something is missing."""
        for target, data in ((outputs.mask, finding.mask), (outputs.drawing, finding.drawing)):
            if target is not None and isinstance(data, bytes):
                files.write_whole(target, data)
        if self._coco is not None:
            self._collect(each, finding)
        if not self._style.quiet:
            for warning in finding.warnings:
                show.complain(f"warning: {warning}", each.name, colour="yellow")
        told = finding.predictions.to_json(each.name, self._settings.task) | finding.facts
        if not self._style.json and not self._style.quiet:
            findings.tell(each.name, finding.predictions, self._settings.score)
        missing = [m for m in (finding.mask, finding.drawing) if isinstance(m, batch.Failure)]
        if missing:
            whole = batch.Failure(missing[0].code, "; ".join(one.message for one in missing))
            batch.fail(each.name, whole, self._style, told)
            return False
        if self._style.json:
            show.json_line({"source": each.name} | told)
        return True

    def _collect(self, each: files.Input, finding: Finding) -> None:
        from vcmcodec.vision.predictions import to_coco

        found = finding.predictions
        # Two networks may know different classes: the later one's new ones go behind.
        self.labels += [label for label in finding.labels if label not in self.labels]
        number = len(self.images) + 1
        self.images.append(
            {"id": number, "file_name": each.name, "width": found.width, "height": found.height}
        )
        self.results += to_coco([found], [number], self.labels)

    def _write_coco(self, target: str) -> None:
        """A COCO data set whose annotations have scores: readable as labels and as results."""
        whole = {
            "images": self.images,
            "categories": [{"id": i, "name": name} for i, name in enumerate(self.labels, start=1)],
            "annotations": [
                {"id": i, "iscrowd": 0, "area": r["bbox"][2] * r["bbox"][3], **r}
                for i, r in enumerate(self.results, start=1)
            ],
        }
        data = (json.dumps(whole) + "\n").encode()
        files.write_result(None if target == files.STANDARD else Path(target), data)


def _pairs(given: tuple[str, ...] | None) -> tuple[tuple[str, str], ...] | None:
    if given is None:
        return None
    for pair in given:
        if "=" not in pair:
            raise click.BadParameter(f"{pair!r} is not KEY=NAME", param_hint="--outputs")
    return tuple((pair.partition("=")[0], pair.partition("=")[2]) for pair in given)


def _targets(
    found: list[files.Input],
    inputs: tuple[str, ...],
    asked: dict[str, str | None],
    reads: list[Path],
    keep_extension: bool,
) -> dict[str, Outputs]:
    """Where the mask and the drawing of each input go.

    Args:
        found, inputs: the inputs, and what they were called on the command line.
        asked: what `--mask`, `--draw` and `--coco` were given.
        reads: files that are read beside the inputs.
        keep_extension: of the inputs, in names of results in a folder.

    Raises:
        click.UsageError: a result would replace what is read, or another result.
    """
    planned: dict[str, dict[str, Path | None]] = {each.name: {} for each in found}
    taken: dict[str, str] = {}

    def take(option: str, target: Path | None) -> None:
        if target is None or files.is_special(target):
            return
        other = taken.setdefault(files.place(target), option)
        if other != option:
            raise click.UsageError(f"{other} and {option} would write to the same file, {target}")

    for name, option in (("mask", "--mask"), ("drawing", "--draw")):
        output = asked[option]
        if output == files.STANDARD:
            raise click.UsageError("masks and drawings go to files, not to standard output")
        if output is not None:
            for job in files.plan(found, inputs, output, ".png", reads, keep_extension):
                take(option, job.target)
                _check_extension(option, job.target)
                planned[job.input.name][name] = job.target
    coco = asked["--coco"]
    if coco is not None and coco != files.STANDARD:
        take("--coco", Path(coco))
        files.refuse_inputs([Path(coco)], [*files.paths(found), *reads])
    return {name: Outputs(**paths) for name, paths in planned.items()}


def _check_extension(option: str, target: Path | None) -> None:
    """Refuse names that promise another format than they would get; without one it is PNG."""
    from vcmcodec import pixels

    if target is None or not target.suffix:
        return
    if option == "--mask" and target.suffix.lower() != ".png":
        raise click.BadParameter(f"{target}: masks are written as .png", param_hint=option)
    try:
        pixels.save_format(target.name)
    except RequestError as error:
        raise click.BadParameter(str(error), param_hint=option) from error


@click.command("analyze", short_help="Say what is in pictures: objects, classes, areas.")
@options.inputs("PICTURE|FILE.vcm|DIR|-...")
@click.option(
    "-t",
    "--task",
    "tasks",
    multiple=True,
    type=options.Names(TASKS, {ALL: TASKS}),
    help="What to look for.  [default: all]",
)
@click.option(
    "-g",
    "--groups",
    multiple=True,
    type=options.CommaList(),
    metavar="LABEL|ID,...",
    help="Of .vcm files, only these groups: nothing is found elsewhere, and no byte of the others"
    " is read.",
)
@click.option(
    "--score",
    type=options.Finite(0, 1),
    default=0.3,
    show_default=True,
    help="Leave out objects below this score.",
)
@click.option(
    "--mask",
    metavar="FILE|DIR/",
    help="Write the areas as a palette PNG: pixel value 0 is background, 1 and up are classes.",
    callback=options.named,
)
@click.option(
    "--draw",
    metavar="FILE|DIR/",
    help="Write the picture with everything drawn on it; the extension tells the format, in a"
    " folder it is PNG.",
    callback=options.named,
)
@click.option(
    "--coco",
    metavar="FILE",
    help="Write all objects of all pictures as one COCO JSON file.",
    callback=options.named,
)
@click.option(
    "--model",
    metavar="ID|FILE",
    help="Another network: one of `vcm models`, a .safetensors or .onnx file, or"
    " torchvision:NAME=FILE with your own weights (=download lets torchvision fetch its own)."
    "  [default: the one that is installed]",
)
@options.vision
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
@options.parallel
@options.recursive
@options.keep_extension
@options.limits(*options.FILE_LIMITS)
@options.as_json
@options.loudness
def command(
    inputs: tuple[str, ...],
    *,
    recursive: bool,
    keep_extension: bool,
    tasks: tuple[tuple[str, ...], ...],
    groups: tuple[tuple[str, ...], ...],
    mask: str | None,
    draw: str | None,
    coco: str | None,
    labels: Path | None,
    outputs: tuple[str, ...] | None,
    **given: Any,
) -> int:
    r"""Say what is in pictures: objects, classes, areas.

    Of a .vcm file, whole or cut down to its base layer, the base layer alone is read.  What was
    coded at the size at which the network looks, or below, is seen straight from the latent; larger
    pictures through its preview.  --draw decodes what there is.

    \b
      vcm analyze street.jpg
      vcm analyze street.vcm --task detection --groups person
      vcm analyze photos/ --task detection --score 0.5 --json --jobs 2 > found.jsonl
      vcm analyze street.jpg --draw seen.png --mask areas.png
    """
    from vcmcodec import pixels

    if given["as_json"] and coco == files.STANDARD:
        raise click.UsageError("standard output takes --json or --coco -, not both")
    asked = tuple(dict.fromkeys(options.flat(tasks) or TASKS))
    if mask is not None and "segmentation" not in asked:
        raise click.UsageError("--mask needs --task segmentation or all")
    if coco is not None and "detection" not in asked:
        raise click.UsageError("--coco needs --task detection or all")
    settings = Settings(
        limits=options.limits_of(given),
        groups=options.flat(groups),
        labels=None if labels is None else options.class_names(labels, "--labels"),
        outputs=_pairs(outputs),
        tasks=asked,
        **{key: given[key] for key in ("score", "model", "vision", "size", "device")},
    )
    style = batch.Style(
        what="analyzed",
        workers=options.workers(given["jobs"]),
        threads=given["threads"],
        json=given["as_json"],
        quiet=given["quiet"] or coco == files.STANDARD,
        verbose=given["verbose"],
    )
    found = files.gather(inputs, {*pixels.READ_EXTENSIONS, ".vcm"}, recursive)
    reads = options.network_files(settings.model, settings.vision)
    reads += [labels] if labels else []
    asked_for = {"--mask": mask, "--draw": draw, "--coco": coco}
    targets = _targets(found, inputs, asked_for, reads, keep_extension)
    return Analysis(settings, targets, style, coco).run(found)
