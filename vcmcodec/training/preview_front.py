"""The vision network's first stages, taught on base layers' previews.

A picture larger than the network's input is looked at through the preview that its base layer gives
(`machine`).  A preview of few bits is smooth and full of the codec's own patterns, which a network
that learned on photographs has never seen.  So stem, c2 and c3 are taught to make of it what the
untaught ones make of the clean picture; everything behind them stays.
"""

from __future__ import annotations

from copy import deepcopy

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from vcmcodec.nn.transforms import Synthesis
from vcmcodec.vision.network import VisionNetwork

MULTIPLE = 32
LEAST_SIDE = 0.6  # of the sides that previews are reduced to, in the view's own


class PreviewFront(nn.Module):
    """Copies of a folded network's stem, c2 and c3 that can learn."""

    mean: Tensor
    scale: Tensor

    def __init__(self, network: VisionNetwork) -> None:
        super().__init__()
        self.register_buffer("mean", network.mean.clone())
        self.register_buffer("scale", network.scale.clone())
        self.stem, self.c2, self.c3 = (deepcopy(part) for part in network.front)
        self.requires_grad_(True)

    def forward(self, rgb: Tensor) -> tuple[Tensor, Tensor]:
        """c2 and c3 of previews (N, 3, H, W) in 0..1."""
        with torch.autocast(rgb.device.type, torch.bfloat16):
            c2 = self.c2(self.stem((rgb - self.mean) * self.scale))
            return c2, self.c3(c2)

    def tensors(self) -> dict[str, Tensor]:
        """What takes the place of the network's own tensors, by their names."""
        return {name: value.detach() for name, value in self.named_parameters()}


@torch.no_grad()
def previews(synthesis: Synthesis, latent: Tensor) -> Tensor:
    """Pictures (N, 3, 16 h, 16 w) in 0..1, of 256 levels, of base latents (N, h, w, channels)."""
    shown: Tensor = synthesis(latent, None).clamp(0, 1)
    return (shown * 255).round() / 255


def random_side(side: int, random: np.random.Generator) -> int:
    """What square views of a side are reduced to, as large pictures are to the network's input."""
    least = max(1, round(LEAST_SIDE * side / MULTIPLE))
    return MULTIPLE * int(random.integers(least, side // MULTIPLE + 1))


def reduced(rgb: Tensor, side: int) -> Tensor:
    """Scale (N, 3, n, n) to `side` pixels, as `vision.geometry.prepare` does."""
    if rgb.shape[-1] == side:
        return rgb
    return F.interpolate(rgb, (side, side), mode="bilinear", antialias=True)
