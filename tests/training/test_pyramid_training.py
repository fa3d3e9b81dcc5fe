"""Training of pyramids: the start, the loop, and the weights that come of it."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

import pyramid_model
from photographs import NAMES, astronaut, photograph
from vcmcodec import models
from vcmcodec.errors import RequestError
from vcmcodec.feature_codec import EncodeOptions, encode_picture
from vcmcodec.nn.pyramid_codec import LevelGeometry, PyramidCodec
from vcmcodec.profiles import pyramid
from vcmcodec.profiles.base_layer import encode_base
from vcmcodec.training import export, pyramid_run
from vcmcodec.training.coder import HyperPrior, Learned
from vcmcodec.training.photographs import PhotographCrops
from vcmcodec.training.pyramid import Draw, PyramidRecipe, code, loss, start_at_pca

RECIPE = PyramidRecipe(crop=64, batch=2, steps=24, warm_up=4, grouped=0)


@pytest.fixture(autouse=True)
def small(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pyramid, "LATENT", pyramid_model.LATENT)
    monkeypatch.setattr(pyramid_run, "PCA_CROPS", 24)


@pytest.fixture(scope="module")
def pictures(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("pictures")
    for name in NAMES[:3]:
        Image.fromarray(photograph(name, 220, 260, 40, 90)).save(folder / f"{name}.png")
    return folder


def levels_of(name: str) -> dict[str, torch.Tensor]:
    return dict(pyramid_model.backend().head(photograph(name, 224, 288), "fpn").tensors)


def fresh() -> PyramidCodec:
    torch.manual_seed(3)
    model = pyramid_model.backend().model
    return pyramid.build(model.network.config, model.fingerprint)


def test_the_start_is_a_transform_codec() -> None:
    """Principal components: no better linear codec of that many channels for its samples."""
    codec, samples = fresh(), [levels_of(name) for name in NAMES]
    start_at_pca(codec, samples)
    one = samples[0]
    geometry = LevelGeometry(np.zeros((14, 18), np.int64))
    with torch.inference_mode():
        latent = codec.analysis(one, geometry)
        rebuilt = codec.synthesis.normal(latent, geometry)
    errors = {}
    for name in codec.shape.names:
        wanted = codec.synthesis.scale.normal(name, one[name])
        errors[name] = float((rebuilt[name] - wanted).square().mean() / wanted.square().mean())
    assert all(value < 0.75 for value in errors.values()), errors
    assert errors["p4"] < 0.5
    sizes = latent.square().mean((0, 1, 2))
    assert float(sizes[0]) > 4 * float(sizes[-1])


def score(learned: Learned[PyramidCodec], pictures: Path) -> float:
    """The loss at three levels on crops of the size that is trained on, without noise."""
    crops = PhotographCrops([pictures], RECIPE.crop).batch(8, np.random.default_rng(5))
    levels = pyramid_run.levels_of(pyramid_model.backend().model.network, crops)
    side, total = RECIPE.crop // 16, 0.0
    for level in (1000, 5000, 9000):
        plan = Draw(level, np.zeros((side, side), np.int64))
        with torch.inference_mode():
            outcome = code(learned.codec, learned.prior, levels, plan, noisy=False)
            total += float(loss(learned.codec, outcome, plan, crops.numel() // 3))
    return total


def test_a_run_learns_and_resumes_to_the_step(pictures: Path, tmp_path: Path) -> None:
    def run(name: str, until: int | None) -> Learned[PyramidCodec]:
        folder = tmp_path / name
        lines: list[dict[str, float]] = []
        return pyramid_run.train([pictures], folder, RECIPE, lines.append, until=until)

    whole = run("whole", None)
    run("parts", 9)
    parts = run("parts", None)
    for name, value in whole.state_dict().items():
        assert torch.equal(value, parts.state_dict()[name]), name
    start = run("start", 0)
    assert score(whole, pictures) < 0.985 * score(start, pictures)
    log = (tmp_path / "whole" / "state.json").read_text()
    assert '"step": 24' in log


def test_an_exported_pyramid_codes_what_training_estimates(
    pictures: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    codec = fresh()
    start_at_pca(codec, [levels_of(name) for name in NAMES])
    blob, mark = pyramid_run.export_model(codec, [pictures], crops=12, crop=128, show=len)
    export.enter(tmp_path, "tiny", "pyramid", blob, mark, licence="none")
    monkeypatch.setenv("VCMCODEC_WEIGHTS", str(tmp_path))
    models._load.cache_clear()
    picture = astronaut(160, 224)
    made = encode_picture(picture, EncodeOptions(profile="pyramid"))
    assert made.header.fingerprint.hex() == mark
    found = dict(pyramid_model.backend().head(picture, "fpn").tensors)
    model = models.load_model("pyramid")
    labels = np.zeros(tuple(found["p4"].shape[2:]), np.int64)
    latent = pyramid.latent_of(model, found, labels)
    for level in (3000, 8000):
        (run,) = encode_base(model, latent, labels, 1, level)
        with torch.inference_mode():
            plan, prior = Draw(level, labels), HyperPrior(codec.latent.hyper)
            bits = float(code(codec, prior, found, plan, noisy=False).bits)
        # counted tables fit an untrained latent better than the mixture that training assumes
        assert 0.7 * bits / 8 < len(run.data) < 1.05 * bits / 8
        worth = pyramid.price(model.codec, level)
        (weighed,) = encode_base(model, latent, labels, 1, level, price=worth)
        assert len(weighed.data) < len(run.data)  # rounding towards zero where bits are dear
    models._load.cache_clear()


def test_ablations_have_the_levels_that_are_asked_for() -> None:
    backend = pyramid_model.backend()
    codec = pyramid_run.build(backend, PyramidRecipe(levels=("p5", "p3")))
    assert codec.shape.names == codec.shape.coded == ("p3", "p5")
    assert codec.shape.mixing == ()
    joined = pyramid_run.build(backend, PyramidRecipe(interleaved=False))
    assert not joined.shape.interleaved
    assert sum(p.numel() for p in joined.parameters()) == sum(
        p.numel() for p in pyramid_run.build(backend, PyramidRecipe()).parameters()
    )
    with pytest.raises(RequestError, match="no level p9"):
        pyramid_run.build(backend, PyramidRecipe(levels=("p9",)))


def test_the_encoder_is_far_smaller_than_the_decoder() -> None:
    codec = pyramid.build(pyramid_model.backend().model.network.config, "0" * 16)
    encoder = sum(p.numel() for p in codec.analysis.parameters())
    decoder = sum(p.numel() for p in codec.synthesis.parameters())
    assert 3 * encoder < decoder
