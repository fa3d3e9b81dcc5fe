"""Whatever a program has set of torch around a call, files and results are the same."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager, ExitStack, contextmanager
from functools import cache
from threading import Barrier
from typing import Any

import numpy as np
import pytest
import torch

import vcmcodec
from photographs import photograph
from vcmcodec import edit, machine, models
from vcmcodec.deep import decode_symbols
from vcmcodec.torch_state import plain_torch
from vcmcodec.vision import backend

OPTIONS: dict[str, dict[str, Any]] = {
    "for people": {"tasks": ["human"]},
    "for both": {"quality": 60, "base_quality": 30},
    "for machines": {"tasks": ["detection"], "effort": 0},
    "adapted": {"tasks": ["detection"], "effort": 1},
    "pyramid": {"profile": "pyramid"},
    "adapted pyramid": {"profile": "pyramid", "effort": 1},
    "semantic": {"profile": "semantic"},
    "bottleneck": {"profile": "bottleneck", "split": "c3"},
}


@contextmanager
def default_dtype(dtype: torch.dtype) -> Iterator[None]:
    before = torch.get_default_dtype()
    torch.set_default_dtype(dtype)
    try:
        yield
        assert torch.get_default_dtype() == dtype  # the program's own, also after a call
    finally:
        torch.set_default_dtype(before)


@contextmanager
def default_device(name: str) -> Iterator[None]:
    torch.set_default_device(name)
    try:
        yield
        assert torch.empty(0).device.type == name
    finally:
        torch.set_default_device(None)


Surroundings = Callable[[], AbstractContextManager[object]]
SURROUNDINGS: dict[str, Surroundings] = {
    "autocast": lambda: torch.autocast("cpu", torch.bfloat16),
    "float64": lambda: default_dtype(torch.float64),
    "bfloat16": lambda: default_dtype(torch.bfloat16),
    "meta": lambda: torch.device("meta"),
    "default meta": lambda: default_device("meta"),
    "inference mode": torch.inference_mode,
}
TOGETHER = ("autocast", "bfloat16", "meta", "inference mode")


@contextmanager
def all_at_once() -> Iterator[None]:
    with ExitStack() as stack:
        for name in TOGETHER:
            stack.enter_context(SURROUNDINGS[name]())
        yield


def forget() -> None:
    """Models are loaded anew at the next call."""
    for loader in (models._load, models._load_tasks, models._mixture, backend._load):
        loader.cache_clear()


@pytest.fixture(autouse=True)
def _nothing_is_left_behind() -> Iterator[None]:
    forget()
    yield
    forget()


def picture() -> np.ndarray:
    return photograph("astronaut", 100, 130, 20, 150)


@cache
def expected(name: str) -> tuple[bytes, Any]:
    """File and what is read of it, with nothing around the calls."""
    file = vcmcodec.encode(picture(), digest=True, **OPTIONS[name])
    return file, results(file)


def results(file: bytes) -> Any:
    """All that is decoded of a file, as plain numbers."""
    assert edit.verify(file, deep=True, decode_symbols=decode_symbols).ok
    with vcmcodec.open(file) as reader:
        is_picture = reader.header.profile == 1
        seen = machine.analyze(file) if "detection" in reader.tasks else None  # tells no warning
    found = [] if seen is None else [(t.label, t.score, t.box) for t in seen.objects or ()]
    if is_picture:
        return found, np.asarray(vcmcodec.decode(file)).tolist()
    tensors = vcmcodec.decode_features(file).tensors
    return found, {name: value.tolist() for name, value in tensors.items()}


def check(name: str, around: Surroundings) -> None:
    """Write and read inside, and read outside what was written and loaded there."""
    file, read = expected(name)
    forget()
    with around():
        assert vcmcodec.encode(picture(), digest=True, **OPTIONS[name]) == file
        assert results(file) == read
    assert results(file) == read


@pytest.mark.weights
@pytest.mark.parametrize("name", OPTIONS)
def test_files_and_results_are_those_of_a_plain_call(name: str) -> None:
    check(name, all_at_once)


@pytest.mark.slow
@pytest.mark.weights
@pytest.mark.parametrize("around", SURROUNDINGS)
@pytest.mark.parametrize("name", OPTIONS)
def test_so_they_are_in_each_of_the_surroundings(name: str, around: str) -> None:
    check(name, SURROUNDINGS[around])


@pytest.mark.weights
def test_features_are_those_of_a_plain_call() -> None:
    plain = vcmcodec.features(picture(), split="c3").tensors
    forget()
    with all_at_once():
        found = vcmcodec.features(picture(), split="c3").tensors
    assert found.keys() == plain.keys()
    assert all(torch.equal(found[name], plain[name]) for name in plain)


@pytest.mark.weights
@pytest.mark.parametrize("precision", ["high", "medium"])
def test_a_lower_precision_of_matrix_products_changes_no_symbol(precision: str) -> None:
    """Pixels may then differ by one; what is coded are integers of 7 bits, exact in bfloat16."""
    plain, (_, wanted) = expected("for people")
    before = torch.get_float32_matmul_precision()
    torch.set_float32_matmul_precision(precision)
    try:
        inside = vcmcodec.encode(picture(), digest=True, **OPTIONS["for people"])
        for file in (plain, inside):
            assert edit.verify(file, deep=True, decode_symbols=decode_symbols).ok
        shown = np.asarray(vcmcodec.decode(plain)).astype(int)
    finally:
        torch.set_float32_matmul_precision(before)
    assert np.abs(shown - np.array(wanted)).max() <= 1
    assert edit.verify(inside, deep=True, decode_symbols=decode_symbols).ok


def test_autocast_would_change_the_integers() -> None:
    """Without the guard an integer network does differ, so the tests above can fail."""
    layer = models.load_model("scene").codec.entropy.slices[0].last
    x = torch.randint(0, 128, (50, layer.weight.shape[1])).float()
    exact = layer(x)
    with torch.autocast("cpu", torch.bfloat16):
        assert not torch.equal(layer(x).float(), exact)
        with plain_torch():
            assert torch.equal(layer(x), exact)


@pytest.mark.weights
@pytest.mark.parametrize("name", ["adapted", "adapted pyramid"])
def test_models_that_were_loaded_in_inference_mode_adapt_later(name: str) -> None:
    file, _ = expected(name)
    forget()
    with torch.inference_mode():
        vcmcodec.decode(expected("for people")[0])
        machine.analyze(file)
    assert vcmcodec.encode(picture(), digest=True, **OPTIONS[name]) == file


def test_the_last_thread_out_sets_the_default_dtype_again() -> None:
    inside, left = Barrier(2), Barrier(2)

    def first() -> None:
        with plain_torch():
            inside.wait(30)
        left.wait(30)

    def second() -> torch.dtype:
        with plain_torch():
            inside.wait(30)
            left.wait(30)
            return torch.get_default_dtype()

    with default_dtype(torch.float64):
        with ThreadPoolExecutor(2) as pool:
            tasks = pool.submit(first), pool.submit(second)
            assert [task.result(60) for task in tasks] == [None, torch.float32]
        assert torch.get_default_dtype() == torch.float64


def test_an_error_leaves_the_surroundings_as_they_were() -> None:
    with default_dtype(torch.float16), torch.autocast("cpu", torch.bfloat16):
        with pytest.raises(vcmcodec.VcmError):
            vcmcodec.encode(picture(), quality=1000)
        assert torch.is_autocast_enabled("cpu")
        assert torch.get_default_dtype() == torch.float16


LOADERS: dict[str, Callable[[], object]] = {
    "scene": lambda: models.load_model("scene"),
    "pyramid": lambda: models.load_model("pyramid"),
    "semantic": lambda: models.load_model("semantic"),
    "bottleneck": lambda: models.load_model("bottleneck"),
    "tasks": lambda: models.load_tasks(models.load_model("scene").fingerprint),
    "vision": backend.open_backend,
}


@pytest.mark.weights
@pytest.mark.parametrize("name", LOADERS)
def test_loading_a_model_draws_no_random_number(name: str) -> None:
    """What a program draws next is what it would have drawn."""
    torch.manual_seed(7)
    before = torch.get_rng_state()
    LOADERS[name]()
    assert torch.equal(torch.get_rng_state(), before)


@pytest.mark.weights
@pytest.mark.parametrize("name", ["scene", "pyramid", "semantic", "bottleneck"])
def test_every_value_of_a_loaded_model_is_its_files(
    name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """None is left of the memory in which the networks were made."""

    def parts(model: Any) -> list[torch.nn.Module]:
        found = (
            getattr(model, "coding", model).codec,
            *(getattr(model, part) for part in ("encoder", "adaptor") if hasattr(model, part)),
        )
        return list(found)

    def tensors(model: Any) -> list[torch.Tensor]:
        return [t for part in parts(model) for t in (*part.parameters(), *part.buffers())]

    empty = torch.empty
    monkeypatch.setattr(torch, "empty", lambda *size, **how: empty(*size, **how).fill_(torch.nan))
    loaded = tensors(models.load_model(name))
    assert loaded
    assert all(bool(value.isfinite().all()) for value in loaded)
