"""How long coding takes, beside peers in the same run, and how many multiplications it is.

Pictures are arrays in memory and files are bytes in memory: no disk is timed.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any

from vcmcodec.errors import RequestError
from vcmcodec.evaluation.compressai_peer import Mbt2018Mean
from vcmcodec.evaluation.corpora import NamedPicture
from vcmcodec.evaluation.environment import Environment, describe_environment
from vcmcodec.evaluation.macs import PartMacs, count_kmacs
from vcmcodec.evaluation.report import Table, environment_note
from vcmcodec.evaluation.rivals import RIVALS, missing
from vcmcodec.evaluation.subject import Subject
from vcmcodec.evaluation.timing import Timing, measure_rounds, torch_threads, watch

PEER = "mbt2018-mean"
# Qualities at which files are of about one size, 0.5 bits a pixel on Kodak.
RIVAL_QUALITIES = {"jpeg": 18, "webp": 18, "avif": 44}


@dataclass(frozen=True)
class SpeedRow:
    """One operation of one codec.

    Attributes:
        operation: what was timed.
        timing: milliseconds.
        entropy_share: part of it inside the entropy coder, 0..1; None where not known.
        ratio: median over the median of the peer's operation of the same kind; None without peer.
        kmacs_per_pixel: multiply-accumulates of what ran, in thousands; None where not known.
        parts: the same by network part.
        num_bytes: the file written or read.
    """

    operation: str
    timing: Timing
    entropy_share: float | None
    ratio: float | None
    kmacs_per_pixel: float | None
    parts: tuple[PartMacs, ...]
    num_bytes: int


@dataclass(frozen=True)
class Speed:
    """Result of one run; `missing` says which peers did not run and why."""

    picture: str
    height: int
    width: int
    quality: float
    rows: tuple[SpeedRow, ...]
    missing: tuple[str, ...]
    environment: Environment


@dataclass(frozen=True)
class _Operation:
    """A function to time; `kind` "encode" or "decode"; `own` where the counters apply."""

    name: str
    kind: str
    run: Callable[[], Any]
    num_bytes: int
    own: bool = False
    torch: bool = False


def _own_operations(picture: NamedPicture, quality: float, model: str | None) -> list[_Operation]:
    full = Subject(tasks=None, model=model)
    base = Subject(tasks=("detection",), longer_side=0, model=model)
    operations = []
    # The base has no quality of its own here: its level is the default, as in the full file.
    for name, subject, level in (("full", full, quality), ("base-layer", base, None)):
        encode = partial(subject.encode, picture.rgb, level)
        data = encode()
        size = len(data)
        decode = partial(subject.decode, data)
        operations += [
            _Operation(f"{name} encode", "encode", encode, size, own=True, torch=True),
            _Operation(f"{name} decode", "decode", decode, size, own=True, torch=True),
        ]
    return operations


def _peer_operations(picture: NamedPicture) -> list[_Operation]:
    peer = Mbt2018Mean()
    compress = partial(peer.compress, picture.rgb)
    coded = compress()
    size = sum(len(string) for strings in coded["strings"] for string in strings)
    decompress = partial(peer.decompress, coded)
    return [
        _Operation(f"{PEER} compress", "encode", compress, size, torch=True),
        _Operation(f"{PEER} decompress", "decode", decompress, size, torch=True),
    ]


def _rival_operations(picture: NamedPicture, threads: int, notes: list[str]) -> list[_Operation]:
    operations = []
    for name, quality in RIVAL_QUALITIES.items():
        rival = RIVALS[name]
        if (reason := missing(rival)) is not None:
            notes.append(reason)
            continue
        encode = partial(rival.encode, picture.rgb, quality, threads)
        data = encode()
        decode = partial(rival.decode, data)
        operations += [
            _Operation(f"{rival.title} encode", "encode", encode, len(data)),
            _Operation(f"{rival.title} decode", "decode", decode, len(data)),
        ]
    return operations


def _entropy_share(operation: Callable[[], Any], timing: Timing) -> float:
    """Return the part of an operation that is spent inside the rANS coder, 0..1.

    The timed run is another one than those of `timing`, so the share is of its own total.
    """
    import time

    from vcmcodec.entropy.rans import RansDecoder, RansEncoder

    methods = (
        (RansEncoder, "__init__"), (RansEncoder, "push"), (RansEncoder, "finish"),
        (RansDecoder, "__init__"), (RansDecoder, "pull"), (RansDecoder, "finish"),
    )  # fmt: skip
    shares = []
    for _ in range(min(3, timing.repeats)):
        with watch(methods) as stopwatch:
            start = time.perf_counter()
            operation()
            shares.append(stopwatch.seconds / (time.perf_counter() - start))
    return sorted(shares)[len(shares) // 2]


def run(
    picture: NamedPicture,
    *,
    threads: int = 2,
    repeats: int = 7,
    quality: float = 50.0,
    model: str | None = None,
    progress: Callable[[str], None] = lambda _: None,
) -> Speed:
    """Time vcmcodec, CompressAI's mbt2018-mean and Pillow's codecs in turns.

    Args:
        picture: what to code.
        threads: of torch, and of AVIF; JPEG and WebP have one.
        repeats: timed rounds.
        quality: of the full file.
        model: name of our model; None for the default.
        progress: called with one line before each piece of work.

    Raises:
        RequestError: no repeats.
    """
    notes: list[str] = []
    with torch_threads(threads):
        progress("loading models")
        operations = _own_operations(picture, quality, model)
        try:
            operations += _peer_operations(picture)
        except RequestError as error:
            notes.append(f"{PEER}: {error}")
        operations += _rival_operations(picture, threads, notes)
        progress(f"timing {len(operations)} operations, {repeats} rounds")
        timings = measure_rounds({o.name: o.run for o in operations}, repeats)
        progress("counting")
        rows = [_row(operation, timings, picture.pixels) for operation in operations]
    return Speed(
        picture=picture.name,
        height=picture.rgb.shape[0],
        width=picture.rgb.shape[1],
        quality=quality,
        rows=tuple(rows),
        missing=tuple(notes),
        environment=describe_environment(threads),
    )


def _row(operation: _Operation, timings: dict[str, Timing], pixels: int) -> SpeedRow:
    timing = timings[operation.name]
    peer = timings.get(f"{PEER} {'compress' if operation.kind == 'encode' else 'decompress'}")
    kmacs: float | None = None
    parts: tuple[PartMacs, ...] = ()
    if operation.torch:
        kmacs, parts = count_kmacs(operation.run, pixels)
    return SpeedRow(
        operation=operation.name,
        timing=timing,
        entropy_share=_entropy_share(operation.run, timing) if operation.own else None,
        ratio=timing.median_ms / peer.median_ms if peer else None,
        kmacs_per_pixel=kmacs,
        parts=parts,
        num_bytes=operation.num_bytes,
    )


def tables(result: Speed) -> tuple[Table, ...]:
    """Return the result as tables: times, and multiplications of every part."""
    times = Table(
        f"Time for {result.picture} ({result.width}x{result.height}), "
        f"{result.environment.threads} threads",
        ("operation", "median ms", "min - max ms", f"of {PEER}", "entropy coding",
         "kMAC a pixel", "bytes"),
        tuple(
            (
                row.operation,
                f"{row.timing.median_ms:.1f}",
                f"{row.timing.min_ms:.1f} - {row.timing.max_ms:.1f}",
                "n/a" if row.ratio is None else f"{row.ratio:.2f}",
                "n/a" if row.entropy_share is None else f"{100 * row.entropy_share:.0f} %",
                "n/a" if row.kmacs_per_pixel is None else f"{row.kmacs_per_pixel:.2f}",
                str(row.num_bytes),
            )
            for row in result.rows
        ),
        (
            (f"Medians of {result.rows[0].timing.repeats} rounds, operations in turns; picture and "
            "file in memory. Ratio: to the peer's operation of the same kind."),
            (f"{PEER}: {Mbt2018Mean.title}; JPEG, WebP and AVIF at about 0.5 bits a pixel, the "
            "first two on one thread."),
            *result.missing,
            environment_note(result.environment),
        ),
    )  # fmt: skip
    parts = Table(
        "Multiplications by part, kMAC a pixel",
        ("operation", "part", "kMAC a pixel"),
        tuple(
            (row.operation, part.part, f"{part.kmacs_per_pixel:.3f}")
            for row in result.rows
            if not row.operation.startswith(PEER)
            for part in row.parts
        ),
        (("Convolutions and matrix products that ran, counted by torch; "
         "other arithmetic is not in it."),),
    )  # fmt: skip
    return (times, parts) if parts.rows else (times,)
