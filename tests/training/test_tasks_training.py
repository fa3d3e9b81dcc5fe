"""Training of the feature transform: it learns, resumes to the step, leaves the network alone."""

from __future__ import annotations

from copy import deepcopy
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import click
import numpy as np
import pytest
import torch
from click.testing import CliRunner
from PIL import Image
from torch import Tensor

from photographs import photograph
from vcmcodec.cli.train_tasks import command
from vcmcodec.errors import RequestError
from vcmcodec.nn.transforms import Synthesis, TransformShape
from vcmcodec.training import preview_front
from vcmcodec.training.photographs import Views
from vcmcodec.training.tasks import TasksRecipe, TasksTrainer, train_tasks
from vcmcodec.vision.config import VisionConfig
from vcmcodec.vision.network import VisionNetwork

SMALL = VisionConfig(
    stem=8, c2=8, c3=16, c4=16, c5=16, blocks=(2, 1, 1, 1), pyramid=(16, 16, 24), head=8
)
CODEC = TransformShape(trunk=(12, 16), latent=(48, 64), trunk_blocks=1, latent_blocks=1)
RECIPE = TasksRecipe(steps=4, batch=2, side=64, warm_up=2)


def latents(images: Tensor, rate_level: int, adapted: bool = False) -> Tensor:
    """What a base layer might hold: each cell's sixteen means, coarser at lower rates."""
    means = torch.nn.functional.avg_pool2d(images, 4)
    cells = torch.nn.functional.pixel_unshuffle(means, 4).permute(0, 2, 3, 1)
    step = 0.05 * (1 - rate_level / 12000)
    return (cells / step).round() * step


@pytest.fixture(scope="module")
def views(tmp_path_factory: pytest.TempPathFactory) -> Views:
    folder = tmp_path_factory.mktemp("views")
    for name in ("coffee", "astronaut"):
        Image.fromarray(photograph(name, 200, 240)).save(folder / f"{name}.png")
    return Views([folder], [folder], RECIPE.side)


def trainer(views: Views, levels: int = 4, **changes: float) -> TasksTrainer:
    torch.manual_seed(3)
    network = VisionNetwork(SMALL).fold()
    recipe = replace(RECIPE, **changes)  # type: ignore[arg-type]
    return TasksTrainer(recipe, latents, views, network, levels=levels, synthesis=Synthesis(CODEC))


def test_it_learns_and_the_network_stays(views: Views, tmp_path: Path) -> None:
    lines: list[dict[str, float]] = []
    taught = trainer(views, steps=60, near=0.0, rate=1e-3, front=3e-4)
    before = {k: v.clone() for k, v in taught.eyes.network.state_dict().items()}
    train_tasks(taught, tmp_path / "run", report=lines.append)
    assert [line["step"] for line in lines] == [20, 40, 60]
    assert lines[-1]["distance"] < 0.9 * lines[0]["distance"]
    assert lines[-1]["preview"] < 0.9 * lines[0]["preview"]
    after = taught.eyes.network.state_dict()
    assert all(torch.equal(before[name], after[name]) for name in before)


def test_a_stopped_run_ends_where_one_that_was_not_stopped_ends(
    views: Views, tmp_path: Path
) -> None:
    whole = train_tasks(trainer(views), tmp_path / "whole")
    steps = 0
    while steps < RECIPE.steps:  # one step a call
        part = trainer(views)
        stopped = train_tasks(part, tmp_path / "parts", minutes=1e-9)
        assert part.step == steps + 1
        steps = part.step
    for name, value in whole.state_dict().items():
        torch.testing.assert_close(stopped.state_dict()[name], value, rtol=0, atol=0)


def test_a_checkpoint_of_another_shape_is_refused(views: Views, tmp_path: Path) -> None:
    train_tasks(trainer(views), tmp_path / "run")
    with pytest.raises(RequestError, match="of another shape"):
        train_tasks(trainer(views, levels=5), tmp_path / "run")


def test_groups_that_are_missing_are_shown_grey(
    views: Views, monkeypatch: pytest.MonkeyPatch
) -> None:
    taught = trainer(views)
    taught.recipe = replace(taught.recipe, dropped=1.0, previews=0.0)
    shown: list[Tensor] = []
    clean = taught.eyes.clean
    monkeypatch.setattr(taught.eyes, "clean", lambda rgb: (shown.append(rgb), clean(rgb))[1])
    taught.train_step()
    cells = shown[0].unfold(2, 16, 16).unfold(3, 16, 16)
    grey = (cells == 0.45).all(-1).all(-1).all(1)
    assert 0 < int(grey.sum()) < grey.numel()
    assert np.array_equal(grey[0], grey[1])  # one map for the whole batch


