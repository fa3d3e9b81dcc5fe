"""What `vcm analyze` finds in one input, a picture or a `.vcm` file, and how it is told."""

from __future__ import annotations

import io
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from vcmcodec.bitstream.constants import SIGNATURE
from vcmcodec.bitstream.limits import Limits
from vcmcodec.cli import show
from vcmcodec.errors import RequestError

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt

    from vcmcodec.reader import Reader
    from vcmcodec.vision.backend import Backend
    from vcmcodec.vision.predictions import Predictions

TASKS = ("detection", "classification", "segmentation")
ALL = "all"
BARS = 20  # characters of a bar that stands for 100 %
MISSING = "grey"  # what a drawing shows where nothing was decoded


@dataclass(frozen=True)
class Settings:
    """What one run of `vcm analyze` asks for."""

    tasks: tuple[str, ...]
    score: float
    model: str | None
    vision: str | None
    size: int | None
    labels: tuple[str, ...] | None
    outputs: tuple[tuple[str, str], ...] | None
    groups: tuple[str, ...] | None
    device: str
    limits: Limits

    @property
    def task(self) -> str:
        """What is asked for, in one word."""
        return ALL if set(self.tasks) == set(TASKS) else ",".join(self.tasks)


@dataclass(frozen=True)
class Outputs:
    """Where one picture's mask and drawing go; None where they are not asked for."""

    mask: Path | None = None
    drawing: Path | None = None


@dataclass(frozen=True)
class Finding:
    """What was found in one input, and the pictures that were made of it, as PNG bytes.

    Attributes:
        predictions: the results.
        labels: all names that they may bear.
        facts: for `--json`, beside the results.
        warnings: one sentence each.
        mask, drawing: None where they were not asked for.
    """

    predictions: Predictions
    labels: tuple[str, ...]
    facts: dict[str, Any]
    warnings: tuple[str, ...]
    mask: bytes | None
    drawing: bytes | None


def is_vcm(source: str | bytes) -> bool:
    """Whether an input is a `.vcm` file: by its first bytes, or by its name if they are damaged."""
    if isinstance(source, bytes):
        return source[1:4] == SIGNATURE[1:4]
    path = Path(source)
    if path.suffix.lower() == ".vcm":
        return True
    if (
        not path.is_file()
    ):  # what cannot be read twice, or at all, is left to the reader of pictures
        return False
    try:
        with path.open("rb") as file:
            return file.read(4)[1:] == SIGNATURE[1:4]
    except OSError:
        return False


def in_file(source: str | bytes, settings: Settings, outputs: Outputs) -> Finding:
    """Analyze a `.vcm` file, a path or its bytes, from its base layer or its features.

    Raises:
        VcmError: see `machine.analyze`.
    """
    from vcmcodec import machine
    from vcmcodec.reader import Reader

    if settings.model is not None or settings.size is not None:
        raise RequestError(
            "--model and --size are for pictures: a .vcm file is seen by the network that its base"
            " layer was made for; decode it to show it to another one"
        )
    with Reader(source, settings.limits) as reader:
        found = machine.analyze_reader(
            reader,
            tasks=settings.tasks,
            score=settings.score,
            groups=settings.groups,
            device=settings.device,
            vision=settings.vision,
        )
        warnings = (*reader.warnings, *machine.shortfalls(reader, settings.tasks))
        facts = {"bytes_read": reader.bytes_read, "warnings": list(warnings)}
        labels = _labels_of(reader, found, settings.device)
        rgb = None
        if outputs.drawing is not None:
            rgb = _shown(reader, settings)
    finding = _finding(found, labels, rgb, outputs)
    return replace(finding, facts=facts, warnings=warnings)


def _labels_of(reader: Reader, found: Predictions, device: str) -> tuple[str, ...]:
    """All names that results of a file may bear, or at least those that they do bear."""
    from vcmcodec import catalogue, models

    if catalogue.profile(reader.header.profile).source == "picture":
        return models.load_tasks(reader.header.fingerprint, device=device).vision.labels
    if found.label_map is not None:
        return found.label_map.names[1:]
    borne = {item.label for item in found.classes or ()}
    return tuple(sorted(borne | {thing.label for thing in found.objects or ()}))


def _shown(reader: Reader, settings: Settings) -> npt.NDArray[np.uint8]:
    """The best picture that the file has of what was analyzed: its own preview, if only that."""
    import numpy as np

    image = reader.decode(groups=settings.groups, background=MISSING, device=settings.device)
    return np.asarray(image.convert("RGB"))


def in_picture(
    source: str | bytes, settings: Settings, outputs: Outputs, backend: Backend
) -> Finding:
    """Analyze a picture, a path or the bytes of its file.

    Raises:
        PictureError: it cannot be read.
        RequestError: the network does not do what is asked for, or groups were asked for.
    """
    from vcmcodec import pixels

    if settings.groups is not None:
        raise RequestError("--groups are those of a .vcm file; a picture has none")
    if settings.vision is not None:
        raise RequestError("--vision goes with .vcm files; a picture's network is named by --model")
    picture = pixels.read(source, settings.limits)
    tasks = [task for task in settings.tasks if task in backend.tasks]
    if not tasks:
        able = ", ".join(backend.tasks)
        raise RequestError(f"this network does not do {settings.task}; it does {able}")
    found = backend.predict(picture.rgb, tasks, settings.score)
    rgb = picture.rgb if outputs.drawing is not None else None
    return _finding(found, backend.labels, rgb, outputs)


def _finding(
    found: Predictions,
    labels: tuple[str, ...],
    rgb: npt.NDArray[np.uint8] | None,
    outputs: Outputs,
) -> Finding:
    from vcmcodec.vision import drawing

    mask = drawn = None
    if outputs.mask is not None and found.label_map is not None:
        mask = _png(drawing.mask_image(found.label_map))
    if rgb is not None:
        drawn = _png(drawing.draw(rgb, found, labels))
    return Finding(found, labels, {}, (), mask, drawn)


def _png(image: Any) -> bytes:
    out = io.BytesIO()
    image.save(out, "PNG")
    return out.getvalue()


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
