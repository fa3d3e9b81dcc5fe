"""What a vision network sees in decoded latents, against what it sees in the clean picture."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Protocol

import torch
from torch import Tensor

from vcmcodec.nn.feature_transform import FeatureTransform, level_features
from vcmcodec.nn.gain import Level
from vcmcodec.vision.network import VisionNetwork, VisionOutput
from vcmcodec.vision.sight import (
    DEPTHS,
    Output,
    Seen,
    Sight,
    channel_weights,
    depth_distances,
)


class Watcher(Protocol[Output]):
    """A frozen network that measures how differently it sees behind a split point."""

    @property
    def device(self) -> torch.device:
        """Where it runs."""
        ...

    def clean(self, rgb: Tensor) -> Seen[Output]:
        """Look at pictures (N, 3, H, W) in 0..1."""
        ...

    def going_on(self, tensors: Mapping[str, Tensor]) -> Seen[Output]:
        """Go on from all tensors of a split point; gradients reach them."""
        ...

    def distance(self, seen: Seen[Output], clean: Seen[Output]) -> tuple[Tensor, dict[str, float]]:
        """How far apart two views are, about 1 where nothing is known, and its parts."""
        ...


class Eyes(Sight):
    """The reference network, frozen, as a `Watcher`; in bfloat16."""

    def __init__(self, network: VisionNetwork, crops: Sequence[Tensor]) -> None:
        """Take a folded network and clean batches (N, 3, H, W), which give the channels' spread."""
        super().__init__(network, {}, low_precision=True)
        seen = [self.clean(batch).features for batch in crops]
        self.weights = channel_weights(seen, tuple(DEPTHS))

    def decoded(self, c2: Tensor, c3: Tensor) -> Seen[VisionOutput]:
        """Go on from a rebuilt c3, beside which stands a rebuilt c2; gradients reach both."""
        return self.going_on({"c2": c2, "c3": c3})

    def near(self, c3: Tensor, clean: Seen[VisionOutput]) -> tuple[Tensor, dict[str, float]]:
        """How far a rebuilt c3 is, and the stage behind it; where learning begins.

        What lies further behind tells a c3 that is far away little (decisions/0007).
        """
        with torch.autocast(c3.device.type, torch.bfloat16):
            seen = {"c3": c3, "c4": self.network.c4(c3)}
        weights = {name: self.weights[name] for name in seen}
        parts = depth_distances(seen, clean.features, weights)
        told = {name: float(away.detach()) for name, away in parts.items()}
        return torch.stack(list(parts.values())).sum(), told


def split_tensor(
    transform: FeatureTransform, base: Tensor, level: Level, present: Tensor | None = None
) -> Tensor:
    """c3 of decoded base latents (N, rows, columns, base channels) of a rate level.

    `present` (N, rows, columns, 1) is 1 where a cell is there; None for everywhere.
    """
    if present is None:
        present = base.new_ones(*base.shape[:3], 1)
    found: Tensor = transform(base, level_features(level, transform.config.levels), present)
    return found


def report_means(means: dict[str, float], parts: Mapping[str, float], decay: float = 0.98) -> None:
    """Running means, in place."""
    for name, value in parts.items():
        means[name] = decay * means.get(name, value) + (1 - decay) * value
