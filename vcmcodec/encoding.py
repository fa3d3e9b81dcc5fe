"""What encoding has in common for all profiles: options, groups, tasks, the search for a size."""

from __future__ import annotations

import dataclasses
import math
import os
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from numbers import Integral, Real
from typing import Any, cast

import numpy as np
from PIL import Image

from vcmcodec import catalogue, grouping
from vcmcodec.bitstream.constants import CELL, MAX_RATE_LEVEL, Kind, LayerId
from vcmcodec.bitstream.container import Substream
from vcmcodec.bitstream.header import Group, Header, TaskInfo
from vcmcodec.bitstream.limits import Limits
from vcmcodec.entropy.group_map import encode_group_map
from vcmcodec.errors import RequestError

Groups = (
    grouping.GroupPlan | str | os.PathLike[str] | bytes | np.ndarray | Image.Image | Sequence[Any]
)
_KINDS: Mapping[str, tuple[type, str]] = {  # of options that may be None, but nothing else
    **dict.fromkeys(("quality", "base_quality", "target_bpp"), (Real, "a number")),
    **dict.fromkeys(("longer_side", "effort", "target_size"), (Integral, "a whole number")),
    **dict.fromkeys(("model", "split", "vision"), (str, "a name")),
}
AUTO = "auto"  # groups by the vision network; a file of that name is ./auto
SEARCH_WIDTH = 5  # hundredths of quality within which a size is looked for
SEARCH_STEPS = 12  # bisections of the rate level in a search for a size
FITTING_TRIES, FITTING_STEP = 4, 150  # of an adapted file that should fit a target


@dataclass(frozen=True)
class EncodeOptions:
    """How a picture, or a set of features, is to be coded.

    Attributes:
        tasks: names or ids, or one of them; None for all of the profile's.
        quality: rate level of the picture for people, 0..100; of a file that has nothing for
            people (machine tasks alone, or features), of all there is.
        base_quality: rate level of the base layer, 0..100; None for the lowest that serves the
            tasks.
        longer_side: pixels to which the longer side of the picture is reduced before it is coded, 0
            for never; None for what the machine tasks need, where people will not look at it.
        effort: how often the vision network looks while the base layer is adapted to it, where
            people will not look at it; 0: the base is coded as it is.  None for what the tasks
            model asks for, and 0 with a longer side of 0, or with several groups, which would be
            adapted together.  The same for features that a profile can adapt, where None is 0.
        target_size: bytes that the whole file may have; overrides the quality.
        target_bpp: the same in bits a pixel.
        profile: name of a profile.
        model: name of a model; None for the profile's default.
        split: name of a split point, for profiles of features; None for the model's first.
        vision: the network whose features of a picture are coded, as in
            `vision.backend.open_backend`, where the model goes with weights of the user's own; None
            for the installed one.  Features that were taken before need none.
        digest: store hashes of all symbols, which every decoder then checks.
        text: key and value pairs for people.
    """

    tasks: catalogue.Tasks | None = None
    quality: float | None = None
    base_quality: float | None = None
    longer_side: int | None = None
    effort: int | None = None
    target_size: int | None = None
    target_bpp: float | None = None
    profile: str = "scene"
    model: str | None = None
    split: str | None = None
    vision: str | None = None
    digest: bool = False
    text: Mapping[str, str] | None = None

    def __post_init__(self) -> None:
        """Refuse what is of another kind, before anything is read.

        Raises:
            RequestError: a number, a name or the texts are none, or an effort is below 0.
        """
        for name, (kind, what) in _KINDS.items():
            value = getattr(self, name)
            if value is not None and (isinstance(value, bool) or not isinstance(value, kind)):
                raise RequestError(f"{name} must be {what}, not {value!r}")
        if self.effort is not None and self.effort < 0:
            raise RequestError(f"an effort of {self.effort} is below 0")
        if self.text is not None and not isinstance(self.text, Mapping):
            raise RequestError(f"text must be pairs of key and value, not {self.text!r}")
        for pair in (self.text or {}).items():
            if not all(isinstance(part, str) for part in pair):
                raise RequestError(f"keys and values of text must be strings, not {pair!r}")


@dataclass(frozen=True)
class Encoded:
    """A finished file.

    Attributes:
        data: its bytes.
        header: what it says of itself.
        warnings: what was lost on the way in, one sentence each.
    """

    data: bytes
    header: Header
    warnings: tuple[str, ...]

    @property
    def bpp(self) -> float:
        """Bits of the whole file over the picture's true pixels."""
        return 8 * len(self.data) / (self.header.width * self.header.height)


# ---- groups


