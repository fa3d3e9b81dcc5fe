"""Wrong usage ends with 2, at once: nothing is written, nothing lost, no network loaded."""

from __future__ import annotations

import json
from pathlib import Path
from types import SimpleNamespace

import pytest
from PIL import Image

from conftest import Run, loaded
from vcmcodec.cli import analyze, batch, encode, features, files

BOXES = [{"label": "cat", "box": [0, 0, 32, 32]}]


@pytest.fixture
def folder(tmp_path: Path, hand_made: bytes) -> dict[str, bytes]:
    """One file of every kind that a command may be given, and what is in each."""
    Image.new("RGB", (64, 48), (90, 120, 30)).save(tmp_path / "a.png")
    Image.new("L", (64, 48)).save(tmp_path / "mask.png")
    (tmp_path / "boxes.json").write_text(json.dumps(BOXES))
    (tmp_path / "labels.txt").write_text("cat\ndog\n")
    (tmp_path / "net.onnx").write_bytes(b"a network of the user's own")
    (tmp_path / "own.safetensors").write_bytes(b"another one")
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
        "train bottleneck --data . --run x --export . --model own --vision own.safetensors",
        "bench tasks boxes.json --json ./boxes.json",
        "bench tasks boxes.json --html boxes.json",
        "bench tasks boxes.json --judge net.onnx --csv net.onnx",
        "bench objects boxes.json --json boxes.json",
        "bench vision boxes.json --model net.onnx --json boxes.json",
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
        ("bench tasks boxes.json --csv x.json --json x.json", "two results would be written to"),
    ],
)
def test_two_results_do_not_share_a_file(
    line: str, words: str, vcm: Run, folder: dict[str, bytes]
) -> None:
    refused(vcm, line, words, folder)


