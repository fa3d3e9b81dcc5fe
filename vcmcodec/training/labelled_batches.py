"""Training batches of a labelled set: pictures scaled to one size, with their boxes and masks.

For trainings that need labels alone; those of the vision network itself, with teachers and strong
augmentation, are `vision_batches`.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
from PIL import Image

from vcmcodec.errors import RequestError
from vcmcodec.evaluation.labelled import LabelledPicture, LabelledSet
from vcmcodec.training.vision_batches import Batch
from vcmcodec.vision.geometry import GREY

UNKNOWN = 255
CELL = 8  # pixels a cell of `Batch.valid`


class LabelledBatches:
    """Random pictures of a labelled set, kept as files in memory.

    Args:
        labels: COCO JSON, as `LabelledSet` takes it.
        names: classes of the network, in its order; the set must have the same.
        side: of the square views, a multiple of 32; pictures are scaled to fit and padded.

    Raises:
        RequestError: no picture, or other classes.
    """

    def __init__(self, labels: Path, names: tuple[str, ...], side: int) -> None:
        found = LabelledSet(labels)
        if found.labels != names:
            raise RequestError(f"{labels} has other classes than the network")
        self.side = side
        self.pictures = list(found.pictures())
        self._objects: dict[int, list[tuple[list[float], int, float]]] = {}
        for one in found.truth()["annotations"]:
            left, top, width, height = one["bbox"]
            box = [left, top, left + width, top + height]
            item = (box, one["category_id"] - 1, 0.0 if one["iscrowd"] else 1.0)
            self._objects.setdefault(one["image_id"], []).append(item)

    def batch(self, count: int, random: np.random.Generator) -> Batch:
        """That many pictures, half of them mirrored."""
        chosen = random.integers(len(self.pictures), size=count)
        views = [self._view(self.pictures[i], random.random() < 0.5) for i in chosen]
        cells = self.side // CELL
        valid = torch.zeros(count, cells, cells)
        for row, (_, _, (height, width), _) in zip(valid, views, strict=True):
            row[: -(-height // CELL), : -(-width // CELL)] = 1
        objects = [item for *_, items in views for item in items]
        rgb = torch.from_numpy(np.stack([rgb for rgb, *_ in views])).permute(0, 3, 1, 2)
        return Batch(
            rgb=rgb.contiguous(memory_format=torch.channels_last),
            mask=torch.from_numpy(np.stack([mask for _, mask, *_ in views])),
            valid=valid,
            negatives=valid.clone(),
            boxes=torch.tensor([box for box, _, _ in objects]).reshape(-1, 4).float(),
            labels=torch.tensor([label for _, label, _ in objects], dtype=torch.int64),
            trust=torch.tensor([trust for *_, trust in objects]).float(),
            counts=tuple(len(items) for *_, items in views),
        )

    def _view(
        self, picture: LabelledPicture, flip: bool
    ) -> tuple[
        np.ndarray, np.ndarray, tuple[int, int], list[tuple[list[float], int, float]]
    ]:  # fmt: skip
        """Pixels (side, side, 3) in 0..1, mask, height and width inside, objects."""
        full = picture.rgb()
        scale = self.side / max(full.shape[:2])
        height, width = (max(1, round(side * scale)) for side in full.shape[:2])
        small = Image.fromarray(full).resize((width, height), Image.Resampling.BILINEAR)
        rgb = np.full((self.side, self.side, 3), GREY, np.float32)
        rgb[:height, :width] = np.asarray(small)[:, :: -1 if flip else 1] / np.float32(255)
        mask = np.full((self.side, self.side), UNKNOWN, np.uint8)
        if picture.mask is not None:
            near = Image.fromarray(picture.mask).resize((width, height), Image.Resampling.NEAREST)
            mask[:height, :width] = np.asarray(near)[:, :: -1 if flip else 1]
        objects = []
        for box, label, trust in self._objects.get(picture.id, []):
            left, top, right, bottom = (value * scale for value in box)
            if flip:
                left, right = width - right, width - left
            objects.append(([left, top, right, bottom], label, trust))
        return rgb, mask, (height, width), objects
