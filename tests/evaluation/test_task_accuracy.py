"""Scores from kept matches against COCO's own evaluation, and any choice of pictures against it."""

from __future__ import annotations

import itertools
from typing import Any

import numpy as np
import pytest

from vcmcodec.errors import RequestError
from vcmcodec.evaluation import task_scores
from vcmcodec.evaluation.task_classes import match_classes
from vcmcodec.evaluation.task_evidence import Evidence, PictureTruth, weigh
from vcmcodec.evaluation.task_tally import draw_weights, score_choices
from vcmcodec.vision.predictions import ClassScore, DetectedObject, LabelMap, Predictions

LABELS = ("cat", "dog", "cow")
CLASSES = match_classes(LABELS, LABELS)
SIDE = 64


class Random:
    """A set of pictures with crowds, near misses, doubles and equal scores."""

    def __init__(self, seed: int, pictures: int = 7, ties: bool = True) -> None:
        self.ties = ties
        rng = np.random.default_rng(seed)
        self.truth: list[PictureTruth] = []
        self.found: list[Predictions] = []
        for _ in range(pictures):
            count = int(rng.integers(0, 6))
            boxes = np.concatenate(
                (rng.integers(0, 30, (count, 2)), rng.integers(8, 34, (count, 2))), 1
            )
            classes = rng.integers(0, 3, count)
            present = rng.integers(-1, 2, 3).astype(np.int8)
            mask = rng.integers(0, 4, (SIDE, SIDE)).astype(np.uint8)
            mask[:8] = 255
            crowd = rng.random(count) < 0.25
            self.truth.append(PictureTruth(boxes.astype(np.float64), classes, crowd, present, mask))
            self.found.append(self._answer(rng, boxes, classes, mask))

    def _answer(self, rng: Any, boxes: Any, classes: Any, mask: Any) -> Predictions:
        things = []
        for box, label in zip(boxes, classes, strict=True):
            for _ in range(int(rng.integers(0, 3))):  # missed, found, found twice
                x, y, w, h = box + rng.integers(-4, 5, 4)
                own = label if rng.random() < 0.8 else rng.integers(0, 3)
                score = float(rng.integers(1, 9) / 8 if self.ties else rng.random())
                place = (float(max(x, 0)), float(max(y, 0)), float(w), float(h))
                things.append(DetectedObject(LABELS[own], score, place))
        for _ in range(3):
            x, y = rng.integers(0, 40, 2)
            score = 0.25 if self.ties else float(rng.random())
            things.append(
                DetectedObject(LABELS[rng.integers(0, 3)], score, (float(x), float(y), 9, 9))
            )
        things.sort(key=lambda thing: -thing.score)
        scores = rng.integers(0, 5, 3) / 4
        classes_found = tuple(ClassScore(n, float(s)) for n, s in zip(LABELS, scores, strict=True))
        labels = np.where(rng.random((SIDE, SIDE)) < 0.7, np.minimum(mask, 3), 0).astype(np.uint8)
        label_map = LabelMap(labels, ("background", *LABELS))
        return Predictions(SIDE, SIDE, tuple(things), classes_found, label_map)

    def evidence(self) -> list[Evidence]:
        return [weigh(t, f, CLASSES) for t, f in zip(self.truth, self.found, strict=True)]


def by_coco(data: Random, weights: np.ndarray) -> task_scores.DetectionScores:
    """COCO's evaluation of a choice, in which a picture drawn twice is there twice."""
    rows = [i for i, count in enumerate(weights.astype(int)) for _ in range(count)]
    truth: dict[str, Any] = {
        "images": [{"id": n + 1, "width": SIDE, "height": SIDE} for n in range(len(rows))],
        "categories": [{"id": i + 1, "name": name} for i, name in enumerate(LABELS)],
        "annotations": [],
    }
    results = []
    for number, row in enumerate(rows, start=1):
        one = data.truth[row]
        for box, label, crowd in zip(one.boxes, one.classes, one.crowd, strict=True):
            truth["annotations"].append(
                {
                    "id": len(truth["annotations"]) + 1,
                    "image_id": number,
                    "category_id": int(label) + 1,
                    "bbox": box.tolist(),
                    "area": float(box[2] * box[3]),
                    "iscrowd": int(crowd),
                }
            )
        results += [
            {
                "image_id": number,
                "category_id": LABELS.index(thing.label) + 1,
                "bbox": list(thing.box),
                "score": thing.score,
            }
            for thing in data.found[row].objects or ()
        ]
    return task_scores.score_detections(truth, results)


@pytest.mark.parametrize("seed", range(6))
def test_detection_equals_cocos_evaluation_on_the_set_even_with_ties(seed: int) -> None:
    data = Random(seed)
    scores = score_choices(data.truth, data.evidence(), np.ones((1, len(data.truth))))
    expected = by_coco(data, np.ones(len(data.truth)))
    assert scores["mAP50"][0] == pytest.approx(expected.map50, abs=1e-9)
    assert scores["mAP"][0] == pytest.approx(expected.map, abs=1e-9)
    assert 0 < expected.map < expected.map50 < 100


@pytest.mark.parametrize("seed", range(3))
def test_detection_equals_cocos_evaluation_on_every_draw(seed: int) -> None:
    # Without ties: copies of a picture share their scores, and COCO would put one before the other.
    data = Random(seed, ties=False)
    weights = draw_weights(len(data.truth), 6, seed)
    scores = score_choices(data.truth, data.evidence(), weights)
    for choice, row in enumerate(weights):
        expected = by_coco(data, row)
        assert scores["mAP50"][choice] == pytest.approx(expected.map50, abs=1e-9)
        assert scores["mAP"][choice] == pytest.approx(expected.map, abs=1e-9)


