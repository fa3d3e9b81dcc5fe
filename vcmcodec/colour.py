"""Colour: any of Pillow's modes becomes 8-bit RGB, upright and opaque.

Nothing is lost in silence: whatever cannot be kept leaves a sentence in `notes`.  Files, limits
and bytes are the business of `pixels`.
"""

from __future__ import annotations

import io
from typing import TYPE_CHECKING

import numpy as np
from PIL import Image, ImageCms

from vcmcodec.bitstream.constants import MAX_ICC_BYTES
from vcmcodec.errors import PictureError

if TYPE_CHECKING:
    from numpy.typing import NDArray

_ORIENTATION_TAG = 0x0112  # EXIF 2.32, 4.6.4 A
_UPRIGHT = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}


def one_line(error: BaseException) -> str:
    """Another library's message without its line breaks."""
    return " ".join(str(error).split()) or type(error).__name__


def to_rgb(image: Image.Image, notes: list[str]) -> tuple[NDArray[np.uint8], bool, bytes | None]:
    """Convert a loaded picture of any Pillow mode, upright, to 8-bit RGB.

    Args:
        image: as Pillow decoded it.
        notes: gets one sentence for whatever is lost.

    Returns:
        (H, W, 3) uint8; whether the picture is grey; the ICC profile that describes the result.

    Raises:
        PictureError: the mode has no defined 8-bit form.
    """
    icc = image.info.get("icc_profile") or None
    image = _upright(image, notes)
    image = _without_alpha(image, notes)
    image = _eight_bits(image, notes)
    if image.mode == "CMYK":
        image, icc = _from_cmyk(image, icc, notes), None
    elif image.mode == "P":
        grey = icc is None and _grey_palette(image)
        image = image.convert("L" if grey else "RGB")
    elif image.mode in ("YCbCr", "HSV"):
        image = image.convert("RGB")
    if image.mode not in ("L", "RGB"):
        raise PictureError(f"pictures of mode {image.mode} have no defined 8-bit RGB form")
    grey = image.mode == "L"
    rgb = np.array(image.convert("RGB"), dtype=np.uint8)
    return rgb, grey, _kept_profile(icc, grey, notes)


def _upright(image: Image.Image, notes: list[str]) -> Image.Image:
    try:
        turn = _UPRIGHT.get(image.getexif().get(_ORIENTATION_TAG, 1))
    except Exception as error:  # EXIF is TIFF within the picture: it can be damaged on its own
        notes.append(f"damaged EXIF ignored ({one_line(error)})")
        return image
    return image if turn is None else image.transpose(turn)


def _without_alpha(image: Image.Image, notes: list[str]) -> Image.Image:
    """Drop transparency and keep the colours that lie under it."""
    if image.mode in ("RGBa", "La"):
        image = image.convert(image.mode.upper())
    if "transparency" in image.info and image.mode in ("P", "RGB", "L"):
        image = image.convert("LA" if image.mode == "L" else "RGBA")
    elif image.mode == "PA":
        image = image.convert("RGBA")
    if image.mode in ("RGBA", "LA"):
        lowest, _ = image.getchannel("A").getextrema()
        if lowest != 255:
            notes.append("transparency dropped; the colours under it are coded")
        image = image.convert(image.mode[:-1])
    elif image.mode == "RGBX":
        image = image.convert("RGB")
    return image


def _eight_bits(image: Image.Image, notes: list[str]) -> Image.Image:
    if image.mode == "1":
        return image.convert("L")
    if image.mode == "F":
        raise PictureError("floating-point pictures have no defined range; convert to 8 bits first")
    if image.mode != "I" and not image.mode.startswith("I;16"):
        return image
    values = np.asarray(image).astype(np.int64)
    if image.mode == "I" and image.format == "TIFF" and 0 <= values.min() <= values.max() <= 0xFF:
        notes.append("32 bits a channel hold 8 and are kept as such")
        return Image.fromarray(values.astype(np.uint8))
    if values.min() < 0 or values.max() > 0xFFFF:
        raise PictureError(f"grey values from {values.min()} to {values.max()} exceed 16 bits")
    notes.append("16 bits a channel reduced to 8")
    return Image.fromarray(((values + 128) // 257).astype(np.uint8))


def _grey_palette(image: Image.Image) -> bool:
    palette = image.getpalette("RGB") or []
    used: list[int] = np.unique(np.asarray(image)).tolist()
    return all(
        palette[3 * index] == palette[3 * index + 1] == palette[3 * index + 2]
        for index in used
        if 3 * index + 2 < len(palette)
    )


def _from_cmyk(image: Image.Image, icc: bytes | None, notes: list[str]) -> Image.Image:
    if icc is not None and icc[16:20] == b"CMYK":
        try:
            source = ImageCms.ImageCmsProfile(io.BytesIO(icc))
            target = ImageCms.createProfile("sRGB")
            converted = ImageCms.profileToProfile(image, source, target, outputMode="RGB")
        except (ImageCms.PyCMSError, OSError):
            converted = None
        if converted is not None:
            notes.append("CMYK converted to sRGB through its colour profile")
            return converted
    notes.append("CMYK converted to RGB without a usable colour profile; colours are approximate")
    return image.convert("RGB")


def _kept_profile(icc: bytes | None, grey: bool, notes: list[str]) -> bytes | None:
    """The profile, if it describes the pixels as they are now (ICC.1:2022, 7.2.6)."""
    if icc is None:
        return None
    space = b"GRAY" if grey else b"RGB "
    if len(icc) < 128 or icc[36:40] != b"acsp":
        notes.append("damaged colour profile dropped")
    elif icc[16:20] != space:
        kind = icc[16:20].decode("ascii", "replace").strip()
        notes.append(f"colour profile for {kind} dropped")
    elif len(icc) > MAX_ICC_BYTES:
        notes.append(f"colour profile of {len(icc):,} bytes dropped (more than {MAX_ICC_BYTES:,})")
    else:
        return bytes(icc)
    return None
