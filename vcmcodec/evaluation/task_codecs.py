"""The codecs whose decoded pictures a vision network is shown, each with a ladder of low rates.

Machines look at far coarser pictures than people, so the ladders begin at each codec's floor.
JPEG, WebP and AVIF are the rivals of the picture bench; JPEG XL and HEVC are run where they are
installed.  One that is not is named with its reason, never silently left out.
"""

from __future__ import annotations

import importlib
import importlib.metadata
import io
import shutil
import subprocess
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np
from PIL import Image

from vcmcodec import catalogue, pretrained
from vcmcodec.errors import RequestError
from vcmcodec.evaluation.metrics import Pixels
from vcmcodec.evaluation.rivals import RIVALS, Rival, missing
from vcmcodec.evaluation.subject import Subject
from vcmcodec.models import default_longer_side


class PixelCodec(Protocol):
    """A codec of pixels that can be shown to a network.

    Attributes:
        name: key on the command line.
        title: name in tables.
        version: of all that decides its files; None where that may change between runs, so that
            nothing about it is kept.
        model: name of the model behind it, where it is ours; None for the default.
        description: fixed settings in words.
        ladder: settings of the rate curve, coarse to fine.
    """

    @property
    def name(self) -> str:
        """Key on the command line."""

    @property
    def title(self) -> str:
        """Name in tables."""

    @property
    def version(self) -> str | None:
        """Of all that decides its files; None: keep nothing."""

    @property
    def model(self) -> str | None:
        """Name of the model behind it, where it is ours."""

    @property
    def description(self) -> str:
        """Fixed settings in words."""

    @property
    def ladder(self) -> tuple[float, ...]:
        """Settings of the rate curve."""

    def encode(self, rgb: Pixels, quality: float) -> bytes:
        """Return the whole file for an (H, W, 3) uint8 picture."""

    def decode(self, data: bytes) -> Pixels:
        """Return the picture in a file, (H, W, 3) uint8; at most a row or column larger."""


@dataclass(frozen=True)
class PillowCodec:
    """One of the picture bench's rivals on a ladder for machines."""

    rival: Rival
    ladder: tuple[float, ...]
    threads: int
    model: None = None

    @property
    def name(self) -> str:
        """See `PixelCodec`."""
        return self.rival.name

    @property
    def title(self) -> str:
        """See `PixelCodec`."""
        return self.rival.title

    @property
    def version(self) -> str:
        """See `PixelCodec`."""
        return self.rival.version

    @property
    def description(self) -> str:
        """See `PixelCodec`."""
        return self.rival.description

    def encode(self, rgb: Pixels, quality: float) -> bytes:
        """See `PixelCodec`."""
        return self.rival.encode(rgb, quality, self.threads)

    def decode(self, data: bytes) -> Pixels:
        """See `PixelCodec`."""
        return self.rival.decode(data)


@dataclass(frozen=True)
class JpegXl:
    """JPEG XL by pillow-jxl-plugin."""

    ladder: tuple[float, ...]
    name: str = "jxl"
    title: str = "JPEG XL"
    description: str = "effort 7, lossy"
    model: None = None

    @property
    def version(self) -> str:
        """See `PixelCodec`."""
        return f"pillow-jxl-plugin {importlib.metadata.version('pillow-jxl-plugin')}"

    def encode(self, rgb: Pixels, quality: float) -> bytes:
        """See `PixelCodec`."""
        sink = io.BytesIO()
        Image.fromarray(rgb).save(sink, "JXL", quality=round(quality), effort=7)
        return sink.getvalue()

    def decode(self, data: bytes) -> Pixels:
        """See `PixelCodec`."""
        with Image.open(io.BytesIO(data)) as image:
            return np.asarray(image.convert("RGB"))


_CONVERSION = "flags=bicubic+accurate_rnd+full_chroma_int"


