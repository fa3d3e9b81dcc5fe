"""What every codec with a latent on a grid has: gains, hyper analysis and the entropy model.

A codec of one kind of source adds its two transforms, `analysis` and `synthesis`.
"""

from __future__ import annotations

import functools
import json
from collections.abc import Mapping
from dataclasses import asdict
from typing import Any, ClassVar

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from vcmcodec.nn.gain import Gains, Level
from vcmcodec.nn.geometry import neighbour_rows, phase_rows
from vcmcodec.nn.integer import VALUE_UNIT
from vcmcodec.nn.latent_model import LatentModel, LatentShape
from vcmcodec.nn.neighbour_guess import FAR_PHASES
from vcmcodec.nn.slice_model import CellGrid

HYPER_MAX = 127
HYPER_INPUT = 0.2  # the latent in steps, tamed for the hyper analysis


class HyperAnalysis(nn.Module):
    """h_a: the base's latent in steps (cells, base channels) -> hyper-latent (cells, n), float.

    Encoder side only; 1x1 maps, so groups cannot mix.
    """

    def __init__(self, inputs: int, outputs: int, hidden: int = 64) -> None:
        super().__init__()
        self.first = nn.Linear(inputs, hidden)
        self.last = nn.Linear(hidden, outputs)

    def forward(self, latent: Tensor) -> Tensor:
        """See the class."""
        out: Tensor = self.last(F.relu(self.first(latent * HYPER_INPUT)))
        return out.clamp(-HYPER_MAX, HYPER_MAX)


class LatentCodec(nn.Module):
    """Everything that is learned for one profile, but for the transforms, which subclasses add.

    Args:
        latent: its slices.
        lmbdas: Lagrange weight of each trained level.

    Attributes:
        KIND: what messages call it.
        REFINED: whether the base can be coded again at a finer level.
        FULL_PRECISION: parts of names of tensors that are stored in float32, not float16.
        binding: what else decides what the symbols mean, such as the fingerprint of the network
            whose features they are; enters the model's fingerprint where it is not empty.
    """

    KIND: ClassVar[str] = "codec"
    REFINED: ClassVar[bool] = False
    # The inverse gains are multiplied onto the whole signal.
    FULL_PRECISION: ClassVar[tuple[str, ...]] = ("log_inverse",)
    analysis: nn.Module
    synthesis: nn.Module

    def __init__(self, latent: LatentShape, lmbdas: tuple[float, ...], binding: str = "") -> None:
        super().__init__()
        self.latent, self.lmbdas, self.binding = latent, lmbdas, binding
        self.hyper_analysis = HyperAnalysis(latent.base_channels, latent.hyper)
        self.gains = Gains(latent.levels, latent.channels)
        self.entropy = LatentModel(latent, refined=self.REFINED)

    def lmbda(self, level: Level) -> float:
        """The Lagrange weight of a rate level, interpolated in the log domain."""
        return float(torch.exp(level.floats(torch.log(torch.tensor(self.lmbdas)))))

    def dequantise(self, values: Tensor, level: Level) -> Tensor:
        """Values in 1/16 steps, (cells, channels) -> latent, float, for the synthesis."""
        inverse = self.gains.inverse(level, slice(0, values.shape[-1]))
        return values * (inverse / VALUE_UNIT)

    def description(self) -> dict[str, str]:
        """Metadata of a weight file from which `rebuild` makes the same codec, untrained."""
        return {"latent": json.dumps(asdict(self.latent)), "lmbdas": json.dumps(self.lmbdas)}

    @classmethod
    def rebuild(cls, metadata: Mapping[str, str]) -> LatentCodec:
        """The untrained codec that `description` described; may raise KeyError, ValueError, ..."""
        raise NotImplementedError

    def check_shape(self) -> None:
        """Raise WeightsError where transforms and latent do not fit each other."""


def shape_of(metadata: Mapping[str, str]) -> tuple[LatentShape, tuple[float, ...]]:
    """Latent and Lagrange weights of a description."""
    latent = LatentShape(**tuples(json.loads(metadata["latent"])))
    return latent, tuple(json.loads(metadata["lmbdas"]))


def tuples(fields: dict[str, Any]) -> dict[str, Any]:
    """JSON's lists as the tuples that they were."""
    return {k: tuple(v) if isinstance(v, list) else v for k, v in fields.items()}


def cell_grid(labels: np.ndarray, phases: tuple[int, ...], batch: int = 1) -> CellGrid:
    """The traversal tables of a rectangle of cells; labels (rows, columns) are group positions."""
    rows, columns = labels.shape
    if labels.size and (labels == labels.flat[0]).all():
        return _grid_of_one_group(rows, columns, phases, batch)
    return _grid(labels, phases, batch)


@functools.lru_cache(maxsize=8)  # shapes: tiles of a picture have four at most
def _grid_of_one_group(rows: int, columns: int, phases: tuple[int, ...], batch: int) -> CellGrid:
    with torch.inference_mode(False):  # trainings may share it
        return _grid(np.zeros((rows, columns), np.int64), phases, batch)


def _grid(labels: np.ndarray, phases: tuple[int, ...], batch: int) -> CellGrid:
    rows, columns = labels.shape
    far = neighbour_rows(labels, batch, reach=2) if FAR_PHASES in phases else None
    return CellGrid(
        neighbours=neighbour_rows(labels, batch),
        far=torch.zeros(0, 9, dtype=torch.int64) if far is None else far,
        phases={n: phase_rows(rows, columns, n, batch) for n in sorted(set(phases))},
    )
