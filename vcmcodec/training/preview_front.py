"""The vision network's first stages, taught on base layers' previews.

A picture larger than the network's input is looked at through the preview that its base layer gives
(`machine`).  A preview of few bits is smooth and full of the codec's own patterns, which a network
that learned on photographs has never seen.  So stem, c2 and c3 are taught to make of it what the
untaught ones make of the clean picture; everything behind them stays.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from copy import deepcopy

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from vcmcodec.nn.transforms import Synthesis
from vcmcodec.training.eyes import Eyes
from vcmcodec.vision.network import VisionNetwork

MULTIPLE = 32
CELL = 16
SHARES = (0.0, 0.125, 0.25, 0.375, 0.5, 0.625, 0.75, 0.875, 1.0)
SHARE_QUALITIES = (0.0, 20.0, 30.0, 40.0, 50.0, 60.0, 70.0, 80.0, 90.0, 100.0)
LEAST_SIDE = 0.6  # of a reduced view, in what it was before


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


def mixed(front: PreviewFront, network: VisionNetwork, share: float) -> PreviewFront:
    """A front of which a share is what was taught, and the rest the network's own."""
    out = PreviewFront(network)
    with torch.no_grad():
        for own, taught in zip(out.parameters(), front.parameters(), strict=True):
            own.lerp_(taught, share)
    return out.requires_grad_(False)


@torch.no_grad()
def best_shares(
    front: PreviewFront, eyes: Eyes, look: Callable[[float], Iterable[tuple[Tensor, Tensor]]]
) -> list[tuple[float, float]]:
    """At some qualities of the base layer, the share of a front that sees best.

    Args:
        front: as taught.
        eyes: measure what is seen.
        look: previews (N, 3, H, W) of a quality, 0..100, and the clean views of the same size.
    """
    fronts = {share: mixed(front, eyes.network, share) for share in SHARES}
    found = []
    for quality in SHARE_QUALITIES:
        away = dict.fromkeys(SHARES, 0.0)
        for preview, clean in look(quality):
            wanted = eyes.clean(clean)
            for share, one in fronts.items():
                away[share] += float(eyes.distance(eyes.decoded(*one(preview)), wanted)[0])
        found.append((quality, min(SHARES, key=lambda share: away[share])))
    return found


@torch.no_grad()
def previews(synthesis: Synthesis, latent: Tensor) -> Tensor:
    """Pictures (N, 3, 16 h, 16 w) in 0..1, of 256 levels, of base latents (N, h, w, channels)."""
    shown: Tensor = synthesis(latent, None).clamp(0, 1)
    return (shown * 255).round() / 255


def random_sides(side: int, random: np.random.Generator) -> tuple[int, int]:
    """Sides at which square views of a side are coded and looked at, as large pictures are.

    A third is coded as it is, and the preview reduced to the network's input.  The others are
    reduced before they are coded, to that input or further, and the preview enlarged.
    """
    least = max(1, round(LEAST_SIDE * side / MULTIPLE))
    seen = MULTIPLE * int(random.integers(least, side // MULTIPLE + 1))
    if random.random() < 1 / 3:
        return side, seen
    least = max(1, round(LEAST_SIDE * seen / CELL))
    return CELL * int(random.integers(least, seen // CELL + 1)), seen


def scaled(rgb: Tensor, side: int) -> Tensor:
    """Scale (N, 3, n, n) to `side` pixels, as `vision.geometry.fill` does."""
    if rgb.shape[-1] == side:
        return rgb
    return F.interpolate(rgb, (side, side), mode="bilinear", antialias=True)
