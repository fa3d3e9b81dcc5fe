"""Every picture of a batch gets its own mask or boxes, and never another's."""

from __future__ import annotations

import json
import os
from pathlib import Path

import click
import pytest
from PIL import Image

from conftest import Run
from vcmcodec.bitstream.container import Container
from vcmcodec.cli import files, groups
from vcmcodec.errors import PictureError
from vcmcodec.sources import opened


@pytest.fixture(autouse=True)
def _in_a_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    touch("rec/a/1.png", "rec/b/1.png", "rec/b/2.png")
    Path("masks").mkdir()


def touch(*names: str) -> None:
    for name in names:
        Path(name).parent.mkdir(parents=True, exist_ok=True)
        Path(name).write_bytes(b"x")


def attached(*arguments: str) -> dict[str, str]:
    """The file of groups of each input, or why there is none."""
    found = files.gather(arguments, {".png", ".jpg"}, recursive=True)
    jobs = groups.attach([files.Job(each, None) for each in found], "masks")
    return {job.input.name: str(job.beside or job.input.problem) for job in jobs}


def test_a_folder_laid_out_as_the_inputs_has_the_groups_of_each() -> None:
    touch("masks/a/1.json", "masks/b/1.png", "masks/b/2.json", "masks/1.json")
    assert attached("rec") == {
        "rec/a/1.png": "masks/a/1.json",
        "rec/b/1.png": "masks/b/1.png",
        "rec/b/2.png": "masks/b/2.json",
    }


def test_a_flat_folder_serves_names_that_one_input_has() -> None:
    touch("masks/a/1.json", "masks/1.json", "masks/2.tif")
    assert attached("rec")["rec/b/2.png"] == "masks/2.tif"
    assert attached("rec/b/1.png", "rec/b/2.png")["rec/b/1.png"] == "masks/1.json"


@pytest.mark.parametrize(
    ("files_there", "arguments"),
    [
        (["masks/1.json"], ["rec"]),
        (["masks/1.json"], ["rec/a", "rec/b/1.png"]),
        (["masks/IMG.json", "rec/IMG.jpg", "rec/IMG.png"], ["rec/IMG.jpg", "rec/IMG.png"]),
    ],
)
def test_two_inputs_never_share_the_groups_of_one_name(
    files_there: list[str], arguments: list[str]
) -> None:
    touch(*files_there)
    with pytest.raises(click.UsageError, match=r"and rec/.* would share the groups of masks/"):
        attached(*arguments)


def test_pictures_that_differ_in_their_extension_alone_are_told_apart_by_it() -> None:
    touch("rec/IMG.jpg", "rec/IMG.png", "masks/IMG.jpg.json", "masks/IMG.json")
    assert attached("rec/IMG.jpg", "rec/IMG.png") == {
        "rec/IMG.jpg": "masks/IMG.jpg.json",
        "rec/IMG.png": "masks/IMG.json",
    }


def test_an_input_without_groups_fails_alone_and_says_what_was_looked_for() -> None:
    touch("masks/a/1.json", "masks/b/1.json")
    found = attached("rec")
    assert found["rec/a/1.png"] == "masks/a/1.json"
    assert found["rec/b/2.png"] == "no mask or boxes in masks: none of b/2.png.json, 2.json, 2.png"
    (job,) = groups.attach([files.Job(files.Input(None, Path("stdin")), None)], "masks")
    with pytest.raises(PictureError, match="no name to look for"):
        job.input.source()


def test_a_name_that_leaves_no_room_for_another_extension_is_looked_up() -> None:
    name = 251 * "n"
    touch(f"rec/long/{name}.png", f"masks/{name}.png")
    assert attached("rec/long") == {f"rec/long/{name}.png": f"masks/{name}.png"}


def test_labels_leave_a_mask_from_a_pipe_unread() -> None:
    os.mkfifo("pipe")
    jobs = [files.Job(each, None) for each in files.gather(["rec/b/2.png"], {".png"})]
    groups.refuse_labels(groups.attach(jobs, "pipe"))  # would wait for a writer for ever


@pytest.mark.parametrize("jobs", [1, 2])
def test_pictures_of_one_name_are_coded_with_their_own_groups(jobs: int, vcm: Run) -> None:
    for where, label in (("a", "cat"), ("b", "dog")):
        Image.new("RGB", (48, 32), (200, 90, 30)).save(f"rec/{where}/1.png")
        touch(f"masks/{where}/1.json")
        boxes = [{"label": label, "box": [16, 0, 16, 16]}]
        Path(f"masks/{where}/1.json").write_text(json.dumps(boxes))
    Path("masks/1.json").write_text("[]")
    Path("rec/b/2.png").unlink()
    assert vcm("encode", "rec", "-r", "-o", "out/", "--groups", "masks", "--jobs", jobs).code == 0
    for where, label in (("a", "cat"), ("b", "dog")):
        with opened(f"out/{where}/1.vcm") as file:
            assert [each.label for each in Container.read(file).header.groups][1:] == [label]


def test_one_mask_for_two_pictures_is_wrong_usage(vcm: Run) -> None:
    touch("masks/1.json", "masks/2.json")
    ran = vcm("encode", "rec", "-r", "-o", "out/", "--groups", "masks/")
    assert ran.code == 2
    assert "rec/a/1.png and rec/b/1.png would share the groups of masks/1.json" in ran.stderr
    assert "a/1.png.json and b/1.png.json" in ran.stderr
    assert not Path("out").exists()
