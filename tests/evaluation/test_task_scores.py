"""Scores of machine vision against values worked out by hand or by definition."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from vcmcodec.errors import PictureError, RequestError
from vcmcodec.evaluation import failures, task_scores, vision_bench
from vcmcodec.evaluation.labelled import LabelledSet
from vcmcodec.vision.predictions import ClassScore, DetectedObject, LabelMap, Predictions

LABELS = ("cat", "dog")


def write_set(folder: Path) -> Path:
    """Three pictures of 40x40: a cat and a difficult cat; a dog; nothing."""
    annotations = [
        {"id": 1, "image_id": 5, "category_id": 3, "bbox": [0, 0, 20, 20], "difficult": 0},
        {"id": 2, "image_id": 5, "category_id": 3, "bbox": [20, 20, 20, 20], "difficult": 1},
        {"id": 3, "image_id": 6, "category_id": 9, "bbox": [10, 10, 20, 20], "difficult": 0},
    ]
    images = []
    for number in (5, 6, 7):
        Image.new("RGB", (40, 40), (number, 9, 9)).save(folder / f"{number}.png")
        images.append({"id": number, "file_name": f"{number}.png", "width": 40, "height": 40})
    mask = np.zeros((40, 40), np.uint8)
    mask[:20, :20], mask[20:, 20:] = 1, 255
    Image.fromarray(mask).save(folder / "5-mask.png")
    images[0]["mask"] = "5-mask.png"
    categories = [{"id": 9, "name": "dog"}, {"id": 3, "name": "cat"}]
    path = folder / "labels.json"
    path.write_text(
        json.dumps({"images": images, "annotations": annotations, "categories": categories})
    )
    return path


def result(image: int, category: int, box: list[float], score: float) -> dict[str, object]:
    return {"image_id": image, "category_id": category, "bbox": box, "score": score}


def test_a_perfect_answer_scores_100_and_difficult_objects_do_not_count(tmp_path: Path) -> None:
    truth = LabelledSet(write_set(tmp_path)).truth()
    hits = [result(5, 1, [0, 0, 20, 20], 0.9), result(6, 2, [10, 10, 20, 20], 0.8)]
    perfect = task_scores.score_detections(truth, hits)
    assert (perfect.map50, perfect.map) == pytest.approx((100, 100))
    on_difficult = result(5, 1, [20, 20, 20, 20], 0.99)
    assert task_scores.score_detections(truth, [*hits, on_difficult]).map50 == pytest.approx(100)
    false_alarm = result(7, 1, [0, 0, 20, 20], 0.99)  # before the only hit: precision 1/2
    worse = task_scores.score_detections(truth, [*hits, false_alarm])
    assert worse.by_class["cat"][0] == pytest.approx(50)
    assert worse.by_class["dog"][0] == pytest.approx(100)
    assert worse.over(["dog"]).map50 == pytest.approx(100)


def test_a_loose_box_counts_at_half_overlap_only(tmp_path: Path) -> None:
    truth = LabelledSet(write_set(tmp_path)).truth()
    # 20x20 against 20x26: overlap 400 / 520 = 0.77, so 6 of the 10 thresholds
    loose = task_scores.score_detections(truth, [result(6, 2, [10, 10, 20, 26], 0.8)])
    assert loose.by_class["dog"] == pytest.approx((100, 60))
    assert loose.by_class["cat"] == (0, 0)


def test_no_answer_scores_nothing(tmp_path: Path) -> None:
    truth = LabelledSet(write_set(tmp_path)).truth()
    assert task_scores.score_detections(truth, []).map50 == 0


def test_areas_are_counted_pixel_by_pixel() -> None:
    counter = task_scores.AreaCounter(("background", *LABELS))
    truth = np.array([[0, 0, 1, 1], [0, 0, 1, 255]], np.uint8)
    answer = np.array([[0, 1, 1, 1], [0, 0, 0, 2]], np.uint8)
    counter.add(truth, answer)
    scores = counter.scores()
    assert scores.by_class == pytest.approx({"background": 100 * 3 / 5, "cat": 100 * 2 / 4})
    assert scores.miou == pytest.approx(55)
    assert scores.accuracy == pytest.approx(100 * 5 / 7)
    with pytest.raises(RequestError, match="size"):
        counter.add(truth, answer[:1])


def test_average_precision_follows_its_definition() -> None:
    rng = np.random.default_rng(0)
    for _ in range(30):
        truth = rng.integers(-1, 2, 40)
        truth[0] = 1
        scores = rng.integers(0, 9, 40) / 8  # many ties
        known = truth >= 0
        expected, last = 0.0, 0.0
        positives = (truth == 1).sum()
        for level in sorted(set(scores[known]), reverse=True):
            taken = known & (scores >= level)
            recall = (truth[taken] == 1).sum() / positives
            expected += (recall - last) * (truth[taken] == 1).mean()
            last = recall
        assert task_scores.average_precision(truth, scores) == pytest.approx(100 * expected)
    with pytest.raises(RequestError, match="positive"):
        task_scores.average_precision(np.zeros(3), np.ones(3))


def test_presence_leaves_out_what_is_only_difficult(tmp_path: Path) -> None:
    found = LabelledSet(write_set(tmp_path)).presence()
    assert found.tolist() == [[1, 0], [0, 1], [0, 0]]
    labels = json.loads((tmp_path / "labels.json").read_text())
    labels["annotations"] = labels["annotations"][1:]
    (tmp_path / "labels.json").write_text(json.dumps(labels))
    assert LabelledSet(tmp_path / "labels.json").presence().tolist() == [[-1, 0], [0, 1], [0, 0]]


class Oracle:
    """Knows the answers of `write_set`."""

    labels = LABELS
    tasks = ("detection", "classification", "segmentation")
    splits: tuple[str, ...] = ()
    longer_side = 64

    def predict(self, rgb: np.ndarray, tasks: object = None, score: float = 0.3) -> Predictions:
        """By the picture's colour."""
        number = int(rgb[0, 0, 0])
        objects = {
            5: (DetectedObject("cat", 0.9, (0.0, 0.0, 20.0, 20.0)),),
            6: (DetectedObject("cat", 0.9, (10.0, 10.0, 20.0, 20.0)),),  # it is a dog
        }.get(number, ())
        classes = tuple(
            ClassScore(label, float(number == at)) for label, at in zip(LABELS, (5, 6), strict=True)
        )
        labels = np.zeros(rgb.shape[:2], np.uint8)
        labels[:20, :20] = 1
        return Predictions(40, 40, objects, classes, LabelMap(labels, ("background", *LABELS)))


