"""The base layer of profiles whose latent is coded as that of `scene`: one run a group.

latent -> steps of a level -> hyper-latent, slices -> runs        encode_base
runs -> hyper-latent, slices -> latent                            decode_base
"""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from vcmcodec.bitstream.constants import Kind, LayerId
from vcmcodec.bitstream.container import Runs, Substream
from vcmcodec.nn.gain import Level
from vcmcodec.nn.latent_codec import LatentCodec, cell_grid
from vcmcodec.nn.latent_model import Coder
from vcmcodec.nn.model_tensors import Model
from vcmcodec.nn.slice_model import CellGrid
from vcmcodec.profiles.coding import DecodingCoder, EncodingCoder, Hand
from vcmcodec.profiles.digests import Digests


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
    hashes = Digests(present)
    hand = Hand(labels.reshape(-1), groups)
    hyper = codec.hyper_analysis(steps)
    running = hashes.running if digest else None
    coder = coder_class(steps, hyper, model.tables, hand, price=price, digests=running)
    code_base(codec, coder, cell_grid(labels, codec.latent.phases), level)
    runs = coder.finish()
    out = [Substream(Kind.LATENT, LayerId.BASE, g, runs[g]) for g in present]
    return out + hashes.close(LayerId.BASE) if digest else out


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
    hashes = Digests(have)
    hand = Hand(labels.reshape(-1), groups)
    coder = DecodingCoder(have, labels.size, model.tables, hand, hashes.running)
    values = code_base(codec, coder, cell_grid(labels, codec.latent.phases), level)
    coder.finish()
    hashes.check(LayerId.BASE, runs)
    return codec.dequantise(values, level).reshape(*labels.shape, -1)
