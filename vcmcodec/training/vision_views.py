"""Augmented views: a picture and its labels, cut and scaled together.

A view is a rectangle of a stored picture, which may reach beyond it, scaled to some size and
perhaps mirrored.  A mosaic is four views side by side.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from vcmcodec.training.blobs import BlobReader
from vcmcodec.training.vision_cache import record_key
from vcmcodec.training.vision_pictures import Sample
from vcmcodec.vision.tasks.boxes import overlaps

GREY = 114
IGNORED = 255
SURE = 0.5  # teacher's score from which its box counts as an object in a picture without labels


@dataclass(frozen=True)
class Objects:
    """Everything known about objects of one picture or view.

    Attributes:
        boxes: (n, 4) float32, x1 y1 x2 y2 in pixels.
        labels: (n,) int64.
        trust: (n,) float32, weight in the loss; 0 means "ignore this class inside this box".
    """

    boxes: np.ndarray
    labels: np.ndarray
    trust: np.ndarray

    def join(self, other: Objects) -> Objects:
        """Both lists, one after the other."""
        return Objects(
            np.concatenate((self.boxes, other.boxes)),
            np.concatenate((self.labels, other.labels)),
            np.concatenate((self.trust, other.trust)),
        )


@dataclass(frozen=True)
class View:
    """One training input.

    Attributes:
        rgb: (3, h, w) uint8.
        mask: (h, w) uint8, class 0..20, 255 where unknown.
        valid: (h / 8, w / 8) float32, 1 inside the picture.
        objects: boxes in pixels of the view.
        negatives: (h / 8, w / 8) float32: how far "no box" means "no object" (1, 0.5 or 0).
    """

    rgb: Tensor
    mask: Tensor
    valid: Tensor
    objects: Objects
    negatives: Tensor


@dataclass(frozen=True)
class Window:
    """A rectangle in pixels of the stored picture and what becomes of it."""

    left: float
    top: float
    width: float
    height: float
    flip: bool


def known_objects(sample: Sample, teacher_boxes: np.ndarray) -> Objects:
    """Labels of a picture together with what the detection teacher adds.

    The teacher's boxes that match no label become objects in pictures whose labels are
    incomplete if the teacher is sure, and regions to ignore otherwise: in complete pictures they
    are mostly "difficult" objects, which the labels leave out.
    """
    trust = np.where(sample.difficult, 0.0, sample.trust).astype(np.float32)
    objects = Objects(sample.boxes, sample.labels, trust)
    labels = teacher_boxes[:, 5].astype(np.int64)
    overlap = overlaps(teacher_boxes[:, :4], sample.boxes)
    same = labels[:, None] == sample.labels[None, :]
    new = ~((overlap * same) > 0.45).any(1) if len(sample.labels) else np.ones(len(labels), bool)
    score = teacher_boxes[new, 4]
    added = np.where((score >= SURE) & (not sample.complete), score, 0.0).astype(np.float32)
    return objects.join(Objects(teacher_boxes[new, :4], labels[new], added))


def random_window(
    rng: np.random.Generator,
    size: tuple[int, int],
    target: tuple[int, int],
    objects: Objects,
    zoom: tuple[float, float],
) -> Window:
    """Choose what part of a picture is seen.

    Args:
        rng: source of chance.
        size: (height, width) of the stored picture.
        target: (height, width) of the view.
        objects: objects of the picture; half of the windows are drawn around one of them.
        zoom: range of the picture's longer side in the view, over the view's longer side.
    """
    height, width = size
    scale = max(target) / max(size) * np.exp(rng.uniform(np.log(zoom[0]), np.log(zoom[1])))
    stretch = np.exp(rng.uniform(-0.18, 0.18))
    w, h = target[1] / (scale * stretch), target[0] / (scale / stretch)
    solid = np.flatnonzero(objects.trust > 0)
    if len(solid) and rng.random() < 0.5:
        x1, y1, x2, y2 = objects.boxes[rng.choice(solid)]
        centre = rng.uniform(x1, x2), rng.uniform(y1, y2)
        left, top = centre[0] - rng.uniform(0.2, 0.8) * w, centre[1] - rng.uniform(0.2, 0.8) * h
    else:
        left, top = rng.random() * (width - w), rng.random() * (height - h)
    # stay inside where the window is smaller than the picture, outside by any amount where not
    left = float(np.clip(left, min(0, width - w), max(0, width - w)))
    top = float(np.clip(top, min(0, height - h), max(0, height - h)))
    return Window(left, top, w, h, bool(rng.random() < 0.5))


def cut_view(cache: BlobReader, sample: Sample, window: Window, target: tuple[int, int]) -> View:
    """Cut one view; `target` is its (height, width), multiples of 32."""
    key = record_key(sample)
    rgb = _cut_picture(cache.get(key, "rgb"), window, target, GREY, Image.Resampling.BILINEAR)
    if sample.mask:
        stored = cache.get(key, "mask")
        mask = _cut_picture(stored, window, target, IGNORED, Image.Resampling.NEAREST)
    else:
        mask = np.full(target, IGNORED, np.uint8)
    height, width = cache.get(key, "rgb").shape[:2]
    cells = target[0] // 8, target[1] // 8
    inside_y = _inside(cells[0], window.top, window.height, height)
    inside_x = _inside(cells[1], window.left, window.width, width)
    valid = inside_y[:, None] * inside_x[None, :]
    if window.flip:
        rgb, mask, valid = rgb[:, ::-1], mask[:, ::-1], valid[:, ::-1]
    objects = known_objects(sample, cache.get(key, "teacher_boxes"))
    sure = 1.0 if sample.complete else 0.5 if sample.labelled else 0.0
    return View(
        rgb=torch.from_numpy(rgb.transpose(2, 0, 1).copy()),
        mask=torch.from_numpy(mask.copy()),
        valid=torch.from_numpy(valid.astype(np.float32)),
        objects=_move_objects(objects, window, target),
        negatives=torch.full(cells, sure),
    )


def _cut_picture(
    stored: np.ndarray, window: Window, target: tuple[int, int], fill: int, how: Image.Resampling
) -> np.ndarray:
    height, width = stored.shape[:2]
    zoom_x, zoom_y = target[1] / window.width, target[0] / window.height
    x1, x2 = max(window.left, 0.0), min(window.left + window.width, width)
    y1, y2 = max(window.top, 0.0), min(window.top + window.height, height)
    left, top = round((x1 - window.left) * zoom_x), round((y1 - window.top) * zoom_y)
    right, bottom = round((x2 - window.left) * zoom_x), round((y2 - window.top) * zoom_y)
    out = np.full(target + stored.shape[2:], fill, np.uint8)
    if right > left and bottom > top:
        picture = Image.fromarray(stored).resize(
            (right - left, bottom - top), how, box=(x1, y1, x2, y2)
        )
        out[top:bottom, left:right] = np.asarray(picture)
    return out


def _inside(count: int, start: float, length: float, size: int) -> np.ndarray:
    centre = start + (np.arange(count) + 0.5) * length / count
    return ((centre > 0) & (centre < size)).astype(np.float32)


def _move_objects(objects: Objects, window: Window, target: tuple[int, int]) -> Objects:
    zoom = np.array([target[1] / window.width, target[0] / window.height] * 2, np.float32)
    origin = np.array([window.left, window.top] * 2, np.float32)
    boxes = (objects.boxes - origin) * zoom
    if window.flip:
        boxes = boxes[:, [2, 1, 0, 3]]
        boxes[:, [0, 2]] = target[1] - boxes[:, [0, 2]]
    clipped = boxes.copy()
    clipped[:, 0::2] = boxes[:, 0::2].clip(0, target[1])
    clipped[:, 1::2] = boxes[:, 1::2].clip(0, target[0])
    side = clipped[:, 2:] - clipped[:, :2]
    whole = np.maximum((boxes[:, 2:] - boxes[:, :2]).prod(1), 1e-6)
    seen = side.prod(1) / whole
    there = (side.min(1) > 1) if len(side) else np.zeros(0, bool)
    # too little of it is left, or it is too small, to ask that it be found
    trust = np.where((seen < 0.3) | (side.max(1, initial=0) < 8), 0.0, objects.trust)
    return Objects(clipped[there], objects.labels[there], trust[there].astype(np.float32))


def join_views(views: list[View]) -> View:
    """Four views (top left, top right, bottom left, bottom right) into one."""

    def glue(tensors: list[Tensor]) -> Tensor:
        top = torch.cat(tensors[:2], -1)
        return torch.cat((top, torch.cat(tensors[2:], -1)), -2)

    height, width = views[0].rgb.shape[1:]
    objects = None
    for view, (x, y) in zip(views, ((0, 0), (width, 0), (0, height), (width, height)), strict=True):
        offset = np.array([x, y, x, y], np.float32)
        moved = Objects(view.objects.boxes + offset, view.objects.labels, view.objects.trust)
        objects = moved if objects is None else objects.join(moved)
    assert objects is not None
    return View(
        rgb=glue([v.rgb for v in views]),
        mask=glue([v.mask for v in views]),
        valid=glue([v.valid for v in views]),
        objects=objects,
        negatives=glue([v.negatives for v in views]),
    )
