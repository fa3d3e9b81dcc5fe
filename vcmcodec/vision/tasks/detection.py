"""Detection: from class scores and distances a cell to boxes in pixels of the true picture."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from vcmcodec.vision.network import STRIDES
from vcmcodec.vision.tasks.boxes import suppress

CANDIDATES = 1000  # cells that enter suppression, best first


def cell_centres(rows: int, columns: int, device: torch.device | None = None) -> Tensor:
    """(rows * columns, 2) centres (x, y) in cells, row by row."""
    y, x = torch.meshgrid(
        torch.arange(rows, device=device) + 0.5,
        torch.arange(columns, device=device) + 0.5,
        indexing="ij",
    )
    return torch.stack((x.flatten(), y.flatten()), 1)


def flatten_levels(
    class_logits: list[Tensor], distances: list[Tensor]
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Join the levels into one list of cells.

    Returns:
        logits: (N, A, classes).
        boxes: (N, A, 4) x1 y1 x2 y2 in pixels of the network's input.
        centres: (A, 2) in pixels.
        strides: (A,) pixels.
    """
    logits, boxes, centres, strides = [], [], [], []
    for score, distance, stride in zip(class_logits, distances, STRIDES, strict=True):
        centre = cell_centres(score.shape[2], score.shape[3], score.device)
        away = distance.flatten(2).transpose(1, 2)
        corners = torch.cat((centre - away[..., :2], centre + away[..., 2:]), 2)
        logits.append(score.flatten(2).transpose(1, 2))
        boxes.append(corners * stride)
        centres.append(centre * stride)
        strides.append(torch.full((len(centre),), float(stride), device=score.device))
    return torch.cat(logits, 1), torch.cat(boxes, 1), torch.cat(centres), torch.cat(strides)


def box_iou(first: Tensor, second: Tensor, generalised: bool = False) -> Tensor:
    """Overlap of boxes (..., 4) x1 y1 x2 y2, pair by pair with broadcasting.

    `generalised` subtracts the share of the smallest enclosing box that neither covers
    (Rezatofighi et al. 2019), so that boxes which do not touch still have a gradient.
    """
    low = torch.maximum(first[..., :2], second[..., :2])
    high = torch.minimum(first[..., 2:], second[..., 2:])
    both = (high - low).clamp(min=0).prod(-1)
    area1 = (first[..., 2:] - first[..., :2]).clamp(min=0).prod(-1)
    area2 = (second[..., 2:] - second[..., :2]).clamp(min=0).prod(-1)
    union = area1 + area2 - both
    iou = both / union.clamp(min=1e-6)
    if not generalised:
        return iou
    outer_low = torch.minimum(first[..., :2], second[..., :2])
    outer_high = torch.maximum(first[..., 2:], second[..., 2:])
    outer = (outer_high - outer_low).clamp(min=0).prod(-1)
    return iou - (outer - union) / outer.clamp(min=1e-6)


@torch.no_grad()
def decode_boxes(
    class_logits: list[Tensor], distances: list[Tensor], score: float, overlap: float, limit: int
) -> list[tuple[np.ndarray, np.ndarray, np.ndarray]]:
    """Boxes of each picture of a batch.

    Args:
        class_logits: one (N, classes, h, w) a stride.
        distances: one (N, 4, h, w) a stride, in cells.
        score: lowest score that counts.
        overlap: suppression threshold.
        limit: most boxes a picture.

    Returns:
        For each picture (boxes (k, 4) x1 y1 x2 y2 in pixels of the network's input, scores (k,),
        labels (k,)), best first.
    """
    logits, boxes, _, _ = flatten_levels(class_logits, distances)
    found = []
    for scores, corners in zip(logits.float().sigmoid().cpu(), boxes.float().cpu(), strict=True):
        cell, label = (scores > score).nonzero(as_tuple=True)
        value = scores[cell, label]
        value, order = value.sort(descending=True, stable=True)
        order = order[:CANDIDATES]
        box, name = corners[cell[order]].numpy(), label[order].numpy()
        kept = suppress(box, value[:CANDIDATES].numpy(), name, overlap, limit)
        found.append((box[kept], value.numpy()[kept], name[kept]))
    return found
