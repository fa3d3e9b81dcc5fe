"""The guess from decoded neighbours, against plain loops over integers."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from vcmcodec.nn.geometry import neighbour_rows, phase_rows
from vcmcodec.nn.neighbour_guess import FAR_FIRST, FAR_PHASES, NeighbourGuess

quick = settings(max_examples=60, deadline=None, derandomize=True)
CHANNELS = 3


def random_guess(seed: int) -> NeighbourGuess:
    """Integers anywhere in their range, some weights zero."""
    torch.manual_seed(seed)
    guess = NeighbourGuess(CHANNELS).requires_grad_(False)
    guess.weight.copy_(torch.randint(-60, 128, guess.weight.shape).clamp(min=0))
    guess.share.copy_(torch.randint(0, 129, guess.share.shape))
    guess.own.copy_(torch.randint(0, 129, guess.own.shape))
    guess.index.copy_(torch.randint(-9, 10, guess.index.shape))
    return guess


def by_hand(
    guess: NeighbourGuess, phase: int, mean: int, around: list[int | None], channel: int
) -> tuple[int, int]:
    """Mean and offset of one value, as the norm says it; None is a cell that is not there."""
    weights = [int(w) for w in guess.weight[phase - 1, :, channel]]
    total = sum(w for w, v in zip(weights, around, strict=True) if v is not None)
    if total == 0:
        return mean, 0
    clamped = [None if v is None else max(-32767, min(32767, v)) for v in around]
    pairs = zip(weights, clamped, strict=True)
    average = math.floor((2 * sum(w * v for w, v in pairs if v is not None) + total) / (2 * total))
    share, own = (int(table[phase - 1, channel]) for table in (guess.share, guess.own))
    index = int(guess.index[phase - 1, channel])
    return (2 * (own * mean + share * average) + 128) // 256, index


@quick
@given(
    st.integers(0, 2**16),
    st.integers(1, FAR_PHASES - 1),
    st.sampled_from([(1, 1), (2, 7), (6, 5), (9, 9)]),
    st.sampled_from([1, 40, 5000, 2**20]),
)
def test_the_guess_is_the_one_of_the_norm(
    seed: int, phase: int, shape: tuple[int, int], size: int
) -> None:
    random = np.random.default_rng(seed)
    labels = random.integers(0, 2, shape)
    labels[: shape[0] // 2] = 0
    guess = random_guess(seed)
    rows = phase_rows(*shape, FAR_PHASES)
    values = torch.from_numpy(random.integers(-size, size + 1, (labels.size, CHANNELS))).float()
    decoded = torch.zeros(labels.size, dtype=torch.bool)
    for earlier in rows[:phase]:
        decoded[earlier] = True
    reach = 2 if phase < FAR_FIRST else 1
    near = neighbour_rows(labels, reach=reach)[rows[phase]]
    mean = torch.from_numpy(random.integers(-2047, 2048, (len(near), CHANNELS))).float()
    found, index = guess(phase, mean, values, near, decoded, exact=True)
    for at, row in enumerate(rows[phase].tolist()):
        y, x = divmod(row, shape[1])
        for channel in range(CHANNELS):
            around: list[int | None] = []
            for dy in (-reach, 0, reach):
                for dx in (-reach, 0, reach):
                    inside = 0 <= y + dy < shape[0] and 0 <= x + dx < shape[1]
                    other = (y + dy) * shape[1] + x + dx
                    same = inside and labels[y + dy, x + dx] == labels[y, x]
                    there = same and bool(decoded[other])
                    around.append(int(values[other, channel]) if there else None)
            wanted = by_hand(guess, phase, int(mean[at, channel]), around, channel)
            assert (int(found[at, channel]), int(index[at, channel])) == wanted


@pytest.mark.parametrize("phase", range(1, FAR_PHASES))
def test_training_guesses_the_same(phase: int) -> None:
    """Float32 sums may be off in their last digit, so by one unit where that decides a rounding."""
    guess = random_guess(phase)
    labels = np.zeros((12, 12), np.int64)
    rows = phase_rows(12, 12, FAR_PHASES)
    values = torch.randint(-3000, 3000, (144, CHANNELS)).float()
    decoded = torch.zeros(144, dtype=torch.bool)
    for earlier in rows[:phase]:
        decoded[earlier] = True
    near = neighbour_rows(labels, reach=2 if phase < FAR_FIRST else 1)[rows[phase]]
    mean = torch.randint(-500, 500, (len(near), CHANNELS)).float()
    exact, index = guess(phase, mean, values, near, decoded, exact=True)
    smooth, same = guess(phase, mean, values, near, decoded, exact=False)
    assert torch.equal(index, same)
    assert (exact - smooth).abs().max() <= 1
    assert not torch.equal(exact, mean)


def test_freezing_rounds_and_changes_nothing() -> None:
    guess = random_guess(4)
    before = {name: table.clone() for name, table in guess.named_parameters()}
    for table in guess.parameters():
        table.add_(torch.rand(table.shape) * 0.4)
    guess.freeze()
    assert all(torch.equal(table, before[name]) for name, table in guess.named_parameters())
