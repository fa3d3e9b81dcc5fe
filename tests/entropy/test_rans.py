"""rANS runs: exact words, round trips, cost."""

from __future__ import annotations

import numpy as np
import plain_coders
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from vcmcodec.entropy import rans
from vcmcodec.entropy.cdf import TOTAL, Tables, gaussian_tables
from vcmcodec.entropy.rans import RansDecoder, RansEncoder

SMALL = Tables(
    (
        np.array([0, 65000, 65535, 65536], np.int32),
        np.array([0, 1000, 21000, 44000, 64000, 65536], np.int32),
    ),
    np.array([0, -2], np.int32),
    skip=1,
)


def encode(tables, parts):
    encoder = RansEncoder(tables)
    for values, index in parts:
        encoder.push(np.array(values, np.int64), np.array(index, np.int64))
    return encoder.finish()


def decode(tables, data, indexes):
    decoder = RansDecoder(tables, data)
    parts = [decoder.pull(np.array(index, np.int64)) for index in indexes]
    decoder.finish()
    return parts


@pytest.mark.parametrize(
    ("parts", "words"),
    [
        ([], ""),
        ([([], []), ([0, 0], [0, 0])], ""),
        ([([0], [1])], "c89eb86c01"),
        ([([1, 0], [1, 1])], "e8c21eab04"),
        ([([0, -1, 0, 1], [1, 1, 0, 1])], "f084304c0f"),
        ([([0, 1, -1], [1, 1, 1]), ([0, 0], [0, 1])], "e874ae962b"),
        (
            [([300, -40, 2147483647, -2147483648, 0], [1] * 5)],
            "82fed4382e2001b471b600fdff3f2b3fffffbf00ffffbf",
        ),
    ],
)
def test_exact_words(parts, words):
    assert encode(SMALL, parts).hex() == words
    back = decode(SMALL, bytes.fromhex(words), [index for _, index in parts])
    assert [part.tolist() for part in back] == [values for values, _ in parts]


@st.composite
def any_tables(draw):
    cdfs, offsets = [], []
    for _ in range(draw(st.integers(1, 5))):
        inner = draw(st.sets(st.integers(1, TOTAL - 1), min_size=1, max_size=30))
        cdfs.append(np.array([0, *sorted(inner), TOTAL], np.int32))
        offsets.append(draw(st.integers(-40, 40) | st.sampled_from([-(2**24), 2**24 - 30])))
    skip = draw(st.integers(0, len(cdfs)))
    return Tables(tuple(cdfs), np.array(offsets, np.int32), skip)


@st.composite
def any_run(draw):
    tables = draw(any_tables())
    value = st.integers(-60, 60) | st.integers(-(2**31), 2**31 - 1)
    value |= st.sampled_from([-(2**31), 2**31 - 1, 2**30, -1, 0])
    parts = []
    for _ in range(draw(st.integers(0, 3))):
        index = draw(st.lists(st.integers(0, len(tables) - 1), max_size=30))
        parts.append(([draw(value) if i >= tables.skip else 0 for i in index], index))
    return tables, parts


@settings(max_examples=150, deadline=None)
@given(any_run())
def test_any_run_comes_back_and_the_plain_decoder_agrees(run):
    tables, parts = run
    data, indexes = encode(tables, parts), [index for _, index in parts]
    expected = [values for values, _ in parts]
    back = decode(tables, data, indexes)
    assert [part.tolist() for part in back] == expected
    assert all(part.dtype == np.int32 for part in back)
    assert plain_coders.rans_decode(data, tables, indexes) == expected


@settings(max_examples=60, deadline=None)
@given(any_run())
def test_coded_size_is_the_estimate(run):
    tables, parts = run
    bits = sum(float(tables.bits(*part).sum()) for part in parts)
    assert len(encode(tables, parts)) <= bits / 8 * 1.01 + 8
    if bits:
        assert len(encode(tables, parts)) >= bits / 8 * 0.99


def test_a_large_run_of_many_chunks_comes_back():
    rng = np.random.default_rng(5)
    scales = np.geomspace(0.11, 64, 64)
    tables = gaussian_tables(scales.tolist())
    index = rng.integers(0, 64, 200_000).astype(np.uint8)
    values = np.rint(rng.normal(0, 1, index.size) * scales[index]).astype(np.int32)
    values[index == 0] = 0
    values[rng.integers(0, index.size, 50)] *= 1000
    values[index == 0] = 0
    data = encode(
        tables, [(values[:130_000], index[:130_000]), (values[130_000:], index[130_000:])]
    )
    back = decode(tables, data, [index[:130_000], index[130_000:]])
    assert np.array_equal(np.concatenate(back), values)
    assert len(data) == pytest.approx(tables.bits(values, index).sum() / 8, rel=1e-3)


def test_certain_symbols_cost_next_to_nothing():
    tables = Tables((np.array([0, 65535, 65536], np.int32),), np.array([0], np.int32), skip=0)
    index = np.zeros(400_000, np.uint8)
    data = encode(tables, [(index, index)])
    assert len(data) <= 400_000 / 65536 * 1.4427 / 8 + 8
    assert not decode(tables, data, [index])[0].any()


def test_finish_empties_the_encoder():
    encoder = RansEncoder(SMALL)
    encoder.push([0, 1], [1, 1])
    first = encoder.finish()
    assert encoder.finish() == b""
    encoder.push([0, 1], [1, 1])
    assert encoder.finish() == first


@given(st.lists(st.integers(0, 4), max_size=40))
def test_short_runs_are_coded_as_long_ones_are(symbols):
    """Runs of one and two symbols go another way; the words must be the norm's either way."""
    cdf = SMALL.cdfs[1].tolist()
    values, extra = [s - 2 for s in symbols if s < 4], len([s for s in symbols if s == 4])
    assert extra <= len(symbols)
    pairs = [(cdf[v + 2], cdf[v + 3] - cdf[v + 2]) for v in values]
    assert encode(SMALL, [(values, [1] * len(values))]) == plain_coders.rans_encode(pairs)


def test_the_probe_knows_every_bit_of_the_state():
    """The end of a run is told from every other state that differs in one bit, or is near."""
    near = [(1 << 31) + step for step in (1, 2, 255, 256, 65535, 65536, 1 << 30)]
    states = [1 << 31 ^ 1 << bit for bit in range(63) if bit != 31] + near
    expected = rans._probe_symbols()
    for state in {state | 1 << 31 if state < 1 << 31 else state for state in states} - {1 << 31}:
        decoder = rans._module().RansDecoder()
        decoder.set_stream(state.to_bytes(8, "little") + rans._tail()[:400])
        assert rans._probe(decoder) != expected, hex(state)
