"""What a machine sees in a `.vcm` file: results straight from its base layer, no pixel decoded.

    base layer's bytes -> base latent -> feature transform -> split tensor -> rest of the network

Small pictures go through in one piece.  Larger ones go through in windows of the cell grid that
overlap, so that memory does not grow with the picture; each window answers for its core alone.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

from vcmcodec import catalogue, feature_codec
from vcmcodec.bitstream.constants import CELL
from vcmcodec.bitstream.header import Header
from vcmcodec.bitstream.limits import Limits
from vcmcodec.errors import RequestError
from vcmcodec.models import TasksModel, find_tasks, load_tasks
from vcmcodec.nn.feature_transform import SPLIT_STRIDE, level_features
from vcmcodec.profiles.tiles import Rectangle, expand, tiles
from vcmcodec.reader import BaseLatent, Reader
from vcmcodec.sources import Openable
from vcmcodec.vision.geometry import MULTIPLE, InputGeometry
from vcmcodec.vision.network import TASKS
from vcmcodec.vision.predictions import ClassScore, DetectedObject, LabelMap, Predictions
from vcmcodec.vision.predictor import MOST_OBJECTS, OVERLAP, Predictor
from vcmcodec.vision.tasks.boxes import suppress

WHOLE_CELLS = 128 * 128  # larger pictures go through in windows of at most so many cells
WINDOW_CELLS = 96  # side of a window's core
HALO_CELLS = 16  # what a window sees around its core
Groups = Sequence[str | int] | str | int | None


def analyze(
    source: Openable,
    *,
    tasks: Collection[str] = TASKS,
    score: float = 0.3,
    groups: Groups = None,
    device: str = "cpu",
    limits: Limits | None = None,
    vision: str | None = None,
) -> Predictions:
    """Say what is in the picture of a file, from its base layer or its features alone.

    Args:
        source: path, bytes, binary file object or source of byte ranges; of it only the header and
            the base layer's substreams (of the chosen groups) are read.
        tasks: names from `vision.network.TASKS`.
        score: objects below it are left out; classes are all given.
        groups: labels or ids; results come from their cells only.  None for all that are there.
        device: where the networks run.
        limits: what to accept.
        vision: the network behind features, as in `vision.backend.open_backend`, where the file's
            model goes with weights of the user's own; None for the installed one.

    Returns:
        Results in pixels of the true picture.  Where a group is not there, or not chosen, no
        object has its centre and the label map says background.

    Raises:
        RequestError: an unknown task, no such group, no base layer in the file, or a network for
            a file that holds a picture.
        TruncatedError: the file is cut off within the base layer.
        FormatError: the base layer is damaged.
        WeightsError: the model, or a network that goes with it, is not installed, or `vision` has
            other weights.
    """
    with Reader(source, limits) as reader:
        return analyze_reader(
            reader, tasks=tasks, score=score, groups=groups, device=device, vision=vision
        )


def analyze_reader(
    reader: Reader,
    *,
    tasks: Collection[str] = TASKS,
    score: float = 0.3,
    groups: Groups = None,
    device: str = "cpu",
    vision: str | None = None,
) -> Predictions:
    """The same of a file that is open already; see `analyze`."""
    check_tasks(tasks)
    if catalogue.profile(reader.header.profile).source == "features":
        found, present = feature_codec.analyze_reader(reader, tasks, score, groups, device, vision)
        return _only_present(found, present)
    if vision is not None:
        raise RequestError("the file holds a picture, whose base layer has a network of its own")
    model = load_tasks(reader.header.fingerprint, device=device)
    return see(reader.latent(groups=groups, device=device), reader.header, model, tasks, score)


def shortfalls(reader: Reader, tasks: Collection[str] = TASKS) -> tuple[str, ...]:
    """Tasks that a file's base layer is coarser than it should be for, one sentence each.

    The results are given all the same; a file for classification alone, say, may miss objects.

    Raises:
        WeightsError: a tasks model is damaged.
    """
    found = find_tasks(reader.header.fingerprint)
    if found is None:  # features have no base quality
        return ()
    needed = found[1].base_quality
    quality = reader.header.layers[0].rate_level / 100
    return tuple(
        f"{task} needs a base quality of {needed[task]:g}, this file has {quality:g}"
        for task in tasks
        if needed.get(task, 0.0) > quality
    )


def check_tasks(tasks: Collection[str]) -> None:
    """Raise RequestError unless there is a task, and every one is known."""
    if not tasks:
        raise RequestError("no task is given")
    for task in tasks:
        if task not in TASKS:
            raise RequestError(f"no machine task {task}; there are {', '.join(TASKS)}")


@torch.inference_mode()
def see(
    base: BaseLatent, header: Header, model: TasksModel, tasks: Collection[str] = TASKS,
    score: float = 0.3,
) -> Predictions:  # fmt: skip
    """Results of a decoded base latent; see `analyze`."""
    grid = header.cell_rows, header.cell_columns
    frame = Rectangle(0, grid[0], 0, grid[1])
    if frame.size <= WHOLE_CELLS:
        found = _look(base, header, model, frame, tasks, score)
    else:
        found = _in_windows(base, header, model, grid, tasks, score)
    return _only_present(found, base.present)


def _look(
    base: BaseLatent, header: Header, model: TasksModel, where: Rectangle, tasks: Collection[str],
    score: float,
) -> Predictions:  # fmt: skip
    """Results of a rectangle of cells, in pixels from its top left corner."""
    levels = model.facts.config.levels
    latent = base.latent[where.slices][None]
    present = torch.from_numpy(base.present[where.slices].astype(np.float32)).to(latent.device)
    features = level_features(base.level, levels).to(latent.device)
    split = model.transform(latent, features, present[None, ..., None])
    split = _to_whole(split)
    output = model.vision.network.back_end({model.facts.split: split}, model.facts.split, tasks)
    height = min(CELL * where.bottom, header.height) - CELL * where.top
    width = min(CELL * where.right, header.width) - CELL * where.left
    rows, columns = (SPLIT_STRIDE * side for side in split.shape[2:])
    geometry = InputGeometry(height, width, height, width, rows, columns)
    return Predictor(model.vision).interpret(output, geometry, score)


def _to_whole(split: Tensor) -> Tensor:
    """Repeat the last row and column until the sides are what the back end can halve."""
    multiple = MULTIPLE // SPLIT_STRIDE
    down, across = (-side % multiple for side in split.shape[2:])
    if down or across:
        split = functional.pad(split, (0, across, 0, down), mode="replicate")
    return split.contiguous(memory_format=torch.channels_last)


@dataclass(frozen=True)
class _Window:
    """Cells that are looked at, and those of them that are answered for."""

    around: Rectangle
    core: Rectangle


def _windows(grid: tuple[int, int]) -> Iterator[_Window]:
    for core in tiles(grid, WINDOW_CELLS):
        yield _Window(expand(core, HALO_CELLS, grid), core)


def _in_windows(
    base: BaseLatent, header: Header, model: TasksModel, grid: tuple[int, int],
    tasks: Collection[str], score: float,
) -> Predictions:  # fmt: skip
    """Results of a large picture.

    An object belongs to the window whose core holds its centre, an area's pixels likewise; a class
    is as probable as in the window that shows it best.
    """
    height, width = header.height, header.width
    objects: list[DetectedObject] = []
    classes: dict[str, float] = {}
    labels = np.zeros((height, width), np.uint8)
    names: tuple[str, ...] = ()
    for window in _windows(grid):
        if not base.present[window.around.slices].any():
            continue
        found = _look(base, header, model, window.around, tasks, score)
        objects += _of_core(found, window)
        for item in found.classes or ():
            classes[item.label] = max(item.score, classes.get(item.label, 0.0))
        if found.label_map is not None:
            names = found.label_map.names
            inner = window.core.inside(window.around)
            labels[window.core.pixel_slices] = found.label_map.labels[inner.pixel_slices]
    ranked = sorted(classes.items(), key=lambda item: -item[1])
    return Predictions(
        height,
        width,
        _best(objects) if "detection" in tasks else None,
        tuple(ClassScore(*item) for item in ranked) if "classification" in tasks else None,
        LabelMap(labels, names) if "segmentation" in tasks else None,
    )


def _of_core(found: Predictions, window: _Window) -> list[DetectedObject]:
    """Objects whose centre lies in a window's core, in pixels of the whole picture."""
    left, top = CELL * window.around.left, CELL * window.around.top
    kept = []
    for thing in found.objects or ():
        x, y, w, h = thing.box
        moved = DetectedObject(thing.label, thing.score, (x + left, y + top, w, h))
        row, column = _cell_of(moved)
        core = window.core
        if core.top <= row < core.bottom and core.left <= column < core.right:
            kept.append(moved)
    return kept


