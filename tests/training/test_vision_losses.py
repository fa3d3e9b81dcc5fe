"""What the vision network is taught: stages of a teacher, objects and the cells that find them."""

from __future__ import annotations

import dataclasses

import pytest
import torch
from made_pictures import SMALL, look

from vcmcodec.training import vision_losses
from vcmcodec.training.vision_teacher import stage_loss, start_at_means, taught_features
from vcmcodec.vision.network import VisionNetwork
from vcmcodec.vision.tasks.detection import box_iou


def test_stages_begin_at_the_means_of_what_they_learn() -> None:
    torch.manual_seed(5)
    network, rgb = VisionNetwork(SMALL).train(), torch.rand(4, 3, 96, 96)
    given = look(rgb)
    means = torch.tensor([3.0, 0.5, 0.0, -0.2])  # SiLU goes no lower than -0.28
    stages = {
        name: torch.nn.functional.silu(torch.randn_like(stage) * 0.2)
        + means[torch.arange(stage.shape[1]) % 4].view(-1, 1, 1)
        for name, stage in given.stages.items()
    }
    given = dataclasses.replace(given, stages=stages)
    everything = torch.ones(4, dtype=torch.bool)

    def away() -> dict[str, float]:
        with torch.no_grad():
            own, _ = taught_features(network, rgb, given, everything, 1.0)
        gaps = {n: own[n].mean((0, 2, 3)) - given.stages[n].mean((0, 2, 3)) for n in own}
        return {name: float(gap.abs().max()) for name, gap in gaps.items()}

    assert min(away().values()) > 2
    start_at_means(network, rgb, given)
    assert max(away().values()) < 0.05


def test_a_stage_that_knows_the_mean_alone_has_a_loss_of_one() -> None:
    torch.manual_seed(0)
    teacher = torch.randn(2, 5, 8, 8) * torch.tensor([0.1, 1, 3, 10, 0.5]).view(1, 5, 1, 1) + 4
    mean = teacher.mean((0, 2, 3), keepdim=True).expand_as(teacher)
    assert float(stage_loss(mean, teacher)) == pytest.approx(1, abs=0.02)
    assert float(stage_loss(teacher, teacher)) == 0


def cells() -> tuple[torch.Tensor, torch.Tensor]:
    """Centres and strides of a 32x32 input at stride 8."""
    y, x = torch.meshgrid(torch.arange(4) * 8 + 4.0, torch.arange(4) * 8 + 4.0, indexing="ij")
    return torch.stack((x.flatten(), y.flatten()), 1), torch.full((16,), 8.0)


def test_objects_are_assigned_to_the_cells_that_fit_them() -> None:
    centres, strides = cells()
    targets = torch.tensor([[0.0, 0, 16, 16], [16.0, 16, 32, 32]])
    boxes = torch.cat((centres - 8, centres + 8), 1)
    scores = torch.full((16, 2), 0.1)
    owner, quality = vision_losses.assign(
        scores, boxes, centres, strides, targets, torch.tensor([0, 1])
    )
    owned = [(owner == i).nonzero()[:, 0].tolist() for i in (0, 1)]
    assert 5 not in owned[1]
    assert set(owned[0]) <= {0, 1, 4, 5}
    assert set(owned[1]) <= {10, 11, 14, 15}
    assert (quality[owner < 0] == 0).all()
    iou = box_iou(boxes[owned[0]], targets[0])
    assert quality[owned[0]].max() == pytest.approx(float(iou.max()))


def test_a_tiny_object_is_still_met_by_its_cell() -> None:
    centres, strides = cells()
    boxes = torch.cat((centres - 2, centres + 2), 1)
    owner, _ = vision_losses.assign(
        torch.full((16, 1), 0.1), boxes, centres, strides,
        torch.tensor([[9.0, 9, 11, 11]]), torch.tensor([0]),
    )  # fmt: skip
    assert int(owner[5]) == 0


def test_generalised_overlap_of_boxes_that_do_not_touch_is_negative() -> None:
    one, other = torch.tensor([0.0, 0, 2, 2]), torch.tensor([4.0, 0, 6, 2])
    assert box_iou(one, other) == 0
    assert box_iou(one, other, generalised=True) == pytest.approx(-1 / 3)
    assert box_iou(one, one, generalised=True) == pytest.approx(1)
