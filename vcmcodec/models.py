"""Loads weights once: from a manifest's file to a model that codes."""

from __future__ import annotations

import functools
from pathlib import Path
from typing import TYPE_CHECKING

from vcmcodec import pretrained
from vcmcodec.errors import RequestError, WeightsError

if TYPE_CHECKING:
    from vcmcodec.nn.model_tensors import Model


def load_model(
    profile: str,
    model_id: str | None = None,
    *,
    fingerprint: bytes | None = None,
    device: str = "cpu",
) -> Model:
    """The model of that profile, name or fingerprint, on a device.

    Raises:
        WeightsError: it is not installed, damaged, or not the one that the fingerprint names.
        RequestError: there is no such device.
    """
    file = pretrained.find(profile=profile, model_id=model_id, fingerprint=fingerprint)
    model = _load(pretrained.checked_path(file), device)
    if fingerprint is not None and model.fingerprint != fingerprint:
        raise WeightsError(f"model {file.id} is not the one that its manifest describes")
    return model


@functools.lru_cache(maxsize=4)
def _load(path: Path, device: str) -> Model:
    import torch
    from safetensors import SafetensorError, safe_open

    from vcmcodec.nn.model_tensors import unpack

    try:
        with safe_open(path, framework="pt") as weights:
            metadata = weights.metadata() or {}
            tensors = {name: weights.get_tensor(name) for name in weights.keys()}  # noqa: SIM118
    except (SafetensorError, OSError) as error:
        raise WeightsError(f"{path} is not a weight file: {error}") from error
    model = unpack(tensors, metadata)
    try:
        # Only the transforms move: the integer networks feed the entropy coder, which is here.
        model.codec.analysis.to(torch.device(device))
        model.codec.synthesis.to(torch.device(device))
    except (RuntimeError, AssertionError) as error:
        raise RequestError(f"no device {device}: {str(error).splitlines()[0]}") from error
    return model
