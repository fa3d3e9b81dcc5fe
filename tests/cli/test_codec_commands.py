"""`vcm encode` and `vcm decode` with the model that is installed, as a user types them."""

from __future__ import annotations

import io
import json
import os
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from conftest import Run
from photographs import photograph

BOXES = [{"label": "cat", "score": 0.9, "box": [32, 16, 40, 40]},
         {"label": "dog", "box": [0, 48, 20, 16]}]  # fmt: skip


def scenery(height: int = 72, width: int = 100) -> Image.Image:
    """Smooth shapes with an edge; not noise, which no codec is made for."""
    y, x = np.mgrid[:height, :width]
    red = 128 + 100 * np.sin(x / 17)
    green = 128 + 80 * np.cos(y / 11 + x / 40)
    blue = np.where((x - 50) ** 2 + (y - 36) ** 2 < 500, 220, 40)
    return Image.fromarray(np.stack([red, green, blue], axis=2).astype(np.uint8))


def opened(path: str | Path) -> Image.Image:
    with Image.open(path) as image:
        return image.copy()


def psnr(one: Image.Image, other: Image.Image) -> float:
    difference = np.asarray(one, np.float64) - np.asarray(other, np.float64)
    return float(10 * np.log10(255**2 / np.square(difference).mean()))


@pytest.fixture
def picture(tmp_path: Path) -> Image.Image:
    image = scenery()
    image.save(tmp_path / "a.png")
    (tmp_path / "boxes.json").write_text(json.dumps(BOXES))
    return image


def test_a_picture_goes_in_and_comes_out(vcm: Run, picture: Image.Image) -> None:
    ran = vcm("encode", "a.png", "-o", "a.vcm", "--quality", "80", "--json")
    assert (ran.code, ran.stderr) == (0, "")
    facts = json.loads(ran.stdout)
    assert facts["bytes"] == Path("a.vcm").stat().st_size
    assert facts["bpp"] == pytest.approx(8 * facts["bytes"] / (72 * 100), abs=1e-5)
    assert (facts["source"], facts["target"], facts["warnings"]) == ("a.png", "a.vcm", [])
    ran = vcm("decode", "a.vcm", "-o", "b.png")
    assert (ran.code, ran.stdout, ran.stderr) == (0, b"", "")
    decoded = opened("b.png")
    assert decoded.size == picture.size
    assert psnr(picture, decoded) > 28


def test_the_extracted_base_is_what_is_encoded_for_the_task(vcm: Run, picture: object) -> None:
    arguments = ("--groups", "boxes.json", "--base-quality", "30")
    assert vcm("encode", "a.png", "-o", "a.vcm", *arguments).code == 0
    assert vcm("extract", "a.vcm", "-o", "part.vcm", "--task", "detection").code == 0
    alone = ("--task", "detection", "--longer-side", "0")
    assert vcm("encode", "a.png", "-o", "whole.vcm", *alone, *arguments).code == 0
    assert Path("part.vcm").read_bytes() == Path("whole.vcm").read_bytes()


def test_groups_are_decoded_alone_and_the_rest_is_flagged(vcm: Run, picture: object) -> None:
    vcm("encode", "a.png", "-o", "a.vcm", "--groups", "boxes.json")
    vcm("decode", "a.vcm", "-o", "whole.png")
    ran = vcm("decode", "a.vcm", "-o", "cat.png", "--groups", "cat", "--json")
    assert ran.code == 0
    facts = json.loads(ran.stdout)
    assert facts["mode"] == "RGBA"
    assert 0 < facts["absent"] < 1
    cat, whole = np.asarray(opened("cat.png")), np.asarray(opened("whole.png"))
    there = cat[:, :, 3] == 255
    assert there[16:48, 32:64].all()
    assert not there[:16].any()
    assert np.array_equal(cat[there][:, :3], whole[there])
    vcm("decode", "a.vcm", "-o", "red.png", "--groups", "1", "--background", "#ff0000")
    red = np.asarray(opened("red.png"))
    assert (red[~there] == (255, 0, 0)).all()
    assert np.array_equal(red[there], whole[there])
    both = vcm("decode", "a.vcm", "-o", "both.png", "--groups", "cat,dog", "--json")
    assert json.loads(both.stdout)["groups"] == [1, 2]


def test_what_turns_out_transparent_in_a_format_without_is_refused(
    vcm: Run, picture: object
) -> None:
    vcm("encode", "a.png", "-o", "a.vcm", "--groups", "boxes.json")
    vcm("extract", "a.vcm", "-o", "cat.vcm", "--groups", "cat")
    ran = vcm("decode", "cat.vcm", "-o", "cat.jpg")
    assert ran.code == 1
    assert "background" in ran.stderr
    assert not Path("cat.jpg").exists()
    assert vcm("decode", "cat.vcm", "-o", "cat.jpg", "--background", "red").code == 0


