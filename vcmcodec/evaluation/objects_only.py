"""Objects only: what a file without its background still tells a machine, and what it weighs.

Every picture is coded for detection with a group for each object; then the background group is
dropped from the file.  Both files are analyzed from their base layers and scored on the same
objects, those whose centre lies in a cell that is left.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

from vcmcodec import codec, edit, grouping, machine, pretrained
from vcmcodec.errors import RequestError
from vcmcodec.evaluation import task_scores
from vcmcodec.evaluation.environment import Environment, describe_environment
from vcmcodec.evaluation.labelled import LabelledSet
from vcmcodec.evaluation.metrics import Pixels
from vcmcodec.evaluation.report import Table, environment_note
from vcmcodec.models import default_effort
from vcmcodec.reader import Reader
from vcmcodec.vision.auto_groups import find_groups
from vcmcodec.vision.predictions import Predictions, to_coco

FLOOR = 0.01  # objects below this score are not handed to the evaluation
TASK = "detection"
Where = Literal["labels", "auto"]


@dataclass(frozen=True)
class ObjectsOnlySettings:
    """How the files are made.

    Attributes:
        groups: "labels" takes the true boxes of the labels, "auto" what the vision network finds.
        margin: pixels by which every box grows on each side, so that a group holds its object's
            surroundings.
        together: all objects are one group, which saves the bytes that a group costs.
        base_quality: of the base layer; None for the default of detection.
        effort: how often the network looks while base layers are adapted to it; None for what the
            tasks model asks for.  Groups are adapted together.
        model: name of the picture model; None for the default.
    """

    groups: Where = "labels"
    margin: float = 0.0
    together: bool = False
    base_quality: float | None = None
    effort: int | None = None
    model: str | None = None


@dataclass(frozen=True)
class ObjectsOnly:
    """Result over all pictures that have both objects and a background.

    Attributes:
        pictures: how many were measured.
        skipped: pictures without any group, or without background.
        plain_bytes: of the files without groups.
        whole_bytes: of the files with groups.
        part_bytes: of the files whose background was dropped.
        kept_cells: share of the cells that is left, percent.
        plain, whole, part: detection scores on the objects inside groups.
    """

    pictures: int
    skipped: int
    set_name: str
    settings: ObjectsOnlySettings
    plain_bytes: int
    whole_bytes: int
    part_bytes: int
    kept_cells: float
    plain: task_scores.DetectionScores
    whole: task_scores.DetectionScores
    part: task_scores.DetectionScores
    environment: Environment

    @property
    def kept(self) -> float:
        """AP50 of the parts over that of the whole files, percent."""
        return 100 * self.part.map50 / self.whole.map50 if self.whole.map50 else 0.0


@dataclass(frozen=True, eq=False)
class Cells:
    """Which cells of a file hold objects.

    Attributes:
        there: (rows, columns), true where they do.
        scale: coded pixels in a true one, down and across.
    """

    there: npt.NDArray[np.bool_]
    scale: tuple[float, float]

    def hold(self, box: Sequence[float]) -> bool:
        """Whether a box (x, y, width, height) has its centre in a cell that is there."""
        return bool(self.there[grouping.cell_at(box, self.scale, self.there.shape)])


@dataclass(frozen=True, eq=False)
class _Measured:
    """One picture: bytes and detections of the three files, and which cells are in groups."""

    sizes: tuple[int, int, int]
    found: tuple[Predictions, Predictions, Predictions]
    cells: Cells


def run(
    labelled: LabelledSet,
    settings: ObjectsOnlySettings | None = None,
    *,
    threads: int = 2,
    progress: Callable[[str], None] = lambda _: None,
) -> ObjectsOnly:
    """Measure on a labelled set.

    Args:
        labelled: pictures with boxes.
        settings: how the files are made.
        threads: that torch was told to use, for the record.
        progress: called with one line before each picture.

    Raises:
        RequestError: no picture has both objects and a background.
        WeightsError: no tasks model is installed for the picture model.
    """
    settings = settings or ObjectsOnlySettings()
    if settings.effort is None:
        settings = dataclasses.replace(settings, effort=_usual_effort(settings.model))
    boxes = _boxes_by_picture(labelled)
    measured: dict[int, _Measured] = {}
    for count, picture in enumerate(labelled.pictures(), start=1):
        progress(f"{count} of {len(labelled)} pictures")
        one = _measure(picture.rgb(), boxes.get(picture.id, []), settings)
        if one is not None:
            measured[picture.id] = one
    if not measured:
        raise RequestError("no picture of the set has both an object and a background")
    truth = _truth_inside(labelled, {number: one.cells for number, one in measured.items()})
    plain, whole, part = (
        task_scores.score_detections(truth, _results(measured, which, labelled.labels))
        for which in range(3)
    )
    sizes = [sum(one.sizes[which] for one in measured.values()) for which in range(3)]
    cells = [one.cells for one in measured.values()]
    return ObjectsOnly(
        pictures=len(measured),
        skipped=len(labelled) - len(measured),
        set_name=labelled.name,
        settings=settings,
        plain_bytes=sizes[0],
        whole_bytes=sizes[1],
        part_bytes=sizes[2],
        kept_cells=100 * sum(int(c.there.sum()) for c in cells) / sum(c.there.size for c in cells),
        plain=plain,
        whole=whole,
        part=part,
        environment=describe_environment(threads),
    )


def _usual_effort(model: str | None) -> int:
    """What the tasks model asks for; files with groups are adapted only where they are told to."""
    file = pretrained.find(profile="scene", model_id=model)
    return default_effort(bytes.fromhex(file.fingerprint))


def _boxes_by_picture(labelled: LabelledSet) -> dict[int, list[dict[str, Any]]]:
    names = {c["id"]: c["name"] for c in labelled.truth()["categories"]}
    boxes: dict[int, list[dict[str, Any]]] = {}
    for a in labelled.truth()["annotations"]:
        if not a["iscrowd"]:
            item = {"label": names[a["category_id"]], "box": a["bbox"]}
            boxes.setdefault(a["image_id"], []).append(item)
    return boxes


def _measure(
    rgb: Pixels, true_boxes: Sequence[Mapping[str, Any]], settings: ObjectsOnlySettings
) -> _Measured | None:
    """The three files of a picture; None where nothing would be dropped or nothing kept."""
    boxes = find_groups(rgb) if settings.groups == "auto" else true_boxes
    plan = _plan(rgb, boxes, settings)
    if plan is None:
        return None
    options = codec.EncodeOptions(
        tasks=[TASK], base_quality=settings.base_quality, effort=settings.effort,
        model=settings.model,
    )  # fmt: skip
    plain = codec.encode_picture(rgb, options).data
    made = codec.encode_picture(rgb, options, groups=plan)
    background, ids = plan.groups[0].id, made.header.group_ids
    if background not in ids or len(ids) < 2:
        return None  # groups may vanish where the picture is reduced
    whole = made.data
    part = edit.extract(whole, drop_groups=[background])
    with Reader(part) as reader:
        header = reader.header
        scale = header.coded_size[0] / header.height, header.coded_size[1] / header.width
        cells = Cells(reader.latent().present, scale)
    files = plain, whole, part
    one, two, three = (machine.analyze(file, tasks=[TASK], score=FLOOR) for file in files)
    return _Measured((len(plain), len(whole), len(part)), (one, two, three), cells)


def _plan(
    rgb: Pixels, boxes: Sequence[Mapping[str, Any]], settings: ObjectsOnlySettings
) -> grouping.GroupPlan | None:
    """Groups with the background first; None where there is only one group."""
    height, width = rgb.shape[:2]
    margin = settings.margin
    grown = []
    for item in boxes:
        x, y, w, h = item["box"]
        left, top = max(0.0, x - margin), max(0.0, y - margin)
        right, bottom = min(width, x + w + margin), min(height, y + h + margin)
        if right > left and bottom > top:
            grown.append({"label": item["label"], "box": [left, top, right - left, bottom - top]})
    plan = grouping.from_boxes(grown, height, width)
    if settings.together:
        plan = grouping.from_mask((plan.labels > 0).astype(np.uint8), height, width)
    has_background = plan.groups[0].id == 0
    return plan if has_background and len(plan.groups) > 1 else None


def _truth_inside(labelled: LabelledSet, cells: Mapping[int, Cells]) -> dict[str, Any]:
    """The labels of the measured pictures; objects outside groups are neither hit nor miss."""
    truth = labelled.truth()
    annotations = [
        a | {"iscrowd": int(a["iscrowd"] or not cells[a["image_id"]].hold(a["bbox"]))}
        for a in truth["annotations"]
        if a["image_id"] in cells
    ]
    images = [image for image in truth["images"] if image["id"] in cells]
    return truth | {"images": images, "annotations": annotations}


def _results(
    measured: Mapping[int, _Measured], which: int, labels: Sequence[str]
) -> list[dict[str, Any]]:
    """Detections inside groups, of classes that the set knows, as a COCO result list."""
    results = []
    for number, one in measured.items():
        found = one.found[which]
        kept = tuple(
            thing
            for thing in found.objects or ()
            if thing.label in labels and one.cells.hold(thing.box)
        )
        results += to_coco([Predictions(found.height, found.width, kept)], [number], labels)
    return results


def tables(result: ObjectsOnly) -> tuple[Table, ...]:
    """The result as one table."""
    rows = []
    for name, size, scores in (
        ("without groups", result.plain_bytes, result.plain),
        ("with groups", result.whole_bytes, result.whole),
        ("background dropped", result.part_bytes, result.part),
    ):
        rows.append(
            (
                name,
                f"{size / result.pictures:,.0f}",
                f"{100 * size / result.whole_bytes:.1f} %",
                f"{scores.map50:.2f}",
                f"{scores.map:.2f}",
                f"{100 * scores.map50 / result.whole.map50:.1f} %" if result.whole.map50 else "n/a",
            )
        )
    asked = result.settings
    made = "one group for all objects" if asked.together else "a group for each object"
    quality = "the default" if asked.base_quality is None else f"{asked.base_quality:g}"
    return (
        Table(
            f"Objects only: {result.pictures} pictures of {result.set_name}",
            ("file", "bytes a picture", "of with groups", "mAP50", "mAP", "mAP50 kept"),
            tuple(rows),
            (
                (
                    f"Groups by {asked.groups}, margin {asked.margin:g} pixels, {made};"
                    f" base quality {quality}, effort {asked.effort};"
                    f" {result.kept_cells:.0f} % of the cells are left."
                ),
                (
                    "Scored on objects and detections whose centre lies in a group; "
                    f"{result.skipped} pictures without objects or background are left out."
                ),
                environment_note(result.environment),
            ),
        ),
    )
