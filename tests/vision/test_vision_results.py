"""Typed results, groups made of them, drawings, and the weight file."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load_file, save, save_file
from test_vision_network import SMALL, small_network, tensors

from vcmcodec import grouping
from vcmcodec.errors import RequestError, WeightsError
from vcmcodec.vision import drawing, weights
from vcmcodec.vision.auto_groups import groups_from_predictions
from vcmcodec.vision.backend import ReferenceBackend, open_backend
from vcmcodec.vision.config import VisionConfig
from vcmcodec.vision.labels import VOC
from vcmcodec.vision.network import SPLITS, VisionNetwork
from vcmcodec.vision.predictions import (
    ClassScore,
    DetectedObject,
    LabelMap,
    Predictions,
    to_coco,
)

LABELS = ("ant", "bee", "cat", "dog", "eel")


def some_predictions() -> Predictions:
    labels = np.zeros((40, 80), np.uint8)
    labels[:20, :20] = 2
    return Predictions(
        40,
        80,
        (
            DetectedObject("cat", 0.9, (8.0, 4.0, 30.0, 20.0)),
            DetectedObject("bee", 0.2, (0.0, 0.0, 80.0, 40.0)),
        ),
        (ClassScore("cat", 0.8), ClassScore("ant", 0.1)),
        LabelMap(labels, ("background", *LABELS)),
    )


def test_json_has_the_promised_keys_and_numbers() -> None:
    found = some_predictions().to_json("a.jpg", "all")
    assert list(found) == [
        "file", "task", "width", "height", "objects", "classes", "areas"
    ]  # fmt: skip
    assert found["objects"][0] == {"label": "cat", "score": 0.9, "box": [8.0, 4.0, 30.0, 20.0]}
    assert found["areas"] == {"background": 0.875, "bee": 0.125}
    detection = Predictions(4, 4, ()).to_json("b", "detection")
    assert list(detection) == ["file", "task", "width", "height", "objects"]


def test_results_are_checked_when_they_are_made() -> None:
    with pytest.raises(RequestError, match="score"):
        DetectedObject("cat", 1.2, (0, 0, 1, 1))
    with pytest.raises(RequestError, match="size"):
        Predictions(8, 8, label_map=LabelMap(np.zeros((4, 4), np.uint8), ("background",)))
    with pytest.raises(RequestError, match="uint8"):
        LabelMap(np.zeros((4, 4), np.int64), ("background",))


def test_coco_results_count_categories_from_one() -> None:
    first, second = to_coco([some_predictions()], [7], LABELS)
    assert first == {
        "image_id": 7, "category_id": 3, "bbox": [8.0, 4.0, 30.0, 20.0], "score": 0.9
    }  # fmt: skip
    assert second["category_id"] == 2


def test_detected_objects_become_groups_of_the_codec() -> None:
    boxes = groups_from_predictions(some_predictions(), 80, 160, score=0.3)
    assert boxes == [{"label": "cat", "score": 0.9, "box": [16.0, 8.0, 60.0, 40.0]}]
    plan = grouping.from_boxes(boxes, 80, 160)
    assert [(g.label, g.score) for g in plan.groups] == [("background", None), ("cat", 0.9)]
    assert plan.labels[0, 1] == 1
    assert plan.labels[4, 9] == 0
    with pytest.raises(RequestError, match="detection"):
        groups_from_predictions(Predictions(8, 8), 8, 8)


def test_objects_smaller_than_a_cell_are_background() -> None:
    tiny = Predictions(64, 64, (DetectedObject("cat", 0.9, (3.0, 3.0, 9.0, 9.0)),))
    assert groups_from_predictions(tiny, 64, 64) == []
    assert len(groups_from_predictions(tiny, 256, 256)) == 1


def test_colours_of_the_classes_differ_and_the_drawing_shows_boxes() -> None:
    colours = np.array([drawing.colour_of(i) for i in range(20)], float)
    apart = np.abs(colours[:, None] - colours[None]).sum(2) + 999 * np.eye(20)
    assert apart.min() > 40
    rgb = np.full((400, 800, 3), 128, np.uint8)
    found = Predictions(400, 800, (DetectedObject("cat", 0.9, (100.0, 100.0, 300.0, 200.0)),))
    image = np.asarray(drawing.draw(rgb, found, LABELS))
    assert image.shape == rgb.shape
    assert tuple(image[200, 101]) == drawing.colour_of(2)  # left edge
    assert tuple(image[200, 250]) == (128, 128, 128)  # inside
    label = image[80:100, 100:200].reshape(-1, 3)
    assert (label == drawing.colour_of(2)).all(1).mean() > 0.3  # a filled plate above the box


def test_a_mask_picture_holds_class_numbers() -> None:
    label_map = some_predictions().label_map
    assert label_map is not None
    image = drawing.mask_image(label_map)
    assert image.mode == "P"
    np.testing.assert_array_equal(np.asarray(image), label_map.labels)


def test_the_weight_file_gives_the_same_network_back(tmp_path: Path) -> None:
    network = small_network()
    path = tmp_path / "small.safetensors"
    path.write_bytes(weights.pack(network, labels=LABELS, longer_side=128, facts={"steps": 3}))
    model = weights.load(path)
    assert (model.labels, model.longer_side, dict(model.facts)) == (LABELS, 128, {"steps": 3})
    assert model.network.config == SMALL
    rgb = torch.rand(1, 3, 64, 64)
    with torch.no_grad():
        for one, other in zip(tensors(network(rgb)), tensors(model.network(rgb)), strict=True):
            torch.testing.assert_close(one, other, rtol=0.02, atol=0.02)  # float16 kernels
    assert weights.pack(network, labels=LABELS, longer_side=128) == weights.pack(
        network, labels=LABELS, longer_side=128
    )


def test_wrong_weight_files_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "x.safetensors"
    with pytest.raises(WeightsError, match="cannot read"):
        weights.load(path)
    path.write_bytes(b"not a weight file at all")
    with pytest.raises(WeightsError, match="cannot read"):
        weights.load(path)
    path.write_bytes(save({"a": torch.zeros(1)}, {"vision": '{"format": "other"}'}))
    with pytest.raises(WeightsError, match="other"):
        weights.load(path)
    whole = weights.pack(small_network(), labels=LABELS, longer_side=64)
    path.write_bytes(whole)
    state = load_file(path)
    state.pop("stem.conv.weight")
    from safetensors import safe_open

    with safe_open(str(path), "pt") as file:
        metadata = file.metadata()
    path.write_bytes(save(state, metadata))
    with pytest.raises(WeightsError, match="vision network"):
        weights.load(path)


def test_the_backend_says_the_same_whole_and_split(tmp_path: Path) -> None:
    path = tmp_path / "small.safetensors"
    path.write_bytes(weights.pack(small_network(), labels=LABELS, longer_side=96))
    backend = ReferenceBackend(weights.load(path))
    rgb = np.random.default_rng(0).integers(0, 255, (50, 70, 3)).astype(np.uint8)
    whole = backend.predict(rgb, score=0.0)
    assert whole.objects
    for split in SPLITS:
        features = backend.head(rgb, split)
        raw = backend.rest(features, backend.tasks)
        parts = backend.results(raw, features.geometry, 0.0)
        assert parts.to_json("a", "all") == whole.to_json("a", "all")


def test_the_label_set_is_vocs() -> None:
    assert len(VOC) == len(set(VOC)) == 20
    assert list(VOC) == sorted(VOC)


def test_areas_are_the_same_whatever_else_is_asked(tmp_path: Path) -> None:
    path = tmp_path / "w.safetensors"
    path.write_bytes(weights.pack(small_network().fold(), labels=LABELS, longer_side=64))
    backend = ReferenceBackend(weights.load(path))
    rgb = np.random.default_rng(0).integers(0, 256, (50, 60, 3), np.uint8)
    alone = backend.predict(rgb, ["segmentation"])
    both = backend.predict(rgb, ["segmentation", "detection"], score=0.6)
    assert alone.objects is None  # the detector ran, for the areas' sake
    assert both.objects is not None
    assert all(thing.score > 0.6 for thing in both.objects)
    assert alone.label_map is not None
    assert both.label_map is not None
    np.testing.assert_array_equal(alone.label_map.labels, both.label_map.labels)


def packed(tmp_path: Path, about: object) -> Path:
    """A weight file of a small network that says something else of itself."""
    network = VisionNetwork(VisionConfig(stem=8, c2=8, c3=8, c4=8, c5=8, pyramid=(8, 8, 8), head=8))
    path = tmp_path / "small.safetensors"
    path.write_bytes(weights.pack(network, labels=VOC, longer_side=64))
    with safe_open(path, "pt") as file:
        tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
        own = json.loads(file.metadata()[weights.KEY])
    changed = {**own, **about} if isinstance(about, dict) else about
    save_file(tensors, path, {weights.KEY: json.dumps(changed)})
    return path


@pytest.mark.parametrize(
    "about",
    [[], {"config": []}, {"config": {}}, {"labels": ["one"]}, {"longer_side": 0},
     {"longer_side": -3}, {"format": "other"}],
    ids=str,
)  # fmt: skip
def test_weights_that_say_something_else_are_refused_in_one_line(
    about: object, tmp_path: Path
) -> None:
    with pytest.raises(WeightsError) as caught:
        weights.load(packed(tmp_path, about))
    assert "\n" not in str(caught.value)


def test_a_network_that_is_replaced_is_read_again(tmp_path: Path) -> None:
    path = packed(tmp_path, {"longer_side": 96})
    assert open_backend(str(path)).longer_side == 96
    packed(tmp_path, {"longer_side": 160})
    assert open_backend(str(path)).longer_side == 160


@pytest.mark.parametrize("given", [{"labels": VOC}, {"outputs": {"boxes": "a"}}], ids=str)
def test_what_a_network_has_no_use_for_is_refused(given: dict[str, Any], tmp_path: Path) -> None:
    with pytest.raises(RequestError, match=f"{next(iter(given))}: reference networks take none"):
        open_backend(str(packed(tmp_path, {})), **given)
