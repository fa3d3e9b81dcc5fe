"""Keeps out of the codec what a program has set of torch around it.

The codec's networks are exact, and files alike everywhere, in float32 on the device that they were
loaded to.  A caller may be within `torch.autocast`, have another default dtype or device, or be in
inference mode; none of this may choose a symbol, or stay in a model that is kept for later calls.

torch itself is loaded when a guarded function is called, not when it is defined.
"""

from __future__ import annotations

import contextlib
import os
import threading
from collections.abc import Iterator
from contextlib import AbstractContextManager

FLOAT32 = "VCMCODEC_FLOAT32"  # set to anything: nothing is computed in bfloat16
_lock = threading.Lock()
_inside = 0  # calls, of all threads, that need the default dtype to be float32
_before: object = None  # what it was, where it was another


@contextlib.contextmanager
def plain_torch() -> Iterator[None]:
    """No autocast on CPU and CUDA, default dtype float32, default device CPU; then as before.

    Also a decorator, though not of generators.  Autocast and the default device are each thread's
    own.  The default dtype is the whole process's: other threads of the caller see float32 until
    the last guarded call is over, and must not set it meanwhile.
    """
    import torch

    with contextlib.ExitStack() as stack:
        for kind in ("cpu", "cuda"):
            if torch.is_autocast_enabled(kind):
                stack.enter_context(torch.autocast(kind, enabled=False))
        if torch.get_default_device().type != "cpu":
            stack.enter_context(torch.device("cpu"))
        stack.enter_context(_default_float32())
        yield


@contextlib.contextmanager
def _default_float32() -> Iterator[None]:
    """The first call in remembers the default dtype, the last one out sets it again."""
    import torch

    global _inside, _before
    with _lock:
        _inside += 1
        if torch.get_default_dtype() != torch.float32:
            _before = torch.get_default_dtype()
            torch.set_default_dtype(torch.float32)
    try:
        yield
    finally:
        with _lock:
            _inside -= 1
            if not _inside and isinstance(_before, torch.dtype):
                torch.set_default_dtype(_before)
                _before = None


@contextlib.contextmanager
def loading() -> Iterator[None]:
    """As `plain_torch`, for what is kept: also outside inference mode.

    Tensors that are made in inference mode can never take part in a gradient, and a model that is
    loaded for decoding may later adapt a latent.
    """
    import torch

    with plain_torch(), torch.inference_mode(False):
        yield


def fast_bfloat16(device: object) -> bool:
    """Whether convolutions in bfloat16 are faster than in float32 on a device, not emulated.

    For what decides no symbol, and is not hurt by errors of half a percent.  Whoever wants the same
    scores on every machine sets `VCMCODEC_FLOAT32`.
    """
    import torch

    if os.environ.get(FLOAT32) or torch.device(str(device)).type != "cpu":
        return False
    can = torch.cpu.get_capabilities()
    return bool(can.get("avx512_bf16") or can.get("amx_bf16"))


def low_precision(device: object) -> AbstractContextManager[object]:
    """Convolutions in bfloat16 where `fast_bfloat16`, else as they are."""
    import torch

    kind = torch.device(str(device)).type
    return torch.autocast(kind, torch.bfloat16, enabled=fast_bfloat16(device))