def test_the_bench_scores_every_task_and_finds_the_worst_picture(tmp_path: Path) -> None:
    labelled = LabelledSet(write_set(tmp_path))
    bench = vision_bench.run(labelled, [("oracle", Oracle())], threads=())  # type: ignore[list-item]
    (scores,) = bench.scores
    assert scores.detection is not None
    assert scores.detection.by_class["cat"][0] == pytest.approx(100)
    assert scores.detection.by_class["dog"][0] == 0
    assert scores.areas is not None
    assert scores.areas.miou == 100
    assert scores.mean_presence == 100
    assert (bench.pictures, bench.masks) == (3, 1)
    for table in vision_bench.tables(bench):
        assert all(len(row) == len(table.columns) for row in table.rows)
    found = vision_bench.predict_all(labelled, Oracle(), lambda line: None)  # type: ignore[arg-type]
    worst = failures.count_errors(labelled, found.predictions)
    assert worst[0].image["id"] == 6
    assert (worst[0].hits, worst[0].missed, worst[0].false) == (0, 1, 1)
    assert [e.quality for e in worst[1:]] == [1.0, 1.0]
    sheet = failures.contact_sheet(labelled, found.predictions, count=2, columns=2)
    assert sheet.size == (2 * failures.TILE, failures.TILE)


def test_labels_that_are_wrong_are_named(tmp_path: Path) -> None:
    with pytest.raises(RequestError, match="COCO"):
        LabelledSet(tmp_path / "none.json")
    labelled = LabelledSet(write_set(tmp_path), limit=2)
    assert len(labelled) == 2
    (tmp_path / "5.png").unlink()
    with pytest.raises(PictureError, match=r"5\.png"):
        list(labelled.pictures())


IMAGE = {"id": 1, "file_name": "a.png", "width": 4, "height": 4}
OBJECT = {"image_id": 1, "category_id": 1, "bbox": [0, 0, 2, 2]}


@pytest.mark.parametrize(
    ("images", "annotations", "said"),
    [
        ([], [], "names no picture"),
        ("x", [], r"images\[0\] is not an object"),
        ([IMAGE, IMAGE], [], "same id"),
        ([IMAGE | {"width": None}], [], r"images\[0\] has no width"),
        ([IMAGE | {"height": 0}], [], r"images\[0\] has no pixels"),
        ([IMAGE], ["x"], r"annotations\[0\] is not an object"),
        ([IMAGE], [OBJECT | {"bbox": None}], r"annotations\[0\] has no bbox"),
        ([IMAGE], [OBJECT | {"bbox": "abcd"}], r"annotations\[0\].bbox is not"),
        ([IMAGE], [OBJECT | {"bbox": [0, 0, -1, 2]}], r"annotations\[0\].bbox is no box"),
        ([IMAGE], [OBJECT, OBJECT | {"category_id": 9}], r"annotations\[1\] is of category 9"),
    ],
)
def test_damaged_labels_are_refused_in_one_line(
    images: object, annotations: object, said: str, tmp_path: Path
) -> None:
    path = tmp_path / "labels.json"
    names = [{"id": 1, "name": "cat"}]
    path.write_text(json.dumps({"images": images, "annotations": annotations, "categories": names}))
    with pytest.raises(RequestError, match=said) as caught:
        LabelledSet(path)
    assert "\n" not in str(caught.value)


def test_a_network_may_know_more_than_the_labels(tmp_path: Path) -> None:
    """What it found beyond them ended in a ValueError."""
    path = write_set(tmp_path)
    coco = json.loads(path.read_text())
    kept = [c for c in coco["categories"] if c["name"] == "cat"]
    coco["categories"] = [kept[0] | {"name": "Cat"}]
    coco["annotations"] = [a for a in coco["annotations"] if a["category_id"] == kept[0]["id"]]
    path.write_text(json.dumps(coco))
    labelled = LabelledSet(path)
    (scores,) = vision_bench.run(labelled, [("oracle", Oracle())], threads=()).scores  # type: ignore[list-item]
    assert scores.detection is not None
    assert scores.detection.by_class.keys() == {"Cat"}
    assert scores.detection.by_class["Cat"][0] == pytest.approx(100)
    found = vision_bench.predict_all(labelled, Oracle(), lambda line: None)  # type: ignore[arg-type]
    failures.contact_sheet(labelled, found.predictions, count=2, columns=2)
