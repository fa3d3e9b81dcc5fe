"""Muon beside AdamW: kernels are stepped along orthogonalised momentum.

The momentum of a kernel, seen as a matrix (outputs, inputs x height x width), is replaced by the
nearest matrix with all singular values about 1, by five Newton-Schulz steps (Jordan 2024), and
scaled so that its root mean square is that of an AdamW step (Liu et al. 2025, arXiv 2502.16982):
one step size serves both.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

import torch
from torch import Tensor, nn

_COEFFICIENTS = (3.4445, -4.7750, 2.0315)
_MATCH = 0.2  # root mean square of a usual AdamW update


@torch.no_grad()
def orthogonalise(matrix: Tensor, steps: int = 5) -> Tensor:
    """Push all singular values of a matrix (m, n) towards 1 (they end within 0.7 to 1.2)."""
    a, b, c = _COEFFICIENTS
    x = matrix.to(torch.bfloat16)
    x = x / (x.norm() + 1e-7)
    flip = x.shape[0] > x.shape[1]
    if flip:
        x = x.t()
    for _ in range(steps):
        gram = x @ x.t()
        x = a * x + (b * gram + c * gram @ gram) @ x
    return (x.t() if flip else x).to(matrix.dtype)


class MuonAdamW(torch.optim.Optimizer):
    """Muon for the groups with `muon` true, AdamW for the others."""

    def __init__(self, groups: Iterable[dict[str, Any]], lr: float) -> None:
        """Take parameter groups, each with `params`, `weight_decay` and `muon`."""
        super().__init__(list(groups), {"lr": lr, "weight_decay": 0.0, "muon": False})

    @torch.no_grad()
    def step(self, closure: Callable[[], Any] | None = None) -> None:  # type: ignore[override]
        """One step; parameters without a gradient stay."""
        for group in self.param_groups:
            for parameter in group["params"]:
                if parameter.grad is None:
                    continue
                state = self.state[parameter]
                if group["muon"]:
                    self._muon(parameter, state, group)
                else:
                    self._adamw(parameter, state, group)

    @staticmethod
    def _muon(parameter: Tensor, state: dict[str, Any], group: dict[str, Any]) -> None:
        gradient = parameter.grad
        assert gradient is not None
        if "momentum" not in state:
            state["momentum"] = torch.zeros_like(parameter)
        momentum = state["momentum"].lerp_(gradient, 0.05)
        mixed = gradient.lerp(momentum, 0.95).flatten(1)  # Nesterov
        update = orthogonalise(mixed) * (_MATCH * max(mixed.shape) ** 0.5)
        parameter.mul_(1 - group["lr"] * group["weight_decay"])
        parameter.add_(update.view_as(parameter), alpha=-group["lr"])

    @staticmethod
    def _adamw(parameter: Tensor, state: dict[str, Any], group: dict[str, Any]) -> None:
        gradient = parameter.grad
        assert gradient is not None
        if "mean" not in state:
            state["mean"], state["square"] = (
                torch.zeros_like(parameter),
                torch.zeros_like(parameter),
            )
            state["count"] = 0
        state["count"] += 1
        mean = state["mean"].lerp_(gradient, 0.1)
        square = state["square"].mul_(0.999).addcmul_(gradient, gradient, value=0.001)
        scale = (1 - 0.999 ** state["count"]) ** 0.5 / (1 - 0.9 ** state["count"])
        parameter.mul_(1 - group["lr"] * group["weight_decay"])
        parameter.addcdiv_(mean, square.sqrt().add_(1e-8), value=-group["lr"] * scale)


def parameter_groups(network: nn.Module, decay: float) -> list[dict[str, Any]]:
    """Kernels of a network that mix channels for Muon, everything else for AdamW.

    Args:
        network: its first and last layers, depthwise kernels and vectors go to AdamW.
        decay: weight decay of everything that is no vector.
    """
    kernels, matrices, vectors = [], [], []
    for parameter in network.parameters():
        mixes = parameter.dim() == 4 and min(parameter.shape[:2]) >= 32
        if parameter.dim() <= 1:
            vectors.append(parameter)
        elif mixes:
            kernels.append(parameter)
        else:
            matrices.append(parameter)
    return [
        {"params": kernels, "weight_decay": decay, "muon": True},
        {"params": matrices, "weight_decay": decay, "muon": False},
        {"params": vectors, "weight_decay": 0.0, "muon": False},
    ]
