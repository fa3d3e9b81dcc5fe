"""What a vision network found in one picture: frozen results, without torch.

All positions are in pixels of the true picture, whatever size the network looked at.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from vcmcodec.errors import RequestError


@dataclass(frozen=True)
class DetectedObject:
    """One object.

    Attributes:
        label: class name.
        score: 0..1.
        box: (x, y, width, height) in pixels, inside the picture.
    """

    label: str
    score: float
    box: tuple[float, float, float, float]

    def __post_init__(self) -> None:
        if not 0 <= self.score <= 1 or self.box[2] < 0 or self.box[3] < 0:
            raise RequestError(f"not an object: score {self.score}, box {self.box}")


@dataclass(frozen=True)
class ClassScore:
    """How probable it is that the picture shows a class."""

    label: str
    score: float


@dataclass(frozen=True, eq=False)
class LabelMap:
    """A class for each pixel.

    Attributes:
        labels: (H, W) uint8, an index into `names`.
        names: class names; index 0 is the background.
    """

    labels: np.ndarray
    names: tuple[str, ...]

    def __post_init__(self) -> None:
        if self.labels.ndim != 2 or self.labels.dtype != np.uint8:
            raise RequestError(f"a label map is (H, W) uint8, not {self.labels.shape}")

    def areas(self) -> dict[str, float]:
        """Share of the picture for every class that is there, largest first."""
        counts = np.bincount(self.labels.ravel(), minlength=len(self.names))
        order = np.argsort(-counts, kind="stable")
        return {self.names[i]: float(counts[i] / self.labels.size) for i in order if counts[i] > 0}


@dataclass(frozen=True, eq=False)
class Predictions:
    """Results of one picture; a task that was not asked for is None.

    Attributes:
        height, width: of the true picture.
        objects: best first.
        classes: best first, every class of the network.
        label_map: of the picture's size.
    """

    height: int
    width: int
    objects: tuple[DetectedObject, ...] | None = None
    classes: tuple[ClassScore, ...] | None = None
    label_map: LabelMap | None = None

    def __post_init__(self) -> None:
        if self.label_map is not None and self.label_map.labels.shape != (self.height, self.width):
            raise RequestError("the label map has not the picture's size")

    def above(self, score: float) -> Predictions:
        """The same results without objects and classes below a score."""
        return Predictions(
            self.height,
            self.width,
            None if self.objects is None else tuple(o for o in self.objects if o.score >= score),
            None if self.classes is None else tuple(c for c in self.classes if c.score >= score),
            self.label_map,
        )

    def likely(self, score: float) -> tuple[ClassScore, ...]:
        """Classes that people are told of: those from a score up, or else the best one."""
        classes = self.classes or ()
        return tuple(c for c in classes if c.score >= score) or classes[:1]

    def to_json(self, file: str, task: str) -> dict[str, Any]:
        """One JSON-ready object; only what was asked for is in it."""
        found: dict[str, Any] = {
            "file": file,
            "task": task,
            "width": self.width,
            "height": self.height,
        }
        if self.objects is not None:
            found["objects"] = [
                {
                    "label": thing.label,
                    "score": round(thing.score, 4),
                    "box": [round(v, 2) for v in thing.box],
                }
                for thing in self.objects
            ]
        if self.classes is not None:
            found["classes"] = [
                {"label": c.label, "score": round(c.score, 4)} for c in self.classes
            ]
        if self.label_map is not None:
            found["areas"] = {k: round(v, 5) for k, v in self.label_map.areas().items()}
        return found


def clip_box(
    corners: Sequence[float], height: int, width: int
) -> tuple[float, float, float, float]:
    """x1 y1 x2 y2 to (x, y, width, height) inside the picture."""
    x1, x2 = (min(max(float(v), 0.0), float(width)) for v in (corners[0], corners[2]))
    y1, y2 = (min(max(float(v), 0.0), float(height)) for v in (corners[1], corners[3]))
    return x1, y1, max(0.0, x2 - x1), max(0.0, y2 - y1)


def to_coco(
    predictions: Sequence[Predictions], image_ids: Sequence[int], labels: Sequence[str]
) -> list[dict[str, Any]]:
    """Detections of several pictures as a COCO result list; category ids count from 1."""
    return [
        {
            "image_id": image_id,
            "category_id": labels.index(thing.label) + 1,
            "bbox": [round(v, 3) for v in thing.box],
            "score": round(thing.score, 5),
        }
        for found, image_id in zip(predictions, image_ids, strict=True)
        for thing in found.objects or ()
    ]
