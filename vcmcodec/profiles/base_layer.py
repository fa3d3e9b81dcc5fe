"""The base layer of profiles whose latent is coded as that of `scene`: one run a group.

latent -> steps of a level -> hyper-latent, slices -> runs        encode_base
runs -> hyper-latent, slices -> latent                            decode_base
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping

import numpy as np
import torch
from torch import Tensor

from vcmcodec.bitstream.constants import DIGEST_BYTES, Kind, LayerId
from vcmcodec.bitstream.container import Substream
from vcmcodec.errors import FormatError
from vcmcodec.nn.gain import Level
from vcmcodec.nn.latent_codec import LatentCodec, cell_grid
from vcmcodec.nn.latent_model import CellGrid, Coder
from vcmcodec.nn.model_tensors import Model
from vcmcodec.profiles.coding import DecodingCoder, EncodingCoder, Hand

Runs = Mapping[tuple[Kind, LayerId, int, int], bytes]  # (kind, layer, group position, tile)


def code_base(codec: LatentCodec, coder: Coder, grid: CellGrid, level: Level) -> Tensor:
    """Walk through hyper-latent and slices of the base, in file order.

    Returns:
        (positions, base channels) in 1/16 steps of `level`.
    """
    hyper = codec.entropy.hyper_context(coder.hyper(codec.latent.hyper), grid)
    nothing = torch.zeros(grid.size, 0, device=hyper.device)
    return codec.entropy.code_slices(coder, grid, level, hyper, LayerId.BASE, nothing)


@torch.inference_mode()
def encode_base(
    model: Model, latent: Tensor, labels: np.ndarray, groups: int, rate_level: int, *,
    digest: bool = False, price: Tensor | None = None,
    coder_class: type[EncodingCoder] = EncodingCoder,
) -> list[Substream]:  # fmt: skip
    """Code a latent.

    Args:
        latent: (rows, columns, channels), before any gain.
        labels: (rows, columns) group positions.
        groups: how many there are.
        digest: add a hash of the symbols of every group.
        price: see `EncodingCoder`.
        coder_class: what to code with.

    Returns:
        Substreams of layer base; `Substream.group` is the group's position.
    """
    codec, level = model.codec, Level(rate_level, model.codec.latent.levels)
    steps = latent.reshape(labels.size, -1).cpu()
    steps = steps * codec.gains.gain(level, slice(0, steps.shape[1]))
    present = [int(group) for group in np.unique(labels)]
    hashes = {g: hashlib.sha256() for g in present} if digest else None
    hand = Hand(labels.reshape(-1), groups)
    hyper = codec.hyper_analysis(steps)
    coder = coder_class(steps, hyper, model.tables, hand, price=price, digests=hashes)
    code_base(codec, coder, cell_grid(labels, codec.latent.phases), level)
    runs = coder.finish()
    out = [Substream(Kind.LATENT, LayerId.BASE, g, runs[g]) for g in present]
    for group, found in (hashes or {}).items():
        data = found.digest()[:DIGEST_BYTES]
        out.append(Substream(Kind.DIGEST, LayerId.BASE, group, data))
    return out


@torch.inference_mode()
def decode_base(
    model: Model, labels: np.ndarray, groups: int, rate_level: int, runs: Runs
) -> Tensor:
    """Decode the latent of the groups whose runs are at hand.

    Returns:
        (rows, columns, channels), dequantised; zero where nothing was decoded.

    Raises:
        FormatError: a run or its digest is wrong.
    """
    codec, level = model.codec, Level(rate_level, model.codec.latent.levels)
    have = {g: data for (kind, _, g, _), data in runs.items() if kind == Kind.LATENT}
    hashes = {g: hashlib.sha256() for g in have}
    hand = Hand(labels.reshape(-1), groups)
    coder = DecodingCoder(have, labels.size, model.tables, hand, hashes)
    values = code_base(codec, coder, cell_grid(labels, codec.latent.phases), level)
    coder.finish()
    for group, found in hashes.items():
        stored = runs.get((Kind.DIGEST, LayerId.BASE, group, 0))
        mark = found.digest()[:DIGEST_BYTES]
        if stored is not None and stored != mark:
            raise FormatError(
                "digest", "the symbols of layer base are not the encoder's",
                stored=stored.hex(), expected=mark.hex(),
            )  # fmt: skip
    return codec.dequantise(values, level).reshape(*labels.shape, -1)