@dataclass(frozen=True)
class Hevc:
    """One HEVC intra picture by ffmpeg's libx265, as a bare stream: what HEIF would wrap.

    The quality is 0..100 as for the others: constant rate factor 51 to 0.  Sides are made even by
    repeating the last row or column; the true size is taken as known and costs nothing.
    """

    ffmpeg: str
    ladder: tuple[float, ...]
    threads: int
    name: str = "hevc"
    title: str = "HEVC intra"
    description: str = "preset slow, 4:2:0, 8 bits, bare stream; quality is 100 (1 - crf / 51)"
    model: None = None

    @property
    def version(self) -> str:
        """See `PixelCodec`."""
        said = _run([self.ffmpeg, "-hide_banner", "-version"], b"").decode("ascii", "replace")
        return said.splitlines()[0].split("Copyright")[0].strip()

    def encode(self, rgb: Pixels, quality: float) -> bytes:
        """See `PixelCodec`."""
        height, width = rgb.shape[:2]
        even = np.pad(rgb, ((0, height % 2), (0, width % 2), (0, 0)), "edge")
        factor = 51 - 0.51 * quality
        options = (
            f"crf={factor:.2f}:keyint=1:info=0:log-level=none:pools={self.threads}:frame-threads=1"
        )
        command = [
            self.ffmpeg, "-v", "error", "-f", "rawvideo", "-pix_fmt", "rgb24",
            "-s", f"{even.shape[1]}x{even.shape[0]}", "-i", "-", "-frames:v", "1",
            "-vf", f"scale=out_color_matrix=bt709:{_CONVERSION}", "-pix_fmt", "yuv420p",
            "-c:v", "libx265", "-preset", "slow", "-x265-params", options, "-f", "hevc", "-",
        ]  # fmt: skip
        return _run(command, even.tobytes())

    def decode(self, data: bytes) -> Pixels:
        """See `PixelCodec`."""
        # PPM tells the size; the bare stream does not say which matrix made it.
        command = [
            self.ffmpeg, "-v", "error", "-threads", str(self.threads), "-f", "hevc", "-i", "-",
            "-vf", f"scale=in_color_matrix=bt709:{_CONVERSION}", "-pix_fmt", "rgb24",
            "-frames:v", "1", "-c:v", "ppm", "-f", "image2pipe", "-",
        ]  # fmt: skip
        with Image.open(io.BytesIO(_run(command, data))) as image:
            return np.asarray(image.convert("RGB"))


def _run(command: Sequence[str], given: bytes) -> bytes:
    done = subprocess.run(command, input=given, capture_output=True, check=False)
    if done.returncode:
        lines = done.stderr.decode("utf-8", "replace").strip().splitlines()
        raise RequestError(f"{command[0]} failed: {lines[-1] if lines else done.returncode}")
    return done.stdout


@dataclass(frozen=True)
class OwnPictures:
    """vcmcodec's own files, decoded to pixels; nothing is kept, since weights and code change."""

    subject: Subject
    name: str
    title: str
    ladder: tuple[float, ...]
    by_base: bool
    version: None = None

    @property
    def model(self) -> str | None:
        """See `PixelCodec`."""
        return self.subject.model

    @property
    def coded_side(self) -> int:
        """Pixels to which its files themselves reduce larger pictures; 0: not at all."""
        asked = self.subject.longer_side
        if asked is None:
            return default_side(self.model) if self.by_base else 0
        return asked

    @property
    def description(self) -> str:
        """See `PixelCodec`."""
        words = " and ".join(self.subject.tasks or ("all tasks",))
        return f"encoded for {words}, decoded to pixels"

    def encode(self, rgb: Pixels, quality: float) -> bytes:
        """See `PixelCodec`."""
        return own_file(self.subject, rgb, quality, self.by_base)

    def decode(self, data: bytes) -> Pixels:
        """See `PixelCodec`."""
        return self.subject.decode(data)


def default_side(model: str | None) -> int:
    """Pixels to which pictures that machines alone will look at are reduced; 0: not at all.

    Args:
        model: name of our model; None for the profile's.
    """
    scene = pretrained.find(profile="scene", model_id=model)
    return default_longer_side(bytes.fromhex(scene.fingerprint)) or 0


