"""Losses of the vision network: task-aligned detection, segmentation, presence, distillation."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional

from vcmcodec.training.vision_batches import Batch
from vcmcodec.training.vision_teacher import Lesson
from vcmcodec.vision.network import VisionOutput
from vcmcodec.vision.tasks.detection import box_iou, flatten_levels

# weight of a pixel by class, background first: sqrt(0.04 / share of the training masks), 1 to 4
PIXEL_WEIGHTS = (
    1.0, 4.0, 4.0, 4.0, 4.0, 4.0, 4.0, 2.6, 1.3, 1.6, 1.3,
    1.8, 1.1, 1.0, 4.0, 1.0, 3.1, 1.2, 1.3, 4.0, 3.1,
)  # fmt: skip
FOREGROUND = 2.0  # weight of the teacher's word where it sees an object
TOP_CELLS = 10  # cells an object may claim; TOOD, Feng et al. 2021, takes 13
LEAST_SCORE = 0.03  # of the teacher, from which its box teaches


@torch.no_grad()
def assign(
    scores: Tensor, boxes: Tensor, centres: Tensor, strides: Tensor, targets: Tensor, labels: Tensor
) -> tuple[Tensor, Tensor]:
    """Task-aligned assignment of one picture's objects to cells.

    Args:
        scores: (A, classes) probabilities.
        boxes: (A, 4) predicted.
        centres: (A, 2) pixels.
        strides: (A,) pixels.
        targets: (m, 4) true boxes, m at least 1.
        labels: (m,).

    Returns:
        owner: (A,) index of the object each cell predicts, -1 for none.
        quality: (A,) wanted score, 0..1; 0 where there is no owner.
    """
    iou = box_iou(targets[:, None], boxes[None])
    metric = scores[:, labels].t().clamp(min=1e-9).sqrt() * iou**6
    middle = (targets[:, :2] + targets[:, 2:]) / 2
    reach = torch.maximum((targets[:, None, 2:] - targets[:, None, :2]) / 2, strides[None, :, None])
    # a small object is still met by the cell it lies in: at least one stride to each side
    near = (centres[None] - middle[:, None]).abs() < reach
    allowed = near.all(2)
    metric = torch.where(allowed, metric + 1e-12, torch.zeros_like(metric))
    top = metric.topk(min(TOP_CELLS, metric.shape[1]), 1)
    claim = torch.zeros_like(metric).scatter_(1, top.indices, (top.values > 0).to(metric.dtype))
    # a cell claimed twice goes to the object that it fits best
    best, owner = torch.where(claim > 0, iou + 1e-6, torch.full_like(iou, -1.0)).max(0)
    owner = torch.where(best > 0, owner, torch.full_like(owner, -1))
    cells = owner.clamp(min=0)[None]
    own = torch.zeros_like(claim).scatter_(0, cells, (owner >= 0).to(claim.dtype)[None])
    strongest = (metric * own).amax(1, keepdim=True)
    reachable = (iou * own).amax(1, keepdim=True)
    quality = (metric * own / strongest.clamp(min=1e-12) * reachable).amax(0)
    return owner, quality.clamp(0, 1)


def detection_loss(output: VisionOutput, batch: Batch) -> tuple[Tensor, Tensor]:
    """(class loss, box loss): cross-entropy and generalised IoU, over the sum of wanted scores.

    Focal weights were tried and dropped: negatives then teach so little in a short run that all
    large cells of a picture keep the same scores.
    """
    assert output.class_logits is not None
    assert output.distances is not None
    logits, boxes, centres, strides = flatten_levels(
        [level.float() for level in output.class_logits], output.distances
    )
    wanted = torch.zeros_like(logits)
    weight = _negative_weights(batch, output.class_logits)[:, :, None].repeat(1, 1, logits.shape[2])
    box_loss, total = logits.new_zeros(()), logits.new_zeros(())
    probabilities = logits.detach().sigmoid()
    for i, (targets, labels, trust) in enumerate(batch.objects()):
        _ignore(weight[i], centres, targets[trust == 0], labels[trust == 0])
        solid = trust > 0
        if not solid.any():
            continue
        owner, quality = assign(
            probabilities[i], boxes[i].detach(), centres, strides, targets[solid], labels[solid]
        )
        cell = (owner >= 0).nonzero()[:, 0]
        mine, worth = owner[cell], trust[solid][owner[cell]]
        wanted[i, cell, labels[solid][mine]] = quality[cell]
        weight[i, cell, labels[solid][mine]] = worth
        share = quality[cell] * worth
        box_loss = (
            box_loss
            + ((1 - box_iou(boxes[i, cell], targets[solid][mine], generalised=True)) * share).sum()
        )
        total = total + share.sum()
    total = total.clamp(min=4.0)
    class_loss = functional.binary_cross_entropy_with_logits(
        logits, wanted, weight, reduction="sum"
    )
    return class_loss / total, box_loss / total


def _negative_weights(batch: Batch, levels: list[Tensor]) -> Tensor:
    parts = []
    for level, step in zip(levels, (1, 2, 4), strict=True):
        part = (batch.negatives * batch.valid)[:, step // 2 :: step, step // 2 :: step]
        assert part.shape[1:] == level.shape[2:]
        parts.append(part.flatten(1))
    return torch.cat(parts, 1)


def _ignore(weight: Tensor, centres: Tensor, boxes: Tensor, labels: Tensor) -> None:
    for box, label in zip(boxes, labels, strict=True):
        inside = ((centres >= box[:2]) & (centres <= box[2:])).all(1)
        weight[inside, label] = 0


def taught_detection_loss(output: VisionOutput, lesson: Lesson) -> tuple[Tensor, Tensor]:
    """(class loss, box loss) against what the detector says of every cell."""
    assert output.class_logits is not None
    assert output.distances is not None
    logits, boxes, _, _ = flatten_levels(
        [level.float() for level in output.class_logits], output.distances
    )
    best = lesson.scores.amax(2)
    total = best.sum().clamp(min=4.0)
    classes = functional.binary_cross_entropy_with_logits(logits, lesson.scores, reduction="sum")
    sure = best > LEAST_SCORE
    overlap = box_iou(boxes[sure], lesson.boxes[sure], generalised=True)
    weight = best[sure]
    return classes / total, ((1 - overlap) * weight).sum() / weight.sum().clamp(min=1.0)


def mask_loss(output: VisionOutput, batch: Batch) -> Tensor:
    """Cross-entropy against true masks at stride 4; 0 where none is known."""
    assert output.segmentation is not None
    logits = output.segmentation.float()
    fine = functional.interpolate(logits, scale_factor=2, mode="bilinear")
    truth = batch.mask[:, 2::4, 2::4].long()
    balance = logits.new_tensor(PIXEL_WEIGHTS)
    loss = functional.cross_entropy(fine, truth, balance, ignore_index=255, reduction="sum")
    return loss / balance[truth[truth != 255]].sum().clamp(min=1)


def taught_mask_loss(output: VisionOutput, batch: Batch, wanted: Tensor) -> Tensor:
    """Divergence from the segmenter's classes, `wanted` (N, classes + 1, h, w) at stride 8."""
    assert output.segmentation is not None
    teacher = wanted.log_softmax(1)
    divergence = functional.kl_div(
        output.segmentation.float().log_softmax(1), teacher, reduction="none", log_target=True
    ).sum(1)
    # where a true mask is known the teacher has a smaller say
    weight = batch.valid * torch.where(batch.mask[:, 4::8, 4::8] == 255, 1.0, 0.3)
    weight = weight * torch.where(teacher.argmax(1) > 0, FOREGROUND, 1.0)
    return (divergence * weight).sum() / weight.sum().clamp(min=1)


def presence_loss(output: VisionOutput, batch: Batch) -> Tensor:
    """Binary cross-entropy of each class, left out where presence is not known."""
    assert output.presence is not None
    logits = output.presence
    target, weight = torch.zeros_like(logits), torch.ones_like(logits)
    # "there" and "not there" weigh alike, or the probabilities would be too high; but where
    # nothing is known of what is not there, a little is learnt from what is
    known = batch.negatives.flatten(1).amin(1)
    weight *= known[:, None]
    for i, (_, labels, trust) in enumerate(batch.objects()):
        weight[i, labels[trust == 0]] = 0
        target[i, labels[trust > 0]] = 1
        weight[i, labels[trust > 0]] = known[i].clamp(min=0.2)
    loss = functional.binary_cross_entropy_with_logits(logits, target, weight, reduction="sum")
    return loss / weight.sum().clamp(min=1) * 20


def taught_presence_loss(output: VisionOutput, lesson: Lesson) -> Tensor:
    """The same against the detector's best score of each class."""
    assert output.presence is not None
    wanted = lesson.scores.amax(1)
    return functional.binary_cross_entropy_with_logits(output.presence, wanted) * 20
