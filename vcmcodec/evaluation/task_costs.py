"""What sender and receiver pay for each codec, at a setting where codecs see about equally well.

The edge's part is everything from pixels in memory to the file's bytes: of features that is the
network up to the split point too.  The server's is everything from these bytes to results: of
pixels the decoder and the whole network.  Both are run anew, whatever a cache holds.
"""

from __future__ import annotations

import statistics
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

from vcmcodec.evaluation.labelled import LabelledPicture, LabelledSet
from vcmcodec.evaluation.macs import count_kmacs
from vcmcodec.evaluation.task_bench import Lineup, TaskBench, TaskPoint
from vcmcodec.evaluation.task_subjects import TaskSubject
from vcmcodec.evaluation.timing import Timing, measure_rounds, over_pictures, torch_threads

REPEATS = 3


@dataclass(frozen=True)
class OperatingPoint:
    """A setting of a codec: the cheapest that is near uncompressed, or else the most accurate.

    Attributes:
        codec, variant: which subject.
        point: setting, bytes and scores.
        near: whether it is as near as was asked for.
    """

    codec: str
    variant: str
    point: TaskPoint
    near: bool


@dataclass(frozen=True)
class CodecCost:
    """What a codec costs at its operating point; times over pictures.

    Attributes:
        at: where.
        edge_kmacs: multiply-accumulates a true pixel on the edge, in thousands, median over
            pictures; None where no network runs there.
        edge: from pixels to the file.
        server: from the file to results.
    """

    at: OperatingPoint
    edge_kmacs: float | None
    edge: Timing
    server: Timing


@dataclass(frozen=True)
class Costs:
    """Costs of all codecs, taken in turns.

    Attributes:
        pictures: names of those that were timed.
        repeats: timed rounds of each.
        metric, within: near is within so many points of uncompressed on this metric.
        uncompressed: from the file as it was given to results.
        codecs: each codec at its operating point.
    """

    pictures: tuple[str, ...]
    repeats: int
    metric: str
    within: float
    uncompressed: Timing
    codecs: tuple[CodecCost, ...]


def run(
    labelled: LabelledSet,
    lineup: Lineup,
    bench: TaskBench,
    *,
    within: float = 3.0,
    limit: int = 3,
    repeats: int = REPEATS,
    progress: Callable[[str], None] = lambda _: None,
) -> Costs:
    """Time every codec of a bench on some pictures, all in turns, and count what the edge does.

    Args:
        labelled: the set that was measured.
        lineup: what was measured, opened again.
        bench: the result; it tells settings and threads.
        within: points under the uncompressed result that make a setting near.
        limit: how many pictures, evenly spread over the set.
        repeats: timed rounds a picture.
        progress: told of every picture.

    Raises:
        RequestError: no picture or no repeats.
    """
    metric = next(iter(bench.uncompressed.scores))
    points = operating_points(bench, metric, within)
    subjects = {(one.codec, one.variant): one for one in lineup.subjects}
    everyone = [(lineup.reference, lineup.reference.settings[0])]
    everyone += [(subjects[point.codec, point.variant], point.point.setting) for point in points]
    names: list[str] = []
    paid: list[list[_Paid]] = []
    with torch_threads(bench.environment.threads):
        for picture in _spread(labelled, limit):
            progress(f"{picture.name}: timing {len(points)} codecs")
            names.append(picture.name)
            paid.append(_measure(picture, everyone, repeats))
    looking, *codecs = zip(*paid, strict=True) if paid else ((),)
    return Costs(
        tuple(names),
        repeats,
        metric,
        within,
        over_pictures([one.server for one in looking]),
        tuple(map(_over_pictures, points, codecs)),
    )


def operating_points(bench: TaskBench, metric: str, within: float) -> tuple[OperatingPoint, ...]:
    """One setting of each codec: the cheapest near one, else the most accurate.

    Args:
        bench: a run.
        metric: of the accuracy.
        within: points under the uncompressed result.
    """
    families: dict[str, list[tuple[TaskPoint, str]]] = {}
    for curve in bench.curves:
        families.setdefault(curve.codec, []).extend((p, curve.variant) for p in curve.points)
    target = bench.uncompressed.scores[metric].value - within
    found = []
    for codec, points in families.items():
        best = max(point.scores[metric].value for point, _ in points)
        enough = [(p, v) for p, v in points if p.scores[metric].value >= min(target, best)]
        if enough:  # not where accuracies are no numbers: a task of which there is no label
            point, variant = min(enough, key=lambda pair: pair[0].num_bytes)
            found.append(OperatingPoint(codec, variant, point, best >= target))
    return tuple(found)


def _spread(labelled: LabelledSet, limit: int) -> Iterator[LabelledPicture]:
    """So many pictures of a set, evenly spread."""
    count = min(limit, len(labelled))
    places = {i * len(labelled) // count for i in range(count)}
    yield from (picture for i, picture in enumerate(labelled.pictures()) if i in places)


@dataclass(frozen=True)
class _Paid:
    """What one picture costs through one subject; as `CodecCost`."""

    edge_kmacs: float | None
    edge: Timing
    server: Timing


def _measure(
    picture: LabelledPicture, everyone: Sequence[tuple[TaskSubject, float]], repeats: int
) -> list[_Paid]:
    """Times of both sides of every subject, in turns, and multiplications of edges."""
    height, width = picture.rgb().shape[:2]
    operations: dict[str, Callable[[], Any]] = {}
    kmacs: list[float | None] = []
    for i, (subject, setting) in enumerate(everyone):
        sides = subject.sides(picture, setting)
        operations[f"edge {i}"] = sides.edge
        operations[f"server {i}"] = partial(sides.server, sides.edge())
        kmacs.append(count_kmacs(sides.edge, height * width)[0] if sides.counted else None)
    times = measure_rounds(operations, repeats)
    return [_Paid(k, times[f"edge {i}"], times[f"server {i}"]) for i, k in enumerate(kmacs)]


def _over_pictures(point: OperatingPoint, paid: Sequence[_Paid]) -> CodecCost:
    kmacs = [one.edge_kmacs for one in paid if one.edge_kmacs is not None]
    return CodecCost(
        point,
        statistics.median(kmacs) if kmacs else None,
        over_pictures([one.edge for one in paid]),
        over_pictures([one.server for one in paid]),
    )