def test_the_transform_learns_the_split_tensor_first_and_sees_each_batch_again(
    views: Views, monkeypatch: pytest.MonkeyPatch
) -> None:
    taught = trainer(views, steps=6, previews=0.0, near=0.5)
    coded: list[bool] = []
    latents_of = taught.latents

    def counted(images: Tensor, rate_level: int, adapted: bool) -> Tensor:
        coded.append(adapted)
        return latents_of(images, rate_level, adapted)

    monkeypatch.setattr(taught, "latents", counted)
    rows = [taught.train_step() for _ in range(6)]
    assert ["near" in row for row in rows] == [True] * 3 + [False] * 3
    assert ["distance" in row for row in rows] == [False] * 3 + [True] * 3
    assert coded == [False, False]  # the recipe shows a batch five times


def test_a_share_of_the_batches_is_adapted(views: Views) -> None:
    taught = trainer(views, adapted=0.5)
    asked: list[bool] = []

    def counted(images: Tensor, rate_level: int, adapted: bool) -> Tensor:
        asked.append(adapted)
        return latents(images, rate_level)

    taught.latents = counted
    for number in range(24):
        taught.lessons[number]
    assert 4 < sum(asked) < 20


def test_a_training_that_starts_at_a_model_has_its_front_and_a_transform_of_its_shape(
    views: Views,
) -> None:
    first = trainer(views)
    with torch.no_grad():
        for parameter in first.learned.parameters():
            parameter.add_(0.5)
    facts = SimpleNamespace(config=first.transform.config)
    replaced = first.front.tensors()
    model = SimpleNamespace(id="t", facts=facts, replaced=replaced, transform=first.transform)
    second = trainer(views)
    second.start_from(model)  # type: ignore[arg-type]
    for taught in (second.learned, second.average):
        for name, value in first.learned.state_dict().items():
            assert torch.equal(taught.state_dict()[name], value), name
    facts.config = replace(facts.config, around=8)
    third = trainer(views)
    third.start_from(model)  # type: ignore[arg-type]
    assert torch.equal(third.front.stem.conv.weight, replaced["stem.conv.weight"])
    assert not torch.equal(third.transform.enter.weight, first.transform.enter.weight)
    model.replaced = {}
    with pytest.raises(RequestError, match="no preview front"):
        third.start_from(model)  # type: ignore[arg-type]


def test_a_front_that_sees_worse_gets_no_share(views: Views) -> None:
    taught = trainer(views)
    front = deepcopy(taught.front)
    with torch.no_grad():
        for parameter in front.parameters():
            parameter.add_(torch.randn_like(parameter))
    shares = taught.preview_shares(front)
    assert [quality for quality, _ in shares] == list(preview_front.SHARE_QUALITIES)
    assert {share for _, share in shares} == {0.0}


def test_a_mixture_goes_from_the_networks_own_to_what_was_taught(views: Views) -> None:
    made = trainer(views)
    network, front = made.eyes.network, deepcopy(made.front)
    with torch.no_grad():
        for parameter in front.parameters():
            parameter.add_(1)
    own = preview_front.PreviewFront(network).tensors()
    for share in (0.0, 0.25, 1.0):
        for name, value in preview_front.mixed(front, network, share).tensors().items():
            torch.testing.assert_close(value, own[name] + share)


def test_large_pictures_are_coded_whole_or_reduced_and_never_larger_than_they_are() -> None:
    random = np.random.default_rng(1)
    drawn = {preview_front.random_sides(256, random) for _ in range(300)}
    assert all(coded % 16 == 0 and seen % 32 == 0 for coded, seen in drawn)
    assert all(seen <= 256 and (coded == 256 or coded <= seen) for coded, seen in drawn)
    assert {seen for coded, seen in drawn if coded == 256} == {160, 192, 224, 256}
    assert min(coded / seen for coded, seen in drawn) == pytest.approx(0.6, abs=0.05)


def test_a_run_goes_on_behind_the_same_models_alone(views: Views, tmp_path: Path) -> None:
    begun = trainer(views)
    begun.behind = "scene 1, vision 2"
    begun.save(tmp_path / "last.pt")
    again = trainer(views)
    again.behind = "scene 1, vision 3"
    with pytest.raises(
        RequestError, match="behind scene 1, vision 2, not behind scene 1, vision 3"
    ):
        again.load(tmp_path / "last.pt")


@pytest.mark.parametrize(
    ("given", "said"),
    [
        (("--adapted-quality", "foo=3"), "--adapted-quality foo=3"),
        (("--reduced-quality", "detection=101"), "--reduced-quality detection=101"),
        (("--export", "out", "--quality", "detection=45"), "needs a --quality for each of"),
    ],
)
def test_qualities_are_checked_before_anything_is_taught(
    given: tuple[str, ...], said: str, tmp_path: Path
) -> None:
    (tmp_path / "photos").mkdir()
    line = ["--data", str(tmp_path / "photos"), "--run", str(tmp_path / "run"), *given]
    with pytest.raises(click.UsageError, match=said):
        CliRunner().invoke(command, line, standalone_mode=False, catch_exceptions=False)
    assert not (tmp_path / "run").exists()
