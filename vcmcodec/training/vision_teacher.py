"""Teachers that look at the very views the student sees.

Only teachers under a permissive licence are opened (`TEACHERS`).  The student's stages have the
places and widths of the detection teacher's: each stage can so be taught by itself, on the
teacher's own features ("forced"), long before the stages in front of it are any good.  What is
learned is a function with other blocks, never a tensor of the teacher.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor
from torch.nn import functional

from vcmcodec.evaluation.teachers import VOC_IN_COCO, load_taps
from vcmcodec.vision.layers import channels_last

TEACHERS = {"detector": "yolox-nano.pth", "segmenter": "deeplabv3-mnv2-voc.pth"}
# student's stage -> detector's node of the same place and width
STAGES = {
    "c2": "back4",
    "c3": "back8",
    "c4": "back16",
    "c5": "back32",
    "p3": "neck8",
    "p4": "neck16",
    "p5": "neck32",
}


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
    def look(self, rgb: Tensor) -> Lesson:
        """Show a batch (N, 3, H, W) in 0..1, sides multiples of 32, to both."""
        rgb = rgb.contiguous(memory_format=torch.channels_last)
        with torch.autocast(rgb.device.type, torch.bfloat16):
            out, features = self.detector(rgb, taps=list(STAGES.values()))
            logits = self.segmenter.run(rgb, {"logits"})["logits"].float()
        height, width = rgb.shape[2:]
        # cell i of the segmenter is centred on pixel 16 i, a cell of the student on 8 j + 4
        fine = functional.interpolate(
            logits, (height // 4 + 1, width // 4 + 1), mode="bilinear", align_corners=True
        )
        return Lesson(
            stages={name: features[tap].float() for name, tap in STAGES.items()},
            scores=out["scores"][:, :, list(VOC_IN_COCO)].float(),
            boxes=out["boxes"].float(),
            segmentation=fine[:, :, 1::2, 1::2],
        )


def stage_loss(student: Tensor, teacher: Tensor) -> Tensor:
    """Squared error over the teacher's variance, strong channels softly reduced; 1 for no idea."""
    variance = teacher.var((0, 2, 3), keepdim=True)
    weight = (variance + 1e-4).rsqrt()
    return ((student.float() - teacher) ** 2 * weight).mean() / (variance * weight).mean()
