"""Wrong usage ends with 2, at once: nothing is written, nothing lost, no network loaded."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from PIL import Image

from conftest import Run

BOXES = [{"label": "cat", "box": [0, 0, 32, 32]}]


@pytest.fixture
def folder(tmp_path: Path, hand_made: bytes) -> dict[str, bytes]:
    """One file of every kind that a command may be given, and what is in each."""
    Image.new("RGB", (64, 48), (90, 120, 30)).save(tmp_path / "a.png")
    Image.new("L", (64, 48)).save(tmp_path / "mask.png")
    (tmp_path / "boxes.json").write_text(json.dumps(BOXES))
    (tmp_path / "labels.txt").write_text("cat\ndog\n")
    (tmp_path / "net.onnx").write_bytes(b"a network of the user's own")
    for name in ("a.vcm", "b.vcm"):
        (tmp_path / name).write_bytes(hand_made)
    groups = tmp_path / "groups"
    groups.mkdir()
    (groups / "a.json").write_text(json.dumps(BOXES))
    return contents(tmp_path)


def contents(folder: Path) -> dict[str, bytes]:
    found = (path for path in folder.rglob("*") if path.is_file())
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in found}


def refused(vcm: Run, line: str, words: str, before: dict[str, bytes]) -> None:
    ran = vcm(*line.split(" "))
    assert ran.code == 2, ran.stderr
    assert ran.stdout == b""
    assert ran.stderr.startswith("Usage: vcm ")
    assert words in ran.stderr
    assert contents(Path()) == before


@pytest.mark.parametrize(
    "line",
    [
        "analyze a.png --coco a.png",
        "analyze a.png --coco ./groups/../a.png",
        "analyze a.vcm a.png --coco a.vcm",
        "analyze a.png --labels labels.txt --coco labels.txt",
        "analyze a.png --labels labels.txt --draw labels.txt",
        "analyze a.png --model net.onnx --coco net.onnx",
        "analyze a.vcm --vision torchvision:resnet18=net.onnx --coco net.onnx",
        "encode a.png -o boxes.json --groups boxes.json",
        "encode a.png -o mask.png --groups mask.png",
        "encode a.png -o groups/a.json --groups groups",
        "encode a.png -o net.onnx --profile bottleneck --vision torchvision:resnet18=net.onnx",
        "features a.png -o net.onnx --model net.onnx",
        "merge a.vcm b.vcm -o a.vcm",
        "merge a.vcm b.vcm -o groups/../b.vcm",
        "extract a.vcm -o a.vcm --layer base",
        "decode a.vcm -o a.vcm --format png",
    ],
)
def test_no_result_replaces_what_it_is_made_of(
    line: str, vcm: Run, folder: dict[str, bytes]
) -> None:
    refused(vcm, line, "is an input; write the result somewhere else", folder)


@pytest.mark.parametrize(
    ("line", "words"),
    [
        ("analyze a.png --draw c.png --coco c.png", "--draw and --coco would write"),
        ("analyze a.png --mask c.png --coco ./c.png", "--mask and --coco would write"),
        ("analyze a.png --mask c.png --draw groups/../c.png", "--mask and --draw would write"),
        ("analyze a.png b.png --mask out/ --draw out", "--mask and --draw would write"),
    ],
)
def test_two_results_do_not_share_a_file(
    line: str, words: str, vcm: Run, folder: dict[str, bytes]
) -> None:
    refused(vcm, line, words, folder)


@pytest.mark.parametrize(
    ("line", "words"),
    [
        ("analyze a.png --mask m.jpg", "masks are written as .png"),
        ("analyze a.png --draw d.json", "cannot tell a picture format"),
        ("features a.png -o f.png", "features are written as .safetensors"),
        ("analyze a.png --draw ", "the name is empty"),
        ("analyze a.png --mask ", "the name is empty"),
        ("analyze a.png --coco ", "the name is empty"),
        ("encode a.png -o ", "the name is empty"),
        ("merge a.vcm b.vcm -o ", "the name is empty"),
    ],
)
def test_results_have_names_that_fit_them(
    line: str, words: str, vcm: Run, folder: dict[str, bytes]
) -> None:
    refused(vcm, line, words, folder)
