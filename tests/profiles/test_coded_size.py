"""Coded sizes against the tables' own estimate, and what a file costs beyond them."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from photographs import NAMES, grid, photograph, substreams
from vcmcodec.bitstream.constants import Kind
from vcmcodec.bitstream.container import Container
from vcmcodec.codec import encode
from vcmcodec.profiles import coding, scene


class Estimates:
    """Keeps every coder that an encoding makes, to add up their estimates."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.coders: list[coding.EncodingCoder] = []

        def keep(*arguments: Any, **options: Any) -> coding.EncodingCoder:
            self.coders.append(coding.EncodingCoder(*arguments, **options))
            return self.coders[-1]

        monkeypatch.setattr(scene, "EncodingCoder", keep)

    @property
    def bits(self) -> float:
        return sum(coder.bits for coder in self.coders)


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("count", [1, 4])
def test_files_are_as_small_as_their_tables_say(
    name: str, count: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Within 1 % and 8 bytes a run, over all runs of a picture."""
    rgb = photograph(name, 130, 175, 80, 120)
    cells = (np.arange(11)[None] * count // 11).repeat(grid(130, 175)[0], 0).astype(np.uint8)
    sizes = []
    for quality, base in ((0, 0), (40, 10), (75, None), (100, 30)):
        estimates = Estimates(monkeypatch)
        file = encode(rgb, quality=quality, base_quality=base, groups=cells)
        runs = [v for k, v in substreams(file).items() if k[0] in (Kind.LATENT, Kind.REFINEMENT)]
        coded = sum(map(len, runs))
        assert estimates.bits > 0
        assert coded <= 1.01 * estimates.bits / 8 + 8 * len(runs)
        assert coded >= 0.99 * estimates.bits / 8 - len(runs)
        sizes.append(coded)
    assert sizes[0] < sizes[1] < sizes[2] < sizes[3]


def test_the_estimate_of_one_run_is_its_size(monkeypatch: pytest.MonkeyPatch) -> None:
    """One group, one layer, no slack to hide in."""
    rgb = photograph("coffee", 208, 256, 60, 100)
    estimates = Estimates(monkeypatch)
    file = encode(rgb, tasks=["detection"], base_quality=80)
    (run,) = substreams(file).values()
    assert len(estimates.coders) == 1
    assert len(run) > 1000
    assert abs(len(run) - estimates.bits / 8) <= 8 + 0.002 * len(run)
    assert len(file) - len(run) <= 57
    assert Container.read(file).header_bytes == len(file) - len(run)


def test_weighing_bits_against_error_pays(monkeypatch: pytest.MonkeyPatch) -> None:
    """Rounding that knows the tables makes smaller files than plain rounding."""
    rgb = photograph("astronaut", 130, 175, 80, 120)
    weighed = encode(rgb, quality=60)

    def plainly(*arguments: Any, **options: Any) -> coding.EncodingCoder:
        return coding.EncodingCoder(*arguments, **(options | {"price": None}))

    monkeypatch.setattr(scene, "EncodingCoder", plainly)
    assert len(weighed) < 0.97 * len(encode(rgb, quality=60))
