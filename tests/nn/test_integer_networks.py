"""Integer networks: the proof of exactness, freezing and holding, companding, float64 agreement."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from vcmcodec.errors import WeightsError
from vcmcodec.nn.integer import (
    COMPAND_GAIN,
    COMPAND_SIZE,
    EXACT_LIMIT,
    VALUE_UNIT,
    IntegerLinear,
    compand,
    compand_smooth,
    companding_table,
    floor_through,
    round_through,
)
from vcmcodec.nn.latent_model import LatentModel, LatentShape
from vcmcodec.nn.picture_codec import cell_grid
from vcmcodec.nn.slice_model import SliceModel, gather

quick = settings(max_examples=30, deadline=None, derandomize=True)


def random_layer(inputs: int = 40, outputs: int = 12, **options: object) -> IntegerLinear:
    torch.manual_seed(3)
    layer = IntegerLinear(inputs, outputs, **options)  # type: ignore[arg-type]
    with torch.no_grad():
        layer.weight.mul_(4)  # some beyond the clamp
        layer.bias.copy_(torch.randn(outputs) * 30)
    return layer


def activations(rows: int, columns: int) -> torch.Tensor:
    return torch.randint(-127, 128, (rows, columns)).float()


def by_python(layer: IntegerLinear, x: torch.Tensor) -> torch.Tensor:
    """The layer in Python's own integers."""
    weight, bias = (t.detach().long().tolist() for t in layer.integers())
    out = []
    for row in x.long().tolist():
        sums = [
            sum(w * v for w, v in zip(ws, row, strict=True)) + b
            for ws, b in zip(weight, bias, strict=True)
        ]
        out.append([min(max(s >> layer.shift, layer.low), layer.limit) for s in sums])
    return torch.tensor(out).float()


@pytest.mark.parametrize("relu", [True, False])
@pytest.mark.parametrize("shift", [6, 7])
def test_a_layer_is_integer_arithmetic(relu: bool, shift: int) -> None:
    layer = random_layer(relu=relu, shift=shift, limit=127 if relu else 2047)
    x = activations(50, 40)
    wanted = by_python(layer, x)
    assert torch.equal(layer(x).detach(), wanted)
    assert len(torch.unique(wanted)) > 30
    layer.freeze()
    assert torch.equal(layer(x).detach(), wanted)
    weight, bias = layer.integers()
    assert torch.equal(weight, layer.weight)
    layer.freeze()
    assert torch.equal(layer.integers()[1], bias)
    layer.hold()
    assert torch.equal(layer(x), wanted)


def test_weights_stay_within_eight_bits() -> None:
    weight, _ = random_layer().integers()
    assert weight.abs().max() == 127
    assert torch.equal(weight, weight.round())


