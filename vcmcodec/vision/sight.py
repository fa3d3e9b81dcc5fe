"""How differently a vision network sees two pictures: a distance with a gradient.

Features at several depths and all outputs are compared.  Trainings minimise it (`training.eyes`),
and so does the encoder that writes a base layer for machines alone (`adaptation`).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import Generic, TypeVar

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from vcmcodec.torch_state import fast_bfloat16
from vcmcodec.vision.network import VisionNetwork, VisionOutput
from vcmcodec.vision.tasks.detection import box_iou, flatten_levels

# share of each depth in the distance, least where a base layer cannot know what is seen (fine
# edges in c2 and c3); the outputs have shares of their own
DEPTHS = {"c2": 0.1, "c3": 0.25, "c4": 1.0, "c5": 1.0, "p3": 1.0, "p4": 1.0, "p5": 1.0}
CLASSES, BOXES, AREAS, PRESENCE = 0.06, 0.15, 0.4, 0.5
LEAST_SCORE = 0.05


Output = TypeVar("Output")


@dataclass(frozen=True)
class Seen(Generic[Output]):
    """Features by name, (N, C, h, w), and raw outputs."""

    features: dict[str, Tensor]
    output: Output


def channel_weights(
    seen: Sequence[Mapping[str, Tensor]], names: Sequence[str]
) -> dict[str, Tensor]:
    """What the squared error of each channel of some features counts, (C, 1, 1) each.

    Strong channels are softly reduced; with these weights a distance of 1 is that of knowing
    nothing.

    Args:
        seen: features by name, (N, C, h, w), of several clean batches.
        names: of those that are wanted.
    """
    weights = {}
    for name in names:
        flat = torch.cat([s[name].float().transpose(0, 1).flatten(1) for s in seen], 1)
        spread = flat.var(1) + 1e-4
        weights[name] = (spread.rsqrt() / spread.sqrt().mean()).view(-1, 1, 1)
    return weights


def depth_distances(
    seen: Mapping[str, Tensor], clean: Mapping[str, Tensor], weights: Mapping[str, Tensor]
) -> dict[str, Tensor]:
    """Weighted mean squared error of each depth that `seen` has."""
    parts = {}
    for name, weight in weights.items():
        if name in seen:
            away = (seen[name].float() - clean[name].float()) ** 2
            parts[name] = (away * weight).mean()
    return parts


def deep_mean(parts: Mapping[str, Tensor], depths: Mapping[str, float]) -> Tensor:
    """The mean of depths' distances by the share of each."""
    deep = torch.stack([depths[name] * away for name, away in parts.items()]).sum()
    return deep / sum(depths[name] for name in parts)


class Sight(nn.Module):
    """The reference network, frozen, and what its channels count.

    Args:
        network: folded.
        weights: what the squared error of each channel counts, by depth; `channel_weights`.
        low_precision: run it in bfloat16, as trainings do; None: where that is faster.
    """

    def __init__(
        self, network: VisionNetwork, weights: Mapping[str, Tensor], *,
        low_precision: bool | None = None,
    ) -> None:  # fmt: skip
        super().__init__()
        self.network = network.requires_grad_(False).eval()
        self.weights = dict(weights)
        fast = fast_bfloat16(self.device) if low_precision is None else low_precision
        self.low_precision = fast

    @property
    def device(self) -> torch.device:
        """Where it runs."""
        return self.network.mean.device

    def precision(self) -> AbstractContextManager[object]:
        """Context in which the network runs."""
        return torch.autocast(self.device.type, torch.bfloat16, enabled=self.low_precision)

    @torch.no_grad()
    def clean(self, rgb: Tensor) -> Seen[VisionOutput]:
        """Look at pictures (N, 3, H, W) in 0..1."""
        return self.look(rgb)

    def look(self, rgb: Tensor, network: VisionNetwork | None = None) -> Seen[VisionOutput]:
        """The same with gradients, by a network with other first stages where one is given."""
        net = network or self.network
        with self.precision():
            features = net.features(rgb.contiguous(memory_format=torch.channels_last))
            return Seen(features, net.back_end(features, "fpn"))

    def going_on(self, tensors: Mapping[str, Tensor]) -> Seen[VisionOutput]:
        """Go on from the tensors of a split point; gradients reach them."""
        have, net = dict(tensors), self.network
        with self.precision():
            if "p3" not in have:
                for before, name in (("c3", "c4"), ("c4", "c5")):
                    if name not in have:
                        have[name] = getattr(net, name)(have[before])
                have["p3"], have["p4"], have["p5"] = net.fpn(have["c3"], have["c4"], have["c5"])
            return Seen(have, net.back_end(have, "fpn"))

    def distance(
        self, seen: Seen[VisionOutput], clean: Seen[VisionOutput]
    ) -> tuple[Tensor, dict[str, float]]:
        """Mean over depths and outputs, about 1 where nothing is known, and its parts.

        Depths before the split point that `seen` goes on from are not there and do not count.
        """
        parts = depth_distances(seen.features, clean.features, self.weights)
        deep = deep_mean(parts, DEPTHS)
        outputs = output_distance(seen.output, clean.output)
        total = deep + torch.stack(list(outputs.values())).sum()
        parts |= outputs
        return total, {name: float(value.detach()) for name, value in parts.items()}


def output_distance(output: VisionOutput, clean: VisionOutput) -> dict[str, Tensor]:
    """Divergence of class scores, boxes, areas and presence from those on the clean picture."""
    assert output.class_logits is not None
    assert output.distances is not None
    assert clean.class_logits is not None
    assert clean.distances is not None
    logits, boxes, _, _ = flatten_levels(
        [level.float() for level in output.class_logits], output.distances
    )
    wanted, true_boxes, _, _ = flatten_levels(
        [level.float() for level in clean.class_logits], clean.distances
    )
    wanted = wanted.sigmoid()
    best = wanted.amax(2)
    classes = _divergence(logits, wanted).sum() / best.sum().clamp(min=4.0)
    sure = best > LEAST_SCORE
    weight = best[sure]
    overlap = box_iou(boxes[sure], true_boxes[sure], generalised=True)
    box = ((1 - overlap) * weight).sum() / weight.sum().clamp(min=1.0)
    assert output.segmentation is not None
    assert clean.segmentation is not None
    areas = F.kl_div(
        output.segmentation.float().log_softmax(1),
        clean.segmentation.float().log_softmax(1),
        reduction="none",
        log_target=True,
    ).sum(1)
    assert output.presence is not None
    assert clean.presence is not None
    presence = _divergence(output.presence.float(), clean.presence.float().sigmoid()).sum(1)
    return {
        "classes": CLASSES * classes,
        "boxes": BOXES * box,
        "areas": AREAS * areas.mean(),
        "presence": PRESENCE * presence.mean(),
    }


def _divergence(logits: Tensor, wanted: Tensor) -> Tensor:
    """Of Bernoulli distributions, in nats: 0 where the answers are the same."""
    cross = F.binary_cross_entropy_with_logits(logits, wanted, reduction="none")
    own = torch.special.entr(wanted) + torch.special.entr(1 - wanted)
    return cross - own
