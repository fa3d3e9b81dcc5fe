"""Which rate levels a picture's layers get: what was asked for, and what the tasks need."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from vcmcodec import catalogue
from vcmcodec.bitstream.constants import TaskId
from vcmcodec.bitstream.header import TaskInfo
from vcmcodec.encoding import EncodeOptions, rate_level
from vcmcodec.errors import RequestError
from vcmcodec.models import default_base_quality

if TYPE_CHECKING:
    from vcmcodec.nn.model_tensors import Model
    from vcmcodec.profiles.scene import Levels

MACHINE_TASKS = (TaskId.DETECTION, TaskId.CLASSIFICATION, TaskId.SEGMENTATION)


def _machine_names(tasks: Sequence[TaskInfo]) -> tuple[str, ...]:
    asked = {info.task for info in tasks}
    return tuple(catalogue.task(task).name for task in MACHINE_TASKS if task in asked)


def usual_base_quality(
    model: Model, tasks: Sequence[TaskInfo], reduced: bool, adapted: bool
) -> float:
    """The cheapest base that serves every machine task that is asked for."""
    from vcmcodec.profiles.scene import DEFAULT_BASE_QUALITY

    measured = default_base_quality(
        model.fingerprint, _machine_names(tasks), reduced=reduced, adapted=adapted
    )
    return DEFAULT_BASE_QUALITY if measured is None else measured


def choose(tasks: Sequence[TaskInfo], options: EncodeOptions, usual_base: float) -> Levels:
    """Rate levels of base and people (see docs/architecture.md, "Quality, tasks and layers")."""
    from vcmcodec.profiles.scene import DEFAULT_QUALITY, Levels

    asked = {info.task for info in tasks}
    if TaskId.HUMAN not in asked:
        return Levels(_only_level(options, usual_base), None)
    quality = DEFAULT_QUALITY if options.quality is None else options.quality
    people = rate_level("quality", quality)
    if options.base_quality is not None:
        base = rate_level("base quality", options.base_quality)
    elif asked == {TaskId.HUMAN}:
        base = people
    else:
        base = min(rate_level("base quality", usual_base), people)
    if base > people:
        raise RequestError(
            f"base quality {base / 100:g} is above the picture's quality {people / 100:g}"
        )
    return Levels(base, people)


def _only_level(options: EncodeOptions, usual: float) -> int:
    """The level of a file for machines alone, whose only layer is the base.

    Raises:
        RequestError: two are given.
    """
    if options.base_quality is not None:
        if options.quality is not None:
            raise RequestError(
                "a file for machines alone has one quality: give quality or base quality, not both"
            )
        return rate_level("base quality", options.base_quality)
    return rate_level("quality", usual if options.quality is None else options.quality)
