"""What symbols cost under rival coders, and the bench of split points."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import bottleneck_model
from photographs import astronaut, photograph
from vcmcodec.errors import RequestError
from vcmcodec.evaluation import bottleneck_bench
from vcmcodec.evaluation.corpora import NamedPicture
from vcmcodec.evaluation.symbol_coding import count, entropy_bits, huffman_bits, huffman_lengths
from weights_folder import weights_from


@pytest.fixture(scope="module", autouse=True)
def weights(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    folder = tmp_path_factory.mktemp("weights")
    bottleneck_model.install(folder)
    with weights_from(folder):
        yield


@settings(max_examples=60, deadline=None)
@given(st.lists(st.integers(1, 1000), min_size=2, max_size=40))
def test_huffman_codes_are_complete_and_within_a_bit_of_entropy(counts: list[int]) -> None:
    lengths = huffman_lengths(counts)
    assert sum(2.0**-length for length in lengths) == 1
    array = np.array(counts)
    bound = entropy_bits(array)
    assert bound - 1e-6 <= huffman_bits(array) < bound + array.sum()


def test_known_codes() -> None:
    assert huffman_lengths([5, 9, 12, 13, 16, 45]) == [4, 4, 3, 3, 3, 1]
    assert huffman_lengths([7]) == [1]
    counts = count([np.array([0, 0, 1], np.int32), np.array([0, 2, 0, 0, 0], np.int32)])
    assert sorted(counts.tolist()) == [1, 1, 6]
    assert entropy_bits(np.array([4, 4])) == 8
    assert entropy_bits(np.array([8])) == 0


def test_tables_a_channel_beat_one_table_and_huffman() -> None:
    """On real files, although the rivals know the very symbols and ours were counted elsewhere."""
    pictures = [
        NamedPicture(name, photograph(name, 190, 256, 90, 150)) for name in ("coffee", "chelsea")
    ]
    result = bottleneck_bench.run(pictures, splits=["c4", "fpn"], qualities=(0.0, 40.0), repeats=1)
    assert {(p.split, p.quality) for p in result.points} == {
        (split, quality) for split in ("c4", "fpn") for quality in (0.0, 40.0)
    }
    for point in result.points:
        assert point.coded_bits < point.shared_bits
        assert point.coded_bits < 0.95 * point.huffman_bits
        assert point.channel_bits <= point.shared_bits <= point.huffman_bits
        assert point.num_bytes > point.coded_bits / 8
        assert point.bpp == pytest.approx(8 * point.num_bytes / (2 * 190 * 256))
    costs = result.costs
    assert costs["fpn"].head_kmacs > costs["c4"].head_kmacs > costs["c4"].unit_kmacs > 0
    assert all(cost.edge_ms > 0 and cost.server_ms > 0 for cost in costs.values())
    rates, coding = bottleneck_bench.tables(result)
    assert len(rates.rows) == len(coding.rows) == 4
    assert all(row[5].startswith("-") and row[6].startswith("-") for row in coding.rows)


def test_what_cannot_be_measured_is_refused() -> None:
    with pytest.raises(RequestError, match="no picture"):
        bottleneck_bench.run([])
    with pytest.raises(RequestError, match="not stem"):
        bottleneck_bench.run([NamedPicture("a", astronaut())], splits=["stem"])
