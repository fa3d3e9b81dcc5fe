"""The pictures that a measurement runs on: a folder of files, or pictures drawn by code."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from PIL import Image, ImageDraw, ImageFont

from vcmcodec.errors import PictureError, RequestError
from vcmcodec.evaluation.metrics import Pixels
from vcmcodec.grouping import as_pixels

SUFFIXES = frozenset({".png", ".jpg", ".jpeg", ".webp", ".avif", ".bmp", ".ppm", ".tif", ".tiff"})
CELL = 16

Drawn = npt.NDArray[Any]


@dataclass(frozen=True)
class NamedPicture:
    """A picture and what reports call it; `rgb` is (H, W, 3) uint8."""

    name: str
    rgb: Pixels

    @property
    def pixels(self) -> int:
        """Number of true pixels, the divisor of every bits-a-pixel figure."""
        return int(self.rgb.shape[0] * self.rgb.shape[1])

    @property
    def content_hash(self) -> str:
        """SHA-256 of size and pixels, hexadecimal."""
        digest = hashlib.sha256(str(self.rgb.shape).encode())
        digest.update(np.ascontiguousarray(self.rgb).tobytes())
        return digest.hexdigest()


def list_pictures(folder: Path, limit: int | None = None) -> tuple[Path, ...]:
    """Return the picture files of a folder in order of name, the first `limit` of them.

    Raises:
        RequestError: not a folder, or no picture in it.
    """
    if not folder.is_dir():
        raise RequestError(f"{folder}: not a folder")
    paths = sorted(path for path in folder.iterdir() if path.suffix.lower() in SUFFIXES)
    if not paths:
        raise RequestError(f"{folder}: no pictures ({', '.join(sorted(SUFFIXES))})")
    return tuple(paths[:limit])


def read_picture(path: Path) -> NamedPicture:
    """Read one picture as the codec itself would, so that every codec gets the same pixels.

    Raises:
        PictureError: the file is not a picture.
    """
    from vcmcodec import pixels

    try:
        return NamedPicture(path.stem, np.ascontiguousarray(pixels.read(path).rgb))
    except PictureError as error:
        raise PictureError(f"{path}: {error}") from error


def read_group_mask(folder: Path, picture: NamedPicture) -> Pixels:
    """Return the group of every pixel, (H, W) uint8, from a folder of group maps.

    A map is a grey picture `NAME.png` either with one pixel a cell of 16x16 or one a pixel; its
    grey level is the group.

    Raises:
        PictureError: no map for this picture, or one of another size.
    """
    path = folder / f"{picture.name}.png"
    if not path.is_file():
        raise PictureError(f"{path}: no group map for {picture.name}")
    with Image.open(path) as image:
        labels = np.asarray(image if image.mode in ("L", "P") else image.convert("L"))
    height, width = picture.rgb.shape[:2]
    if labels.shape == (height, width):
        return labels
    if labels.shape != (-(-height // CELL), -(-width // CELL)):
        raise PictureError(f"{path}: {labels.shape} is neither the picture's size nor its cells'")
    return as_pixels(labels, (height, width))


def keep_largest_groups(mask: Pixels, count: int) -> Pixels:
    """Merge all groups of a mask but the `count - 1` largest into one; ids 0..count-1, (H, W)."""
    ids, sizes = np.unique(mask, return_counts=True)
    merged = np.zeros_like(mask)
    for new, old in enumerate(ids[np.argsort(-sizes, kind="stable")][: count - 1], start=1):
        merged[mask == old] = new
    return merged


def photo(width: int, height: int) -> NamedPicture:
    """Return a photograph of any size, for measurements of speed and memory.

    One of scikit-image's test photographs, scaled to cover 768x512 and cropped; larger sizes
    continue it by mirroring, so that the detail a pixel stays that of a photograph.

    Raises:
        RequestError: scikit-image is not installed.
    """
    try:
        from skimage import data
    except ImportError:
        raise RequestError(
            "no picture was given and scikit-image, which holds the default one, "
            "is not installed: name a picture"
        ) from None
    image = Image.fromarray(data.coffee())  # type: ignore[no-untyped-call]
    scale = max(768 / image.width, 512 / image.height)
    size = (round(image.width * scale), round(image.height * scale))
    covering = np.asarray(image.resize(size, Image.Resampling.LANCZOS))[:512, :768]
    rgb = np.empty((height, width, 3), np.uint8)
    # Block by block into one array: at 100 megapixels a second copy would be measured as the
    # codec's memory.
    for i, top in enumerate(range(0, height, 512)):
        for j, left in enumerate(range(0, width, 768)):
            block = covering[:: -1 if i % 2 else 1, :: -1 if j % 2 else 1]
            target = rgb[top : top + 512, left : left + 768]
            target[...] = block[: target.shape[0], : target.shape[1]]
    return NamedPicture(f"coffee {width}x{height}", rgb)


def _screenshot() -> Drawn:
    """Windows, small text, hard edges: what photographs never are."""
    image = Image.new("RGB", (640, 448), (236, 236, 240))
    draw = ImageDraw.Draw(image)
    font = ImageFont.load_default(size=12)
    for i, colour in enumerate([(36, 92, 160), (250, 250, 250), (30, 32, 38)]):
        left, top = 24 + 150 * i, 20 + 70 * i
        draw.rectangle((left, top, left + 300, top + 250), fill=colour, outline=(0, 0, 0))
        ink = (20, 20, 20) if sum(colour) > 400 else (225, 235, 215)
        for line in range(14):
            text = f"{line:3d}  for cell in row[{i}]: total += cell * {line * 37 % 91}"
            draw.text((left + 8, top + 8 + 16 * line), text, fill=ink, font=font)
    return np.asarray(image)


def _gradient() -> Drawn:
    rows, columns = np.mgrid[0:320, 0:480]
    return np.stack((columns * 255 // 479, rows * 255 // 319, 255 - columns * 255 // 479), axis=2)


def _stripes() -> Drawn:
    """One pixel black, one pixel white: the highest frequency that a picture can hold."""
    return np.broadcast_to((np.arange(480) % 2 * 255)[None, :, None], (320, 480, 3))


def _noise(height: int, width: int) -> Drawn:
    return np.random.default_rng(1).integers(0, 256, (height, width, 3))


def _one_colour() -> Drawn:
    return np.broadcast_to(np.array([17, 201, 96]), (320, 480, 3))


def _saturated_checks() -> Drawn:
    rows, columns = np.mgrid[0:320, 0:480]
    checks = (rows // 5 + columns // 5) % 2
    return np.where(checks[..., None] == 1, (255, 0, 0), (0, 0, 255))


def _strip() -> Drawn:
    ramp = (np.sin(np.arange(4000) / 40) * 110 + 128).astype(np.int64)
    return np.stack((ramp, ramp[::-1], 255 - ramp), axis=1)[None]


_DRAWN: tuple[tuple[str, Callable[[], Drawn]], ...] = (
    ("screenshot", _screenshot),
    ("noise", lambda: _noise(320, 480)),
    ("gradient", _gradient),
    ("one colour", _one_colour),
    ("stripes at Nyquist", _stripes),
    ("saturated checks", _saturated_checks),
    ("4000x1", _strip),
    ("1x4000", lambda: _strip().transpose(1, 0, 2)),
    ("1x1", lambda: np.array([[[200, 30, 90]]])),
)


def oddities() -> Iterator[NamedPicture]:
    """Yield pictures unlike any photograph, drawn by code.

    They are the same on every machine but for the font of the screenshot.
    """
    for name, draw in _DRAWN:
        yield NamedPicture(name, np.ascontiguousarray(draw().astype(np.uint8)))


def picture_or_photo(path: Path | None, width: int, height: int) -> NamedPicture:
    """A picture, of a folder its first one, or where there is none a photograph of that size."""
    if path is None:
        return photo(width, height)
    return read_picture(list_pictures(path, 1)[0] if path.is_dir() else path)
