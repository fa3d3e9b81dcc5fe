"""The commands that move bytes, as a user types them."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest

from conftest import Run, loaded
from vcmcodec.cli.main import COMMANDS
from vcmcodec.cli.main import vcm as program

NAMES = [name for name, _, _ in COMMANDS]
HEAVY = ("torch", "compressai", "numpy")


@pytest.fixture
def street(tmp_path: Path, hand_made: bytes) -> Path:
    path = tmp_path / "street.vcm"
    path.write_bytes(hand_made)
    return path


def test_help_lists_every_command_with_the_help_of_the_table(vcm: Run) -> None:
    text = vcm("--help").stdout.decode()
    for name, _, short in COMMANDS:
        assert f"  {name} " in text
        assert short.split()[0] in text
    assert "_VCM_COMPLETE" in text


@pytest.mark.parametrize("names", [["encode"], ["analyze"], ["bench", "vision"]], ids=" ".join)
def test_examples_keep_their_lines(names: list[str], vcm: Run) -> None:
    lines = [line.strip() for line in vcm(*names, "--help").lines]
    assert not any("\\b" in line for line in lines)
    assert sum(line.startswith(f"vcm {' '.join(names)} ") for line in lines) >= 2


@pytest.mark.parametrize("name", NAMES)
def test_every_command_has_help_for_every_option(name: str, vcm: Run) -> None:
    assert vcm(name, "--help").code == 0
    command = program.get_command(None, name)  # type: ignore[arg-type]
    assert command is not None
    for parameter in command.params:
        if parameter.param_type_name == "option":
            assert getattr(parameter, "help", None), f"{name}: {parameter.name}"


@pytest.mark.parametrize(
    "arguments",
    [["--help"], ["--version"], *([name, "--help"] for name in NAMES),
     ["info", "a.vcm"], ["info", "a.vcm", "--json"], ["models", "--json"],
     ["extract", "a.vcm", "-o", "b.vcm", "--task", "detection"],
     ["extract", "a.vcm", "-o", "b.vcm", "--drop-groups", "person", "--redact"],
     ["merge", "a.vcm", "-o", "b.vcm"], ["verify", "a.vcm"]],
    ids=" ".join,
)  # fmt: skip
def test_light_commands_load_nothing_heavy(
    arguments: list[str], tmp_path: Path, hand_made: bytes
) -> None:
    (tmp_path / "a.vcm").write_bytes(hand_made)
    assert loaded(arguments, HEAVY, tmp_path) == []


@pytest.mark.parametrize("name", ["nothing.png", "nothing.vcm", "empty.png", "cut.vcm", "bad.vcm"])
def test_analyze_tells_of_a_bad_file_before_it_loads_torch(
    name: str, tmp_path: Path, hand_made: bytes
) -> None:
    (tmp_path / "empty.png").write_bytes(b"")
    (tmp_path / "cut.vcm").write_bytes(hand_made[:30])
    (tmp_path / "bad.vcm").write_bytes(hand_made.replace(b"person", b"parson"))
    assert loaded(["analyze", name], ("PIL", "torch"), tmp_path) == ["PIL"]


def test_info_shows_layers_groups_tasks_and_substreams(vcm: Run, street: Path) -> None:
    ran = vcm("info", street.name)
    assert ran.code == 0
    assert ran.stderr == ""
    text = ran.stdout.decode()
    words = "60 x 40|base|mid|full|human|detection|group 1 person|0 background|score 0.50|group map"
    for word in (*words.split("|"), f"{street.stat().st_size} bytes"):
        assert word in text


def test_info_json_is_one_object_a_line_whose_bytes_add_up(vcm: Run, street: Path) -> None:
    ran = vcm("info", street.name, street, "nothing.vcm", "--json")
    assert ran.code == 1
    seen, missing = map(json.loads, ran.lines)
    error = {"code": "request", "message": "No such file or directory"}
    assert missing == {"source": "nothing.vcm", "error": error}
    assert ran.stderr == "vcm: nothing.vcm: No such file or directory\n"
    whole = seen["header_bytes"] + sum(layer["num_bytes"] for layer in seen["layers"])
    assert whole == seen["num_bytes"] == street.stat().st_size
    assert [group["label"] for group in seen["groups"]] == ["background", "person"]


def test_parts_merge_to_the_whole(vcm: Run, street: Path) -> None:
    assert vcm("extract", street, "-o", "base.vcm", "--task", "detection").code == 0
    assert vcm("extract", street, "-o", "rest.vcm", "--layer", "mid", "--layer", "full").code == 0
    ran = vcm("merge", "base.vcm", "rest.vcm", "-o", "whole.vcm", "--json")
    assert json.loads(ran.stdout)["bytes"] == street.stat().st_size
    assert Path("whole.vcm").read_bytes() == street.read_bytes()
    assert Path("base.vcm").stat().st_size < street.stat().st_size


def test_what_is_above_the_base_is_whatever_the_file_has_of_it(vcm: Run, street: Path) -> None:
    assert vcm("extract", street, "-o", "base.vcm", "--width", "0.25").code == 0
    assert vcm("extract", street, "-o", "half.vcm", "--width", "0.5").code == 0
    for whole, layers in ((street, ["mid", "full"]), ("half.vcm", ["mid"])):
        assert vcm("extract", whole, "-o", "rest.vcm", "--layer", "enhancement").code == 0
        told = json.loads(vcm("info", "rest.vcm", "--json").stdout)["layers"]
        assert [layer["name"] for layer in told if layer["substreams"]] == layers
        assert vcm("merge", "base.vcm", "rest.vcm", "-o", "merged.vcm").code == 0
        assert Path("merged.vcm").read_bytes() == Path(whole).read_bytes()
    ran = vcm("extract", street, "-o", "same.vcm", "--layer", "base,enhancement")
    assert ran.code == 0
    assert Path("same.vcm").read_bytes() == street.read_bytes()
    ran = vcm("extract", "base.vcm", "-o", "none.vcm", "--layer", "enhancement")
    assert ran.code == 1
    assert ran.stderr == "vcm: base.vcm: no layer 'enhancement' in this file; it has base\n"
    assert vcm("extract", street, "-o", "x.vcm", "--layer", "half").code == 2


def test_the_part_that_does_not_merge_is_named(
    vcm: Run, vcm_process: Run, street: Path, hand_made: bytes
) -> None:
    assert vcm("extract", street, "-o", "base.vcm", "--layer", "base").code == 0
    Path("text.vcm").write_bytes(b"no such file at all, and long enough to be one")
    damaged = bytearray(hand_made)
    damaged[-1] ^= 1
    Path("bad.vcm").write_bytes(damaged)
    lines = {
        "text.vcm": "base.vcm, text.vcm: text.vcm: signature",
        "gone.vcm": "base.vcm, gone.vcm: gone.vcm: No such file or directory\n",
        "bad.vcm": "base.vcm, bad.vcm: bad.vcm: latent",
    }
    for name, line in lines.items():
        ran = vcm("merge", "base.vcm", name, "-o", "whole.vcm")
        assert ran.code == 1
        assert ran.stderr.startswith(f"vcm: {line}")
    ran = vcm_process("merge", "base.vcm", "-", "-o", "whole.vcm", stdin=bytes(damaged))
    assert ran.code == 1
    assert "standard input: latent" in ran.stderr
    ran = vcm_process("merge", "base.vcm", "-", "-o", "whole.vcm", stdin=hand_made)
    assert (ran.code, ran.stderr) == (0, "")


def test_groups_are_chosen_by_label_or_id_and_merge_too(vcm: Run, street: Path) -> None:
    assert vcm("extract", street, "-o", "p.vcm", "--groups", "person").code == 0
    assert vcm("extract", street, "-o", "id.vcm", "--groups", "1").code == 0
    assert vcm("extract", street, "-o", "rest.vcm", "--drop-groups", "person").code == 0
    assert Path("p.vcm").read_bytes() == Path("id.vcm").read_bytes()
    assert vcm("merge", "rest.vcm", "p.vcm", "-o", "whole.vcm").code == 0
    assert Path("whole.vcm").read_bytes() == street.read_bytes()


def test_a_redacted_copy_does_not_name_what_it_lacks(vcm: Run, street: Path) -> None:
    ran = vcm("extract", street, "-o", "private.vcm", "--drop-groups", "person", "--redact")
    assert ran.code == 0
    assert b"person" not in Path("private.vcm").read_bytes()
    assert "redacted" in vcm("info", "private.vcm").stdout.decode()


def test_a_folder_of_files_is_extracted_into_a_folder(vcm: Run, street: Path) -> None:
    Path("in").mkdir()
    for name in ("a", "b"):
        Path(f"in/{name}.vcm").write_bytes(street.read_bytes())
    Path("in/c.vcm").write_bytes(b"text")
    ran = vcm("extract", "in", "-o", "out/", "--layer", "base")
    assert ran.code == 1
    assert sorted(os.listdir("out")) == ["a.vcm", "b.vcm"]
    assert ran.stderr.startswith("vcm: in/c.vcm: ")
    assert "2 extracted" in ran.stderr


@pytest.mark.parametrize(
    "arguments",
    [
        ["extract", "street.vcm", "-o", "x.vcm"],
        ["extract", "street.vcm", "-o", "x.vcm", "--task", "detection", "--width", "0.25"],
        ["extract", "street.vcm", "-o", "x.vcm", "--groups", "1", "--drop-groups", "0"],
        ["extract", "street.vcm", "-o", "x.vcm", "--layer", "base", "--redact"],
        ["extract", "street.vcm", "-o", "x.vcm", "--groups", ","],
        ["extract", "street.vcm", "-o", "street.vcm", "--layer", "base"],
        ["extract", "street.vcm", "--layer", "base"],
        ["extract", "street.vcm", "-o", "-", "--layer", "base", "--json"],
        ["merge", "street.vcm", "-o", "folder/"],
        ["info"],
        ["info", "street.vcm", "--max-pixels", "0"],
        ["encode", "a.png", "-o", "x.vcm", "--quality", "101"],
        ["encode", "a.png", "-o", "x.vcm", "--quality", "50", "--target-bpp", "1"],
        ["encode", "a.png", "-o", "x.vcm", "--target-size", "many"],
        ["encode", "a.png", "-o", "x.vcm", "--labels", "person"],
        ["encode", "a.png", "-o", "x.vcm", "--text", "note"],
        ["encode", "a.png", "-o", "x.vcm", "--task", "cooking"],
        ["decode", "street.vcm", "-o", "x.doc"],
        ["decode", "street.vcm", "-o", "x.png", "--width", "0.3"],
        ["nonsense"],
    ],
    ids=" ".join,
)
def test_wrong_usage_ends_with_2_and_writes_nothing(
    arguments: list[str], vcm: Run, street: Path
) -> None:
    ran = vcm(*arguments)
    assert ran.code == 2
    assert ran.stdout == b""
    assert "Usage: vcm" in ran.stderr
    assert "Error: " in ran.stderr
    assert os.listdir() == ["street.vcm"]


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--groups", "cat"], "no group"),
        (["--width", "0.25", "--max-pixels", "100"], "--max-pixels"),
        (["--task", "segmentation"], "segmentation"),
    ],
)
def test_what_is_not_there_ends_with_1_and_says_what_is(
    arguments: list[str], words: str, vcm: Run, street: Path
) -> None:
    ran = vcm("extract", street.name, "-o", "x.vcm", *arguments)
    assert ran.code == 1
    assert words in ran.stderr
    assert ran.stderr.count("\n") == 1
    assert os.listdir() == ["street.vcm"]


def test_verify_finds_the_substream_that_is_damaged(vcm: Run, street: Path) -> None:
    ran = vcm("verify", street.name)
    assert (ran.code, ran.stderr) == (0, "")
    assert b"street.vcm: ok (7 substreams" in ran.stdout
    data = bytearray(street.read_bytes())
    data[-1] ^= 1
    Path("bad.vcm").write_bytes(data)
    ran = vcm("verify", "street.vcm", "bad.vcm", "--json")
    good, bad = map(json.loads, ran.lines)
    assert ran.code == 1
    assert good["ok"]
    assert "error" not in good
    assert not bad["ok"]
    assert bad["error"] == {"code": "corrupt", "message": "damaged: 1 of 7 substreams"}
    assert [finding["code"] for finding in bad["findings"]] == ["ok"] * 6 + ["corrupt"]
    assert "vcm: bad.vcm: damaged: 1 of 7 substreams\n" in ran.stderr


def test_a_file_that_is_cut_off_is_shown_with_a_warning(vcm: Run, street: Path) -> None:
    Path("cut.vcm").write_bytes(street.read_bytes()[:-5])
    ran = vcm("info", "cut.vcm")
    assert ran.code == 0
    assert "cut off" in ran.stderr
    assert vcm("info", "cut.vcm", "-q").stderr == ""
    ran = vcm("verify", "cut.vcm", "-q", "--json")
    assert ran.code == 1
    assert json.loads(ran.stdout)["error"]["code"] == "truncated"


@pytest.mark.parametrize("jobs", [1, 2])
def test_a_folder_without_inputs_stops_none_of_the_others(
    jobs: int, vcm: Run, street: Path
) -> None:
    for name in ("empty", "full"):
        Path(name).mkdir()
    Path("full/a.vcm").write_bytes(street.read_bytes())
    arguments = {
        "info": (),
        "verify": (),
        "extract": ("-o", "out/", "--layer", "base"),
        "decode": ("-o", "out/", "--jobs", jobs),
    }
    for command, options in arguments.items():
        ran = vcm(command, "empty", "full", "--json", *options)
        assert ran.code == 1
        empty, full = map(json.loads, ran.lines)
        assert empty["source"] == "empty"
        assert empty["error"]["code"] == "request"
        assert "holds no input: .vcm" in empty["error"]["message"]
        assert full["source"] == "full/a.vcm"
        told = [line for line in ran.stderr.splitlines() if "holds no input" in line]
        assert len(told) == 1
        assert told[0].startswith("vcm: empty: the folder")
    ran = vcm("merge", "empty", street, "-o", "whole.vcm")
    assert ran.code == 1
    assert "empty: the folder holds no input: .vcm\n" in ran.stderr  # it has no --recursive


def test_names_that_would_break_the_line_are_escaped(vcm: Run) -> None:
    ran = vcm("info", "a\nb\x1b[31m.vcm")
    assert ran.stderr == "vcm: a\\nb\\x1b[31m.vcm: No such file or directory\n"
