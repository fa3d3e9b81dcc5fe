"""Segmentation: from logits at a coarse stride to a class for each pixel of the true picture."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

from vcmcodec.vision.geometry import InputGeometry

# A box tells of its class's areas inside it by the logarithm of its score over NEUTRAL; where there
# is none, as if it had a score of LEAST.  Chosen on training pictures, where any values near them
# do as well (docs/decisions/0004).
NEUTRAL, LEAST = 0.3, 0.07


@torch.no_grad()
def told_of_objects(
    logits: Tensor, boxes: np.ndarray, scores: np.ndarray, labels: np.ndarray, stride: int = 8
) -> Tensor:
    """Areas that know of the objects that were found.

    Args:
        logits: (classes + 1, h, w) of one picture, cells of `stride` input pixels.
        boxes: (n, 4) x1 y1 x2 y2 in pixels of the network's input.
        scores: (n,) 0..1; those below `LEAST` say nothing.
        labels: (n,) classes, without background.
        stride: input pixels a cell.

    Returns:
        Logits of the same shape.
    """
    classes, rows, columns = logits.shape
    best = np.full((classes - 1, rows, columns), LEAST, np.float32)
    corners = np.round(boxes / stride).astype(np.int64).clip(0)
    for (left, top, right, bottom), score, label in zip(corners, scores, labels, strict=True):
        inside = best[label, top : max(bottom, top + 1), left : max(right, left + 1)]
        np.maximum(inside, score, out=inside)
    told = logits.clone()
    told[1:] += torch.from_numpy(np.log(best / NEUTRAL)).to(logits)
    return told


@torch.no_grad()
def decode_label_map(logits: Tensor, geometry: InputGeometry, stride: int = 8) -> np.ndarray:
    """Class of each pixel.

    Args:
        logits: (classes + 1, h, w) of one picture, cells of `stride` input pixels.
        geometry: how the picture was scaled and padded.
        stride: input pixels a cell.

    Returns:
        (H, W) uint8 of the true picture, 0 = background.
    """
    whole = logits.shape[1] * stride, logits.shape[2] * stride
    logits = logits.float().contiguous()
    classes = possible_classes(logits)
    fine = functional.interpolate(logits[None, classes], whole, mode="bilinear")
    fine = fine[:, :, : geometry.scaled_height, : geometry.scaled_width]
    if (geometry.scaled_height, geometry.scaled_width) != (geometry.height, geometry.width):
        labels = scaled_argmax(fine[0], geometry.height, geometry.width)
    else:
        labels = fine[0].max(0).indices.to(torch.uint8).cpu().numpy()
    return classes.to(torch.uint8).cpu().numpy()[labels]


def possible_classes(logits: Tensor) -> Tensor:
    """Classes that can win somewhere between the cells of coarse logits (classes, h, w), rising.

    Between cells a class is never above its largest neighbour, and the winner never below the
    best class's smallest; of most pictures that leaves few classes to interpolate.
    """
    around = functional.pad(logits[None], (1, 1, 1, 1), mode="replicate")[0]
    highest = _of_3x3(around, torch.maximum)
    least = _of_3x3(around, torch.minimum)
    can_win = highest >= least.amax(0)
    return can_win.flatten(1).any(1).nonzero().flatten()


def _of_3x3(padded: Tensor, of_two: Callable[[Tensor, Tensor], Tensor]) -> Tensor:
    """Extremes of 3x3 neighbourhoods, (C, h + 2, w + 2) to (C, h, w); faster than pooling."""
    rows = of_two(of_two(padded[:, :-2], padded[:, 1:-1]), padded[:, 2:])
    return of_two(of_two(rows[..., :-2], rows[..., 1:-1]), rows[..., 2:])


def scaled_argmax(logits: Tensor, height: int, width: int, rows: int = 256) -> np.ndarray:
    """Argmax of the bilinearly scaled logits, in strips, so that memory stays small.

    By `max`, which finds the same indices along the first dimension in a tenth of `argmax`'s time.
    """
    out = np.empty((height, width), np.uint8)
    x = ((torch.arange(width, device=logits.device) + 0.5) * (2 / width) - 1)[None]
    for start in range(0, height, rows):
        count = min(rows, height - start)
        y = (torch.arange(start, start + count, device=logits.device) + 0.5) * (2 / height) - 1
        grid = torch.stack((x.expand(count, width), y[:, None].expand(count, width)), 2)[None]
        strip = functional.grid_sample(
            logits[None], grid, padding_mode="border", align_corners=False
        )
        out[start : start + count] = strip[0].max(0).indices.to(torch.uint8).cpu().numpy()
    return out
