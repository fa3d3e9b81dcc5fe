"""Training batches: batch `i` is a function of the seed and of `i`, so a run can be resumed."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

from vcmcodec.training.blobs import BlobReader
from vcmcodec.training.vision_pictures import Sample, read_samples
from vcmcodec.training.vision_views import (
    View,
    cut_view,
    join_views,
    known_objects,
    random_window,
)

RARE_SHARE = 0.08  # classes in fewer pictures than this share are drawn more often
UNLABELLED_WEIGHT = 0.4


@dataclass(frozen=True)
class Batch:
    """Views of equal size, stacked.

    Attributes:
        rgb: (N, 3, n, n) float32 in 0..1, colours changed.
        mask: (N, n, n) uint8, 0..20 or 255.
        valid: (N, n / 8, n / 8), 1 inside the picture.
        negatives: (N, n / 8, n / 8), weight of "nothing here".
        boxes, labels, trust: of all pictures' objects, one after another; see `Objects`.
        counts: objects of each picture.
    """

    rgb: Tensor
    mask: Tensor
    valid: Tensor
    negatives: Tensor
    boxes: Tensor
    labels: Tensor
    trust: Tensor
    counts: tuple[int, ...]

    def objects(self) -> Iterator[tuple[Tensor, Tensor, Tensor]]:
        """Boxes (n, 4), labels (n,) and trust (n,) of each picture in turn."""
        # one tensor for all pictures, since each costs a file handle on its way from a worker
        fields = (self.boxes, self.labels, self.trust)
        boxes, labels, trust = (torch.split(field, list(self.counts)) for field in fields)
        return zip(boxes, labels, trust, strict=True)

    def to(self, device: torch.device) -> Batch:
        """The same batch on another device."""
        return Batch(
            self.rgb.to(device),
            self.mask.to(device),
            self.valid.to(device),
            self.negatives.to(device),
            self.boxes.to(device),
            self.labels.to(device),
            self.trust.to(device),
            self.counts,
        )


class VisionBatches(torch.utils.data.Dataset):
    """Batches by step number; safe to read from worker processes."""

    def __init__(
        self,
        data: Path,
        cache: Path,
        *,
        side: int,
        size: int,
        seed: int = 0,
        mosaic: float = 0.4,
        zoom: tuple[float, float] = (0.7, 2.0),
    ) -> None:
        """Open the cache.

        Args:
        data: folder with the tars and JSON files.
        cache: folder written by `vision_cache.build`.
        side: pixels of the square views.
        size: views a batch.
        seed: changes every batch.
        mosaic: share of views that are four pictures side by side.
        zoom: range of the picture's longer side over the view's.
        """
        self.cache = BlobReader(cache / "pictures")
        self.samples = read_samples(data)
        self.side, self.size, self.seed = side, size, seed
        self.mosaic, self.zoom = mosaic, zoom
        self.weights = sampling_weights(self.samples)

    def __len__(self) -> int:
        return 1 << 30

    def __getitem__(self, step: int) -> Batch:
        rng = np.random.default_rng((self.seed, step))
        chosen = rng.choice(len(self.samples), self.size, p=self.weights)
        views = [
            self._mosaic(rng) if rng.random() < self.mosaic else self._single(rng, int(i))
            for i in chosen
        ]
        return stack(views, rng)

    def _single(self, rng: np.random.Generator, index: int) -> View:
        return self._view(rng, index, (self.side, self.side), self.zoom)

    def _mosaic(self, rng: np.random.Generator) -> View:
        steps = self.side // 32
        x, y = (32 * int(v) for v in rng.integers(steps // 4 + 1, steps - steps // 4, 2))
        shapes = [(y, x), (y, self.side - x), (self.side - y, x), (self.side - y, self.side - x)]
        picked = rng.choice(len(self.samples), 4, p=self.weights)
        zoom = (max(self.zoom[0], 0.8), self.zoom[1])
        return join_views(
            [self._view(rng, int(i), s, zoom) for i, s in zip(picked, shapes, strict=True)]
        )

    def _view(
        self,
        rng: np.random.Generator,
        index: int,
        target: tuple[int, int],
        zoom: tuple[float, float],
    ) -> View:
        sample = self.samples[index]
        key = f"{sample.tar}/{sample.name}"
        height, width = self.cache.get(key, "rgb").shape[:2]
        objects = known_objects(sample, self.cache.get(key, "teacher_boxes"))
        window = random_window(rng, (height, width), target, objects, zoom)
        return cut_view(self.cache, sample, window, target)


def sampling_weights(samples: list[Sample]) -> np.ndarray:
    """Probability of each picture: rare classes more often, unlabelled ones less.

    A picture's factor is sqrt(RARE_SHARE / share) of its rarest class, at least 1 (the repeat
    factor of LVIS, Gupta et al. 2019).
    """
    present = np.zeros((len(samples), 20), bool)
    for row, sample in zip(present, samples, strict=True):
        row[sample.labels[~sample.difficult]] = True
    share = np.maximum(present.mean(0), 1e-6)
    factor = np.maximum(1.0, np.sqrt(RARE_SHARE / share))
    weight = np.where(present, factor, 0.0).max(1)
    weight[weight == 0] = UNLABELLED_WEIGHT
    result: np.ndarray = weight / weight.sum()
    return result


def stack(views: list[View], rng: np.random.Generator) -> Batch:
    """Views to a batch, with colours changed at random."""
    rgb = torch.stack([change_colours(v.rgb.float() / 255, rng) for v in views])
    return Batch(
        rgb=rgb.contiguous(memory_format=torch.channels_last),
        mask=torch.stack([v.mask for v in views]),
        valid=torch.stack([v.valid for v in views]),
        negatives=torch.stack([v.negatives for v in views]),
        boxes=torch.from_numpy(np.concatenate([v.objects.boxes for v in views])),
        labels=torch.from_numpy(np.concatenate([v.objects.labels for v in views])),
        trust=torch.from_numpy(np.concatenate([v.objects.trust for v in views])),
        counts=tuple(len(v.objects.labels) for v in views),
    )


def change_colours(rgb: Tensor, rng: np.random.Generator) -> Tensor:
    """Saturation, hue, contrast, brightness, now and then blur and noise; (3, h, w) in 0..1."""
    grey = np.full((3, 3), 1 / 3)
    saturation = 0.0 if rng.random() < 0.05 else rng.uniform(0.5, 1.5)
    angle = rng.uniform(-0.2, 0.2)
    # rotation about the grey axis is a change of hue
    skew = np.array([[0, -1, 1], [1, 0, -1], [-1, 1, 0]]) / np.sqrt(3)
    turn = np.cos(angle) * np.eye(3) + np.sin(angle) * skew + (1 - np.cos(angle)) * grey
    matrix = (grey + saturation * (np.eye(3) - grey)) @ turn * rng.uniform(0.65, 1.35)
    offset = rng.uniform(-0.1, 0.1)
    out = torch.from_numpy(matrix.astype(np.float32)) @ (rgb.flatten(1) - 0.45) + 0.45 + offset
    out = out.view_as(rgb)
    if rng.random() < 0.15:
        out = functional.avg_pool2d(
            functional.pad(out[None], (1, 1, 1, 1), mode="replicate"), 3, 1
        )[0]
    if rng.random() < 0.1:
        noise = torch.from_numpy(rng.standard_normal(out.shape, np.float32))
        out = out + noise * float(rng.uniform(0.01, 0.05))
    return out.clamp(0, 1)