def plan_groups(
    groups: Groups | None,
    height: int,
    width: int,
    rgb: np.ndarray | None,
    device: str,
    limits: Limits | None = None,
) -> grouping.GroupPlan | None:
    """Groups in whatever form, for a picture of that size; None for none.

    Args:
        rgb: the picture, where it is at hand; "auto" needs it.
        device: where "auto" runs its network.
        limits: of a mask's pixels.

    Raises:
        RequestError: the groups are for another size, or "auto" without a picture.
        PictureError: a mask or a list of boxes cannot be read.
    """
    size = height, width
    if groups is None:
        return None
    if isinstance(groups, grouping.GroupPlan):
        plan = groups
    elif isinstance(groups, Image.Image):
        plan = grouping.from_image(groups, *size)
    elif isinstance(groups, np.ndarray):
        plan = grouping.from_mask(groups, *size)
    elif isinstance(groups, str) and groups == AUTO:
        from vcmcodec.vision.auto_groups import find_groups

        if rgb is None:
            raise RequestError("groups auto needs the picture, and features are at hand alone")
        plan = grouping.from_boxes(find_groups(rgb, device=device), *size)
    elif isinstance(groups, str | bytes | os.PathLike):
        plan = grouping.read(groups, *size, limits=limits)
    elif isinstance(groups, Sequence):
        plan = grouping.from_boxes(cast("Sequence[Mapping[str, Any]]", groups), *size)
    else:
        raise RequestError(f"no groups can be made of a {type(groups).__name__}")
    grid = -(-height // CELL), -(-width // CELL)
    if plan.labels.shape != grid:
        raise RequestError(f"the groups are for {plan.labels.shape} cells, the picture has {grid}")
    return plan


def cell_labels(plan: grouping.GroupPlan | None, height: int, width: int) -> np.ndarray:
    """Group position of each cell, (rows, columns) int64."""
    if plan is None:
        return np.zeros((-(-height // CELL), -(-width // CELL)), np.int64)
    return plan.labels.astype(np.int64)


def group_table(plan: grouping.GroupPlan | None) -> tuple[Group, ...]:
    """The header's table; empty where there is no plan."""
    return plan.groups if plan else ()


def named(runs: Iterable[Substream], plan: grouping.GroupPlan | None) -> Iterable[Substream]:
    """Give runs the ids of their groups instead of positions."""
    ids = [group.id for group in group_table(plan)] or [0]
    return (dataclasses.replace(run, group=ids[run.group]) for run in runs)


def group_map(plan: grouping.GroupPlan | None) -> list[Substream]:
    """The substream of the group map; none where there is no plan."""
    if plan is None:
        return []
    flat = plan.labels.reshape(-1).tolist()
    data = encode_group_map(flat, plan.labels.shape[1], len(plan.groups))
    return [Substream(Kind.GROUP_MAP, LayerId.BASE, 0, data)]


# ---- tasks, levels, sizes


def choose_tasks(
    spec: catalogue.ProfileSpec,
    asked: catalogue.Tasks | None,
    layer_of: Callable[[str], LayerId] | None = None,
) -> tuple[TaskInfo, ...]:
    """The tasks that a file is written for.

    Args:
        spec: the profile.
        asked: names or ids, or one name; None for all of the profile's.
        layer_of: the highest layer that a task reads, where that is the profile's to say.

    Raises:
        RequestError: an unknown task, none at all, or one that the profile does not serve.
    """
    if asked is None:
        chosen = set(spec.tasks)
    else:
        chosen = {catalogue.task(name).id for name in catalogue.task_names(asked)}
        foreign = chosen - set(spec.tasks)
        if foreign:
            those = ", ".join(sorted(catalogue.task(task).name for task in foreign))
            raise RequestError(f"profile {spec.name} does not serve {those}")
    found = [catalogue.task(task) for task in sorted(chosen)]
    return tuple(TaskInfo(t.id, layer_of(t.name) if layer_of else t.layer) for t in found)


def rate_level(name: str, quality: float) -> int:
    """A quality 0..100 as it stands in a file.

    Raises:
        RequestError: it lies outside.
    """
    if not 0 <= quality <= 100:  # also refuses NaN
        raise RequestError(f"{name} {quality} is outside 0 to 100")
    return round(quality * 100)


def target_bytes(options: EncodeOptions, height: int, width: int) -> int | None:
    """Bytes that the file may have; None where no target is given.

    Raises:
        RequestError: two targets, a quality beside one, or one below a byte.
    """
    if options.target_size is not None and options.target_bpp is not None:
        raise RequestError("give a target size or a target bpp, not both")
    target: float | None = options.target_size
    if options.target_bpp is not None:
        target = options.target_bpp * height * width / 8
    if target is None:
        return None
    if options.quality is not None:
        raise RequestError("give a quality or a target, not both")
    try:
        finite = math.isfinite(target)
    except OverflowError:  # a whole number beyond any float
        finite = False
    if not finite:
        raise RequestError(f"a target of {str(target)[:20]} is no size")
    if target < 1:
        raise RequestError("a target must be at least one byte")
    return int(target)


def search(at: Callable[[int], Encoded], target: int, low: int = 0) -> Encoded:
    """The file of the highest rate level that is no larger than the target.

    Args:
        at: encodes at a rate level.
        target: bytes.
        low: the lowest level that is tried.

    Raises:
        RequestError: even the lowest is larger.
    """
    high = MAX_RATE_LEVEL
    best = at(low)
    if len(best.data) > target:
        raise RequestError(
            f"the picture cannot be coded in {target:,} bytes; the least is {len(best.data):,}"
        )
    for _ in range(SEARCH_STEPS):
        if high - low <= SEARCH_WIDTH:
            break
        middle = (low + high + 1) // 2
        one = at(middle)
        if len(one.data) <= target:
            low, best = middle, one
        else:
            high = middle
    if high == MAX_RATE_LEVEL:  # all that was tried fits: so may the best there is
        one = at(high)
        best = one if len(one.data) <= target else best
    return best


def fit(adapted: Callable[[int], Encoded], plain: Encoded, target: int) -> Encoded:
    """An adapted file that is no larger than the target, or else the plain one.

    Adapting hardly changes the size, so it begins at the plain file's level.

    Args:
        adapted: encodes at a rate level.
        plain: what `search` found without adapting.
        target: bytes.
    """
    level = plain.header.layers[0].rate_level
    for _ in range(FITTING_TRIES):
        one = adapted(level)
        if len(one.data) <= target:
            return one
        if level == 0:
            break
        level = max(0, level - FITTING_STEP)
    note = f"not adapted to the network: what is adapted did not fit into {target:,} bytes"
    return dataclasses.replace(plain, warnings=(*plain.warnings, note))
