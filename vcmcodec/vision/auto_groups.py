"""Groups for the codec out of what the vision network found: `encode --groups auto`."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from vcmcodec.errors import RequestError
from vcmcodec.vision.predictions import Predictions

MOST_GROUPS = 64  # each group costs header bytes and an entropy coder run
SMALLEST = 16.0  # pixels; a box smaller than a cell is not worth a group of its own


def find_groups(rgb: npt.NDArray[np.uint8], *, device: str = "cpu") -> list[dict[str, Any]]:
    """Look at a picture (H, W, 3) uint8 with the installed network and group its objects.

    Raises:
        WeightsError: no vision network is installed.
    """
    from vcmcodec.vision.backend import open_backend

    found = open_backend(device=device).predict(rgb, ["detection"])
    return groups_from_predictions(found, rgb.shape[0], rgb.shape[1])


def groups_from_predictions(
    predictions: Predictions, height: int, width: int, *, score: float = 0.3
) -> list[dict[str, Any]]:
    """The detected objects as a list of boxes for `grouping.from_boxes`.

    Args:
        predictions: with objects; in pixels of the picture that they were made of.
        height: of the picture that is to be coded, in pixels; boxes are scaled to it.
        width: likewise.
        score: objects below it belong to the background.

    Returns:
        One dictionary an object, best first: `label`, `score`, `box` [x, y, width, height].

    Raises:
        RequestError: detection was not run.
    """
    if predictions.objects is None:
        raise RequestError("groups need the results of detection")
    across, down = width / predictions.width, height / predictions.height
    groups = []
    for thing in predictions.objects:
        x, y, w, h = thing.box
        if thing.score >= score and max(w * across, h * down) >= SMALLEST:
            box = [x * across, y * down, w * across, h * down]
            groups.append({"label": thing.label, "score": thing.score, "box": box})
    return groups[:MOST_GROUPS]
