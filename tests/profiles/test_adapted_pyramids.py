"""A pyramid's latent is moved, where that is asked for, to where the network sees more."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import torch

import pyramid_model
import vcmcodec
from photographs import photograph, whole
from vcmcodec import edit, machine
from vcmcodec.errors import RequestError
from vcmcodec.evaluation.metrics import Pixels
from vcmcodec.feature_codec import decode_features
from vcmcodec.vision import feature_files
from vcmcodec.vision.backend import Features
from vcmcodec.vision.network import VisionOutput
from vcmcodec.vision.sight import Seen, Sight
from weights_folder import weights_from

NAMES = ("p3", "p4", "p5")


@pytest.fixture(name="small")
def _small(tmp_path: Path) -> Iterator[None]:
    pyramid_model.install(tmp_path)
    with weights_from(tmp_path):
        yield


def picture() -> Pixels:
    return photograph("coffee", 160, 200, 60, 150)


def away(found: Features, data: bytes) -> float:
    """How differently the rest of the network sees a file and the features that are in it."""
    spread = {name: found.tensors[name].var() for name in NAMES}
    counts, network = {n: 1 / v for n, v in spread.items()}, pyramid_model.backend().model.network
    sight = Sight(network, counts, low_precision=False)

    def see(features: Features) -> Seen[VisionOutput]:
        return sight.going_on({name: value.clone() for name, value in features.tensors.items()})

    with torch.no_grad():
        return float(sight.distance(see(decode_features(data)), see(found))[0])


@pytest.mark.weights
def test_more_is_seen_for_little_more() -> None:
    found = vcmcodec.features(whole("astronaut"))
    plain, looked = (
        vcmcodec.encode(found, profile="pyramid", quality=20, effort=effort) for effort in (0, 6)
    )
    assert len(looked) < 1.2 * len(plain)
    assert away(found, looked) < 0.85 * away(found, plain)


@pytest.mark.usefixtures("small")
def test_nothing_is_adapted_unasked() -> None:
    unasked, never, twice = (
        vcmcodec.encode(picture(), profile="pyramid", quality=30, **asked)
        for asked in ({}, {"effort": 0}, {"effort": 2})
    )
    assert unasked == never != twice


@pytest.mark.usefixtures("small")
def test_pictures_and_their_features_are_adapted_alike(tmp_path: Path) -> None:
    path = tmp_path / "f.safetensors"
    path.write_bytes(feature_files.pack(vcmcodec.features(picture())))
    asked = {"profile": "pyramid", "quality": 30, "effort": 2}
    assert vcmcodec.encode(path, **asked) == vcmcodec.encode(picture(), **asked)


@pytest.mark.usefixtures("small")
def test_groups_of_an_adapted_pyramid_decode_alone() -> None:
    mask = np.zeros((160, 200), np.uint8)
    mask[48:128, 64:160] = 9
    data = vcmcodec.encode(picture(), profile="pyramid", quality=30, effort=2, groups=mask)
    part = edit.extract(data, groups=[9])
    every, some = decode_features(data).tensors, decode_features(part).tensors
    for name in NAMES:
        there = some[name] != 0
        assert there.any()
        assert torch.equal(every[name][there], some[name][there])
    assert machine.analyze(part, score=0.05).label_map is not None


@pytest.mark.usefixtures("small")
def test_a_wanted_size_is_kept_by_an_adapted_pyramid() -> None:
    data = vcmcodec.encode(picture(), profile="pyramid", effort=2, target_size=2500)
    assert 1500 < len(data) <= 2500


@pytest.mark.usefixtures("small")
@pytest.mark.parametrize(
    ("profile", "effort", "text"),
    [("pyramid", -1, "below 0"), ("bottleneck", 2, "takes no effort")],
)
def test_an_effort_that_features_cannot_make_is_refused(
    profile: str, effort: int, text: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("VCMCODEC_WEIGHTS")
    with pytest.raises(RequestError, match=text):
        vcmcodec.encode(picture(), profile=profile, effort=effort)
