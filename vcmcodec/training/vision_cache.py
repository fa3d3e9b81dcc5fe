"""What the teachers see on every training picture, computed once.

Running three teachers beside the network costs more than the network itself, and geometric
augmentation can be applied to their feature maps as well as to pixels.  So each picture is shown
to each teacher once; the maps, reduced to their principal components and to float16, go to disk
together with the decoded picture, and `vision_views` cuts pictures and maps alike.

Only teachers under a permissive licence are opened (`TEACHERS`).
"""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

from vcmcodec.evaluation.teachers import VOC_IN_COCO, load_taps
from vcmcodec.training.blobs import BlobWriter
from vcmcodec.training.vision_pictures import Sample, decode_all, read_samples
from vcmcodec.vision.layers import channels_last

TEACHERS = {
    "yolox": "yolox-nano.pth",
    "deeplab": "deeplabv3-mnv2-voc.pth",
    "mobilenet": "mobilenetv2-imagenet.pth",
}
LONGER = {"yolox": 416, "deeplab": 512, "mobilenet": 352}  # input size, pixels
PSEUDO_SCORE = 0.1
PSEUDO_OVERLAP = 0.65


@dataclass(frozen=True)
class MapSpec:
    """One cached feature map.

    Attributes:
        teacher: key of `TEACHERS`.
        tap: the teacher's node.
        channels: principal components that are kept; 0 keeps all channels.
        stride: input pixels a cell.
        shift: position of cell 0 in cells from the picture's edge: 0.5 where cells tile the
            picture, 0 where cell i is centred on pixel `stride * i`.
    """

    teacher: str
    tap: str
    channels: int
    stride: int
    shift: float = 0.5


MAPS = {
    "yolox_back8": MapSpec("yolox", "back8", 32, 8),
    "yolox_neck16": MapSpec("yolox", "neck16", 96, 16),
    "yolox_neck32": MapSpec("yolox", "neck32", 160, 32),
    "mobilenet_back16": MapSpec("mobilenet", "back16", 160, 16),
    "mobilenet_back32": MapSpec("mobilenet", "back32", 256, 32),
    "deeplab_back16d": MapSpec("deeplab", "back16d", 128, 16, 0.0),
    "deeplab_logits": MapSpec("deeplab", "logits", 0, 16, 0.0),
}


class TeacherPanel:
    """The permissively licensed teachers, run on one picture at a time."""

    def __init__(self, folder: Path, device: str = "cpu") -> None:
        """Load the teachers from their folder onto a device."""
        taps = load_taps(folder)
        self.device = torch.device(device)
        self._suppress = taps.suppress
        self.nets = {name: taps.Teacher(str(folder / file)) for name, file in TEACHERS.items()}
        for net in self.nets.values():
            channels_last(net.to(self.device))

    @torch.no_grad()
    def look(self, rgb: np.ndarray) -> tuple[dict[str, Tensor], np.ndarray, dict[str, float]]:
        """Show a picture (H, W, 3) uint8 to all teachers.

        Returns:
            maps: one (C, h, w) float32 tensor a name in `MAPS`, not yet reduced.
            boxes: (k, 6) float32: x1 y1 x2 y2 in picture pixels, score, VOC class.
            scales: input pixels of each teacher a picture pixel.
        """
        picture = torch.from_numpy(rgb.copy()).permute(2, 0, 1)[None].float() / 255
        maps: dict[str, Tensor] = {}
        scales: dict[str, float] = {}
        boxes = np.zeros((0, 6), np.float32)
        for name, net in self.nets.items():
            image, scale = _fit(picture, LONGER[name], net.meta["pad_value"])
            scales[name] = scale
            wanted = [spec.tap for spec in MAPS.values() if spec.teacher == name]
            with torch.autocast(self.device.type, torch.bfloat16, enabled=name != "yolox"):
                out, features = net(image.to(self.device), taps=wanted)
            for key, spec in MAPS.items():
                if spec.teacher == name:
                    maps[key] = features[spec.tap][0].float().cpu()
            if name == "yolox":
                boxes = self._boxes(out, scale, rgb.shape[0], rgb.shape[1])
        return maps, boxes, scales

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


def fit_components(panel: TeacherPanel, pictures: list[np.ndarray]) -> dict[str, dict[str, Tensor]]:
    """Principal components of every map over some pictures.

    Returns:
        For each map: `mean` (C,), `basis` (C, k) with columns scaled so that the kept components
        have mean square 1 over all of them, the strong ones softly reduced (variance ** -0.25).
    """
    rows: dict[str, list[Tensor]] = {name: [] for name in MAPS}
    for rgb in pictures:
        maps, _, _ = panel.look(rgb)
        for name, value in maps.items():
            flat = value.flatten(1).t()
            rows[name].append(flat[torch.randperm(len(flat))[:200]])
    found = {}
    for name, spec in MAPS.items():
        data = torch.cat(rows[name]).double()
        mean = data.mean(0)
        if spec.channels == 0:
            found[name] = {"mean": torch.zeros_like(mean), "basis": torch.eye(len(mean))}
        else:
            _, values, vectors = torch.linalg.svd(data - mean, full_matrices=False)
            variance = values[: spec.channels] ** 2 / len(data)
            gain = variance.clamp(min=1e-12) ** -0.25
            gain = gain / (variance * gain**2).mean().sqrt()
            found[name] = {"mean": mean, "basis": vectors[: spec.channels].t() * gain}
        found[name] = {key: value.float() for key, value in found[name].items()}
    return found


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
    torch.manual_seed(0)
    panel = TeacherPanel(teachers, device)
    samples = read_samples(data)
    chosen = samples[:: max(1, len(samples) // 160)]
    components = fit_components(panel, [rgb for _, rgb, _ in decode_all(data, chosen)])
    writer = BlobWriter(cache / "pictures")
    for count, (sample, rgb, mask) in enumerate(decode_all(data, samples)):
        maps, boxes, scales = panel.look(rgb)
        arrays = {"rgb": rgb, "teacher_boxes": boxes}
        if mask is not None:
            arrays["mask"] = mask.astype(np.uint8)
        for name, value in maps.items():
            part = components[name]
            flat = (value.flatten(1).t() - part["mean"]) @ part["basis"]
            arrays[name] = flat.reshape(*value.shape[1:], -1).half().numpy()  # (h, w, C)
        arrays["scales"] = np.array([scales[name] for name in TEACHERS], np.float32)
        writer.add(record_key(sample), arrays)
        progress(count + 1, len(samples))
    writer.close()
    torch.save(components, cache / "components.pt")
    (cache / "maps.json").write_text(json.dumps({k: vars(v) for k, v in MAPS.items()}))


def record_key(sample: Sample) -> str:
    """Name of a picture's record in the cache."""
    return f"{sample.tar}/{sample.name}"
