"""Inputs are found, outputs planned, and files appear whole or not at all."""

from __future__ import annotations

import os
import stat
from pathlib import Path

import click
import pytest

from vcmcodec.cli import files
from vcmcodec.errors import OutputError, RequestError


@pytest.fixture(autouse=True)
def _in_a_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    for name in ("photos/b.png", "photos/a.JPG", "photos/.hidden.png", "photos/notes.txt",
                 "photos/deep/c.png", "more.jpg"):  # fmt: skip
        Path(name).parent.mkdir(parents=True, exist_ok=True)
        Path(name).write_bytes(b"x")


def gathered(*arguments: str, recursive: bool = False) -> list[str]:
    found = files.gather(arguments, {".png", ".jpg"}, recursive)
    return [each.relative.as_posix() for each in found]


def planned(*arguments: str, to: str, keep: bool | None = None) -> dict[str, str]:
    found = files.gather(arguments, {".png", ".jpg"}, recursive=True)
    jobs = files.plan(found, arguments, to, ".vcm", keep_extension=keep)
    return {job.input.name: "-" if job.target is None else job.target.as_posix() for job in jobs}


def test_a_folder_gives_its_visible_pictures_in_order() -> None:
    assert gathered("photos") == ["a.JPG", "b.png"]
    assert gathered("photos", recursive=True) == ["a.JPG", "b.png", "deep/c.png"]


def test_a_file_that_is_named_twice_is_one_input() -> None:
    assert gathered("photos", "photos/b.png", "./photos/../photos/b.png") == ["a.JPG", "b.png"]


def test_named_files_need_no_known_extension_and_not_even_to_be_there() -> None:
    assert gathered("photos/notes.txt", "nothing.png") == ["notes.txt", "nothing.png"]


def test_folders_without_an_input_fail_in_their_turn_and_get_no_result() -> None:
    Path("more").mkdir()
    found = files.gather(["more", "more.jpg", "more/"], {".jpg"})
    assert [each.name for each in found] == ["more", "more.jpg"]
    with pytest.raises(RequestError, match="--recursive"):
        found[0].source()
    jobs = files.plan(found, ["more", "more.jpg"], "out/", ".vcm")  # not two of one name
    assert [job.target for job in jobs] == [None, Path("out/more.vcm")]


def test_standard_input_is_read_once() -> None:
    with pytest.raises(click.UsageError, match="once"):
        gathered("-", "-")


def test_one_file_goes_to_a_file_or_into_a_folder() -> None:
    assert planned("more.jpg", to="x.vcm") == {"more.jpg": "x.vcm"}
    assert planned("more.jpg", to="out/") == {"more.jpg": "out/more.vcm"}
    assert planned("more.jpg", to="photos") == {"more.jpg": "photos/more.vcm"}


def test_several_files_go_to_a_folder_with_their_own_folders_kept() -> None:
    assert planned("photos", "more.jpg", to="out") == {
        "photos/a.JPG": "out/a.vcm",
        "photos/b.png": "out/b.vcm",
        "photos/deep/c.png": "out/deep/c.vcm",
        "more.jpg": "out/more.vcm",
    }


@pytest.mark.parametrize("to", ["all.vcm", "more.jpg", "-"])
def test_several_files_do_not_go_to_one(to: str) -> None:
    with pytest.raises(click.UsageError):
        planned("photos", "more.jpg", to=to)


def test_a_folder_with_one_picture_still_goes_to_a_folder() -> None:
    assert planned("photos/deep", to="out") == {"photos/deep/c.png": "out/c.vcm"}
    with pytest.raises(click.UsageError):
        planned("photos/deep", to="c.vcm")


def test_two_results_with_one_name_are_refused_before_anything_is_done() -> None:
    Path("photos/b.jpg").write_bytes(b"x")
    with pytest.raises(click.UsageError, match=r"b\.jpg and .*b\.png would both"):
        planned("photos", to="out/")


def test_names_that_differ_in_their_extension_alone_may_keep_it() -> None:
    Path("photos/b.jpg").write_bytes(b"x")
    with pytest.raises(click.UsageError, match="--keep-extension keeps them apart"):
        planned("photos", to="out/", keep=False)
    assert planned("photos", to="out/", keep=True) == {
        "photos/a.JPG": "out/a.JPG.vcm",
        "photos/b.jpg": "out/b.jpg.vcm",
        "photos/b.png": "out/b.png.vcm",
        "photos/deep/c.png": "out/deep/c.png.vcm",
    }
    assert planned("photos/b.jpg", to="b.vcm", keep=True) == {"photos/b.jpg": "b.vcm"}