@pytest.mark.parametrize(
    ("line", "option", "name"),
    [
        ("encode .", "--output", "a.png.vcm"),
        ("features .", "--output", "a.png.safetensors"),
        ("analyze . --mask masks/", "--draw", "a.png.png"),
    ],
)
def test_names_that_differ_in_their_extension_alone_get_a_way_out(
    line: str, option: str, name: str, vcm: Run, folder: dict[str, bytes],
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    planned: list[Path | None] = []

    def run(work: object, jobs: list[files.Job], style: object) -> int:
        planned.extend(job.target for job in jobs)
        return 0

    def look(analysis: analyze.Analysis, inputs: object) -> int:
        planned.extend(outputs.drawing for outputs in analysis._outputs.values())
        return 0

    monkeypatch.setattr(batch, "run", run)
    monkeypatch.setattr(analyze.Analysis, "run", look)
    Path("a.tif").write_bytes(b"")
    before = contents(Path())
    refused(vcm, f"{line} {option} out", "--keep-extension keeps them apart", before)
    assert not planned
    assert vcm(*line.split(), option, "out", "--keep-extension").code == 0
    assert Path("out") / name in planned


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


ODD = [
    ("decode a.vcm -o x.png --background reddish", "no colour 'reddish'"),
    ("decode a.vcm -o x.jpg --groups face", "JPEG has no transparency"),
    ("decode a.vcm b.vcm -o out --format bmp --groups face", "BMP has no transparency"),
    ("decode a.vcm -o - --format ppm --groups face", "PPM has no transparency"),
    ("decode a.vcm -o x.jpeg --background transparent", "--background takes a colour"),
    ("features a.png -o x.safetensors --split c9", "no split point c9; there are stem, c2, c3"),
    ("features a.png mask.png -o out/ --split fpn2 --json", "no split point fpn2"),
    ("encode a.png -o x.vcm --profile bottleneck --split c9", "no split point c9; it codes"),
    ("encode a.png -o x.vcm --groups boxes.json --labels 1=x", "boxes carry their own labels"),
    ("encode a.png -o x.vcm --groups groups --labels 1=x", "boxes carry their own labels"),
    ("encode a.png -o x.vcm --effort 3", "--effort adapts files for machines alone"),
    ("encode a.png -o x.vcm --effort 3 --task human,detection", "machines alone"),
    ("encode a.png -o x.vcm --split fpn", "it has no --split"),
    ("encode a.png -o x.vcm --vision torchvision:resnet18=net.onnx", "it needs no --vision"),
    ("encode a.png -o x.vcm --base-quality 80", "above the picture's quality, 60"),
    ("encode a.png -o x.vcm --base-quality 80 --quality 79.5", "above the picture's quality, 79.5"),
    ("encode a.png -o x.vcm --base-quality 9 --target-bpp 1 --task detection", "cannot both hold"),
    ("encode a.png -o x.vcm --task detection -Q 1 --base-quality 1", "have one quality"),
    ("encode a.png -o x.vcm --task detection --text a=b", "kept with the layers for people"),
    ("encode a.png -o x.vcm --profile pyramid --text a=b", "kept with the layers for people"),
    ("encode a.png -o x.vcm --profile pyramid --task human", "does not serve human"),
    ("encode a.png -o x.vcm --profile bottleneck --effort 3", "it takes no --effort"),
    ("encode a.png -o x.vcm --profile pyramid --longer-side 100", "--longer-side is for pictures"),
    ("encode a.png -o x.vcm --profile pyramid -Q 1 --base-quality 1", "exclude each other"),
    ("encode a.png -o x.vcm --labels 1=x", "--labels names the groups of a mask"),
    ("encode a.png -o x.vcm --labels 1=x --groups auto", "--labels names the groups of a mask"),
]


@pytest.mark.parametrize(("line", "words"), ODD)
def test_options_that_never_go_together_are_wrong_usage(
    line: str, words: str, vcm: Run, folder: dict[str, bytes]
) -> None:
    refused(vcm, line, words, folder)


@pytest.mark.parametrize(
    "line",
    [
        "decode a.vcm -o x.png --background transparent",
        "decode a.vcm -o x.png --background red --width 1.0",
        "decode a.vcm -o x.webp --groups face",
        "decode a.vcm -o x.jpg --groups face --background red",
        "decode a.vcm -o out --format avif --groups face --background transparent",
        "features a.png -o x.safetensors --split c2",
        "features a.png -o x.safetensors --split layer9 --model nothing.onnx",
        "encode a.png -o x.vcm --effort 3 --task detection",
        "encode a.png -o x.vcm --effort 0",
        "encode a.png -o x.vcm --base-quality 60",
        "encode a.png -o x.vcm --base-quality 70 --target-bpp 6",
        "encode a.png -o x.vcm --base-quality 80 --task detection",
        "encode a.png -o x.vcm --profile pyramid --effort 3",
        "encode a.png -o x.vcm --profile bottleneck --split c4 --base-quality 80",
        "encode a.png -o x.vcm --text a=b",
        "encode a.png -o x.vcm --groups mask.png --labels 1=x",
    ],
)
def test_options_that_go_together_are_not_refused(
    line: str, vcm: Run, folder: dict[str, bytes], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(batch, "run", lambda work, jobs, style: 7)
    ran = vcm(*line.split())
    assert (ran.code, ran.stderr) == (7, "")


@pytest.mark.parametrize("line", [ODD[k][0] for k in (0, 1, 5, 7, 8, 10, 17)])
def test_wrong_usage_is_told_before_torch_is_loaded(
    line: str, folder: dict[str, bytes], tmp_path: Path
) -> None:
    assert loaded(line.split(), ("click", "torch"), tmp_path) == ["click"]


def test_split_points_of_other_networks_are_asked_of_them(
    vcm: Run, folder: dict[str, bytes], monkeypatch: pytest.MonkeyPatch
) -> None:
    def opened(name: str, device: str) -> SimpleNamespace:
        return SimpleNamespace(splits=("layer1", "layer2"))

    monkeypatch.setattr("vcmcodec.vision.backend.open_backend", opened)
    monkeypatch.setattr(batch, "run", lambda work, jobs, style: 7)
    line = "features a.png -o x.safetensors --model torchvision:resnet18=net.onnx --split"
    refused(vcm, f"{line} c4", "no split point c4; there are layer1, layer2", folder)
    assert vcm(*line.split(), "layer2").code == 7


def test_the_quality_that_is_compared_with_is_the_one_of_the_profile() -> None:
    from vcmcodec.profiles import scene

    assert encode.USUAL_QUALITY == scene.DEFAULT_QUALITY


def test_the_split_points_that_are_listed_are_those_of_the_network() -> None:
    from vcmcodec.vision import network

    assert tuple(network.SPLITS) == features.SPLITS
