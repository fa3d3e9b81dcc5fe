"""Training pictures, decoded once, and what the detection teacher finds in each.

Its boxes complete the labels: in pictures whose labels are incomplete a sure box counts as an
object, and any other as a region where nothing is punished (`vision_views.known_objects`).
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

from vcmcodec.evaluation.teachers import VOC_IN_COCO, load_taps
from vcmcodec.training.blobs import BlobWriter
from vcmcodec.training.vision_pictures import Sample, decode_all, read_samples
from vcmcodec.training.vision_teacher import TEACHERS
from vcmcodec.vision.layers import channels_last

LONGER = 416  # input size of the detector, pixels
PSEUDO_SCORE = 0.1
PSEUDO_OVERLAP = 0.65


class Finder:
    """The detection teacher, run on one picture at a time."""

    def __init__(self, folder: Path, device: str = "cpu") -> None:
        """Load it from the teachers' folder onto a device."""
        taps = load_taps(folder)
        self.device = torch.device(device)
        self._suppress = taps.suppress
        self.net = channels_last(taps.Teacher(str(folder / TEACHERS["detector"])).to(self.device))

    @torch.no_grad()
    def find(self, rgb: np.ndarray) -> np.ndarray:
        """Objects of a picture (H, W, 3) uint8.

        Returns:
            (k, 6) float32: x1 y1 x2 y2 in picture pixels, score, VOC class.
        """
        picture = torch.from_numpy(rgb.copy()).permute(2, 0, 1)[None].float() / 255
        image, scale = _fit(picture, LONGER, self.net.meta["pad_value"])
        out, _ = self.net(image.to(self.device), taps=())
        return self._boxes(out, scale, rgb.shape[0], rgb.shape[1])

    def _boxes(self, out: dict[str, Any], scale: float, height: int, width: int) -> np.ndarray:
        score, label = out["scores"][0].cpu()[:, list(VOC_IN_COCO)].max(1)
        keep = score > PSEUDO_SCORE
        box, score, label = out["boxes"][0].cpu()[keep] / scale, score[keep], label[keep]
        order = score.argsort(descending=True)[:1000]
        box, score, label = box[order], score[order], label[order]
        stay = self._suppress(box + label[:, None] * 8192.0, PSEUDO_OVERLAP)[:100]
        box[:, 0::2] = box[:, 0::2].clamp(0, width)
        box[:, 1::2] = box[:, 1::2].clamp(0, height)
        found = torch.cat((box, score[:, None], label[:, None].float()), 1)[stay]
        return found.numpy().astype(np.float32)


def _fit(picture: Tensor, longer: int, pad_value: float) -> tuple[Tensor, float]:
    """Scale to the given longer side, then pad right and bottom to multiples of 32."""
    height, width = picture.shape[2:]
    scale = longer / max(height, width)
    h, w = max(1, round(height * scale)), max(1, round(width * scale))
    small = functional.interpolate(picture, (h, w), mode="bilinear", antialias=scale < 1)
    padded = functional.pad(small, (0, -w % 32, 0, -h % 32), value=pad_value)
    return padded.contiguous(memory_format=torch.channels_last), scale


def build(
    data: Path,
    teachers: Path,
    cache: Path,
    *,
    device: str = "cpu",
    progress: Callable[[int, int], None] = lambda done, total: None,
) -> None:
    """Write the cache `cache/pictures.*` of all training pictures.

    Args:
        data: folder of the training sets.
        teachers: folder of the teachers and `taps.py`.
        cache: where to write.
        device: where the teachers run.
        progress: told how many pictures are done, of how many.
    """
    finder = Finder(teachers, device)
    samples = read_samples(data)
    writer = BlobWriter(cache / "pictures")
    for count, (sample, rgb, mask) in enumerate(decode_all(data, samples)):
        arrays = {"rgb": rgb, "teacher_boxes": finder.find(rgb)}
        if mask is not None:
            arrays["mask"] = mask.astype(np.uint8)
        writer.add(record_key(sample), arrays)
        progress(count + 1, len(samples))
    writer.close()


def record_key(sample: Sample) -> str:
    """Name of a picture's record in the cache."""
    return f"{sample.tar}/{sample.name}"
