"""The codecs that people use today, through Pillow, each with the ladder of qualities it is run at.

Every rival gets the same (H, W, 3) uint8 array and gives whole files: headers count.  Settings are
each format's careful ones (what a person who cares about size would choose), not its fastest.
"""

from __future__ import annotations

import io
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from PIL import Image, __version__, features

from vcmcodec.errors import RequestError
from vcmcodec.evaluation.metrics import Pixels


@dataclass(frozen=True)
class Rival:
    """One codec of Pillow's.

    Attributes:
        name: key on the command line.
        title: name in tables and charts.
        format: Pillow's name of the format.
        feature: name under which Pillow tells the version of the library behind it.
        settings: arguments of `Image.save` other than quality, sorted.
        ladder: qualities of the rate curve, coarse to fine; on Kodak each spans at least
            0.1 (JPEG: 0.15, its floor) to 1.5 bits a pixel.
    """

    name: str
    title: str
    format: str
    feature: str
    settings: tuple[tuple[str, Any], ...]
    ladder: tuple[int, ...]

    def encode(self, rgb: Pixels, quality: float, threads: int | None = None) -> bytes:
        """Return the file for an (H, W, 3) uint8 picture at the codec's own quality.

        Args:
            rgb: the picture.
            quality: the codec's own number, rounded to an integer.
            threads: at most so many, where the codec can be told (AVIF).
        """
        options = dict(self.settings)
        if threads is not None and self.format == "AVIF":
            options["max_threads"] = threads
        sink = io.BytesIO()
        Image.fromarray(rgb).save(sink, self.format, quality=round(quality), **options)
        return sink.getvalue()

    def decode(self, data: bytes) -> Pixels:
        """Return the picture in a file as (H, W, 3) uint8."""
        with Image.open(io.BytesIO(data)) as image:
            return np.asarray(image.convert("RGB"))

    @property
    def version(self) -> str:
        """Pillow's version and that of the library behind this format."""
        return f"Pillow {__version__}, {self.feature} {features.version(self.feature)}"

    @property
    def description(self) -> str:
        """The fixed settings in words, for reports."""
        return ", ".join(f"{key} {value}" for key, value in self.settings)


RIVALS: Mapping[str, Rival] = {
    rival.name: rival
    for rival in (
        Rival(
            "jpeg",
            "JPEG",
            "JPEG",
            "jpg",
            (("optimize", True), ("subsampling", "4:2:0")),
            (2, 5, 8, 12, 18, 26, 36, 48, 60, 70, 78, 85, 90, 94),
        ),
        Rival(
            "webp",
            "WebP",
            "WEBP",
            "webp",
            (("method", 6),),
            (0, 2, 5, 10, 18, 28, 40, 52, 64, 74, 82, 88, 92, 96),
        ),
        Rival(
            "avif",
            "AVIF",
            "AVIF",
            "avif",
            (("speed", 6),),
            (6, 12, 18, 24, 30, 37, 44, 51, 58, 65, 72, 79, 85, 90),
        ),
    )
}


def missing(rival: Rival) -> str | None:
    """Return why this Pillow cannot run a rival, or None where it can."""
    if features.check(rival.feature):
        return None
    return f"{rival.title}: this Pillow ({__version__}) was built without {rival.feature}"


def choose(names: tuple[str, ...]) -> tuple[Rival, ...]:
    """Return the rivals of these names.

    Raises:
        RequestError: a name that is not known, or a rival that this Pillow cannot run.
    """
    chosen = []
    for name in names:
        if name not in RIVALS:
            raise RequestError(f"no rival {name!r}: there are {', '.join(RIVALS)}")
        if (reason := missing(RIVALS[name])) is not None:
            raise RequestError(reason)
        chosen.append(RIVALS[name])
    return tuple(chosen)


def nearest_in_bytes(rival: Rival, rgb: Pixels, num_bytes: int) -> tuple[int, bytes]:
    """Return the finest (quality, file) of a rival that is no larger than `num_bytes`.

    Size rises with quality but for rare single steps, so this is a binary search.  Where even the
    coarsest file is larger, that one is returned.
    """
    low, high = 0, 100
    best = (low, rival.encode(rgb, low))
    while low < high:
        middle = (low + high + 1) // 2
        data = rival.encode(rgb, middle)
        if len(data) <= num_bytes:
            low, best = middle, (middle, data)
        else:
            high = middle - 1
    return best
