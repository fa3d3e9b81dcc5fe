"""The tasks model that ships, on real photographs: the base layer tells what the picture tells."""

from __future__ import annotations

from functools import cache

import numpy as np
import pytest
from PIL import Image

from photographs import whole
from vcmcodec import edit, machine, models, pretrained
from vcmcodec.bitstream.container import Container
from vcmcodec.codec import encode
from vcmcodec.reader import Reader
from vcmcodec.vision.backend import open_backend
from vcmcodec.vision.predictions import DetectedObject, Predictions
from vcmcodec.vision.tasks.boxes import overlaps

SCENE = bytes.fromhex(pretrained.find(profile="scene").fingerprint)

pytestmark = [
    pytest.mark.weights,
    pytest.mark.skipif(
        models.find_tasks(SCENE) is None, reason="no tasks model fits the installed picture model"
    ),
]


@cache
def astronaut_file() -> bytes:
    """For machines alone, at the default level."""
    return encode(whole("astronaut"), tasks=["detection", "classification", "segmentation"])


@cache
def from_file() -> Predictions:
    return machine.analyze(astronaut_file())


@cache
def from_picture() -> Predictions:
    return open_backend().predict(whole("astronaut"))


def best_person(found: Predictions) -> DetectedObject:
    """The surest person."""
    people = [thing for thing in found.objects or () if thing.label == "person"]
    assert people, found.objects
    return people[0]


def overlap(one: DetectedObject, other: DetectedObject) -> float:
    corners = [np.array([[x, y, x + w, y + h]]) for x, y, w, h in (one.box, other.box)]
    return float(overlaps(*corners)[0, 0])


def test_the_person_is_found_where_the_picture_shows_one() -> None:
    assert 8 * len(astronaut_file()) / (512 * 512) < 0.4
    assert overlap(best_person(from_file()), best_person(from_picture())) > 0.6


def test_what_the_picture_shows_is_known() -> None:
    assert from_file().classes is not None
    assert from_file().classes[0].label == "person"  # type: ignore[index]


def test_the_areas_are_nearly_those_of_the_picture() -> None:
    ours, theirs = from_file().label_map, from_picture().label_map
    assert ours is not None
    assert theirs is not None
    assert (ours.labels == theirs.labels).mean() > 0.8


def test_a_picture_no_larger_than_the_networks_input_is_seen_straight_from_the_latent() -> None:
    small = np.asarray(Image.fromarray(whole("astronaut")).resize((400, 400)))
    with Reader(encode(small, tasks=["detection"])) as reader:
        model = models.load_tasks(reader.header.fingerprint)
        found = machine.see(reader.latent(), reader.header, model)
        assert found.to_json("", "all") == machine.analyze_reader(reader).to_json("", "all")
    wanted = open_backend().predict(small)
    assert overlap(best_person(found), best_person(wanted)) > 0.6
    assert found.label_map is not None
    assert wanted.label_map is not None
    assert (found.label_map.labels == wanted.label_map.labels).mean() > 0.7


def test_classification_alone_takes_no_more_bytes() -> None:
    alone = encode(whole("astronaut"), tasks=["classification"])
    assert len(alone) <= len(astronaut_file())
    found = machine.analyze(alone, tasks=["classification"])
    assert found.classes is not None
    assert found.classes[0].label == "person"
    assert machine.shortfalls(machine.Reader(alone), ["classification"]) == ()


def test_the_person_is_found_in_a_file_without_background() -> None:
    x, y, w, h = best_person(from_picture()).box
    box = {"label": "person", "box": [x, y, w, h]}
    file = encode(whole("astronaut"), tasks=["detection"], groups=[box])
    part = edit.extract(file, groups=["person"])
    assert len(part) < len(file)
    assert Container.read(part).header.groups
    found = machine.analyze(part)
    assert overlap(best_person(found), best_person(from_picture())) > 0.5


def test_the_person_is_found_in_every_profile_of_features() -> None:
    for profile in ("pyramid", "bottleneck", "semantic"):
        data = encode(whole("astronaut"), profile=profile)
        assert 8 * len(data) / (512 * 512) < 0.3
        found = machine.analyze(data)
        assert overlap(best_person(found), best_person(from_picture())) > 0.6, profile
        assert found.classes is not None
        assert found.classes[0].label == "person", profile


def test_a_file_for_machines_alone_is_of_the_reduced_picture() -> None:
    with Reader(astronaut_file()) as reader:
        assert reader.header.coded_size == (416, 416)
        assert (reader.header.height, reader.header.width) == (512, 512)
    sizes = [
        len(encode(whole("astronaut"), tasks=["detection"], base_quality=50, longer_side=side))
        for side in (None, 0)
    ]
    assert sizes[0] < 0.8 * sizes[1]


def test_float32_can_be_asked_for_and_changes_next_to_nothing(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Where a processor does not compute in bfloat16 the two are the same."""
    usual = from_file()
    models._load_tasks.cache_clear()
    monkeypatch.setenv("VCMCODEC_FLOAT32", "1")
    exact = machine.analyze(astronaut_file())
    assert not models.load_tasks(SCENE).transform.mixed
    models._load_tasks.cache_clear()
    scores = [{one.label: one.score for one in found.classes or ()} for found in (usual, exact)]
    assert max(abs(scores[0][label] - scores[1][label]) for label in scores[1]) < 0.05
    assert overlap(best_person(usual), best_person(exact)) > 0.95
    assert usual.label_map is not None
    assert exact.label_map is not None
    assert np.mean(usual.label_map.labels != exact.label_map.labels) < 0.02
