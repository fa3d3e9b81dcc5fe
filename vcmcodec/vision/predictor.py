"""From a picture to typed results: scaling, network, post-processing."""

from __future__ import annotations

from collections.abc import Collection

import numpy as np
import torch

from vcmcodec.vision.geometry import InputGeometry, prepare
from vcmcodec.vision.labels import BACKGROUND
from vcmcodec.vision.network import TASKS, VisionOutput
from vcmcodec.vision.predictions import DetectedObject, LabelMap, Predictions, clip_box
from vcmcodec.vision.tasks.classification import decode_presence
from vcmcodec.vision.tasks.detection import decode_boxes
from vcmcodec.vision.tasks.segmentation import LEAST, decode_label_map, told_of_objects
from vcmcodec.vision.weights import VisionModel

OVERLAP = 0.6  # boxes of one class that overlap more are one object
MOST_OBJECTS = 100


class Predictor:
    """Runs a vision model on pictures."""

    def __init__(self, model: VisionModel, *, longer_side: int | None = None) -> None:
        """Take a model.

        Args:
        model: from `weights.load`.
        longer_side: input size in pixels; the model's own if None.
        """
        self.model = model
        self.longer_side = longer_side or model.longer_side
        self.labels = model.labels

    @torch.inference_mode()
    def predict(
        self, rgb: np.ndarray, tasks: Collection[str] = TASKS, score: float = 0.3
    ) -> Predictions:
        """Results of one picture (H, W, 3) uint8.

        Args:
            rgb: the picture.
            tasks: names from `network.TASKS`.
            score: objects below it are left out; classes are all given.
        """
        image, geometry = prepare(rgb, self.longer_side)
        image = image.to(self.model.network.mean.device)
        return self.interpret(self.model.network(image, tasks), geometry, score)

    def interpret(
        self, output: VisionOutput, geometry: InputGeometry, score: float = 0.3
    ) -> Predictions:
        """Raw maps of one picture to results; used behind every split point."""
        output = output.float()
        objects = classes = label_map = None
        boxes, scores, labels = np.zeros((0, 4)), np.zeros(0), np.zeros(0, np.int64)
        if output.class_logits is not None and output.distances is not None:
            least = score if output.segmentation is None else min(score, LEAST)
            boxes, scores, labels = decode_boxes(
                output.class_logits, output.distances, least, OVERLAP, MOST_OBJECTS
            )[0]
        if "detection" in output.tasks:
            sure = scores > score
            objects = tuple(
                DetectedObject(
                    self.labels[int(label)],
                    float(value),
                    clip_box(box, geometry.height, geometry.width),
                )
                for box, value, label in zip(
                    geometry.true_boxes(boxes[sure]), scores[sure], labels[sure], strict=True
                )
            )
        if output.presence is not None:
            classes = decode_presence(output.presence[0], self.labels)
        if output.segmentation is not None:
            names = (BACKGROUND, *self.labels)
            areas = told_of_objects(output.segmentation[0], boxes, scores, labels)
            label_map = LabelMap(decode_label_map(areas, geometry), names)
        return Predictions(geometry.height, geometry.width, objects, classes, label_map)
