"""What one picture's predictions are worth, kept so that any choice of pictures can be scored.

Detections are matched with the truth once, picture by picture, by COCO's rules.  After that the
average precision of any multiset of pictures is a weighted cumulative sum, which is what makes a
bootstrap over pictures affordable; on the whole set it equals COCO's own evaluation, and a test
holds it to that.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from vcmcodec.errors import RequestError
from vcmcodec.evaluation.labelled import LabelledPicture, LabelledSet
from vcmcodec.evaluation.task_classes import UNKNOWN, ClassMap
from vcmcodec.vision.predictions import Predictions

# COCO's own numbers: overlaps 0.5, 0.55, .. 0.95 and at most 100 detections a class and picture.
OVERLAPS = np.linspace(0.5, 0.95, 10)
MOST_DETECTIONS = 100

Floats = npt.NDArray[np.float64]


@dataclass(frozen=True, eq=False)
class PictureTruth:
    """The truth of one picture in the classes that data set and network share.

    Attributes:
        boxes: (n, 4) x, y, width, height in pixels.
        classes: (n,) index of each box's class.
        crowd: (n,) True where the box is neither hit nor miss.
        present: (classes,) 1 there, 0 not there, -1 not counted.
        mask: (H, W) uint8, 0 background, 255 not counted; None where there is none.
    """

    boxes: Floats
    classes: npt.NDArray[np.int64]
    crowd: npt.NDArray[np.bool_]
    present: npt.NDArray[np.int8]
    mask: npt.NDArray[np.uint8] | None


@dataclass(frozen=True, eq=False)
class Evidence:
    """One result compared with the truth of its picture; a task that was not done is None.

    Attributes:
        found: (detections,) class of each detection, those of a class best first.
        scores: (detections,).
        hit: (10, detections) matched at each overlap.
        ignored: (10, detections) matched with a crowd, so neither hit nor false alarm.
        presence: (classes,) how probable each class is.
        confusion: flat indices into (classes + 1, classes + 1), truth by row, and pixel counts.
    """

    found: npt.NDArray[np.int64] | None
    scores: Floats | None
    hit: npt.NDArray[np.bool_] | None
    ignored: npt.NDArray[np.bool_] | None
    presence: Floats | None
    confusion: tuple[npt.NDArray[np.int64], npt.NDArray[np.int64]] | None


class TruthTable:
    """The truth of every picture of a set, in shared classes."""

    def __init__(self, labelled: LabelledSet, classes: ClassMap) -> None:
        """Sort the set's annotations by picture."""
        self.classes = classes
        self._boxes: dict[int, list[tuple[list[float], int, bool]]] = {}
        for note in labelled.truth()["annotations"]:
            shared = classes.of_truth[note["category_id"] - 1]
            if shared is not None:
                entry = (note["bbox"], shared, bool(note["iscrowd"]))
                self._boxes.setdefault(note["image_id"], []).append(entry)
        kept = [i for i, shared in enumerate(classes.of_truth) if shared is not None]
        rows = labelled.presence()[:, kept]
        self._present = {
            int(image["id"]): row for image, row in zip(labelled.images, rows, strict=True)
        }

    def of(self, picture: LabelledPicture) -> PictureTruth:
        """The truth of one picture."""
        notes = self._boxes.get(picture.id, [])
        mask = None if picture.mask is None else self.classes.truth_mask(picture.mask)
        return PictureTruth(
            np.array([box for box, _, _ in notes], np.float64).reshape(-1, 4),
            np.array([label for _, label, _ in notes], np.int64),
            np.array([crowd for _, _, crowd in notes], np.bool_),
            self._present[picture.id],
            mask,
        )


def weigh(truth: PictureTruth, predictions: Predictions, classes: ClassMap) -> Evidence:
    """Compare one picture's predictions with its truth.

    Raises:
        RequestError: the label map is of another size than the mask.
    """
    found = scores = hit = ignored = None
    if predictions.objects is not None:
        found, scores, hit, ignored = _match(truth, predictions, classes)
    return Evidence(
        found,
        scores,
        hit,
        ignored,
        _presence(predictions, classes),
        _areas(truth, predictions, classes),
    )


