"""Adapted files of a wanted size: how often it is tried, and what is said where none fits."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest

import vcmcodec
from photographs import photograph
from vcmcodec.encoding import FITTING_STEP, FITTING_TRIES, Encoded, fit
from vcmcodec.errors import RequestError


def made(size: int, level: int) -> Encoded:
    header: Any = SimpleNamespace(layers=[SimpleNamespace(rate_level=level)])
    return Encoded(bytes(size), header, ())


@pytest.mark.parametrize("level", [0, 15, FITTING_STEP + 1])
def test_no_level_is_adapted_twice(level: int) -> None:
    """Fifteen seconds went into the lowest level, three times over."""
    tried: list[int] = []

    def adapted(at: int) -> Encoded:
        tried.append(at)
        return made(101, at)

    found = fit(adapted, made(90, level), 100)
    assert len(found.data) == 90
    assert found.warnings == (
        "not adapted to the network: what is adapted did not fit into 100 bytes",
    )
    assert len(set(tried)) == len(tried) <= FITTING_TRIES


def test_what_fits_is_taken_and_nothing_is_said() -> None:
    found = fit(lambda at: made(99, at), made(90, 4000), 100)
    assert (len(found.data), found.warnings) == (99, ())


def test_a_size_beyond_any_float_is_refused() -> None:
    with pytest.raises(RequestError, match="is no size"):
        vcmcodec.encode(photograph("coffee", 32, 32), target_size=10**400)
