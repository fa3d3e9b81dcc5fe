"""Building blocks of the vision network: plain convolutions, which CPUs run best.

Measured on one AVX-512 thread: 3x3 convolutions of 64 to 256 channels run at three times the
arithmetic rate of depthwise ones, and ReLU trains a fifth faster than SiLU.  So ReLU is inside, and
SiLU only where a stage ends: there the features learn to be those of a teacher, which are of that
kind and reach below zero.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import TypeVar

import torch
from torch import Tensor, nn

Module = TypeVar("Module", bound=nn.Module)
ACTIVATIONS: dict[str, Callable[[], nn.Module]] = {
    "": nn.Identity,
    "relu": partial(nn.ReLU, inplace=True),
    "silu": partial(nn.SiLU, inplace=True),
}


class ConvNorm(nn.Module):
    """Convolution, batch norm and an activation: "relu", "silu" or "" for none.

    `fold` merges the norm into the convolution; after it the module has a bias and no norm.
    """

    def __init__(
        self,
        inputs: int,
        outputs: int,
        size: int = 3,
        stride: int = 1,
        *,
        groups: int = 1,
        act: str = "relu",
    ) -> None:
        super().__init__()
        pad = (size - 1) // 2  # an even kernel covers one pixel more to the right and below
        self.conv = nn.Conv2d(inputs, outputs, size, stride, pad, groups=groups, bias=False)
        self.norm: nn.Module = nn.BatchNorm2d(outputs)
        self.act = ACTIVATIONS[act]()

    def forward(self, x: Tensor) -> Tensor:
        """(N, inputs, H, W) to (N, outputs, H / stride, W / stride), rounded up."""
        return self.act(self.norm(self.conv(x)))

    @torch.no_grad()
    def fold(self) -> None:
        """Merge the norm's running statistics into the convolution; does nothing twice."""
        norm = self.norm
        if not isinstance(norm, nn.BatchNorm2d):
            return
        assert norm.running_var is not None
        assert norm.running_mean is not None
        gain = norm.weight / (norm.running_var + norm.eps).sqrt()
        self.conv.weight.mul_(gain.view(-1, 1, 1, 1))
        self.conv.bias = nn.Parameter(norm.bias - norm.running_mean * gain)
        self.norm = nn.Identity()


class Residual(nn.Module):
    """Two 3x3 convolutions beside a shortcut."""

    def __init__(self, channels: int, act: str = "relu") -> None:
        super().__init__()
        self.first = ConvNorm(channels, channels)
        self.second = ConvNorm(channels, channels, act="")
        self.act = ACTIVATIONS[act]()

    def forward(self, x: Tensor) -> Tensor:
        """(N, channels, H, W) to the same shape."""
        return self.act(x + self.second(self.first(x)))


class Context(nn.Module):
    """Spatial pyramid pooling by repeated 5x5 maxima: a wide view for little arithmetic."""

    def __init__(self, channels: int, act: str = "silu") -> None:
        super().__init__()
        self.reduce = ConvNorm(channels, channels // 2, 1, act=act)
        self.pool = nn.MaxPool2d(5, 1, 2)
        self.expand = ConvNorm(channels * 2, channels, 1, act=act)

    def forward(self, x: Tensor) -> Tensor:
        """(N, channels, H, W) to the same shape."""
        views = [self.reduce(x)]
        for _ in range(3):
            views.append(self.pool(views[-1]))
        return self.expand(torch.cat(views, 1))


class Fuse(nn.Module):
    """Mix concatenated levels by a 1x1 convolution, then refine: how pyramid levels are joined."""

    def __init__(self, inputs: int, outputs: int) -> None:
        super().__init__()
        self.mix = ConvNorm(inputs, outputs, 1)
        self.refine = ConvNorm(outputs, outputs, act="")
        self.act = ACTIVATIONS["silu"]()

    def forward(self, *levels: Tensor) -> Tensor:
        """Levels (N, c, h, w) whose channels add up to `inputs`, to (N, outputs, h, w)."""
        mixed = self.mix(torch.cat(levels, 1))
        return self.act(mixed + self.refine(mixed))


class Separable(nn.Module):
    """3x3 depthwise, then 1x1: the cheap layer of the heads (5x5 trains seven times slower)."""

    def __init__(self, inputs: int, outputs: int, act: str = "relu") -> None:
        super().__init__()
        self.depthwise = ConvNorm(inputs, inputs, 3, groups=inputs, act=act)
        self.pointwise = ConvNorm(inputs, outputs, 1, act=act)

    def forward(self, x: Tensor) -> Tensor:
        """(N, inputs, H, W) to (N, outputs, H, W)."""
        return self.pointwise(self.depthwise(x))


class CrossStage(nn.Module):
    """Half of the channels goes through bottlenecks, half beside them, then both are mixed.

    Deep for few weights, which suits the coarsest stage (Wang et al., CSPNet, 2020).
    """

    def __init__(self, channels: int, blocks: int) -> None:
        super().__init__()
        half = channels // 2
        self.enter = ConvNorm(channels, half, 1, act="silu")
        self.beside = ConvNorm(channels, half, 1, act="silu")
        self.blocks = nn.ModuleList(
            nn.Sequential(ConvNorm(half, half, 1, act="silu"), Separable(half, half, "silu"))
            for _ in range(blocks)
        )
        self.join = ConvNorm(2 * half, channels, 1, act="silu")

    def forward(self, x: Tensor) -> Tensor:
        """(N, channels, H, W) to the same shape."""
        inner = self.enter(x)
        for block in self.blocks:
            inner = block(inner)
        return self.join(torch.cat([inner, self.beside(x)], 1))


def channels_last(module: Module) -> Module:
    """Store all kernels with the channels innermost, which is fastest on CPUs; same module."""
    return module.to(memory_format=torch.channels_last)  # type: ignore[call-overload]


def fold_norms(module: nn.Module) -> None:
    """Merge every batch norm of a network into its convolution, in place."""
    for part in module.modules():
        if isinstance(part, ConvNorm):
            part.fold()
