"""What it costs to see: from a base layer's bytes, and from a JPEG of the same picture.

Both sides end in the same results (all tasks, whole file or picture in memory), in the same run,
in turns.  The JPEG side decodes the file and runs the vision network; ours decodes the base
latent, transforms it and runs the rest of that network.  The base layer of a file for people, too,
is coded at the picture's own size; where that is not the network's it is seen through its preview.
"""

from __future__ import annotations

import io
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
from PIL import Image

from vcmcodec import codec, edit, machine, models
from vcmcodec.evaluation.corpora import NamedPicture
from vcmcodec.evaluation.environment import Environment, describe_environment
from vcmcodec.evaluation.macs import count_kmacs
from vcmcodec.evaluation.metrics import Pixels
from vcmcodec.evaluation.report import Table, environment_note
from vcmcodec.evaluation.timing import Timing, measure_rounds, torch_threads
from vcmcodec.profiles.scene import DEFAULT_QUALITY
from vcmcodec.reader import Reader
from vcmcodec.torch_state import FLOAT32, fast_bfloat16, low_precision
from vcmcodec.vision.backend import ReferenceBackend
from vcmcodec.vision.network import TASKS

JPEG_QUALITY = 90
BASE, PEOPLES = "file for machines alone", "base layer of a file for people"
JPEG, JPEG_LOW = "JPEG", "JPEG, network in bfloat16, too"
DECODE_BASE, DECODE_JPEG = "decoding the base latent alone", "decoding the JPEG alone"


@dataclass(frozen=True)
class SeeingRow:
    """One way to see; `num_bytes` of its file, `kmacs` a true pixel, in thousands."""

    way: str
    timing: Timing
    num_bytes: int
    kmacs: float | None


@dataclass(frozen=True)
class SeeingSpeed:
    """Result of one run.

    Attributes:
        longer_side: size that the network reduces the JPEG's picture to.
        ratio: median of the file for machines alone over that of the JPEG; at most 1 is the aim.
        ratio_peoples: the same of the base layer of a file for people.
        precision: in which the network runs behind what was decoded.
    """

    picture: str
    height: int
    width: int
    longer_side: int
    rows: tuple[SeeingRow, ...]
    ratio: float
    ratio_peoples: float
    precision: str
    environment: Environment


@dataclass(frozen=True)
class _Way:
    """A file, and a function that looks at it."""

    file: bytes
    look: Callable[[], Any]
    has_network: bool = True

    def row(self, name: str, timing: Timing, pixels: int) -> SeeingRow:
        kmacs = count_kmacs(self.look, pixels)[0] if self.has_network else None
        return SeeingRow(name, timing, len(self.file), kmacs)


def run(
    picture: NamedPicture,
    *,
    threads: int = 2,
    repeats: int = 15,
    base_quality: float | None = None,
    model: str | None = None,
    progress: Callable[[str], None] = lambda _: None,
) -> SeeingSpeed:
    """Time seeing from a base layer and from a JPEG of the same picture.

    Args:
        picture: what to look at.
        threads: of torch, on both sides.
        repeats: timed rounds.
        base_quality: of the base layer; None for the tasks' default.
        model: name of the picture model; None for the default.
        progress: called with one line before each piece of work.

    Raises:
        WeightsError: no tasks model is installed for the picture model.
        RequestError: no repeats.
    """
    with torch_threads(threads):
        progress("loading models")
        data = codec.encode(picture.rgb, tasks=TASKS, base_quality=base_quality, model=model)
        quality = None if base_quality is None else max(DEFAULT_QUALITY, base_quality)
        everything = codec.encode(
            picture.rgb, quality=quality, base_quality=base_quality, model=model
        )
        peoples = edit.extract(everything, tasks=TASKS)
        photo = _jpeg(picture.rgb)
        with Reader(data) as reader:
            vision = models.load_tasks(reader.header.fingerprint).vision
        reduced = ReferenceBackend(vision)
        ways = {
            BASE: _Way(data, lambda: machine.analyze(data)),
            PEOPLES: _Way(peoples, lambda: machine.analyze(peoples)),
            JPEG: _Way(photo, lambda: reduced.predict(_pixels(photo))),
            JPEG_LOW: _Way(photo, lambda: _in_low_precision(reduced, photo)),
            DECODE_BASE: _Way(data, lambda: _latent(data)),
            DECODE_JPEG: _Way(photo, lambda: _pixels(photo), has_network=False),
        }
        if not fast_bfloat16("cpu"):
            del ways[JPEG_LOW]
        progress(f"timing {len(ways)} ways, {repeats} rounds")
        timings = measure_rounds({name: way.look for name, way in ways.items()}, repeats, 2)
        progress("counting")
        rows = tuple(way.row(name, timings[name], picture.pixels) for name, way in ways.items())
    jpeg, (height, width) = timings[JPEG].median_ms, picture.rgb.shape[:2]
    return SeeingSpeed(
        picture=picture.name,
        height=height,
        width=width,
        longer_side=reduced.longer_side,
        rows=rows,
        ratio=timings[BASE].median_ms / jpeg,
        ratio_peoples=timings[PEOPLES].median_ms / jpeg,
        precision="bfloat16" if JPEG_LOW in timings else "float32",
        environment=describe_environment(threads),
    )


def _jpeg(rgb: Pixels) -> bytes:
    out = io.BytesIO()
    Image.fromarray(rgb).save(out, "JPEG", quality=JPEG_QUALITY)
    return out.getvalue()


def _pixels(photo: bytes) -> Pixels:
    with Image.open(io.BytesIO(photo)) as image:
        return np.asarray(image.convert("RGB"))


def _in_low_precision(network: ReferenceBackend, photo: bytes) -> None:
    """As files are seen; `vcm analyze` looks at pictures in float32, since they are the measure."""
    with low_precision("cpu"):
        network.predict(_pixels(photo))


def _latent(data: bytes) -> None:
    with Reader(data) as reader:
        reader.latent()


def tables(result: SeeingSpeed) -> tuple[Table, ...]:
    """The result as one table."""
    return (
        Table(
            f"Seeing {result.picture} ({result.width}x{result.height}), "
            f"{result.environment.threads} threads",
            ("from", "median ms", "min - max ms", "kMAC a pixel", "bytes"),
            tuple(
                (
                    row.way,
                    f"{row.timing.median_ms:.1f}",
                    f"{row.timing.min_ms:.1f} - {row.timing.max_ms:.1f}",
                    "n/a" if row.kmacs is None else f"{row.kmacs:.2f}",
                    f"{row.num_bytes:,}",
                )
                for row in result.rows
            ),
            (
                (
                    f"The file for machines takes {result.ratio:.2f} of the JPEG's time, the base"
                    f" layer of the one for people {result.ratio_peoples:.2f}."
                ),
                (
                    f"All three tasks; JPEG of quality {JPEG_QUALITY}, reduced by the network to a"
                    f" longer side of {result.longer_side}; medians of"
                    f" {result.rows[0].timing.repeats} rounds, in turns; files in memory."
                    f" Behind decoded latents the network runs in {result.precision}"
                    f" ({FLOAT32}=1: in float32), on the JPEG in float32 unless it says so."
                ),
                environment_note(result.environment),
            ),
        ),
    )
