"""`vcm features`, and the commands that take its files or give them back."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import pytest
from PIL import Image
from safetensors import safe_open

import pyramid_model
from conftest import Run
from photographs import astronaut, coffee
from vcmcodec.vision.network import crossing
from weights_folder import weights_from


@pytest.fixture(scope="module", autouse=True)
def weights(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    folder = tmp_path_factory.mktemp("weights")
    pyramid_model.install(folder)
    with weights_from(folder):
        yield


@pytest.fixture
def pictures(tmp_path: Path) -> Path:
    folder = tmp_path / "pictures"
    folder.mkdir()
    Image.fromarray(astronaut(96, 128)).save(folder / "one.png")
    Image.fromarray(coffee(80, 110)).save(folder / "two.png")
    return folder


def facts(line: str) -> dict[str, object]:
    found: dict[str, object] = json.loads(line)
    return found


def test_features_are_taken_coded_and_given_back(vcm: Run, pictures: Path, tmp_path: Path) -> None:
    took = vcm("features", pictures / "one.png", "-o", "f.safetensors", "--split", "fpn", "--json")
    assert took.code == 0
    told = facts(took.lines[0])
    assert told["split"] == "fpn"
    assert set(told["tensors"]) == set(crossing("fpn"))  # type: ignore[call-overload]
    made = vcm("encode", "f.safetensors", "-o", "f.vcm", "--profile", "pyramid", "--json")
    assert made.code == 0
    assert facts(made.lines[0])["width"] == 128
    direct = vcm("encode", pictures / "one.png", "-o", "d.vcm", "--profile", "pyramid")
    assert direct.code == 0
    assert (tmp_path / "f.vcm").read_bytes() == (tmp_path / "d.vcm").read_bytes()
    back = vcm("decode", "f.vcm", "-o", "b.safetensors", "--task", "classification", "--json")
    assert back.code == 0
    read = set(crossing("fpn", ["classification"]))
    assert set(facts(back.lines[0])["tensors"]) == read  # type: ignore[call-overload]
    deepest = min(read)
    with safe_open(tmp_path / "b.safetensors", "pt") as file:
        about = json.loads(file.metadata()["features"])
        shape = list(file.get_slice(deepest).get_shape())
    assert (about["split"], about["model"]) == ("fpn", told["network"])
    assert shape == told["tensors"][deepest]  # type: ignore[index]


def test_folders_and_pipes(vcm: Run, vcm_process: Run, pictures: Path, tmp_path: Path) -> None:
    assert vcm("features", pictures, "-o", "feats/").code == 0
    assert vcm("encode", "feats", "-o", "coded/", "--profile", "pyramid").code == 0
    names = {path.name for path in (tmp_path / "coded").iterdir()}
    assert names == {"one.vcm", "two.vcm"}
    assert vcm("decode", "coded", "-o", "back/", "--format", "safetensors").code == 0
    assert {p.name for p in (tmp_path / "back").iterdir()} == {"one.safetensors", "two.safetensors"}
    data = (tmp_path / "feats" / "one.safetensors").read_bytes()
    piped = vcm_process("encode", "-", "-o", "-", "--profile", "pyramid", stdin=data)
    assert piped.code == 0
    assert piped.stdout == (tmp_path / "coded" / "one.vcm").read_bytes()


def test_files_of_features_are_shown_analyzed_and_verified(vcm: Run, pictures: Path) -> None:
    assert vcm("encode", pictures / "one.png", "-o", "x.vcm", "--profile", "pyramid",
               "--task", "detection,classification").code == 0  # fmt: skip
    shown = vcm("info", "x.vcm")
    assert "split fpn" in shown.stdout.decode()
    told = facts(vcm("info", "x.vcm", "--json").lines[0])
    assert (told["profile"], told["split"]) == ("pyramid", "fpn")
    seen = vcm("analyze", "x.vcm", "--task", "classification", "--json")
    assert seen.code == 0
    assert facts(seen.lines[0])["classes"]
    assert vcm("verify", "x.vcm", "--deep").code == 0
    assert vcm("extract", "x.vcm", "-o", "y.vcm", "--task", "detection").code == 0
    listed = vcm("models", "--json")
    line = next(facts(one) for one in listed.lines if facts(one)["id"] == "pyramid-test")
    assert line["splits"] == ["fpn"]


def test_of_features_no_colour_and_no_width_is_told(vcm: Run, pictures: Path) -> None:
    Image.fromarray(astronaut(48, 64)).convert("L").save("grey.png")
    assert vcm("encode", "grey.png", "-o", "x.vcm", "--profile", "pyramid").code == 0
    shown = vcm("info", "x.vcm").stdout.decode()
    assert "picture  64 x 48\n" in shown
    assert "quality " in shown
    assert "width" not in shown
    told = facts(vcm("info", "x.vcm", "--json").lines[0])
    assert told["grey"] is None
    assert {layer["width"] for layer in told["layers"]} == {None}  # type: ignore[attr-defined]
    assert vcm("encode", "grey.png", "-o", "y.vcm").code == 0
    assert "64 x 48, grey" in vcm("info", "y.vcm").stdout.decode()
    told = facts(vcm("info", "y.vcm", "--json").lines[0])
    assert told["grey"] is True
    assert [layer["width"] for layer in told["layers"]] == [0.25, 0.5, 1]  # type: ignore[attr-defined]


def test_one_of_a_thing_is_not_told_of_as_several(vcm: Run, pictures: Path) -> None:
    assert vcm("encode", pictures / "one.png", "-o", "x.vcm", "--profile", "pyramid").code == 0
    assert "ok (1 substream, " in vcm("verify", "x.vcm").stdout.decode()
    Path("x.vcm").write_bytes(Path("x.vcm").read_bytes()[:-1])
    ran = vcm("verify", "x.vcm")
    assert "damaged: 1 of 1 substream\n" in ran.stderr
    assert "its only substream is not whole" in ran.stdout.decode()
    Path("boxes.json").write_text('[{"label": "dot", "box": [0, 0, 9, 9]}]')
    arguments = ("--groups", "boxes.json", "--task", "human")
    assert vcm("encode", pictures / "one.png", "-o", "y.vcm", *arguments).code == 0
    shown = vcm("info", "y.vcm").stdout.decode()
    assert "at (0, 0), 1 cell\n" in shown
    assert "at (0, 0), 47 cells\n" in shown


def test_what_cannot_be_drawn_on_is_told_of_nevertheless(vcm: Run, pictures: Path) -> None:
    assert vcm("encode", pictures / "one.png", "-o", "x.vcm", "--profile", "pyramid").code == 0
    wanted = ("--draw", "d.png", "--mask", "m.png")
    ran = vcm("analyze", "x.vcm", "--json", *wanted)
    assert ran.code == 1
    (line,) = ran.lines
    told = facts(line)
    assert {"objects", "classes", "areas"} <= told.keys()
    message = "no drawing: the file holds features, and no picture to draw on"
    assert told["error"] == {"code": "request", "message": message}
    assert ran.stderr == f"vcm: x.vcm: {message}\n"
    assert Path("m.png").exists()
    assert not Path("d.png").exists()
    ran = vcm("analyze", "x.vcm", *wanted)
    assert ran.code == 1
    assert "of the picture" in ran.stdout.decode()


@pytest.mark.parametrize(
    ("arguments", "code", "said"),
    [
        (("decode", "x.vcm", "-o", "x.png"), 1, "holds features"),
        (("decode", "x.vcm", "-o", "x.png", "--task", "detection"), 2, "--task goes with features"),
        (("decode", "x.vcm", "-o", "x.safetensors", "--width", "0.25"), 2, "no --width"),
        (("decode", "scene.vcm", "-o", "x.safetensors"), 1, "holds a picture"),
        (("encode", "one.png", "-o", "z.vcm", "--profile", "pyramid", "--split", "c4"), 2,
         "no split point c4"),
        (("encode", "one.png", "-o", "z.vcm", "--profile", "pyramid", "-t", "human"), 2,
         "does not serve human"),
        (("features", "one.png", "-o", "f.safetensors", "--split", "c9"), 2, "c9"),
        (("encode", "bad.safetensors", "-o", "z.vcm", "--profile", "pyramid"), 1,
         "not a feature file"),
    ],
)  # fmt: skip
def test_one_clear_error(
    vcm: Run, pictures: Path, tmp_path: Path, arguments: tuple[str, ...], code: int, said: str
) -> None:
    Image.fromarray(astronaut(48, 64)).save("one.png")
    Path("bad.safetensors").write_bytes(b"nothing of the kind")
    if "x.vcm" in arguments:
        assert vcm("encode", "one.png", "-o", "x.vcm", "--profile", "pyramid").code == 0
    if "scene.vcm" in arguments:
        assert vcm("encode", "one.png", "-o", "scene.vcm", "--task", "detection").code == 0
    ran = vcm(*arguments)
    assert ran.code == code
    assert said in ran.stderr


def test_what_a_picture_lost_before_its_features_were_taken_is_said(
    pictures: Path, vcm: Run
) -> None:
    Image.fromarray(astronaut(96, 128)).convert("CMYK").save(pictures / "print.tif")
    ran = vcm("features", pictures / "print.tif", "-o", "f.safetensors", "--json")
    assert facts(ran.lines[0])["warnings"]
