"""From a trained feature transform to a weight file that ships."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from safetensors.torch import save
from torch import Tensor

from vcmcodec.errors import RequestError
from vcmcodec.models import TASKS_PROFILE
from vcmcodec.nn.feature_transform import FeatureTransform
from vcmcodec.nn.task_tensors import pack, unpack
from vcmcodec.training.export import enter
from vcmcodec.vision.network import TASKS


def export(
    transform: FeatureTransform,
    folder: Path,
    model_id: str,
    *,
    scene: str,
    vision: str,
    base_quality: Mapping[str, float],
    replaced: Mapping[str, Tensor] | None = None,
    reduced_quality: Mapping[str, float] | None = None,
    adapted_quality: Mapping[str, float] | None = None,
    preview_shares: Sequence[tuple[float, float]] = (),
    longer_side: int | None = None,
    effort: int = 0,
    sight: Mapping[str, Tensor] | None = None,
    sight_prices: Sequence[tuple[float, float]] = (),
    facts: Mapping[str, Any] | None = None,
) -> Path:
    """Write a tasks model, and its line in the manifest.

    Args:
        transform: trained on latents of the picture model `scene`.
        folder: of weight files and `manifest.json`.
        model_id: name of the model, as `tasks-1`.
        scene: fingerprint of the picture model, 16 hexadecimal digits, as its manifest has it.
        vision: fingerprint of the vision network, likewise.
        base_quality: task -> default quality of the base layer, for every machine task.
        replaced: tensors of the vision network that were trained as well, by the names of the
            folded network's state dictionary.
        reduced_quality, adapted_quality, preview_shares, longer_side, effort, sight_prices: see
            `nn.task_tensors.TaskFacts`.
        sight: what an error in each channel of the network's features counts, by depth.
        facts: for the model card.

    Returns:
        Path of the weight file.

    Raises:
        RequestError: a task has no default quality.
    """
    if set(base_quality) != set(TASKS):
        raise RequestError(f"a default quality is needed for each of {', '.join(TASKS)}")
    tensors, metadata = pack(
        transform, scene=scene, vision=vision, base_quality=base_quality, replaced=replaced,
        reduced_quality=reduced_quality, adapted_quality=adapted_quality,
        preview_shares=preview_shares, longer_side=longer_side, effort=effort,
        sight=sight, sight_prices=sight_prices, facts=facts,
    )  # fmt: skip
    unpack(tensors, metadata)  # a weight file that cannot be read back is not written
    blob = save(tensors, metadata)
    enter(
        folder,
        model_id,
        TASKS_PROFILE,
        blob,
        hashlib.sha256(blob).hexdigest()[:16],
        tasks=list(TASKS),
        licence="see the model card",
        card=f"{model_id}.md",
    )
    return folder / f"{model_id}.safetensors"
