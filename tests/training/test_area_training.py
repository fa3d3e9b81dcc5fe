"""Training of the deep segmentation head on made views."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
import torch
from torch import Tensor

from vcmcodec.errors import RequestError
from vcmcodec.training.vision_areas import AreaTrainer, area_lessons, is_behind, with_head
from vcmcodec.training.vision_batches import Batch
from vcmcodec.training.vision_recipe import (
    AreasRecipe,
    VisionRecipe,
    with_area_steps,
    with_batches,
    with_steps,
)
from vcmcodec.vision.config import VisionConfig
from vcmcodec.vision.heads import DeepSegmentationHead
from vcmcodec.vision.network import VisionNetwork

SMALL = VisionConfig(stem=8, c2=8, c3=16, c4=16, c5=16, pyramid=(16, 16, 24), head=8)
AREAS = AreasRecipe(steps=6, width=20, warm_up=1, forced=(1, 3), kept=2, replays=1)
RECIPE = VisionRecipe(steps=1, config=SMALL, areas=AREAS)
SIDE, CLASSES = 64, 20


class MadeViews:
    """Views by number: noise, in which one half is an aeroplane and a strip is not known."""

    def __init__(self) -> None:
        self.asked: list[int] = []

    def __getitem__(self, number: int) -> Batch:
        self.asked.append(number)
        random = torch.Generator().manual_seed(number)
        mask = torch.zeros(2, SIDE, SIDE, dtype=torch.uint8)
        mask[:, :, SIDE // 2 :] = 1
        mask[:, : SIDE // 4] = 255
        cells = torch.ones(2, SIDE // 8, SIDE // 8)
        none = torch.zeros(0)
        rgb = torch.rand(2, 3, SIDE, SIDE, generator=random)
        rgb[:, 0, :, SIDE // 2 :] += 1
        return Batch(rgb, mask, cells, cells, none.view(0, 4), none.long(), none, (0, 0))


def look(rgb: Tensor) -> tuple[dict[str, Tensor], Tensor]:
    """A segmenter whose stages and areas follow the red of a view."""
    red = torch.nn.functional.avg_pool2d(rgb[:, :1], 16)
    stages = {
        name: red * torch.linspace(0.5, 2, count).view(1, -1, 1, 1)
        for name, count in DeepSegmentationHead.STAGES.items()
    }
    fine = torch.nn.functional.avg_pool2d(rgb[:, :1], 8)
    areas = torch.full((len(rgb), CLASSES + 1, *fine.shape[2:]), -5.0)
    areas[:, :1], areas[:, 1:2] = 4 - 4 * fine, 4 * fine - 4
    return stages, areas


def trainer() -> AreaTrainer:
    torch.manual_seed(3)
    return AreaTrainer(VisionNetwork(SMALL), RECIPE)


def test_steps_on_one_lesson_lower_every_loss_and_change_the_head_alone() -> None:
    learns = trainer()
    lesson = area_lessons(learns.network, MadeViews(), look, 1)[0]
    before = {name: value.clone() for name, value in learns.network.state_dict().items()}
    first = learns.train_step(lesson)
    for _ in range(40):
        learns.step = 1
        last = learns.train_step(lesson)
    assert {name for name in first if last[name] >= first[name]} == set()
    for name, value in learns.network.state_dict().items():
        assert torch.equal(value, before[name]), name


def test_a_head_that_stopped_goes_on_to_the_same_place(tmp_path: Path) -> None:
    def lessons_of(learns: AreaTrainer) -> None:
        lessons = area_lessons(learns.network, MadeViews(), look, AREAS.kept)
        while learns.step < AREAS.steps:
            learns.train_step(lessons[AREAS.number(learns.step, RECIPE.seed)])

    whole = trainer()
    lessons_of(whole)
    parts = trainer()
    lessons = area_lessons(parts.network, MadeViews(), look, AREAS.kept)
    for step in range(3):
        parts.train_step(lessons[AREAS.number(step, RECIPE.seed)])
    parts.save(tmp_path / "areas.pt")
    again = trainer()
    again.load(tmp_path / "areas.pt")
    assert again.step == 3
    lessons_of(again)
    for name, value in whole.average.state_dict().items():
        torch.testing.assert_close(value, again.average.state_dict()[name], rtol=1e-3, atol=1e-3)


def test_a_forced_stage_does_not_read_the_one_before() -> None:
    learns = trainer()
    lesson = area_lessons(learns.network, MadeViews(), look, 1)[0]
    learns.areas = replace(AREAS, forced=(10**6, 10**7))
    learns.losses(lesson)["stage_deep"].backward()
    assert all(p.grad is None or not p.grad.any() for p in learns.head.mix.parameters())
    learns.areas = replace(AREAS, forced=(-2, -1))
    learns.losses(lesson)["stage_deep"].backward()
    assert any(p.grad is not None and p.grad.any() for p in learns.head.mix.parameters())


def test_lessons_are_made_once_and_kept_for_a_while() -> None:
    views = MadeViews()
    lessons = area_lessons(trainer().network, views, look, 2)
    for number in (0, 0, 1, 0, 1, 2, 1, 0):
        assert lessons[number].batch.rgb.shape[2:] == (1, 1)
    assert views.asked == [0, 1, 2, 0]


def test_a_network_with_its_head_finds_what_both_heads_find_likely(tmp_path: Path) -> None:
    learns = trainer()
    learns.train_step(area_lessons(learns.network, MadeViews(), look, 1)[0])
    learns.save(tmp_path / "areas.pt")
    whole, steps = with_head(learns.network, tmp_path / "areas.pt")
    assert (steps, whole.config) == (1, replace(SMALL, areas=AREAS.width))
    rgb = torch.rand(1, 3, SIDE, SIDE)
    with torch.no_grad():
        features = learns.network.features(rgb)
        levels = features["p3"], features["p4"], features["p5"]
        light = learns.network.segmentation(*levels).log_softmax(1)
        deep = learns.average(*levels).log_softmax(1)
        found, without = whole(rgb).segmentation, learns.network(rgb).segmentation
    assert found is not None
    assert without is not None
    prior = without - learns.network.segmentation(*levels)
    torch.testing.assert_close(found, (light + deep) / 2 + prior, rtol=1e-4, atol=1e-4)


def test_a_head_never_goes_with_another_network(tmp_path: Path) -> None:
    """A network that had learned on since was exported with the head of before."""
    learns = trainer()
    learns.save(tmp_path / "areas.pt")
    assert is_behind(learns.network, tmp_path / "areas.pt")
    torch.manual_seed(99)
    other = VisionNetwork(SMALL)
    assert not is_behind(other, tmp_path / "areas.pt")
    assert not is_behind(other, tmp_path / "missing.pt")
    with pytest.raises(RequestError, match="behind network"):
        with_head(other, tmp_path / "areas.pt")
    with pytest.raises(RequestError, match="behind network"):
        AreaTrainer(other, RECIPE).load(tmp_path / "areas.pt")


def test_a_checkpoint_of_another_width_is_refused(tmp_path: Path) -> None:
    trainer().save(tmp_path / "areas.pt")
    other = replace(RECIPE, areas=replace(AREAS, width=40))
    with pytest.raises(RequestError, match="another shape"):
        AreaTrainer(VisionNetwork(SMALL), other).load(tmp_path / "areas.pt")


def test_shorter_runs_and_larger_batches_scale_the_head_too() -> None:
    recipe = replace(RECIPE, steps=10, areas=replace(AREAS, steps=100, size=8, forced=(20, 40)))
    shorter = with_steps(recipe, 5).areas
    assert (shorter.steps, shorter.forced) == (50, (10, 20))
    assert with_area_steps(recipe, 50) == replace(recipe, areas=shorter)
    larger = with_batches(recipe, 4).areas
    assert (larger.size, larger.rate) == (32, 2 * AREAS.rate)
