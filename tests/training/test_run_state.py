"""Runs resume to the step, bit for bit; what goes wrong in one is an error at once."""

from __future__ import annotations

import json
import math
from dataclasses import replace
from functools import partial
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from torch import nn

from photographs import NAMES, photograph
from vcmcodec.errors import PictureError, RequestError, VcmError, WeightsError
from vcmcodec.models import load_model
from vcmcodec.nn.feature_transform import FeatureTransform
from vcmcodec.nn.gain import Level
from vcmcodec.nn.latent_model import LatentShape
from vcmcodec.nn.picture_codec import PictureCodec, start_at_klt
from vcmcodec.nn.transforms import TransformShape
from vcmcodec.training import bottleneck_run, loop, pyramid_run, scene_run
from vcmcodec.training.bottleneck import BottleneckRecipe
from vcmcodec.training.coder import HyperPrior
from vcmcodec.training.eyes import Eyes, task_features
from vcmcodec.training.loop import Run, TrainingError, schedule
from vcmcodec.training.photographs import (
    PhotographCrops,
    picture_bytes,
    random_labels,
    read_pictures,
)
from vcmcodec.training.pyramid import PyramidRecipe
from vcmcodec.training.scene import (
    Draw,
    SceneRecipe,
    code,
    draw,
    loss,
    parameter_groups,
    task_loss,
)
from vcmcodec.training.tasks import transform_shape
from vcmcodec.vision.config import VisionConfig
from vcmcodec.vision.network import VisionNetwork

TRANSFORM = TransformShape(trunk=(8, 16, 24), latent=(6, 12, 20), trunk_blocks=1, latent_blocks=1)
LATENT = LatentShape(
    slices=(2, 4, 6, 8), phases=(6, 2, 2, 2), layers=(0, 0, 1, 2), hyper=3, levels=8
)
RECIPE = SceneRecipe(crop=64, batch=1, steps=40, opening=2, warm_up=3, task_crop=64, task_batch=1)
EYES = VisionConfig(stem=8, c2=8, c3=16, c4=16, c5=16, head=8)


class Tiny(nn.Module):
    """A codec small enough to be trained in a test, its prior and its feature transform."""

    def __init__(self, vision: VisionConfig = EYES) -> None:
        super().__init__()
        lmbdas = tuple(0.0006 * 150 ** (i / 7) for i in range(8))
        self.codec = PictureCodec(TRANSFORM, LATENT, lmbdas)
        self.prior = HyperPrior(LATENT.hyper)
        shape = transform_shape(vision, TRANSFORM, self.codec.latent.levels)
        self.transform = FeatureTransform(shape)


