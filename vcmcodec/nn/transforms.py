"""Analysis and synthesis transform of the picture profiles.

    pixels -> lapped filter -> 8x8 patches -> patch map -> blocks at stride 8
           -> 2x2 merge -> merge map -> blocks at stride 16 -> latent
    latent -> blocks at stride 16 -> merge map -> 2x2 split -> blocks at stride 8
           -> patch map -> 8x8 patches -> lapped filter -> pixels

The encoder is nested (blocks.NestedLinear), the decoder slimmable.  All maps start as the KLT of
photographs (`klt.py`) and all residual branches at zero: training starts from a transform codec.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from vcmcodec.nn.blocks import (
    NestedBlock,
    NestedLinear,
    SlimmableBlock,
    SlimmableLinear,
    part_slices,
)
from vcmcodec.nn.geometry import GroupGeometry
from vcmcodec.nn.lapped import lapped_forward, lapped_inverse, lapped_matrix

PATCH = 8
PATCH_VALUES = 3 * PATCH * PATCH


@dataclass(frozen=True)
class TransformShape:
    """Widths and depths of a pair of transforms.

    Attributes:
        trunk: channels at stride 8, one number a width.
        latent: channels at stride 16, one number a width.
        trunk_blocks, latent_blocks: residual blocks at either stride, in each transform.
    """

    trunk: tuple[int, ...]
    latent: tuple[int, ...]
    trunk_blocks: int
    latent_blocks: int

    @property
    def merged(self) -> tuple[int, ...]:
        """Channels after the 2x2 merge."""
        return tuple(4 * c for c in self.trunk)

    @property
    def halo_cells(self) -> int:
        """Cells around a rectangle that its own values depend on, in either transform."""
        pixels = 16 * self.latent_blocks + PATCH * self.trunk_blocks + 8
        return -(-pixels // 16)


def merge_2x2(x: Tensor) -> Tensor:
    """(B, 2h, 2w, C) -> (B, h, w, 4C), channel-major, so that a prefix of channels stays one."""
    b, h, w, c = x.shape
    x = x.reshape(b, h // 2, 2, w // 2, 2, c).permute(0, 1, 3, 5, 2, 4)
    return x.reshape(b, h // 2, w // 2, 4 * c)


def split_2x2(x: Tensor) -> Tensor:
    """Undo `merge_2x2`."""
    b, h, w, c = x.shape
    x = x.reshape(b, h, w, c // 4, 2, 2).permute(0, 1, 4, 2, 5, 3)
    return x.reshape(b, 2 * h, 2 * w, c // 4)


def to_patches(image: Tensor) -> Tensor:
    """(B, 3, H, W) -> (B, H/8, W/8, 192): colour planes one after the other, each row by row."""
    return F.pixel_unshuffle(image, PATCH).permute(0, 2, 3, 1)


def from_patches(patches: Tensor) -> Tensor:
    """Undo `to_patches`."""
    return F.pixel_shuffle(patches.permute(0, 3, 1, 2), PATCH)


class Analysis(nn.Module):
    """g_a: pixels (B, 3, H, W) in 0..1 -> latent parts (B, H/16, W/16, channels a width adds)."""

    def __init__(self, shape: TransformShape) -> None:
        super().__init__()
        self.shape = shape
        self.lapped: Tensor
        self.register_buffer("lapped", torch.from_numpy(lapped_matrix()).float(), persistent=False)
        self.mean = nn.Parameter(torch.full((PATCH_VALUES,), 0.45))
        self.patch = nn.Parameter(torch.eye(shape.trunk[-1], PATCH_VALUES))
        self.trunk_blocks = nn.ModuleList(
            NestedBlock(shape.trunk) for _ in range(shape.trunk_blocks)
        )
        self.merge = NestedLinear(shape.merged, shape.latent)
        self.latent_blocks = nn.ModuleList(
            NestedBlock(shape.latent) for _ in range(shape.latent_blocks)
        )

    def forward(self, image: Tensor, geometry: GroupGeometry | None, widths: int) -> list[Tensor]:
        """Compute the parts of the first `widths` widths."""
        masks8 = geometry.masks8 if geometry else None
        masks16 = geometry.masks16 if geometry else None
        patches = to_patches(lapped_forward(image, self.lapped, geometry)) - self.mean
        parts = [
            F.linear(patches, self.patch[rows]) for rows in part_slices(self.shape.trunk)[:widths]
        ]
        for block in self.trunk_blocks:
            parts = block(parts, masks8)
        parts = self.merge([merge_2x2(p) for p in parts])
        for block in self.latent_blocks:
            parts = block(parts, masks16)
        return parts


class Synthesis(nn.Module):
    """g_s: latent (B, h, w, channels of one width) -> pixels (B, 3, 16h, 16w), about 0..1."""

    def __init__(self, shape: TransformShape) -> None:
        super().__init__()
        self.shape = shape
        self.lapped: Tensor
        self.register_buffer("lapped", torch.from_numpy(lapped_matrix()).float(), persistent=False)
        self.latent_blocks = nn.ModuleList(
            SlimmableBlock(shape.latent[-1]) for _ in range(shape.latent_blocks)
        )
        self.split = SlimmableLinear(shape.latent[-1], shape.merged[-1])
        self.trunk_blocks = nn.ModuleList(
            SlimmableBlock(shape.trunk[-1]) for _ in range(shape.trunk_blocks)
        )
        self.patch = SlimmableLinear(shape.trunk[-1], PATCH_VALUES)

    def forward(self, latent: Tensor, geometry: GroupGeometry | None, mean: int = 1) -> Tensor:
        """Rebuild pixels; the width is known by the number of channels.

        With a `mean` of 2, 4 or 8: the mean of every square of so many pixels a side, for less.
        """
        width = self.shape.latent.index(latent.shape[-1])
        masks8 = geometry.masks8 if geometry else None
        masks16 = geometry.masks16 if geometry else None
        for block in self.latent_blocks:
            latent = block(latent, masks16)
        trunk = split_2x2(self.split(latent, self.shape.merged[width]))
        for block in self.trunk_blocks:
            trunk = block(trunk, masks8)
        pixels = from_patches(self.patch(trunk, PATCH_VALUES))
        return lapped_inverse(pixels, self.lapped, geometry, mean)
