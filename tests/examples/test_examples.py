"""The scripts of examples/ do what they say, on real photographs, as a user would run them."""

from __future__ import annotations

import csv
import importlib.util
import json
import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest
from click.testing import CliRunner, Result
from PIL import Image

import task_models
import vcmcodec
from photographs import astronaut, coffee, psnr

EXAMPLES = Path(__file__).resolve().parents[2] / "examples"
BOXES = [
    {"label": "person", "score": 0.9, "box": [16, 16, 64, 80]},
    {"label": "flag", "score": 0.8, "box": [112, 0, 32, 64]},
]


def script(name: str) -> ModuleType:
    spec = importlib.util.spec_from_file_location(name, EXAMPLES / f"{name}.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def run(name: str, *arguments: object) -> Result:
    return CliRunner().invoke(script(name).main, [str(part) for part in arguments])


def manifest(archive: Path) -> dict[str, dict[str, str]]:
    with (archive / "manifest.csv").open(newline="", encoding="utf-8") as file:
        return {row["file"]: row for row in csv.DictReader(file)}


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    folder = tmp_path / "photos"
    (folder / "more").mkdir(parents=True)
    Image.fromarray(astronaut(256, 256)).save(folder / "astronaut.png")
    Image.fromarray(coffee()).save(folder / "more" / "coffee.jpg")
    return folder


# ---- convert_folder.py


def test_a_folder_is_converted_and_the_manifest_tells_of_it(photos: Path, tmp_path: Path) -> None:
    archive = tmp_path / "archive"
    done = run("convert_folder", photos, archive, "--quality", 40)
    assert done.exit_code == 0, done.output
    rows = manifest(archive)
    assert set(rows) == {"astronaut.png.vcm", "more/coffee.jpg.vcm"}
    for name, row in rows.items():
        file = archive / name
        with vcmcodec.open(file) as reader, Image.open(photos / name[: -len(".vcm")]) as picture:
            assert int(row["bytes"]) == file.stat().st_size
            assert float(row["bpp"]) == pytest.approx(
                8 * file.stat().st_size / (picture.width * picture.height), abs=1e-4
            )
            assert row["tasks"].split() == list(reader.tasks)
            found = dict(part.split(":") for part in row["objects"].split())
            labels = [group.label for group in reader.groups if group.label != "background"]
            assert {label: labels.count(label) for label in labels} == {
                label: int(count) for label, count in found.items()
            }
        assert row["error"] == ""
    shown = np.asarray(vcmcodec.decode(archive / "astronaut.png.vcm"))
    assert psnr(shown, astronaut(256, 256)) > 24


def test_a_second_run_codes_only_what_is_new(photos: Path, tmp_path: Path) -> None:
    archive = tmp_path / "archive"
    assert run("convert_folder", photos, archive, "--no-objects").exit_code == 0
    before = {path: path.stat().st_mtime_ns for path in archive.rglob("*.vcm")}
    Image.fromarray(coffee(40, 50)).save(photos / "new.png")
    (archive / "astronaut.png.vcm").unlink()  # as if the first run had been interrupted
    (archive / "astronaut.png.vcm.part").write_bytes(b"half a file")
    assert run("convert_folder", photos, archive, "--no-objects").exit_code == 0
    assert len(before) == 2
    assert (archive / "more/coffee.jpg.vcm").stat().st_mtime_ns == before[
        archive / "more/coffee.jpg.vcm"
    ]
    assert set(manifest(archive)) == {"astronaut.png.vcm", "more/coffee.jpg.vcm", "new.png.vcm"}
    assert not list(archive.rglob("*.part"))


def test_a_picture_that_cannot_be_read_is_told_and_the_others_are_done(
    photos: Path, tmp_path: Path
) -> None:
    (photos / "broken.png").write_bytes(b"not a picture")
    command = [sys.executable, EXAMPLES / "convert_folder.py", photos, tmp_path / "archive"]
    ended = subprocess.run(
        [*command, "--no-objects", "--jobs", "2"], capture_output=True, text=True, env=environment()
    )
    assert ended.returncode == 1
    assert "broken.png: " in ended.stderr
    rows = manifest(tmp_path / "archive")
    assert len(rows) == 3
    assert rows["broken.png"]["error"]
    assert not rows["broken.png"]["bytes"]
    assert int(rows["astronaut.png.vcm"]["bytes"]) > 500


# ---- private_copies.py


@pytest.fixture
def archive(tmp_path: Path) -> Path:
    folder = tmp_path / "archive"
    folder.mkdir()
    whole = vcmcodec.encode(astronaut(), groups=BOXES)
    (folder / "portrait.vcm").write_bytes(whole)
    with pytest.warns(vcmcodec.VcmWarning, match="its group vanishes"):  # of the flag, in a cup
        cup = vcmcodec.encode(coffee(), groups=BOXES[1:])
    (folder / "cup.vcm").write_bytes(cup)
    return folder


def test_copies_are_without_people_and_otherwise_the_same(archive: Path, tmp_path: Path) -> None:
    done = run("private_copies", archive, tmp_path / "public")
    assert done.exit_code == 0, done.output
    copy = tmp_path / "public" / "portrait.vcm"
    assert (tmp_path / "public" / "cup.vcm").read_bytes() == (archive / "cup.vcm").read_bytes()
    assert vcmcodec.verify(copy).ok
    assert b"person" in (archive / "portrait.vcm").read_bytes()
    assert b"person" not in copy.read_bytes()
    with vcmcodec.open(copy) as reader:
        assert reader.header.redacted
        assert {group.label for group in reader.groups} == {"background", "flag"}
    kept = vcmcodec.decode(archive / "portrait.vcm", groups=["background", "flag"])
    assert np.array_equal(np.asarray(vcmcodec.decode(copy)), np.asarray(kept))


def test_an_outline_may_stay_and_the_original_completes_the_copy(
    archive: Path, tmp_path: Path
) -> None:
    public = tmp_path / "public"
    assert run("private_copies", archive, public, "--no-redact", "--drop", "flag").exit_code == 0
    original = archive / "portrait.vcm"
    flag = vcmcodec.extract(original, groups=["flag"])
    assert vcmcodec.merge([public / "portrait.vcm", flag]) == original.read_bytes()


def test_a_file_of_which_nobody_knows_who_is_in_it_is_not_copied(
    archive: Path, tmp_path: Path
) -> None:
    (archive / "unknown.vcm").write_bytes(vcmcodec.encode(coffee()))
    (archive / "damaged.vcm").write_bytes(b"\x89VCM")
    done = run("private_copies", archive, tmp_path / "public")
    assert done.exit_code == 1
    assert "unknown.vcm: not copied: it has no groups" in done.output
    assert {path.name for path in (tmp_path / "public").iterdir()} == {"cup.vcm", "portrait.vcm"}


def test_a_label_that_no_file_has_copies_nothing(archive: Path, tmp_path: Path) -> None:
    """A misspelt label published everything whole."""
    done = run("private_copies", archive, tmp_path / "public", "--drop", "persn")
    assert done.exit_code == 2
    assert "no file has a group called persn" in done.output
    assert not (tmp_path / "public").exists()


def test_a_copy_for_machines_does_not_depend_on_who_is_left_out(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of a picture that is reduced, by a model that adapts what has no groups."""
    weights = task_models.install(tmp_path / "weights", longer_side=96, coded_side=80, effort=2)
    monkeypatch.setenv("VCMCODEC_WEIGHTS", str(weights))
    (tmp_path / "archive").mkdir()
    left, top, width, height = BOXES[0]["box"]  # type: ignore[misc]
    other = astronaut()
    other[top : top + height, left : left + width] = (255, 0, 255)
    for name, rgb in (("one", astronaut()), ("other", other)):
        whole = vcmcodec.encode(rgb, tasks=["detection"], groups=BOXES)
        (tmp_path / "archive" / f"{name}.vcm").write_bytes(whole)
    done = run("private_copies", tmp_path / "archive", tmp_path / "public")
    assert done.exit_code == 0, done.output
    one, two = ((tmp_path / "public" / f"{name}.vcm").read_bytes() for name in ("one", "other"))
    assert one == two
    assert np.asarray(vcmcodec.decode(one))[..., 3].any()


# ---- camera.py and server.py


def environment(**more: str) -> dict[str, str]:
    return os.environ | {"PYTHONPATH": str(EXAMPLES.parent), "PYTHONUNBUFFERED": "1"} | more


@contextmanager
def process(log: Path, *command: object, **variables: str) -> Iterator[None]:
    """Run a script beside the test, and stop it afterwards."""
    with log.open("w") as out:
        running = subprocess.Popen(
            [sys.executable, *map(str, command)],
            stdout=out, stderr=subprocess.STDOUT, env=environment(**variables),
        )  # fmt: skip
        try:
            yield
        finally:
            running.terminate()
            running.wait(20)


def wait_for(something: Callable[[], object], log: Path, seconds: float = 90) -> None:
    end = time.monotonic() + seconds
    while not something():
        assert time.monotonic() < end, log.read_text()
        time.sleep(0.1)


def test_a_camera_and_a_server_work_together_through_files_alone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    photos, link, store = (tmp_path / name for name in ("photos", "link", "store"))
    photos.mkdir()
    Image.fromarray(astronaut()).save(photos / "astronaut.png")
    (photos / "notes.txt").write_text("not a picture")
    weights = str(task_models.install(tmp_path / "weights"))
    monkeypatch.setenv("VCMCODEC_WEIGHTS", weights)
    seen, sent = tmp_path / "seen.log", tmp_path / "sent.log"
    camera = (EXAMPLES / "camera.py", photos, link, "--store", store, "--every", 0.1)
    with (
        process(
            seen, EXAMPLES / "server.py", "watch", link, "--score", 0.02, VCMCODEC_WEIGHTS=weights
        ),
        process(sent, *camera),
    ):
        wait_for(lambda: "}\n" in seen.read_text(), seen)
        base, whole = link / "base" / "astronaut.png.vcm", store / "astronaut.png.vcm"
        found = json.loads(seen.read_text().splitlines()[0])
        assert found["bytes"] == base.stat().st_size < whole.stat().st_size
        assert (found["width"], found["height"]) == (160, 112)
        assert found["objects"]
        alone = vcmcodec.analyze(base, tasks=["detection", "classification"], score=0.02)
        assert found["objects"] == alone.to_json("", "all")["objects"]
        shown = tmp_path / "shown.vcm"
        done = run("server", "show", link, "astronaut.png", "-o", shown)
        assert done.exit_code == 0, done.output
    assert shown.read_bytes() == whole.read_bytes()
    assert not list((link / "wanted").iterdir())
    assert sent.read_text().count("notes.txt") == 1
    again = run(
        "server", "show", link, "astronaut.png", "-o", tmp_path / "shown.png", "--seconds", 0
    )
    assert again.exit_code == 0, again.output  # what was sent once is there
    with Image.open(tmp_path / "shown.png") as picture:
        assert np.array_equal(np.asarray(picture), np.asarray(vcmcodec.decode(whole)))


def test_a_person_is_told_of_a_camera_that_is_silent(tmp_path: Path) -> None:
    (tmp_path / "base").mkdir()
    (tmp_path / "wanted").mkdir()
    silent = run("server", "show", tmp_path, "a.png", "-o", tmp_path / "a.png")
    assert (silent.exit_code, "sent no a.png" in silent.output) == (1, True)
    (tmp_path / "base" / "a.png.vcm").write_bytes(vcmcodec.encode(coffee(), tasks=["detection"]))
    asked = run("server", "show", tmp_path, "a.png", "-o", tmp_path / "a.png", "--seconds", 0.3)
    assert (asked.exit_code, "did not answer" in asked.output) == (1, True)
    assert (tmp_path / "wanted" / "a.png.vcm").is_file()
