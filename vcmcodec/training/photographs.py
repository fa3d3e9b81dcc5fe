"""Crops of photographs for training, from folders or tar shards, kept decoded in memory."""

from __future__ import annotations

import io
import tarfile
from collections.abc import Iterable, Iterator, Sequence
from itertools import islice
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from vcmcodec.errors import PictureError, RequestError

PICTURE_SUFFIXES = (".png", ".jpg", ".jpeg", ".webp", ".ppm", ".tif", ".tiff", ".bmp")


def picture_bytes(sources: Sequence[Path]) -> Iterator[tuple[str, bytes]]:
    """Name and bytes of every picture in folders, tar shards and single files, in sorted order.

    A PNG beside a picture of the same name is its class mask, and is never opened.
    """
    for source in sources:
        if source.is_dir():
            for name in _pictures(path.name for path in source.iterdir()):
                yield name, (source / name).read_bytes()
        elif source.suffix == ".tar":
            with tarfile.open(source) as shard:
                members = {m.name: m for m in shard.getmembers() if m.isfile()}
                for name in _pictures(members):
                    file = shard.extractfile(members[name])
                    if file:
                        yield name, file.read()
        elif source.is_file():
            yield source.name, source.read_bytes()
        else:
            raise RequestError(f"{source}: no such folder, tar shard or picture")


def _pictures(names: Iterable[str]) -> list[str]:
    """Those of some file names that are pictures and no masks of others, sorted."""
    found = sorted(name for name in names if Path(name).suffix.lower() in PICTURE_SUFFIXES)
    others = {str(Path(n).with_suffix("")) for n in found if Path(n).suffix.lower() != ".png"}
    return [
        name
        for name in found
        if Path(name).suffix.lower() != ".png" or str(Path(name).with_suffix("")) not in others
    ]


def read_pictures(sources: Sequence[Path], limit: int) -> list[np.ndarray]:
    """The first pictures, (H, W, 3) uint8 each."""
    return [_decoded(*found) for found in islice(picture_bytes(sources), limit)]


def _decoded(name: str, data: bytes) -> np.ndarray:
    """Pixels (H, W, 3) uint8 of a picture file.

    Raises:
        PictureError: it is damaged, or no picture.
    """
    try:
        return np.asarray(Image.open(io.BytesIO(data)).convert("RGB"))
    except (OSError, ValueError, SyntaxError, Image.DecompressionBombError) as error:
        raise PictureError(f"{name}: cannot be read as a picture to train on") from error


class PhotographCrops:
    """Random square crops: flips, quarter turns, now and then a reduced picture.

    Args:
        sources: folders, tar shards, files.
        size: side in pixels; pictures too small for it are left out.
        enlarged: pictures are enlarged by up to this factor (for vision, where objects would be too
            small otherwise).
        upright: no quarter turns, since objects stand on their feet.
    """

    REDUCED = 0.3  # share of the crops that come from a picture reduced by 0.5 .. 1

    def __init__(
        self,
        sources: Sequence[Path],
        size: int,
        *,
        enlarged: float = 1.0,
        upright: bool = False,
    ) -> None:
        self.size, self.enlarged, self.upright = size, enlarged, upright
        self.pictures: list[np.ndarray] = []
        for name, data in picture_bytes(sources):
            rgb = _decoded(name, data)
            if min(rgb.shape[:2]) * enlarged >= size:
                self.pictures.append(rgb)
        if not self.pictures:
            raise RequestError(f"no picture of at least {size}x{size} pixels to train on")
        areas = np.array([p.shape[0] * p.shape[1] for p in self.pictures], np.float64)
        self._chance = areas / areas.sum()

    def _crop(self, random: np.random.Generator) -> np.ndarray:
        rgb = self.pictures[int(random.choice(len(self.pictures), p=self._chance))]
        height, width = rgb.shape[:2]
        side, most = self.size, min(height, width)
        if self.enlarged > 1.0:
            side = int(self.size / random.uniform(1.0, self.enlarged))
        elif random.random() < self.REDUCED:
            side = int(self.size * random.uniform(1.0, min(2.0, most / self.size)))
        side = min(side, most)
        top, left = random.integers(height - side + 1), random.integers(width - side + 1)
        crop = rgb[top : top + side, left : left + side]
        if side != self.size:
            small = Image.fromarray(crop).resize((self.size, self.size), Image.Resampling.LANCZOS)
            crop = np.asarray(small)
        if random.random() < 0.5:
            crop = crop[:, ::-1]
        if self.upright:
            return crop
        return np.rot90(crop, int(random.choice([0, 0, 0, 1, 3])))

    def batch(self, count: int, random: np.random.Generator) -> Tensor:
        """(count, 3, size, size) float32 in 0..1."""
        crops = np.stack([self._crop(random) for _ in range(count)])
        return torch.from_numpy(crops).permute(0, 3, 1, 2).float() / 255


def random_labels(rows: int, columns: int, random: np.random.Generator) -> np.ndarray:
    """A random group map: two to four groups, rectangles or blobs, at cell resolution."""
    labels = np.zeros((rows, columns), np.int64)
    y, x = np.mgrid[:rows, :columns]
    for group in range(1, int(random.choice([2, 2, 3, 4]))):
        cy, cx = random.uniform(0, rows), random.uniform(0, columns)
        ry, rx = random.uniform(1, rows / 2), random.uniform(1, columns / 2)
        if random.random() < 0.5:
            inside = (abs(y - cy) < ry) & (abs(x - cx) < rx)
        else:
            inside = ((y - cy) / ry) ** 2 + ((x - cx) / rx) ** 2 < 1
        labels[inside] = group
    return labels


class Views:
    """Square views of photographs and of pictures of objects, which are enlarged at random."""

    def __init__(self, photographs: Sequence[Path], objects: Sequence[Path], side: int) -> None:
        """Decode all pictures; see `PhotographCrops`."""
        self.photographs = PhotographCrops(photographs, side, upright=True)
        self.objects = (
            PhotographCrops(objects, side, enlarged=1.8, upright=True) if objects else None
        )

    def batch(self, count: int, random: np.random.Generator) -> Tensor:
        """(count, 3, side, side): a third of the batches photographs, the rest objects."""
        if self.objects is None or random.random() < 1 / 3:
            return self.photographs.batch(count, random)
        return self.objects.batch(count, random)
