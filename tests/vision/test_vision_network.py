"""The vision network: shapes, gradients, split points, folding."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from vcmcodec.errors import RequestError
from vcmcodec.vision.network import (
    PRIOR_SHARE,
    SPLITS,
    STRIDES,
    TASKS,
    VisionConfig,
    VisionNetwork,
    VisionOutput,
    crossing,
)
from vcmcodec.vision.split import split_points

SMALL = VisionConfig(stem=8, c2=12, c3=16, c4=24, c5=32, pyramid=(16, 16, 16), head=12, classes=5)


def small_network(seed: int = 0) -> VisionNetwork:
    """A network whose norms have seen something, so that folding is not trivial."""
    torch.manual_seed(seed)
    network = VisionNetwork(SMALL)
    for part in network.modules():
        if isinstance(part, nn.BatchNorm2d):
            nn.init.uniform_(part.weight, 0.5, 1.5)
            nn.init.normal_(part.bias, std=0.2)
            nn.init.normal_(part.running_mean, std=0.2)
            nn.init.uniform_(part.running_var, 0.5, 2.0)
    return network.eval()


def tensors(output: VisionOutput) -> list[torch.Tensor]:
    """All raw maps of a run, in one order."""
    found = [*(output.class_logits or []), *(output.distances or [])]
    return found + [t for t in (output.segmentation, output.presence) if t is not None]


def test_every_map_has_the_shape_that_its_docstring_gives() -> None:
    output = small_network()(torch.rand(2, 3, 96, 160))
    assert output.class_logits is not None
    assert output.distances is not None
    for level, distance, stride in zip(output.class_logits, output.distances, STRIDES, strict=True):
        assert level.shape == (2, 5, 96 // stride, 160 // stride)
        assert distance.shape == (2, 4, 96 // stride, 160 // stride)
        assert distance.min() >= 0
    assert output.segmentation is not None
    assert output.segmentation.shape == (2, 6, 12, 20)
    assert output.presence is not None
    assert output.presence.shape == (2, 5)


def test_gradient_reaches_every_parameter() -> None:
    network = small_network().train()
    output = network(torch.rand(2, 3, 96, 96))
    sum((t.float() ** 2).mean() for t in tensors(output)).backward()  # type: ignore[union-attr]
    silent = [
        name
        for name, parameter in network.named_parameters()
        if parameter.grad is None or not parameter.grad.abs().any()
    ]
    assert silent == []


@pytest.mark.parametrize("split", SPLITS)
def test_a_split_network_says_what_the_whole_one_says(split: str) -> None:
    network = small_network()
    rgb = torch.rand(1, 3, 64, 96)
    with torch.no_grad():
        whole = tensors(network(rgb))
        features = network.front_end(rgb, split)
        parts = tensors(network.back_end(features, split))
    assert tuple(features) == SPLITS[split]
    for one, other in zip(whole, parts, strict=True):
        torch.testing.assert_close(one, other)


@pytest.mark.parametrize("task", TASKS)
@pytest.mark.parametrize("split", SPLITS)
def test_a_task_runs_on_the_tensors_that_it_needs_and_fails_without_one(
    split: str, task: str
) -> None:
    network = small_network()
    rgb = torch.rand(1, 3, 64, 64)
    with torch.no_grad():
        whole = tensors(network(rgb, [task]))
        features = network.front_end(rgb, split)
        needed = {name: features[name] for name in crossing(split, [task])}
        parts = tensors(network.back_end(needed, split, [task]))
        for one, other in zip(whole, parts, strict=True):
            torch.testing.assert_close(one, other)
        for name in needed:
            fewer = {key: value for key, value in needed.items() if key != name}
            with pytest.raises(RequestError, match=name):
                network.back_end(fewer, split, [task])


def test_areas_are_told_which_classes_are_there() -> None:
    network = VisionNetwork(SMALL).eval()
    rgb = torch.rand(1, 3, 64, 96)
    assert isinstance(network.classification.out, nn.Conv2d)
    assert network.classification.out.bias is not None
    with torch.no_grad():
        before = network(rgb, ["segmentation"]).segmentation
        presence = network(rgb, ["classification"]).presence
        network.classification.out.bias[3] -= 30
        after = network(rgb, ["segmentation"]).segmentation
    assert before is not None
    assert after is not None
    assert presence is not None
    logits = torch.stack([presence[0, 3], presence[0, 3] - 30])
    gone = PRIOR_SHARE * nn.functional.logsigmoid(logits).diff().neg()
    torch.testing.assert_close(before[0, 4] - after[0, 4], gone.expand(8, 12), rtol=0, atol=1e-4)
    others = [0, 1, 2, 3, 5]
    torch.testing.assert_close(before[0, others], after[0, others])


def test_classification_needs_the_deepest_level_alone() -> None:
    assert crossing("fpn", ["classification"]) == ("p5",)
    assert crossing("fpn", ["segmentation"]) == ("p3", "p4", "p5")
    assert crossing("c4", ["classification"]) == ("c3", "c4")


def test_split_points_tell_the_shapes_that_cross() -> None:
    network = small_network()
    rgb = torch.rand(1, 3, 96, 64)
    for name, point in split_points(SMALL).items():
        with torch.no_grad():
            features = network.front_end(rgb, name)
        assert point.shapes(96, 64) == {k: tuple(v.shape[1:]) for k, v in features.items()}


def test_folding_changes_no_result() -> None:
    network = small_network()
    rgb = torch.rand(1, 3, 64, 64)
    with torch.no_grad():
        before = tensors(network(rgb))
        network.fold()
        after = tensors(network(rgb))
    assert not any(isinstance(part, nn.BatchNorm2d) for part in network.modules())
    for one, other in zip(before, after, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-4, atol=1e-5)


def test_the_shipped_shape_keeps_its_budget() -> None:
    network = VisionNetwork()
    assert sum(p.numel() for p in network.parameters()) < 6e6
    with torch.no_grad():
        network.eval()
        from torch.utils.flop_counter import FlopCounterMode

        with FlopCounterMode(display=False) as counter:
            network(torch.rand(1, 3, 384, 512))
    assert counter.get_total_flops() / 2 < 3.2e9


def test_wrong_requests_are_named() -> None:
    network = small_network()
    with pytest.raises(RequestError, match="c9"):
        network.front_end(torch.rand(1, 3, 64, 64), "c9")
    with pytest.raises(RequestError, match="multiples of 32"):
        network.front_end(torch.rand(1, 3, 60, 64), "c3")
    with pytest.raises(RequestError, match="poses"):
        network.back_end({"c3": torch.rand(1, 16, 8, 8)}, "c3", ["poses"])
