"""Pictures in and out: whatever Pillow opens becomes 8-bit RGB, and back.

This module knows picture files and colour; it must not know torch, groups or `.vcm`.  Every
conversion that loses something is named in `Picture.warnings`, and every picture that cannot be
read ends in a `PictureError` of one line (a `LimitError` where it is only too large).

Sizes are (height, width) here; Pillow's (width, height) stays behind this door.
"""

from __future__ import annotations

import io
import os
import warnings as python_warnings
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any, TypeAlias

import numpy as np
from PIL import Image, ImageColor, UnidentifiedImageError

from vcmcodec.bitstream.constants import CELL
from vcmcodec.bitstream.container import begins_like_vcm
from vcmcodec.bitstream.limits import Limits
from vcmcodec.colour import one_line, to_rgb
from vcmcodec.errors import (
    WARNING_FILTERS,
    LimitError,
    OutputError,
    PictureError,
    RequestError,
    VcmError,
)

if TYPE_CHECKING:
    from numpy.typing import NDArray

    Source: TypeAlias = (
        str | os.PathLike[str] | bytes | IO[bytes] | Image.Image | NDArray[Any] | "Picture"
    )


# Pillow's readers for everything a camera, browser or scanner writes.  Left out on purpose:
# formats that start another program (EPS), need a driver (WMF) or are tables, not pictures (FITS).
READ_FORMATS = (
    "PNG", "JPEG", "WEBP", "AVIF", "TIFF", "GIF", "BMP", "DIB", "PPM", "JPEG2000", "TGA",
    "PCX", "SGI", "QOI", "ICO",
)  # fmt: skip
READ_EXTENSIONS = frozenset(
    (
        ".png", ".apng", ".jpg", ".jpeg", ".jpe", ".jfif", ".mpo", ".webp", ".avif", ".tif",
        ".tiff", ".gif", ".bmp", ".dib", ".ppm", ".pgm", ".pbm", ".pnm", ".jp2", ".j2k", ".tga",
        ".pcx", ".sgi", ".qoi", ".ico",
    )
)  # fmt: skip

# What is asked of Pillow's writers: lossless where the format can be, else nearly so.
_SAVE_OPTIONS: dict[str, dict[str, Any]] = {
    "PNG": {"compress_level": 6},
    "JPEG": {"quality": 95, "subsampling": 0},
    "WEBP": {"lossless": True, "exact": True},
    "AVIF": {"quality": 90},
    "TIFF": {"compression": "tiff_lzw"},
    "PPM": {},
    "BMP": {},
}
_SAVE_EXTENSIONS = {
    ".png": "PNG", ".jpg": "JPEG", ".jpeg": "JPEG", ".webp": "WEBP", ".avif": "AVIF",
    ".tif": "TIFF", ".tiff": "TIFF", ".ppm": "PPM", ".pgm": "PPM", ".pnm": "PPM", ".bmp": "BMP",
}  # fmt: skip
_OPAQUE_FORMATS = {"JPEG": "JPEG", "PPM": "PPM", "BMP": "BMP"}  # cannot hold transparency


@dataclass(frozen=True, eq=False)
class Picture:
    """A picture ready to be coded.

    Attributes:
        rgb: (H, W, 3) uint8; three equal channels where `grey`.
        grey: the source had no colour, so that the decoder gives a grey picture back.
        icc: ICC profile that describes `rgb` (of a grey space where `grey`), or None.
        warnings: what was lost or changed on the way in, one sentence each.
    """

    rgb: NDArray[np.uint8]
    grey: bool = False
    icc: bytes | None = None
    warnings: tuple[str, ...] = ()

    @property
    def height(self) -> int:
        """Rows of pixels."""
        return int(self.rgb.shape[0])

    @property
    def width(self) -> int:
        """Columns of pixels."""
        return int(self.rgb.shape[1])


