"""torchvision's networks with random weights, for tests of what is done with real ones."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

from vcmcodec.errors import RequestError
from vcmcodec.vision.torchvision_backend import import_torchvision


def torchvision_models() -> Any:
    """torchvision.models, or a skip with the reason why it cannot be imported."""
    try:
        return import_torchvision().models
    except RequestError as error:
        pytest.skip(str(error))


def save_random(name: str, folder: Path, seed: int = 0) -> Path:
    """Write the state dictionary of a network with random weights."""
    models = torchvision_models()
    torch.manual_seed(seed)
    classifier = name.startswith(("resnet", "mobilenet", "densenet"))
    network = models.get_model(
        name, weights=None, **({} if classifier else {"weights_backbone": None})
    )
    path = folder / f"{name}-{seed}.pth"
    torch.save(network.state_dict(), path)
    return path
