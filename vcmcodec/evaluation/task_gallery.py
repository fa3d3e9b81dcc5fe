"""What machines see in the same picture at equal bytes, drawn: ours and every other codec."""

from __future__ import annotations

import io
from collections.abc import Callable
from dataclasses import dataclass, replace

import numpy as np
from PIL import Image

from vcmcodec.evaluation.labelled import LabelledPicture, LabelledSet
from vcmcodec.evaluation.metrics import Pixels
from vcmcodec.evaluation.task_bench import Lineup, TaskBench
from vcmcodec.evaluation.task_classes import ClassMap, match_classes
from vcmcodec.evaluation.task_subjects import Outcome, PixelSubject, TaskSubject
from vcmcodec.vision.drawing import draw
from vcmcodec.vision.predictions import DetectedObject, Predictions

SCORE = 0.3  # objects below it are not drawn
# Where the curve does not tell a setting: low enough that codecs differ.
TARGET_BPP = 0.12


@dataclass(frozen=True)
class Sight:
    """One version of a picture with everything that was found in it drawn.

    Attributes:
        title: codec and variant.
        webp: the drawing, a WebP file.
        num_bytes: of the coded file; of the file as given for the original; None for the truth.
        found: names of the objects drawn, best first.
    """

    title: str
    webp: bytes
    num_bytes: int | None
    found: tuple[str, ...]


@dataclass(frozen=True)
class Scene:
    """One picture in all versions: truth, uncompressed, ours, the others."""

    picture: str
    width: int
    height: int
    pixels: int
    sights: tuple[Sight, ...]


def collect(
    labelled: LabelledSet,
    lineup: Lineup,
    bench: TaskBench,
    *,
    limit: int = 3,
    progress: Callable[[str], None] = lambda _: None,
) -> tuple[Scene, ...]:
    """Draw some pictures of the set, those with most objects of every `limit`-th part of it.

    Args:
        labelled: the set that was measured.
        lineup: what was measured, opened again.
        bench: the result, which tells our setting.
        limit: how many pictures.
        progress: called with one line before each picture.
    """
    classes = match_classes(labelled.labels, lineup.labels)
    truth: dict[int, list[DetectedObject]] = {}
    for note in labelled.truth()["annotations"]:
        shared = classes.of_truth[note["category_id"] - 1]
        if shared is not None and not note["iscrowd"]:
            x, y, w, h = note["bbox"]
            thing = DetectedObject(classes.labels[shared], 1.0, (x, y, max(0.0, w), max(0.0, h)))
            truth.setdefault(note["image_id"], []).append(thing)
    count = min(limit, len(labelled.images))
    chosen = set()
    for i in range(count):
        start, end = (len(labelled.images) * k // count for k in (i, i + 1))
        part = [int(image["id"]) for image in labelled.images[start:end]]
        chosen.add(max(part, key=lambda number: len(truth.get(number, ()))))
    scenes = []
    for picture in labelled.pictures():
        if picture.id in chosen:
            progress(f"{picture.name}: pictures for the page")
            scenes.append(_scene(picture, truth.get(picture.id, []), classes, lineup, bench))
    return tuple(scenes)


def _scene(
    picture: LabelledPicture,
    truth: list[DetectedObject],
    classes: ClassMap,
    lineup: Lineup,
    bench: TaskBench,
) -> Scene:
    rgb, whole = lineup.reference.show(picture, lineup.reference.settings[0])
    height, width = rgb.shape[:2]
    sights = [
        _sight("uncompressed", rgb, whole.predictions, whole.num_bytes, classes),
        _sight("truth", rgb, Predictions(height, width, tuple(truth)), None, classes),
    ]
    first = next((one for one in lineup.subjects if one.ours), lineup.subjects[0])
    lead = first.show(picture, setting_of(first, bench))
    for subject in _smallest(lineup):
        if subject is first:
            pixels, outcome = lead
        elif isinstance(subject, PixelSubject):
            pixels, outcome = subject.show(picture, subject.nearest(picture, lead[1].num_bytes))
        else:
            pixels, outcome = _nearest(subject, picture, lead[1].num_bytes)
        title = f"{subject.codec}, {subject.variant}"
        sights.append(_sight(title, pixels, outcome.predictions, outcome.num_bytes, classes))
    # The slider begins with the second and the last: ours over the strongest of the others.
    ordered = (sights[0], sights[2], sights[1], *sights[3:])
    return Scene(picture.name, width, height, height * width, ordered)


def _smallest(lineup: Lineup) -> list[TaskSubject]:
    """One subject a codec, ours first: the one that looks at fewest pixels."""
    last = {one.codec: one for one in lineup.subjects}
    return sorted(last.values(), key=lambda one: not one.ours)


def setting_of(subject: TaskSubject, bench: TaskBench) -> float:
    """The setting that comes within about 3 points of uncompressed, or one near `TARGET_BPP`."""
    near = [
        (abs(one.within - 3.0), place, one.setting)
        for place, one in enumerate(bench.reaches)
        if one.codec == subject.codec and one.setting is not None
    ]
    if near:
        return min(near)[2]
    points = [
        point
        for curve in bench.curves
        if (curve.codec, curve.variant) == (subject.codec, subject.variant)
        for point in curve.points
    ]
    return min(points, key=lambda point: abs(np.log(point.bpp / TARGET_BPP))).setting


def _nearest(
    subject: TaskSubject, picture: LabelledPicture, num_bytes: int
) -> tuple[Pixels, Outcome]:
    """The finest of a subject's settings that is no larger, or the coarsest."""
    best = subject.show(picture, subject.settings[0])
    for setting in subject.settings[1:]:
        shown = subject.show(picture, setting)
        if shown[1].num_bytes > num_bytes:
            break
        best = shown
    return best


def _sight(
    title: str, rgb: Pixels, found: Predictions, num_bytes: int | None, classes: ClassMap
) -> Sight:
    """Draw what is sure enough, under the data set's names."""
    objects = []
    for thing in found.objects or ():
        index = classes.index_of(thing.label)
        if thing.score >= SCORE and index is not None:
            objects.append(replace(thing, label=classes.labels[index]))
    drawn = draw(rgb, Predictions(found.height, found.width, tuple(objects)), classes.labels)
    sink = io.BytesIO()
    # Small pictures are drawn larger, so that text can be read; the page has room for one size.
    drawn.resize((rgb.shape[1], rgb.shape[0]), Image.Resampling.LANCZOS).save(
        sink, "WEBP", quality=92, method=4
    )
    return Sight(title, sink.getvalue(), num_bytes, tuple(one.label for one in objects))
