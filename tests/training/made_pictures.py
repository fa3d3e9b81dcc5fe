"""A few made pictures with labels and masks, and what teachers might say of them."""

from __future__ import annotations

import io
import json
import tarfile
from pathlib import Path

import numpy as np
import torch
from PIL import Image

from vcmcodec.training.blobs import BlobWriter
from vcmcodec.training.vision_cache import record_key
from vcmcodec.training.vision_pictures import decode_all, read_samples
from vcmcodec.training.vision_teacher import Lesson
from vcmcodec.vision.network import STAGE_STRIDES, VisionConfig
from vcmcodec.vision.split import split_points

SMALL = VisionConfig(stem=8, c2=8, c3=16, c4=16, c5=16, pyramid=(16, 16, 24), head=8)
SIZE = (60, 96)  # of the made pictures


def add(tar: tarfile.TarFile, name: str, data: bytes) -> None:
    info = tarfile.TarInfo(name)
    info.size = len(data)
    tar.addfile(info, io.BytesIO(data))


def picture_file(array: np.ndarray, kind: str) -> bytes:
    out = io.BytesIO()
    Image.fromarray(array).save(out, kind)
    return out.getvalue()


def write_labels(folder: Path, name: str, images: list[dict], annotations: list[dict]) -> None:
    (folder / f"{name}.json").write_text(
        json.dumps({"images": images, "annotations": annotations, "categories": []})
    )


def tar_name(set_name: str) -> str:
    return f"{set_name}-0.tar"


def write_data(folder: Path) -> Path:
    """Four labelled pictures (one with a mask), two of the second set, one photograph."""
    rng = np.random.default_rng(0)
    for set_name, count in (("voc-train", 4), ("voc-train-2", 2)):
        images, annotations = [], []
        with tarfile.open(folder / f"{set_name}-0.tar", "w") as tar:
            for i in range(count):
                rgb = rng.integers(0, 255, (*SIZE, 3)).astype(np.uint8)
                name = f"{set_name}-{i}.png"
                add(tar, name, picture_file(rgb, "png"))
                image = {"id": i, "file_name": name, "tar": tar_name(set_name), "mask": None}
                box = {"image_id": i, "category_id": 1 + i, "bbox": [10, 20, 40, 30]}
                box |= {"difficult": int(i == 3)}
                if set_name == "voc-train-2":
                    image["labelled"] = i == 0
                    box |= {"pseudo": True, "score": 0.8}
                elif i == 0:
                    image["mask"] = "mask-0.png"
                    mask = np.zeros(SIZE, np.uint8)
                    mask[20:50, 10:50] = 1
                    add(tar, "mask-0.png", picture_file(mask, "png"))
                images.append(image)
                if image.get("labelled", True):
                    annotations.append(box)
        write_labels(folder, set_name, images, annotations)
    with tarfile.open(folder / "train-photos-0.tar", "w") as tar:
        large = rng.integers(0, 255, (300, 600, 3)).astype(np.uint8)
        add(tar, "photo.png", picture_file(large, "png"))
    return folder


def write_cache(data: Path, folder: Path) -> Path:
    """The decoded pictures, and one box that a detector might have found."""
    writer = BlobWriter(folder / "pictures")
    for sample, rgb, mask in decode_all(data, read_samples(data)):
        arrays = {"rgb": rgb, "teacher_boxes": np.array([[60, 0, 90, 20, 0.7, 6]], np.float32)}
        if mask is not None:
            arrays["mask"] = mask
        writer.add(record_key(sample), arrays)
    writer.close()
    return folder


def look(rgb: torch.Tensor, config: VisionConfig = SMALL) -> Lesson:
    """What teachers might say: features that are averages of the pixels, one sure object."""
    count, _, height, width = rgb.shape
    widths = {k: v for split in split_points(config).values() for k, v in split.channels.items()}
    stages = {}
    for name in ("c2", "c3", "c4", "c5_halved", "c5_wide", "c5", "p3", "p4", "p5"):
        stage = name.partition("_")[0]
        pooled = torch.nn.functional.avg_pool2d(rgb, STAGE_STRIDES[stage])
        stages[name] = pooled.repeat(1, widths[stage] // 3 + 1, 1, 1)[:, : widths[stage]]
    cells = sum((height // stride) * (width // stride) for stride in (8, 16, 32))
    scores = torch.full((count, cells, 20), 0.01)
    scores[:, 0, 3] = 0.9
    boxes = torch.tensor([0.0, 0.0, 40.0, 30.0]).expand(count, cells, 4)
    areas = torch.zeros(count, 21, height // 8, width // 8)
    areas[:, 4, :3, :3] = 5.0
    return Lesson(stages, scores, boxes, areas)
