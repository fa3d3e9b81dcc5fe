"""Runs resume to the step, bit for bit; what goes wrong in one is an error at once."""

from __future__ import annotations

import json
import math
from pathlib import Path

import numpy as np
import pytest
import torch
from tiny_scene import RECIPE, Tiny, write_pictures
from torch import nn

from vcmcodec.errors import RequestError, VcmError
from vcmcodec.nn.picture_codec import start_at_klt
from vcmcodec.training import loop
from vcmcodec.training.loop import Run, TrainingError, learn, schedule
from vcmcodec.training.photographs import PhotographCrops
from vcmcodec.training.scene import code, draw, loss
from vcmcodec.training.scene_run import parameter_groups


@pytest.fixture(scope="module")
def pictures(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_pictures(tmp_path_factory.mktemp("pictures"))


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


def test_saving_a_step_again_never_spoils_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A finished run that only exports saved its last step in place, file by file."""
    model, run = toy(tmp_path)
    run.save()

    def interrupted(tensors: object, path: Path) -> None:
        Path(path).write_bytes(b"half")
        raise KeyboardInterrupt

    monkeypatch.setattr(loop, "save_file", interrupted)
    with pytest.raises(KeyboardInterrupt):
        run.save()
    monkeypatch.undo()
    again, resumed = toy(tmp_path)
    assert resumed.step == 0
    assert all(map(torch.equal, again.parameters(), model.parameters()))


def test_a_run_is_not_resumed_behind_other_models(tmp_path: Path) -> None:
    def begin(behind: str) -> Run:
        model = nn.Linear(2, 1)
        groups: list[dict[str, object]] = [{"params": list(model.parameters()), "base": 0.1}]
        return Run(tmp_path, model, groups, average=0.5, seed=1, behind=behind)

    begin("vision 0123").save()
    begin("vision 0123")
    with pytest.raises(RequestError, match="begun behind vision 0123, not behind vision 4567"):
        begin("vision 4567")


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


@pytest.mark.filterwarnings("ignore::DeprecationWarning")  # tensorboard's own
def test_what_is_measured_and_left_are_the_averaged_weights(tmp_path: Path) -> None:
    model, run = toy(tmp_path)
    lines: list[dict[str, float]] = []
    measured: list[tuple[int, bool, bool]] = []
    taught: list[torch.Tensor] = []

    def step(means: dict[str, float]) -> float:
        run.apply(model(torch.ones(1, 2)).sum(), 0.5)
        means["loss"] = run.step / 3
        taught.append(model.weight.detach().clone())
        return 0.5

    def evaluate() -> dict[str, float]:
        own, average = model.weight, run.averaged["weight"]
        measured.append((run.step, torch.equal(own, average), torch.equal(own, taught[-1])))
        return {"error": 1.0}

    learn(run, 5, step, lines.append, evaluate=evaluate, report_every=2, save_every=3,
          evaluate_every=3, digits=2)  # fmt: skip
    assert measured == [(3, True, False), (5, True, False)]
    news = [(line["step"], line.get("loss"), line.get("share")) for line in lines]
    assert news == [(2, 0.67, 0.5), (3, None, None), (4, 1.33, 0.5), (5, None, None)]
    assert torch.equal(model.weight, run.averaged["weight"])
    _, again = toy(tmp_path)
    assert again.step == 5
    assert torch.equal(again.model.weight, taught[-1])  # type: ignore[arg-type]


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_a_run_that_goes_wrong_keeps_its_last_save(tmp_path: Path) -> None:
    model, run = toy(tmp_path)

    def step(means: dict[str, float]) -> float:
        bad = math.nan if run.step == 5 else 0.0
        run.apply(model(torch.ones(1, 2)).sum() + bad, 1.0)
        return 1.0

    with pytest.raises(TrainingError, match="step 5"):
        learn(run, 9, step, lambda line: None, report_every=50, save_every=2)
    assert toy(tmp_path)[1].step == 4


def test_the_schedule() -> None:
    rates = [schedule(step, 1000, 100, 0.05) for step in range(1001)]
    assert rates[0] == pytest.approx(0.01, rel=1e-3)
    assert max(rates) == pytest.approx(0.98, rel=0.02)
    assert rates[100:] == sorted(rates[100:], reverse=True)
    assert rates[-1] == pytest.approx(0.05)
    assert schedule(5000, 1000, 100, 0.05) == pytest.approx(0.05)
