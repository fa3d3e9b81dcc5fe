"""Ablations of pyramids: known curves in, known savings out."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from vcmcodec.errors import RequestError
from vcmcodec.evaluation.pyramid_runs import bits_at, compare, read_run, tables

RATES = (0, 5000, 10000)


def write(folder: Path, scale: dict[str, float], bits: float) -> Path:
    """A run whose levels have error `scale` / bits**0.5 at `bits` times 1, 4, 16."""
    line: dict[str, float] = {"step": 7}
    for rate, more in zip(RATES, (1, 4, 16), strict=True):
        line[f"bpp_{rate}"] = bits * more
        for name, value in scale.items():
            line[f"error_{name}_{rate}"] = value / more**0.5
    folder.mkdir()
    text = json.dumps({"step": 3, "loss": 1.0}) + "\n" + json.dumps(line) + "\n"
    (folder / "log.jsonl").write_text(text)
    return folder


def test_each_level_alone_costs_its_own_bits(tmp_path: Path) -> None:
    fused = write(tmp_path / "fused", {"p3": 0.8, "c5": 0.4}, 0.1)
    p3 = write(tmp_path / "p3", {"p3": 0.8}, 0.08)
    c5 = write(tmp_path / "c5", {"c5": 0.4}, 0.045)
    joined = write(tmp_path / "joined", {"p3": 0.8, "c5": 0.4}, 0.125)
    result = compare(fused, joined, [p3, c5])
    assert result.against_joined == pytest.approx(-0.2)
    for number, (one, other) in enumerate(result.against_alone):
        assert one == pytest.approx(0.1 * 4**number)
        assert other == pytest.approx(0.125 * 4**number)
    assert len(result.against_alone) == 3
    (table,) = tables(result)
    assert [row[-1] for row in table.rows] == ["-20.0%"] * 3
    assert "-20.0% bits" in table.notes[-1]


def test_bits_are_interpolated_between_rate_levels_only(tmp_path: Path) -> None:
    curve = read_run(write(tmp_path / "one", {"p4": 0.8}, 0.1))
    assert bits_at(curve, "p4", 0.8 / 2**0.5) == pytest.approx(0.2)
    assert bits_at(curve, "p4", 0.9) is None
    assert bits_at(curve, "p4", 0.1) is None


def test_runs_that_say_nothing_are_refused(tmp_path: Path) -> None:
    with pytest.raises(RequestError, match="no log"):
        read_run(tmp_path)
    (tmp_path / "log.jsonl").write_text('{"step": 1, "loss": 2}\n')
    with pytest.raises(RequestError, match="never evaluated"):
        read_run(tmp_path)
    fused = write(tmp_path / "fused", {"p3": 0.8, "c5": 0.4}, 0.1)
    with pytest.raises(RequestError, match="not one level alone"):
        compare(fused, None, [fused])