def test_areas_and_presence_equal_their_definitions_on_every_draw() -> None:
    data = Random(11, pictures=9)
    weights = draw_weights(9, 4)
    scores = score_choices(data.truth, data.evidence(), weights)
    for choice, row in enumerate(weights.astype(int)):
        rows = [i for i, count in enumerate(row) for _ in range(count)]
        counter = task_scores.AreaCounter(("background", *LABELS))
        for i in rows:
            label_map, mask = data.found[i].label_map, data.truth[i].mask
            assert label_map is not None
            assert mask is not None
            counter.add(mask, label_map.labels)
        assert scores["mIoU"][choice] == pytest.approx(counter.scores().miou)
        present = np.stack([data.truth[i].present for i in rows])
        table = np.array([[c.score for c in data.found[i].classes or ()] for i in rows])
        expected = task_scores.score_presence(present, table, LABELS)
        assert scores["presence"][choice] == pytest.approx(np.mean(list(expected.values())))


def test_draws_are_the_set_itself_and_then_the_same_ones_every_time() -> None:
    weights = draw_weights(12, 30)
    assert (weights[0] == 1).all()
    assert (weights.sum(1) == 12).all()
    assert (weights == draw_weights(12, 30)).all()
    assert len({tuple(row) for row in weights[1:]}) > 25


def test_a_network_that_only_detects_tells_presence_by_its_best_box() -> None:
    truth = Random(0, 1).truth[0]
    found = Predictions(
        SIDE,
        SIDE,
        (DetectedObject("dog", 0.75, (0, 0, 5, 5)), DetectedObject("dog", 0.5, (0, 0, 9, 9))),
    )
    evidence = weigh(truth, found, CLASSES)
    assert evidence.presence is not None
    assert evidence.presence.tolist() == [0, 0.75, 0]
    assert evidence.confusion is None


def test_what_was_not_done_is_not_scored() -> None:
    data = Random(3)
    only_areas = [Predictions(SIDE, SIDE, label_map=f.label_map) for f in data.found]
    evidence = [weigh(t, f, CLASSES) for t, f in zip(data.truth, only_areas, strict=True)]
    assert set(score_choices(data.truth, evidence, np.ones((1, len(evidence))))) == {"mIoU"}


def test_classes_are_matched_by_name_whatever_their_spelling() -> None:
    classes = match_classes(
        ("Airplane", "zebra", "dining table", "person"),
        ("person", "diningtable", "aeroplane", "car"),
    )
    assert classes.labels == ("Airplane", "dining table", "person")
    assert classes.unknown == ("zebra",)
    assert classes.of_truth == (0, None, 1, 2)
    assert classes.of_network == {"person": 2, "diningtable": 1, "aeroplane": 0}
    truth = classes.truth_mask(np.array([[0, 1, 2, 3, 4, 255]], np.uint8))
    assert truth.tolist() == [[0, 1, 255, 2, 3, 255]]  # a zebra is not counted
    answer = classes.network_mask(
        np.array([[0, 1, 2, 3, 4]], np.uint8),
        ("background", "person", "diningtable", "aeroplane", "car"),
    )
    assert answer.tolist() == [[0, 3, 2, 1, 0]]  # what the labels have no word for is background
    with pytest.raises(RequestError, match="none of the data set's classes"):
        match_classes(("zebra",), ("person",))


def test_the_names_of_voc_and_coco_are_the_same_classes() -> None:
    from vcmcodec.vision.labels import VOC

    coco = ("airplane", "bicycle", "bird", "boat", "bottle", "bus", "car", "cat", "chair", "cow",
            "dining table", "dog", "horse", "motorcycle", "person", "potted plant", "sheep",
            "couch", "train", "tv")  # fmt: skip
    classes = match_classes(coco, VOC)
    assert classes.labels == coco
    assert [classes.of_network[name] for name in VOC] == list(range(20))


def test_objects_that_the_labels_do_not_know_are_no_false_alarms() -> None:
    data = Random(5)
    extra = [
        Predictions(SIDE, SIDE, (DetectedObject("ghost", 1.0, (0, 0, 9, 9)), *(f.objects or ())))
        for f in data.found
    ]
    weights = np.ones((1, len(extra)))
    with_ghosts = [weigh(t, f, CLASSES) for t, f in zip(data.truth, extra, strict=True)]
    assert (
        score_choices(data.truth, with_ghosts, weights)["mAP"]
        == score_choices(data.truth, data.evidence(), weights)["mAP"]
    )


def test_at_most_a_hundred_of_a_class_count() -> None:
    boxes = np.array([[0.0, 0, 10, 10]])
    truth = PictureTruth(boxes, np.zeros(1, int), np.zeros(1, bool), np.ones(3, np.int8), None)
    crowd = [DetectedObject("cat", 0.9, (30.0, 30.0, 5.0, 5.0)) for _ in range(100)]
    hit = DetectedObject("cat", 0.5, (0.0, 0.0, 10.0, 10.0))
    for count, expected in ((99, 1 / 100), (100, 0.0)):
        found = Predictions(SIDE, SIDE, (*itertools.islice(crowd, count), hit))
        scores = score_choices([truth], [weigh(truth, found, CLASSES)], np.ones((1, 1)))
        assert scores["mAP50"][0] == pytest.approx(100 * expected)
