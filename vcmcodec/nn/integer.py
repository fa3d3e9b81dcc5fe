"""Networks whose every value is an integer, held in float32.

What chooses a probability table must come out alike on every machine.  Here weights are integers of
at most 127, activations integers of at most 127 (2047 at outputs), and every partial sum stays
below 2**24, where float32 addition is exact in any order: so any matrix product, on any device and
thread count, gives the same integers; also where a program lets products be taken in TF32 or
bfloat16, which hold factors of 7 bits exactly.  `prove_exact` checks the bound when a model is
saved and when it is loaded, `check_companding` that what enters by a table keeps to it.  No spatial
convolution is used (a 3x3 one may be run by Winograd or FFT, which are not exact): neighbours are
gathered and everything is a matrix product.

Training runs the very same arithmetic with straight-through gradients.  Layers that are made ready
for coding (`hold`) have none: their floor is a plain one.

Source: Ballé, Johnston, Minnen, "Integer networks for data compression with latent-variable
models", ICLR 2019; we depart in holding the integers in float32.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from vcmcodec.errors import WeightsError

WEIGHT_MAX = 127
ACTIVATION_MAX = 127
EXACT_LIMIT = 2**24
VALUE_UNIT = 16  # means and decoded latents are integers in 1/16 of a quantisation step
VALUE_BOUND = 2**23  # they are below it in size, so that float32 holds them and their sums exactly
COMPAND_GAIN = 21.0
COMPAND_SIZE = 4096  # entries of the companding table: magnitudes up to 256 steps


def round_through(x: Tensor) -> Tensor:
    """floor(x + 1/2) with the gradient of the identity."""
    if not x.requires_grad:
        return torch.floor(x + 0.5)
    return x + (torch.floor(x + 0.5) - x).detach()


def floor_through(x: Tensor) -> Tensor:
    """floor(x) with the gradient of the identity."""
    if not x.requires_grad:
        return torch.floor(x)
    return x + (torch.floor(x) - x).detach()


class IntegerLinear(nn.Module):
    """y = clamp(floor((W x + b) / 2**shift)), all integers.

    `weight` and `bias` are learned as floats, in units of the stored integers and of the output;
    they are rounded on the way.  After `freeze` they are integers.

    Args:
        shift: binary digits dropped after the sum.
        limit: outputs lie in [0, limit] with `relu`, else in [-limit, limit].
    """

    def __init__(
        self,
        inputs: int,
        outputs: int,
        *,
        shift: int = 7,
        limit: int = ACTIVATION_MAX,
        relu: bool = True,
        zero: bool = False,
    ) -> None:
        super().__init__()
        self.shift, self.limit, self.low = shift, limit, 0 if relu else -limit
        spread = 0.0 if zero else 0.7 * 2**shift / inputs**0.5
        self.weight = nn.Parameter(torch.randn(outputs, inputs) * spread)
        self.bias = nn.Parameter(torch.zeros(outputs))
        self._held: tuple[Tensor, Tensor] | None = None

    def integers(self) -> tuple[Tensor, Tensor]:
        """Weight and bias as they enter the sum; half of the divisor is in the bias."""
        scale = float(2**self.shift)
        weight = round_through(self.weight.clamp(-WEIGHT_MAX, WEIGHT_MAX))
        return weight, round_through(self.bias * scale + scale / 2)

    @torch.no_grad()
    def freeze(self) -> None:
        """Round in place; the outputs do not change."""
        weight, bias = self.integers()
        self.weight.copy_(weight)
        self.bias.copy_((bias - 2.0 ** (self.shift - 1)) / 2.0**self.shift)

    @torch.no_grad()
    def hold(self) -> None:
        """Keep the integers, divided by 2**shift, for use without training.

        A division by a power of two is exact, so the sums are the same ones, scaled.  From here on
        no gradient comes through.
        """
        weight, bias = self.integers()
        self._held = weight * 2.0**-self.shift, bias * 2.0**-self.shift

    @torch.no_grad()
    def prove_exact(self, name: str, input_max: int = ACTIVATION_MAX) -> None:
        """Raise WeightsError unless no partial sum can reach 2**24."""
        weight, bias = self.integers()
        worst = weight.abs().double().sum(1) * input_max + bias.abs().double()
        if not bool((worst < EXACT_LIMIT).all()):  # also catches NaN
            raise WeightsError(
                f"{name}: a sum of up to {float(worst.max()):.0f} is not exact in float32"
            )

    def begin(self, x: Tensor) -> Tensor:
        """The sum over the first columns alone, for an `end` with the others; after `hold`.

        Integers may be added in any order, so a part of the sum that several calls share can be
        formed once.
        """
        assert self._held is not None
        return F.linear(x, self._held[0][:, : x.shape[1]])

    def end(self, begun: Tensor, x: Tensor | None) -> Tensor:
        """Finish what `begin` began; x holds the last columns, None for zeros."""
        assert self._held is not None
        weight, bias = self._held
        if x is None:
            total = begun + bias
        else:
            total = F.linear(x, weight[:, -x.shape[1] :], bias).add_(begun)
        return total.floor_().clamp_(self.low, self.limit)

    @property
    def held(self) -> bool:
        """Whether `hold` was called."""
        return self._held is not None

    def forward(self, x: Tensor) -> Tensor:
        """(rows, inputs) integers -> (rows, outputs) integers, held in float32."""
        if self._held is not None:
            return F.linear(x, *self._held).floor_().clamp_(self.low, self.limit)
        weight, bias = self.integers()
        y = floor_through(F.linear(x, weight, bias) * 2.0**-self.shift)
        return y.clamp(self.low, self.limit)


def companding_table() -> Tensor:
    """Integer of each magnitude 0, 1/16, 2/16, ... steps; part of a model's tables."""
    magnitude = torch.arange(COMPAND_SIZE, dtype=torch.float64) / VALUE_UNIT
    value = torch.floor(COMPAND_GAIN * torch.asinh(2 * magnitude) + 0.5)
    return value.clamp(max=ACTIVATION_MAX).float()


def check_companding(table: Tensor) -> None:
    """Raise WeightsError unless a companding table gives activations, as the proof assumes.

    Args:
        table: (COMPAND_SIZE,) integers, which must lie within 0..ACTIVATION_MAX and never fall.
    """
    if table.shape != (COMPAND_SIZE,):
        raise WeightsError(f"companding: {table.numel()} entries, {COMPAND_SIZE} are needed")
    if not bool(((table >= 0) & (table <= ACTIVATION_MAX)).all()):  # also catches NaN
        raise WeightsError(f"companding: an entry is not within 0..{ACTIVATION_MAX}")
    if bool((table.diff() < 0).any()):
        raise WeightsError("companding: the table falls")


def compand_smooth(value: Tensor) -> Tensor:
    """The companding curve as training sees it: same integers, with a gradient.

    Args:
        value: integers in 1/16 of a step.
    """
    curve = COMPAND_GAIN * torch.asinh(value * (2 / VALUE_UNIT))
    return round_through(curve).clamp(-ACTIVATION_MAX, ACTIVATION_MAX)


def compand(value: Tensor, table: Tensor) -> Tensor:
    """The companding curve as coding sees it: a table look-up, exact everywhere."""
    index = value.abs().clamp(max=COMPAND_SIZE - 1).long()
    return table[index] * torch.sign(value)