def own_file(subject: Subject, rgb: Pixels, quality: float, by_base: bool) -> bytes:
    """Encode with ours, `quality` being the level of the base layer or that of the picture."""
    if not by_base:
        return subject.encode(rgb, quality)
    from dataclasses import replace

    return replace(subject, base_quality=quality).encode(rgb, None)


# On pictures of 500x375 each spans about 0.06 (JPEG 0.2, its floor) to 1.2 bits a pixel at full
# size, and reduced to 288 pixels about a third of that.
LADDERS: dict[str, tuple[float, ...]] = {
    "jpeg": (3, 8, 14, 22, 32, 46, 65, 84),
    "webp": (0, 4, 10, 20, 35, 55, 74, 88),
    "avif": (0, 8, 16, 24, 33, 44, 58, 72),
    "jxl": (1, 8, 16, 25, 38, 55, 72, 86),
    "hevc": (4, 12, 20, 27, 34, 42, 52, 63),
}
# To the very top, where little may be lost of features (the near-lossless point).
FEATURE_LADDER = (0.0, 10.0, 20.0, 30.0, 45.0, 60.0, 80.0, 100.0)
BASE_LADDER = (0.0, 8.0, 16.0, 24.0, 33.0, 45.0, 60.0, 80.0)
PICTURE_LADDER = (0.0, 10.0, 20.0, 30.0, 42.0, 56.0, 70.0)
RIVAL_NAMES = tuple(LADDERS)
# Profiles of features have no pixels: their files are only analyzed.
FEATURE_VARIANTS = {
    name: (spec.name, variant)
    for spec in catalogue.PROFILES
    if spec.source == "features"
    for name, variant in spec.variants.items()
}
PIXEL_NAMES = ("vcm-preview", "vcm-preview-adapted", "vcm-picture")
BASE_NAMES = ("vcm-base", "vcm-base-plain")  # the second is not adapted to the network
OWN_NAMES = (*BASE_NAMES, *(f"vcm-{name}" for name in FEATURE_VARIANTS), *PIXEL_NAMES)


def open_rival(name: str, threads: int) -> PixelCodec | str:
    """A rival by name, or in words why it cannot be run here.

    Raises:
        RequestError: the name is not known.
    """
    if name in RIVALS:
        reason = missing(RIVALS[name])
        return reason if reason else PillowCodec(RIVALS[name], LADDERS[name], threads)
    if name == "jxl":
        try:
            importlib.import_module("pillow_jxl")  # registers itself with Pillow
        except ImportError:
            return "JPEG XL: pillow-jxl-plugin is not installed"
        return JpegXl(LADDERS[name])
    if name == "hevc":
        ffmpeg = shutil.which("ffmpeg")
        if ffmpeg is None:
            return "HEVC: there is no ffmpeg on the path"
        if b"libx265" not in _run([ffmpeg, "-hide_banner", "-encoders"], b""):
            return "HEVC: this ffmpeg was built without libx265"
        return Hevc(ffmpeg, LADDERS[name], threads)
    raise RequestError(f"no codec {name!r}: there are {', '.join((*OWN_NAMES, *RIVAL_NAMES))}")


def open_own(name: str, model: str | None, ladder: tuple[float, ...] | None) -> OwnPictures:
    """Ours as a codec of pixels: `vcm-preview` (base layer alone) or `vcm-picture` (for people).

    `vcm-preview-adapted` is the base layer as it is written by default, reduced and adapted to the
    reference network: what other networks see in that.
    """
    if name == "vcm-preview":
        subject = Subject(tasks=("detection",), longer_side=0, model=model)
        return OwnPictures(subject, name, "vcm base as a picture", ladder or BASE_LADDER, True)
    if name == "vcm-preview-adapted":
        subject, title = Subject(tasks=("detection",), model=model), "vcm adapted base as a picture"
        return OwnPictures(subject, name, title, ladder or BASE_LADDER, True)
    subject = Subject(tasks=("human",), model=model)
    return OwnPictures(subject, name, "vcm picture", PICTURE_LADDER, False)
