"""`vcm` among other processes: pipes, signals, terminals, shells."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from conftest import ROOT, Run


def test_pipes_carry_the_result_and_nothing_else(vcm_process: Run, hand_made: bytes) -> None:
    ran = vcm_process("extract", "-", "-o", "-", "--layer", "base", stdin=hand_made)
    assert (ran.code, ran.stderr) == (0, "")
    assert ran.stdout.startswith(b"\x89VCM")
    ran = vcm_process("info", "-", "--json", stdin=ran.stdout)
    assert json.loads(ran.stdout)["source"] == "-"


def test_a_reader_that_leaves_early_is_no_error_of_ours(tmp_path: Path, hand_made: bytes) -> None:
    (tmp_path / "a.vcm").write_bytes(hand_made)
    reader, writer = os.pipe()
    os.close(reader)
    ended = subprocess.run(
        [sys.executable, "-m", "vcmcodec", "info", "a.vcm"],
        stdout=writer,
        stderr=subprocess.PIPE,
        cwd=tmp_path,
        env=os.environ | {"PYTHONPATH": str(ROOT)},
        check=False,
    )
    os.close(writer)
    assert ended.stderr == b""
    assert ended.returncode == 141


@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_an_interrupt_ends_cleanly(number: int, code: int, tmp_path: Path) -> None:
    with subprocess.Popen(
        [sys.executable, "-u", "-m", "vcmcodec", "extract", "-", "-o", "x.vcm", "--layer", "base"],
        stdin=subprocess.PIPE,
        stderr=subprocess.PIPE,
        cwd=tmp_path,
        env=os.environ | {"PYTHONPATH": str(ROOT), "PYTHONVERBOSE": "1"},
        # a shell's background jobs ignore interrupts, and what they start does too
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
    ) as process:
        assert process.stderr is not None
        for line in process.stderr:  # once edit is loaded, the command waits for its input
            if b"vcmcodec.cli.extract" in line:
                break
        process.send_signal(number)
        process.stderr.read()
        assert process.wait(60) == code
    assert os.listdir(tmp_path) == []


def test_no_colour_where_no_terminal_is(vcm_process: Run) -> None:
    ran = vcm_process("info", "nothing.vcm")
    assert ran.stderr == "vcm: nothing.vcm: No such file or directory\n"


def test_colour_on_a_terminal_unless_refused(tmp_path: Path) -> None:
    import pty

    for variables, coloured in (({}, True), ({"NO_COLOR": "1"}, False)):
        master, slave = pty.openpty()
        environment = {k: v for k, v in os.environ.items() if k != "NO_COLOR"} | variables
        subprocess.run(
            [sys.executable, "-m", "vcmcodec", "info", "nothing.vcm"],
            stderr=slave,
            cwd=tmp_path,
            env=environment | {"PYTHONPATH": str(ROOT)},
            check=False,
        )
        os.close(slave)
        seen = os.read(master, 10_000)
        os.close(master)
        assert (b"\x1b[" in seen) is coloured


def test_a_bar_is_drawn_on_a_terminal_only(
    vcm_process: Run, tmp_path: Path, hand_made: bytes
) -> None:
    import pty

    for name in ("a", "b"):
        (tmp_path / f"{name}.vcm").write_bytes(hand_made)
    arguments = ["extract", "a.vcm", "b.vcm", "-o", "out/", "--layer", "base"]
    ran = vcm_process(*arguments)
    assert ran.stdout == b""
    assert ran.stderr.startswith("2 extracted, ")
    master, slave = pty.openpty()
    environment = os.environ | {"PYTHONPATH": str(ROOT), "TERM": "xterm", "COLUMNS": "80"}
    ended = subprocess.run(
        [sys.executable, "-m", "vcmcodec", *arguments],
        stderr=slave,
        stdout=subprocess.PIPE,
        cwd=tmp_path,
        env=environment,
        check=True,
    )
    os.close(slave)
    seen = os.read(master, 100_000).decode()
    os.close(master)
    assert "2/2" in seen
    assert "2 extracted, " in seen
    assert ended.stdout == b""


def test_completion_scripts_are_there_for_three_shells(vcm_process: Run) -> None:
    for shell in ("bash", "zsh", "fish"):
        ran = vcm_process(_VCM_COMPLETE=f"{shell}_source")
        assert ran.code == 0
        assert b"_VCM_COMPLETE" in ran.stdout
    ran = vcm_process(_VCM_COMPLETE="bash_complete", COMP_WORDS="vcm ver", COMP_CWORD="1")
    assert b"verify" in ran.stdout


FULL = Path("/dev/full")


@pytest.mark.skipif(not FULL.exists(), reason="no device that is always full")
@pytest.mark.parametrize(
    "command",
    [("info", "a.vcm"), ("models",), ("extract", "a.vcm", "--layer", "base", "-o", "-")],
    ids=lambda c: c[0],
)
def test_a_full_disk_behind_standard_output_is_one_line(
    command: tuple[str, ...], tmp_path: Path, hand_made: bytes
) -> None:
    (tmp_path / "a.vcm").write_bytes(hand_made)
    with FULL.open("wb") as full:
        ended = subprocess.run(
            [sys.executable, "-m", "vcmcodec", *command], stdout=full, stderr=subprocess.PIPE,
            cwd=tmp_path, env=os.environ | {"PYTHONPATH": str(ROOT)}, check=False,
        )  # fmt: skip
    assert ended.returncode == 1
    (line,) = ended.stderr.decode().splitlines()
    assert "No space left on device" in line


@pytest.mark.parametrize("closed", [0, 1, 2])
def test_closed_standard_streams_are_no_bugs(closed: int, tmp_path: Path, hand_made: bytes) -> None:
    (tmp_path / "a.vcm").write_bytes(hand_made)
    for command in (("info", "a.vcm"), ("info", "-")):
        ended = subprocess.run(
            [sys.executable, "-m", "vcmcodec", *command], capture_output=True, cwd=tmp_path,
            env=os.environ | {"PYTHONPATH": str(ROOT)}, check=False, stdin=subprocess.DEVNULL,
            preexec_fn=lambda: os.close(closed),
        )  # fmt: skip
        assert b"Traceback" not in ended.stderr
        assert b"report" not in ended.stderr
