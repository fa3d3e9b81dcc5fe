"""The two tables: which profiles and tasks there are.

Everything else finds them here; a new one is one file and one line below.  Modules are named by
strings and imported by `load()` alone, so that reading this table costs nothing.
"""

from __future__ import annotations

import importlib
from collections.abc import Collection
from dataclasses import dataclass
from types import ModuleType
from typing import Literal, NamedTuple, TypeVar

from vcmcodec.bitstream.constants import LayerId, ProfileId, TaskId
from vcmcodec.bitstream.select import several
from vcmcodec.errors import RequestError

USUAL_EFFORT = 8  # looks, where a latent is adapted to the network and nobody says how often


class Variant(NamedTuple):
    """One way to code with a profile, as benches tell them apart.

    Attributes:
        split: split point, where a model has several.
        effort: looks in which the latent is adapted to the network; 0 for none.
    """

    split: str | None = None
    effort: int = 0


@dataclass(frozen=True)
class ProfileSpec:
    """One kind of coding.

    Attributes:
        id: number in the file.
        name: for people and for `--profile`.
        module: where its networks and substreams are defined.
        layers: what its files can hold, lowest first.
        tasks: what its files can be written for.
        source: "picture", or "features" of a network (see `profiles/features.py`).
        splits: split points that benches tell apart, where a model has several.
        adapts: whether its latent can be adapted to the network, in profiles of features.
    """

    id: ProfileId
    name: str
    module: str
    layers: tuple[LayerId, ...]
    tasks: tuple[TaskId, ...]
    source: Literal["picture", "features"] = "picture"
    splits: tuple[str, ...] = ()
    adapts: bool = False

    @property
    def variants(self) -> dict[str, Variant]:
        """What benches measure, by names for people."""
        found = {f"{self.name}-{split}": Variant(split) for split in self.splits}
        found = found or {self.name: Variant()}
        if self.adapts:
            found[f"{self.name}-adapted"] = Variant(effort=USUAL_EFFORT)
        return found

    def load(self) -> ModuleType:
        """Import the profile's module (and with it torch)."""
        return importlib.import_module(self.module)


@dataclass(frozen=True)
class TaskSpec:
    """One reason to read a file.

    Attributes:
        id: number in the file.
        name: for people and for `--task`.
        layer: the highest layer that it reads.
    """

    id: TaskId
    name: str
    layer: LayerId


PROFILES = (
    ProfileSpec(
        ProfileId.SCENE,
        "scene",
        "vcmcodec.profiles.scene",
        (LayerId.BASE, LayerId.MID, LayerId.FULL),
        (TaskId.HUMAN, TaskId.DETECTION, TaskId.CLASSIFICATION, TaskId.SEGMENTATION),
    ),
    ProfileSpec(
        ProfileId.PYRAMID,
        "pyramid",
        "vcmcodec.profiles.pyramid",
        (LayerId.BASE,),
        (TaskId.DETECTION, TaskId.CLASSIFICATION, TaskId.SEGMENTATION),
        source="features",
        adapts=True,
    ),
    ProfileSpec(
        ProfileId.SEMANTIC,
        "semantic",
        "vcmcodec.profiles.semantic",
        (LayerId.BASE,),
        (TaskId.DETECTION, TaskId.CLASSIFICATION, TaskId.SEGMENTATION),
        source="features",
        adapts=True,
    ),
    ProfileSpec(
        ProfileId.BOTTLENECK,
        "bottleneck",
        "vcmcodec.profiles.bottleneck",
        (LayerId.BASE, LayerId.MID, LayerId.FULL),
        (TaskId.DETECTION, TaskId.CLASSIFICATION, TaskId.SEGMENTATION),
        source="features",
        splits=("c3", "c4", "c5", "fpn"),
    ),
)

TASKS = (
    TaskSpec(TaskId.HUMAN, "human", LayerId.FULL),
    TaskSpec(TaskId.DETECTION, "detection", LayerId.BASE),
    TaskSpec(TaskId.CLASSIFICATION, "classification", LayerId.BASE),
    TaskSpec(TaskId.SEGMENTATION, "segmentation", LayerId.BASE),
)


def profile(key: str | ProfileId) -> ProfileSpec:
    """The profile of that name or id.

    Raises:
        RequestError: there is none.
    """
    return _find("profile", key, PROFILES)


def task(key: str | TaskId) -> TaskSpec:
    """The task of that name or id.

    Raises:
        RequestError: there is none.
    """
    return _find("task", key, TASKS)


Tasks = Collection[str | TaskId] | str | TaskId  # names or ids, or one


def task_names(asked: Tasks) -> tuple[str, ...]:
    """Names of the tasks that a caller asks for, in his order.

    Raises:
        RequestError: there is none of them, or one that nobody knows.
    """
    names = tuple(dict.fromkeys(task(key).name for key in several(asked)))
    if not names:
        raise RequestError("no task is given")
    return names


_Spec = TypeVar("_Spec", ProfileSpec, TaskSpec)


def _find(what: str, key: str | int, table: tuple[_Spec, ...]) -> _Spec:
    for spec in table:
        if key in (spec.name, spec.id):
            return spec
    raise RequestError(f"no {what} {key} (there are: {', '.join(spec.name for spec in table)})")
