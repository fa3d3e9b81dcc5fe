"""Labelled training pictures: what the JSON files and tars say, as one list.

Only the training files named in `TRAIN_JSON` and `TRAIN_PHOTOS` are ever opened; evaluation sets
are not read here.
"""

from __future__ import annotations

import io
import json
import tarfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image

from vcmcodec.errors import RequestError

TRAIN_JSON = ("voc-train.json", "voc-train-2.json")
TRAIN_PHOTOS = ("train-photos-0.tar", "train-photos-1.tar")
LONGER_SIDE = 352  # pixels; the photographs are reduced to the size of the labelled pictures


@dataclass(frozen=True)
class Sample:
    """One training picture and what is known about it.

    Attributes:
        name: file name in its tar.
        tar: file name of the tar.
        mask: file name of the class mask in the same tar, or None.
        boxes: (n, 4) float32, x1 y1 x2 y2 in pixels of the stored picture.
        labels: (n,) int64, 0..19 in VOC order.
        trust: (n,) float32, 1 for a true box, else the score of the teacher that drew it.
        difficult: (n,) bool, to be left out of the loss.
        complete: True if every object of the 20 classes (difficult ones aside) has a box.
    """

    name: str
    tar: str
    mask: str | None
    boxes: np.ndarray
    labels: np.ndarray
    trust: np.ndarray
    difficult: np.ndarray
    complete: bool

    @property
    def labelled(self) -> bool:
        """Whether anything is known about what the picture shows."""
        return self.complete or len(self.labels) > 0


def read_samples(data: Path) -> list[Sample]:
    """All labelled training pictures below `data`, then the unlabelled photographs."""
    samples: list[Sample] = []
    for name in TRAIN_JSON:
        path = data / name
        if not path.exists():
            raise RequestError(f"training labels are missing: {path}")
        samples += _from_json(json.loads(path.read_text()))
    for name in TRAIN_PHOTOS:
        if (data / name).exists():
            with tarfile.open(data / name) as tar:
                samples += [_unlabelled(m.name, name) for m in tar.getmembers() if m.isfile()]
    return samples


def _from_json(coco: dict) -> list[Sample]:
    by_image: dict[int, list[dict]] = {image["id"]: [] for image in coco["images"]}
    for annotation in coco["annotations"]:
        by_image[annotation["image_id"]].append(annotation)
    samples = []
    for image in coco["images"]:
        found = by_image[image["id"]]
        boxes = np.array([a["bbox"] for a in found], np.float32).reshape(-1, 4)
        boxes[:, 2:] += boxes[:, :2]
        pseudo = [bool(a.get("pseudo")) for a in found]
        samples.append(
            Sample(
                name=image["file_name"],
                tar=image["tar"],
                mask=image["mask"],
                boxes=boxes,
                labels=np.array([a["category_id"] - 1 for a in found], np.int64),
                trust=np.array([a["score"] if a.get("pseudo") else 1.0 for a in found], np.float32),
                difficult=np.array([bool(a["difficult"]) for a in found], bool),
                complete="labelled" not in image and not any(pseudo),
            )
        )
    return samples


def _unlabelled(name: str, tar: str) -> Sample:
    none = np.zeros(0, np.float32)
    return Sample(
        name, tar, None, none.reshape(0, 4), none.astype(np.int64), none, none.astype(bool), False
    )


def decode_all(
    data: Path, samples: list[Sample]
) -> Iterator[tuple[Sample, np.ndarray, np.ndarray | None]]:
    """Yield (sample, rgb (H, W, 3) uint8, class mask (H, W) uint8 or None), tar by tar."""
    for tar_name in sorted({sample.tar for sample in samples}):
        with tarfile.open(data / tar_name) as tar:
            for sample in samples:
                if sample.tar != tar_name:
                    continue
                picture = Image.open(io.BytesIO(_member(tar, sample.name))).convert("RGB")
                if max(picture.size) > LONGER_SIDE:
                    picture.thumbnail((LONGER_SIDE, LONGER_SIDE), Image.Resampling.LANCZOS)
                mask = None
                if sample.mask:
                    mask = np.asarray(Image.open(io.BytesIO(_member(tar, sample.mask))))
                yield sample, np.asarray(picture), mask


def _member(tar: tarfile.TarFile, name: str) -> bytes:
    file = tar.extractfile(name)
    if file is None:
        raise RequestError(f"{tar.name!r} has no {name}")
    return file.read()
