"""From trained bottleneck units to a weight file."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import Protocol

import numpy as np
import torch
from safetensors.torch import save
from torch import Tensor

from vcmcodec.entropy.cdf import Tables, tables_from_counts
from vcmcodec.errors import WeightsError
from vcmcodec.nn.bottleneck_codec import BottleneckCodec, Unit, key
from vcmcodec.nn.bottleneck_tensors import pack, unpack
from vcmcodec.nn.gain import RATE_LEVEL_MAX
from vcmcodec.nn.pyramid_codec import LATENT_STRIDE
from vcmcodec.profiles import bottleneck as profile

REACH = 480  # largest symbol that is counted; what lies beyond goes to the escape


class FrontEnd(Protocol):
    """A frozen network up to its split points: `VisionNetwork`, `CutClassifier`."""

    def front_end(self, rgb: Tensor, split: str) -> dict[str, Tensor]:
        """What crosses a split point, of pictures (N, 3, H, W) in 0..1."""
        ...


class Frozen(Protocol):
    """A frozen network from a weight file: `VisionModel`, `ClassifierModel`."""

    @property
    def network(self) -> FrontEnd:
        """The network itself."""
        ...

    @property
    def fingerprint(self) -> str:
        """Of its weights, 16 hexadecimal digits."""
        ...


def _crops(
    network: FrontEnd, codec: BottleneckCodec, images: Tensor
) -> Iterator[tuple[str, dict[str, Tensor]]]:
    """Split point and tensors (1, C, h, w) of every picture at every split point."""
    for image in images:
        for split in codec.shape.splits:
            with torch.no_grad():
                yield split, network.front_end(image[None], split)


def count_symbols(
    codec: BottleneckCodec, network: FrontEnd, images: Tensor, random: np.random.Generator
) -> dict[str, np.ndarray]:
    """How often each value occurs: by unit, (levels, channels, 2 REACH + 1) int64.

    At every trained level, and at a place between it and its neighbours whose tables are the same.
    """
    levels = codec.shape.levels
    counts = {
        key(u.split, u.name): np.zeros((levels, u.latent, 2 * REACH + 1), np.int64)
        for u in codec.shape.units
    }
    labels = np.zeros([side // LATENT_STRIDE for side in images.shape[2:]], np.int64)
    zone = RATE_LEVEL_MAX / (levels - 1)
    for split, tensors in _crops(network, codec, images):
        for name, latent in profile.latents_of(codec, split, tensors, labels).items():
            for number in range(levels):
                near = round(zone * (number + random.uniform(-0.49, 0.49)))
                for rate_level in (round(zone * number), min(max(near, 0), RATE_LEVEL_MAX)):
                    symbols = profile.quantise(codec, split, name, latent, rate_level)
                    flat = symbols.reshape(-1, symbols.shape[-1]).T
                    channel, place = np.nonzero(abs(flat) <= REACH)
                    value = flat[channel, place] + REACH
                    np.add.at(counts[key(split, name)][number], (channel, value), 1)
    return counts


def fit_tables(counts: Mapping[str, np.ndarray]) -> dict[str, Tables]:
    """One table a level and channel of each unit."""
    tables = {}
    for unit, found in counts.items():
        rows = found.reshape(-1, found.shape[-1])
        spans = [int(abs(np.flatnonzero(row) - REACH).max(initial=0)) + 2 for row in rows]
        cut = [
            row[REACH - min(s, REACH) : REACH + min(s, REACH) + 1]
            for row, s in zip(rows, spans, strict=True)
        ]
        firsts = [-min(s, REACH) for s in spans]
        tables[unit] = tables_from_counts(cut, firsts, prior_weight=4.0, tail=2e-5)
    return tables


def freeze(codec: BottleneckCodec) -> None:
    """Make the units what a weight file holds."""
    codec.eval().requires_grad_(False)
    for unit in codec.units.values():
        assert isinstance(unit, Unit)
        unit.gains.freeze()


def export_model(
    codec: BottleneckCodec,
    vision: Frozen,
    images: Tensor,
    *,
    seed: int = 7,
    show: Callable[[str], None] = print,
) -> tuple[bytes, str]:
    """Freeze the units, count symbols on training crops, fit the tables.

    Args:
        codec: trained.
        vision: the network that it was trained with.
        images: (N, 3, H, W) in 0..1, sides multiples of 32; some hundreds serve well.
        seed: of the rate levels beside the trained ones.
        show: is told of the progress.

    Returns:
        The bytes of a safetensors file and the fingerprint in hexadecimal digits.

    Raises:
        WeightsError: the units were trained with another network.
    """
    if vision.fingerprint != codec.binding:
        raise WeightsError(f"the units were trained with network {codec.binding}, not this one")
    freeze(codec)
    counts = count_symbols(codec, vision.network, images, np.random.default_rng(seed))
    show(f"tables: {sum(int(c.sum()) for c in counts.values()):,} symbols counted")
    tensors, metadata = pack(codec, fit_tables(counts))
    unpack(tensors, metadata)
    return save(tensors, metadata), metadata["fingerprint"]
