"""How well and how fast vision networks see the same labelled pictures."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from vcmcodec.errors import RequestError
from vcmcodec.evaluation import task_scores
from vcmcodec.evaluation.environment import Environment, describe_environment
from vcmcodec.evaluation.labelled import LabelledSet
from vcmcodec.evaluation.macs import count_kmacs
from vcmcodec.evaluation.report import Table, environment_note
from vcmcodec.evaluation.task_classes import match_classes
from vcmcodec.evaluation.timing import measure_rounds, torch_threads
from vcmcodec.vision.backend import Backend
from vcmcodec.vision.labels import BACKGROUND
from vcmcodec.vision.predictions import Predictions, to_coco

# classes of VOC with at least 58 true training boxes; the others rest on few or on pseudo boxes
WELL_COVERED = frozenset(
    {
        "bottle",
        "car",
        "cat",
        "chair",
        "cow",
        "diningtable",
        "dog",
        "horse",
        "person",
        "pottedplant",
        "sheep",
        "sofa",
        "tvmonitor",
    }
)
FLOOR = 0.01  # objects below this score are not handed to the evaluation
SPEED_SIZE = (384, 512)


@dataclass(frozen=True)
class VisionSpeed:
    """Speed on one picture of `SPEED_SIZE`, scaled to the network's own input size."""

    median_ms: dict[int, float]
    kmacs_per_pixel: float
    input_pixels: int


@dataclass(frozen=True)
class VisionScores:
    """One network on one set; None where it does not do a task."""

    name: str
    detection: task_scores.DetectionScores | None
    well_covered: task_scores.DetectionScores | None
    areas: task_scores.AreaScores | None
    presence: dict[str, float] | None
    speed: VisionSpeed | None

    @property
    def mean_presence(self) -> float | None:
        """Mean average precision of presence over classes."""
        return None if not self.presence else float(np.mean(list(self.presence.values())))


@dataclass(frozen=True)
class VisionBench:
    """All networks, and what they were measured on."""

    pictures: int
    masks: int
    set_name: str
    labels: tuple[str, ...]
    evaluator: str
    environment: Environment
    scores: tuple[VisionScores, ...]


def run(
    labelled: LabelledSet,
    backends: Sequence[tuple[str, Backend]],
    *,
    threads: Sequence[int] = (1, 2),
    repeats: int = 7,
    progress: Callable[[str], None] = lambda line: None,
    told: Callable[[Found], None] = lambda found: None,
) -> VisionBench:
    """Score every network on the same pictures.

    Args:
        labelled: the pictures.
        backends: name and network; the first is ours.
        threads: counts at which speed is measured; none for no speed.
        repeats: timed runs.
        progress: told what is going on.
        told: is given what each network found, in turn.
    """
    for name, backend in backends:
        unknown = match_classes(labelled.labels, backend.labels).unknown
        if unknown:
            raise RequestError(f"{name} does not know these classes: {', '.join(unknown)}")
    scores = []
    masks = sum(1 for image in labelled.images if image.get("mask"))
    for name, backend in backends:
        found = predict_all(labelled, backend, _led_by(name, progress))
        told(found)
        speed = measure_speed(backend, threads, repeats) if threads else None
        scores.append(_score(name, backend, labelled, found, speed))
    return VisionBench(
        len(labelled),
        masks,
        labelled.name,
        labelled.labels,
        task_scores.coco_evaluator()[2],
        describe_environment(max(threads, default=1)),
        tuple(scores),
    )


def _led_by(name: str, progress: Callable[[str], None]) -> Callable[[str], None]:
    return lambda line: progress(f"{name}: {line}")


@dataclass(frozen=True, eq=False)
class Found:
    """Predictions of all pictures in the order of `LabelledSet.images`, and counted areas."""

    predictions: list[Predictions]
    areas: task_scores.AreaScores | None


def predict_all(labelled: LabelledSet, backend: Backend, progress: Callable[[str], None]) -> Found:
    """Run one network on every picture; results are told in the words of the labels."""
    shared = match_classes(labelled.labels, backend.labels)
    by_id: dict[int, Predictions] = {}
    counter = task_scores.AreaCounter((BACKGROUND, *labelled.labels))
    counted = False
    for count, picture in enumerate(labelled.pictures(), start=1):
        found = backend.predict(picture.rgb(), None, FLOOR)
        if picture.mask is not None and found.label_map is not None:
            areas = shared.network_mask(found.label_map.labels, found.label_map.names)
            counter.add(picture.mask, areas)
            counted = True
        # label maps of a thousand pictures would not fit into memory
        objects, classes = shared.known(found.objects), shared.known(found.classes)
        by_id[picture.id] = Predictions(found.height, found.width, objects, classes)
        progress(f"{count} of {len(labelled)} pictures")
    ordered = [by_id[int(image["id"])] for image in labelled.images]
    return Found(ordered, counter.scores() if counted else None)


