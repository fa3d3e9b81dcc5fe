"""Rate against accuracy of machine tasks: every codec on the same labelled pictures in one run."""

from __future__ import annotations

import multiprocessing
from collections import deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ProcessPoolExecutor
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt

from vcmcodec.errors import RequestError
from vcmcodec.evaluation.environment import Environment, describe_environment
from vcmcodec.evaluation.labelled import LabelledPicture, LabelledSet
from vcmcodec.evaluation.task_classes import match_classes
from vcmcodec.evaluation.task_compare import (
    Comparison,
    Curves,
    Estimate,
    Reach,
    Samples,
    compare,
    estimate,
    reach,
)
from vcmcodec.evaluation.task_evidence import Evidence, PictureTruth, TruthTable, weigh
from vcmcodec.evaluation.task_lossless import NearLossless, near_lossless
from vcmcodec.evaluation.task_subjects import ScoredSubject, TaskSubject
from vcmcodec.evaluation.task_tally import METRICS, draw_weights, score_choices

Progress = Callable[[str], None]
Floats = npt.NDArray[np.float64]


@dataclass(frozen=True)
class Lineup:
    """Everything that is measured in one run.

    Attributes:
        reference: the network on the pictures as they are.
        subjects: the codecs.
        judge: the network in words.
        labels: every name that results may bear.
        missing: codecs that were asked for and cannot be run here, each with its reason.
        versions: of the codecs and models, by name in tables.
        uncoded: what codecs of features are near-lossless to, under the names of these codecs.
    """

    reference: TaskSubject
    subjects: tuple[TaskSubject, ...]
    judge: str
    labels: tuple[str, ...]
    missing: tuple[str, ...] = ()
    versions: Mapping[str, str] = field(default_factory=dict)
    uncoded: tuple[ScoredSubject, ...] = ()

    @property
    def everyone(self) -> tuple[ScoredSubject, ...]:
        """All that is scored: the network on the pictures, the codecs, uncoded features."""
        return (self.reference, *self.subjects, *self.uncoded)


# Opened anew in every process, so it has to be something that can be sent there.
OpenLineup = Callable[[], Lineup]


@dataclass(frozen=True)
class TaskPoint:
    """One setting of a subject: means over pictures.

    Attributes:
        setting: the codec's own number.
        num_bytes: of the whole file, mean over pictures.
        bpp: mean over pictures of bits over the picture's original pixels.
        scores: accuracy in percent by metric.
    """

    setting: float
    num_bytes: float
    bpp: float
    scores: dict[str, Estimate]


@dataclass(frozen=True)
class TaskCurve:
    """All settings of a subject, in order of rate."""

    codec: str
    variant: str
    ours: bool
    description: str
    points: tuple[TaskPoint, ...]


@dataclass(frozen=True)
class TaskBench:
    """What was found, and everything it depends on.

    Attributes:
        set_name: name of the label file.
        pictures, masks: how many.
        labels: classes that were scored.
        unknown: classes of the data set that the network does not know.
        judge: the network, with the start of its weights' hash.
        resamples: bootstrap draws behind each interval.
        jobs: processes.
        versions: of codecs and our model, by name in tables.
        missing: codecs that could not be run, with reasons.
        uncompressed: the network on the pictures as they are.
        curves: one a subject.
        comparisons: ours against each other codec (without ours: against the first).
        reaches: what each codec pays to come near the uncompressed result.
        near_lossless: codecs of features at their highest settings.
    """

    set_name: str
    pictures: int
    masks: int
    labels: tuple[str, ...]
    unknown: tuple[str, ...]
    judge: str
    resamples: int
    jobs: int
    environment: Environment
    versions: dict[str, str]
    missing: tuple[str, ...]
    uncompressed: TaskPoint
    curves: tuple[TaskCurve, ...]
    comparisons: tuple[Comparison, ...]
    reaches: tuple[Reach, ...]
    near_lossless: tuple[NearLossless, ...]


@dataclass(frozen=True, eq=False)
class _Seen:
    """One picture through one subject at one setting."""

    num_bytes: int
    bpp: float
    evidence: Evidence


def run(
    labelled: LabelledSet,
    open_lineup: OpenLineup,
    *,
    metrics: Sequence[str] = METRICS,
    within: Sequence[float] = (1.0, 3.0, 5.0),
    resamples: int = 200,
    jobs: int = 1,
    threads: int = 1,
    progress: Progress = lambda _: None,
) -> TaskBench:
    """Measure every subject on every picture.

    Args:
        labelled: the pictures.
        open_lineup: opens what is measured; called once in each process.
        metrics: of `METRICS`, those that are wanted.
        within: points below the uncompressed result at which rates are compared.
        resamples: bootstrap draws; 0 for no intervals.
        jobs: processes; 1 stays in this one.
        threads: of each process.
        progress: told what is going on.

    Raises:
        RequestError: the set shares no class or no task with the network.
    """
    from vcmcodec.evaluation.timing import torch_threads

    with torch_threads(threads):
        progress("opening networks and codecs")
        lineup = open_lineup()
        progress(f"measuring {', '.join(dict.fromkeys(one.codec for one in lineup.everyone))}")
        table, truth, seen = _measure_all(labelled, lineup, open_lineup, jobs, threads, progress)
    progress("scores")
    samples = _sample(lineup.everyone, truth, seen, draw_weights(len(truth), resamples))
    known = [m for m in METRICS if m in metrics and all(m in s.scores[0] for s in samples)]
    if not known:
        raise RequestError("nothing can be scored: no task that labels and network share")
    progress("comparisons")
    reference, others = samples[0], samples[1 : 1 + len(lineup.subjects)]
    uncoded = {one.codec: one for one in samples[1 + len(lineup.subjects) :]}
    curves = Curves(others)
    return TaskBench(
        set_name=labelled.name,
        pictures=len(labelled),
        masks=sum(1 for one in truth if one.mask is not None),
        labels=table.classes.labels,
        unknown=table.classes.unknown,
        judge=lineup.judge,
        resamples=resamples,
        jobs=jobs,
        environment=describe_environment(threads),
        versions=dict(lineup.versions),
        missing=lineup.missing,
        uncompressed=_points(reference, known)[0],
        curves=tuple(map(_curve, others, lineup.subjects, [known] * len(others))),
        comparisons=compare(curves, reference, known, within),
        reaches=reach(curves, reference, known, within),
        near_lossless=near_lossless(others, uncoded, reference, known),
    )


