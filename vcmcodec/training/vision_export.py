"""From a checkpoint of the vision network to a weight file that ships."""

from __future__ import annotations

import hashlib
from pathlib import Path

from vcmcodec.training.export import enter
from vcmcodec.training.vision import load_average
from vcmcodec.training.vision_areas import CHECKPOINT, with_head
from vcmcodec.vision.backend import PROFILE
from vcmcodec.vision.labels import VOC
from vcmcodec.vision.network import TASKS
from vcmcodec.vision.weights import pack


def export(checkpoint: Path, folder: Path, model_id: str, *, longer_side: int) -> Path:
    """Write the averaged weights of a checkpoint, and their line in the manifest.

    Args:
        checkpoint: from `training.vision.train_vision`; the head of `training.vision_areas` that
            lies beside it goes with it.
        folder: of weight files and `manifest.json`.
        model_id: name of the model.
        longer_side: input size that the model asks for, pixels.

    Returns:
        Path of the weight file.
    """
    network, step = load_average(checkpoint)
    facts = {"steps": step}
    if (areas := checkpoint.with_name(CHECKPOINT)).exists():
        network, facts["steps_areas"] = with_head(network, areas)
    blob = pack(network, labels=VOC, longer_side=longer_side, facts=facts)
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
