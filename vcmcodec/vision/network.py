"""The reference vision network: one trunk, three tasks, named split points.

    rgb -> stem /2 -> c2 /4 -> c3 /8 -> c4 /16 -> c5 /32
                                |        |         |
                                +--------+---------+--> pyramid p3 /8, p4 /16, p5 /32
                                                         |-> detection head (p3, p4, p5)
                                                         |-> segmentation heads (all, at stride 8)
                                                         `-> classification head (p5)

A split point is a place where the network can be cut.  `front_end(rgb, split)` gives the tensors
that cross the cut, all of them and no more; `back_end(features, split)` goes on from there.
`stem`, `c2` and `c3` are one tensor; from `c4` on the pyramid needs the earlier levels too.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional

from vcmcodec.errors import RequestError
from vcmcodec.vision.config import VisionConfig
from vcmcodec.vision.heads import (
    ClassificationHead,
    DeepSegmentationHead,
    DetectionHead,
    SegmentationHead,
)
from vcmcodec.vision.layers import Context, ConvNorm, CrossStage, Fuse, Residual, fold_norms

STRIDES = (8, 16, 32)
# Share of a class's log-probability of being in the picture that its areas are told: what is not
# there has none.  Any share from 0.25 to 1 does nearly as well (docs/decisions/0004).
PRIOR_SHARE = 0.5
TASKS = ("detection", "segmentation", "classification")
# what crosses each split point, and which of it each task reads
SPLITS: dict[str, tuple[str, ...]] = {
    "stem": ("stem",),
    "c2": ("c2",),
    "c3": ("c3",),
    "c4": ("c3", "c4"),
    "c5": ("c3", "c4", "c5"),
    "fpn": ("p3", "p4", "p5"),
}
STAGE_STRIDES = {"stem": 2, "c2": 4, "c3": 8, "c4": 16, "c5": 32, "p3": 8, "p4": 16, "p5": 32}


@dataclass
class VisionOutput:
    """Raw results; a task that was not asked for is None, but detection where areas need it.

    Attributes:
        tasks: that were asked for.
        class_logits: per stride (8, 16, 32): (N, classes, h, w), before the sigmoid.
        distances: per stride: (N, 4, h, w), left, top, right, bottom from the cell's centre, in
            cells, not negative.
        segmentation: (N, classes + 1, H / 8, W / 8), before softmax; channel 0 is background.
        presence: (N, classes), before the sigmoid: is the class anywhere in the picture?
    """

    tasks: frozenset[str] = frozenset()
    class_logits: list[Tensor] | None = None
    distances: list[Tensor] | None = None
    segmentation: Tensor | None = None
    presence: Tensor | None = None

    def float(self) -> VisionOutput:
        """The same in float32, whatever the network ran in."""
        logits, distances = self.class_logits, self.distances
        return VisionOutput(
            self.tasks,
            None if logits is None else [level.float() for level in logits],
            None if distances is None else [level.float() for level in distances],
            None if self.segmentation is None else self.segmentation.float(),
            None if self.presence is None else self.presence.float(),
        )


def stage(inputs: int, outputs: int, blocks: int, *extra: nn.Module) -> nn.Sequential:
    """Halve the picture, then `extra`, then refine; ends in SiLU."""
    first = ConvNorm(inputs, outputs, 3, 2, act="silu")
    acts = ["relu"] * (blocks - 1) + ["silu"]
    return nn.Sequential(first, *extra, *[Residual(outputs, acts[i]) for i in range(blocks)])


def last_stage(config: VisionConfig) -> nn.Sequential:
    """c5: halve the picture, look around widely, refine."""
    inputs, outputs, blocks = config.c4, config.c5, config.blocks[3]
    if not config.cross:
        return stage(inputs, outputs, blocks, Context(outputs, "relu"))
    first = ConvNorm(inputs, outputs, 3, 2, act="silu")
    return nn.Sequential(first, Context(outputs), CrossStage(outputs, blocks))


class Pyramid(nn.Module):
    """Top-down, then bottom-up fusion of c3, c4, c5 into p3, p4, p5."""

    def __init__(self, config: VisionConfig) -> None:
        super().__init__()
        w3, w4, w5 = config.pyramid
        self.lateral5 = ConvNorm(config.c5, w4, 1)
        self.merge4 = Fuse(w4 + config.c4, w4)
        self.lateral4 = ConvNorm(w4, w3, 1)
        self.merge3 = Fuse(w3 + config.c3, w3)
        self.down4 = ConvNorm(w3, w3, 3, 2)
        self.out4 = Fuse(2 * w3, w4)
        self.down5 = ConvNorm(w4, w4, 3, 2)
        self.out5 = Fuse(2 * w4, w5)

    def forward(self, c3: Tensor, c4: Tensor, c5: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Levels at strides 8, 16, 32."""
        t5 = self.lateral5(c5)
        t4 = self.lateral4(self.merge4(functional.interpolate(t5, c4.shape[2:]), c4))
        p3 = self.merge3(functional.interpolate(t4, c3.shape[2:]), c3)
        p4 = self.out4(self.down4(p3), t4)
        p5 = self.out5(self.down5(p4), t5)
        return p3, p4, p5