def test_a_narrow_decoder_reads_less(vcm: Run, picture: Image.Image) -> None:
    big = scenery(300, 400)
    big.save("big.png")
    vcm("encode", "big.png", "-o", "big.vcm", "--quality", "95")
    whole = json.loads(vcm("decode", "big.vcm", "-o", "w.png", "--json").stdout)
    ran = vcm("decode", "big.vcm", "-o", "p.png", "--width", "0.25", "--json")
    preview = json.loads(ran.stdout)
    assert preview["layer"] == "base"
    assert whole["layer"] == "full"
    assert whole["bytes_read"] == Path("big.vcm").stat().st_size > preview["bytes_read"]
    assert opened("p.png").size == (400, 300)


def test_a_folder_of_thumbnails(vcm: Run, picture: Image.Image) -> None:
    assert vcm("encode", "a.png", "-o", "out/").code == 0
    ran = vcm("decode", "out/", "-o", "small/", "--longer-side", "40", "--json")
    assert ran.code == 0
    assert [json.loads(ran.lines[0])[name] for name in ("width", "height")] == [40, 29]
    assert psnr(opened("small/a.png"), picture.resize((40, 29), Image.Resampling.LANCZOS)) > 25
    refused = vcm("decode", "out/a.vcm", "-o", "a.safetensors", "--longer-side", "40")
    assert refused.code == 2
    assert "--longer-side" in refused.stderr


def test_a_target_is_met(vcm: Run, picture: object) -> None:
    scenery(200, 300).save("b.png")
    assert vcm("encode", "b.png", "-o", "b.vcm", "--target-size", "2k").code == 0
    assert 1000 < Path("b.vcm").stat().st_size <= 2000
    assert vcm("encode", "b.png", "-o", "b.vcm", "--target-bpp", "0.2").code == 0
    assert 0.1 < 8 * Path("b.vcm").stat().st_size / (200 * 300) <= 0.2
    ran = vcm("encode", "b.png", "-o", "c.vcm", "--target-size", "20")
    assert ran.code == 1
    assert not Path("c.vcm").exists()


def test_masks_and_labels_go_into_the_file(vcm: Run, picture: object) -> None:
    mask = np.zeros((72, 100), np.uint8)
    mask[:, 48:] = 3
    Image.fromarray(mask).save("mask.png")
    ran = vcm("encode", "a.png", "-o", "a.vcm", "--groups", "mask.png", "--labels", "3=sky")
    assert ran.code == 0
    groups = json.loads(vcm("info", "a.vcm", "--json").stdout)["groups"]
    assert [(group["id"], group["label"]) for group in groups] == [(0, "background"), (3, "sky")]
    assert groups[1]["box"] == [48, 0, 52, 72]
    Image.fromarray(mask[:50]).save("small.png")
    ran = vcm("encode", "a.png", "-o", "b.vcm", "--groups", "small.png")
    assert ran.code == 1
    assert "mask is 100 x 50" in ran.stderr


