"""Pictures to look at: ours and each rival at equal bytes, with the places worth looking at."""

from __future__ import annotations

import io
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image

from vcmcodec.evaluation.corpora import NamedPicture, list_pictures, read_picture
from vcmcodec.evaluation.metrics import Pixels
from vcmcodec.evaluation.rate_curve import Measurement
from vcmcodec.evaluation.rate_distortion import Progress, StillCodec, score
from vcmcodec.evaluation.rivals import Rival, nearest_in_bytes

# Low enough that codecs differ to the eye, high enough that none is only mush.
TARGET_BPP = 0.25
CROP = 128


@dataclass(frozen=True)
class Version:
    """One decoded picture; `webp` is the same pixels as a lossless WebP file, for browsers.

    `figures` is None for the original; the times are of one run, in milliseconds.
    """

    title: str
    webp: bytes
    figures: Measurement | None = None
    encode_ms: float = 0.0
    decode_ms: float = 0.0


@dataclass(frozen=True)
class Exhibit:
    """One picture in all its versions, the original first; crops are (left, top) of CROP pixels."""

    picture: str
    width: int
    height: int
    versions: tuple[Version, ...]
    crops: tuple[tuple[int, int], ...]


def _lossless(rgb: Pixels) -> bytes:
    sink = io.BytesIO()
    Image.fromarray(rgb).save(sink, "WEBP", lossless=True, method=4)
    return sink.getvalue()


def _version(codec: StillCodec, picture: NamedPicture, quality: float) -> tuple[Version, Pixels]:
    start = time.perf_counter()
    data = codec.encode(picture.rgb, quality)
    middle = time.perf_counter()
    decoded = codec.decode(data)
    end = time.perf_counter()
    version = Version(
        codec.title,
        _lossless(decoded),
        score(codec.title, picture, quality, data, decoded),
        1000.0 * (middle - start),
        1000.0 * (end - middle),
    )
    return version, decoded


def _strongest(
    field: Pixels | np.ndarray[tuple[int, ...], np.dtype[np.float64]],
) -> tuple[int, int]:
    """Return (left, top) of the CROP x CROP square with the largest sum of an (H, W) field."""
    height, width = field.shape
    if height < CROP or width < CROP:
        return 0, 0
    total = np.zeros((height + 1, width + 1))
    total[1:, 1:] = field.cumsum(axis=0).cumsum(axis=1)
    sums = total[CROP:, CROP:] - total[:-CROP, CROP:] - total[CROP:, :-CROP] + total[:-CROP, :-CROP]
    top, left = np.unravel_index(int(np.argmax(sums)), sums.shape)
    return int(left), int(top)


def _crops(reference: Pixels, decoded: Pixels) -> tuple[tuple[int, int], tuple[int, int]]:
    """Return where the first codec (ours) errs most, and where else detail is strongest."""
    grey = reference.astype(np.float64).mean(axis=2)
    detail = np.zeros_like(grey)
    detail[:, 1:] += np.abs(np.diff(grey, axis=1))
    detail[1:] += np.abs(np.diff(grey, axis=0))
    error = ((reference.astype(np.float64) - decoded) ** 2).sum(axis=2)
    left, top = _strongest(error)
    # The second place is another one: what the first shows is not looked at again.
    rows = slice(max(0, top - CROP // 2), top + CROP + CROP // 2)
    columns = slice(max(0, left - CROP // 2), left + CROP + CROP // 2)
    detail[rows, columns] = 0.0
    return (left, top), _strongest(detail)


def exhibit(
    picture: NamedPicture, subject: StillCodec, quality: float, rivals: Sequence[Rival]
) -> Exhibit:
    """Code one picture with ours at `quality` and with every rival at no more bytes."""
    own, decoded = _version(subject, picture, quality)
    assert own.figures is not None
    versions = [Version("original", _lossless(picture.rgb)), own]
    for rival in rivals:
        nearest, _ = nearest_in_bytes(rival, picture.rgb, own.figures.num_bytes)
        versions.append(_version(rival, picture, nearest)[0])
    height, width = picture.rgb.shape[:2]
    return Exhibit(picture.name, width, height, tuple(versions), _crops(picture.rgb, decoded))


def nearest_quality(
    measurements: Sequence[Measurement], codec: str, picture: str, bpp: float
) -> float:
    """Return the setting of a codec whose file of a picture was nearest to `bpp`, in log rate."""
    own = [m for m in measurements if m.codec == codec and m.picture == picture]
    return min(own, key=lambda m: abs(np.log(m.bpp / bpp))).setting


def collect(
    folder: Path,
    measurements: Sequence[Measurement],
    subject: StillCodec,
    rivals: Sequence[Rival],
    *,
    limit: int = 3,
    progress: Progress = lambda _: None,
) -> tuple[Exhibit, ...]:
    """Make exhibits of some pictures of a folder that were measured before.

    Args:
        folder: where the pictures are.
        measurements: of a run over that folder, from which our quality is chosen.
        subject: ours.
        rivals: the others.
        limit: how many pictures, spread evenly over those measured.
        progress: called with one line before each picture.

    Raises:
        PictureError: a picture cannot be read.
    """
    measured = {m.picture for m in measurements}
    paths = [path for path in list_pictures(folder) if path.stem in measured]
    count = min(limit, len(paths))
    chosen = [paths[i * len(paths) // count] for i in range(count)]
    exhibits = []
    for path in chosen:
        progress(f"{path.stem}: pictures for the page")
        picture = read_picture(path)
        quality = nearest_quality(measurements, subject.title, picture.name, TARGET_BPP)
        exhibits.append(exhibit(picture, subject, quality, rivals))
    return tuple(exhibits)
