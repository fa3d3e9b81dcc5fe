"""Group maps: exact words, any map, cost on real ones, damage."""

from __future__ import annotations

import random

import plain_coders
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from vcmcodec.entropy.group_map import LARGEST_COUNT, decode_group_map, encode_group_map
from vcmcodec.errors import FormatError, RequestError

# Three blobs on a 12 x 8 map, no two rows alike at random: an ordinary small map.
PICTURE = """
000000000000
000111000000
001111100000
001111100022
000111000222
000010002222
330000002222
333000000222
"""
LABELS = [int(c) for c in PICTURE if c.isdigit()]


@pytest.mark.parametrize(
    ("labels", "columns", "count", "words"),
    [
        ([0], 1, 1, ""),
        ([0, 0, 1, 1, 0, 2, 1, 1, 2, 2, 2, 1], 4, 3, "4dd8d0"),
        (LABELS, 12, 4, "1a23cb0833df8c2b6d"),
        ([5] * 64, 8, 257, "fef2"),
    ],
)
def test_exact_words(labels, columns, count, words):
    assert encode_group_map(labels, columns, count).hex() == words
    rows = len(labels) // columns
    assert decode_group_map(bytes.fromhex(words), rows, columns, count) == labels


@st.composite
def maps(draw):
    columns, rows = draw(st.integers(1, 20)), draw(st.integers(1, 20))
    count = draw(st.integers(1, 6) | st.sampled_from([256, LARGEST_COUNT]))
    labels = [draw(st.integers(0, count - 1))] * (rows * columns)
    if draw(st.booleans()):
        labels = draw(
            st.lists(st.integers(0, count - 1), min_size=rows * columns, max_size=rows * columns)
        )
    for _ in range(draw(st.integers(0, 5))):  # boxes, on a grid of 1, 2, 4 or 8 cells
        unit, label = draw(st.sampled_from([1, 2, 4, 8])), draw(st.integers(0, count - 1))
        left, top = (
            draw(st.integers(0, columns)) // unit * unit,
            draw(st.integers(0, rows)) // unit * unit,
        )
        right, bottom = left + unit * draw(st.integers(1, 5)), top + unit * draw(st.integers(1, 5))
        for i in range(rows * columns):
            if left <= i % columns < right and top <= i // columns < bottom:
                labels[i] = label
    return labels, rows, columns, count


@settings(max_examples=150, deadline=None)
@given(maps())
def test_any_map_comes_back_and_the_plain_coder_agrees(case):
    labels, rows, columns, count = case
    data = encode_group_map(labels, columns, count)
    assert decode_group_map(data, rows, columns, count) == labels
    assert data == plain_coders.group_map(labels, columns, count)


def test_counts_are_halved_as_the_norm_says():
    labels = [(x // 23 + y // 31) % 3 for y in range(70) for x in range(70)]
    assert encode_group_map(labels, 70, 3) == plain_coders.group_map(labels, 70, 3)


@settings(max_examples=200, deadline=None)
@given(st.binary(max_size=40), st.integers(1, 12), st.integers(1, 12), st.integers(1, 5))
def test_any_bytes_are_refused_or_the_coding_of_what_they_give(data, rows, columns, count):
    try:
        labels = decode_group_map(data, rows, columns, count)
    except FormatError:
        return
    assert encode_group_map(labels, columns, count) == data


def test_truncation_and_flipped_bits():
    """Refused, or (the code is dense) the one coding of another map; the CRC sees the rest."""
    data = encode_group_map(LABELS, 12, 4)

    def refused(wrong: bytes) -> bool:
        try:
            labels = decode_group_map(wrong, 8, 12, 4)
        except FormatError:
            return True
        assert labels != LABELS
        assert encode_group_map(labels, 12, 4) == wrong
        return False

    assert all(refused(data + tail) for tail in (b"\0", b"\xff", data))
    assert sum(refused(data[:n]) for n in range(len(data))) >= len(data) - 2
    flips = [
        data[: k // 8] + bytes([data[k // 8] ^ 1 << k % 8]) + data[k // 8 + 1 :]
        for k in range(8 * len(data))
    ]
    assert sum(map(refused, flips)) > len(flips) // 2


@pytest.mark.parametrize(
    ("labels", "columns", "count"),
    [
        ([], 1, 2),
        ([0, 1], 0, 2),
        ([0, 1, 0], 2, 2),
        ([0, 2], 2, 2),
        ([0, -1], 2, 2),
        ([0], 1, 0),
        ([0], 1, LARGEST_COUNT + 1),
    ],
)
def test_no_map(labels, columns, count):
    with pytest.raises(RequestError):
        encode_group_map(labels, columns, count)


@pytest.mark.parametrize(
    ("rows", "columns", "count"), [(0, 1, 2), (1, 0, 2), (1, 1, 0), (1, 1, 258)]
)
def test_no_map_to_read(rows, columns, count):
    with pytest.raises(RequestError):
        decode_group_map(b"abc", rows, columns, count)


def test_bytes_where_there_is_one_group():
    with pytest.raises(FormatError, match="one group"):
        decode_group_map(b"\0", 2, 2, 1)


def test_blobs_cost_little():
    """A map like those of real photographs: 48 x 32 cells, a dozen boxes."""
    rng, total = random.Random(4), 0
    for _ in range(8):
        labels = [0] * (48 * 32)
        for label in range(1, 9):
            left, top = rng.randrange(44), rng.randrange(28)
            width, height = rng.randint(4, 12), rng.randint(4, 12)
            for y in range(top, min(32, top + height)):
                for x in range(left, min(48, left + width)):
                    labels[48 * y + x] = label
        total += len(encode_group_map(labels, 48, 9))
    assert total / 8 < 60


def test_a_map_of_half_a_million_cells_is_quick():
    import time

    columns, rows = 626, 626  # the cells of 100 megapixels
    labels = [(x // 97 + y // 71) % 5 for y in range(rows) for x in range(columns)]
    start = time.process_time()
    data = encode_group_map(labels, columns, 5)
    assert decode_group_map(data, rows, columns, 5) == labels
    assert time.process_time() - start < 20  # about 2 s on an idle core
    assert len(data) < 800
