"""Two views of each picture, with points that both show; crops follow the feature's own heat.

Pictures stay as they are stored and are decoded when they are drawn, so a large pool needs little
memory.  Nothing but pictures is read (`photographs.picture_bytes`).

Source of guided crops: Peng et al., "Crafting better contrastive views for Siamese representation
learning" (ContrastiveCrop), CVPR 2022.
"""

from __future__ import annotations

import io
import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from vcmcodec.errors import RequestError
from vcmcodec.training.photographs import picture_bytes
from vcmcodec.training.semantic import FeaturesRecipe
from vcmcodec.training.vision_batches import change_colours
from vcmcodec.training.vision_pictures import LONGER_SIDE

ASPECT = math.log(4 / 3)
BETA = 0.6  # centres lean towards the border of the hot box, so that the views differ more
LEAST_SHARED = 8.0  # pixels that two views must share either way to be matched point by point
HOT = 0.25  # share of the greatest heat above which a place is hot


@dataclass(frozen=True)
class Views:
    """Two views of every picture of a batch, the first ones first.

    Attributes:
        rgb: (2 N, 3, s, s) float32 in 0..1, colours changed.
        places: (2 N, P, 2) points x, y in -1..1 of the view; point p of view i and of view N + i
            is the same point of the picture.
        shared: (N,) bool, whether the two views show enough of the same.
    """

    rgb: Tensor
    places: Tensor
    shared: Tensor

    def to(self, device: torch.device) -> Views:
        """The same on another device."""
        return Views(self.rgb.to(device), self.places.to(device), self.shared.to(device))


@dataclass(frozen=True)
class Window:
    """A part of a picture, in its pixels, that becomes a view."""

    left: float
    top: float
    width: float
    height: float
    flipped: bool

    def place(self, points: np.ndarray) -> np.ndarray:
        """Points (n, 2) of the picture in -1..1 of the view."""
        x = (points[:, 0] - self.left) / self.width * 2 - 1
        y = (points[:, 1] - self.top) / self.height * 2 - 1
        return np.stack([-x if self.flipped else x, y], 1)


def draw_window(
    size: tuple[int, int], box: Sequence[float], area: float, random: np.random.Generator
) -> Window:
    """A window whose centre lies in a box.

    Args:
        size: width and height of the picture.
        box: left, top, right, bottom as shares of the picture.
        area: least share of the picture that it shows.
    """
    width, height = size
    aspect = math.exp(random.uniform(-ASPECT, ASPECT))
    pixels = random.uniform(area, 1) * width * height
    wide = min(width, math.sqrt(pixels * aspect))
    high = min(height, math.sqrt(pixels / aspect))
    across = box[0] + random.beta(BETA, BETA) * (box[2] - box[0])
    down = box[1] + random.beta(BETA, BETA) * (box[3] - box[1])
    left = min(max(across * width - wide / 2, 0), width - wide)
    top = min(max(down * height - high / 2, 0), height - high)
    return Window(left, top, wide, high, bool(random.random() < 0.5))


def shared_points(
    one: Window, other: Window, count: int, random: np.random.Generator
) -> np.ndarray | None:
    """Points (count, 2) of the picture that two windows show; None where they share too little."""
    left, top = max(one.left, other.left), max(one.top, other.top)
    right = min(one.left + one.width, other.left + other.width)
    bottom = min(one.top + one.height, other.top + other.height)
    if right - left < LEAST_SHARED or bottom - top < LEAST_SHARED:
        return None
    return random.uniform((left, top), (right, bottom), (count, 2))


def hot_box(heat: np.ndarray) -> tuple[float, float, float, float]:
    """The box around what is hot, as shares of a heat map (h, w): left, top, right, bottom."""
    low, high = float(heat.min()), float(heat.max())
    hot = heat >= low + HOT * (high - low)
    rows, columns = np.flatnonzero(hot.any(1)), np.flatnonzero(hot.any(0))
    height, width = heat.shape
    return (
        columns[0] / width, rows[0] / height, (columns[-1] + 1) / width, (rows[-1] + 1) / height,
    )  # fmt: skip


class ViewPool:
    """Pictures to take views of.

    Args:
        sources: folders, tar shards, files.

    Raises:
        RequestError: there is no picture.
    """

    def __init__(self, sources: Sequence[Path]) -> None:
        self._pictures = [data for _, data in picture_bytes(sources)]
        if not self._pictures:
            raise RequestError("no pictures to train on")

    def __len__(self) -> int:
        return len(self._pictures)

    def picture(self, index: int) -> Image.Image:
        """A picture, its longer side reduced to `LONGER_SIDE`."""
        with Image.open(io.BytesIO(self._pictures[index])) as image:
            image.draft("RGB", (LONGER_SIDE, LONGER_SIDE))
            found = image.convert("RGB")
        if max(found.size) > LONGER_SIDE:
            found.thumbnail((LONGER_SIDE, LONGER_SIDE), Image.Resampling.BILINEAR)
        return found

    def small(self, indices: Sequence[int], side: int) -> Tensor:
        """Whole pictures squeezed to squares, (n, 3, side, side) in 0..1: to look for heat."""
        size, how = (side, side), Image.Resampling.BILINEAR
        made = [np.asarray(self.picture(index).resize(size, how)) for index in indices]
        return torch.from_numpy(np.stack(made)).permute(0, 3, 1, 2).float() / 255

    def views(self, recipe: FeaturesRecipe, boxes: Tensor, random: np.random.Generator) -> Views:
        """A batch of pictures, two views each.

        Args:
            boxes: (pictures, 4) of each picture; see `hot_box`.
        """
        count = min(recipe.batch, len(self))
        pairs: list[list[Tensor]] = [[], []]
        places: list[list[np.ndarray]] = [[], []]
        shared = []
        for index in random.choice(len(self), count, replace=False):
            picture = self.picture(int(index))
            box = boxes[int(index)].tolist() if recipe.guided else (0.0, 0.0, 1.0, 1.0)
            windows = [draw_window(picture.size, box, recipe.area, random) for _ in range(2)]
            points = shared_points(windows[0], windows[1], recipe.points, random)
            shared.append(points is not None)
            for window, views, spots in zip(windows, pairs, places, strict=True):
                views.append(change_colours(_cut(picture, window, recipe.crop), random))
                known = np.zeros((recipe.points, 2)) if points is None else window.place(points)
                spots.append(known)
        spots = np.stack(places[0] + places[1]).astype(np.float32)
        rgb = torch.stack(pairs[0] + pairs[1]).contiguous(memory_format=torch.channels_last)
        return Views(rgb, torch.from_numpy(spots), torch.tensor(shared))


def _cut(picture: Image.Image, window: Window, side: int) -> Tensor:
    """A window as (3, side, side) in 0..1."""
    box = (window.left, window.top, window.left + window.width, window.top + window.height)
    view = np.array(picture.resize((side, side), Image.Resampling.BILINEAR, box=box))
    if window.flipped:
        view = view[:, ::-1]
    return torch.from_numpy(np.ascontiguousarray(view)).permute(2, 0, 1).float() / 255
