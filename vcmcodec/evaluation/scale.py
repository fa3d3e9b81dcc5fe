"""Time and peak memory over the size of a picture, each size and direction in a fresh process.

`python -m vcmcodec.evaluation.scale encode|decode ...` is that process; it prints one JSON line.
"""

from __future__ import annotations

import argparse
import json
import math
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from vcmcodec.errors import RequestError
from vcmcodec.evaluation.environment import Environment, describe_environment
from vcmcodec.evaluation.report import Table, environment_note

MEGAPIXELS = (0.4, 2.0, 12.0, 100.0)


@dataclass(frozen=True)
class ScaleRow:
    """One size; seconds and peaks are of one run each, without loading of code and weights.

    Attributes:
        width: pixels.
        height: pixels.
        encode_s: seconds from array to file.
        decode_s: seconds from file to picture.
        encode_cpu_s: processor seconds of all threads, which other work on the machine spares.
        decode_cpu_s: the same for decoding.
        encode_peak_bytes: most memory of the encoding process, picture and interpreter included.
        decode_peak_bytes: the same for decoding.
        num_bytes: the file.
        failure: last line that a process wrote before it failed; None where all went well.
    """

    width: int
    height: int
    encode_s: float | None = None
    decode_s: float | None = None
    encode_cpu_s: float | None = None
    decode_cpu_s: float | None = None
    encode_peak_bytes: int | None = None
    decode_peak_bytes: int | None = None
    num_bytes: int | None = None
    failure: str | None = None


@dataclass(frozen=True)
class Scale:
    """Result of one run."""

    rows: tuple[ScaleRow, ...]
    quality: float
    environment: Environment


def size_of(megapixels: float) -> tuple[int, int]:
    """Return (width, height) of a 3:2 picture of about so many millions of pixels."""
    if not 0 < megapixels <= 1000:
        raise RequestError(f"{megapixels} megapixels: between 0 and 1000 can be measured")
    height = max(1, round(math.sqrt(megapixels * 1e6 / 1.5)))
    return round(1.5 * height), height


def run(
    megapixels: Sequence[float] = MEGAPIXELS,
    *,
    threads: int = 2,
    model: str | None = None,
    quality: float = 50.0,
    timeout_s: float = 3600.0,
    progress: Callable[[str], None] = lambda _: None,
) -> Scale:
    """Measure each size, encode and decode, in a process of its own.

    Args:
        megapixels: sizes, in millions of pixels.
        threads: of torch.
        quality: of the full file.
        model: name of our model; None for the default.
        timeout_s: longest that one process may take.
        progress: called with one line before each piece of work.

    Raises:
        RequestError: a size that is not possible.
    """
    options = ["--quality", str(quality), "--threads", str(threads)]
    options += [] if model is None else ["--model", model]
    rows = []
    with tempfile.TemporaryDirectory(prefix="vcm-scale-") as folder:
        path = Path(folder) / "picture.vcm"
        for size in [size_of(value) for value in megapixels]:
            facts: dict[str, float] = {}
            failure = None
            for direction in ("encode", "decode"):
                progress(f"{direction} {size[0]}x{size[1]}")
                answer = _measure([direction, *map(str, size), str(path), *options], timeout_s)
                if isinstance(answer, str):
                    failure = f"{direction}: {answer}"
                    break
                facts[f"{direction}_s"] = answer["seconds"]
                facts[f"{direction}_cpu_s"] = answer["cpu_seconds"]
                facts[f"{direction}_peak_bytes"] = int(answer["peak_bytes"])
                facts["num_bytes"] = int(answer["num_bytes"])
            rows.append(ScaleRow(*size, **facts, failure=failure))  # type: ignore[arg-type]
    return Scale(tuple(rows), quality, describe_environment(threads))


def _measure(arguments: Sequence[str], timeout_s: float) -> dict[str, float] | str:
    """Run one process; return its facts, or why there are none."""
    command = [sys.executable, "-m", "vcmcodec.evaluation.scale", *arguments]
    try:
        done = subprocess.run(
            command, capture_output=True, text=True, timeout=timeout_s, check=False
        )
    except subprocess.TimeoutExpired:
        return f"not done after {timeout_s:g} s"
    if done.returncode != 0:
        lines = done.stderr.strip().splitlines()
        return lines[-1] if lines else f"ended with status {done.returncode}"
    answer: dict[str, float] = json.loads(done.stdout.splitlines()[-1])
    return answer


def _child(arguments: Sequence[str] | None = None) -> None:
    """Encode or decode one picture and print the facts; the body of the fresh process."""
    import torch

    from vcmcodec import codec
    from vcmcodec.bitstream.limits import Limits
    from vcmcodec.evaluation.corpora import photo
    from vcmcodec.evaluation.timing import peak_memory_bytes

    parser = argparse.ArgumentParser()
    parser.add_argument("direction", choices=("encode", "decode"))
    parser.add_argument("width", type=int)
    parser.add_argument("height", type=int)
    parser.add_argument("path", type=Path)
    parser.add_argument("--quality", type=float, required=True)
    parser.add_argument("--threads", type=int, required=True)
    parser.add_argument("--model")
    asked = parser.parse_args(arguments)
    torch.set_num_threads(asked.threads)
    limits = Limits(max_pixels=max(asked.width * asked.height, Limits().max_pixels))
    # A first small picture loads code and weights, which belong to no size.
    codec.decode(codec.encode(photo(64, 64).rgb, model=asked.model))
    if asked.direction == "encode":
        rgb = photo(asked.width, asked.height).rgb
        operation: Callable[[], Any] = partial(
            codec.encode, rgb, quality=asked.quality, model=asked.model, limits=limits
        )
    else:
        operation = partial(codec.decode, asked.path.read_bytes(), limits=limits)
    start, cpu_start = time.perf_counter(), time.process_time()
    result = operation()
    facts = {
        "seconds": time.perf_counter() - start,
        "cpu_seconds": time.process_time() - cpu_start,
        "peak_bytes": peak_memory_bytes(),
    }
    if asked.direction == "encode":
        asked.path.write_bytes(result)
    facts["num_bytes"] = asked.path.stat().st_size
    print(json.dumps(facts))


def table(result: Scale) -> Table:
    """Return the result as a table."""

    def cell(value: float | None, scale: float, digits: int) -> str:
        return "n/a" if value is None else f"{value / scale:.{digits}f}"

    rows = []
    for row in result.rows:
        pixels = row.width * row.height
        rows.append(
            (
                f"{row.width}x{row.height} ({pixels / 1e6:.1f} MP)",
                cell(row.encode_s, 1, 2),
                cell(row.decode_s, 1, 2),
                cell(row.encode_cpu_s, pixels / 1e6, 2),
                cell(row.decode_cpu_s, pixels / 1e6, 2),
                cell(row.encode_peak_bytes, 2**20, 0),
                cell(row.decode_peak_bytes, 2**20, 0),
                cell(row.num_bytes, 1, 0),
                row.failure or "",
            )
        )
    return Table(
        f"Cost over size, {result.environment.threads} threads, quality {result.quality:g}",
        ("size", "encode s", "decode s", "encode CPU s/MP", "decode CPU s/MP", "encode peak MiB",
         "decode peak MiB", "bytes", "failure"),
        tuple(rows),
        (
            ("Each size and direction in a fresh process; peak memory is of the whole process: "
            "interpreter, torch, weights and the picture itself."),
            environment_note(result.environment),
        ),
    )  # fmt: skip


if __name__ == "__main__":
    _child()
