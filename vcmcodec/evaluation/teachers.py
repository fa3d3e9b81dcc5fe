"""The teachers and the independent judge behind the interface of every vision network.

Their files come with `taps.py`, which runs them; it is loaded from the folder that holds them.
"""

from __future__ import annotations

import importlib.util
import sys
from collections.abc import Collection
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch.nn import functional

from vcmcodec.errors import RequestError
from vcmcodec.vision.backend import Features
from vcmcodec.vision.geometry import InputGeometry
from vcmcodec.vision.labels import BACKGROUND, VOC
from vcmcodec.vision.predictions import ClassScore, DetectedObject, LabelMap, Predictions, clip_box
from vcmcodec.vision.tasks.boxes import suppress
from vcmcodec.vision.tasks.segmentation import scaled_argmax

# COCO class index of each of VOC's 20 classes, in VOC order
VOC_IN_COCO = (4, 1, 14, 8, 39, 5, 2, 15, 56, 19, 60, 16, 17, 3, 0, 58, 18, 57, 6, 62)
OVERLAPS = {"yolox": 0.65, "yolov8": 0.7}  # suppression as each network's authors set it

Pixels = npt.NDArray[np.uint8]


def load_taps(folder: Path) -> ModuleType:
    """Import `taps.py` from the folder of the teachers.

    Raises:
        RequestError: it is not there.
    """
    path = folder / "taps.py"
    spec = importlib.util.spec_from_file_location("vcm_teacher_taps", path)
    if not path.exists() or spec is None or spec.loader is None:
        raise RequestError(f"no taps.py in {folder}: it runs the teachers")
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    return module


class TeacherBackend:
    """One frozen network that was trained elsewhere; it can only run whole."""

    splits: tuple[str, ...] = ()
    fingerprint = ""

    def __init__(self, path: Path) -> None:
        """Load a `.pth` file that lies beside `taps.py`.

        Raises:
            RequestError: an image classifier, which has no classes in common with the labels.
        """
        self.net = load_taps(path.parent).Teacher(str(path))
        self.net.to(memory_format=torch.channels_last)
        self.kind: str = self.net.kind
        self.labels: tuple[str, ...] = VOC
        self.longer_side = int(self.net.meta["size"])
        if self.kind in OVERLAPS:
            self.tasks: tuple[str, ...] = ("detection", "classification")
        elif self.kind == "deeplab":
            self.tasks = ("segmentation",)
        else:
            raise RequestError(f"{path.name} knows ImageNet's classes, not those of the labels")

    def head(self, rgb: Pixels, split: str) -> Features:
        """Not to be had."""
        raise RequestError("this network has no split points")

    def rest(self, features: Features, tasks: Collection[str]) -> Any:
        """Not to be had."""
        raise RequestError("this network has no split points")

    def prepare(self, rgb: Pixels) -> tuple[torch.Tensor, InputGeometry]:
        """Scale and pad a picture as the network's authors did."""
        geometry = InputGeometry.fit(rgb.shape[0], rgb.shape[1], self.longer_side)
        image = torch.from_numpy(rgb.copy()).permute(2, 0, 1)[None].float() / 255
        size = geometry.scaled_height, geometry.scaled_width
        image = functional.interpolate(image, size, mode="bilinear", antialias=True)
        below, right = geometry.padded_height - size[0], geometry.padded_width - size[1]
        value = self.net.meta["pad_value"]
        image = functional.pad(image, (0, right, 0, below), value=value)
        return image.contiguous(memory_format=torch.channels_last), geometry

    @torch.inference_mode()
    def predict(
        self, rgb: Pixels, tasks: Collection[str] | None = None, score: float = 0.3
    ) -> Predictions:
        """See `vision.backend.Backend`; presence is the best score of a class's boxes."""
        image, geometry = self.prepare(rgb)
        out, _ = self.net(image, taps=())
        return self.results(out, geometry, score)

    def results(self, raw: Any, geometry: InputGeometry, score: float) -> Predictions:
        """See `vision.backend.Backend`."""
        height, width = geometry.height, geometry.width
        if self.kind == "deeplab":
            inside = raw["logits"][0][:, : geometry.scaled_height, : geometry.scaled_width]
            names = (BACKGROUND, *VOC)
            return Predictions(
                height, width, label_map=LabelMap(scaled_argmax(inside, height, width), names)
            )
        scores = raw["scores"][0][:, list(VOC_IN_COCO)].numpy()
        boxes = geometry.true_boxes(raw["boxes"][0].numpy())
        cell, label = np.nonzero(scores > score)
        value = scores[cell, label]
        order = np.argsort(-value, kind="stable")[:3000]
        cell, label, value = cell[order], label[order], value[order]
        kept = suppress(boxes[cell], value, label, OVERLAPS[self.kind], 300)
        objects = tuple(
            DetectedObject(
                VOC[label[i]], float(min(value[i], 1.0)), clip_box(boxes[cell[i]], height, width)
            )
            for i in kept
        )
        best = scores.max(0)
        ranked = sorted(zip(VOC, best.tolist(), strict=True), key=lambda item: -item[1])
        return Predictions(height, width, objects, tuple(ClassScore(n, s) for n, s in ranked))
