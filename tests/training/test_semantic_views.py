"""Views, matched points, contrastive losses and the filter's price, each by itself."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from PIL import Image

from vcmcodec.errors import RequestError
from vcmcodec.training import semantic_views
from vcmcodec.training.semantic import FeaturesRecipe
from vcmcodec.training.semantic_features import points_loss, whole_loss
from vcmcodec.training.semantic_views import (
    ViewPool,
    Views,
    draw_window,
    hot_box,
    shared_points,
)
from vcmcodec.vision.generic import InformationFilter, price


@pytest.fixture(scope="module")
def ramps(tmp_path_factory: pytest.TempPathFactory) -> ViewPool:
    """Pictures whose colour says where in the picture one is."""
    folder = tmp_path_factory.mktemp("ramps")
    y, x = np.mgrid[:160, :240]
    for number in range(6):
        rgb = np.stack([x, y * 1.5, np.full_like(x, 40 * number)], 2).astype(np.uint8)
        Image.fromarray(rgb).save(folder / f"{number}.png")
    return ViewPool([folder])


def test_points_of_two_views_are_the_same_place(
    ramps: ViewPool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(semantic_views, "change_colours", lambda rgb, random: rgb)
    recipe = FeaturesRecipe(crop=64, batch=6, points=12, area=0.4)
    views = ramps.views(recipe, torch.zeros(6, 4), np.random.default_rng(4))
    assert views.rgb.shape == (12, 3, 64, 64)
    seen = F.grid_sample(
        views.rgb, views.places[:, :, None], align_corners=False, padding_mode="border"
    )[..., 0]
    first, second = seen[:6][views.shared], seen[6:][views.shared]
    assert views.shared.sum() >= 4
    assert float((first - second).abs().max()) < 0.03  # a pixel of the picture is 0.004 to 0.006
    assert float(first[:, :2].std()) > 0.05
    inside = views.places.reshape(2, 6, -1, 2)[:, views.shared]
    assert float(inside.abs().max()) <= 1


def test_windows_stay_inside_and_follow_the_box() -> None:
    random = np.random.default_rng(2)
    centres = []
    for _ in range(200):
        window = draw_window((200, 100), (0.6, 0.1, 0.9, 0.4), 0.2, random)
        assert window.left >= 0
        assert window.top >= 0
        assert window.left + window.width <= 200 + 1e-9
        assert window.top + window.height <= 100 + 1e-9
        assert window.width * window.height >= 0.19 * 200 * 100 * 0.74
        centres.append((window.left + window.width / 2, window.top + window.height / 2))
    across, down = np.mean(centres, 0)
    assert across > 110
    assert down < 48


def test_views_that_share_nothing_are_told_apart() -> None:
    random = np.random.default_rng(1)
    left = semantic_views.Window(0, 0, 40, 40, False)
    right = semantic_views.Window(36, 0, 40, 40, True)
    assert shared_points(left, right, 5, random) is None
    points = shared_points(left, semantic_views.Window(20, 10, 40, 40, True), 50, random)
    assert points is not None
    assert points[:, 0].min() >= 20
    assert points[:, 0].max() <= 40
    assert left.place(np.array([[0, 40]])).tolist() == [[-1, 1]]
    assert right.place(np.array([[36, 0]])).tolist() == [[1, -1]]


def test_the_hot_box_is_where_the_heat_is() -> None:
    heat = np.zeros((8, 10))
    heat[2:4, 5:8] = 3
    heat[7, 0] = 0.2
    assert hot_box(heat) == (0.5, 0.25, 0.8, 0.5)
    assert hot_box(np.ones((4, 4))) == (0, 0, 1, 1)


def test_no_pictures_are_one_error(tmp_path: Path) -> None:
    with pytest.raises(RequestError, match="no pictures"):
        ViewPool([tmp_path])


def unit(*shape: int) -> torch.Tensor:
    return F.normalize(torch.randn(*shape), dim=-1)


def test_contrast_wants_the_other_view_of_the_same_picture() -> None:
    torch.manual_seed(1)
    first, second, queue = unit(5, 16), unit(5, 16), unit(30, 16)
    queries = torch.cat([first, second])
    right = whole_loss(queries, torch.cat([second, first]), queue, 0.1)
    wrong = whole_loss(queries, torch.cat([first, second]), queue, 0.1)
    assert float(right) < 0.5 < float(wrong)
    by_hand = -torch.log_softmax(torch.cat([first @ first.T, first @ queue.T], 1) / 0.1, 1)
    assert torch.allclose(
        whole_loss(torch.cat([first, first]), torch.cat([first, first]), queue, 0.1),
        by_hand[:, :5].diagonal().mean(),
    )


def test_points_want_their_own_place_and_spare_their_neighbours() -> None:
    torch.manual_seed(2)
    points = unit(3, 4, 16)
    places = torch.tensor([[-0.9, -0.9], [-0.8, -0.9], [0.5, 0.5], [0.9, -0.9]]).expand(6, 4, 2)
    views = Views(torch.zeros(6, 3, 1, 1), places, torch.tensor([True, True, False]))
    keys = torch.cat([points, points])
    good = points_loss(keys, keys, views, 0.1)
    swapped = torch.cat([points.flip(1), points.flip(1)])
    assert float(good) < 0.5 < float(points_loss(swapped, keys, views, 0.1))
    twins = points.clone()
    twins[:, 1] = twins[:, 0]  # the first two points are near: looking alike must cost nothing
    alike = torch.cat([twins, twins])
    apart = places.clone()
    apart[:, 1] = torch.tensor([0.0, 0.9])
    far = Views(views.rgb, apart, views.shared)
    assert float(points_loss(alike, alike, views, 0.1)) < 0.2
    assert float(points_loss(alike, alike, far, 0.1)) > 0.3
    odd = keys.clone()
    odd[2], odd[5] = unit(4, 16), unit(4, 16)  # the pair that shares nothing does not count
    assert torch.equal(points_loss(odd, odd, views, 0.1), good)
    none = Views(views.rgb, places, torch.zeros(3, dtype=torch.bool))
    assert float(points_loss(keys, keys, none, 0.1)) == 0


def test_the_price_closes_gates_and_cannot_be_dodged() -> None:
    torch.manual_seed(3)
    filter_ = InformationFilter(6)
    feature = torch.randn(2, 6, 5, 5)
    assert float(filter_.openness(feature).detach().mean()) > 0.9
    optimiser = torch.optim.SGD(filter_.parameters(), lr=3.0)
    for _ in range(300):
        optimiser.zero_grad()
        price(filter_(feature), feature.square().mean().sqrt()).backward()
        optimiser.step()
    assert int((filter_(feature) == 0).sum()) > 0.8 * feature.numel()
    scale = feature.square().mean().sqrt()
    assert torch.allclose(price(feature, scale), price(100 * feature, 100 * scale))
    loud = (2 * feature).requires_grad_()
    price(loud, loud.square().mean().sqrt()).backward()
    assert float((loud.grad * loud.detach()).sum()) > 0  # type: ignore[operator]
