"""Integer tables: what they promise, and how they are built, priced and stored."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from vcmcodec.entropy.cdf import (
    ESCAPE_CDF,
    TOTAL,
    Tables,
    gaussian_tables,
    join_escapes,
    mantissa_pieces,
    quantize_frequencies,
    split_escapes,
    tables_from_counts,
)
from vcmcodec.errors import WeightsError

INT32 = st.integers(-(2**31), 2**31 - 1)


def table(*cdf: int) -> np.ndarray:
    return np.array(cdf, np.int32)


def offsets(*values: int) -> np.ndarray:
    return np.array(values, np.int32)


SMALL = Tables((table(0, 65000, 65535, 65536), table(0, 32768, 49152, 65536)), offsets(0, -1))


@pytest.mark.parametrize(
    ("cdfs", "first", "skip", "reason"),
    [
        ((), (), 0, "0 of them"),
        ((table(0, 5, 65536),), (0,), 2, "skip"),
        ((table(0, 5, 65536),), (0, 0), 0, "one int32 per table"),
        ((table(0, 65536),), (0,), 0, "at least three"),
        ((table(1, 5, 65536),), (0,), 0, "runs from 1"),
        ((table(0, 5, 65535),), (0,), 0, "runs from 0 to 65535"),
        ((table(0, 5, 5, 65536),), (0,), 0, "no probability"),
        ((table(0, 9, 5, 65536),), (0,), 0, "no probability"),
        ((table(0, 5, 65536),), (2**24 + 1,), 0, "beyond"),
        ((table(0, 5, 65536).astype(np.int64),), (0,), 0, "int32"),
        ((table(0, 5, 65536).reshape(1, 3),), (0,), 0, "flat"),
    ],
)
def test_illegal_tables_are_refused(cdfs, first, skip, reason):
    with pytest.raises(WeightsError, match=reason):
        Tables(cdfs, offsets(*first), skip)


def test_tables_cannot_be_changed_afterwards():
    with pytest.raises(ValueError, match="read-only"):
        SMALL.cdfs[0][1] = 7


def test_pack_and_unpack_agree():
    again = Tables.unpack(SMALL.pack())
    assert again.skip == SMALL.skip == 1
    assert again.offsets.tolist() == SMALL.offsets.tolist()
    assert [cdf.tolist() for cdf in again.cdfs] == [cdf.tolist() for cdf in SMALL.cdfs]
    assert all(part.dtype == np.int32 and part.ndim == 1 for part in SMALL.pack().values())


@pytest.mark.parametrize("name", ["cdf", "sizes", "offsets", "skip"])
def test_unpack_refuses_missing_and_odd_arrays(name):
    packed = SMALL.pack()
    for damaged in (None, packed[name].astype(np.float32), packed[name][:-1]):
        parts = {k: v for k, v in packed.items() if k != name}
        if damaged is not None:
            parts[name] = damaged
        with pytest.raises(WeightsError):
            Tables.unpack(parts)


@given(st.lists(st.floats(0, 1e6), min_size=2, max_size=60).filter(lambda p: sum(p) > 1e-3))
def test_frequencies_are_positive_and_fill_the_table(probabilities):
    frequencies = quantize_frequencies(probabilities)
    assert frequencies.min() >= 1
    assert int(frequencies.sum()) == TOTAL


def test_frequencies_cost_little():
    p = np.random.default_rng(0).dirichlet(np.full(40, 0.3))
    q = quantize_frequencies(p) / TOTAL
    assert float((p * np.log2(np.maximum(p, 1e-12) / q)).sum()) < 1e-3  # bits a symbol


@pytest.mark.parametrize("bad", [[1.0], [0.0, 0.0], [1.0, -1.0], [1.0, math.nan], [1.0] * 65537])
def test_frequencies_refuse_what_is_no_distribution(bad):
    with pytest.raises(WeightsError):
        quantize_frequencies(bad)


def test_gaussian_tables_follow_the_normal_distribution():
    tables = gaussian_tables([0.11, 0.5, 3.0, 40.0], tail=1e-4)
    for i, scale in ((1, 0.5), (2, 3.0), (3, 40.0)):
        drawn = np.rint(np.random.default_rng(i).normal(0, scale, 40000))
        ideal = math.log2(scale * math.sqrt(2 * math.pi * math.e))  # entropy, fine for scale >= 1
        cost = float(tables.bits(drawn.astype(int), np.full(drawn.size, i)).mean())
        if scale >= 1:
            assert cost == pytest.approx(ideal, rel=0.01)
        cdf = np.diff(tables.cdfs[i])
        assert cdf[:-1].tolist() == pytest.approx(cdf[:-1][::-1].tolist(), abs=1)
    assert tables.highs.tolist() == [-low for low in tables.lows.tolist()]
    with pytest.raises(WeightsError):
        gaussian_tables([0.0])
    with pytest.raises(WeightsError):
        gaussian_tables([1.0], tail=0.7)


def test_counts_make_tables_that_can_code_what_was_never_seen():
    histogram = np.zeros(41)
    histogram[18:23] = [10, 400, 5000, 380, 12]
    tables = tables_from_counts([histogram, np.zeros(5)], [-20, 3], prior_weight=4)
    values = np.arange(-20, 21)
    cost = tables.bits(values, np.zeros(41, int))
    assert np.isfinite(cost).all()
    assert cost.argmin() == 20
    assert cost[19] < 5 < cost[22] < cost[25] < 40
    seen = float((cost * histogram).sum() / histogram.sum())
    p = histogram[histogram > 0] / histogram.sum()
    assert seen < float(-(p * np.log2(p)).sum()) * 1.02
    assert np.isfinite(tables.bits([3, 7, 99], [1, 1, 1])).all()
    for bad in ([[1, -1]], [[]], [[[1, 2]]]):
        with pytest.raises(WeightsError):
            tables_from_counts(bad, [0])


@given(st.lists(st.tuples(INT32, st.integers(-50, 0), st.integers(0, 50)), min_size=1))
def test_escapes_split_and_join(cases):
    cases = [(v, low, high) for v, low, high in cases if not low <= v <= high]
    values, lows, highs = np.array(cases, np.int64).reshape(-1, 3).T
    escapes = split_escapes(values, lows, highs)
    assert join_escapes(escapes, lows, highs).tolist() == values.tolist()
    assert all(0 <= c < 64 for c in escapes.classes.tolist())
    owner, widths, below = mantissa_pieces(escapes.widths)
    assert np.bincount(owner, widths, len(cases)).tolist() == escapes.widths.tolist()
    assert ((widths >= 1) & (widths <= 8) & (below % 8 == 0)).all()


def test_the_escape_table_is_the_norms():
    counts = [16384, 8192, 4096, 2048, 1024, 512, 256, 128, 64, 32, 11] + [1] * 21
    assert np.diff(ESCAPE_CDF).tolist() == [count for count in counts for _ in range(2)]
    assert ESCAPE_CDF[-1] == TOTAL


def test_bits_are_the_logarithms_of_the_integer_tables():
    assert SMALL.bits([-1, 0], [1, 1]).tolist() == [1.0, 2.0]
    # 1 is the first value above the table: escape (2 bits), class 0 above (2 bits), no mantissa
    assert SMALL.bits([1, -4], [1, 1]).tolist() == [4.0, 2.0 + 3.0 + 1.0]
    assert SMALL.bits([0, 3], [0, 0]).tolist() == [0.0, math.inf]
    assert SMALL.bits(np.zeros((2, 3), int), np.ones((2, 3), int)).shape == (2, 3)


@settings(max_examples=20)
@given(st.integers(0, 40))
def test_cost_table_agrees_with_bits(half_width):
    costs = SMALL.cost_table(half_width)
    assert costs.shape == (2, 2 * half_width + 1)
    assert costs.dtype == np.float32
    for i in range(2):
        for k in range(-half_width, half_width + 1):
            assert costs[i, k + half_width] == np.float32(SMALL.bits([k], [i])[0])
