"""Runs that begin with an installed model, in place of an untaught one."""

from __future__ import annotations

import torch
from torch import nn

from vcmcodec.errors import WeightsError
from vcmcodec.models import load_model


@torch.no_grad()
def start_at_model(codec: nn.Module, profile: str, name: str) -> None:
    """Take the weights of a profile's installed model; it may be bound to another vision network.

    A run that is resumed puts its own over them.

    Raises:
        WeightsError: it is not installed, or is of another shape.
    """
    installed = load_model(profile, name)
    assert hasattr(installed, "codec")
    try:
        codec.load_state_dict(installed.codec.state_dict())
    except RuntimeError as error:
        raise WeightsError(f"model {name} has another shape than the one that is taught") from error
