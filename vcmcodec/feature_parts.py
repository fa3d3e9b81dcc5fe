"""Which parts of a file of features serve a request, and the model that they are of.

As `parts`, with what only a profile of features can say: where its tensors lie, and which of a
file's layers each task reads.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass
from types import ModuleType
from typing import TYPE_CHECKING, Any

from vcmcodec import catalogue
from vcmcodec.bitstream.constants import LayerId
from vcmcodec.bitstream.container import Runs
from vcmcodec.bitstream.header import Header
from vcmcodec.bitstream.parameters import FeatureParameters
from vcmcodec.errors import FormatError, RequestError
from vcmcodec.models import load_model
from vcmcodec.parts import Choice
from vcmcodec.reader import Reader

if TYPE_CHECKING:
    import numpy as np

    from vcmcodec.profiles.features import Place


def layer_of(module: ModuleType, model: Any, split: str) -> Callable[[str], LayerId]:
    """The highest layer that a task reads: the base, where the profile says nothing else."""
    if not hasattr(module, "layer"):
        return lambda task: LayerId.BASE
    return lambda task: module.layer(model, split, task)


def narrowed(
    spec: catalogue.ProfileSpec, module: ModuleType, model: Any,
    asked: catalogue.Tasks | None = None,
) -> catalogue.ProfileSpec:  # fmt: skip
    """A profile with no more tasks than a model's network can do.

    Args:
        asked: tasks, as a caller gives them; None for all.

    Raises:
        RequestError: the profile serves one of them, but not with this model.
    """
    able = _able(module, model)
    if able is None:
        return spec
    tasks = tuple(task for task in spec.tasks if catalogue.task(task).name in able)
    for found in map(catalogue.task, () if asked is None else catalogue.task_names(asked)):
        if found.id in spec.tasks and found.id not in tasks:
            raise RequestError(
                f"the network that this model goes with does not do {found.name}; it does"
                f" {', '.join(able)}"
            )
    return dataclasses.replace(spec, tasks=tasks)


def _able(module: ModuleType, model: Any) -> tuple[str, ...] | None:
    """What a model's network can do; None where that is all that its profile serves."""
    return module.tasks(model) if hasattr(module, "tasks") else None


def check_split(module: ModuleType, model: Any, asked: str | None) -> str:
    """The split point asked for, or the model's first.

    Raises:
        RequestError: the model does not code it.
    """
    known: tuple[str, ...] = module.splits(model)
    if asked is None:
        return known[0]
    if asked not in known:
        raise RequestError(f"the model codes no split point {asked}; it codes {', '.join(known)}")
    return asked


@dataclass(frozen=True, eq=False)
class Held:
    """What it takes to decode a file's features.

    Attributes:
        module, model: the profile, and the weights that the file names.
        place: where the features lie.
        cells: (rows, columns) group position of each of the picture's cells.
        rate_level: of all layers.
        choice: what is decoded, and how far.
        runs: its bytes.
        notes: what is lacking, one sentence each.
    """

    module: ModuleType
    model: Any
    place: Place
    cells: np.ndarray
    rate_level: int
    choice: Choice
    runs: Runs
    notes: tuple[str, ...]


def place_of(header: Header, module: ModuleType, model: Any, cells: np.ndarray) -> Place:
    """Where the features of a file lie.

    Args:
        cells: (rows, columns) group position of each cell.

    Raises:
        FormatError: the parameters are damaged, or features are tiled.
        RequestError: the model has no such split point.
    """
    from vcmcodec.profiles.features import Place, place_groups
    from vcmcodec.vision.geometry import InputGeometry

    own = FeatureParameters.unpack(header.parameters)
    if header.tile:
        raise FormatError("tile", "features are never tiled", stored=header.tile, expected=0)
    check_split(module, model, own.split)
    geometry = InputGeometry.scaled(
        header.height, header.width, own.scaled_height, own.scaled_width
    )
    labels = place_groups(cells, geometry, module.grid(model, geometry, own.split))
    groups = max(len(header.group_ids), header.map_labels)
    return Place(own.split, geometry, labels, groups, own.own)


def open_model(reader: Reader, device: str) -> tuple[ModuleType, Any]:
    """Profile and model of a file of features.

    Raises:
        RequestError: the file holds a picture.
        WeightsError: the model is not there.
    """
    spec = catalogue.profile(reader.header.profile)
    if spec.source != "features":
        raise RequestError(f"the file holds a picture (profile {spec.name}), not features")
    mark = reader.header.fingerprint
    return spec.load(), load_model(spec.name, fingerprint=mark, device=device)


def served(reader: Reader, tasks: Collection[str], device: str = "cpu") -> tuple[str, ...]:
    """Those of some tasks that the network does, and whose layers a file of features holds."""
    module, model = open_model(reader, device)
    find = layer_of(module, model, FeatureParameters.unpack(reader.header.parameters).split)
    top, able = reader.parts.top_layer(), _able(module, model)
    return tuple(t for t in tasks if (able is None or t in able) and find(t) <= top)


def hold(
    reader: Reader,
    groups: Sequence[str | int] | str | int | None,
    tasks: Sequence[str],
    device: str,
) -> Held:
    """Fetch what tasks read, and no more.

    Raises:
        RequestError: no such group, or the file lacks what a task reads.
        TruncatedError: the file is cut off within the base layer.
        FormatError: a substream is damaged or missing.
    """
    header, parts = reader.header, reader.parts
    module, model = open_model(reader, device)
    split = FeatureParameters.unpack(header.parameters).split
    lacking = set(tasks) - set(served(reader, tasks, device))
    if lacking:
        names = ", ".join(sorted(lacking))
        raise RequestError(
            f"the file was not written for {names}: it lacks tensors that this needs"
        )
    find = layer_of(module, model, split)
    top = max((find(task) for task in tasks), default=parts.top_layer())
    got = parts.fetch(parts.positions(groups), top)
    choice, cells = got.choice, parts.labels(got.data)
    place = place_of(header, module, model, cells)
    parts.check_runs(got, place.labels)
    level = next(info.rate_level for info in header.layers if info.layer == LayerId.BASE)
    least = min(choice.layers.values())
    note = f"some groups are there up to layer {least.name.lower()} only"
    notes = (note,) if least < top else ()
    runs = parts.runs(got, top)
    return Held(module, model, place, cells, level, choice, runs, notes)
