"""A trained codec as named tensors, and its fingerprint.

The tensors fall in two: those that decide symbols (integer networks, level tables, gains, coding
tables), whose canonical form the fingerprint covers, and those that do not (transforms, inverse
gains), which may improve without breaking a file.  Integers are stored as integers; transforms in
half precision where they lose nothing that shows.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from typing import Any, Generic, TypeVar

import numpy as np
import torch
from torch import Tensor

from vcmcodec.entropy.cdf import Tables
from vcmcodec.errors import WeightsError
from vcmcodec.nn.integer import WEIGHT_MAX, IntegerLinear
from vcmcodec.nn.latent_codec import LatentCodec
from vcmcodec.nn.latent_model import SCALE_COUNT
from vcmcodec.nn.picture_codec import PictureCodec
from vcmcodec.nn.unfilled import Unfilled

FINGERPRINT_BYTES = 8
Codec = TypeVar("Codec", bound=LatentCodec)


@dataclass(frozen=True)
class Model(Generic[Codec]):
    """Networks and tables, ready to code.

    Attributes:
        codec: in evaluation mode, integers frozen.
        tables: 64 for the latent, then one a channel of the hyper-latent.
        fingerprint: 8 bytes that a file's header must carry.
    """

    codec: Codec
    tables: Tables
    fingerprint: bytes

    def to(self, device: torch.device) -> None:
        """Move the transforms; the integer networks feed the entropy coder, which stays."""
        self.codec.analysis.to(device)
        self.codec.synthesis.to(device)


def fingerprint(symbol_tensors: Mapping[str, Tensor], shape: Any, binding: str = "") -> bytes:
    """First 8 bytes of SHA-256 over shape, names and little-endian integers, in name order.

    Args:
        shape: a dataclass of numbers and names.
        binding: see `LatentCodec`; hashed before the tensors.
    """
    digest = hashlib.sha256(json.dumps(asdict(shape), sort_keys=True).encode())
    digest.update(binding.encode())
    for name in sorted(symbol_tensors):
        tensor = symbol_tensors[name]
        values = tensor.to(torch.int64).numpy().astype("<i8")
        digest.update(f"{name} {tuple(tensor.shape)}\n".encode())
        digest.update(values.tobytes())
    return digest.digest()[:FINGERPRINT_BYTES]


def _fits(values: Tensor) -> Tensor:
    """The smallest integer type that holds the values."""
    whole = values.detach().double().round().to(torch.int64)
    for kind in (torch.int8, torch.int16):
        limits = torch.iinfo(kind)
        if int(whole.min()) >= limits.min and int(whole.max()) <= limits.max:
            return whole.to(kind)
    return whole.to(torch.int32)


def pack(codec: LatentCodec, tables: Tables) -> tuple[dict[str, Tensor], dict[str, str]]:
    """Tensors and metadata for a safetensors file.

    The codec must have been frozen (`entropy.freeze`, `gains.freeze`).

    Raises:
        WeightsError: an integer network is not provably exact.
    """
    codec.entropy.prove_exact()
    symbols: dict[str, Tensor] = {}
    for name, module in codec.entropy.named_modules():
        if isinstance(module, IntegerLinear):
            weight, bias = module.integers()
            symbols[f"entropy.{name}.weight"] = _fits(weight)
            symbols[f"entropy.{name}.bias"] = _fits(bias)
    for name in codec.entropy.integer_tables:
        symbols[f"entropy.{name}"] = _fits(codec.entropy.get_parameter(name))
    symbols["entropy.companding"] = _fits(codec.entropy.companding)
    symbols["gains.log_gain"] = _fits(codec.gains.log_gain)
    for name, array in tables.pack().items():
        symbols[f"tables.{name}"] = torch.from_numpy(np.array(array))
    floats: dict[str, Tensor] = {}
    for name, value in codec.state_dict().items():
        if name.startswith("entropy.") or name == "gains.log_gain":
            continue
        full = any(part in codec.FULL_PRECISION for part in name.split("."))
        floats[name] = value.detach().to(torch.float32 if full else torch.float16).contiguous()
    mark = fingerprint(symbols, codec.latent, codec.binding)
    return {**symbols, **floats}, {**codec.description(), "fingerprint": mark.hex()}


def unpack(
    tensors: dict[str, Tensor],
    metadata: dict[str, str],
    rebuild: Callable[[Mapping[str, str]], LatentCodec] = PictureCodec.rebuild,
) -> Model:
    """Undo `pack`.

    Args:
        rebuild: makes the codec of a description, untrained.

    Raises:
        WeightsError: tensors are missing or of the wrong shape, a sum is not provably exact, or
            the fingerprint is not that of the tensors.
    """
    try:
        with Unfilled():
            codec = rebuild(metadata)
        codec.load_state_dict(_state(codec, tensors))
        tables = Tables.unpack(
            {n: tensors[f"tables.{n}"].numpy() for n in ("cdf", "sizes", "offsets", "skip")}
        )
    except (AttributeError, KeyError, TypeError, ValueError, RuntimeError) as error:
        kind = getattr(getattr(rebuild, "__self__", None), "KIND", LatentCodec.KIND)
        raise WeightsError(f"these are not the weights of a {kind}: {error}") from error
    symbols = {
        name: value
        for name, value in tensors.items()
        if name.startswith(("entropy.", "tables.")) or name == "gains.log_gain"
    }
    _check_symbols(codec, symbols, tables)
    codec.entropy.prove_exact()
    found = fingerprint(symbols, codec.latent, codec.binding)
    if found.hex() != metadata.get("fingerprint"):
        raise WeightsError(
            f"the weights' fingerprint is {found.hex()}, not {metadata.get('fingerprint')}"
        )
    codec.eval().requires_grad_(False)
    codec.entropy.hold()
    return Model(codec, tables, found)


def _check_symbols(codec: LatentCodec, symbols: dict[str, Tensor], tables: Tables) -> None:
    """Raise WeightsError where stored numbers could not be used just as they are stored."""
    for name, value in symbols.items():
        if value.is_floating_point():
            raise WeightsError(f"{name} decides symbols and must hold integers, not {value.dtype}")
    for name, module in codec.entropy.named_modules():
        if isinstance(module, IntegerLinear) and int(module.weight.abs().max()) > WEIGHT_MAX:
            raise WeightsError(f"{name}: a weight is beyond {WEIGHT_MAX}")
    if codec.entropy.guess is not None and not codec.entropy.guess.in_range():
        raise WeightsError("entropy.guess: a weight or share is out of its range")
    wanted = SCALE_COUNT + codec.latent.hyper
    if len(tables) != wanted:
        raise WeightsError(f"there are {len(tables)} coding tables, {wanted} are needed")
    codec.check_shape()


def _state(codec: LatentCodec, tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    state = {}
    shifts = {
        f"entropy.{name}.bias": module.shift
        for name, module in codec.entropy.named_modules()
        if isinstance(module, IntegerLinear)
    }
    for name in codec.state_dict():
        value = tensors[name].float()
        if name in shifts:  # stored as it enters the sum: back to output units, half removed
            value = (value - 2.0 ** (shifts[name] - 1)) / 2.0 ** shifts[name]
        state[name] = value
    return state
