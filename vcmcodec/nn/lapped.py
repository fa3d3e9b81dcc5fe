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


def _across_columns(image: Tensor, matrix: Tensor, same: Tensor | None) -> Tensor:
    if image.shape[-1] < 4 * HALF:  # a single cell has no inner edge
        return image
    inner = image[..., HALF:-HALF]
    pairs = inner.reshape(*inner.shape[:-1], -1, 2 * HALF)
    turned = pairs @ matrix.T
    if same is not None:
        keep = same.repeat_interleave(2 * HALF, 0)[..., None]
        turned = torch.where(keep, turned, pairs)
    return torch.cat([image[..., :HALF], turned.reshape(inner.shape), image[..., -HALF:]], -1)


def lapped_forward(image: Tensor, matrix: Tensor, geometry: GroupGeometry | None) -> Tensor:
    """Filter (B, C, H, W) pixels, H and W multiples of 16, along rows and then along columns."""
    same_x = geometry.same_x if geometry else None
    same_y = geometry.same_y if geometry else None
    image = _across_columns(image, matrix, same_x)
    turned = image.transpose(-1, -2)
    turned = _across_columns(turned, matrix, same_y.T if same_y is not None else None)
    return turned.transpose(-1, -2)


def lapped_inverse(image: Tensor, matrix: Tensor, geometry: GroupGeometry | None) -> Tensor:
    """Undo `lapped_forward`: the transposed filter, columns first (with masks order matters)."""
    same_x = geometry.same_x if geometry else None
    same_y = geometry.same_y if geometry else None
    turned = image.transpose(-1, -2)
    turned = _across_columns(turned, matrix.T, same_y.T if same_y is not None else None)
    return _across_columns(turned.transpose(-1, -2), matrix.T, same_x)
