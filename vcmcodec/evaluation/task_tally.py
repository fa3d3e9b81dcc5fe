"""Accuracy of many choices of pictures at once, from evidence kept picture by picture.

A choice is a row of weights: how often each picture is in it.  All ones is the set itself; rows of
a bootstrap are drawn with replacement.  Copies of a picture are gone through together, detection by
detection; only where detections of one picture have equal scores does that differ from copies one
after another.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
from scipy import sparse  # type: ignore[import-untyped]

from vcmcodec.errors import RequestError
from vcmcodec.evaluation.task_evidence import OVERLAPS, Evidence, PictureTruth

METRICS = ("mAP50", "mAP", "mIoU", "presence")
RECALLS = np.linspace(0.0, 1.0, 101)  # where COCO reads the precision

Floats = npt.NDArray[np.float64]


def draw_weights(pictures: int, resamples: int, seed: int = 0) -> Floats:
    """(1 + resamples, pictures): first each picture once, then bootstrap draws, always the same."""
    generator = np.random.default_rng(seed)
    drawn = generator.multinomial(pictures, np.full(pictures, 1 / pictures), resamples)
    return np.concatenate((np.ones((1, pictures)), drawn.reshape(resamples, pictures)))


def score_choices(
    truth: Sequence[PictureTruth], evidence: Sequence[Evidence], weights: Floats
) -> dict[str, Floats]:
    """Score every choice of pictures.

    Args:
        truth: of each picture, in the order of their ids (COCO breaks ties of scores by it).
        evidence: of the same pictures.
        weights: (choices, pictures).

    Returns:
        For each of `METRICS` that the evidence covers, (choices,) in percent; NaN where a choice
        holds nothing that could be found.
    """
    scores: dict[str, Floats] = {}
    if all(e.hit is not None for e in evidence):
        precision = _detection(truth, evidence, weights)
        if precision is not None:
            scores["mAP50"], scores["mAP"] = precision
    if any(e.confusion is not None for e in evidence):
        scores["mIoU"] = _areas(evidence, weights, len(truth[0].present) + 1)
    if all(e.presence is not None for e in evidence):
        table = np.stack([e.presence for e in evidence if e.presence is not None])
        present = np.stack([t.present for t in truth])
        if (present == 1).any():
            scores["presence"] = _presence(present, table, weights)
    return scores


def _mean_over_classes(values: Floats) -> Floats:
    """Mean over the first axis of what is not NaN; NaN where nothing is."""
    there = np.isfinite(values)
    total = np.where(there, values, 0.0).sum(0)
    count = there.sum(0)
    return np.divide(total, count, out=np.full(total.shape, np.nan), where=count > 0)


def _detection(
    truth: Sequence[PictureTruth], evidence: Sequence[Evidence], weights: Floats
) -> tuple[Floats, Floats] | None:
    classes = len(truth[0].present)
    count = np.zeros((len(truth), classes))
    for row, one in zip(count, truth, strict=True):
        np.add.at(row, one.classes[~one.crowd], 1.0)
    found = np.concatenate([e.found for e in evidence if e.found is not None])
    score = np.concatenate([e.scores for e in evidence if e.scores is not None])
    hit = np.concatenate([e.hit for e in evidence if e.hit is not None], 1)
    ignored = np.concatenate([e.ignored for e in evidence if e.ignored is not None], 1)
    picture = np.repeat(
        np.arange(len(evidence)), [len(e.found) for e in evidence if e.found is not None]
    )
    precisions = []
    for label in np.flatnonzero(count.sum(0)):
        own = np.flatnonzero(found == label)
        own = own[np.argsort(-score[own], kind="stable")]
        precisions.append(
            _class_precision(
                weights[:, picture[own]],
                weights @ count[:, label],
                hit[:, own],
                ~(hit[:, own] | ignored[:, own]),
            )
        )
    if not precisions:
        return None
    table = np.stack(precisions)  # classes, choices, overlaps
    return 100 * _mean_over_classes(table[:, :, 0]), 100 * _mean_over_classes(table.mean(2))


def _class_precision(
    weights: Floats,
    objects: Floats,
    hit: npt.NDArray[np.bool_],
    false: npt.NDArray[np.bool_],
) -> Floats:
    """Average precision of one class, (choices, overlaps) in 0..1, NaN where it has no object.

    Args:
        weights: (choices, detections), best detection first.
        objects: (choices,) how many there are to find.
        hit, false: (overlaps, detections).
    """
    result = np.zeros((len(weights), len(OVERLAPS)))
    result[objects == 0] = np.nan
    for column in range(len(OVERLAPS)):
        rows = np.flatnonzero(hit[column])
        if not len(rows):
            continue
        # Only at hits does the recall rise, so the precision is needed there alone.
        end = rows[-1] + 1
        hits = np.cumsum(weights[:, rows], 1)
        misses = np.cumsum(weights[:, :end] * false[column, :end], 1)[:, rows]
        whole = hits + misses
        precision = np.divide(hits, whole, out=np.zeros_like(hits), where=whole > 0)
        precision = np.maximum.accumulate(precision[:, ::-1], 1)[:, ::-1]
        recall = np.divide(
            hits, objects[:, None], out=np.zeros_like(hits), where=objects[:, None] > 0
        )
        reached = np.searchsorted(RECALLS, recall, side="right")
        steps = np.diff(reached, axis=1, prepend=0)
        area = (precision * steps).sum(1) / len(RECALLS)
        result[:, column] = np.where(objects > 0, area, np.nan)
    return result


def _areas(evidence: Sequence[Evidence], weights: Floats, size: int) -> Floats:
    """Mean intersection over union, over the classes that are in the truth of a choice."""
    rows, cells, counts = [], [], []
    for row, one in enumerate(evidence):
        if one.confusion is not None:
            rows.append(np.full(len(one.confusion[0]), row))
            cells.append(one.confusion[0])
            counts.append(one.confusion[1])
    table = sparse.csr_matrix(
        (
            np.concatenate(counts).astype(np.float64),
            (np.concatenate(rows), np.concatenate(cells)),
        ),
        shape=(len(evidence), size * size),
    )
    confusion = np.asarray(weights @ table).reshape(-1, size, size)
    right = np.diagonal(confusion, axis1=1, axis2=2)
    true = confusion.sum(2)
    union = true + confusion.sum(1) - right
    overlap = np.divide(right, union, out=np.full(right.shape, np.nan), where=true > 0)
    return 100 * _mean_over_classes(overlap.T)


def _presence(present: npt.NDArray[np.int8], scores: Floats, weights: Floats) -> Floats:
    """Mean over classes of the area under precision-recall steps; ties are taken together."""
    values = []
    for label in range(present.shape[1]):
        known = np.flatnonzero(present[:, label] >= 0)
        order = known[np.argsort(-scores[known, label], kind="stable")]
        true = present[order, label] == 1
        if not true.any():
            continue
        own = weights[:, order]
        last = np.append(np.diff(scores[order, label]) != 0, True)
        hits = np.cumsum(own * true, 1)[:, last]
        taken = np.cumsum(own, 1)[:, last]
        precision = np.divide(hits, taken, out=np.zeros_like(hits), where=taken > 0)
        total = hits[:, -1:]
        recall = np.divide(hits, total, out=np.full(hits.shape, np.nan), where=total > 0)
        values.append((np.diff(recall, axis=1, prepend=0.0) * precision).sum(1))
    if not values:
        raise RequestError("average precision needs a positive")
    return 100 * _mean_over_classes(np.stack(values))