@pytest.fixture(scope="session")
def pictures(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("pictures")
    for number, name in enumerate(NAMES[:3]):
        Image.fromarray(photograph(name, 160, 200, 60, 100)).save(folder / f"{number}.png")
    return folder


def steps(folder: Path, pictures: Path, until: int) -> tuple[list[float], Tiny, Run]:
    """Train a tiny codec up to a step; losses, networks and run."""
    torch.manual_seed(5)
    tiny = Tiny()
    pool = PhotographCrops([pictures], RECIPE.crop)
    start_at_klt(tiny.codec, pool.batch(20, np.random.default_rng(0)))
    groups = parameter_groups(tiny, RECIPE)
    run = Run(folder, tiny, groups, average=0.9, seed=3)
    losses = []
    while run.step < until:
        plan = draw(RECIPE, run.step, run.random)
        images = pool.batch(RECIPE.batch, run.random)
        outcome = code(tiny.codec, tiny.prior, images, plan, noisy=True)
        value = loss(tiny.codec, images, plan, outcome, RECIPE)
        run.apply(value, schedule(run.step, RECIPE.steps, RECIPE.warm_up, RECIPE.last_rate))
        losses.append(float(value.detach()))
    run.save()
    return losses, tiny, run


def test_a_run_resumes_to_the_step(tmp_path: Path, pictures: Path) -> None:
    whole, one, run = steps(tmp_path / "whole", pictures, 6)
    first, _, _ = steps(tmp_path / "parts", pictures, 3)
    second, two, again = steps(tmp_path / "parts", pictures, 6)
    assert first + second == whole
    assert len(set(whole)) == 6
    assert again.step == run.step == 6
    for (name, a), (_, b) in zip(one.named_parameters(), two.named_parameters(), strict=True):
        assert torch.equal(a, b), name
        assert torch.equal(run.averaged[name], again.averaged[name])
    assert (tmp_path / "whole" / "state.json").read_bytes() == (
        tmp_path / "parts" / "state.json"
    ).read_bytes()


def test_an_interrupted_save_leaves_the_last_state(
    tmp_path: Path, pictures: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    steps(tmp_path, pictures, 2)
    monkeypatch.setattr(loop.os, "replace", lambda *_: (_ for _ in ()).throw(KeyboardInterrupt))
    with pytest.raises(KeyboardInterrupt):
        steps(tmp_path, pictures, 3)
    monkeypatch.undo()
    losses, _, run = steps(tmp_path, pictures, 4)
    assert len(losses) == 2
    assert run.step == 4
    named = json.loads((tmp_path / "state.json").read_text())["files"]
    assert sorted(p.name for p in tmp_path.glob("state-*")) == sorted(named)


def test_files_of_a_run_are_small(tmp_path: Path) -> None:
    """16 MiB at most, whatever the model's size."""
    model = nn.Sequential(*(nn.Linear(1000, 700) for _ in range(4)))
    run = Run(tmp_path, model, [{"params": list(model.parameters()), "base": 1e-3}],
              average=0.9, seed=1)  # fmt: skip
    run.apply(sum(p.square().sum() for p in model.parameters()), 1.0)  # type: ignore[arg-type]
    run.save()
    files = list(tmp_path.glob("state-*.safetensors"))
    assert len(files) >= 3
    assert max(f.stat().st_size for f in files) <= 16 * 2**20
    again = nn.Sequential(*(nn.Linear(1000, 700) for _ in range(4)))
    resumed = Run(tmp_path, again, [{"params": list(again.parameters()), "base": 1e-3}],
                  average=0.9, seed=1)  # fmt: skip
    assert resumed.step == 1
    assert all(map(torch.equal, again.parameters(), model.parameters()))


def toy(tmp_path: Path) -> tuple[nn.Linear, Run]:
    model = nn.Linear(2, 1)
    return model, Run(tmp_path, model, [{"params": list(model.parameters()), "base": 0.1}],
                      average=0.5, seed=1)  # fmt: skip


@pytest.mark.parametrize("bad", [math.nan, math.inf])
def test_a_loss_that_is_not_finite_ends_the_run(tmp_path: Path, bad: float) -> None:
    model, run = toy(tmp_path)
    before = model.weight.detach().clone()
    with pytest.raises(TrainingError, match=f"step 0: the loss is {bad}"):
        run.apply(model(torch.ones(1, 2)).sum() + bad, 1.0)
    assert torch.equal(model.weight, before)
    assert issubclass(TrainingError, VcmError)


def test_a_gradient_that_is_not_finite_ends_the_run(tmp_path: Path) -> None:
    model, run = toy(tmp_path)
    before = model.weight.detach().clone()
    value = model(torch.ones(1, 2)).sum()
    with pytest.raises(TrainingError, match="a gradient is not finite"):
        run.apply((value - value.detach()).sqrt(), 1.0)
    assert torch.equal(model.weight, before)


def test_the_average_follows_the_weights(tmp_path: Path) -> None:
    model, run = toy(tmp_path)
    for _ in range(5):
        run.apply(model(torch.ones(1, 2)).sum(), 1.0)
    trained = model.weight.detach().clone()
    with run.with_average():
        assert torch.equal(model.weight, run.averaged["weight"])
        assert not torch.equal(model.weight, trained)
    assert torch.equal(model.weight, trained)


def test_the_schedule() -> None:
    rates = [schedule(step, 1000, 100, 0.05) for step in range(1001)]
    assert rates[0] == pytest.approx(0.01, rel=1e-3)
    assert max(rates) == pytest.approx(0.98, rel=0.02)
    assert rates[100:] == sorted(rates[100:], reverse=True)
    assert rates[-1] == pytest.approx(0.05)
    assert schedule(5000, 1000, 100, 0.05) == pytest.approx(0.05)


# ---- the run of `vcm train scene`


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


# ---- what is trained, and on what


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
    c2, c3 = task_features(tiny.transform, outcome.base, Level(plan.level, 8))
    seen = eyes.decoded(c2, c3)
    away, _ = eyes.distance(seen, eyes.clean(images))
    task_loss(tiny.codec, images, plan, outcome, away, RECIPE).backward()
    for name, value in tiny.named_parameters():
        assert value.grad is not None, name
        assert torch.isfinite(value.grad).all(), name
        assert value.grad.abs().sum() > 0, name


def test_every_parameter_is_in_one_group() -> None:
    tiny = Tiny()
    groups = parameter_groups(tiny, RECIPE)
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


def test_crops_are_pieces_of_the_pictures(pictures: Path) -> None:
    pool = PhotographCrops([pictures], 48)
    batch = pool.batch(6, np.random.default_rng(2))
    assert batch.shape == (6, 3, 48, 48)
    assert torch.equal(batch, pool.batch(6, np.random.default_rng(2)))
    assert not torch.equal(batch, pool.batch(6, np.random.default_rng(3)))
    assert float(batch.min()) >= 0
    assert 0.1 < float(batch.mean()) < 0.9
    assert float(batch.max()) <= 1
    with pytest.raises(RequestError, match="at least 161x161"):
        PhotographCrops([pictures], 161)
    with pytest.raises(RequestError, match="no such folder"):
        list(picture_bytes([pictures / "nothing"]))


def test_pictures_come_out_of_folders_shards_and_files(pictures: Path, tmp_path: Path) -> None:
    import tarfile

    shard = tmp_path / "shard.tar"
    (tmp_path / "notes.txt").write_text("no picture")
    with tarfile.open(shard, "w") as out:
        for path in (*sorted(pictures.iterdir(), reverse=True), tmp_path / "notes.txt"):
            out.add(path, path.name)
    folder = list(picture_bytes([pictures]))
    assert [name for name, _ in folder] == ["0.png", "1.png", "2.png"]
    assert list(picture_bytes([shard])) == folder
    assert list(picture_bytes([pictures / "1.png"])) == folder[1:2]


def test_class_masks_beside_pictures_are_never_opened(tmp_path: Path) -> None:
    import tarfile

    folder = tmp_path / "labelled"
    folder.mkdir()
    for name in ("a.webp", "b.jpg", "c.png"):
        Image.new("RGB", (8, 8)).save(folder / name)
    for name in ("a.png", "b.png"):
        (folder / name).write_bytes(b"a mask that must not be read")
    shard = tmp_path / "shard.tar"
    with tarfile.open(shard, "w") as out:
        for path in folder.iterdir():
            out.add(path, path.name)
    for source in (folder, shard):
        assert [name for name, _ in picture_bytes([source])] == ["a.webp", "b.jpg", "c.png"]


def test_a_file_that_is_no_picture_is_named(tmp_path: Path) -> None:
    (tmp_path / "bad.png").write_text("no picture")
    with pytest.raises(PictureError, match=r"bad\.png"):
        PhotographCrops([tmp_path], 64)
    with pytest.raises(PictureError, match=r"bad\.png"):
        read_pictures([tmp_path], 1)


def test_random_maps_hold_a_few_groups() -> None:
    random = np.random.default_rng(4)
    maps = [random_labels(16, 16, random) for _ in range(100)]
    assert all(m.shape == (16, 16) and m.min() >= 0 and m.max() <= 3 for m in maps)
    assert {len(np.unique(m)) for m in maps} >= {2, 3, 4}


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