def _presence(predictions: Predictions, classes: ClassMap) -> Floats | None:
    """Scores of the classes; of a network that only detects, the best score of each class."""
    if predictions.classes is None and predictions.objects is None:
        return None
    values = np.zeros(len(classes.labels))
    for one in (
        predictions.classes if predictions.classes is not None else predictions.objects or ()
    ):
        index = classes.of_network.get(one.label)
        if index is not None:
            values[index] = max(values[index], one.score)
    return values


def _areas(
    truth: PictureTruth, predictions: Predictions, classes: ClassMap
) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.int64]] | None:
    if truth.mask is None or predictions.label_map is None:
        return None
    answer = classes.network_mask(predictions.label_map.labels, predictions.label_map.names)
    if answer.shape != truth.mask.shape:
        raise RequestError(f"masks differ in size: {truth.mask.shape} and {answer.shape}")
    known = truth.mask != UNKNOWN
    pairs = truth.mask[known].astype(np.int64) * (len(classes.labels) + 1) + answer[known]
    return np.unique(pairs, return_counts=True)


def _match(
    truth: PictureTruth, predictions: Predictions, classes: ClassMap
) -> tuple[npt.NDArray[np.int64], Floats, npt.NDArray[np.bool_], npt.NDArray[np.bool_]]:
    labels, scores, hits, ignored = [], [], [], []
    objects = [
        (classes.of_network[thing.label], thing)
        for thing in predictions.objects or ()
        if thing.label in classes.of_network
    ]
    for label in sorted({label for label, _ in objects}):
        things = [thing for own, thing in objects if own == label]
        # Rounded as in result files, so that the same boxes and the same ties are scored.
        score = np.array([round(thing.score, 5) for thing in things])
        box = np.array([[round(v, 3) for v in thing.box] for thing in things])
        order = np.argsort(-score, kind="stable")[:MOST_DETECTIONS]
        own = truth.classes == label
        hit, passed = _match_class(box[order], truth.boxes[own], truth.crowd[own])
        labels.append(np.full(len(order), label, np.int64))
        scores.append(score[order])
        hits.append(hit)
        ignored.append(passed)
    if not labels:
        none = np.zeros((len(OVERLAPS), 0), np.bool_)
        return np.zeros(0, np.int64), np.zeros(0), none, none
    return (
        np.concatenate(labels),
        np.concatenate(scores),
        np.concatenate(hits, 1),
        np.concatenate(ignored, 1),
    )


def _match_class(
    boxes: Floats, truth: Floats, crowd: npt.NDArray[np.bool_]
) -> tuple[npt.NDArray[np.bool_], npt.NDArray[np.bool_]]:
    """COCO's greedy matching of one class: best detection first, each true box at most once."""
    hit = np.zeros((len(OVERLAPS), len(boxes)), np.bool_)
    ignored = np.zeros_like(hit)
    if not len(truth):
        return hit, ignored
    overlap = _overlaps(boxes, truth, crowd)
    for row, threshold in enumerate(OVERLAPS):
        free = ~crowd
        for i in np.flatnonzero(overlap.max(1) >= threshold):
            own = np.where(free, overlap[i], -1.0)
            best = len(own) - 1 - int(np.argmax(own[::-1]))  # of equals the last, as COCO does
            if own[best] >= threshold:
                free[best], hit[row, i] = False, True
            else:
                ignored[row, i] = bool((overlap[i][crowd] >= threshold).any())
    return hit, ignored


def _overlaps(boxes: Floats, truth: Floats, crowd: npt.NDArray[np.bool_]) -> Floats:
    """(detections, true boxes): intersection over union; over the detection alone for crowds."""
    low = np.maximum(boxes[:, None, :2], truth[None, :, :2])
    high = np.minimum(
        boxes[:, None, :2] + boxes[:, None, 2:], truth[None, :, :2] + truth[None, :, 2:]
    )
    shared = np.clip(high - low, 0, None).prod(2)
    own, other = boxes[:, 2:].prod(1)[:, None], truth[:, 2:].prod(1)[None]
    whole = np.where(crowd[None], own, own + other - shared)
    return np.divide(shared, whole, out=np.zeros_like(shared), where=whole > 0)
