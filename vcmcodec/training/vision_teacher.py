"""Teachers that look at the very views the student sees.

Only teachers under a permissive licence are opened (`TEACHERS`).  The student's stages have the
places and widths of the detection teacher's: each stage can so be taught by itself, on the
teacher's own features ("forced"), long before the stages in front of it are any good.  What is
learned is a function with other blocks, never a tensor of the teacher.
"""

from __future__ import annotations

from collections.abc import Callable, Collection
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor, nn
from torch.nn import functional

from vcmcodec.evaluation.teachers import VOC_IN_COCO, load_taps
from vcmcodec.vision.layers import ConvNorm, Fuse, Residual, channels_last
from vcmcodec.vision.network import VisionNetwork, VisionOutput

TEACHERS = {"detector": "yolox-nano.pth", "segmenter": "deeplabv3-mnv2-voc.pth"}
# student's stage, or part of one -> detector's node of the same place and width
STAGES = {
    "c2": "back4",
    "c3": "back8",
    "c4": "back16",
    "c5_halved": "c49",
    "c5_wide": "c55",
    "c5": "back32",
    "p3": "neck8",
    "p4": "neck16",
    "p5": "neck32",
}
# stage of the deep segmentation head -> segmenter's node of the same place and width
AREA_STAGES = {"mixed": "back16", "deep": "n57", "gathered": "n67"}


@dataclass(frozen=True)
class Lesson:
    """What the teachers say of a batch of views.

    Attributes:
        stages: features by the student's names, (N, C, h, w) float32.
        scores: (N, A, 20) probabilities of VOC's classes, strides 8, 16, 32 in turn.
        boxes: (N, A, 4) x1 y1 x2 y2 in pixels.
        segmentation: (N, 21, H / 8, W / 8) logits.
    """

    stages: dict[str, Tensor]
    scores: Tensor
    boxes: Tensor
    segmentation: Tensor


