"""`vcm analyze` on pictures, with a small network whose answers do not matter."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path
from typing import Any

import click
import numpy as np
import pytest
import torch
from click.testing import CliRunner
from PIL import Image

from vcmcodec.cli.analyze import command
from vcmcodec.vision import drawing, weights
from vcmcodec.vision.backend import ReferenceBackend
from vcmcodec.vision.config import VisionConfig
from vcmcodec.vision.labels import VOC
from vcmcodec.vision.network import VisionNetwork
from vcmcodec.vision.predictions import ClassScore, Predictions


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    torch.manual_seed(0)
    network = VisionNetwork(
        VisionConfig(stem=8, c2=8, c3=8, c4=8, c5=8, blocks=(1, 1, 2, 1), pyramid=(8, 8, 8), head=8)
    ).eval()
    for out in network.detection.class_outs:
        torch.nn.init.normal_(out.weight)
        torch.nn.init.zeros_(out.bias)
    for part in network.modules():  # norms that have seen nothing would let the features fade
        if isinstance(part, torch.nn.BatchNorm2d):
            torch.nn.init.constant_(part.weight, 1.3)
    path = tmp_path_factory.mktemp("model") / "small.safetensors"
    path.write_bytes(weights.pack(network, labels=VOC, longer_side=64))
    return path


@pytest.fixture
def picture(tmp_path: Path) -> Path:
    rgb = np.random.default_rng(0).integers(0, 255, (48, 72, 3)).astype(np.uint8)
    path = tmp_path / "a.png"
    Image.fromarray(rgb).save(path)
    return path


def run(model: Path, *arguments: object) -> tuple[int, str]:
    """Exit code and standard output."""
    line = ["--model", str(model), *map(str, arguments)]
    done = CliRunner().invoke(command, line, standalone_mode=False)
    if done.exception is not None:
        raise done.exception
    return int(done.return_value or 0), done.stdout


def test_json_is_one_object_a_picture(model: Path, picture: Path) -> None:
    code, out = run(model, picture, "--json", "--score", "0")
    assert code == 0
    (line,) = out.splitlines()
    found = json.loads(line)
    assert list(found) == [
        "source", "file", "task", "width", "height", "objects", "classes", "areas", "bytes_read",
        "warnings",
    ]  # fmt: skip
    assert found["source"] == found["file"] == str(picture)
    assert found["task"] == "all"
    assert (found["bytes_read"], found["warnings"]) == (picture.stat().st_size, [])
    assert (found["width"], found["height"]) == (72, 48)
    x, y, w, h = found["objects"][0]["box"]
    assert 0 <= x <= x + w <= 72.01
    assert 0 <= y <= y + h <= 48.01
    assert {c["label"] for c in found["classes"]} == set(VOC)
    assert sum(found["areas"].values()) == pytest.approx(1, abs=1e-3)


def test_only_the_task_that_is_asked_for_is_told(model: Path, picture: Path) -> None:
    for task, key in (
        ("detection", "objects"),
        ("classification", "classes"),
        ("segmentation", "areas"),
    ):
        found = json.loads(run(model, picture, "--json", "--task", task)[1])
        assert {"objects", "classes", "areas"} & found.keys() == {key}


def test_the_score_is_a_threshold(model: Path, picture: Path) -> None:
    def scores(least: float) -> list[float]:
        out = run(model, picture, "--json", "--task", "detection", "--score", least)[1]
        return [thing["score"] for thing in json.loads(out)["objects"]]

    everything = scores(0.0)
    middle = sorted(everything)[len(everything) // 2]
    assert 0 < len(scores(middle)) < len(everything)
    assert min(scores(middle)) >= middle - 1e-4


def test_masks_drawings_and_coco_are_written(model: Path, picture: Path, tmp_path: Path) -> None:
    mask, drawing, coco = (tmp_path / name for name in ("m.png", "d.png", "c.json"))
    code, out = run(
        model, picture, "--score", "0", "--mask", mask, "--draw", drawing, "--coco", coco
    )
    assert code == 0
    assert "object" in out
    with Image.open(mask) as image:
        assert (image.mode, image.size) == ("P", (72, 48))
        assert np.asarray(image).max() <= 20
    with Image.open(drawing) as image:
        assert image.size[0] / image.size[1] == 1.5
    whole = json.loads(coco.read_text())
    assert whole["images"][0]["file_name"] == str(picture)
    assert [c["name"] for c in whole["categories"]] == list(VOC)
    assert whole["annotations"]
    assert {"image_id", "category_id", "bbox", "score"} <= set(whole["annotations"][0])


def test_a_bad_picture_does_not_stop_the_others(model: Path, picture: Path, tmp_path: Path) -> None:
    bad = tmp_path / "b.png"
    bad.write_bytes(b"no picture")
    code, out = run(model, bad, picture, "--json", "--task", "classification")
    assert code == 1
    first, second = (json.loads(line) for line in out.splitlines())
    assert first["source"] == first["file"] == str(bad)
    assert first["error"]["code"] == "picture"
    assert second["file"] == str(picture)


def test_a_folder_of_pictures_makes_a_folder_of_drawings(
    model: Path, picture: Path, tmp_path: Path
) -> None:
    other = picture.with_name("b.png")
    other.write_bytes(picture.read_bytes())
    target = tmp_path / "seen"
    code, out = run(model, tmp_path, "--draw", f"{target}/", "--json")
    assert code == 0
    assert len(out.splitlines()) == 2
    assert sorted(p.name for p in target.iterdir()) == ["a.png", "b.png"]


def test_what_a_picture_loses_is_told(model: Path, tmp_path: Path) -> None:
    path = tmp_path / "deep.png"
    Image.fromarray(np.full((48, 72), 40_000, np.uint16)).save(path)
    found = json.loads(run(model, path, "--json", "--task", "classification")[1])
    assert found["warnings"]
    assert "16 bits" in found["warnings"][0]
    line = ["--model", str(model), str(path), "--task", "classification"]
    told = CliRunner().invoke(command, line, standalone_mode=False).stderr
    assert f"warning: {found['warnings'][0]}" in told


def test_drawings_have_the_format_of_their_name(model: Path, picture: Path, tmp_path: Path) -> None:
    for name, format in (("d.jpg", "JPEG"), ("d.webp", "WEBP"), ("d.png", "PNG"), ("d", "PNG")):
        assert run(model, picture, "--draw", tmp_path / name, "--json")[0] == 0
        with Image.open(tmp_path / name) as image:
            assert image.format == format


def test_a_drawing_that_its_format_cannot_hold_takes_no_result_along(
    model: Path, tmp_path: Path
) -> None:
    Image.new("RGB", (17_000, 32)).save(tmp_path / "wide.png")
    arguments = ("--draw", tmp_path / "d.webp", "--json", "--task", "classification")
    code, out = run(model, tmp_path / "wide.png", *arguments)
    assert code == 1
    (line,) = out.splitlines()
    found = json.loads(line)
    assert found["classes"]
    assert found["error"]["code"] == "output"
    assert found["error"]["message"].startswith("no drawing: ")


def test_table_and_drawing_list_the_same_classes() -> None:
    classes = tuple(
        ClassScore(name, score) for name, score in zip(VOC[:3], (0.6, 0.25, 0.1), strict=True)
    )
    found = Predictions(240, 320, classes=classes)
    rgb = np.full((240, 320, 3), 128, np.uint8)

    def lines(score: float) -> int:
        """Marks beside the lines, in the colours of the classes."""
        drawn = np.asarray(drawing.draw(rgb, found, VOC, score)).reshape(-1, 3)
        return sum((drawn == drawing.colour_of(i)).all(1).any() for i in range(3))

    for score, count in ((0.0, 3), (0.2, 2), (0.3, 1), (0.9, 1)):
        assert len(found.likely(score)) == lines(score) == count


@pytest.mark.parametrize("text", [b"\xff\xfe\x00\x80", b"", b" \n\n"])
def test_a_list_of_names_that_is_none_is_wrong_usage(
    text: bytes, model: Path, picture: Path, tmp_path: Path
) -> None:
    labels = tmp_path / "labels.txt"
    labels.write_bytes(text)
    with pytest.raises(click.BadParameter, match="class name"):
        run(model, picture, "--labels", labels)


def test_a_mask_that_cannot_be_made_is_a_failure(
    model: Path, picture: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Networks without areas wrote no mask, and nothing was said of it."""
    whole = ReferenceBackend.predict

    def without_areas(*given: Any) -> Predictions:
        return dataclasses.replace(whole(*given), label_map=None)

    monkeypatch.setattr(ReferenceBackend, "predict", without_areas)
    code, out = run(model, picture, "--mask", tmp_path / "m.png", "--json")
    assert code == 1
    assert json.loads(out)["error"]["message"].startswith("no mask")
    assert json.loads(out)["classes"]
    assert not (tmp_path / "m.png").exists()
