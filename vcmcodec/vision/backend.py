"""Any vision network behind one interface: head up to a split point, rest, results."""

from __future__ import annotations

import functools
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt
import torch

from vcmcodec import pretrained
from vcmcodec.errors import RequestError
from vcmcodec.torch_state import loading
from vcmcodec.vision import weights
from vcmcodec.vision.geometry import InputGeometry, prepare
from vcmcodec.vision.network import SPLITS, TASKS
from vcmcodec.vision.predictions import Predictions
from vcmcodec.vision.predictor import Predictor

PROFILE = "vision"  # of vision models in a manifest
DOWNLOAD = "download"

Pixels = npt.NDArray[np.uint8]


@dataclass(frozen=True, eq=False)
class Features:
    """What crosses a split point.

    Attributes:
        split: its name.
        tensors: everything that the rest needs, by name; (1, C, h, w) each.
        geometry: how the picture was scaled, which the results need.
        model: fingerprint of the network, 16 hexadecimal digits; empty where it has none.
    """

    split: str
    tensors: Mapping[str, torch.Tensor]
    geometry: InputGeometry
    model: str = ""


class Backend(Protocol):
    """A vision network as the codec, `vcm analyze` and the benches see it.

    Attributes:
        labels: all names that results may bear.
        tasks: what it can do, names of `network.TASKS`.
        splits: names of its split points; empty if it can only run whole.
        longer_side: of its input, in pixels.
        fingerprint: of its weights, 16 hexadecimal digits; empty where it has none.
    """

    longer_side: int
    fingerprint: str
    labels: tuple[str, ...]
    tasks: tuple[str, ...]
    splits: tuple[str, ...]

    def head(self, rgb: Pixels, split: str) -> Features:
        """Run a picture (H, W, 3) uint8 up to a split point."""
        ...

    def rest(self, features: Features, tasks: Collection[str]) -> Any:
        """Go on from there to raw outputs."""
        ...

    def results(self, raw: Any, geometry: InputGeometry, score: float) -> Predictions:
        """Raw outputs to typed results in pixels of the true picture."""
        ...

    def predict(
        self, rgb: Pixels, tasks: Collection[str] | None = None, score: float = 0.3
    ) -> Predictions:
        """All of it; `tasks` None means everything the network can do."""
        ...


class ReferenceBackend:
    """The network that comes with the package."""

    def __init__(self, model: weights.VisionModel, longer_side: int | None = None) -> None:
        """Take a model from `weights.load`; `longer_side` overrides its input size in pixels."""
        self._predictor = Predictor(model, longer_side=longer_side)
        self.model = model
        self.longer_side = self._predictor.longer_side
        self.labels = model.labels
        self.fingerprint = model.fingerprint
        self.tasks: tuple[str, ...] = TASKS
        self.splits = tuple(SPLITS)

    @torch.inference_mode()
    def head(self, rgb: Pixels, split: str) -> Features:
        """See `Backend`."""
        image, geometry = prepare(rgb, self._predictor.longer_side)
        network = self.model.network
        tensors = network.front_end(image.to(network.mean.device), split)
        return Features(split, tensors, geometry, self.fingerprint)

    @torch.inference_mode()
    def rest(self, features: Features, tasks: Collection[str]) -> Any:
        """See `Backend`."""
        return self.model.network.back_end(features.tensors, features.split, tasks)

    def results(self, raw: Any, geometry: InputGeometry, score: float) -> Predictions:
        """See `Backend`."""
        return self._predictor.interpret(raw, geometry, score)

    def predict(
        self, rgb: Pixels, tasks: Collection[str] | None = None, score: float = 0.3
    ) -> Predictions:
        """See `Backend`."""
        return self._predictor.predict(rgb, self.tasks if tasks is None else tasks, score)


@loading()
def open_backend(
    name: str | None = None,
    *,
    device: str = "cpu",
    longer_side: int | None = None,
    labels: tuple[str, ...] | None = None,
    outputs: Mapping[str, str] | None = None,
) -> Backend:
    """Open a vision network by name.

    Args:
        name: None for the default one; the id of an installed model; the path of a `.safetensors`
            file of the reference network or of an `.onnx` file; or `torchvision:NAME=FILE` with a
            weights file, or `torchvision:NAME=download`, which lets torchvision fetch its own.
        device: torch device of the reference and torchvision networks.
        longer_side: input size in pixels instead of the model's own.
        labels: class names of an ONNX file or a torchvision network that does not bring its own.
        outputs: what the outputs of an ONNX file are, fields of `OnnxSpec`; guessed if None.

    Raises:
        WeightsError: there is no such model.
        RequestError: the name means nothing, or the extra package it needs is not installed.
    """
    if name is not None and name.startswith("torchvision:"):
        from vcmcodec.vision.torchvision_backend import TorchvisionBackend

        _refuse("torchvision's networks", size=longer_side, outputs=outputs)
        kind, _, file = name.removeprefix("torchvision:").partition("=")
        if file == DOWNLOAD:
            return TorchvisionBackend(kind, download=True, device=device, labels=labels)
        path = Path(file) if file else None
        return TorchvisionBackend(kind, path, device=device, labels=labels)
    if name is not None and name.endswith(".onnx"):
        from vcmcodec.vision.onnx_backend import OnnxBackend, read_spec

        spec = None if outputs is None else read_spec(outputs)
        return OnnxBackend(Path(name), spec=spec, labels=labels, longer_side=longer_side)
    _refuse("reference networks", labels=labels, outputs=outputs)
    if name is not None and name.endswith(".safetensors"):
        path = Path(name)
    elif name is not None and Path(name).is_file():
        raise RequestError(f"{name} is neither a .safetensors nor an .onnx file of a network")
    else:
        path = pretrained.checked_path(pretrained.find(profile=PROFILE, model_id=name))
    try:
        return ReferenceBackend(_load(path, device, pretrained.stamp(path)), longer_side)
    except (RuntimeError, AssertionError) as error:
        raise RequestError(f"no device {device}: {str(error).splitlines()[0]}") from error


def _refuse(kind: str, **given: object) -> None:
    """Raise RequestError where something is given that a kind of network has no use for."""
    for name, value in given.items():
        if value is not None:
            raise RequestError(f"{name}: {kind} take none")


@functools.lru_cache(maxsize=4)
def _load(path: Path, device: str, stamp: tuple[int, int]) -> weights.VisionModel:
    return weights.load(path, device)
