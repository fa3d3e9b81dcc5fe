"""The entropy networks choose the same on every instruction set, thread count and batch size.

Each setting is a process of its own (`worker.py`).  The counter-test runs networks of the same
shape whose weights are no integers, with their sums in two orders: they do not choose the same, so
integers are what does it.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import cache
from pathlib import Path
from typing import Any
from unittest import mock

import numpy as np
import pytest
import torch
from worker import traverse

from photographs import photograph
from vcmcodec.codec import decode, encode
from vcmcodec.models import load_model
from vcmcodec.nn.integer import IntegerLinear

ROOT = Path(__file__).resolve().parents[2]
VARIABLES = ("ONEDNN_MAX_CPU_ISA", "ATEN_CPU_CAPABILITY", "MKL_CBWR", "MKL_ENABLE_INSTRUCTIONS")
SETTINGS: dict[str, dict[str, str]] = {
    "as it comes": {},
    "oldest": {
        "ONEDNN_MAX_CPU_ISA": "SSE41", "ATEN_CPU_CAPABILITY": "default", "MKL_CBWR": "COMPATIBLE"
    },
    "avx2": {"ONEDNN_MAX_CPU_ISA": "AVX2", "ATEN_CPU_CAPABILITY": "avx2", "MKL_CBWR": "AVX2"},
    "avx512": {"ONEDNN_MAX_CPU_ISA": "AVX512_CORE", "MKL_ENABLE_INSTRUCTIONS": "AVX512"},
    "amx": {"ONEDNN_MAX_CPU_ISA": "AVX512_CORE_AMX", "ATEN_CPU_CAPABILITY": "avx512"},
}  # fmt: skip
QUICK = ("as it comes", "oldest")


def run(folder: Path, name: str) -> dict[str, Any]:
    """What a worker finds under a setting."""
    environment = {k: v for k, v in os.environ.items() if k not in (*VARIABLES, "OMP_NUM_THREADS")}
    # threads that wait in a loop are slow where cores are shared
    environment |= SETTINGS[name] | {"PYTHONPATH": str(ROOT), "OMP_WAIT_POLICY": "PASSIVE"}
    worker = Path(__file__).with_name("worker.py")
    subprocess.run(
        [sys.executable, str(worker), str(folder), name],
        env=environment, check=True, timeout=300, stderr=subprocess.PIPE,
    )  # fmt: skip
    found = json.loads((folder / f"{name}.json").read_text())
    assert isinstance(found, dict)
    return found


class Laboratory:
    """Given numbers, and what each setting made of them; a setting runs when first asked for."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.rgb = photograph("astronaut", 90, 121, 20, 150)
        labels = np.zeros((6, 8), np.int64)
        labels[1:5, 2:6] = 1
        labels[0, 7] = 2
        random = np.random.default_rng(8)
        shape = load_model("scene").codec.latent
        spread = np.linspace(6, 0.4, shape.channels)  # wide at first, as a latent is
        np.savez(
            folder / "given.npz",
            labels=labels,
            latent=np.rint(random.normal(0, spread, (48, shape.channels))).astype(np.float32),
            hyper=random.integers(-9, 10, (48, shape.hyper)).astype(np.float32),
            picture=self.rgb,
        )
        made = encode(self.rgb, quality=80, groups=labels.astype(np.uint8), digest=True)
        (folder / "file.vcm").write_bytes(made)
        self.found = cache(lambda name: run(folder, name))


@pytest.fixture(scope="module")
def laboratory(tmp_path_factory: pytest.TempPathFactory) -> Laboratory:
    return Laboratory(tmp_path_factory.mktemp("settings"))


def choices(laboratory: Laboratory, names: tuple[str, ...], kind: str) -> dict[str, str]:
    """Fingerprint by setting and combination."""
    return {
        f"{name}: {combination}": mark
        for name in names
        for combination, mark in laboratory.found(name)[kind].items()
    }


def check(laboratory: Laboratory, names: tuple[str, ...]) -> None:
    """All of what must be alike under these settings."""
    marks = choices(laboratory, names, "integer")
    assert len(marks) == 8 * len(names)
    assert len(set(marks.values())) == 1, marks
    decoded = {name: laboratory.found(name)["decoded"] for name in names}
    assert all(found == decoded[names[0]] for found in decoded.values()), decoded
    pictures = [np.load(laboratory.folder / f"{name}.npy").astype(int) for name in names]
    for picture in pictures[1:]:
        assert np.abs(picture - pictures[0]).max() <= 1
    for name in names:  # what was encoded there is decoded here; the digest would tell
        here = np.asarray(decode(laboratory.folder / f"{name}.made")).astype(int)
        assert here.shape == laboratory.rgb.shape


def test_old_and_new_instructions_choose_the_same(laboratory: Laboratory) -> None:
    check(laboratory, QUICK)
    capability = [laboratory.found(name)["capability"] for name in QUICK]
    if capability[0] == capability[1]:
        pytest.skip(f"this machine has one instruction set only: {capability[0]}")


Rows = tuple[torch.Tensor, torch.Tensor]  # weights and bias of a layer


def between_the_integers(layer: IntegerLinear) -> Rows:
    """Weights as usual networks have them, near the layer's own and the same at every call."""
    random = torch.Generator().manual_seed(layer.weight.numel())
    noise = torch.rand(layer.weight.shape, generator=random) - 0.5
    return (layer.weight + noise) * 2.0**-layer.shift, layer.bias


@contextmanager
def sums_in_order(step: int, weights: Callable[[IntegerLinear], Rows] | None) -> Iterator[None]:
    """Form every sum of the networks term by term, from the first to the last or (-1) back.

    One product and one addition at a time is the same on every machine, so this needs no other
    processor to show what the order of a sum can do.

    Args:
        weights: None for the layers' own, in integers.
    """

    def forward(layer: IntegerLinear, x: torch.Tensor) -> torch.Tensor:
        weight, bias = layer.integers() if weights is None else weights(layer)
        total = bias.expand(len(x), -1).clone()
        for column in range(x.shape[1])[::step]:
            total += x[:, column, None] * weight[:, column]
        if weights is None:
            total = torch.floor(total * 2.0**-layer.shift)
        return total.clamp(layer.low, layer.limit)

    with (
        mock.patch.object(IntegerLinear, "forward", forward),
        mock.patch.object(IntegerLinear, "held", False),
    ):
        yield


def chosen_in_order(
    laboratory: Laboratory, step: int, weights: Callable[[IntegerLinear], Rows] | None
) -> str:
    """Fingerprint of all means, table indexes and symbols."""
    codec = load_model("scene").codec
    with np.load(laboratory.folder / "given.npz") as arrays:
        given = {key: arrays[key] for key in arrays.files}
    log_gain = codec.gains.log_gain[:, : codec.latent.base_channels]
    with torch.inference_mode(), sums_in_order(step, weights):
        return traverse(codec.entropy, log_gain, given, 1)


def test_integer_networks_choose_the_same_in_any_order_of_their_sums(
    laboratory: Laboratory,
) -> None:
    marks = {chosen_in_order(laboratory, step, None) for step in (1, -1)}
    assert marks == set(laboratory.found("as it comes")["integer"].values())


def test_float_networks_do_not(laboratory: Laboratory) -> None:
    forward, again, back = (
        chosen_in_order(laboratory, step, between_the_integers) for step in (1, 1, -1)
    )
    assert forward == again
    assert forward != back


@pytest.mark.slow
def test_all_settings_choose_the_same(laboratory: Laboratory) -> None:
    check(laboratory, tuple(SETTINGS))