def test_the_proof_refuses_a_sum_that_is_too_large() -> None:
    """Weights of 127 and inputs of 127: 1040 of them fit below 2**24, 1041 do not."""

    def full(inputs: int, bias: float = 0) -> IntegerLinear:
        layer = IntegerLinear(inputs, 2)
        with torch.no_grad():
            layer.weight[0] = 127
            layer.weight[1] = 0
            layer.bias[0] = bias
        return layer

    most = (EXACT_LIMIT - 64 - 1) // 127**2  # 64: half of the divisor is in the bias
    full(most).prove_exact("layer")
    with pytest.raises(WeightsError, match=r"^layer: a sum of up to"):
        full(most + 1).prove_exact("layer")
    room = (EXACT_LIMIT - 64 - 1 - most * 127**2) // 128
    full(most, room).prove_exact("layer")
    with pytest.raises(WeightsError, match="not exact"):
        full(most, room + 1).prove_exact("layer")
    full(most // 2, -room).prove_exact("layer")
    with pytest.raises(WeightsError, match="not exact"):
        full(10, -(2.0**18)).prove_exact("layer")
    for broken in (math.nan, math.inf):
        with pytest.raises(WeightsError):
            full(1, broken).prove_exact("layer")


def test_the_bound_is_the_one_at_which_float32_fails() -> None:
    """Just above the bound a sum does depend on its order, so the bound is not idle."""
    values = torch.tensor([float(EXACT_LIMIT), 1.0, 1.0])
    assert float((values[0] + values[1]) + values[2]) != float(values[0] + (values[1] + values[2]))
    below = torch.tensor([float(EXACT_LIMIT - 2), 1.0, 1.0])
    assert float((below[0] + below[1]) + below[2]) == float(below[0] + (below[1] + below[2]))


@quick
@given(st.integers(1, 300), st.integers(0, 1000))
def test_any_order_gives_the_same_integers(inputs: int, number: int) -> None:
    layer = IntegerLinear(inputs, 7)
    x = activations(9, inputs)
    order = torch.randperm(inputs, generator=torch.Generator().manual_seed(number))
    shuffled = IntegerLinear(inputs, 7)
    with torch.no_grad():
        shuffled.weight.copy_(layer.weight[:, order])
        shuffled.bias.copy_(layer.bias)
    assert torch.equal(layer(x), shuffled(x[:, order]))
    assert torch.equal(layer(x), torch.cat([layer(row[None]) for row in x]))


SHAPE = LatentShape(slices=(4, 8, 12), phases=(6, 2, 2), layers=(0, 1, 2), hyper=3, levels=3)


@pytest.mark.parametrize("name", ["hyper_features", "slices.1.last", "refine.0.own"])
def test_every_layer_of_the_model_is_proven(name: str) -> None:
    torch.manual_seed(1)
    model = LatentModel(SHAPE)
    model.prove_exact()
    with torch.no_grad():
        model.get_submodule(name).bias[1] = 2.0**18
    with pytest.raises(WeightsError, match=name):
        model.prove_exact()


def test_what_goes_into_a_layer_stays_within_the_bound_of_the_proof() -> None:
    """The proof counts on inputs of at most 127; every layer of a traversal must get no more."""
    from vcmcodec.nn.gain import Level

    torch.manual_seed(1)
    model = LatentModel(SHAPE)
    model.requires_grad_(False)
    seen: list[float] = []

    def look(_: torch.nn.Module, inputs: tuple[torch.Tensor, ...]) -> None:
        assert torch.equal(inputs[0], inputs[0].floor())
        seen.append(float(inputs[0].abs().max()) if inputs[0].numel() else 0.0)

    with torch.no_grad():
        for table in (model.level_features, model.refine_features, model.refine_base_features):
            table.normal_(0, 300)
        for module in model.modules():
            if isinstance(module, IntegerLinear):
                module.register_forward_pre_hook(look)
                module.weight.normal_(0, 90)
        model.freeze()

    class Wild:
        """Answers with values far out, as a hostile file would."""

        exact = True

        def hyper(self, channels: int) -> torch.Tensor:
            return torch.randint(-(2**31), 2**31, (12, channels)).float()

        def values(
            self, where: slice, rows: torch.Tensor, mean: torch.Tensor, index: torch.Tensor
        ) -> torch.Tensor:
            assert 0 <= index.min() <= index.max() <= 63
            return torch.randint(-(2**31), 2**31, mean.shape).float() * 16 + mean

    coder = Wild()
    labels = torch.zeros(3, 4).long().numpy()
    grid = cell_grid(labels, SHAPE.phases)
    hyper = model.hyper_context(coder.hyper(3), grid)
    low, high = Level(0, 3), Level(9000, 3)
    base = model.code_slices(coder, grid, low, hyper, 0, torch.zeros(12, 0))
    values = model.code_refinement(coder, grid, high, low, hyper, base, torch.zeros(3, 4))
    for layer in (1, 2):
        values = model.code_slices(coder, grid, high, hyper, layer, values)
    assert values.shape == (12, SHAPE.channels)
    assert len(seen) > 40
    assert max(seen) == 127


@quick
@given(st.integers(-(2**20), 2**20))
def test_companding_is_the_curve(value: int) -> None:
    table = companding_table()
    found = compand(torch.tensor([float(value)]), table).item()
    bounded = min(abs(value), COMPAND_SIZE - 1) / VALUE_UNIT
    wanted = min(127, math.floor(COMPAND_GAIN * math.asinh(2 * bounded) + 0.5))
    assert found == math.copysign(wanted, value) * (value != 0)


def test_training_compands_to_the_same_integers() -> None:
    every = torch.arange(-70000.0, 70001.0)
    assert torch.equal(compand_smooth(every), compand(every, companding_table()))


def test_rounding_passes_gradients_through() -> None:
    x = torch.tensor([-1.5, -0.5, 0.49, 0.5, 7.2], requires_grad=True)
    assert round_through(x).tolist() == [-1, 0, 0, 1, 7]
    assert floor_through(x).tolist() == [-2, -1, 0, 0, 7]
    (round_through(x) * 2 + floor_through(x)).sum().backward()
    assert x.grad is not None
    assert x.grad.tolist() == [3] * 5


def test_gathering_gives_zeros_for_absent_neighbours() -> None:
    values = torch.arange(1.0, 7.0).reshape(3, 2)
    rows = torch.tensor([[0, 3, 2], [3, 3, 3]])
    assert gather(values, rows).tolist() == [[1, 2, 0, 0, 5, 6], [0] * 6]
    assert gather(values, rows[:0]).shape == (0, 6)


def test_a_later_phase_leans_on_the_earlier_one() -> None:
    torch.manual_seed(2)
    model = SliceModel(4, 0)
    with torch.no_grad():
        model.last.weight.normal_(0, 20)
    labels = torch.zeros(4, 4).long().numpy()
    grid = cell_grid(labels, (2,))
    first, second = grid.phases[2]
    hyper = torch.randint(0, 100, (16, SliceModel.HYPER)).float()
    own = torch.randint(-50, 50, (16, 4)).float()
    doubled = torch.cat([own, own.abs()], 1)
    doubled[second] = 0
    context = model.context(hyper, None, grid)
    nothing = model.look_at_nothing(16)
    seen = nothing.index_copy(0, first, model.look(doubled[first]))
    assert torch.equal(seen[:-1], model.look(doubled))
    assert not seen[-1].any()
    mean, index = model.predict(context, seen, second, grid)
    changed = doubled.clone()
    changed[first[0]] += 9
    other, _ = model.predict(
        context, nothing.index_copy(0, first, model.look(changed[first])), second, grid
    )
    assert not torch.equal(mean, other)
    assert mean.shape == index.shape == (8, 4)


@pytest.mark.parametrize("held", [False, True], ids=["training", "held"])
def test_only_training_records_what_networks_compute(held: bool) -> None:
    """Adapting a latent paid for a graph through held layers, which no gradient comes through."""
    torch.manual_seed(3)
    model = LatentModel(LatentShape((4, 6), (2, 2), (0, 0), hyper=2, levels=2))
    second = model.slices[1]
    assert isinstance(second, SliceModel)
    with torch.no_grad():
        second.last.weight.normal_(0, 30)
    if held:
        model.requires_grad_(False).hold()
    grid = cell_grid(np.zeros((3, 4), np.int64), (2,))
    before = torch.randint(0, 100, (12, 8)).float().requires_grad_(True)
    own = torch.randint(0, 100, (12, 12)).float().requires_grad_(True)
    context = second.context(torch.zeros(12, SliceModel.HYPER), before, grid)
    first, rows = grid.phases[2]
    seen = second.look_at_nothing(12).index_copy(0, first, second.look(own[first]))
    mean, index = second.predict(context, seen, rows, grid)
    assert mean.any()
    assert [t.requires_grad for t in (context, seen, mean, index)] == [not held] * 4
    assert torch.is_grad_enabled()  # for what goes on from there
    if not held:
        mean.sum().backward()
        assert before.grad is not None
        assert before.grad.any()
        assert own.grad is not None
        assert own.grad.any()
