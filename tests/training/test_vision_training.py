"""Training of the vision network on a few made pictures: steps, losses, resuming."""

from __future__ import annotations

import dataclasses
import hashlib
import json
from functools import partial
from pathlib import Path

import pytest
import torch
from click.testing import CliRunner
from made_pictures import SMALL, look, write_cache, write_data

from vcmcodec.cli.train_vision import command
from vcmcodec.errors import RequestError
from vcmcodec.training import muon
from vcmcodec.training.export import enter
from vcmcodec.training.loop import TrainingError
from vcmcodec.training.vision import (
    CollapseWatch,
    VisionTrainer,
    batches_from,
    load_average,
    train_vision,
)
from vcmcodec.training.vision_batches import VisionBatches
from vcmcodec.training.vision_recipe import AreasRecipe, Phase, VisionRecipe, with_steps
from vcmcodec.training.vision_stages import DeepRecipe, stage_lessons
from vcmcodec.training.vision_views import IGNORED
from vcmcodec.vision import weights
from vcmcodec.vision.config import VisionConfig
from vcmcodec.vision.heads import DeepSegmentationHead
from vcmcodec.vision.labels import VOC
from vcmcodec.vision.network import TASKS, VisionNetwork

RECIPE = VisionRecipe(
    steps=6,
    phases=(Phase(4, 64, 2), Phase(10**9, 96, 2)),
    warm_up=2,
    decay=0.5,
    forced=(2, 4),
    config=SMALL,
)
NAMES = ("class", "mask", "soft", "teach", "presence", "taught_presence")
DEEP = DeepRecipe(steps=3, side=64, size=2, replays=1, kept=2)


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_data(tmp_path_factory.mktemp("data"))


