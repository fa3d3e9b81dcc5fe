"""Moves a latent, before it is coded, to where little is seen differently for few bits.

A transform is one guess for all pictures.  Whoever encodes can look: the latent is moved, in a few
steps along the gradient of rate and of what the decoder's end sees differently (content-adaptive
optimisation, Campos et al. 2019).  Only the encoder pays; file and decoder know nothing of it.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from vcmcodec.nn.gain import Level
from vcmcodec.nn.integer import VALUE_UNIT
from vcmcodec.nn.latent_codec import cell_grid
from vcmcodec.nn.model_tensors import Model
from vcmcodec.nn.rate_estimate import symbol_bits
from vcmcodec.profiles.base_layer import code_base
from vcmcodec.profiles.coding import Rounder, refuse_out_of_bounds

STEP = 0.125  # of the first look, in steps of the latent, over the root of the effort
LAST_STEP = 0.1  # share of it that the last look makes
MOMENTS = (0.9, 0.95)


@dataclass(frozen=True)
class Aim:
    """What a latent is moved towards.

    Attributes:
        model: whose base layer it is.
        labels: (rows, columns) group positions.
        level: at which it will be coded.
        price: bits that one squared step of error is worth in each channel, as it will be coded.
        away: latent (1, rows, columns, channels), dequantised -> what is seen differently, in bits.
    """

    model: Model[Any]  # of a `LatentCodec`
    labels: np.ndarray
    level: Level
    price: Tensor
    away: Callable[[Tensor], Tensor]


class SeekingCoder:
    """Rounds a latent as encoding does, with a gradient (`nn.latent_model.Coder`).

    Attributes:
        bits: estimate of what the symbols cost.
    """

    exact = False

    def __init__(self, latent: Tensor, hyper: Tensor, rounder: Rounder) -> None:
        """Take a latent in steps and its hyper-latent, (cells, channels) each."""
        self.latent, self._hyper, self._rounder = latent, hyper, rounder
        self.bits = latent.new_zeros(())

    def hyper(self, channels: int) -> Tensor:
        """Round the hyper-latent, which stays as it is."""
        return torch.floor(self._hyper[:, :channels] + 0.5)

    def values(self, where: slice, rows: Tensor, mean: Tensor, index: Tensor) -> Tensor:
        """Round around the means, straight through, and count the bits."""
        away = self.latent[rows, where] - mean / VALUE_UNIT
        chosen, _ = self._rounder(away.detach(), index.detach(), where)
        shut = index < self._rounder.skip
        symbols = (away + (chosen - away).detach()).masked_fill(shut, 0.0)
        self.bits = self.bits + symbol_bits(symbols, index).masked_fill(shut, 0.0).sum()
        return symbols * VALUE_UNIT + mean


@torch.inference_mode(False)  # what it reads may come from there, and must be cloned
def seek(aim: Aim, latent: Tensor, effort: int) -> Tensor:
    """The best latent that is met on the way.

    Args:
        aim: see there.
        latent: (cells, base channels), before any gain.
        effort: how often to look, at least once.

    Returns:
        A latent of the same shape, which may be the first.

    Raises:
        RequestError: the latent is too large for any file.
    """
    codec = aim.model.codec
    gain = codec.gains.gain(aim.level, slice(0, latent.shape[1]))
    rounder = Rounder(aim.model.tables, aim.price)
    grid = cell_grid(aim.labels, codec.latent.phases)

    def costs(steps: Tensor) -> Tensor:
        """Bits, estimated, and what is seen differently, in bits."""
        with torch.no_grad():
            hyper = codec.hyper_analysis(steps)
        coder = SeekingCoder(steps, hyper, rounder)
        values = code_base(codec, coder, grid, aim.level)
        decoded = codec.dequantise(values, aim.level).reshape(1, *aim.labels.shape, -1)
        return coder.bits + aim.away(decoded).cpu()

    first = (latent.clone() * gain).detach()
    refuse_out_of_bounds(first)
    steps = first.clone().requires_grad_(True)
    optimiser = torch.optim.Adam([steps], lr=STEP / effort**0.5, betas=MOMENTS)
    best, least = first, float("inf")
    with torch.enable_grad():
        for look in range(effort + 1):
            cost = costs(steps)
            if float(cost.detach()) < least:
                best, least = steps.detach().clone(), float(cost.detach())
            if look == effort:
                break
            optimiser.zero_grad()
            cost.backward()  # type: ignore[no-untyped-call]
            share = 1 - (1 - LAST_STEP) * look / effort
            optimiser.param_groups[0]["lr"] = share * STEP / effort**0.5
            optimiser.step()
    return best / gain
