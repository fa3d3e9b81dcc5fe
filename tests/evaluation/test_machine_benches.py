"""What files without background keep and weigh, and the time of seeing, with small networks."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from photographs import astronaut, photograph
from task_models import install
from vcmcodec import machine
from vcmcodec.errors import RequestError
from vcmcodec.evaluation import analyze_speed, objects_only
from vcmcodec.evaluation.corpora import NamedPicture
from vcmcodec.evaluation.labelled import LabelledSet
from vcmcodec.vision.labels import VOC
from vcmcodec.vision.predictions import DetectedObject, Predictions

BOXES = {
    "a.png": [("person", [40, 20, 60, 80])],
    "b.png": [("cat", [100, 30, 50, 60])],
    "c.png": [],
}
BACKGROUND_OBJECT = ("dog", [2, 100, 20, 10])  # hidden from the groups of a.png by being difficult


@pytest.fixture(autouse=True)
def _installed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("VCMCODEC_WEIGHTS", str(install(tmp_path / "weights")))


@pytest.fixture
def labelled(tmp_path: Path) -> LabelledSet:
    """Three photographs: an object each in two of them, none in the third."""
    pictures = (astronaut(), photograph("chelsea", 112, 160, 80, 120), astronaut(48, 64))
    images, annotations = [], []
    for number, (name, rgb) in enumerate(zip(BOXES, pictures, strict=True), start=1):
        Image.fromarray(rgb).save(tmp_path / name)
        height, width = rgb.shape[:2]
        images.append({"id": number, "file_name": name, "width": width, "height": height})
        difficult = [BACKGROUND_OBJECT] if name == "a.png" else []
        for label, box in BOXES[name] + difficult:
            annotations.append(
                {"id": len(annotations) + 1, "image_id": number, "bbox": box,
                 "category_id": VOC.index(label) + 1, "difficult": label == "dog"}
            )  # fmt: skip
    categories = [{"id": i, "name": name} for i, name in enumerate(VOC, start=1)]
    path = tmp_path / "set.json"
    whole = {"images": images, "annotations": annotations, "categories": categories}
    path.write_text(json.dumps(whole))
    return LabelledSet(path)


def test_real_files_lose_their_background_and_weigh_less(labelled: LabelledSet) -> None:
    result = objects_only.run(labelled)
    assert (result.pictures, result.skipped) == (2, 1)
    assert 0 < result.part_bytes < result.whole_bytes
    assert result.plain_bytes < result.whole_bytes  # groups cost something
    cells = np.zeros((2, 7, 10), bool)
    cells[0, 1:7, 2:7] = True
    cells[1, 1:6, 6:10] = True
    assert result.kept_cells == pytest.approx(100 * cells.mean())
    assert set(result.whole.by_class) == {"person", "cat"}  # the dog is neither hit nor miss
    table = objects_only.tables(result)[0]
    assert [row[0] for row in table.rows] == [
        "without groups", "with groups", "background dropped"
    ]  # fmt: skip


def test_scores_are_of_what_lies_inside_groups(
    labelled: LabelledSet, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A network that knows the truth, and sees less in files without background."""
    calls = []

    def analyze(file: bytes, *, tasks: list[str], score: float) -> Predictions:
        calls.append(len(file))
        picture = "a.png" if len(calls) <= 3 else "b.png"
        is_part = len(calls) % 3 == 0
        things = [DetectedObject("person", 0.95, (0.0, 90.0, 12.0, 12.0))]  # in the background
        if not (picture == "b.png" and is_part):
            ((label, box),) = BOXES[picture]
            things.append(DetectedObject(label, 0.9, tuple(map(float, box))))  # type: ignore[arg-type]
        return Predictions(112, 160, tuple(things))

    monkeypatch.setattr(machine, "analyze", analyze)
    result = objects_only.run(labelled)
    assert result.whole.map50 == pytest.approx(100)
    assert result.whole.by_class["person"][0] == pytest.approx(100)
    assert result.part.map50 == pytest.approx(50)
    assert result.kept == pytest.approx(50)


def test_margins_keep_more_cells_and_together_saves_bytes(labelled: LabelledSet) -> None:
    plain = objects_only.run(labelled)
    wide = objects_only.run(labelled, objects_only.ObjectsOnlySettings(margin=16))
    assert wide.kept_cells > plain.kept_cells
    assert wide.part_bytes > plain.part_bytes
    one = objects_only.run(labelled, objects_only.ObjectsOnlySettings(together=True))
    assert one.whole_bytes <= plain.whole_bytes  # an object each: only the labels are saved


def test_groups_may_be_what_the_network_finds(
    labelled: LabelledSet, monkeypatch: pytest.MonkeyPatch
) -> None:
    everywhere = [{"label": "dog", "score": 0.9, "box": [16.0, 16.0, 32.0, 48.0]}]
    monkeypatch.setattr(objects_only, "find_groups", lambda rgb: everywhere)
    settings = objects_only.ObjectsOnlySettings(groups="auto")
    content = labelled.annotations[0] | {"bbox": [20, 20, 20, 30]}
    labelled.annotations = [content]
    result = objects_only.run(labelled, settings)
    assert (result.pictures, result.skipped) == (3, 0)  # of any picture that is not all dog
    assert result.kept_cells == pytest.approx(100 * (6 + 6 + 4) / (70 + 70 + 12))


def test_files_with_groups_are_adapted_as_the_tasks_model_asks_unless_told_otherwise(
    labelled: LabelledSet, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("VCMCODEC_WEIGHTS", str(install(tmp_path / "adapting", effort=2)))
    settings = [
        objects_only.ObjectsOnlySettings(base_quality=30, effort=effort) for effort in (None, 2, 0)
    ]
    usual, asked, plain = (objects_only.run(labelled, one) for one in settings)
    assert usual.settings.effort == 2
    assert usual.whole_bytes == asked.whole_bytes != plain.whole_bytes
    assert usual.plain_bytes == asked.plain_bytes != plain.plain_bytes
    assert "effort 2" in objects_only.tables(usual)[0].notes[0]


def test_a_set_without_groups_says_so(labelled: LabelledSet, tmp_path: Path) -> None:
    content = json.loads((tmp_path / "set.json").read_text())
    (tmp_path / "none.json").write_text(json.dumps(content | {"annotations": []}))
    with pytest.raises(RequestError, match="no picture"):
        objects_only.run(LabelledSet(tmp_path / "none.json"))


@pytest.mark.parametrize("low", [False, True])
def test_both_ways_of_seeing_are_timed_in_one_run(
    low: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(analyze_speed, "fast_bfloat16", lambda device: low)
    result = analyze_speed.run(NamedPicture("astronaut", astronaut()), threads=1, repeats=2)
    rows = {row.way: row for row in result.rows}
    assert list(rows) == [
        "file for machines alone", "base layer of a file for people", "JPEG",
        *["JPEG, network in bfloat16, too"] * low,
        "decoding the base latent alone", "decoding the JPEG alone",
    ]  # fmt: skip
    ours, jpeg = rows["file for machines alone"], rows["JPEG"]
    assert result.ratio == pytest.approx(ours.timing.median_ms / jpeg.timing.median_ms)
    peoples = rows["base layer of a file for people"].timing.median_ms
    assert result.ratio_peoples == pytest.approx(peoples / jpeg.timing.median_ms)
    assert ours.kmacs is not None
    assert jpeg.kmacs is not None
    assert ours.timing.median_ms > rows["decoding the base latent alone"].timing.median_ms
    assert ours.num_bytes < jpeg.num_bytes
    (table,) = analyze_speed.tables(result)
    assert len(table.rows) == 5 + low