@pytest.fixture(scope="module")
def cache(data: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_cache(data, tmp_path_factory.mktemp("cache"))


def test_orthogonalised_momentum_has_even_singular_values() -> None:
    torch.manual_seed(0)
    matrix = torch.randn(48, 200) * torch.logspace(-2, 1, 200)
    values = torch.linalg.svdvals(muon.orthogonalise(matrix))
    assert values.min() > 0.5
    assert values.max() < 1.4


@pytest.mark.parametrize("still", [10**9, 1])
def test_training_goes_on_where_it_stopped(
    data: Path, cache: Path, tmp_path: Path, still: int
) -> None:
    whole, parts = tmp_path / "whole", tmp_path / "parts"
    recipe = dataclasses.replace(RECIPE, still=still, deep=DEEP)
    train_vision(recipe, data, cache, whole, look=look)
    steps = iter([False, False, True])
    train_vision(recipe, data, cache, parts, look=look, should_stop=lambda: next(steps))
    trainer = VisionTrainer(recipe, torch.device("cpu"), look)
    trainer.load(parts / "last.pt")
    assert trainer.step == 3
    train_vision(recipe, data, cache, parts, look=look)
    one, other = (torch.load(f / "last.pt", weights_only=True) for f in (whole, parts))
    assert one["step"] == other["step"] == 6
    for part in ("network", "average"):
        for name, value in one[part].items():
            torch.testing.assert_close(value, other[part][name], rtol=1e-3, atol=1e-3, msg=name)
    network, step = load_average(whole / "last.pt")
    assert (step, network.config) == (6, SMALL)


def test_deep_stages_learn_alone(data: Path, cache: Path) -> None:
    recipe = dataclasses.replace(RECIPE, steps=40, warm_up=1, decay=0.01, still=0, deep=DEEP)
    trainer = VisionTrainer(recipe, torch.device("cpu"), look)
    views = VisionBatches(data, cache, side=64, size=2, mosaic=0.0)
    lessons = stage_lessons(trainer.network, views, lambda rgb: look(rgb).stages, 1)
    trainer.step = 1
    before = {name: value.clone() for name, value in trainer.network.state_dict().items()}
    losses = [trainer.deep_step(lessons)["deep"]]
    trainer.step = 1
    for _ in range(30):
        losses.append(trainer.deep_step(lessons)["deep"])
        trainer.step = 1  # the same batch again
    assert losses[-1] < 0.7 * losses[0]
    after = trainer.network.state_dict()
    changed = {n.split(".")[0] for n in before if not torch.equal(before[n], after[n])}
    assert changed == {"c4", "c5", "fpn"}


def test_batches_of_deep_steps_are_new_and_old_ones() -> None:
    recipe = DeepRecipe(replays=3, kept=5)
    numbers = [recipe.number(step, seed=2) for step in range(400)]
    assert numbers[::4] == list(range(100))
    for step, number in enumerate(numbers):
        assert max(0, step // 4 - 4) <= number <= step // 4
    assert len(set(numbers[201:204] + numbers[205:208] + numbers[209:212])) > 3


def test_a_few_steps_on_one_batch_lower_every_kind_of_loss(data: Path, cache: Path) -> None:
    recipe = dataclasses.replace(RECIPE, steps=60, warm_up=1, decay=0.01, forced=(5, 20))
    trainer = VisionTrainer(recipe, torch.device("cpu"), look)
    batches = VisionBatches(data, cache, side=64, size=4, mosaic=0.0)
    batch = next(b for b in map(batches.__getitem__, range(50)) if (b.mask != IGNORED).any())
    first = trainer.train_step(batch)
    for _ in range(30):
        last = trainer.train_step(batch)
    assert last["total"] < 0.7 * first["total"]
    assert [n for n in NAMES if last[n] >= first[n]] == []


def test_a_loss_that_is_not_finite_ends_the_run(data: Path, cache: Path) -> None:
    trainer = VisionTrainer(RECIPE, torch.device("cpu"), look)
    batch = VisionBatches(data, cache, side=64, size=2)[0]
    broken = dataclasses.replace(batch, rgb=batch.rgb * float("nan"))
    with pytest.raises(TrainingError, match="not finite"):
        trainer.train_step(broken)


def test_a_checkpoint_of_another_shape_is_refused(tmp_path: Path) -> None:
    trainer = VisionTrainer(RECIPE, torch.device("cpu"), look)
    trainer.save(tmp_path / "a.pt")
    other = dataclasses.replace(RECIPE, config=dataclasses.replace(SMALL, c5=32))
    with pytest.raises(RequestError, match="another shape"):
        VisionTrainer(other, torch.device("cpu"), look).load(tmp_path / "a.pt")


def test_the_rate_rises_holds_and_falls() -> None:
    recipe = VisionRecipe(steps=1000, warm_up=100, decay=0.2, rate=1.0, forced=(100, 300))
    assert recipe.rate_at(0) == pytest.approx(0.01)
    assert recipe.rate_at(100) == recipe.rate_at(799) == 1.0
    assert recipe.rate_at(900) == pytest.approx(0.505)
    assert recipe.rate_at(1000) == pytest.approx(0.01)
    longer = with_steps(recipe, 2000)
    assert longer.phases[0].until == 2 * recipe.phases[0].until
    assert longer.phases[-1] == recipe.phases[-1]
    assert longer.forced == tuple(2 * step for step in recipe.forced)
    first, last = recipe.forced
    assert recipe.forced_at(first) == 1.0
    assert recipe.forced_at((first + last) // 2) == pytest.approx(0.5)
    assert recipe.forced_at(last) == 0.0


def test_early_warnings_name_what_does_not_learn() -> None:
    watch = CollapseWatch()
    means = {"teach": 4.0, "mask": 2.0, "class": 3.0, "norm": 5.0}
    assert watch.look(20, means) == []
    assert watch.look(2000, {**means, "mask": 1.0, "class": 1.0}) == [
        "teach loss has not fallen since the start"
    ]
    assert "gradient norm" in watch.look(40, {**means, "norm": 500.0})[0]


def test_workers_prepare_the_same_batches(data: Path, cache: Path) -> None:
    own = list(batches_from(RECIPE, data, cache, 3, 0))
    theirs = list(batches_from(RECIPE, data, cache, 3, 1))
    assert [b.rgb.shape[-1] for b in own] == [64, 96, 96]
    for one, other in zip(own, theirs, strict=True):
        assert torch.equal(one.rgb, other.rgb)
        assert torch.equal(one.boxes, other.boxes)
        assert [len(labels) for _, labels, _ in one.objects()] == list(other.counts)


class Made:
    """Stands for the two teachers, whose files are not everywhere."""

    def __init__(self, folder: Path, device: torch.device) -> None:
        self.look = partial(look, config=VisionConfig())
        self.stages = lambda rgb: self.look(rgb).stages

    def areas(self, rgb: torch.Tensor) -> tuple[dict[str, torch.Tensor], torch.Tensor]:
        count, side = len(rgb), rgb.shape[2]
        shapes = DeepSegmentationHead.STAGES.items()
        stages = {n: torch.randn(count, c, side // 16, side // 16) for n, c in shapes}
        return stages, self.look(rgb).segmentation


def test_the_command_trains_and_exports(
    data: Path, cache: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("vcmcodec.training.vision_teacher.Teachers", Made)
    run, target = tmp_path / "run", tmp_path / "weights"
    line = ["--data", data, "--cache", cache, "--run", run, "--steps", 3, "--batch-scale", 0.1]
    line += ["--export", target, "--model", "vision-test", "--size", 128]
    done = CliRunner().invoke(command, [str(part) for part in line], standalone_mode=False)
    assert done.exception is None, done.exception
    assert {"last.pt", "areas.pt", "log.jsonl"} <= {path.name for path in run.iterdir()}
    (entry,) = json.loads((target / "manifest.json").read_text())["models"]
    assert (entry["id"], entry["profile"]) == ("vision-test", "vision")
    model = weights.load(target / entry["file"])
    assert model.longer_side == 128
    assert model.facts == {"steps": 3, "steps_areas": 1}
    assert model.network.config.areas == AreasRecipe().width
    assert entry["sha256"] == hashlib.sha256((target / entry["file"]).read_bytes()).hexdigest()


def test_a_head_behind_an_installed_network_leaves_its_features_and_its_fingerprint(
    data: Path, cache: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """So what codes the features, and is bound to them, goes on working."""
    monkeypatch.setattr("vcmcodec.training.vision_teacher.Teachers", Made)
    torch.manual_seed(4)
    blob = weights.pack(VisionNetwork(VisionConfig()).eval(), labels=VOC, longer_side=128)
    mark = weights.file_mark(blob)
    enter(tmp_path, "vision-plain", "vision", blob, mark, tasks=list(TASKS))
    monkeypatch.setenv("VCMCODEC_WEIGHTS", str(tmp_path))
    line = ["--data", data, "--cache", cache, "--run", tmp_path / "run", "--steps", 2]
    line += ["--batch-scale", 0.1, "--start", "vision-plain", "--export", tmp_path / "new"]
    done = CliRunner().invoke(
        command, [*map(str, line), "--model", "vision-deep"], standalone_mode=False
    )
    assert done.exception is None, done.exception
    assert not (tmp_path / "run" / "last.pt").exists()
    (entry,) = json.loads((tmp_path / "new" / "manifest.json").read_text())["models"]
    assert entry["fingerprint"] == mark
    assert not entry["sha256"].startswith(mark)
    before = weights.load(tmp_path / "vision-plain.safetensors")
    after = weights.load(tmp_path / "new" / entry["file"])
    assert (before.fingerprint, after.fingerprint) == (mark, mark)
    assert (before.network.areas, after.facts) == (None, {"steps_areas": 2})
    rgb = torch.rand(1, 3, 64, 96)
    with torch.no_grad():
        old, new = before.network.features(rgb), after.network.features(rgb)
        assert all(torch.equal(old[name], new[name]) for name in old)
        one, other = before.network(rgb), after.network(rgb)
    assert torch.equal(one.presence, other.presence)
    assert all(map(torch.equal, one.class_logits, other.class_logits))
    assert not torch.equal(one.segmentation, other.segmentation)
