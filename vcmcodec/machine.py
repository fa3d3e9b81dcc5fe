"""What a machine sees in a `.vcm` file: results from its base layer's bytes and no others.

`analyze_picture` is what it sees in a picture that is not coded.

    base latent -> feature transform -> split tensor -> rest of the network

A latent cannot be scaled like a picture.  So where a picture is coded at another size than that at
which the network looks at it, as one that is larger and for people, too, the network looks at the
base layer's own preview, scaled:

    base latent -> synthesis at its narrowest width -> scaled picture -> network

Either way what the network goes on from is an estimate, with errors of ten per cent and more.  So
it then runs in bfloat16 where the processor does, which adds half of one.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence

import numpy as np
import torch

from vcmcodec import catalogue, feature_codec, grouping, pixels
from vcmcodec.bitstream.constants import CELL
from vcmcodec.bitstream.header import Header
from vcmcodec.bitstream.limits import Limits
from vcmcodec.errors import RequestError
from vcmcodec.models import TasksModel, find_tasks, load_tasks
from vcmcodec.nn.feature_transform import SPLIT_STRIDE, level_features
from vcmcodec.reader import BaseLatent, Reader
from vcmcodec.sources import Openable
from vcmcodec.torch_state import low_precision, plain_torch
from vcmcodec.vision.backend import open_backend
from vcmcodec.vision.geometry import MULTIPLE, InputGeometry, fill, to_multiple
from vcmcodec.vision.network import TASKS
from vcmcodec.vision.predictions import LabelMap, Predictions
from vcmcodec.vision.predictor import Predictor

GREY = 115  # of what is not there in a preview
Groups = Sequence[str | int] | str | int | None


def analyze(
    source: Openable,
    *,
    tasks: catalogue.Tasks = TASKS,
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
        tasks: one or several of `vision.network.TASKS`.
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


@plain_torch()
def analyze_reader(
    reader: Reader,
    *,
    tasks: catalogue.Tasks = TASKS,
    score: float = 0.3,
    groups: Groups = None,
    device: str = "cpu",
    vision: str | None = None,
) -> Predictions:
    """The same of a file that is open already; see `analyze`."""
    tasks = machine_tasks(tasks)
    _check_score(score)
    if catalogue.profile(reader.header.profile).source == "features":
        found, present = feature_codec.analyze_reader(reader, tasks, score, groups, device, vision)
        return _only_present(found, present)
    if vision is not None:
        raise RequestError("the file holds a picture, whose base layer has a network of its own")
    model = load_tasks(reader.header.fingerprint, device=device)
    header = reader.header
    if model.looks_at_preview((header.height, header.width), header.coded_size):
        return _see_preview(reader, model, tasks, score, groups, device)
    return see(reader.latent(groups=groups, device=device), header, model, tasks, score)


def analyze_picture(
    rgb: np.ndarray, tasks: catalogue.Tasks | None = None, score: float = 0.3, device: str = "cpu",
    vision: str | None = None,
) -> Predictions:  # fmt: skip
    """What the installed vision network, or the one that is named, sees in a picture itself.

    Args:
        rgb: (H, W, 3) uint8.
        tasks: one or several of `vision.network.TASKS`; None for all that the network does.
        score, device: as in `analyze`.
        vision: as in `vision.backend.open_backend`.

    Raises:
        RequestError: an unknown task, or one that the network does not do.
        WeightsError: the network is not installed.
    """
    asked = None if tasks is None else machine_tasks(tasks)
    _check_score(score)
    backend = open_backend(vision, device=device)
    lacking = [task for task in asked or () if task not in backend.tasks]
    if lacking:
        able = ", ".join(backend.tasks)
        raise RequestError(f"this network does not do {', '.join(lacking)}; it does {able}")
    return backend.predict(rgb, asked, score)


def _check_score(score: float) -> None:
    if not 0 <= score <= 1:  # also refuses NaN
        raise RequestError(f"score {score} is outside 0 to 1")


def shortfalls(reader: Reader, tasks: catalogue.Tasks = TASKS) -> tuple[str, ...]:
    """Tasks that a file's base layer is coarser than it should be for, one sentence each.

    The results are given all the same; a file for classification alone, say, may miss objects.

    Raises:
        WeightsError: a tasks model is damaged.
    """
    found = find_tasks(reader.header.fingerprint)
    if found is None:  # features have no base quality
        return ()
    header = reader.header
    # A base apart was reduced or adapted; which, a file does not say, and it is usually both.
    needed = found[1].adapted_quality if header.is_apart else found[1].base_quality
    quality = header.layers[0].rate_level / 100
    return tuple(
        f"{task} needs a base quality of {needed[task]:g}, this file has {quality:g}"
        for task in machine_tasks(tasks)
        if needed.get(task, 0.0) > quality
    )


def machine_tasks(asked: catalogue.Tasks) -> tuple[str, ...]:
    """Names of the tasks that a caller asks for.

    Raises:
        RequestError: there is none, or one that is none of machines.
    """
    names = catalogue.task_names(asked)
    for name in names:
        if name not in TASKS:
            raise RequestError(f"no machine task {name}; there are {', '.join(TASKS)}")
    return names


@plain_torch()
@torch.inference_mode()
def see(
    base: BaseLatent, header: Header, model: TasksModel, tasks: Collection[str] = TASKS,
    score: float = 0.3,
) -> Predictions:  # fmt: skip
    """Results of a decoded base latent, at the scale at which it is coded; see `analyze`."""
    levels = model.facts.config.levels
    latent = base.latent[None]
    present = torch.from_numpy(base.present.astype(np.float32)).to(latent.device)
    features = level_features(base.level, levels).to(latent.device)
    split = model.transform(latent, features, present[None, ..., None])
    split = to_multiple(split, MULTIPLE // SPLIT_STRIDE)
    with low_precision(latent.device):
        output = model.vision.network.back_end({model.facts.split: split}, model.facts.split, tasks)
    rows, columns = (SPLIT_STRIDE * side for side in split.shape[2:])
    coded = header.coded_size
    geometry = InputGeometry(header.height, header.width, *coded, rows, columns)
    found = Predictor(model.vision).interpret(output, geometry, score)
    return _only_present(found, base.present, coded)


@torch.inference_mode()
def _see_preview(
    reader: Reader, model: TasksModel, tasks: Collection[str], score: float, groups: Groups,
    device: str,
) -> Predictions:  # fmt: skip
    """Results of a picture that is coded at another size; see the module."""
    header, (rows, columns) = reader.header, reader.header.coded_size
    vision = model.seeing_previews(header.layers[0].rate_level / 100)
    geometry = InputGeometry.fit(header.height, header.width, vision.longer_side)
    wanted = geometry.scaled_height, geometry.scaled_width
    mean = pixels.mean_before(header.coded_size, wanted)
    rgb, present = reader.preview(groups=groups, device=device, mean=mean)
    if not present.all():
        rgb[~grouping.as_pixels(present, (rgb.shape[0], rgb.shape[1]), CELL // mean)] = GREY
    image = fill(rgb, geometry, (rows / mean, columns / mean)).to(vision.network.mean.device)
    with low_precision(image.device):
        output = vision.network(image, tasks)
    found = Predictor(vision).interpret(output, geometry, score)
    return _only_present(found, present, header.coded_size)


def _only_present(
    found: Predictions, present: np.ndarray, coded: tuple[int, int] | None = None
) -> Predictions:
    """Leave out what lies in cells of which nothing was decoded.

    Args:
        found: in pixels of the true picture.
        present: (rows, columns) bool.
        coded: height and width at which the picture is coded, where that is not the true size.
    """
    if present.all():
        return found
    true = found.height, found.width
    coded = coded or true
    objects, label_map = found.objects, found.label_map
    if objects is not None:
        scale = coded[0] / true[0], coded[1] / true[1]
        grid = present.shape
        objects = tuple(t for t in objects if present[grouping.cell_at(t.box, scale, grid)])
    if label_map is not None:
        shown = grouping.as_pixels(present, coded)
        if coded != true:
            shown = pixels.enlarge(shown, true)
        label_map = LabelMap(np.where(shown, label_map.labels, 0).astype(np.uint8), label_map.names)
    return Predictions(found.height, found.width, objects, found.classes, label_map)
