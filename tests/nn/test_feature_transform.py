"""The feature transform: shapes, absent cells, levels, and its weight file."""

from __future__ import annotations

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load, save

from task_models import small_transform
from vcmcodec.errors import WeightsError
from vcmcodec.nn.feature_transform import FeatureTransform, FeatureTransformConfig, level_features
from vcmcodec.nn.gain import Level
from vcmcodec.nn.task_tensors import KEY, pack, read_facts, unpack
from vcmcodec.nn.transforms import Synthesis, TransformShape
from vcmcodec.training.tasks import transform_shape
from vcmcodec.vision.config import VisionConfig

CODEC = TransformShape(trunk=(12, 24), latent=(64, 96), trunk_blocks=1, latent_blocks=2)
FACTS = {"scene": "0123456789abcdef", "vision": "fedcba9876543210"}
QUALITY = {"detection": 30.0, "classification": 12.5}


def test_a_cell_becomes_two_by_two_positions() -> None:
    transform = FeatureTransform(FeatureTransformConfig(base_channels=8, channels=24, levels=4))
    latent = torch.randn(2, 3, 5, 8)
    features = level_features(Level(5000, 4), 4)
    assert transform(latent, features, torch.ones(2, 3, 5, 1)).shape == (2, 24, 6, 10)


def test_level_features_say_where_between_the_trained_levels() -> None:
    for rate_level, wanted in (
        (0, [1, 0, 0, 0, 0]),
        (5000, [0, 0, 1, 0, 0]),
        (6000, [0, 0, 0.6, 0.4, 0]),
        (10000, [0, 0, 0, 0, 1]),
    ):
        features = level_features(Level(rate_level, 5), 5)
        torch.testing.assert_close(features, torch.tensor(wanted, dtype=torch.float32))


def test_what_absent_cells_hold_does_not_matter_but_that_they_are_absent_does() -> None:
    transform = small_transform()
    latent, present = torch.randn(1, 4, 6, 64), torch.ones(1, 4, 6, 1)
    present[:, :, 3:] = 0
    features = level_features(Level(4000, 8), 8)
    other = torch.where(present > 0, latent, torch.randn(1, 4, 6, 64) * 50)
    with torch.no_grad():
        one = transform(latent, features, present)
        assert torch.equal(one, transform(other, features, present))
        zeros = transform(latent * present, features, torch.ones_like(present))
    assert not torch.allclose(one, zeros)


def test_the_level_has_a_say() -> None:
    transform = small_transform()
    latent, present = torch.randn(1, 4, 6, 64), torch.ones(1, 4, 6, 1)
    with torch.no_grad():
        low, high = (
            transform(latent, level_features(Level(rate, 8), 8), present) for rate in (0, 9000)
        )
    assert not torch.allclose(low, high)


def test_it_begins_with_the_layers_of_the_synthesis() -> None:
    """What is known at stride 8 is what the narrowest synthesis has there."""
    torch.manual_seed(2)
    synthesis = Synthesis(CODEC)
    for block in (*synthesis.latent_blocks, *synthesis.trunk_blocks):
        torch.nn.init.normal_(block.reduce.weight, std=0.05)
    transform = FeatureTransform(transform_shape(VisionConfig(), CODEC, levels=8))
    transform.start_from_synthesis(synthesis)
    entered: list[torch.Tensor] = []
    known: list[torch.Tensor] = []
    transform.enter.register_forward_pre_hook(lambda _, given: entered.append(given[0]))
    synthesis.patch.register_forward_pre_hook(lambda _, given: known.append(given[0]))
    latent, features = torch.randn(1, 3, 4, 64), level_features(Level(0, 8), 8)
    with torch.no_grad():
        transform(latent, features, torch.ones(1, 3, 4, 1))
        synthesis(latent, None)
    torch.testing.assert_close(entered[0][:, :-1].permute(0, 2, 3, 1), known[0])


def test_nothing_runs_at_a_finer_stride_than_the_split_tensors() -> None:
    transform, sizes = small_transform(), set[tuple[int, int]]()
    for part in transform.modules():
        if isinstance(part, torch.nn.Conv2d):
            part.register_forward_hook(lambda _, given, out: sizes.add(tuple(out.shape[2:])))
    with torch.no_grad():
        transform(torch.randn(1, 3, 4, 64), level_features(Level(0, 8), 8), torch.ones(1, 3, 4, 1))
    assert sizes == {(3, 4), (6, 8)}


def packed() -> bytes:
    replaced = {"classification.out.bias": torch.arange(3.0)}
    tensors, metadata = pack(small_transform(), base_quality=QUALITY, replaced=replaced, **FACTS)  # type: ignore[arg-type]
    return save(tensors, metadata)


def test_the_weight_file_gives_the_same_transform_back(tmp_path) -> None:  # type: ignore[no-untyped-def]
    path = tmp_path / "tasks.safetensors"
    path.write_bytes(packed())
    assert packed() == path.read_bytes()
    with safe_open(path, "pt") as file:
        metadata = file.metadata()
    transform, replaced, sight, facts = unpack(load(packed()), metadata)
    assert sight == {}
    assert (facts.scene, facts.vision, facts.split) == (FACTS["scene"], FACTS["vision"], "c3")
    assert facts.base_quality == QUALITY
    assert replaced.keys() == {"classification.out.bias"}
    assert torch.equal(replaced["classification.out.bias"], torch.arange(3.0))
    latent, present = torch.randn(1, 4, 6, 64), torch.ones(1, 4, 6, 1)
    features = level_features(Level(4000, 8), 8)
    with torch.no_grad():
        wanted = small_transform()(latent, features, present)
        got = transform(latent, features, present)
    assert (got - wanted).norm() < 0.005 * wanted.norm()  # kernels are stored in float16


def test_wrong_weights_are_refused() -> None:
    tensors, metadata = pack(small_transform(), base_quality=QUALITY, **FACTS)  # type: ignore[arg-type]
    for wrong, text in (
        ({}, "no tasks model"),
        ({KEY: '{"format": "other"}'}, "other"),
        ({KEY: metadata[KEY].replace('"scene"', '"picture"')}, "scene"),
        ({KEY: metadata[KEY].replace("30.0", "300")}, "outside 0 to 100"),
        ({KEY: "{"}, "tasks model"),
    ):
        with pytest.raises(WeightsError, match=text):
            read_facts(wrong)
    with pytest.raises(WeightsError, match="tasks model"):
        unpack({k: v for k, v in tensors.items() if "enter" not in k}, metadata)
    with pytest.raises(WeightsError, match="tasks model"):
        unpack(tensors, {KEY: metadata[KEY].replace('"halves": 8', '"halves": 16')})
