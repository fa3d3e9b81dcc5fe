"""From a checkpoint of the vision network to a weight file that ships."""

from __future__ import annotations

import hashlib
from pathlib import Path

from vcmcodec.training.export import enter
from vcmcodec.training.vision import load_average
from vcmcodec.vision.backend import PROFILE
from vcmcodec.vision.labels import VOC
from vcmcodec.vision.network import TASKS
from vcmcodec.vision.weights import pack


def export(checkpoint: Path, folder: Path, model_id: str, *, longer_side: int) -> Path:
    """Write the averaged weights of a checkpoint, and their line in the manifest.

    Args:
        checkpoint: from `training.vision.train_vision`.
        folder: of weight files and `manifest.json`.
        model_id: name of the model.
        longer_side: input size that the model asks for, pixels.

    Returns:
        Path of the weight file.
    """
    network, step = load_average(checkpoint)
    blob = pack(network, labels=VOC, longer_side=longer_side, facts={"steps": step})
    mark = hashlib.sha256(blob).hexdigest()[:16]
    enter(
        folder,
        model_id,
        PROFILE,
        blob,
        mark,
        tasks=list(TASKS),
        licence="see the model card",
        card=f"{model_id}.md",
    )
    return folder / f"{model_id}.safetensors"
