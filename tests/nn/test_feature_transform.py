"""The feature transform: shapes, absent cells, levels, and its weight file."""

from __future__ import annotations

from dataclasses import replace

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
from vcmcodec.training.tasks import own_stages, stem_input, transform_shape
from vcmcodec.vision.config import VisionConfig
from vcmcodec.vision.network import VisionNetwork

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


@pytest.mark.parametrize("blocks", [(1, 1, 1, 1), (3, 2, 1, 1)])
def test_it_begins_as_a_copy_of_the_networks_own_stages(blocks: tuple[int, ...]) -> None:
    config = VisionConfig(blocks=blocks)  # type: ignore[arg-type]
    network = VisionNetwork(config).fold()
    shape = transform_shape(config, CODEC, levels=8)
    transform = FeatureTransform(shape)
    transform.start_from(own_stages(network))
    entered: list[torch.Tensor] = []
    transform.descend.register_forward_pre_hook(lambda _, given: entered.append(given[0]))
    latent, features = torch.randn(1, 2, 2, 64), level_features(Level(0, 8), 8)
    with torch.no_grad():
        early, split = transform.stages(latent, features, torch.ones(1, 2, 2, 1))
        torch.testing.assert_close(early, network.c2(entered[0]))
        torch.testing.assert_close(split, network.c3(early))
    narrow = FeatureTransform(replace(shape, early=16))
    with pytest.raises(ValueError, match=r"\w is \("):
        narrow.start_from(own_stages(network))


def test_what_enters_the_stem_starts_as_that_of_the_preview() -> None:
    """Where the base holds the whole picture, the guess is what the network's stem would see."""
    torch.manual_seed(2)
    network = VisionNetwork(VisionConfig(stem=6)).fold()
    synthesis = Synthesis(CODEC)
    for block in (*synthesis.latent_blocks, *synthesis.trunk_blocks):
        torch.nn.init.normal_(block.reduce.weight, std=0.05)
    transform = FeatureTransform(replace(transform_shape(network.config, CODEC, 8), quarters=24))
    latent, features = torch.randn(6, 12, 12, 64), level_features(Level(0, 8), 8)
    entered: list[torch.Tensor] = []
    transform.descend.register_forward_pre_hook(lambda _, given: entered.append(given[0]))
    with torch.no_grad():
        preview = synthesis(latent, None)
        wanted = stem_input(network, preview)
        transform.start_from_synthesis(synthesis)
        transform.start_guess(latent, wanted)
        transform(latent, features, torch.ones(6, 12, 12, 1))
    inside = (..., slice(16, -16), slice(16, -16))  # the picture's edge is no linear image
    guess, truth = entered[0][inside], torch.nn.functional.silu(wanted)[inside]
    assert ((guess - truth) ** 2).mean() < 0.02 * truth.var()


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
        unpack({k: v for k, v in tensors.items() if "rise" not in k}, metadata)
    with pytest.raises(WeightsError, match="tasks model"):
        unpack(tensors, {KEY: metadata[KEY].replace('"halves": 8', '"halves": 16')})
