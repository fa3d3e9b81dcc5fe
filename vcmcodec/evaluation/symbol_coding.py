"""What symbols cost under other coders than the file's: bounds, shared tables, Huffman codes.

The rivals are given the counts of the very symbols that they code, and no table to transmit: no
static coder of their kind can do better.
"""

from __future__ import annotations

import heapq
import itertools
from collections.abc import Iterable, Sequence

import numpy as np
import numpy.typing as npt

Counts = npt.NDArray[np.int64]


def count(values: Iterable[npt.NDArray[np.int32]]) -> Counts:
    """How often each distinct value occurs, in no order that matters."""
    flat = np.concatenate([np.asarray(one).reshape(-1) for one in values])
    _, counts = np.unique(flat, return_counts=True)
    return counts.astype(np.int64)


def entropy_bits(counts: Counts) -> float:
    """Bits of all symbols under the best table there can be: their order-0 entropy."""
    share = counts[counts > 0] / counts.sum()
    return float(-(counts[counts > 0] * np.log2(share)).sum())


def huffman_lengths(counts: Sequence[int]) -> list[int]:
    """Bits of each symbol in a Huffman code; a single symbol takes one bit."""
    if len(counts) < 2:
        return [1] * len(counts)
    lengths = [0] * len(counts)
    order = itertools.count()
    heap = [(int(n), next(order), [i]) for i, n in enumerate(counts)]
    heapq.heapify(heap)
    while len(heap) > 1:
        low, _, left = heapq.heappop(heap)
        high, _, right = heapq.heappop(heap)
        for symbol in left + right:
            lengths[symbol] += 1
        heapq.heappush(heap, (low + high, next(order), left + right))
    return lengths


def huffman_bits(counts: Counts) -> float:
    """Bits of all symbols under the best prefix code there can be."""
    return float(np.dot(counts, huffman_lengths(counts.tolist())))