def read(source: Source, limits: Limits | None = None) -> Picture:
    """Read a picture from wherever it is.

    Args:
        source: a path, a picture file's bytes, a binary file object, a `PIL.Image`, an array
            (H, W, 3), (H, W, 1) or (H, W) of uint8, or a `Picture` (returned as it is).
        limits: of which `max_pixels` counts here; the usual ones where not given.

    Raises:
        PictureError: not a picture, damaged, animated, or of a kind that has no 8-bit form.
        LimitError: more pixels than `limits.max_pixels`.
    """
    max_pixels = (limits or Limits()).max_pixels
    if isinstance(source, Picture):
        check_size(source.height, source.width, max_pixels)
        return source
    if isinstance(source, np.ndarray):
        return _from_array(source, max_pixels)
    notes: list[str] = []
    if isinstance(source, Image.Image):
        check_size(source.height, source.width, max_pixels)
        with _only_own_errors():
            return _coded_form(source, notes)
    with _only_own_errors(), open_image(source, max_pixels) as image:
        _refuse_sequences(image, notes)
        deep = image.mode in ("RGB", "RGBA", "LA") and _is_deep(image)
        with WARNING_FILTERS, python_warnings.catch_warnings(record=True) as caught:
            python_warnings.simplefilter("always")
            image.load()
        check_size(image.height, image.width, max_pixels)  # an icon's header may understate it
        notes += [f"Pillow: {warning.message}" for warning in caught]
        if deep:
            notes.append("16 bits a channel reduced to 8")
        return _coded_form(image, notes)


@contextmanager
def open_image(
    source: str | os.PathLike[str] | bytes | IO[bytes], max_pixels: int
) -> Iterator[Image.Image]:
    """Open a picture file with its size checked and its pixels not yet decoded.

    Raises:
        PictureError: nothing there, a folder, empty, or no picture.
        LimitError: more than `max_pixels`.
    """
    data = bytes_of(source)
    if not data:
        raise PictureError("the picture is empty (0 bytes)")
    # Pillow's own limit is one number for the whole process and cannot be raised for one
    # picture; ours is checked right after, before any pixel is decoded.
    with WARNING_FILTERS, python_warnings.catch_warnings():
        python_warnings.simplefilter("ignore")
        Image.init()  # loads every format once; `open` does so only where `formats` is not given
        known = [name for name in READ_FORMATS if name in Image.OPEN]  # AVIF is optional in Pillow
        pillow_limit, Image.MAX_IMAGE_PIXELS = Image.MAX_IMAGE_PIXELS, None
        try:
            image = Image.open(io.BytesIO(data), formats=known)
        except UnidentifiedImageError as error:
            told = "not a picture in any format that is read here"
            if begins_like_vcm(data):
                told = "this is a .vcm file already; decode, analyze or extract it"
            raise PictureError(told) from error
        except Exception as error:  # hostile headers make Pillow raise whatever they like
            raise PictureError(f"not a readable picture ({one_line(error)})") from error
        finally:
            Image.MAX_IMAGE_PIXELS = pillow_limit
    with image:
        check_size(image.height, image.width, max_pixels)
        yield image


def values_of(image: Image.Image) -> NDArray[Any]:
    """The stored values of a one-channel picture, (H, W): grey levels, or a palette's indexes.

    Raises:
        PictureError: the pixels are damaged.
    """
    with _only_own_errors():
        return np.array(image)


def to_image(
    rgb: NDArray[np.uint8],
    grey: bool = False,
    icc: bytes | None = None,
    alpha: NDArray[np.uint8] | None = None,
) -> Image.Image:
    """Make a Pillow picture of decoded pixels.

    Args:
        rgb: (H, W, 3) uint8, or (H, W) where `grey`.
        grey: give a one-channel picture; the channels' luma where they differ.
        icc: profile to carry along.
        alpha: (H, W) uint8, 255 where the picture is there; None for an opaque picture.
    """
    image = Image.fromarray(np.ascontiguousarray(rgb))
    if grey and image.mode != "L":
        image = image.convert("L")
    if alpha is not None:
        image.putalpha(Image.fromarray(np.ascontiguousarray(alpha)))
    if icc is not None:
        image.info["icc_profile"] = icc
    return image


