"""Heads of the reference vision network: what they read is the pyramid, and nothing else."""

from __future__ import annotations

from collections.abc import Callable
from typing import ClassVar

import torch
from torch import Tensor, nn
from torch.nn import functional

from vcmcodec.vision.config import VisionConfig
from vcmcodec.vision.layers import Context, ConvNorm, CrossStage, Residual, Separable


def _start(out: nn.Module, bias: float) -> None:
    """Small weights and a chosen bias for the last layer of a head."""
    assert isinstance(out, nn.Conv2d)
    assert out.bias is not None
    nn.init.normal_(out.weight, std=0.01)
    nn.init.constant_(out.bias, bias)


class DetectionHead(nn.Module):
    """Anchor-free: class scores and four distances a cell, own weights for each level."""

    def __init__(self, config: VisionConfig) -> None:
        super().__init__()
        levels = config.pyramid
        self.class_towers = nn.ModuleList(
            nn.Sequential(Separable(width, config.head), Separable(config.head, config.head))
            for width in levels
        )
        self.box_towers = nn.ModuleList(
            nn.Sequential(Separable(width, config.head), Separable(config.head, config.head))
            for width in levels
        )
        self.class_outs = nn.ModuleList(nn.Conv2d(config.head, config.classes, 1) for _ in levels)
        self.box_outs = nn.ModuleList(nn.Conv2d(config.head, 4, 1) for _ in levels)
        for out in self.class_outs:
            _start(out, -4.6)  # prior of one hit in a hundred cells
        for out in self.box_outs:
            _start(out, 2.5)  # boxes of five cells to begin with

    def forward(self, levels: tuple[Tensor, ...]) -> tuple[list[Tensor], list[Tensor]]:
        """(class logits, distances in cells), one tensor a level each."""
        scores, distances = [], []
        for i, level in enumerate(levels):
            scores.append(self.class_outs[i](self.class_towers[i](level)))
            distances.append(
                functional.softplus(self.box_outs[i](self.box_towers[i](level)).float())
            )
        return scores, distances


class SegmentationHead(nn.Module):
    """Class logits at stride 8 from all pyramid levels."""

    def __init__(self, config: VisionConfig) -> None:
        super().__init__()
        w3, w4, w5 = config.pyramid
        width = config.segmentation
        self.lateral3 = ConvNorm(w3, width, 1, act="")
        self.lateral4 = ConvNorm(w4, width, 1, act="")
        self.lateral5 = ConvNorm(w5, width, 1, act="")
        self.tower = nn.Sequential(nn.ReLU(inplace=True), Residual(width), Separable(width, width))
        self.out = nn.Conv2d(width, config.classes + 1, 1)

    def forward(self, p3: Tensor, p4: Tensor, p5: Tensor) -> Tensor:
        """(N, classes + 1, h, w) logits at the stride of p3."""
        fine = p3.shape[2:]
        mixed = self.lateral4(p4)
        deep = functional.interpolate(self.lateral5(p5), mixed.shape[2:], mode="bilinear")
        mixed = functional.interpolate(mixed + deep, fine, mode="bilinear")
        return self.out(self.tower(self.lateral3(p3) + mixed))


class DeepSegmentationHead(nn.Module):
    """Class logits at stride 8 by way of three stages at stride 16, each taught by itself.

    p3, p4, p5 -> `mixed`, 96 channels -> `deep`, 160 -> `gathered`, 256, which know the mean of the
    whole picture -> with p3, logits.  Places and widths of the stages are those of a segmenter that
    teaches them (`training.vision_areas`).
    """

    STAGES: ClassVar[dict[str, int]] = {"mixed": 96, "deep": 160, "gathered": 256}
    BLOCKS = 3

    def __init__(self, config: VisionConfig) -> None:
        super().__init__()
        w3, w4, w5 = config.pyramid
        wide, deep, fine = config.areas, config.areas * 6 // 5, config.segmentation
        mixed, middle, gathered = self.STAGES.values()
        self.down = ConvNorm(w3, w3, 3, 2)
        self.mix = nn.Sequential(
            ConvNorm(w3 + w4 + w5, wide, 1, act="silu"),
            Context(wide),
            CrossStage(wide, self.BLOCKS),
            nn.Conv2d(wide, mixed, 1),
        )
        self.deepen = nn.Sequential(
            ConvNorm(mixed, deep, 1, act="silu"),
            CrossStage(deep, self.BLOCKS),
            nn.Conv2d(deep, middle, 1),
        )
        self.near = ConvNorm(middle, gathered, 1)
        self.whole = nn.Conv2d(middle, gathered, 1)
        self.join = ConvNorm(2 * gathered, gathered, 1)
        self.coarse = nn.Conv2d(gathered, config.classes + 1, 1)
        self.lateral3 = ConvNorm(w3, fine, 1, act="")
        self.lateral = ConvNorm(gathered, fine, 1, act="")
        self.tower = nn.Sequential(nn.ReLU(inplace=True), Residual(fine), Separable(fine, fine))
        self.out = nn.Conv2d(fine, config.classes + 1, 1)
        nn.init.zeros_(self.out.weight)

    def forward(self, p3: Tensor, p4: Tensor, p5: Tensor) -> Tensor:
        """(N, classes + 1, h, w) logits at the stride of p3."""
        return self.in_parts((p3, p4, p5), lambda _, own: own)[1]

    def in_parts(
        self, levels: tuple[Tensor, Tensor, Tensor], passed: Callable[[str, Tensor], Tensor]
    ) -> tuple[dict[str, Tensor], Tensor]:
        """The stages by name, and the logits; `passed(name, own)` says what goes on of a stage."""
        p3, p4, p5 = levels
        coarsest = functional.interpolate(p5, p4.shape[2:])
        mixed = self.mix(torch.cat([self.down(p3), p4, coarsest], 1))
        deep = self.deepen(passed("mixed", mixed))
        gathered = self._gather(passed("deep", deep))
        stages = {"mixed": mixed, "deep": deep, "gathered": gathered}
        return stages, self._answer(p3, passed("gathered", gathered))

    def _gather(self, deep: Tensor) -> Tensor:
        whole = functional.relu(self.whole(deep.mean((2, 3), keepdim=True)))
        return self.join(torch.cat([self.near(deep), whole.expand(-1, -1, *deep.shape[2:])], 1))

    def _answer(self, p3: Tensor, gathered: Tensor) -> Tensor:
        size = p3.shape[2:]
        coarse = functional.interpolate(self.coarse(gathered), size, mode="bilinear")
        beside = functional.interpolate(self.lateral(gathered), size, mode="bilinear")
        return coarse + self.out(self.tower(self.lateral3(p3) + beside))


class ClassificationHead(nn.Module):
    """Presence of each class: the mean and the maximum of a class map at stride 32."""

    def __init__(self, config: VisionConfig) -> None:
        super().__init__()
        self.tower = ConvNorm(config.pyramid[2], config.pyramid[2], 1)
        self.out = nn.Conv2d(config.pyramid[2], config.classes, 1)
        _start(self.out, -2.0)  # a class is in one picture of eight

    def forward(self, p5: Tensor) -> Tensor:
        """(N, classes) logits."""
        scores = self.out(self.tower(p5)).float()
        return 0.5 * (scores.mean((2, 3)) + scores.amax((2, 3)))