def _best(objects: list[DetectedObject]) -> tuple[DetectedObject, ...]:
    """Drop what two windows both found at their border, and all but the best."""
    if not objects:
        return ()
    known = sorted({thing.label for thing in objects})
    boxes = np.array([thing.box for thing in objects])
    corners = np.concatenate((boxes[:, :2], boxes[:, :2] + boxes[:, 2:]), 1)
    scores = np.array([thing.score for thing in objects])
    labels = np.array([known.index(thing.label) for thing in objects])
    return tuple(objects[k] for k in suppress(corners, scores, labels, OVERLAP, MOST_OBJECTS))


def _cell_of(thing: DetectedObject) -> tuple[int, int]:
    """Row and column of the cell in which an object has its centre."""
    x, y, w, h = thing.box
    return int((y + h / 2) // CELL), int((x + w / 2) // CELL)


def _only_present(found: Predictions, present: np.ndarray) -> Predictions:
    """Leave out what lies in cells of which nothing was decoded."""
    if present.all():
        return found
    objects, label_map = found.objects, found.label_map
    if objects is not None:
        last = present.shape[0] - 1, present.shape[1] - 1
        cells = [tuple(map(min, _cell_of(thing), last)) for thing in objects]
        objects = tuple(t for t, cell in zip(objects, cells, strict=True) if present[cell])
    if label_map is not None:
        shown = present.repeat(CELL, 0).repeat(CELL, 1)[: found.height, : found.width]
        label_map = LabelMap(np.where(shown, label_map.labels, 0).astype(np.uint8), label_map.names)
    return Predictions(found.height, found.width, objects, found.classes, label_map)
