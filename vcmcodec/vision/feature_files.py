"""Features of a network as a safetensors file, for any other program (and back).

feats.safetensors    one float32 tensor (1, C, h, w) a name, as c5, p3, p4, p5
its metadata         "features": JSON with format, split, model (fingerprint of the network),
                     size of the true picture, and the size to which it was scaled
"""

from __future__ import annotations

import json
import os
from typing import IO

import torch
from safetensors import SafetensorError
from safetensors.torch import load, save

from vcmcodec.bitstream.constants import MAX_INPUT_PIXELS
from vcmcodec.errors import RequestError
from vcmcodec.vision.backend import Features
from vcmcodec.vision.geometry import InputGeometry

FORMAT = "vcm-features-1"
KEY = "features"  # one entry: safetensors writes several in an order that changes
EXTENSION = ".safetensors"
Source = str | os.PathLike[str] | bytes | IO[bytes]


def pack(features: Features) -> bytes:
    """The bytes of a feature file; equal features give equal bytes."""
    geometry = features.geometry
    about = {
        "format": FORMAT,
        "split": features.split,
        "model": features.model,
        "height": geometry.height,
        "width": geometry.width,
        "scaled_height": geometry.scaled_height,
        "scaled_width": geometry.scaled_width,
    }
    tensors = {
        name: value.detach().float().cpu().contiguous() for name, value in features.tensors.items()
    }
    return save(tensors, {KEY: json.dumps(about, sort_keys=True)})


def read(source: Source) -> Features:
    """Read a feature file: a path, bytes or a binary file object.

    Raises:
        RequestError: it cannot be read, or is not such a file.
    """
    name, data = _bytes_of(source)
    try:
        about = json.loads(_metadata(data).get(KEY, "{}"))
        if not isinstance(about, dict) or about.get("format") != FORMAT:
            raise RequestError(f"{name} is a safetensors file, but holds no features ({KEY}: none)")
        sizes = [int(about[key]) for key in ("height", "width", "scaled_height", "scaled_width")]
        geometry = InputGeometry.scaled(*sizes)
        if geometry.padded_height * geometry.padded_width > MAX_INPUT_PIXELS:
            raise ValueError("the network's input is too large")
        tensors = load(data)
        split, model = str(about["split"]), str(about["model"])
    except (
        SafetensorError, KeyError, OverflowError, RecursionError, TypeError, ValueError
    ) as error:  # fmt: skip
        raise RequestError(f"{name} is not a feature file: {error}") from error
    for key, value in tensors.items():
        if value.dim() != 4 or value.shape[0] != 1 or not value.is_floating_point():
            raise RequestError(f"{name}: {key} is {tuple(value.shape)}, not (1, C, h, w) floats")
        if not bool(torch.isfinite(value).all()):
            raise RequestError(f"{name}: {key} holds values that are not finite")
    return Features(split, {key: value.float() for key, value in tensors.items()}, geometry, model)


def is_features(data: bytes) -> bool:
    """Whether bytes look like a safetensors file (its length field and the brace behind it)."""
    return len(data) > 9 and data[8:9] == b"{" and int.from_bytes(data[:8], "little") < len(data)


def _bytes_of(source: Source) -> tuple[str, bytes]:
    if isinstance(source, bytes):
        return "these bytes", source
    if isinstance(source, str | os.PathLike):
        try:
            with open(source, "rb") as file:
                return os.fspath(source), file.read()
        except OSError as error:
            raise RequestError(f"{source}: cannot be read: {error.strerror or error}") from error
    return str(getattr(source, "name", "the file")), source.read()


def _metadata(data: bytes) -> dict[str, str]:
    """The metadata of safetensors bytes, which `safetensors.torch.load` does not give."""
    length = int.from_bytes(data[:8], "little")
    if not 2 <= length <= len(data) - 8:
        raise ValueError("the header is cut off")
    found = json.loads(data[8 : 8 + length]).get("__metadata__", {})
    return {str(key): str(value) for key, value in found.items()}
