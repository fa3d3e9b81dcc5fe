"""Rate levels and gain ratios against Python's exact integers and fractions."""

from __future__ import annotations

from fractions import Fraction
from math import floor

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from vcmcodec.nn.gain import LOG_UNIT, RATE_LEVEL_MAX, Gains, Level
from vcmcodec.nn.ratios import RATIO_BITS, ratio_table, scale_exactly

exactly = settings(max_examples=150, deadline=None, derandomize=True)


@exactly
@given(
    st.integers(0, RATE_LEVEL_MAX),
    st.integers(2, 9),
    st.data(),
)
def test_levels_interpolate_exactly(rate_level: int, levels: int, data: st.DataObject) -> None:
    rows = data.draw(
        st.lists(
            st.lists(st.integers(-(2**23), 2**23), min_size=3, max_size=3),
            min_size=levels, max_size=levels,
        )
    )  # fmt: skip
    table = torch.tensor(rows, dtype=torch.float32)
    position = Fraction(rate_level * (levels - 1), RATE_LEVEL_MAX)
    low = min(floor(position), levels - 2)
    part = position - low
    wanted = [
        floor(a * (1 - part) + b * part + Fraction(1, 2))
        for a, b in zip(rows[low], rows[low + 1], strict=True)
    ]
    level = Level(rate_level, levels)
    assert level.integers(table).tolist() == wanted
    assert level.floats(table.double()).tolist() == pytest.approx(
        [float(a * (1 - part) + b * part) for a, b in zip(rows[low], rows[low + 1], strict=True)]
    )


@pytest.mark.parametrize("number", range(8))
def test_a_trained_level_is_its_own_row(number: int) -> None:
    table = torch.arange(24).float().reshape(8, 3) ** 2
    near = round(number * RATE_LEVEL_MAX / 7)
    assert torch.equal(Level(near, 8).integers(table), table[number])


def test_training_sees_the_same_integers() -> None:
    table = torch.randint(-4000, 4000, (8, 64)).float().requires_grad_()
    for rate_level in range(0, RATE_LEVEL_MAX + 1, 37):
        level = Level(rate_level, 8)
        # the smooth form works in float32: it may fall on the other side of an exact half
        exact, smooth = level.integers(table.detach()), level.smooth(table)
        share = level.floats(table.detach().double())
        halves = (share - share.floor() - 0.5).abs() < 1e-2
        assert torch.equal(exact[~halves], smooth.detach()[~halves])
    smooth.sum().backward()
    assert table.grad is not None
    assert float(table.grad.sum()) == pytest.approx(64)


def test_ratios_are_the_roots_of_two() -> None:
    table = ratio_table(torch.device("cpu")).tolist()
    assert table[0] == 1 << RATIO_BITS
    for k, ratio in enumerate(table):
        scaled = 1 << (RATIO_BITS * LOG_UNIT + k)  # (2**12 * 2**(k / 256)) ** 256
        assert ratio**LOG_UNIT <= scaled < (ratio + 1) ** LOG_UNIT


@exactly
@given(
    st.one_of(
        st.integers(-(2**24), 2**24),
        st.sampled_from([0, 1, -1, 2**24 - 1, -(2**24), 2047, -2047]),
    ),
    st.integers(-12 * LOG_UNIT, 14 * LOG_UNIT),
)
def test_scaling_is_integer_arithmetic(value: int, octaves: int) -> None:
    whole, rest = divmod(octaves, LOG_UNIT)
    ratio = ratio_table(torch.device("cpu")).tolist()[rest]
    ratio = ratio << whole if whole >= 0 else ratio >> -whole
    wanted = (value * ratio + (1 << (RATIO_BITS - 1))) >> RATIO_BITS
    found = scale_exactly(torch.tensor([[float(value)]]), torch.tensor([float(octaves)]))
    # beyond 2**24 float32 holds the nearest even one, alike everywhere
    assert found.item() == torch.tensor(wanted, dtype=torch.int64).float().item()
    true = Fraction(value) * Fraction(2) ** whole * Fraction(2 ** (rest / LOG_UNIT))
    # the fixed-point ratio has 12 digits, fewer where it was shifted down
    assert abs(wanted - true) <= 1 + abs(true) * Fraction(1, min(max(ratio, 1), 1 << RATIO_BITS))


def test_scaling_has_the_gradient_of_the_product() -> None:
    values = torch.tensor([[16.0, -48.0]], requires_grad=True)
    octaves = torch.tensor([256.0, -256.0])
    scaled = scale_exactly(values, octaves)
    assert scaled.tolist() == [[32.0, -24.0]]
    scaled.sum().backward()
    assert values.grad is not None
    assert values.grad.tolist() == [[2.0, 0.5]]


def test_gains_and_their_inverses() -> None:
    gains = Gains(3, 4)
    with torch.no_grad():
        gains.log_gain.copy_(torch.tensor([[0.4], [255.7], [512.2]]).expand(3, 4))
        gains.log_inverse.copy_(-gains.log_gain)
    middle = Level(RATE_LEVEL_MAX // 2, 3)
    product = gains.gain(middle, slice(1, 3)) * gains.inverse(middle, slice(1, 3))
    assert torch.allclose(product, torch.ones(2))
    gains.freeze()
    assert torch.equal(gains.log_gain, gains.log_gain.round())
    assert gains.gain(middle, slice(0, 4)).tolist() == [2.0] * 4
    quarter = Level(RATE_LEVEL_MAX // 4, 3)  # halfway between 0 and 256: 2**0.5
    assert quarter.integers(gains.log_gain).tolist() == [128.0] * 4
