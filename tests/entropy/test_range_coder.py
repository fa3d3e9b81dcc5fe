"""The range coder: exact words, agreement with the norm, and how the library crashes or lies."""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile

import plain_coders
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from vcmcodec.entropy import range_coder
from vcmcodec.entropy.range_coder import LARGEST_TOTAL, RangeDecoder, RangeEncoder
from vcmcodec.errors import RequestError


def test_exact_words():
    encoder = RangeEncoder()
    encoder.bit(True, 3, 1)
    encoder.bit(False, 1, 9)
    encoder.uniform(200, 257)
    encoder.symbols([0, 2, 1, 1], [0, 5, 7, 8])
    data = encoder.finish()
    assert data.hex() == "3e987e"
    decoder = RangeDecoder(data)
    assert decoder.bit(False, 3, 1) is True
    assert decoder.bit(False, 1, 9) is False
    assert decoder.uniform(0, 257) == 200
    assert decoder.symbols([0] * 4, [0, 5, 7, 8]) == [0, 2, 1, 1]


@st.composite
def calls(draw):
    total = st.integers(1, 3) | st.integers(4, LARGEST_TOTAL)
    found = []
    for _ in range(draw(st.integers(0, 12))):
        largest = draw(total)
        inner = draw(st.sets(st.integers(1, max(1, largest - 1)), max_size=min(20, largest - 1)))
        table = [0, *sorted(inner - {largest}), largest]
        symbols = draw(st.lists(st.integers(0, len(table) - 2), max_size=15))
        found.append((symbols, table))
    return found


@settings(max_examples=200, deadline=None)
@given(calls())
def test_any_symbols_come_back_in_the_words_of_the_norm(runs):
    encoder, plain = RangeEncoder(), plain_coders.RangeWriter()
    for symbols, table in runs:
        encoder.symbols(symbols, table)
        for s in symbols:
            plain.encode(table[s], table[s + 1], table[-1])
    data = encoder.finish()
    assert data == plain.finish()
    decoder = RangeDecoder(data)
    for symbols, table in runs:
        assert decoder.symbols([0] * len(symbols), table) == symbols


@pytest.mark.parametrize("symbol", [-1, 3, 2**70])
def test_negative_and_large_symbols(symbol):
    """The module reads out of bounds at a negative one."""
    with pytest.raises(RequestError, match="within 0 to 2"):
        RangeEncoder().symbols([0, symbol], [0, 1, 2, 3])


@pytest.mark.parametrize(
    "table",
    [
        [],
        [0],
        [0, 0],  # the module divides by zero
        [1, 2],
        [0, 5, 5, 9],
        [0, 9, 5],
        [0, LARGEST_TOTAL + 1],
        [0, 1 << 28],  # the module hangs
        list(range(1026)),  # the module's decoder has room for 1024
    ],
)
def test_tables_that_are_not_legal(table):
    for coder in (RangeEncoder(), RangeDecoder(b"abc")):
        with pytest.raises(RequestError, match="range coder table"):
            coder.symbols([0], table)


@pytest.mark.parametrize(("zeros", "ones"), [(0, 1), (1, 0), (-1, 5), (LARGEST_TOTAL, 1)])
def test_counts_that_are_not_legal(zeros, ones):
    for coder in (RangeEncoder(), RangeDecoder(b"abc")):
        with pytest.raises(RequestError, match="counts"):
            coder.bit(True, zeros, ones)


def test_largest_table_and_total():
    encoder = RangeEncoder()
    encoder.symbols([0, 1023, 511], range(1025))
    encoder.symbols([0, 1], [0, 1, LARGEST_TOTAL])
    decoder = RangeDecoder(encoder.finish())
    assert decoder.symbols([0] * 3, range(1025)) == [0, 1023, 511]
    assert decoder.symbols([0] * 2, [0, 1, LARGEST_TOTAL]) == [0, 1]


def test_empty_and_short_data_read_as_ones():
    """Reading on behind the end is defined: 0xFF for ever (who reads compares afterwards)."""
    assert RangeDecoder(b"").symbols([0] * 50, [0, 1, 2]) == [1] * 50
    assert RangeEncoder().finish() == b"\0"


@settings(max_examples=50, deadline=None)
@given(st.binary(max_size=20), st.integers(1, 300))
def test_any_bytes_give_symbols_of_the_table(data, count):
    assert all(0 <= s < 3 for s in RangeDecoder(data).symbols([0] * count, [0, 1, 5, 9]))


def test_a_finished_encoder_codes_no_more():
    encoder = RangeEncoder()
    encoder.bit(True, 1, 1)
    encoder.finish()
    with pytest.raises(RequestError, match="finished"):
        encoder.bit(True, 1, 1)
    with pytest.raises(RequestError, match="finished"):
        encoder.finish()


def test_without_files_in_memory(monkeypatch, tmp_path):
    """Systems other than Linux: a private folder, gone afterwards."""
    monkeypatch.delattr(os, "memfd_create", raising=False)
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    encoder = RangeEncoder()
    assert len(list(tmp_path.iterdir())) == 1
    encoder.bit(True, 3, 1)
    data = encoder.finish()
    decoder = RangeDecoder(data)
    assert decoder.bit(False, 3, 1) is True
    del encoder, decoder
    assert not list(tmp_path.iterdir())


def test_no_descriptor_is_left_open():
    before = len(os.listdir("/proc/self/fd")) if os.path.isdir("/proc/self/fd") else 0
    for _ in range(20):
        encoder = RangeEncoder()
        encoder.bit(True, 1, 1)
        RangeDecoder(encoder.finish()).bit(True, 1, 1)
        RangeEncoder()  # never finished
    after = len(os.listdir("/proc/self/fd")) if before else 0
    assert after == before


def test_numpy_is_not_imported():
    script = (
        "import sys; from vcmcodec.entropy.group_map import *;"
        "assert decode_group_map(encode_group_map([0, 1], 1, 2), 2, 1, 2) == [0, 1];"
        "print([n for n in ('numpy', 'torch', 'compressai', 'range_coder') if n in sys.modules])"
    )
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    command = [sys.executable, "-c", script]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
    assert range_coder.__doc__
