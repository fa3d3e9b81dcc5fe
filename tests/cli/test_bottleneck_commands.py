"""Edge and server as two processes with a file between them, and the commands around them."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import pytest
from click.testing import CliRunner
from PIL import Image
from safetensors import safe_open

import bottleneck_model
from conftest import Run
from photographs import astronaut, photograph
from vcmcodec.cli.train_bottleneck import command as train
from vcmcodec.profiles import bottleneck
from vcmcodec.training import bottleneck_run
from weights_folder import weights_from


@pytest.fixture(scope="module", autouse=True)
def weights(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    folder = tmp_path_factory.mktemp("weights")
    bottleneck_model.install(folder)
    with weights_from(folder):
        yield folder


@pytest.fixture
def picture(tmp_path: Path) -> Path:
    path = tmp_path / "img.png"
    Image.fromarray(astronaut(96, 128)).save(path)
    return path


def test_front_and_back_run_in_processes_joined_by_a_file(
    vcm_process: Run, picture: Path, tmp_path: Path
) -> None:
    made = vcm_process(
        "encode", picture, "-o", "x.vcm", "--profile", "bottleneck", "--split", "c4",
        "--task", "classification", "--base-quality", "80",
    )  # fmt: skip
    assert made.code == 0, made.stderr
    file = (tmp_path / "x.vcm").read_bytes()
    for path in tmp_path.iterdir():
        path.unlink()
    (tmp_path / "x.vcm").write_bytes(file)  # nothing else is left
    seen = vcm_process("analyze", "x.vcm", "--task", "classification", "--json")
    assert seen.code == 0, seen.stderr
    classes = {c["label"]: c["score"] for c in json.loads(seen.lines[0])["classes"]}
    backend = bottleneck_model.backend()
    wanted = backend.predict(astronaut(96, 128), ["classification"]).classes
    assert wanted is not None
    best = max(wanted, key=lambda one: one.score)
    assert abs(classes[best.label] - best.score) < 0.35


def test_the_commands_of_features_work_for_units(vcm: Run, picture: Path, tmp_path: Path) -> None:
    assert vcm("features", picture, "-o", "f.safetensors", "--split", "fpn").code == 0
    coded = vcm("encode", "f.safetensors", "-o", "f.vcm", "--profile", "bottleneck", "--json")
    assert coded.code == 0, coded.stderr
    direct = vcm("encode", picture, "-o", "d.vcm", "--profile", "bottleneck", "--split", "fpn")
    assert direct.code == 0
    assert (tmp_path / "f.vcm").read_bytes() == (tmp_path / "d.vcm").read_bytes()
    assert vcm("decode", "f.vcm", "-o", "b.safetensors").code == 0
    with (
        safe_open(tmp_path / "b.safetensors", "pt") as back,
        safe_open(tmp_path / "f.safetensors", "pt") as front,
    ):
        assert set(back.keys()) == set(front.keys())
    shown = json.loads(vcm("info", "f.vcm", "--json").lines[0])
    assert (shown["profile"], shown["split"], shown["coder"]) == (
        "bottleneck",
        "fpn",
        "range_static",
    )
    assert len(shown["layers"]) == 2
    assert vcm("analyze", "f.vcm", "--json").code == 0
    assert vcm("verify", "f.vcm", "--deep").code == 0
    part = vcm("extract", "f.vcm", "-o", "p.vcm", "--task", "classification")
    assert part.code == 0
    assert (tmp_path / "p.vcm").stat().st_size < (tmp_path / "f.vcm").stat().st_size
    refused = vcm("analyze", "p.vcm", "--task", "detection")
    assert refused.code == 1
    assert "not written for detection" in refused.stderr


def test_training_ends_in_a_model_that_codes(
    vcm: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(bottleneck_run, "PCA_CROPS", 8)
    monkeypatch.setattr(bottleneck.shape_for, "__defaults__", (("c4",), bottleneck_model.LATENTS))
    folder = tmp_path / "photos"
    folder.mkdir()
    Image.fromarray(photograph("coffee", 300, 320)).save(folder / "a.png")
    out = tmp_path / "made"
    asked = [
        "--data", str(folder), "--run", str(tmp_path / "run"), "--splits", "c5", "--steps", "2",
        "--batch", "1", "--export", str(out), "--crops", "4", "--model", "tiny", "-q",
    ]  # fmt: skip
    ran = CliRunner().invoke(train, asked, standalone_mode=False, catch_exceptions=False)
    assert ran.return_value == 0
    line = json.loads((out / "manifest.json").read_text())["models"][0]
    assert (line["id"], line["profile"], line["splits"]) == ("tiny", "bottleneck", ["c5"])
    monkeypatch.setenv("VCMCODEC_WEIGHTS", str(out))
    Image.fromarray(astronaut(64, 96)).save("one.png")
    made = vcm("encode", "one.png", "-o", "one.vcm", "--profile", "bottleneck", "--json")
    assert made.code == 0, made.stderr
    assert vcm("analyze", "one.vcm").code == 0
    both = CliRunner().invoke(train, [*asked, "--labels", str(out / "manifest.json")])
    assert both.exit_code == 2
