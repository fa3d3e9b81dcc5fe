"""`vcm train scene` on a tiny codec: its runs, what learns, and at which rates."""

from __future__ import annotations

import json
from dataclasses import replace
from functools import partial
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from tiny_scene import EYES, RECIPE, Tiny, write_pictures

from photographs import NAMES, photograph
from vcmcodec.errors import WeightsError
from vcmcodec.models import load_model
from vcmcodec.nn.gain import Level
from vcmcodec.nn.picture_codec import start_at_klt
from vcmcodec.training import bottleneck_run, pyramid_run, scene_run
from vcmcodec.training.bottleneck import BottleneckRecipe
from vcmcodec.training.eyes import Eyes, split_tensor
from vcmcodec.training.loop import TrainingError
from vcmcodec.training.pyramid import PyramidRecipe
from vcmcodec.training.scene import Draw, SceneRecipe, code, draw, loss, task_loss
from vcmcodec.vision.network import VisionNetwork


@pytest.fixture(scope="module")
def pictures(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_pictures(tmp_path_factory.mktemp("pictures"))


@pytest.fixture
def tiny_profile(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(scene_run, "Learned", Tiny)
    monkeypatch.setattr(scene_run, "KLT_CROPS", 20)
    monkeypatch.setattr(scene_run, "REPORT_EVERY", 2)


@pytest.mark.usefixtures("tiny_profile")
@pytest.mark.filterwarnings("ignore::DeprecationWarning")  # tensorboard's own
def test_training_writes_its_log_and_resumes(tmp_path: Path, pictures: Path) -> None:
    shown: list[dict[str, float]] = []
    scene_run.train([pictures], tmp_path, RECIPE, shown.append, until=3, bfloat16=False)
    learned = scene_run.train(
        [pictures], tmp_path, RECIPE, shown.append, until=6, bfloat16=False,
        evaluation=[pictures], evaluated=1,
    )  # fmt: skip
    lines = [json.loads(line) for line in (tmp_path / "log.jsonl").read_text().splitlines()]
    assert lines == shown
    assert [line["step"] for line in lines] == [2, 4, 6, 6]
    assert {"bpp_0", "psnr_0", "bpp_10000", "psnr_10000"} <= set(lines[-1])
    assert lines[-1]["bpp_10000"] > lines[-1]["bpp_0"]
    run = json.loads((tmp_path / "state.json").read_text())
    assert run["step"] == 6
    once = tmp_path / "once"
    whole = scene_run.train([pictures], once, RECIPE, shown.append, until=6, bfloat16=False)
    for (name, a), (_, b) in zip(learned.named_parameters(), whole.named_parameters(), strict=True):
        assert torch.equal(a, b), name


@pytest.mark.usefixtures("tiny_profile")
@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_a_rate_that_collapses_ends_the_run(
    tmp_path: Path, pictures: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(scene_run, "COLLAPSED_BPP", 1e3)
    with pytest.raises(TrainingError, match="the rate has collapsed"):
        scene_run.train([pictures], tmp_path, RECIPE, lambda _: None, until=3, bfloat16=False)


@pytest.mark.usefixtures("tiny_profile")
@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_a_run_with_a_vision_network_resumes_to_the_step(tmp_path: Path, pictures: Path) -> None:
    recipe = replace(RECIPE, tasks=0.7, opening=0)
    torch.manual_seed(2)
    eyes = VisionNetwork(EYES).fold()
    lines: list[dict[str, float]] = []
    settings = {"bfloat16": False, "vision": eyes, "vision_data": [pictures]}
    for until in (3, 6):
        halves = scene_run.train(
            [pictures], tmp_path / "a", recipe, lines.append, until=until, **settings
        )
    whole = scene_run.train([pictures], tmp_path / "b", recipe, lines.append, until=6, **settings)
    for (name, a), (_, b) in zip(halves.named_parameters(), whole.named_parameters(), strict=True):
        assert torch.equal(a, b), name


def test_every_parameter_learns() -> None:
    """Over a few draws a gradient reaches every weight of every network."""
    torch.manual_seed(7)
    tiny = Tiny()
    pieces = [photograph(name, 64, 64, 100, 150) for name in NAMES]
    images = torch.from_numpy(np.stack(pieces)).permute(0, 3, 1, 2).float() / 255
    start_at_klt(tiny.codec, images)
    with torch.no_grad():  # last maps start at zero and would hide what lies before them
        for name, value in tiny.named_parameters():
            if name.endswith(("reduce.weight", "last.weight", "second.weight")):
                value.add_(torch.randn(value.shape) * (10 if "last" in name else 0.05))
    groups = np.zeros((4, 4), np.int64)
    groups[:, 2:] = 1
    plans = [
        Draw(level, base, widths, labels)
        for level, base in ((500, 500), (3000, 900), (6000, 2500), (9500, 9500), (8500, 6500),
                            (5000, 4200))
        for widths, labels in ((1, groups * 0), (2, groups), (3, groups * 0))
    ]  # fmt: skip
    for plan in plans:
        outcome = code(tiny.codec, tiny.prior, images, plan, noisy=True)
        loss(tiny.codec, images, plan, outcome, RECIPE).backward()
    eyes = Eyes(VisionNetwork(EYES).fold(), [images])
    plan = Draw(2000, 2000, 1, groups * 0, tasks=True)
    outcome = code(tiny.codec, tiny.prior, images, plan, noisy=True)
    assert outcome.base is not None
    split = split_tensor(tiny.transform, outcome.base, Level(plan.level, 8))
    seen = eyes.going_on({"c3": split})
    away, _ = eyes.distance(seen, eyes.clean(images))
    task_loss(tiny.codec, images, plan, outcome, away, RECIPE).backward()
    for name, value in tiny.named_parameters():
        assert value.grad is not None, name
        assert torch.isfinite(value.grad).all(), name
        assert value.grad.abs().sum() > 0, name


def test_every_parameter_is_in_one_group() -> None:
    tiny = Tiny()
    groups = scene_run.parameter_groups(tiny, RECIPE)
    grouped = [id(p) for g in groups for p in g["params"]]  # type: ignore[attr-defined]
    assert len(grouped) == len(set(grouped))
    assert set(grouped) == {id(p) for p in tiny.parameters()}


def test_draws_cover_levels_widths_and_groups() -> None:
    random = np.random.default_rng(1)
    recipe = SceneRecipe()
    early = draw(recipe, 0, random)
    assert (early.level, early.base_level, early.widths) == (5000, 5000, 3)
    plans = [draw(recipe, recipe.opening, random) for _ in range(400)]
    assert {p.widths for p in plans} == {1, 2, 3}
    assert all(0 <= p.base_level <= p.level <= 10000 for p in plans)
    assert all(p.base_level == p.level for p in plans if p.widths == 1)
    assert 0.2 < np.mean([p.base_level < p.level for p in plans]) < 0.4
    assert 0.15 < np.mean([p.labels.max() > 0 for p in plans]) < 0.35
    assert min(p.level for p in plans) < 500 < 9500 < max(p.level for p in plans)


def test_losses_weigh_rate_against_distortion() -> None:
    tiny = Tiny()
    images = torch.rand(1, 3, 32, 32)
    labels = np.zeros((2, 2), np.int64)
    plan = Draw(5000, 5000, 3, labels)
    with torch.no_grad():
        outcome = code(tiny.codec, tiny.prior, images, plan, noisy=False)
        dear, perfect = replace(outcome, bits=outcome.bits + 1000), replace(outcome, picture=images)
        losses = [loss(tiny.codec, images, plan, o, RECIPE) for o in (perfect, outcome, dear)]
    assert losses[0] < losses[1] < losses[2]


@pytest.mark.weights
def test_a_run_may_begin_with_an_installed_model(tmp_path: Path) -> None:
    Image.fromarray(photograph("astronaut", 256, 256, 0, 0)).save(tmp_path / "one.png")
    learned = scene_run.train(
        [tmp_path], tmp_path / "run", SceneRecipe(), lambda line: None, start="scene-1", until=0
    )
    wanted = load_model("scene", "scene-1").codec.state_dict()
    found = learned.codec.state_dict()
    assert set(found) == set(wanted)
    assert all(torch.equal(found[name], wanted[name]) for name in wanted)
    with pytest.raises(WeightsError, match="no-such-model"):
        scene_run.train([tmp_path], tmp_path / "other", SceneRecipe(), print, start="no-such-model")


@pytest.mark.weights
def test_features_codecs_may_begin_with_installed_models(tmp_path: Path) -> None:
    Image.fromarray(photograph("astronaut", 256, 256, 0, 0)).save(tmp_path / "one.png")
    units = BottleneckRecipe(("c4", "c3", "c5", "fpn"))
    for name, begin in (
        ("pyramid", partial(pyramid_run.train, recipe=PyramidRecipe())),
        ("bottleneck", partial(bottleneck_run.train, recipe=units)),
    ):
        folder = tmp_path / name
        learned = begin([tmp_path], folder, show=lambda line: None, start=f"{name}-1", until=0)
        wanted = load_model(name, f"{name}-1").codec.state_dict()
        found = learned.codec.state_dict()
        assert all(torch.equal(found[key], wanted[key]) for key in wanted)
    other = PyramidRecipe(levels=("p5",))
    with pytest.raises(WeightsError, match="another shape"):
        pyramid_run.train([tmp_path], tmp_path / "x", other, print, start="pyramid-1")
