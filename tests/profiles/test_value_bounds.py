"""Values that float32 cannot hold exactly are illegal in files, and never written."""

from __future__ import annotations

import numpy as np
import pytest
import torch

import vcmcodec
from photographs import photograph
from vcmcodec import edit
from vcmcodec.codec import decode, encode
from vcmcodec.deep import decode_symbols
from vcmcodec.entropy.cdf import Tables
from vcmcodec.entropy.rans import RansEncoder
from vcmcodec.errors import FormatError, RequestError
from vcmcodec.models import load_model
from vcmcodec.nn.integer import VALUE_BOUND, VALUE_UNIT
from vcmcodec.profiles import scene
from vcmcodec.profiles.coding import DecodingCoder, EncodingCoder, Hand
from vcmcodec.vision.backend import Features

MOST = VALUE_BOUND // VALUE_UNIT  # the first symbol that is too large beside a mean of 0
ROWS, WHERE, INDEX = torch.arange(1), slice(0, 1), torch.full((1, 1), 40.0)


def tables() -> Tables:
    return load_model("scene").tables


def decoded(symbol: int, mean: float) -> float:
    """The value that one symbol and its mean give."""
    run = RansEncoder(tables())
    run.push(np.array([symbol]), np.array([40]))
    coder = DecodingCoder({0: run.finish()}, 1, tables(), Hand(np.zeros(1, np.int64), 1))
    value = coder.values(WHERE, ROWS, torch.tensor([[mean]]), INDEX)
    coder.finish()
    return float(value)


@pytest.mark.parametrize(
    ("symbol", "mean"),
    [(MOST - 1, 15), (1 - MOST, -15), (MOST - 128, 2047), (-(2 * MOST) + 2, VALUE_BOUND - 1)],
)
def test_values_up_to_the_bound_are_exact(symbol: int, mean: int) -> None:
    assert decoded(symbol, mean) == VALUE_UNIT * symbol + mean


@pytest.mark.parametrize(
    ("symbol", "mean"),
    [
        (MOST, 0), (-MOST, 0), (MOST - 1, 16), (MOST + 100, -1500), (2**31 - 1, 0),
        (-(2**31), 2047), (0, VALUE_BOUND), (-1, VALUE_BOUND), (1, -VALUE_BOUND),
    ],
)  # fmt: skip
def test_values_beyond_the_bound_are_refused(symbol: int, mean: int) -> None:
    with pytest.raises(FormatError, match="a value is not below 8388608 sixteenths of a step"):
        decoded(symbol, mean)


class Careless(EncodingCoder):
    """Writes one symbol that is too large wherever a table takes one."""

    def values(
        self, where: slice, rows: torch.Tensor, mean: torch.Tensor, index: torch.Tensor
    ) -> torch.Tensor:
        symbols = torch.zeros_like(mean)
        symbols[:1, :1] = MOST * (index[:1, :1] >= self.tables.skip)
        self._push(rows, symbols.to(torch.int32).numpy(), index.to(torch.int32).numpy())
        return symbols * VALUE_UNIT + mean


def test_a_file_with_such_a_value_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    """Every digest and checksum of it holds."""
    monkeypatch.setattr(scene, "EncodingCoder", Careless)
    file = encode(photograph("astronaut", 40, 50, 30, 150), quality=60, digest=True)
    assert edit.verify(file).ok
    with pytest.raises(FormatError, match="sixteenths of a step"):
        decode(file)
    assert not edit.verify(file, deep=True, decode_symbols=decode_symbols).ok


@pytest.mark.parametrize("worth", [1e9, 1e30, torch.inf, torch.nan], ids=str)
@pytest.mark.weights
def test_features_that_are_too_large_are_not_written(worth: float) -> None:
    found = vcmcodec.features(photograph("astronaut", 64, 64, 30, 150))
    tensors = {name: torch.full_like(value, worth) for name, value in found.tensors.items()}
    with pytest.raises(RequestError, match="too large"):
        encode(Features(found.split, tensors, found.geometry, found.model), profile="pyramid")


@pytest.mark.parametrize("value", [MOST, -1e5 - MOST, 1e9, torch.inf, torch.nan], ids=str)
def test_a_coder_writes_nothing_of_such_a_value(value: float) -> None:
    def code(value: float) -> EncodingCoder:
        hand = Hand(np.zeros(1, np.int64), 1)
        coder = EncodingCoder(torch.tensor([[float(value)]]), None, tables(), hand)
        coder.values(WHERE, ROWS, torch.zeros(1, 1), INDEX)
        return coder

    assert code(MOST - 1).finish()[0]
    with pytest.raises(RequestError, match="not below 524288 steps"):
        code(value)


@pytest.mark.parametrize("effort", [0, 2])
def test_features_that_are_too_large_are_refused_however_hard_one_looks(effort: int) -> None:
    """The search looked values up by symbols of 64 bits."""
    found = vcmcodec.features(photograph("coffee", 96, 128))
    huge = {name: value * 1e30 for name, value in found.tensors.items()}
    large = Features(found.split, huge, found.geometry, found.model)
    with pytest.raises(RequestError, match="features are too large"):
        encode(large, profile="pyramid", effort=effort)