def test_what_would_not_help_is_not_proposed() -> None:
    Path("photos/more.jpg").write_bytes(b"x")
    for keep in (None, False, True):
        with pytest.raises(click.UsageError, match="would both") as caught:
            planned("photos/more.jpg", "more.jpg", to="out/", keep=keep)
        assert "--keep-extension" not in str(caught.value)
    Path("photos/b.jpg").write_bytes(b"x")
    with pytest.raises(click.UsageError, match="write one to another folder"):
        planned("photos", to="out/")


@pytest.mark.parametrize("to", ["more.jpg", "./photos/../more.jpg", "link.jpg"])
def test_a_result_in_place_of_its_input_is_refused(to: str) -> None:
    Path("link.jpg").symlink_to("more.jpg")
    with pytest.raises(click.UsageError, match="is an input"):
        planned("more.jpg", to=to)


def test_a_file_is_written_with_its_folders_and_the_usual_rights() -> None:
    target = Path("new/deep/a.vcm")
    files.write_whole(target, b"abc")
    assert target.read_bytes() == b"abc"
    umask = os.umask(0)
    os.umask(umask)
    assert stat.S_IMODE(target.stat().st_mode) == 0o666 & ~umask
    assert os.listdir(target.parent) == ["a.vcm"]


def test_a_file_that_is_replaced_keeps_its_rights() -> None:
    target = Path("mine.vcm")
    target.write_bytes(b"old")
    target.chmod(0o600)
    files.write_whole(target, b"new")
    assert target.read_bytes() == b"new"
    assert stat.S_IMODE(target.stat().st_mode) == 0o600


def test_a_write_that_fails_leaves_the_old_file_and_nothing_else(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    target = Path("old.vcm")
    target.write_bytes(b"old")
    before = sorted(os.listdir())

    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "replace", full)
    with pytest.raises(OutputError, match="No space left"):
        files.write_whole(target, b"new")
    assert target.read_bytes() == b"old"
    assert sorted(os.listdir()) == before


def test_an_interrupt_while_writing_leaves_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    before = sorted(os.listdir())

    def interrupted(*_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(os, "replace", interrupted)
    with pytest.raises(KeyboardInterrupt):
        files.write_whole(Path("new.vcm"), b"new")
    assert sorted(os.listdir()) == before


def test_links_stay_links_and_devices_stay_devices() -> None:
    Path("link.vcm").symlink_to("target.vcm")
    files.write_whole(Path("link.vcm"), b"abc")
    assert Path("link.vcm").is_symlink()
    assert Path("target.vcm").read_bytes() == b"abc"
    files.write_whole(Path("/dev/null"), b"abc")
    assert stat.S_ISCHR(os.stat("/dev/null").st_mode)


def test_what_cannot_be_written_says_why() -> None:
    Path("file").write_bytes(b"")
    for target in ("file/a.vcm", "photos"):
        with pytest.raises(OutputError, match="cannot be written"):
            files.write_whole(Path(target), b"abc")


def test_a_long_name_in_any_script_is_written() -> None:
    """A temporary name of 200 characters and more was longer than 255 bytes."""
    name = Path("\u5b57" * 82 + ".vcm")
    files.write_whole(name, b"x")
    assert name.read_bytes() == b"x"
    assert [each.name for each in Path.cwd().glob("*.vcm")] == [name.name]


def test_what_is_read_beside_the_inputs_is_not_replaced() -> None:
    found = files.gather(["more.jpg"], {".jpg"})
    with pytest.raises(click.UsageError, match="is an input"):
        files.plan(found, ["more.jpg"], "./photos/../photos/b.png", ".vcm", ["photos/b.png"])
    files.refuse_inputs([None, Path("/dev/null")], ["/dev/null"])  # loses nothing


def test_a_folder_that_cannot_be_entered_is_told_and_the_others_are_found(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """It was left out without a word, and the exit code was 0."""
    Path("some/closed").mkdir(parents=True)
    Path("some/open").mkdir()
    for name in ("some/a.jpg", "some/closed/b.jpg", "some/open/c.jpg"):
        Path(name).write_bytes(b"")
    real = os.scandir

    def scandir(path: str) -> object:
        if str(path).endswith("closed"):
            raise PermissionError(13, "Permission denied", str(path))
        return real(path)

    monkeypatch.setattr(os, "scandir", scandir)
    found = files.gather(["some"], {".jpg"}, recursive=True)
    assert [each.name for each in found] == ["some/a.jpg", "some/closed", "some/open/c.jpg"]
    assert [each.problem is None for each in found] == [True, False, True]
    assert str(found[1].problem) == "Permission denied"


def test_what_cannot_be_written_is_known_beforehand() -> None:
    files.check_writable(Path("new/c.json"))
    assert os.listdir("new") == []
    Path("taken").mkdir()
    for bad in ("taken", "more.jpg/c.json"):
        with pytest.raises(OutputError, match="cannot be written"):
            files.check_writable(Path(bad))
