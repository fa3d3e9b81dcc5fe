"""Real photographs in small pieces, maps of groups, and looks into finished files."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace
from functools import cache
from pathlib import Path

import numpy as np
import skimage
from PIL import Image

from vcmcodec.bitstream.constants import LayerId
from vcmcodec.bitstream.container import Container, Substream, write

# Those that scikit-image's wheel holds; nothing is downloaded.
NAMES = ("astronaut.png", "coffee.png", "chelsea.png", "rocket.jpg")


@cache
def whole(name: str) -> np.ndarray:
    """(H, W, 3) uint8, read-only: `name` is one of `NAMES`, with or without its suffix."""
    file = next(one for one in NAMES if Path(one).stem == Path(name).stem)
    with Image.open(Path(skimage.__file__).parent / "data" / file) as image:
        rgb = np.array(image.convert("RGB"))
    rgb.setflags(write=False)
    return rgb


def photograph(name: str, height: int, width: int, top: int = 0, left: int = 0) -> np.ndarray:
    """A piece of a photograph, (height, width, 3) uint8, one's own copy."""
    return whole(name)[top : top + height, left : left + width].copy()


def astronaut(height: int = 112, width: int = 160) -> np.ndarray:
    """Face, hair and suit: smooth and busy places."""
    return photograph("astronaut", height, width, 20, 160)


def coffee(height: int = 131, width: int = 97) -> np.ndarray:
    """Cup and wood, at a size that is no multiple of anything."""
    return photograph("coffee", height, width, 120, 200)


def grid(height: int, width: int) -> tuple[int, int]:
    """Rows and columns of cells."""
    return -(-height // 16), -(-width // 16)


def pixels_of(cells: np.ndarray, height: int, width: int) -> np.ndarray:
    """A mask of cells (rows, columns) as one of pixels (height, width)."""
    return cells.repeat(16, 0).repeat(16, 1)[:height, :width]


def psnr(one: np.ndarray, other: np.ndarray) -> float:
    """Decibels on RGB or grey, of uint8."""
    error = np.mean((one.astype(np.float64) - other.astype(np.float64)) ** 2)
    return float(10 * np.log10(255**2 / max(error, 1e-12)))


Key = tuple[int, int, int, int]  # kind, layer, group, tile


def substreams(file: bytes) -> dict[Key, bytes]:
    """The bytes of every substream."""
    container = Container.read(file)
    data = container.fetch(container.entries)
    return {(int(e.kind), int(e.layer), e.group, e.tile): data[e] for e in container.entries}


def rewritten(file: bytes, changes: Iterable[tuple[Key, bytes]]) -> bytes:
    """The file with other bytes in some substreams, and directory and CRC-32s to match."""
    changed = dict(changes)
    parts = [
        Substream(key[0], LayerId(key[1]), key[2], changed.get(key, data), key[3])
        for key, data in substreams(file).items()
    ]
    return write(replace(Container.read(file).header, extra=b""), parts)