def _curve(samples: Samples, subject: TaskSubject, metrics: Sequence[str]) -> TaskCurve:
    points = sorted(_points(samples, metrics), key=lambda point: point.num_bytes)
    return TaskCurve(
        samples.codec, samples.variant, samples.ours, subject.description, tuple(points)
    )


def _points(samples: Samples, metrics: Sequence[str]) -> list[TaskPoint]:
    return [
        TaskPoint(
            setting,
            float(samples.num_bytes[i, 0]),
            float(samples.bpp[i, 0]),
            {m: estimate(samples.scores[i][m]) for m in metrics},
        )
        for i, setting in enumerate(samples.settings)
    ]


def _sample(
    subjects: Sequence[ScoredSubject],
    truth: Sequence[PictureTruth],
    seen: Sequence[Sequence[_Seen]],
    weights: Floats,
) -> list[Samples]:
    """Score every setting of every subject on every choice of pictures."""
    found = []
    column = 0
    for subject in subjects:
        sizes, rates, scores = [], [], []
        for _ in subject.settings:
            own = [row[column] for row in seen]
            column += 1
            sizes.append(weights @ np.array([s.num_bytes for s in own], np.float64) / len(own))
            rates.append(weights @ np.array([s.bpp for s in own]) / len(own))
            scores.append(score_choices(truth, [s.evidence for s in own], weights))
        found.append(
            Samples(
                subject.codec, subject.variant, subject.ours, tuple(subject.settings),
                np.stack(sizes), np.stack(rates), tuple(scores),
            )
        )  # fmt: skip
    return found


@dataclass(frozen=True, eq=False)
class _Work:
    """What a process needs in order to work on pictures."""

    open_lineup: OpenLineup
    table: TruthTable
    threads: int


def _measure(
    picture: LabelledPicture, table: TruthTable, lineup: Lineup
) -> tuple[int, PictureTruth, list[_Seen]]:
    truth = table.of(picture)
    height, width = picture.rgb().shape[:2]
    results = []
    for subject in lineup.everyone:
        for setting in subject.settings:
            outcome = subject.run(picture, setting)
            evidence = weigh(truth, outcome.predictions, table.classes)
            results.append(
                _Seen(outcome.num_bytes, 8 * outcome.num_bytes / (height * width), evidence)
            )
    return picture.id, truth, results


def _measure_all(
    labelled: LabelledSet, lineup: Lineup, open_lineup: OpenLineup, jobs: int, threads: int,
    progress: Progress,
) -> tuple[TruthTable, list[PictureTruth], list[list[_Seen]]]:  # fmt: skip
    """Truth and results of every picture, in the order in which COCO's evaluation goes through."""
    table = TruthTable(labelled, match_classes(labelled.labels, lineup.labels))
    work = _Work(open_lineup, table, threads)
    found = []
    for one in _results(work, labelled, lineup, jobs):
        found.append(one)
        progress(f"{len(found)} of {len(labelled)} pictures")
    found.sort(key=lambda one: one[0])
    return table, [truth for _, truth, _ in found], [seen for _, _, seen in found]


_HERE: dict[str, Any] = {}  # what this worker process opened


def _start(work: _Work) -> None:
    import torch

    torch.set_num_threads(work.threads)
    _HERE["table"], _HERE["lineup"] = work.table, work.open_lineup()


def _measure_here(picture: LabelledPicture) -> tuple[int, PictureTruth, list[_Seen]]:
    return _measure(picture, _HERE["table"], _HERE["lineup"])


def _results(
    work: _Work, labelled: LabelledSet, lineup: Lineup, jobs: int
) -> Iterator[tuple[int, PictureTruth, list[_Seen]]]:
    """Every picture's results, here or in processes beside this one."""
    if jobs < 2 or len(labelled) < 2:
        for picture in labelled.pictures():
            yield _measure(picture, work.table, lineup)
        return
    # Spawned, not forked: torch's thread pools do not survive a fork.
    pool = ProcessPoolExecutor(
        min(jobs, len(labelled)), multiprocessing.get_context("spawn"), _start, (work,)
    )
    running: deque[Future[tuple[int, PictureTruth, list[_Seen]]]] = deque()
    try:
        for picture in labelled.pictures():
            running.append(pool.submit(_measure_here, picture))
            if len(running) >= 4 * jobs:
                yield running.popleft().result()
        while running:
            yield running.popleft().result()
    finally:
        pool.shutdown(cancel_futures=True)
