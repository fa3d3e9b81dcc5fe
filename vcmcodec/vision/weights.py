"""The network in a safetensors file: folded, float16 where that loses nothing that matters.

Convolution weights are stored as float16, biases and the rest as float32.  The metadata says what
is needed to build the network again: its shape, its labels and the size it likes to look at.

A network's fingerprint stands for its features, which other models code.  It is the hash of the
weight file in which these first were.  A network that has other heads behind the same features
keeps it, so whatever codes them works with the better heads, too.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from copy import deepcopy
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save as serialize

from vcmcodec.colour import one_line
from vcmcodec.errors import WeightsError
from vcmcodec.nn.unfilled import Unfilled
from vcmcodec.vision.config import VisionConfig
from vcmcodec.vision.layers import channels_last
from vcmcodec.vision.network import VisionNetwork

FORMAT = "vcm-vision-1"
FINGERPRINT_DIGITS = 16
KEY = "vision"  # one entry: safetensors writes several in an order that changes


@dataclass(frozen=True)
class VisionModel:
    """A network together with what its outputs mean.

    Attributes:
        network: folded, in evaluation mode.
        labels: the classes, in the order of the channels.
        longer_side: input size for which it was chosen, pixels.
        facts: what the model card says in numbers, for `vcm models`.
        fingerprint: of its features, 16 hexadecimal digits, as in a manifest; empty where the
            network comes from no file.
    """

    network: VisionNetwork
    labels: tuple[str, ...]
    longer_side: int
    facts: Mapping[str, Any]
    fingerprint: str = ""


def pack(
    network: VisionNetwork,
    *,
    labels: tuple[str, ...],
    longer_side: int,
    facts: Mapping[str, Any] | None = None,
    features: str = "",
) -> bytes:
    """The bytes of a weight file for a network, folded; the network itself is not changed.

    `features` is the fingerprint of the network whose stages and pyramid these are; empty where
    they are new.
    """
    folded = deepcopy(network).cpu().fold()
    tensors = {
        name: value.contiguous().to(torch.float16 if _is_kernel(name, value) else torch.float32)
        for name, value in folded.state_dict().items()
    }
    about = {
        "format": FORMAT,
        "config": asdict(network.config),
        "labels": list(labels),
        "longer_side": longer_side,
        "facts": dict(facts or {}),
    } | ({"features": features} if features else {})
    return serialize(tensors, {KEY: json.dumps(about, sort_keys=True)})


def file_mark(data: bytes) -> str:
    """Fingerprint of the features that first are in these bytes of a weight file."""
    return hashlib.sha256(data).hexdigest()[:FINGERPRINT_DIGITS]


def _is_kernel(name: str, value: torch.Tensor) -> bool:
    return name.endswith("weight") and value.dim() == 4


def load(path: Path, device: str | torch.device = "cpu") -> VisionModel:
    """Read a network that `pack` made.

    Raises:
        WeightsError: the file is missing, damaged or of another kind.
    """
    try:
        mark = file_mark(path.read_bytes())
        with safe_open(str(path), "pt") as file:
            metadata = file.metadata() or {}
            tensors = {name: file.get_tensor(name).float() for name in file.keys()}  # noqa: SIM118
    except (OSError, SafetensorError) as error:
        raise WeightsError(f"cannot read vision weights {path}: {error}") from error
    try:
        about = json.loads(metadata.get(KEY, "{}"))
        if not isinstance(about, dict) or about.get("format") != FORMAT:
            found = about.get("format", "none") if isinstance(about, dict) else "none"
            raise WeightsError(f"{path} holds no vision network of format {FORMAT}, but {found}")
        with Unfilled():
            network = VisionNetwork(VisionConfig.read(about["config"])).fold()
        network.load_state_dict(tensors)
        labels, longer = tuple(about["labels"]), int(about["longer_side"])
        if len(labels) != network.config.classes or longer < 1:
            raise ValueError(f"{len(labels)} labels, input size {longer}")
        mark = str(about.get("features", mark))
    except (AttributeError, KeyError, ValueError, TypeError, RuntimeError) as error:
        raise WeightsError(f"{path} does not hold a vision network: {one_line(error)}") from error
    network = channels_last(network.to(device))
    network.requires_grad_(False)
    return VisionModel(network, labels, longer, about.get("facts", {}), mark)
