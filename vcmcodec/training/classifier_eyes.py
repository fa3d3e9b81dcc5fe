"""A frozen classifier of torchvision as the judge of what comes through its units."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from PIL import Image
from torch import Tensor, nn

from vcmcodec.training.photographs import PhotographCrops
from vcmcodec.vision.cut_classifier import CutClassifier
from vcmcodec.vision.sight import Seen, channel_weights, deep_mean, depth_distances

# share of each depth in the distance, as in `sight.DEPTHS`; of all that are not named, 1
EARLY = {"stem": 0.3, "layer1": 0.3, "layer2": 0.5}
# of the divergence of classes: some 6 nats of a thousand classes are about 1 of the distance
CLASSES = 0.15


class ClassifierEyes(nn.Module):
    """A frozen classifier that measures how differently it sees (`eyes.Watcher`)."""

    def __init__(self, network: CutClassifier, crops: Sequence[Tensor]) -> None:
        """Take a network and clean batches (N, 3, H, W), which give the channels' spread."""
        super().__init__()
        self.network = network
        self.depths = {name: EARLY.get(name, 1.0) for name in network.splits}
        seen = [self.clean(batch).features for batch in crops]
        self.weights = channel_weights(seen, network.splits)

    @property
    def device(self) -> torch.device:
        """Where it runs."""
        return self.network.device

    @torch.no_grad()
    def clean(self, rgb: Tensor) -> Seen[Tensor]:
        """Look at pictures (N, 3, H, W) in 0..1."""
        with torch.autocast(rgb.device.type, torch.bfloat16):
            features = self.network.features(rgb)
            return Seen(features, self.network.classify(features))

    def going_on(self, tensors: Mapping[str, Tensor]) -> Seen[Tensor]:
        """Go on from the one tensor of a split point; gradients reach it."""
        ((split, tensor),) = tensors.items()
        with torch.autocast(tensor.device.type, torch.bfloat16):
            features = self.network.deeper(tensor, split)
            return Seen(features, self.network.classify(features))

    def distance(self, seen: Seen[Tensor], clean: Seen[Tensor]) -> tuple[Tensor, dict[str, float]]:
        """Mean over depths and the divergence of classes, and its parts.

        Depths before the split point that `seen` goes on from are not there and do not count.
        """
        parts = depth_distances(seen.features, clean.features, self.weights)
        classes = CLASSES * F.kl_div(
            seen.output.float().log_softmax(1),
            clean.output.float().log_softmax(1),
            reduction="batchmean",
            log_target=True,
        )
        total = deep_mean(parts, self.depths) + classes
        parts["classes"] = classes
        return total, {name: float(value.detach()) for name, value in parts.items()}


class ClassifierCrops(PhotographCrops):
    """The greater part of a picture pressed into a square, as a classifier looks at it.

    Args:
        sources: folders, tar shards, files.
        size: side in pixels; pictures with a side below it are left out.
    """

    LEAST = 0.6  # of a picture's sides that a crop has

    def __init__(self, sources: Sequence[Path], size: int) -> None:
        super().__init__(sources, size, upright=True)

    def _crop(self, random: np.random.Generator) -> np.ndarray:
        rgb = self.pictures[int(random.integers(len(self.pictures)))]
        height, width = rgb.shape[:2]
        rows, columns = (round(n * random.uniform(self.LEAST, 1.0)) for n in (height, width))
        top, left = random.integers(height - rows + 1), random.integers(width - columns + 1)
        crop = Image.fromarray(rgb[top : top + rows, left : left + columns])
        whole = np.asarray(crop.resize((self.size, self.size), Image.Resampling.BILINEAR))
        return whole[:, ::-1] if random.random() < 0.5 else whole
