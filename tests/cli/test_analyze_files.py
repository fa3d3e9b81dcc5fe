"""`vcm analyze` on `.vcm` files, with small networks whose answers do not matter."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

import vcmcodec
from conftest import Run
from photographs import astronaut, coffee
from task_models import install

CELLS = np.zeros((7, 10), np.uint8)
CELLS[1:5, 3:7] = 1


@pytest.fixture(scope="module")
def weights(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return install(tmp_path_factory.mktemp("tasks"))


@pytest.fixture(autouse=True)
def _installed(weights: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("VCMCODEC_WEIGHTS", str(weights))


@pytest.fixture
def street(tmp_path: Path) -> Path:
    """A full file of two groups, of which one is called person."""
    from vcmcodec import grouping

    plan = grouping.from_mask(CELLS.repeat(16, 0).repeat(16, 1), 112, 160, {1: "person"})
    path = tmp_path / "street.vcm"
    path.write_bytes(vcmcodec.encode(astronaut(), quality=90, groups=plan))
    return path


def test_json_tells_results_and_the_bytes_that_were_read(vcm: Run, street: Path) -> None:
    ran = vcm("analyze", street, "--json", "--task", "all")
    assert ran.code == 0
    (line,) = ran.lines
    found = json.loads(line)
    assert list(found) == [
        "source", "file", "task", "width", "height", "objects", "classes", "areas", "bytes_read",
        "warnings",
    ]  # fmt: skip
    assert found["source"] == found["file"] == str(street)
    assert (found["width"], found["height"]) == (160, 112)
    assert found["objects"]
    assert found["warnings"] == []
    assert sum(found["areas"].values()) == pytest.approx(1, abs=1e-3)


def test_a_base_only_file_gives_the_same_as_the_full_one(
    vcm: Run, street: Path, tmp_path: Path
) -> None:
    base = tmp_path / "base.vcm"
    base.write_bytes(vcmcodec.extract(street, tasks=["detection"]))
    assert base.stat().st_size < street.stat().st_size / 2
    whole, part = (
        json.loads(vcm("analyze", path, "--json").lines[0]) for path in (street, base)
    )  # fmt: skip
    for one in (whole, part):
        one.pop("source"), one.pop("file"), one.pop("bytes_read")
    assert whole == part


def test_groups_leave_only_their_own_objects_and_areas(
    vcm: Run, street: Path, tmp_path: Path
) -> None:
    mask = tmp_path / "mask.png"
    line = vcm("analyze", street, "--json", "--groups", "person", "--mask", mask).lines[0]
    found = json.loads(line)
    assert found["objects"]
    for thing in found["objects"]:
        x, y, w, h = thing["box"]
        assert CELLS[int((y + h / 2) // 16), int((x + w / 2) // 16)] == 1, thing
    labels = np.asarray(Image.open(mask))
    outside = CELLS.repeat(16, 0).repeat(16, 1) == 0
    assert not labels[outside].any()
    assert labels[~outside].any()


def test_pictures_files_and_standard_input_mix(
    vcm_process: Run, weights: Path, street: Path
) -> None:
    picture = street.with_name("coffee.png")
    Image.fromarray(coffee(48, 64)).save(picture)
    nameless = street.with_name("nameless")
    nameless.write_bytes(street.read_bytes())
    coco = street.with_name("found.json")
    ran = vcm_process(
        "analyze", "-", picture, street, nameless, "--task", "detection", "--json", "--coco", coco,
        stdin=street.read_bytes(), VCMCODEC_WEIGHTS=str(weights),
    )  # fmt: skip
    assert ran.code == 0, ran.stderr
    told = [json.loads(line) for line in ran.lines]
    assert [one["source"] for one in told] == ["-", str(picture), str(street), str(nameless)]
    assert told[0]["objects"] == told[2]["objects"] == told[3]["objects"]
    assert told[1]["bytes_read"] == picture.stat().st_size
    whole = json.loads(coco.read_text())
    assert [image["width"] for image in whole["images"]] == [160, 64, 160, 160]
    assert len(whole["categories"]) == 20
    assert {a["image_id"] for a in whole["annotations"]} >= {1, 3, 4}


def test_folders_hold_files_as_well(vcm: Run, street: Path, tmp_path: Path) -> None:
    ran = vcm("analyze", tmp_path, "--json", "--task", "classification")
    assert [json.loads(line)["file"] for line in ran.lines] == [str(street)]


def test_several_workers_tell_the_same_in_the_same_order(
    vcm: Run, street: Path, tmp_path: Path
) -> None:
    folder = tmp_path / "mixed"
    folder.mkdir()
    Image.fromarray(coffee()).save(folder / "b.png")
    (folder / "c.vcm").write_bytes(b"no file of ours")
    (folder / "d.vcm").write_bytes(street.read_bytes())
    asked = "analyze", folder, "--json", "--threads", "1", "--coco", tmp_path / "found.json"
    told = []
    for workers in ("1", "2"):
        ran = vcm(*asked, "--jobs", workers, "--draw", f"{tmp_path / workers}/")
        assert ran.code == 1
        drawn = {path.name: path.read_bytes() for path in (tmp_path / workers).iterdir()}
        told.append((ran.lines, drawn, (tmp_path / "found.json").read_text()))
    assert told[0] == told[1]
    lines = [json.loads(line) for line in told[0][0]]
    assert [Path(line["file"]).name for line in lines] == ["b.png", "c.vcm", "d.vcm"]
    assert ["error" in line for line in lines] == [False, True, False]
    assert set(told[0][1]) == {"b.png", "d.png"}


def test_the_drawing_is_of_the_picture_or_of_the_preview(
    vcm: Run, street: Path, tmp_path: Path
) -> None:
    base = tmp_path / "base.vcm"
    base.write_bytes(vcmcodec.extract(street, tasks=["detection"]))
    shown = {}
    for path in (street, base):
        target = tmp_path / f"{path.stem}.png"
        assert (
            vcm("analyze", path, "--score", "1", "--task", "detection", "--draw", target).code == 0
        )
        shown[path.stem] = np.asarray(Image.open(target))
    # drawings are enlarged three times, and nothing is above a score of 1
    for name, source in (("street", street), ("base", base)):
        decoded = np.asarray(vcmcodec.decode(source))
        assert np.array_equal(shown[name][1::3, 1::3], decoded), name
    assert not np.array_equal(shown["street"], shown["base"])


def test_what_cannot_be_is_said_in_one_line(vcm: Run, street: Path, tmp_path: Path) -> None:
    picture = tmp_path / "a.png"
    Image.fromarray(coffee(48, 64)).save(picture)
    broken = tmp_path / "broken.vcm"
    broken.write_bytes(street.read_bytes()[:200])
    for arguments, code, text in (
        ((street, "--groups", "dog"), "request", "no group 'dog'"),
        ((picture, "--groups", "person"), "request", "a picture has none"),
        ((street, "--size", "64"), "request", "--model and --size are for pictures"),
        ((broken,), "truncated", "cut off"),
    ):
        ran = vcm("analyze", *arguments, "--json")
        assert ran.code == 1, arguments
        error = json.loads(ran.lines[0])["error"]
        assert error["code"] == code
        assert text in error["message"], error


def test_the_benches_of_seeing_print_tables_and_json(vcm: Run, tmp_path: Path) -> None:
    Image.fromarray(astronaut()).save(tmp_path / "a.png")
    ran = vcm("bench", "analyze", "a.png", "--repeats", "1", "--threads", "1", "-q", "--json")
    assert ran.code == 0, ran.stderr
    assert json.loads(ran.stdout)["analyze"]["ratio"] > 0
    labels = {
        "images": [{"id": 1, "file_name": "a.png", "width": 160, "height": 112}],
        "categories": [{"id": 1, "name": "person"}],
        "annotations": [{"id": 1, "image_id": 1, "category_id": 1, "bbox": [40, 20, 60, 80]}],
    }
    (tmp_path / "set.json").write_text(json.dumps(labels))
    ran = vcm("bench", "objects", "set.json", "--margin", "8", "--threads", "1", "-q")
    assert ran.code == 0, ran.stderr
    assert "background dropped" in ran.stdout.decode()


def test_the_tasks_model_is_listed(vcm: Run, weights: Path) -> None:
    told = [json.loads(line) for line in vcm("models", "--json").lines]
    (one,) = [model for model in told if model["id"] == "tasks-small"]
    assert (one["profile"], one["default"], one["present"]) == ("tasks", True, True)
    assert one["tasks"] == ["detection", "segmentation", "classification"]
    assert one["path"] == str(weights / "tasks-small.safetensors")


def test_a_base_that_is_too_coarse_for_a_task_is_told_of(vcm: Run, tmp_path: Path) -> None:
    (tmp_path / "a.vcm").write_bytes(vcmcodec.encode(astronaut(), tasks=["classification"]))
    ran = vcm("analyze", "a.vcm", "--json")
    assert ran.code == 0
    assert json.loads(ran.lines[0])["warnings"] == [
        "detection needs a base quality of 30, this file has 10",
        "segmentation needs a base quality of 25, this file has 10",
    ]
    assert "warning: detection needs" in ran.stderr
    ran = vcm("analyze", "a.vcm", "--task", "classification")
    assert (ran.code, ran.stderr) == (0, "")
    assert vcm("analyze", "a.vcm", "--quiet").stderr == ""


def test_several_tasks_may_be_asked_for(vcm: Run, street: Path) -> None:
    for arguments, task, keys in (
        (
            ("--task", "detection,classification"),
            "detection,classification",
            {"objects", "classes"},
        ),
        (("-t", "segmentation", "-t", "detection"), "segmentation,detection", {"areas", "objects"}),
        (("--task", "all"), "all", {"objects", "classes", "areas"}),
        ((), "all", {"objects", "classes", "areas"}),
    ):
        found = json.loads(vcm("analyze", street, "--json", *arguments).lines[0])
        assert found["task"] == task
        assert keys == found.keys() & {"objects", "classes", "areas"}
    assert vcm("analyze", street, "--task", "human").code == 2
    assert vcm("analyze", street, "--task", "detection", "--mask", "m.png").code == 2
