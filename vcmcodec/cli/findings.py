"""What `vcm analyze` finds in one input, a picture or a `.vcm` file, and how it is told."""

from __future__ import annotations

import functools
import io
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from vcmcodec.bitstream.container import Container, begins_like_vcm
from vcmcodec.bitstream.limits import Limits
from vcmcodec.bitstream.ranges import ByteSource
from vcmcodec.cli import show
from vcmcodec.cli.batch import Failure
from vcmcodec.errors import RequestError, VcmError
from vcmcodec.sources import opened

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
    """What was found in one input, and the pictures that were made of it, as bytes of files.

    Attributes:
        predictions: the results.
        labels: all names that they may bear.
        facts: for `--json`, beside the results.
        warnings: one sentence each.
        mask, drawing: None where it was not asked for; or why there is none.
    """

    predictions: Predictions
    labels: tuple[str, ...]
    facts: dict[str, Any]
    warnings: tuple[str, ...]
    mask: bytes | Failure | None
    drawing: bytes | Failure | None


def look(settings: Settings, outputs: Outputs, source: str | bytes) -> Finding:
    """Analyze one picture or `.vcm` file, a path or the bytes of it.

    Raises:
        VcmError: see `in_file` and `in_picture`.
    """
    if is_vcm(source):
        return in_file(source, settings, outputs)
    return in_picture(source, settings, outputs, lambda: backend(settings))


@functools.lru_cache(maxsize=1)
def backend(settings: Settings) -> Backend:
    """The network for pictures, opened once a process; a new run clears this cache."""
    from vcmcodec.vision.backend import open_backend

    return open_backend(
        settings.model,
        device=settings.device,
        longer_side=settings.size,
        labels=settings.labels,
        outputs=None if settings.outputs is None else dict(settings.outputs),
    )


def is_vcm(source: str | bytes) -> bool:
    """Whether an input is a `.vcm` file: by its first bytes, or by its name if they are damaged."""
    if isinstance(source, bytes):
        return begins_like_vcm(source)
    path = Path(source)
    if path.suffix.lower() == ".vcm":
        return True
    if (
        not path.is_file()
    ):  # what cannot be read twice, or at all, is left to the reader of pictures
        return False
    try:
        with path.open("rb") as file:
            return begins_like_vcm(file.read(4))
    except OSError:
        return False


def in_file(source: str | bytes, settings: Settings, outputs: Outputs) -> Finding:
    """Analyze a `.vcm` file, a path or its bytes, from its base layer or its features.

    Raises:
        VcmError: see `machine.analyze`.
    """
    if settings.model is not None or settings.size is not None:
        raise RequestError(
            "--model and --size are for pictures: a .vcm file is seen by the network that its base"
            " layer was made for; decode it to show it to another one"
        )
    with opened(source) as file:
        Container.read(file, settings.limits)  # torch takes seconds, and a bad file needs none
        return _in_whole_file(file, settings, outputs)


def _in_whole_file(file: ByteSource, settings: Settings, outputs: Outputs) -> Finding:
    from vcmcodec import machine
    from vcmcodec.reader import Reader

    with Reader(file, settings.limits) as reader:
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
        drawing = _drawn(
            lambda: _shown(reader, settings), found, labels, outputs.drawing, settings.score
        )
    return Finding(found, labels, facts, warnings, _mask(found, outputs), drawing)


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

    from vcmcodec import catalogue

    if catalogue.profile(reader.header.profile).source == "features":
        raise RequestError("the file holds features, and no picture to draw on")
    shown = reader.inspect(groups=settings.groups, background=MISSING, device=settings.device)
    return np.asarray(shown.image.convert("RGB"))


def in_picture(
    source: str | bytes, settings: Settings, outputs: Outputs, load: Callable[[], Backend]
) -> Finding:
    """Analyze a picture, a path or the bytes of its file, with the network that `load` gives.

    Raises:
        PictureError: it cannot be read.
        RequestError: the network does not do what is asked for, or groups were asked for.
    """
    from vcmcodec import pixels

    if settings.groups is not None:
        raise RequestError("--groups are those of a .vcm file; a picture has none")
    if settings.vision is not None:
        raise RequestError("--vision goes with .vcm files; a picture's network is named by --model")
    data = pixels.bytes_of(source)
    picture = pixels.read(data, settings.limits)
    backend = load()  # not before there is a picture: torch takes seconds
    tasks = [task for task in settings.tasks if task in backend.tasks]
    if not tasks:
        able = ", ".join(backend.tasks)
        raise RequestError(f"this network does not do {settings.task}; it does {able}")
    found = backend.predict(picture.rgb, tasks, settings.score)
    facts = {"bytes_read": len(data), "warnings": list(picture.warnings)}
    drawing = _drawn(lambda: picture.rgb, found, backend.labels, outputs.drawing, settings.score)
    mask = _mask(found, outputs)
    return Finding(found, backend.labels, facts, picture.warnings, mask, drawing)


def _mask(found: Predictions, outputs: Outputs) -> bytes | Failure | None:
    """The areas as a PNG, which loses nothing; or why there are none."""
    from vcmcodec.vision import drawing

    if outputs.mask is None:
        return None
    if found.label_map is None:
        return Failure("request", "no mask: what was looked at tells nothing of areas")
    out = io.BytesIO()
    drawing.mask_image(found.label_map).save(out, "PNG")
    return out.getvalue()


def _drawn(
    rgb: Callable[[], npt.NDArray[np.uint8]],
    found: Predictions,
    labels: tuple[str, ...],
    target: Path | None,
    score: float,
) -> bytes | Failure | None:
    """The drawing as a picture file; where there can be none, the results stand nevertheless.

    Args:
        rgb: gives the picture to draw on.
        found, labels: what is drawn, and all names that it may bear.
        target: whose extension says the format; None where no drawing is asked for.
        score: of the classes that are listed.
    """
    from vcmcodec import pixels
    from vcmcodec.vision import drawing

    if target is None:
        return None
    out = io.BytesIO()
    try:
        format = target.suffix.removeprefix(".") or "png"
        pixels.save(drawing.draw(rgb(), found, labels, score), out, format)
    except VcmError as error:
        return Failure(error.code, f"no drawing: {error}")
    return out.getvalue()


def tell(name: str, found: Predictions, score: float) -> None:
    """Print a table of everything that was found in one picture."""
    from rich.markup import escape
    from rich.table import Table
    from rich.text import Text

    table = Table(
        title=Text(show.printable(f"{name}  {found.width} x {found.height}")),
        title_justify="left",
        box=None,
        pad_edge=False,
    )
    for column in ("what", "label", "score", "", "where (x, y, width, height)"):
        table.add_column(column)
    for thing in found.objects or ():
        box = ", ".join(f"{v:.0f}" for v in thing.box)
        table.add_row(
            "object", escape(thing.label), f"{100 * thing.score:.0f} %", _bar(thing.score), box
        )
    for item in found.likely(score):
        table.add_row("class", escape(item.label), f"{100 * item.score:.0f} %", _bar(item.score))
    if found.label_map is not None:
        for label, part in found.label_map.areas().items():
            table.add_row(
                "area", escape(label), f"{100 * part:.1f} %", _bar(part), "of the picture"
            )
    if not table.row_count:
        table.add_row("nothing", f"of a score of {score:g} or more")
    show.rich_print(table)


def _bar(part: float) -> str:
    return "━" * round(BARS * part)
