"""From a checkpoint of the vision network to a weight file that ships."""

from __future__ import annotations

from pathlib import Path

from vcmcodec.training.export import enter
from vcmcodec.training.vision import load_average
from vcmcodec.training.vision_areas import CHECKPOINT, is_behind, with_head
from vcmcodec.vision.backend import PROFILE
from vcmcodec.vision.labels import VOC
from vcmcodec.vision.network import TASKS, VisionNetwork
from vcmcodec.vision.weights import VisionModel, file_mark, pack


def export(checkpoint: Path, folder: Path, model_id: str, *, longer_side: int) -> Path:
    """Write the averaged weights of a checkpoint, and their line in the manifest.

    Args:
        checkpoint: from `training.vision.train_vision`; the head of `training.vision_areas` that
            lies beside it goes with it, unless the network has learned since.
        folder: of weight files and `manifest.json`.
        model_id: name of the model.
        longer_side: input size that the model asks for, pixels.

    Returns:
        Path of the weight file.
    """
    network, step = load_average(checkpoint)
    facts = {"steps": step}
    if is_behind(network, areas := checkpoint.with_name(CHECKPOINT)):
        network, facts["steps_areas"] = with_head(network, areas)
    return _write(network, folder, model_id, longer_side, facts)


def export_head(start: VisionModel, areas: Path, folder: Path, model_id: str) -> Path:
    """Write an installed network with a deep segmentation head that was taught behind it.

    Its features stay, bit for bit, so it keeps its fingerprint: what codes them goes on working.

    Args:
        start: the network, folded.
        areas: checkpoint of `training.vision_areas`.
        folder, model_id: as of `export`.

    Returns:
        Path of the weight file.
    """
    network, steps = with_head(start.network, areas)
    facts = {**start.facts, "steps_areas": steps}
    return _write(network, folder, model_id, start.longer_side, facts, start.fingerprint)


def _write(
    network: VisionNetwork, folder: Path, model_id: str, longer_side: int, facts: dict[str, int],
    features: str = "",
) -> Path:  # fmt: skip
    blob = pack(network, labels=VOC, longer_side=longer_side, facts=facts, features=features)
    enter(
        folder,
        model_id,
        PROFILE,
        blob,
        features or file_mark(blob),
        tasks=list(TASKS),
        licence="see the model card",
        card=f"{model_id}.md",
    )
    return folder / f"{model_id}.safetensors"
