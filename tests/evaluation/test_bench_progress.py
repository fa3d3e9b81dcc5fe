"""What a bench says while it runs: nothing on standard output, plain lines off a terminal."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from click.testing import CliRunner, Result
from test_task_bench import lineup, write_set

from vcmcodec.cli import bench, bench_tasks
from vcmcodec.cli.main import vcm


def measure(folder: Path, monkeypatch: pytest.MonkeyPatch, *more: str) -> Result:
    """`vcm bench tasks` with made-up codecs, its figures on standard output."""
    monkeypatch.setattr(bench_tasks, "_plan", lambda asked: lineup)
    arguments = ["bench", "tasks", str(write_set(folder)), "--costs", "0", "--resamples", "0",
                 "--threads", "1", "--json", "-"]  # fmt: skip
    done = CliRunner().invoke(vcm, [*arguments, *more], catch_exceptions=False)
    assert done.exit_code == 0, done.stderr
    return done


def test_off_a_terminal_every_stage_is_a_plain_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    done = measure(tmp_path, monkeypatch)
    assert done.stderr.splitlines() == [
        "opening networks and codecs",
        "measuring uncompressed, ours, theirs",
        "1 of 6 pictures",
        "scores",
        "comparisons",
    ]
    assert json.loads(done.stdout)["tasks"]["pictures"] == 6


def test_a_quiet_bench_says_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    done = measure(tmp_path, monkeypatch, "--quiet")
    assert done.stderr == ""
    assert json.loads(done.stdout)["tasks"]["pictures"] == 6


def test_a_long_stage_is_told_now_and_then(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    clock = iter(range(0, 1000, 12))
    monkeypatch.setattr(bench.time, "monotonic", lambda: float(next(clock)))
    with bench.telling(quiet=False) as progress:
        for count in range(1, 8):
            progress(f"{count} of 7 pictures")
        progress("scores")
        progress("a\nb: of one picture")  # names of files may hold anything
    out, err = capsys.readouterr()
    assert out == ""
    told = ["1 of 7 pictures", "4 of 7 pictures", "7 of 7 pictures"]
    assert err.splitlines() == [*told, "scores", "a\\nb: of one picture"]
