"""Networks that are made only to be filled: what a weight file gives is not drawn at random first.

Drawing took a fifth of the time that loading a model takes, and moved the caller's random numbers
on.  The device `meta` would spare it, too, but there torch first imports a second of Python.
"""

from __future__ import annotations

from collections.abc import Callable, Collection
from typing import Any

import torch
from torch import nn
from torch.overrides import TorchFunctionMode

_FILLING: tuple[Callable[..., Any], ...] = (
    torch.Tensor.normal_,
    torch.Tensor.uniform_,
    nn.init.normal_,
    nn.init.uniform_,
    nn.init.kaiming_uniform_,
)


class Unfilled(TorchFunctionMode):
    """Within it modules are made with whatever lies in memory where they would begin at random.

    Every parameter and buffer must be given afterwards, as strict `load_state_dict` sees to.
    """

    def __torch_function__(
        self, func: Callable[..., Any], types: Collection[type], args: tuple[Any, ...] = (),
        kwargs: dict[str, Any] | None = None,
    ) -> Any:  # fmt: skip
        """Leave out what draws random numbers; everything else as ever."""
        kwargs = kwargs or {}
        if func is torch.randn:
            return torch.empty(*args, **kwargs)
        if func in _FILLING:
            return args[0] if args else kwargs["tensor"]
        return func(*args, **kwargs)
