"""Trained bottleneck units as named tensors, and their fingerprint.

As `model_tensors`, for a codec whose tables are static: what decides symbols are the tables and the
gains; the units' maps may improve without breaking a file.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from vcmcodec.entropy.cdf import Tables
from vcmcodec.errors import WeightsError
from vcmcodec.nn.bottleneck_codec import BottleneckCodec, nearest_level
from vcmcodec.nn.model_tensors import fingerprint
from vcmcodec.nn.unfilled import Unfilled

TABLES = "tables."
_PARTS = ("cdf", "sizes", "offsets", "skip")


@dataclass(frozen=True)
class BottleneckModel:
    """Units and tables, ready to code.

    Attributes:
        codec: in evaluation mode.
        tables: by unit (`bottleneck_codec.key`): of level 0 one a channel, then of level 1, ...
        fingerprint: 8 bytes that a file's header must carry.
    """

    codec: BottleneckCodec
    tables: Mapping[str, Tables]
    fingerprint: bytes

    def to(self, device: torch.device) -> None:
        """Move the units."""
        self.codec.to(device)

    def tables_of(self, unit: str, rate_level: int) -> Tables:
        """The tables of a unit's channels at a rate level."""
        levels, every = self.codec.shape.levels, self.tables[unit]
        channels = len(every) // levels
        first = channels * nearest_level(rate_level, levels)
        chosen = slice(first, first + channels)
        return Tables(every.cdfs[chosen], every.offsets[chosen].copy(), skip=0)


def join_tables(parts: list[Tables]) -> Tables:
    """Tables one after the other."""
    cdfs = tuple(cdf for part in parts for cdf in part.cdfs)
    return Tables(cdfs, np.concatenate([part.offsets for part in parts]), skip=0)


def pack(
    codec: BottleneckCodec, tables: Mapping[str, Tables]
) -> tuple[dict[str, Tensor], dict[str, str]]:
    """Tensors and metadata for a safetensors file; the gains must be whole (`Gains.freeze`)."""
    symbols: dict[str, Tensor] = {}
    for unit, found in tables.items():
        for part, array in found.pack().items():
            symbols[f"{TABLES}{unit}.{part}"] = torch.from_numpy(np.array(array))
    floats: dict[str, Tensor] = {}
    for name, value in codec.state_dict().items():
        if name.endswith("log_gain"):
            symbols[name] = value.detach().round().to(torch.int16).contiguous()
            continue
        full = any(part in codec.FULL_PRECISION for part in name.split("."))
        floats[name] = value.detach().to(torch.float32 if full else torch.float16).contiguous()
    mark = fingerprint(symbols, codec.shape, codec.binding)
    return {**symbols, **floats}, {**codec.description(), "fingerprint": mark.hex()}


def unpack(tensors: Mapping[str, Tensor], metadata: Mapping[str, str]) -> BottleneckModel:
    """Undo `pack`.

    Raises:
        WeightsError: tensors are missing or of the wrong shape, or the fingerprint is not theirs.
    """
    try:
        with Unfilled():
            codec = BottleneckCodec.rebuild(metadata)
        codec.load_state_dict({name: tensors[name].float() for name in codec.state_dict()})
        tables = {
            unit: Tables.unpack({p: tensors[f"{TABLES}{unit}.{p}"].numpy() for p in _PARTS})
            for unit in codec.units
        }
    except (AttributeError, KeyError, TypeError, ValueError, RuntimeError) as error:
        raise WeightsError(f"these are not the weights of bottleneck units: {error}") from error
    for shape in codec.shape.units:
        found = tables[f"{shape.split}_{shape.name}"]
        if len(found) != codec.shape.levels * shape.latent or found.skip:
            raise WeightsError(f"unit {shape.split}_{shape.name} has {len(found)} coding tables")
    symbols = {n: v for n, v in tensors.items() if n.startswith(TABLES) or n.endswith("log_gain")}
    for name, value in symbols.items():
        if value.is_floating_point():
            raise WeightsError(f"{name} decides symbols and must hold integers, not {value.dtype}")
    mark = fingerprint(symbols, codec.shape, codec.binding)
    if mark.hex() != metadata.get("fingerprint"):
        raise WeightsError(
            f"the weights' fingerprint is {mark.hex()}, not {metadata.get('fingerprint')}"
        )
    codec.eval().requires_grad_(False)
    return BottleneckModel(codec, tables, mark)
