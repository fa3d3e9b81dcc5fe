"""Times, watched methods, peak memory, counted multiplications, and the peer for speed."""

from __future__ import annotations

import json
import subprocess
import sys
import time

import numpy as np
import pytest
import torch

from vcmcodec.errors import RequestError
from vcmcodec.evaluation import scale
from vcmcodec.evaluation.macs import count_kmacs
from vcmcodec.evaluation.timing import measure_rounds, peak_memory_bytes, torch_threads, watch


def test_operations_take_turns_and_warm_up_is_not_counted() -> None:
    calls: list[str] = []

    def slow_at_first() -> None:
        if calls.count("a") == 0:
            time.sleep(0.2)
        calls.append("a")

    timings = measure_rounds({"a": slow_at_first, "b": lambda: calls.append("b")}, repeats=3)
    assert calls == ["a", "b"] * 4
    assert timings["a"].max_ms < 150
    assert timings["a"].min_ms <= timings["a"].median_ms <= timings["a"].max_ms
    assert timings["b"].repeats == 3
    with pytest.raises(RequestError):
        measure_rounds({}, repeats=0)


class Coder:
    def push(self, seconds: float) -> str:
        time.sleep(seconds)
        return "pushed"

    def finish(self) -> str:
        return self.push(0.02)


def test_watched_time_counts_nested_calls_once_and_leaves_no_trace() -> None:
    before = Coder.__dict__["push"], Coder.__dict__["finish"]
    start = time.perf_counter()
    with watch(((Coder, "push"), (Coder, "finish"))) as stopwatch:
        assert Coder().push(0.03) == "pushed"
        assert Coder().finish() == "pushed"
        time.sleep(0.05)
    elapsed = time.perf_counter() - start
    assert stopwatch.calls == 2
    assert 0.05 <= stopwatch.seconds <= elapsed - 0.05
    assert (Coder.__dict__["push"], Coder.__dict__["finish"]) == before


def test_threads_are_put_back() -> None:
    before = torch.get_num_threads()

    def fail() -> None:
        with torch_threads(1):
            assert torch.get_num_threads() == 1
            raise KeyError

    with pytest.raises(KeyError):
        fail()
    assert torch.get_num_threads() == before


def test_peak_memory_sees_a_large_array_in_a_fresh_process() -> None:
    code = (
        "from vcmcodec.evaluation.timing import peak_memory_bytes as peak; before = peak();"
        "block = bytearray(200_000_000); block[::4096] = bytes(len(block[::4096])); del block;"
        "print(before, peak())"
    )
    # A parent that is large itself must not be what is measured.
    ballast = np.ones(30_000_000)
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=60
    )
    before, after = map(int, done.stdout.split())
    assert before < ballast.nbytes
    assert 190e6 < after - before < 230e6
    assert peak_memory_bytes() > ballast.nbytes


def test_multiplications_of_known_layers() -> None:
    class Pair(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.down = torch.nn.Conv2d(3, 8, 4, stride=4, bias=False)
            self.mix = torch.nn.Linear(8, 16, bias=False)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return self.mix(self.down(x).movedim(1, -1))

    model, picture = Pair(), torch.zeros(1, 3, 32, 32)
    total, parts = count_kmacs(lambda: model(picture), 32 * 32)
    # A pixel: 3*4*4*8 multiplications at each 16th for the convolution, 8*16 for the map.
    assert total == pytest.approx((3 * 16 * 8 / 16 + 8 * 16 / 16) / 1000)
    assert [part.part for part in parts] == ["Pair"]
    loose = torch.ones(64, 32)
    total, parts = count_kmacs(lambda: (model.mix(torch.ones(4, 8)), loose @ loose.T), 1000)
    by_part = {part.part: part.kmacs_per_pixel for part in parts}
    assert by_part == {
        "no module": pytest.approx(64 * 32 * 64 / 1e6),
        "Linear": pytest.approx(4 * 8 * 16 / 1e6),
    }
    assert sum(by_part.values()) == pytest.approx(total)


def test_sizes_of_megapixels() -> None:
    for megapixels in (0.4, 2, 12, 100):
        width, height = scale.size_of(megapixels)
        assert width * height == pytest.approx(megapixels * 1e6, rel=0.01)
        assert width / height == pytest.approx(1.5, rel=0.01)
    with pytest.raises(RequestError):
        scale.size_of(-1)


@pytest.mark.slow
def test_peer_codes_a_picture_beside_any_torchvision() -> None:
    # In a process of its own: what it declares stays declared, and the import takes seconds.
    code = (
        "import json, numpy as np\n"
        "from vcmcodec.evaluation.compressai_peer import Mbt2018Mean\n"
        "peer = Mbt2018Mean()\n"
        "rgb = np.random.default_rng(0).integers(0, 256, (70, 100, 3), np.uint8)\n"
        "coded = peer.compress(rgb)\n"
        "out = peer.decompress(coded)\n"
        "print(json.dumps([out.shape, sum(len(s[0]) for s in coded['strings'])]))\n"
    )
    done = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", code],
        capture_output=True, text=True, check=True, timeout=120,
    )  # fmt: skip
    shape, num_bytes = json.loads(done.stdout.splitlines()[-1])
    assert shape == [128, 128, 3]
    assert num_bytes > 0
