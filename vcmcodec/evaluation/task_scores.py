"""How well a machine sees: mean average precision, mean overlap of areas, presence.

Detection is scored by COCO's own protocol (faster-coco-eval, or pycocotools where that is what is
installed).  Difficult objects are passed as crowds, so they are neither hit nor miss.
"""

from __future__ import annotations

import contextlib
import io
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from vcmcodec.errors import RequestError


@dataclass(frozen=True)
class DetectionScores:
    """Average precision in percent.

    Attributes:
        map50: at overlap 0.5, mean over classes.
        map: mean over overlaps 0.5 to 0.95, mean over classes.
        by_class: (AP50, AP) of each class that has an object.
    """

    map50: float
    map: float
    by_class: dict[str, tuple[float, float]]

    def over(self, labels: Collection[str]) -> DetectionScores:
        """The same means over some of the classes."""
        chosen = {name: value for name, value in self.by_class.items() if name in labels}
        if not chosen:
            raise RequestError("none of these classes was scored")
        means = np.mean(list(chosen.values()), 0)
        return DetectionScores(float(means[0]), float(means[1]), chosen)


@dataclass(frozen=True)
class AreaScores:
    """Segmentation in percent.

    Attributes:
        miou: mean over classes (background included) of intersection over union.
        accuracy: share of the known pixels that are right.
        by_class: IoU of each class that is in truth or answer.
    """

    miou: float
    accuracy: float
    by_class: dict[str, float]


def coco_evaluator() -> tuple[Any, Any, str]:
    """(COCO, COCOeval, name and version) of whichever package is installed.

    Raises:
        RequestError: neither is.
    """
    from importlib.metadata import version

    try:
        from faster_coco_eval import COCO, COCOeval_faster

        return COCO, COCOeval_faster, f"faster-coco-eval {version('faster-coco-eval')}"
    except ImportError:
        pass
    try:
        from pycocotools.coco import COCO as COCO_LABELS
        from pycocotools.cocoeval import COCOeval

        return COCO_LABELS, COCOeval, f"pycocotools {version('pycocotools')}"
    except ImportError:
        raise RequestError(
            "detection is scored by faster-coco-eval, which is not installed:"
            " pip install vcmcodec[bench]"
        ) from None


def score_detections(truth: dict[str, Any], results: Sequence[dict[str, Any]]) -> DetectionScores:
    """Score a COCO result list.

    Args:
        truth: COCO labels as a dictionary, as `LabelledSet.truth` gives them.
        results: `image_id`, `category_id`, `bbox`, `score` each.
    """
    coco, evaluation, _ = coco_evaluator()
    names = {c["id"]: c["name"] for c in truth["categories"]}
    present = {a["category_id"] for a in truth["annotations"] if not a["iscrowd"]}
    if not results:
        nothing = {names[i]: (0.0, 0.0) for i in sorted(present)}
        return DetectionScores(0.0, 0.0, nothing)
    with contextlib.redirect_stdout(io.StringIO()):
        labels = coco()
        labels.dataset = truth
        labels.createIndex()
        run = evaluation(labels, labels.loadRes([dict(r) for r in results]), "bbox")
        run.evaluate()
        run.accumulate()
    precision = np.asarray(run.eval["precision"])  # overlaps, recalls, classes, areas, counts
    by_class = {}
    for index, category in enumerate(run.params.catIds):
        values = precision[:, :, index, 0, -1]
        if category in present and (values > -1).any():
            by_class[names[category]] = (
                100 * float(values[0].mean()),
                100 * float(values.mean()),
            )
    if not by_class:
        raise RequestError("the labels hold no object to find")
    means = np.mean(list(by_class.values()), 0)
    return DetectionScores(float(means[0]), float(means[1]), by_class)


class AreaCounter:
    """Counts pixels picture by picture; `scores` at the end."""

    def __init__(self, names: Sequence[str]) -> None:
        """`names` are the classes, background first."""
        self._names = tuple(names)
        self._counts = np.zeros((len(names), len(names)), np.int64)

    def add(self, truth: npt.NDArray[np.uint8], answer: npt.NDArray[np.uint8]) -> None:
        """One picture: (H, W) class indices; 255 in the truth is not counted."""
        if truth.shape != answer.shape:
            raise RequestError(f"masks differ in size: {truth.shape} and {answer.shape}")
        known = truth != 255
        size = len(self._names)
        pairs = truth[known].astype(np.int64) * size + answer[known]
        self._counts += np.bincount(pairs, minlength=size * size).reshape(size, size)

    def scores(self) -> AreaScores:
        """Scores over everything that was added."""
        right = np.diag(self._counts)
        union = self._counts.sum(0) + self._counts.sum(1) - right
        there = self._counts.sum(1) > 0
        if not there.any():
            raise RequestError("no mask was given")
        iou = {
            name: 100 * float(right[i] / union[i]) for i, name in enumerate(self._names) if there[i]
        }
        accuracy = 100 * float(right.sum() / self._counts.sum())
        return AreaScores(float(np.mean(list(iou.values()))), accuracy, iou)


def average_precision(truth: npt.NDArray[Any], scores: npt.NDArray[Any]) -> float:
    """Area under the precision-recall steps, in percent (as scikit-learn defines it).

    Args:
        truth: (n,) 1 or 0; entries of -1 are left out.
        scores: (n,); equal scores are taken together.
    """
    known = truth >= 0
    truth, scores = truth[known], scores[known]
    if not (truth == 1).any():
        raise RequestError("average precision needs a positive")
    order = np.argsort(-scores, kind="stable")
    hits = np.cumsum(truth[order] == 1)
    last = np.append(np.diff(scores[order]) != 0, True)  # end of each run of equal scores
    recall = hits[last] / hits[-1]
    precision = hits[last] / (np.flatnonzero(last) + 1)
    return 100 * float((np.diff(np.append(0.0, recall)) * precision).sum())


def score_presence(
    truth: npt.NDArray[np.int8], scores: npt.NDArray[Any], labels: Sequence[str]
) -> dict[str, float]:
    """Average precision of each class that is present somewhere, (pictures, classes) each."""
    return {
        label: average_precision(truth[:, i], scores[:, i])
        for i, label in enumerate(labels)
        if (truth[:, i] == 1).any()
    }
