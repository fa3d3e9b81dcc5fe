"""The semantic profile on the command line."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import pytest
from PIL import Image
from safetensors import safe_open

import semantic_model
from conftest import Run
from photographs import astronaut, coffee
from weights_folder import weights_from


@pytest.fixture(scope="module", autouse=True)
def weights(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    folder = tmp_path_factory.mktemp("weights")
    semantic_model.install(folder)
    with weights_from(folder):
        yield


def test_one_file_from_picture_to_results_and_features(vcm: Run, tmp_path: Path) -> None:
    Image.fromarray(astronaut(96, 128)).save("one.png")
    assert vcm("encode", "one.png", "-o", "x.vcm", "--profile", "semantic").code == 0
    told = json.loads(vcm("info", "x.vcm", "--json").lines[0])
    assert (told["profile"], told["split"]) == ("semantic", "c3")
    seen = vcm("analyze", "x.vcm", "--task", "all", "--json", "--score", "0")
    assert seen.code == 0, seen.stderr
    found = json.loads(seen.lines[0])
    assert found["objects"]
    assert found["classes"]
    assert vcm("decode", "x.vcm", "-o", "feats.safetensors").code == 0
    with safe_open(tmp_path / "feats.safetensors", "pt") as file:
        about = json.loads(file.metadata()["features"])
        assert set(file.keys()) == {"c3"}
    assert about["model"] == semantic_model.codec().binding
    assert vcm("encode", "feats.safetensors", "-o", "y.vcm", "--profile", "semantic").code == 0
    assert vcm("verify", "x.vcm", "y.vcm", "--deep").code == 0
    listed = next(
        line for line in map(json.loads, vcm("models", "--json").lines) if line["splits"] == ["c3"]
    )
    assert (listed["profile"], listed["splits"]) == ("semantic", ["c3"])


def test_groups_and_folders(vcm: Run, tmp_path: Path) -> None:
    folder = tmp_path / "pictures"
    folder.mkdir()
    Image.fromarray(astronaut(96, 128)).save(folder / "one.png")
    Image.fromarray(coffee(80, 110)).save(folder / "two.png")
    assert vcm("encode", folder, "-o", "coded/", "--profile", "semantic").code == 0
    assert {path.name for path in (tmp_path / "coded").iterdir()} == {"one.vcm", "two.vcm"}
    mask = Image.new("L", (128, 96))
    mask.paste(1, (32, 16, 80, 64))
    mask.save("mask.png")
    made = vcm("encode", folder / "one.png", "-o", "g.vcm", "--profile", "semantic",
               "--groups", "mask.png")  # fmt: skip
    assert made.code == 0, made.stderr
    for group in ("0", "1"):
        assert vcm("extract", "g.vcm", "-o", f"g{group}.vcm", "--groups", group).code == 0
    assert vcm("merge", "g0.vcm", "g1.vcm", "-o", "again.vcm").code == 0
    assert (tmp_path / "again.vcm").read_bytes() == (tmp_path / "g.vcm").read_bytes()


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("--stage", "adaptor"), "give --data"),
        (("--stage", "codec"), "give --data"),
        (("--stage", "features", "--export", "w"), "go with --stage adaptor"),
        (("--stage", "nothing"), "Invalid value"),
    ],
)
def test_training_refuses_what_does_not_go_together(
    vcm: Run, arguments: tuple[str, ...], said: str
) -> None:
    ran = vcm("train", "semantic", "--run", "runs", *arguments)
    assert ran.code == 2
    assert said in ran.stderr
