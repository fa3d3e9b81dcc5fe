"""The coder of training: estimates bits, rounds straight through (see `nn/latent_model.py`)."""

from __future__ import annotations

from typing import Generic, TypeVar

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from vcmcodec.nn.integer import VALUE_UNIT, round_through
from vcmcodec.nn.latent_codec import LatentCodec
from vcmcodec.nn.rate_estimate import symbol_bits

Codec = TypeVar("Codec", bound=LatentCodec)


class HyperPrior(nn.Module):
    """Logistic prior of the hyper-latent; only training knows it (tables are counted at export)."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.scale = nn.Parameter(torch.full((channels,), -1.0))
        self.mean = nn.Parameter(torch.zeros(channels))

    def bits(self, values: Tensor) -> Tensor:
        """-log2 of the mass of [values - 1/2, values + 1/2], (cells, channels)."""
        scale = F.softplus(self.scale) + 0.05
        away = values - self.mean
        mass = torch.sigmoid((away + 0.5) / scale) - torch.sigmoid((away - 0.5) / scale)
        return -torch.log2(mass.clamp(min=1e-9))


class Learned(nn.Module, Generic[Codec]):
    """What a run teaches: a codec, and the prior that only training needs."""

    def __init__(self, codec: Codec) -> None:
        super().__init__()
        self.codec = codec
        self.prior = HyperPrior(codec.latent.hyper)


class TrainingCoder:
    """Implements `latent_model.Coder` over a known latent.

    Args:
        latent: (cells, channels) in steps of the level that is being coded.
        hyper: (cells, n) float hyper-latent, or None where it is not coded again.
        noisy: bits of the latent plus uniform noise (training) or of the rounded one (evaluation).
    """

    exact = False

    def __init__(
        self, latent: Tensor, hyper: Tensor | None, prior: HyperPrior, *, noisy: bool
    ) -> None:
        self.latent, self._hyper, self.prior, self.noisy = latent, hyper, prior, noisy
        self.bits = latent.new_zeros(())
        self.parts: list[float] = []

    def _count(self, bits: Tensor) -> None:
        total = bits.sum()
        self.bits = self.bits + total
        self.parts.append(float(total.detach()))

    def hyper(self, channels: int) -> Tensor:
        """Round the hyper-latent straight through and count its bits."""
        assert self._hyper is not None
        assert self._hyper.shape[1] == channels
        rounded = round_through(self._hyper)
        seen = self._hyper + torch.rand_like(self._hyper) - 0.5 if self.noisy else rounded
        self._count(self.prior.bits(seen))
        return rounded

    def values(self, where: slice, rows: Tensor, mean: Tensor, index: Tensor) -> Tensor:
        """Round the latent straight through around its means and count the bits."""
        away = self.latent[rows, where] - mean / VALUE_UNIT
        symbol = round_through(away)
        seen = away + torch.rand_like(away) - 0.5 if self.noisy else symbol
        self._count(symbol_bits(seen, index))
        return symbol * VALUE_UNIT + mean