def _score(
    name: str, backend: Backend, labelled: LabelledSet, found: Found, speed: VisionSpeed | None
) -> VisionScores:
    detection = well = presence = None
    if "detection" in backend.tasks:
        ids = [int(image["id"]) for image in labelled.images]
        results = to_coco(found.predictions, ids, labelled.labels)
        detection = task_scores.score_detections(labelled.truth(), results)
        covered = WELL_COVERED & set(detection.by_class)
        well = detection.over(covered) if covered else None
    if "classification" in backend.tasks:
        table = np.zeros((len(labelled), len(labelled.labels)))
        for row, result in zip(table, found.predictions, strict=True):
            scores = {c.label: c.score for c in result.classes or ()}
            row[:] = [scores[label] for label in labelled.labels]
        presence = task_scores.score_presence(labelled.presence(), table, labelled.labels)
    return VisionScores(name, detection, well, found.areas, presence, speed)


def measure_speed(backend: Backend, threads: Sequence[int], repeats: int) -> VisionSpeed:
    """Time one whole prediction, picture in memory to results, and count its arithmetic."""
    from vcmcodec.evaluation.corpora import photo

    rgb = photo(SPEED_SIZE[1], SPEED_SIZE[0]).rgb
    medians = {}
    for count in threads:
        with torch_threads(count):
            timing = measure_rounds({"predict": lambda: backend.predict(rgb)}, repeats, 2)
            medians[count] = timing["predict"].median_ms
    scale = backend.longer_side / max(SPEED_SIZE)
    pixels = round(SPEED_SIZE[0] * scale) * round(SPEED_SIZE[1] * scale)
    kmacs, _ = count_kmacs(lambda: backend.predict(rgb), pixels)
    return VisionSpeed(medians, kmacs, pixels)


def tables(bench: VisionBench) -> list[Table]:
    """The summary and the table by class."""
    return [_summary(bench), _by_class(bench)]


def _number(value: float | None, digits: int = 1) -> str:
    return "-" if value is None else f"{value:.{digits}f}"


def _summary(bench: VisionBench) -> Table:
    counts = sorted({n for s in bench.scores if s.speed for n in s.speed.median_ms})
    rows = []
    for s in bench.scores:
        detection, areas, speed = s.detection, s.areas, s.speed
        rows.append(
            (
                s.name,
                _number(detection.map50 if detection else None),
                _number(detection.map if detection else None),
                _number(s.well_covered.map50 if s.well_covered else None),
                _number(areas.miou if areas else None),
                _number(areas.accuracy if areas else None),
                _number(s.mean_presence),
                *(_number(speed.median_ms[n] if speed else None) for n in counts),
                _number(speed.kmacs_per_pixel if speed else None, 2),
                "-" if speed is None else f"{speed.input_pixels / 1e6:.3f}",
            )
        )
    return Table(
        f"{bench.set_name}: {bench.pictures} pictures, {bench.masks} masks",
        (
            "network",
            "mAP50",
            "mAP",
            "mAP50 well covered",
            "mIoU",
            "pixels right",
            "presence AP",
            *(f"ms, {n} thread{'s' * (n > 1)}" for n in counts),
            "kMAC/input pixel",
            "input Mpx",
        ),
        tuple(rows),
        (
            (
                "Percent, means over classes; difficult objects neither hit nor miss; "
                f"{bench.evaluator}."
            ),
            "Presence of a detector: the best score of a class's boxes.",
            f"Time: one {SPEED_SIZE[1]}x{SPEED_SIZE[0]} picture in memory to results, median.",
            environment_note(bench.environment),
        ),
    )


def _by_class(bench: VisionBench) -> Table:
    columns: list[str] = ["class"]
    for s in bench.scores:
        columns += [f"{s.name} {what}" for what, there in _parts(s) if there is not None]
    rows = []
    for label in bench.labels:
        row = [label + (" *" if label in WELL_COVERED else "")]
        for s in bench.scores:
            row += [_of(there, label) for _, there in _parts(s) if there is not None]
        rows.append(tuple(row))
    return Table("By class", tuple(columns), tuple(rows), ("* well covered in training.",))


def _parts(s: VisionScores) -> tuple[tuple[str, dict[str, Any] | None], ...]:
    return (
        ("AP50", s.detection.by_class if s.detection else None),
        ("IoU", s.areas.by_class if s.areas else None),
        ("presence", s.presence),
    )


def _of(values: dict[str, Any], label: str) -> str:
    value = values.get(label)
    return _number(value[0] if isinstance(value, tuple) else value)


def open_teachers(folder: Path) -> list[tuple[str, Backend]]:
    """Every network of a folder of teachers that knows the labels' classes."""
    from vcmcodec.evaluation.teachers import TeacherBackend

    found: list[tuple[str, Backend]] = []
    for path in sorted(folder.glob("*.pth")):
        try:
            found.append((path.stem, TeacherBackend(path)))
        except RequestError:
            continue
    return found
