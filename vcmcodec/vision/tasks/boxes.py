"""Boxes as numbers: overlap and non-maximum suppression, in numpy alone.

No compiled operator is needed, so this runs where torchvision's are missing.
"""

from __future__ import annotations

import numpy as np


def overlaps(first: np.ndarray, second: np.ndarray) -> np.ndarray:
    """Intersection over union of every pair.

    Args:
        first: (n, 4) x1 y1 x2 y2.
        second: (m, 4).

    Returns:
        (n, m) in 0..1; 0 where both boxes are empty.
    """
    low = np.maximum(first[:, None, :2], second[None, :, :2])
    high = np.minimum(first[:, None, 2:], second[None, :, 2:])
    both = np.clip(high - low, 0, None).prod(2)
    area = [np.clip(b[:, 2:] - b[:, :2], 0, None).prod(1) for b in (first, second)]
    union = area[0][:, None] + area[1][None, :] - both
    return both / np.maximum(union, 1e-9)


def suppress(
    boxes: np.ndarray, scores: np.ndarray, labels: np.ndarray, overlap: float, limit: int = 300
) -> np.ndarray:
    """Greedy non-maximum suppression, each class apart.

    Args:
        boxes: (n, 4) x1 y1 x2 y2.
        scores: (n,).
        labels: (n,) integers; only boxes of one label compete.
        overlap: a box is dropped if a better one overlaps it by more than this.
        limit: largest number of boxes that stay.

    Returns:
        Indices of the boxes that stay, best first; equal scores keep their order.
    """
    order = np.argsort(-scores, kind="stable")
    kept: list[int] = []
    while len(order) and len(kept) < limit:
        best, order = order[0], order[1:]
        kept.append(int(best))
        rivals = overlaps(boxes[best : best + 1], boxes[order])[0] > overlap
        order = order[~(rivals & (labels[order] == labels[best]))]
    return np.array(kept, np.int64)