def size_within(size: tuple[int, int], longer: int) -> tuple[int, int]:
    """Height and width of a picture that is reduced to a longer side, where it is larger."""
    largest = max(size)
    if longer >= largest:
        return size
    return max(1, round(size[0] * longer / largest)), max(1, round(size[1] * longer / largest))


def mean_before(size: tuple[int, int], wanted: tuple[int, int]) -> int:
    """How many pixels a side, 1, 2, 4 or 8, may become their mean before a picture is scaled.

    What is left is at least twice as large as what is wanted: then it hardly shows (Pillow's own
    `reducing_gap` of 2).
    """
    spare = min(size[0] / wanted[0], size[1] / wanted[1]) / 2
    return max(mean for mean in (1, 2, 4, 8) if mean <= max(1.0, spare))


def reduce(rgb: NDArray[np.uint8], size: tuple[int, int]) -> NDArray[np.uint8]:
    """Scale (H, W, 3) down to (height, width), with the filter that vision networks use."""
    small = Image.fromarray(rgb).resize(size[::-1], Image.Resampling.BILINEAR)
    return np.asarray(small).copy()


def enlarge(values: NDArray[Any], size: tuple[int, int]) -> NDArray[Any]:
    """Scale pixels (H, W, 3) uint8, or a mask (H, W) bool, up to (height, width)."""
    how = Image.Resampling.NEAREST if values.dtype == bool else Image.Resampling.BICUBIC
    return np.asarray(Image.fromarray(values).resize(size[::-1], how)).copy()


def parse_colour(colour: str | tuple[int, int, int]) -> tuple[int, int, int]:
    """RGB of a colour's name, of #rrggbb, or of three numbers.

    Raises:
        RequestError: it is none of these.
    """
    try:
        values = colour if isinstance(colour, tuple) else ImageColor.getrgb(colour)
        red, green, blue = (int(value) for value in values[:3])
        if not all(0 <= value <= 255 for value in (red, green, blue)):
            raise ValueError
    except (ValueError, TypeError, AttributeError) as error:
        raise RequestError(f"no colour {colour!r}: use a name, #rrggbb or transparent") from error
    return red, green, blue


def save_format(name: str) -> str:
    """Pillow's name of the format that a file name or a bare `png`, `jpg`, ... asks for.

    Raises:
        RequestError: no format is written under that extension.
    """
    extension = Path(name).suffix.lower() or f".{name.lower()}"
    if extension not in _SAVE_EXTENSIONS:
        known = " ".join(_SAVE_EXTENSIONS)
        raise RequestError(f"cannot tell a picture format from {name!r}; written are {known}")
    return _SAVE_EXTENSIONS[extension]


def holds_transparency(name: str) -> bool:
    """Whether the format of a file name or a bare `png`, `jpg`, ... can be transparent.

    Raises:
        RequestError: no format is written under that extension.
    """
    return save_format(name) not in _OPAQUE_FORMATS


def save(
    image: Image.Image, target: str | os.PathLike[str] | IO[bytes], format: str | None = None
) -> None:
    """Write a picture, with its ICC profile, losslessly where the format can.

    Args:
        image: what `to_image` made.
        target: a path, or a binary file object.
        format: `png`, `jpg`, `webp`, `avif`, `tiff`, `ppm` or `bmp`; by default the extension's.

    Raises:
        RequestError: unknown format, or transparency in a format that has none.
        OutputError: the file cannot be written.
    """
    if format is None:
        format = os.fspath(target) if isinstance(target, str | os.PathLike) else "png"
    name = save_format(format)
    if name in _OPAQUE_FORMATS and "A" in image.getbands():
        raise RequestError(f"{name} has no transparency; choose a background colour, or PNG")
    if format.lower().endswith("pgm") and image.mode != "L":
        raise RequestError("a .pgm holds grey pictures alone; write .ppm, or PNG")
    icc = None if name in ("PPM", "BMP") else image.info.get("icc_profile")
    options = _SAVE_OPTIONS[name] | ({"icc_profile": icc} if icc else {})
    destination = os.fspath(target) if isinstance(target, os.PathLike) else target
    try:
        image.save(destination, format=name, **options)
    except (OSError, ValueError) as error:
        # The formats differ in the largest side they hold: 16383 in WebP, 65500 in JPEG.
        raise OutputError(f"cannot write {name}: {one_line(error)}") from error


