"""An orthonormal lapped filter across the edges of 16x16 cells.

Before the analysis transform each edge between two cells of one group is rotated: the 8 pixels on
either side are mapped by an orthonormal 16x16 matrix, along rows and then along columns.  It spares
4 to 8 % of the bits and the blocking, and its inverse is its transpose.  Edges between groups and
the picture's own edges are left alone, so groups stay independent and the inverse stays exact.

Source: time-domain lapped transforms, Tran, Liang, Tu, IEEE TSP 2003: P = W diag(I, V) W with
W = [[I, J], [J, -I]] / sqrt(2) and V = J C2^T C4 J.
"""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from vcmcodec.nn.geometry import GroupGeometry

HALF = 8


def _dct2(n: int) -> np.ndarray:
    k, i = np.arange(n)[:, None], np.arange(n)[None]
    matrix = np.sqrt(2 / n) * np.cos(np.pi * (i + 0.5) * k / n)
    matrix[0] /= np.sqrt(2)
    return matrix


def _dct4(n: int) -> np.ndarray:
    k, i = np.arange(n)[:, None], np.arange(n)[None]
    return np.sqrt(2 / n) * np.cos(np.pi * (i + 0.5) * (k + 0.5) / n)


def lapped_matrix(half: int = HALF) -> np.ndarray:
    """The orthonormal (2 half, 2 half) pre-filter, float64."""
    eye = np.eye(half)
    flip = eye[::-1]
    butterfly = np.block([[eye, flip], [flip, -eye]]) / np.sqrt(2)
    rotation = flip @ _dct2(half).T @ _dct4(half) @ flip
    zero = np.zeros((half, half))
    return butterfly @ np.block([[eye, zero], [zero, rotation]]) @ butterfly


def _means(size: int, count: int, like: Tensor) -> Tensor:
    """(size / count, size): takes `size` values to the means of `count` neighbours each."""
    eye = torch.eye(size // count, dtype=like.dtype, device=like.device)
    return eye.repeat_interleave(count, 1) / count


def _across_columns(image: Tensor, matrix: Tensor, same: Tensor | None, mean: int = 1) -> Tensor:
    """Turn the 16 columns about every edge between two columns of cells, and average them.

    Args:
        image: (B, C, H, W).
        matrix: (16, 16).
        same: (H / 16, W / 16 - 1) bool, whether an edge lies within a group; None: all do.
        mean: so many columns become their mean: 1, 2, 4 or 8.

    Returns:
        (B, C, H, W / mean).
    """
    whole, half = _means(2 * HALF, mean, image), _means(HALF, mean, image)
    first, inner, last = image[..., :HALF], image[..., HALF:-HALF], image[..., -HALF:]
    pairs = inner.reshape(*inner.shape[:-1], -1, 2 * HALF)  # none where there is a single cell
    turned = pairs @ (whole @ matrix).T
    if same is not None:
        keep = same.repeat_interleave(image.shape[2] // len(same), 0)[..., None]
        turned = torch.where(keep, turned, pairs if mean == 1 else pairs @ whole.T)
    if mean > 1:
        first, last = first @ half.T, last @ half.T
    return torch.cat([first, turned.flatten(-2), last], -1)


def _across_rows(image: Tensor, matrix: Tensor, same: Tensor | None, mean: int = 1) -> Tensor:
    """The same of rows, without a transposed copy of the picture; `same` (H / 16 - 1, W / 16)."""
    whole, half = _means(2 * HALF, mean, image), _means(HALF, mean, image)
    first, inner, last = image[..., :HALF, :], image[..., HALF:-HALF, :], image[..., -HALF:, :]
    pairs = inner.reshape(*inner.shape[:-2], -1, 2 * HALF, inner.shape[-1])
    turned = (whole @ matrix) @ pairs
    if same is not None:
        keep = same.repeat_interleave(image.shape[3] // same.shape[1], 1)[:, None]
        turned = torch.where(keep, turned, pairs if mean == 1 else whole @ pairs)
    if mean > 1:
        first, last = half @ first, half @ last
    return torch.cat([first, turned.flatten(-3, -2), last], -2)


def lapped_forward(image: Tensor, matrix: Tensor, geometry: GroupGeometry | None) -> Tensor:
    """Filter (B, C, H, W) pixels, H and W multiples of 16, along rows and then along columns."""
    image = _across_columns(image, matrix, geometry.same_x if geometry else None)
    return _across_rows(image, matrix, geometry.same_y if geometry else None)


def lapped_inverse(
    image: Tensor, matrix: Tensor, geometry: GroupGeometry | None, mean: int = 1
) -> Tensor:
    """Undo `lapped_forward`: the transposed filter, columns first (with masks order matters).

    Args:
        image, matrix, geometry: as there.
        mean: 1, 2, 4 or 8: give the mean of every square of so many pixels a side instead, as if it
            were taken afterwards.
    """
    image = _across_rows(image, matrix.T, geometry.same_y if geometry else None, mean)
    return _across_columns(image, matrix.T, geometry.same_x if geometry else None, mean)