class Teachers:
    """Detector and segmenter, frozen."""

    def __init__(self, folder: Path, device: torch.device) -> None:
        """Load both from their folder, which holds `taps.py` as well."""
        taps = load_taps(folder)
        nets = {name: taps.Teacher(str(folder / file)) for name, file in TEACHERS.items()}
        self.detector = channels_last(nets["detector"].to(device))
        self.segmenter = channels_last(nets["segmenter"].to(device))

    @torch.no_grad()
    def stages(self, rgb: Tensor) -> dict[str, Tensor]:
        """The detector's features alone, by the student's names."""
        return self._detect(rgb)[1]

    def _detect(self, rgb: Tensor) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
        """The detector's outputs and its features."""
        rgb = rgb.contiguous(memory_format=torch.channels_last)
        with torch.autocast(rgb.device.type, torch.bfloat16):
            out, features = self.detector(rgb, taps=list(STAGES.values()))
        return out, {name: features[tap].float() for name, tap in STAGES.items()}

    @torch.no_grad()
    def look(self, rgb: Tensor) -> Lesson:
        """Show a batch (N, 3, H, W) in 0..1, sides multiples of 32, to both."""
        out, stages = self._detect(rgb)
        return Lesson(
            stages=stages,
            scores=out["scores"][:, :, list(VOC_IN_COCO)].float(),
            boxes=out["boxes"].float(),
            segmentation=self._segment(rgb, ())[1],
        )

    @torch.no_grad()
    def areas(self, rgb: Tensor) -> tuple[dict[str, Tensor], Tensor]:
        """The segmenter's stages by the head's names, and its logits at stride 8."""
        taps, logits = self._segment(rgb, AREA_STAGES.values())
        # between its cells, which are centred on pixels 16 i, lie the student's, on 16 j + 8
        stages = {name: functional.avg_pool2d(taps[tap], 2, 1) for name, tap in AREA_STAGES.items()}
        return stages, logits

    def _segment(self, rgb: Tensor, taps: Collection[str]) -> tuple[dict[str, Tensor], Tensor]:
        """Nodes of the segmenter, and its logits where the student's cells are."""
        rgb = rgb.contiguous(memory_format=torch.channels_last)
        with torch.autocast(rgb.device.type, torch.bfloat16):
            out = self.segmenter.run(rgb, {"logits", *taps})
        height, width = rgb.shape[2:]
        # cell i of the segmenter is centred on pixel 16 i, a cell of the student on 8 j + 4
        fine = functional.interpolate(
            out["logits"].float(),
            (height // 4 + 1, width // 4 + 1),
            mode="bilinear",
            align_corners=True,
        )
        return {tap: out[tap].float() for tap in taps}, fine[:, :, 1::2, 1::2]


def stage_loss(student: Tensor, teacher: Tensor) -> Tensor:
    """Squared error over the teacher's variance, strong channels softly reduced; 1 for no idea."""
    variance = teacher.var((0, 2, 3), keepdim=True)
    weight = (variance + 1e-4).rsqrt()
    return ((student.float() - teacher) ** 2 * weight).mean() / (variance * weight).mean()


def softened(own: Tensor, share: float) -> Tensor:
    """The same values, through which only a share of the gradient goes."""
    return own.detach() + (own - own.detach()) * share


def taught_features(
    network: VisionNetwork, rgb: Tensor, lesson: Lesson, chosen: Tensor, forced: float,
    through: float = 1.0, still: bool = False,
) -> tuple[dict[str, Tensor], VisionOutput]:  # fmt: skip
    """Features and outputs, made in part from the teacher's features ("teacher forcing").

    The `chosen` views (N,) show each stage the teacher's features in front of it.  The others
    show it the network's own.  A share 1 - `forced` of the heads' gradient goes on to the pyramid,
    and `through` of that from a stage to the one before: an end-to-end gradient undoes what the
    first stages have learned.  With `still`, stem, c2 and c3 are only looked through.
    """
    chosen = chosen.view(-1, 1, 1, 1).to(rgb.device)

    def given(name: str, own: Tensor, share: float) -> Tensor:
        passed = softened(own, share * (1 - forced))
        return torch.where(chosen, lesson.stages[name].to(own.dtype), passed)

    with torch.set_grad_enabled(torch.is_grad_enabled() and not still):
        c2 = network.front_end(rgb, "c2")["c2"]
        c3 = network.c3(given("c2", c2, through))
    seen3 = given("c3", c3, through)
    c4 = network.c4(seen3)
    seen4 = given("c4", c4, through)
    five = c5_in_parts(network, seen4, lambda name, own: given(name, own, through))
    c5 = five["c5"]
    levels = network.fpn(seen3, seen4, given("c5", c5, through))
    own = dict(zip(("p3", "p4", "p5"), levels, strict=True))
    output = network.back_end({name: given(name, own[name], 1.0) for name in own}, "fpn")
    return {"c2": c2, "c3": c3, "c4": c4, **five, **own}, output


def c5_in_parts(
    network: VisionNetwork, c4: Tensor, passed: Callable[[str, Tensor], Tensor]
) -> dict[str, Tensor]:
    """c5 and what is inside it: halved, and after its wide view; `passed` says what goes on."""
    halved = network.c5[0](c4)
    wide = network.c5[1](passed("c5_halved", halved))
    return {"c5_halved": halved, "c5_wide": wide, "c5": network.c5[2:](passed("c5_wide", wide))}


@torch.no_grad()
def start_at_means(network: VisionNetwork, rgb: Tensor, lesson: Lesson) -> None:
    """Let every stage of an untaught network begin at the mean of what it shall learn.

    Some channels lie far from zero (3 in c2, where the median deviation is 0.23), and a bias that
    moves by the step size needs a thousand steps to get there.

    Args:
        rgb: (N, 3, H, W), the views of the lesson.
    """
    pyramid = network.fpn
    last = {f"c{i}": getattr(network, f"c{i}")[-1] for i in (2, 3, 4)}
    last |= {"c5_halved": network.c5[0], "c5_wide": network.c5[1].expand, "c5": network.c5[-1].join}
    last |= {"p3": pyramid.merge3, "p4": pyramid.out4, "p5": pyramid.out5}
    inputs: dict[str, Tensor] = {}

    def listen(name: str) -> Callable[[nn.Module, tuple[Tensor, ...]], None]:
        return lambda _, given: inputs.__setitem__(name, given[0].detach().clone())

    hooks = [part.act.register_forward_pre_hook(listen(name)) for name, part in last.items()]
    network.train()
    every = torch.ones(len(rgb), dtype=torch.bool)
    taught_features(network, rgb, lesson, every, 1.0)
    for hook in hooks:
        hook.remove()
    for name, part in last.items():
        own = inputs[name]
        closer = _bias_towards(own.transpose(0, 1).flatten(1), lesson.stages[name].mean((0, 2, 3)))
        assert isinstance(part, ConvNorm | Residual | Fuse)
        if isinstance(part, Fuse):
            part = part.refine
        norm = (part.second if isinstance(part, Residual) else part).norm
        assert isinstance(norm, nn.BatchNorm2d)
        norm.bias.add_(closer)


def _bias_towards(own: Tensor, wanted: Tensor) -> Tensor:
    """What to add to (channels, n) so that the mean of their SiLU is `wanted`, by bisection.

    SiLU falls to -0.28 at -1.28 and rises again to the left of it; only the right side learns.
    """
    low, high = -1.2 - own.mean(1), wanted.clamp(min=0) + 4 - own.mean(1)
    for _ in range(24):
        middle = (low + high) / 2
        below = functional.silu(own + middle[:, None]).mean(1) < wanted
        low, high = torch.where(below, middle, low), torch.where(below, high, middle)
    return high
