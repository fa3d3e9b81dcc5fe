"""Batches: one that fails stops none of the others, in one process or in several."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from vcmcodec.cli import batch
from vcmcodec.cli.batch import Product, Style
from vcmcodec.cli.files import Input, Job
from vcmcodec.errors import PictureError


def work(source: str | bytes) -> Product:
    """Turn `NAME` into its upper case; some names go wrong in their own way."""
    name = Path(str(source)).name
    if name == "bad":
        raise PictureError("damaged picture: no end")
    if name == "bug":
        raise IndexError("list index out of range")
    if name == "big":
        raise MemoryError
    if name == "dies":
        os._exit(9)
    if name.startswith("forever"):
        Path(f"{name}.pid").write_text(str(os.getpid()))
        time.sleep(120)
    if name == "slow":
        time.sleep(0.3)
    return Product(name.upper().encode(), {"bytes": len(name)}, "fine", 4, ("odd",) * (name == "w"))


def jobs(folder: Path, *names: str) -> list[Job]:
    return [Job(Input(Path(name), Path(name)), folder / f"{name}.out") for name in names]


@pytest.mark.parametrize("workers", [1, 2])
def test_the_others_are_done_where_some_fail(
    workers: int, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    todo = jobs(tmp_path, "slow", "bad", "bug", "w", "big", "last")
    code = batch.run(work, todo, Style("done", workers=workers, threads=1, json=True))
    out, err = capsys.readouterr()
    assert code == 1
    assert sorted(os.listdir(tmp_path)) == ["last.out", "slow.out", "w.out"]
    assert (tmp_path / "last.out").read_bytes() == b"LAST"
    told = [json.loads(line) for line in out.splitlines()]
    assert [each["source"] for each in told] == ["slow", "bad", "bug", "w", "big", "last"]
    codes = [each.get("error", {}).get("code") for each in told]
    assert codes == [None, "picture", "internal", None, "limit", None]
    assert told[3]["warnings"] == ["odd"]
    assert "vcm: bad: damaged picture: no end\n" in err
    assert "vcm: w: warning: odd\n" in err
    assert "3 done" in err
    assert "3 failed" in err
    assert "Traceback" not in err


def test_a_worker_that_dies_costs_its_own_input_only(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    todo = jobs(tmp_path, "a", "dies", "b", "c", "d", "e", "f", "g", "h", "i", "j", "k")
    code = batch.run(work, todo, Style("done", workers=2, threads=1))
    assert code == 1
    assert sorted(os.listdir(tmp_path)) == sorted(f"{name}.out" for name in "abcdefghijk")
    _, err = capsys.readouterr()
    assert "vcm: dies: the worker process died" in err


def test_a_bug_shows_its_traceback_only_if_asked(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    batch.run(work, jobs(tmp_path, "bug"), Style("done", verbose=True))
    assert "IndexError" in (err := capsys.readouterr().err)
    assert "Traceback" in err


def test_quiet_says_nothing_but_errors(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    batch.run(work, jobs(tmp_path, "w", "bad", "x"), Style("done", quiet=True))
    out, err = capsys.readouterr()
    assert out == ""
    assert err == "vcm: bad: damaged picture: no end\n"


@pytest.mark.parametrize(
    ("existing", "code", "content"),
    [("replace", 0, b"A"), ("refuse", 1, b"old"), ("skip", 0, b"old")],
)
def test_what_is_there_is_replaced_refused_or_skipped(
    existing: batch.Existing, code: int, content: bytes, tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:  # fmt: skip
    (tmp_path / "a.out").write_bytes(b"old")
    assert batch.run(work, jobs(tmp_path, "a", "b"), Style("done", existing=existing)) == code
    assert (tmp_path / "a.out").read_bytes() == content
    assert (tmp_path / "b.out").read_bytes() == b"B"
    assert ("skipped" in capsys.readouterr().err) is (existing == "skip")


def test_an_interrupt_ends_the_workers_and_leaves_nothing(tmp_path: Path) -> None:
    script = (
        "import sys, test_batch; from pathlib import Path\n"
        "jobs = test_batch.jobs(Path(), 'forever-1', 'forever-2', 'never')\n"
        "if __name__ == '__main__':\n"
        "    test_batch.batch.run(test_batch.work, jobs, test_batch.Style('done', workers=2))\n"
    )
    (tmp_path / "main.py").write_text(script)
    here = Path(__file__).resolve()
    paths = os.pathsep.join(map(str, (here.parent, here.parents[2])))
    with subprocess.Popen(
        [sys.executable, "main.py"],
        cwd=tmp_path,
        env=os.environ | {"PYTHONPATH": paths},
        stderr=subprocess.DEVNULL,
        # a shell's background jobs ignore interrupts, and what they start does too
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
    ) as parent:
        marks = [tmp_path / f"forever-{number}.pid" for number in (1, 2)]
        deadline = time.monotonic() + 60
        while not all(mark.exists() and mark.read_text() for mark in marks):
            assert time.monotonic() < deadline
            time.sleep(0.05)
        parent.send_signal(signal.SIGINT)
        assert parent.wait(30) != 0
    for mark in marks:
        with pytest.raises(ProcessLookupError):
            os.kill(int(mark.read_text()), 0)
    assert sorted(os.listdir(tmp_path)) == ["forever-1.pid", "forever-2.pid", "main.py"]
