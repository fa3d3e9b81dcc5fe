"""Segmentation: from logits at a coarse stride to a class for each pixel of the true picture."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

from vcmcodec.vision.geometry import InputGeometry


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
        labels = fine[0].argmax(0).to(torch.uint8).cpu().numpy()
    return classes.to(torch.uint8).cpu().numpy()[labels]


def possible_classes(logits: Tensor) -> Tensor:
    """Classes that can win somewhere between the cells of coarse logits (classes, h, w), rising.

    Between cells a class is never above its largest neighbour, and the winner never below the
    best class's smallest; of most pictures that leaves few classes to interpolate.
    """
    around = functional.pad(logits[None], (1, 1, 1, 1), mode="replicate")
    highest = functional.max_pool2d(around, 3, 1)
    least = -functional.max_pool2d(-around, 3, 1)
    can_win = highest >= least.amax(1, keepdim=True)
    return can_win[0].flatten(1).any(1).nonzero().flatten()


def scaled_argmax(logits: Tensor, height: int, width: int, rows: int = 256) -> np.ndarray:
    """Argmax of the bilinearly scaled logits, in strips, so that memory stays small."""
    out = np.empty((height, width), np.uint8)
    x = ((torch.arange(width, device=logits.device) + 0.5) * (2 / width) - 1)[None]
    for start in range(0, height, rows):
        count = min(rows, height - start)
        y = (torch.arange(start, start + count, device=logits.device) + 0.5) * (2 / height) - 1
        grid = torch.stack((x.expand(count, width), y[:, None].expand(count, width)), 2)[None]
        strip = functional.grid_sample(
            logits[None], grid, padding_mode="border", align_corners=False
        )
        out[start : start + count] = strip[0].argmax(0).to(torch.uint8).cpu().numpy()
    return out
