"""Static tables through the range coder."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from vcmcodec.entropy.cdf import Tables, gaussian_tables
from vcmcodec.entropy.static import decode_static, encode_static
from vcmcodec.errors import FormatError, RequestError

TABLES = gaussian_tables([0.4, 1.5, 6.0], skip=0)


def test_exact_words():
    tables = Tables(
        (np.array([0, 65000, 65535, 65536], np.int32), np.array([0, 9, 99, 999, 65536], np.int32)),
        np.array([0, -2], np.int32),
        skip=0,
    )
    data = encode_static([[0, 1], [-2, 0, 500]], tables)
    assert data.hex() == "fbd364a08422"
    assert [c.tolist() for c in decode_static(data, [2, 3], tables)] == [[0, 1], [-2, 0, 500]]


CHANNEL = st.lists(st.integers(-9, 9) | st.integers(-(2**31), 2**31 - 1), max_size=40)


@settings(max_examples=60, deadline=None)
@given(st.tuples(CHANNEL, CHANNEL, CHANNEL))
def test_any_channels_come_back_within_their_estimated_size(channels):
    data = encode_static(channels, TABLES)
    back = decode_static(data, [len(c) for c in channels], TABLES)
    assert [c.tolist() for c in back] == list(channels)
    assert all(c.dtype == np.int32 for c in back)
    bits = sum(float(TABLES.bits(c, [i] * len(c)).sum()) for i, c in enumerate(channels) if c)
    # No lower bound: what is left of the range goes to the last symbol, so escapes may cost less.
    assert len(data) <= bits / 8 * 1.01 + 2
    assert (data == b"") if not any(channels) else True


def test_damage():
    """Refused, or the one coding of other symbols, which nothing but the CRC can notice."""
    rng = np.random.default_rng(1)
    channels, counts = [rng.integers(-2, 3, 30) for _ in range(3)], [30, 30, 30]
    data = encode_static(channels, TABLES)

    def refused(wrong: bytes) -> bool:
        try:
            back = decode_static(wrong, counts, TABLES)
        except FormatError:
            return True
        assert encode_static(back, TABLES) == wrong
        return False

    assert all(refused(data + tail) for tail in (b"\0", b"\xff", data))
    assert sum(refused(data[:n]) for n in range(len(data))) >= len(data) - 2
    flips = [
        data[: k // 8] + bytes([data[k // 8] ^ 1 << k % 8]) + data[k // 8 + 1 :]
        for k in range(8 * len(data))
    ]
    assert sum(map(refused, flips)) > len(flips) // 2
    with pytest.raises(FormatError):
        decode_static(b"\0", [0, 0, 0], TABLES)


def test_what_cannot_be_coded():
    for channels in ([[1]], [[1], [2], [2**31]], [[1], [2], [0.5]], [[1], [2], [[1]]]):
        with pytest.raises(RequestError):
            encode_static(channels, TABLES)
    with pytest.raises(RequestError, match="skipped"):
        encode_static([[0]], gaussian_tables([1.0], skip=1))
    wide = Tables((np.arange(0, 65537, 32, dtype=np.int32),), np.array([0], np.int32), skip=0)
    with pytest.raises(RequestError, match="at most 1023"):
        encode_static([[0]], wide)