def test_bad_pictures_stop_none_of_the_others(vcm: Run, picture: Image.Image) -> None:
    folder = Path("photos")
    (folder / "sub").mkdir(parents=True)
    data = Path("a.png").read_bytes()
    (folder / "a.png").write_bytes(data)
    (folder / "cut.png").write_bytes(data[: len(data) // 2])
    (folder / "empty.jpg").write_bytes(b"")
    (folder / "text.png").write_bytes(b"no picture at all")
    frames = [scenery(32, 32).rotate(angle) for angle in (0, 90)]
    frames[0].save(folder / "moving.gif", save_all=True, append_images=frames[1:])
    picture.convert("L").save(folder / "grey.tif")
    picture.convert("RGBA").rotate(30).save(folder / "round.webp", lossless=True)
    ran = vcm("encode", "photos", "nothing.png", "-o", "out/", "--json")
    assert ran.code == 1
    assert sorted(os.listdir("out")) == ["a.vcm", "grey.vcm", "round.vcm"]
    told = {Path(line["source"]).name: line for line in map(json.loads, ran.lines)}
    bad = {"cut.png", "empty.jpg", "text.png", "moving.gif", "nothing.png"}
    assert {name for name, line in told.items() if "error" in line} == bad
    assert {told[name]["error"]["code"] for name in bad} == {"picture"}
    assert any("transparency" in warning for warning in told["round.webp"]["warnings"])
    lines = ran.stderr.splitlines()
    for name in bad:
        assert sum(f"{name}: " in line for line in lines) == 1
    assert "3 encoded" in lines[-1]
    assert "5 failed" in lines[-1]


def test_a_folder_round_trip_in_two_processes(vcm_process: Run, tmp_path: Path) -> None:
    (tmp_path / "in" / "deep").mkdir(parents=True)
    scenery().save(tmp_path / "in" / "a.png")
    scenery(33, 17).convert("L").save(tmp_path / "in" / "deep" / "b.png")
    ran = vcm_process("encode", "in", "-r", "-o", "out/", "--jobs", "2", "--threads", "1")
    assert ran.code == 0, ran.stderr
    assert ran.stdout == b""
    assert ran.stderr.startswith("2 encoded, ")
    assert ran.stderr.count("\n") == 1
    ran = vcm_process("decode", "out/", "-r", "-o", "png", "--format", "webp", "-q")
    assert (ran.code, ran.stdout, ran.stderr) == (0, b"", "")
    assert opened(tmp_path / "png" / "a.webp").size == (100, 72)
    assert opened(tmp_path / "png" / "deep" / "b.webp").size == (17, 33)


def test_pipes_carry_the_result_and_nothing_else(vcm_process: Run) -> None:
    out = io.BytesIO()
    scenery().save(out, "PNG")
    ran = vcm_process("encode", "-", "-o", "-", stdin=out.getvalue())
    assert (ran.code, ran.stderr) == (0, "")
    shown = vcm_process("info", "-", "--json", stdin=ran.stdout)
    assert json.loads(shown.stdout)["width"] == 100
    decoded = vcm_process("decode", "-", "-o", "-", stdin=ran.stdout)
    assert (decoded.code, decoded.stderr) == (0, "")
    assert decoded.stdout.startswith(b"\x89PNG")


def test_a_model_that_is_not_there_is_named(vcm: Run, hand_made: bytes, picture: object) -> None:
    Path("foreign.vcm").write_bytes(hand_made)
    ran = vcm("decode", "foreign.vcm", "-o", "x.png", "--json")
    assert ran.code == 1
    error = json.loads(ran.stdout)["error"]
    assert error["code"] == "weights"
    assert b"12345678".hex() in error["message"]
    ran = vcm("encode", "a.png", "-o", "x.vcm", "--model", "nothing")
    assert ran.code == 1
    assert "nothing" in ran.stderr
    assert sorted(os.listdir()) == ["a.png", "boxes.json", "foreign.vcm"]


def test_sizes_are_met_where_a_refinement_would_be_too_much(vcm: Run, picture: object) -> None:
    """From quality 65 on files grew by half at once, and what lay between was out of reach."""
    image = photograph("coffee", 256, 320, 60, 100)
    Image.fromarray(image).save("coffee.png")

    def size(*options: str) -> int:
        assert vcm("encode", "coffee.png", "-o", "x.vcm", *options).code == 0
        return Path("x.vcm").stat().st_size

    below, above = size("-Q", "64.9"), size("-Q", "65")
    assert above > 1.2 * below
    for share in (0.3, 0.7):
        target = round(below + share * (above - below))
        assert 0.97 * target < size("--target-size", str(target)) <= target
        given = ("--target-size", str(target), "--base-quality", "45")
        ran = vcm("encode", "coffee.png", "-o", "x.vcm", *given)
        assert "does not fit" in ran.stderr
        assert Path("x.vcm").stat().st_size <= below * 1.01


def test_groups_that_are_not_there_and_texts_that_go_are_told(vcm: Run, picture: object) -> None:
    boxes = [{"label": "one", "box": [0, 0, 40, 40]}, {"label": "two", "box": [64, 64, 40, 30]}]
    Path("boxes.json").write_text(json.dumps(boxes))
    assert (
        vcm("encode", "a.png", "-o", "g.vcm", "--groups", "boxes.json", "--text", "k=v").code == 0
    )
    ran = vcm("extract", "g.vcm", "-o", "one.vcm", "-g", "one", "--redact")
    assert "texts are left out" in ran.stderr
    assert vcm("extract", "g.vcm", "-o", "one.vcm", "-g", "one").stderr == ""
    ran = vcm("decode", "one.vcm", "-o", "one.png", "-g", "one,two")
    assert (ran.code, "nothing of group 2 two is in this file" in ran.stderr) == (0, True)
    vcm("extract", "g.vcm", "-o", "base.vcm", "--layer", "base")
    vcm("extract", "g.vcm", "-o", "full.vcm", "--layer", "full")
    ran = vcm("merge", "base.vcm", "full.vcm", "-o", "m.vcm")
    assert "layer mid is in none of the parts" in ran.stderr


def test_a_damaged_layer_for_people_leaves_the_base_s_picture(vcm: Run, picture: object) -> None:
    assert vcm("encode", "a.png", "-o", "a.vcm").code == 0
    data = bytearray(Path("a.vcm").read_bytes())
    data[-40] ^= 1
    Path("a.vcm").write_bytes(data)
    ran = vcm("decode", "a.vcm", "-o", "x.png")
    assert ran.code == 1
    assert "--width 0.25" in ran.stderr
    assert vcm("decode", "a.vcm", "-o", "x.png", "--width", "0.25").code == 0


def test_a_bad_groups_file_is_named(vcm: Run, picture: object) -> None:
    Path("bad.json").write_text("[7]")
    ran = vcm("encode", "a.png", "-o", "x.vcm", "--groups", "bad.json")
    assert (ran.code, "groups bad.json: " in ran.stderr) == (1, True)


def test_a_colour_picture_is_not_written_as_pgm(vcm: Run, picture: object) -> None:
    vcm("encode", "a.png", "-o", "a.vcm")
    ran = vcm("decode", "a.vcm", "-o", "a.pgm")
    assert (ran.code, "grey" in ran.stderr, Path("a.pgm").exists()) == (1, True, False)