def soften_stages(network: nn.Module) -> None:
    """Let the features of an untaught network be about as large as those they learn from."""
    for part in network.modules():
        if isinstance(part, Residual):
            nn.init.constant_(_gain(part.second), 0.25)
        elif isinstance(part, Fuse):
            nn.init.constant_(_gain(part.mix), 0.4)
            nn.init.constant_(_gain(part.refine), 0.25)
        elif isinstance(part, CrossStage):
            nn.init.constant_(_gain(part.join), 0.25)
        elif isinstance(part, Context):
            nn.init.constant_(_gain(part.expand), 0.25)
        elif isinstance(part, nn.Sequential) and isinstance(part[-1], Residual | CrossStage):
            first = part[0] if isinstance(part[0], ConvNorm) else None
            if first is not None:
                nn.init.constant_(_gain(first), 0.4)


def _gain(layer: ConvNorm) -> Tensor:
    assert isinstance(layer.norm, nn.BatchNorm2d)
    return layer.norm.weight


class VisionNetwork(nn.Module):
    """Backbone, pyramid and the three heads."""

    mean: Tensor
    scale: Tensor

    def __init__(self, config: VisionConfig | None = None) -> None:
        super().__init__()
        self.config = config = config or VisionConfig()
        self.register_buffer("mean", torch.tensor([0.45, 0.44, 0.41]).view(1, 3, 1, 1))
        self.register_buffer("scale", torch.tensor([3.7, 3.7, 3.6]).view(1, 3, 1, 1))
        self.stem = ConvNorm(3, config.stem, 6, 2, act="silu")
        self.c2 = stage(config.stem, config.c2, config.blocks[0])
        self.c3 = stage(config.c2, config.c3, config.blocks[1])
        self.c4 = stage(config.c3, config.c4, config.blocks[2])
        self.c5 = last_stage(config)
        self.fpn = Pyramid(config)
        self.detection = DetectionHead(config)
        self.segmentation = SegmentationHead(config)
        self.areas = DeepSegmentationHead(config) if config.areas else None
        self.classification = ClassificationHead(config)
        soften_stages(self)

    @property
    def front(self) -> tuple[nn.Module, ...]:
        """Stem, c2 and c3."""
        return self.stem, self.c2, self.c3

    def forward(self, rgb: Tensor, tasks: Collection[str] = TASKS) -> VisionOutput:
        """Run the whole network.

        Args:
            rgb: (N, 3, H, W) in 0..1, H and W multiples of 32.
            tasks: names from `TASKS`; the others are not computed.
        """
        return self.back_end(self.front_end(rgb, "c3"), "c3", tasks)

    def front_end(self, rgb: Tensor, split: str) -> dict[str, Tensor]:
        """Everything that crosses the split point, by name (see `SPLITS`).

        Raises:
            RequestError: an unknown split point, or sides that are not multiples of 32.
        """
        check_split(split)
        if rgb.shape[-1] % 32 or rgb.shape[-2] % 32:
            raise RequestError(f"sides {tuple(rgb.shape[-2:])} are not multiples of 32")
        return self._run({"rgb": rgb}, SPLITS[split])

    def back_end(
        self, features: Mapping[str, Tensor], split: str, tasks: Collection[str] = TASKS
    ) -> VisionOutput:
        """Go on from the tensors of a split point.

        Args:
            features: what `front_end` gave; tensors that no asked task reads may be missing.
            split: name of the split point.
            tasks: names from `TASKS`.

        Raises:
            RequestError: an unknown name, or a tensor that a task needs is missing.
        """
        for task in tasks:
            if task not in TASKS:
                raise RequestError(f"unknown task {task}; there are {', '.join(TASKS)}")
        needed = crossing(split, tasks)
        missing = [name for name in needed if name not in features]
        if missing:
            raise RequestError(f"split {split} needs {', '.join(missing)} for {', '.join(tasks)}")
        wanted = set().union(*(_HEAD_INPUTS[task] for task in tasks))
        have = self._run({name: features[name] for name in needed}, wanted)
        output = VisionOutput(frozenset(tasks))
        if {"detection", "segmentation"} & output.tasks:  # areas are told of objects
            levels = (have["p3"], have["p4"], have["p5"])
            output.class_logits, output.distances = self.detection(levels)
        presence = self.classification(have["p5"]) if set(tasks) - {"detection"} else None
        if "segmentation" in tasks:
            assert presence is not None
            areas = self._areas(have["p3"], have["p4"], have["p5"])
            prior = PRIOR_SHARE * functional.logsigmoid(presence.detach())
            output.segmentation = areas + functional.pad(prior, (1, 0))[:, :, None, None]
        if "classification" in tasks:
            output.presence = presence
        return output

    def _areas(self, *levels: Tensor) -> Tensor:
        """Logits of the areas; where there are two heads, the mean of what both find likely."""
        light = self.segmentation(*levels)
        if self.areas is None:
            return light
        return 0.5 * (light.float().log_softmax(1) + self.areas(*levels).float().log_softmax(1))

    def features(self, rgb: Tensor) -> dict[str, Tensor]:
        """All named tensors of one run, for distillation and feature losses."""
        return self._run({"rgb": rgb}, ("stem", "c2", "c3", "c4", "c5", "p3", "p4", "p5"))

    def _run(self, have: dict[str, Tensor], wanted: Collection[str]) -> dict[str, Tensor]:
        have = dict(have)
        if "rgb" in have:
            have["stem"] = self.stem((have.pop("rgb") - self.mean) * self.scale)
        pyramid = any(name.startswith("p") and name not in have for name in wanted)
        deepest = (
            5
            if pyramid
            else max((int(n[1]) for n in wanted if n[0] == "c" and n not in have), default=0)
        )
        for level, before in ((2, "stem"), (3, "c2"), (4, "c3"), (5, "c4")):
            name = f"c{level}"
            if level <= deepest and name not in have and before in have:
                have[name] = getattr(self, name)(have[before])
        if pyramid:
            have["p3"], have["p4"], have["p5"] = self.fpn(have["c3"], have["c4"], have["c5"])
        return {name: have[name] for name in wanted}

    def fold(self) -> VisionNetwork:
        """Merge every batch norm, in place, and go to evaluation; returns self."""
        self.eval()
        fold_norms(self)
        return self


_HEAD_INPUTS = {
    "detection": {"p3", "p4", "p5"},
    "segmentation": {"p3", "p4", "p5"},
    "classification": {"p5"},
}


def check_split(split: str) -> None:
    """Raise RequestError unless `split` names a split point."""
    if split not in SPLITS:
        raise RequestError(f"unknown split point {split}; there are {', '.join(SPLITS)}")


def crossing(split: str, tasks: Collection[str] = TASKS) -> tuple[str, ...]:
    """Names of the tensors at a split point that the given tasks need.

    At the split point fpn classification alone, for example, needs p5 only.
    """
    check_split(split)
    names = SPLITS[split]
    if split != "fpn":
        return names
    reads = set().union(*(_HEAD_INPUTS[task] for task in tasks))
    return tuple(name for name in names if name in reads)
