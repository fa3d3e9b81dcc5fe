"""A semantic latent is moved, where that is asked for, to where the vision network sees more."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import torch

import semantic_model
import vcmcodec
from photographs import photograph, whole
from vcmcodec import edit
from vcmcodec.evaluation.metrics import Pixels
from vcmcodec.feature_codec import decode_features
from vcmcodec.models import load_model
from vcmcodec.profiles import features, semantic
from vcmcodec.vision.geometry import fill
from vcmcodec.vision.sight import DEPTHS, Sight, channel_weights
from weights_folder import weights_from


@pytest.fixture(name="small")
def _small(tmp_path: Path) -> Iterator[None]:
    semantic_model.install(tmp_path)
    with weights_from(tmp_path):
        yield


def picture() -> Pixels:
    return photograph("coffee", 160, 200, 60, 150)


def away(rgb: Pixels, data: bytes) -> float:
    """How differently the vision network sees a file and its picture."""
    model, found = load_model("semantic"), decode_features(data)
    network = features.bound_network(model.facts.reference, "cpu").model.network
    clean = Sight(network, {}, low_precision=False).clean(fill(rgb, found.geometry))
    counts = channel_weights([clean.features], [name for name in DEPTHS if name != "c2"])
    sight = Sight(network, counts, low_precision=False)
    with torch.no_grad():
        seen = sight.going_on({"c3": model.adaptor(found.tensors["c3"].clone())})
        return float(sight.distance(seen, clean)[0])


@pytest.mark.weights
def test_more_is_seen_for_little_more() -> None:
    rgb = whole("astronaut")
    plain, looked = (
        vcmcodec.encode(rgb, profile="semantic", quality=30, effort=effort) for effort in (0, 4)
    )
    assert len(looked) < 1.2 * len(plain)
    assert away(rgb, looked) < 0.6 * away(rgb, plain)


@pytest.mark.usefixtures("small")
def test_nothing_is_adapted_unasked() -> None:
    unasked, never, twice = (
        vcmcodec.encode(picture(), profile="semantic", quality=30, **asked)
        for asked in ({}, {"effort": 0}, {"effort": 2})
    )
    assert unasked == never != twice


@pytest.mark.usefixtures("small")
def test_features_without_their_picture_are_adapted_to_what_is_seen_in_them(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(semantic, "SIGHT_PRICE", (10.0, 1.0))  # seeing is dear, bits are not
    model = load_model("semantic")
    found = semantic.extract(model, picture(), "c3", "cpu")
    plain, looked = (
        vcmcodec.encode(found, profile="semantic", quality=30, effort=effort) for effort in (0, 6)
    )
    assert plain == vcmcodec.encode(picture(), profile="semantic", quality=30)
    assert looked != plain
    assert decode_features(looked).tensors["c3"].shape == found.tensors["c3"].shape


@pytest.mark.usefixtures("small")
def test_groups_of_an_adapted_feature_decode_alone() -> None:
    mask = np.zeros((160, 200), np.uint8)
    mask[48:128, 64:160] = 9
    data = vcmcodec.encode(picture(), profile="semantic", quality=30, effort=2, groups=mask)
    every = decode_features(data).tensors["c3"]
    some = decode_features(edit.extract(data, groups=[9])).tensors["c3"]
    there = some != 0
    assert there.any()
    assert torch.equal(every[there], some[there])