def bytes_of(source: str | os.PathLike[str] | bytes | IO[bytes]) -> bytes:
    """The bytes of a picture file, wherever they are.

    Raises:
        PictureError: there is nothing to read.
    """
    if isinstance(source, bytes | bytearray | memoryview):
        return bytes(source)
    try:
        if isinstance(source, str | os.PathLike):
            if os.path.isdir(source):
                raise PictureError("is a folder, not a picture")
            return Path(source).read_bytes()
        data = source.read()
    except OSError as error:
        raise PictureError(f"cannot be read: {error.strerror or error}") from error
    except AttributeError as error:
        raise PictureError(f"no picture can be read from a {type(source).__name__}") from error
    if not isinstance(data, bytes):
        raise PictureError("the file object gives text; open it in binary mode")
    return data


@contextmanager
def _only_own_errors() -> Iterator[None]:
    """Turn whatever Pillow raises on damaged pixels into a `PictureError`."""
    try:
        yield
    except VcmError:
        raise
    except MemoryError as error:
        raise PictureError("the picture does not fit into memory") from error
    except Image.DecompressionBombError as error:
        raise PictureError(f"the picture unpacks to far more than it says ({error})") from error
    except Exception as error:  # decoders of damaged data raise two dozen different types
        raise PictureError(f"damaged picture: {one_line(error)}") from error


def check_size(height: int, width: int, max_pixels: int) -> None:
    """Refuse sizes that no picture has, or no picture that is read here.

    Raises:
        PictureError: no pixels.
        LimitError: more than `max_pixels`, whole cells counted.
    """
    if height < 1 or width < 1:
        raise PictureError(f"the picture has no pixels ({width} x {height})")
    covered = -(-height // CELL) * -(-width // CELL) * CELL**2  # whole cells are coded
    for count in (height * width, covered):
        if count > max_pixels:
            raise LimitError("pixels", count, max_pixels, "--max-pixels")


def _from_array(array: NDArray[Any], max_pixels: int) -> Picture:
    if array.dtype != np.uint8:
        raise PictureError(f"an array must be uint8, not {array.dtype}")
    if array.ndim == 2:
        array = array[:, :, None]
    if array.ndim != 3 or array.shape[2] not in (1, 3):
        raise PictureError(f"an array must be (H, W, 3) or (H, W), not {array.shape}")
    check_size(array.shape[0], array.shape[1], max_pixels)
    grey = array.shape[2] == 1
    rgb = np.repeat(array, 3, axis=2) if grey else np.array(array, order="C")
    return Picture(rgb, grey)


def _refuse_sequences(image: Image.Image, notes: list[str]) -> None:
    frames = int(getattr(image, "n_frames", 1))
    if frames == 1:
        return
    if image.format == "MPO":  # phones store a preview or depth map behind the photograph
        notes.append(f"holds {frames} pictures; the first is taken")
    elif image.format == "TIFF":
        raise PictureError(f"holds {frames} pages; split it into single pictures first")
    else:
        raise PictureError(f"animated ({frames} frames); only still pictures are coded")


def _is_deep(image: Image.Image) -> bool:
    """Whether Pillow reduces 16-bit channels while decoding (it keeps the upper byte)."""
    modes = (
        str(part)
        for tile in getattr(image, "tile", ())
        for part in tile
        if isinstance(part, str | tuple)
    )
    return any(";16" in mode for mode in modes)


def _coded_form(image: Image.Image, notes: list[str]) -> Picture:
    rgb, grey, icc = to_rgb(image, notes)
    return Picture(rgb, grey, icc, tuple(notes))
