"""Whole operations: pictures to files and back, where bytes, profiles and weights meet.

This module knows every room below it but no layer of a network and no byte order.
"""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, cast

import numpy as np
from PIL import Image

from vcmcodec import catalogue, grouping, pixels
from vcmcodec.bitstream import container as files
from vcmcodec.bitstream import icc
from vcmcodec.bitstream.constants import CELL, MAX_RATE_LEVEL, CoderId, Kind, LayerId, TaskId
from vcmcodec.bitstream.container import Substream
from vcmcodec.bitstream.header import Group, Header, LayerInfo, TaskInfo
from vcmcodec.bitstream.limits import Limits
from vcmcodec.entropy.group_map import encode_group_map
from vcmcodec.errors import RequestError
from vcmcodec.models import default_base_quality, load_model
from vcmcodec.reader import Reader
from vcmcodec.sources import Openable

if TYPE_CHECKING:
    from vcmcodec.nn.model_tensors import Model
    from vcmcodec.profiles.scene import Levels

Groups = (
    grouping.GroupPlan | str | os.PathLike[str] | bytes | np.ndarray | Image.Image | Sequence[Any]
)
MACHINE_TASKS = (TaskId.DETECTION, TaskId.CLASSIFICATION, TaskId.SEGMENTATION)
AUTO = "auto"  # groups by the vision network; a file of that name is ./auto
SEARCH_STEPS = 12  # bisections of the rate level in a search for a size


@dataclass(frozen=True)
class EncodeOptions:
    """How a picture is to be coded.

    Attributes:
        tasks: names or ids; None for all of the profile's.
        quality: rate level of the picture for people, 0..100.
        base_quality: rate level of the base layer, 0..100; None for the lowest that serves the
            tasks.
        target_size: bytes that the whole file may have; overrides the quality.
        target_bpp: the same in bits a pixel.
        profile: name of a profile.
        model: name of a model; None for the profile's default.
        digest: store hashes of all symbols, which every decoder then checks.
        text: key and value pairs for people.
    """

    tasks: Sequence[str | TaskId] | None = None
    quality: float | None = None
    base_quality: float | None = None
    target_size: int | None = None
    target_bpp: float | None = None
    profile: str = "scene"
    model: str | None = None
    digest: bool = False
    text: Mapping[str, str] | None = None


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


def encode_picture(
    image: pixels.Source,
    options: EncodeOptions | None = None,
    *,
    groups: Groups | None = None,
    device: str = "cpu",
    limits: Limits | None = None,
) -> Encoded:
    """Encode a picture.

    Args:
        image: whatever `pixels.read` takes.
        options: see there.
        groups: a `GroupPlan`, a mask (path, array or picture), boxes (path or list), or "auto":
            the objects that the vision network detects.
        device: where the transforms run.

    Raises:
        PictureError: the picture or mask cannot be read.
        RequestError: options that do not go together.
        LimitError: too many pixels.
        WeightsError: the model is not there.
    """
    from vcmcodec.profiles import scene

    options = options or EncodeOptions()
    picture = pixels.read(image, limits)
    spec = catalogue.profile(options.profile)
    plan = _plan_groups(groups, picture, device)
    tasks = _tasks(spec, options.tasks)
    model = load_model(spec.name, options.model, device=device)
    rows, columns = -(-picture.height // CELL), -(-picture.width // CELL)
    labels = plan.labels.astype(np.int64) if plan else np.zeros((rows, columns), np.int64)
    tiled = picture.height * picture.width > scene.TILED_FROM_PIXELS
    source = scene.Source(
        picture.rgb, labels, len(plan.groups) if plan else 1, scene.TILE_CELLS if tiled else 0
    )
    usual = _default_base_quality(model, tasks)
    levels = _levels(tasks, options, usual)
    target = _target_bytes(options, picture)
    widths = len(LayerId) if levels.people is not None else 1
    pieces: Iterable[scene.Piece] = scene.analyse(model, source, widths)

    def finish(at: scene.Levels, parts: Iterable[scene.Piece]) -> Encoded:
        header = _header(picture, model, plan, tasks, at, source.tile)
        runs = scene.encode(model, source, parts, at, digest=options.digest)
        data = files.write(header, [*_named(runs, plan), *_extras(picture, plan, options, header)])
        notes = picture.warnings + (plan.warnings if plan else ())
        return Encoded(data, header, notes)

    if target is None:
        return finish(levels, pieces)
    return _search(finish, list(pieces), (levels, usual), tasks, options, target)


def _plan_groups(
    groups: Groups | None, picture: pixels.Picture, device: str
) -> grouping.GroupPlan | None:
    """Groups in whatever form; one group is the same as none."""
    size = picture.height, picture.width
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

        plan = grouping.from_boxes(find_groups(picture.rgb, device=device), *size)
    elif isinstance(groups, str | bytes | os.PathLike):
        plan = grouping.read(groups, *size)
    else:
        plan = grouping.from_boxes(cast("Sequence[Mapping[str, Any]]", groups), *size)
    grid = -(-picture.height // CELL), -(-picture.width // CELL)
    if plan.labels.shape != grid:
        raise RequestError(f"the groups are for {plan.labels.shape} cells, the picture has {grid}")
    return plan


def _tasks(
    spec: catalogue.ProfileSpec, asked: Sequence[str | TaskId] | None
) -> tuple[TaskInfo, ...]:
    if asked is None:
        chosen = set(spec.tasks)
    else:
        chosen = {catalogue.task(name).id for name in asked}
        if not chosen:
            raise RequestError("no task is given")
        foreign = chosen - set(spec.tasks)
        if foreign:
            names = ", ".join(sorted(catalogue.task(task).name for task in foreign))
            raise RequestError(f"profile {spec.name} does not serve {names}")
    return tuple(TaskInfo(task, catalogue.task(task).layer) for task in sorted(chosen))


def _rate_level(name: str, quality: float) -> int:
    if not 0 <= quality <= 100:  # also refuses NaN
        raise RequestError(f"{name} {quality} is outside 0 to 100")
    return round(quality * 100)


def _default_base_quality(model: Model, tasks: Sequence[TaskInfo]) -> float:
    """The cheapest base that serves every machine task that is asked for."""
    from vcmcodec.profiles.scene import DEFAULT_BASE_QUALITY

    asked = {info.task for info in tasks}
    machines = tuple(catalogue.task(task).name for task in MACHINE_TASKS if task in asked)
    measured = default_base_quality(model.fingerprint, machines)
    return DEFAULT_BASE_QUALITY if measured is None else measured


def _levels(tasks: Sequence[TaskInfo], options: EncodeOptions, usual_base: float) -> Levels:
    """Rate levels of base and people (see docs/architecture.md, "Quality, tasks and layers")."""
    from vcmcodec.profiles.scene import DEFAULT_QUALITY, Levels

    asked = {info.task for info in tasks}
    quality = DEFAULT_QUALITY if options.quality is None else options.quality
    people = _rate_level("quality", quality)
    if options.base_quality is not None:
        base = _rate_level("base quality", options.base_quality)
    elif asked == {TaskId.HUMAN}:
        base = people
    else:
        base = min(_rate_level("base quality", usual_base), people)
    if TaskId.HUMAN not in asked:
        return Levels(base, None)
    if base > people:
        raise RequestError(
            f"base quality {base / 100:g} is above the picture's quality {people / 100:g}"
        )
    return Levels(base, people)


def _target_bytes(options: EncodeOptions, picture: pixels.Picture) -> int | None:
    if options.target_size is not None and options.target_bpp is not None:
        raise RequestError("give a target size or a target bpp, not both")
    target: float | None = options.target_size
    if options.target_bpp is not None:
        target = options.target_bpp * picture.height * picture.width / 8
    if target is None:
        return None
    if options.quality is not None:
        raise RequestError("give a quality or a target, not both")
    if not target >= 1:
        raise RequestError("a target must be at least one byte")
    return int(target)


def _search(
    finish: Any, pieces: list[Any], start: tuple[Levels, float], tasks: Sequence[TaskInfo],
    options: EncodeOptions, target: int,
) -> Encoded:  # fmt: skip
    """The highest quality whose file is no larger than the target."""
    levels, usual_base = start

    def at(rate_level: int) -> Encoded:
        changed = dataclasses.replace(options, quality=rate_level / 100)
        found = _levels(tasks, changed, usual_base)
        if found.people is None and options.base_quality is None:
            found = dataclasses.replace(found, base=rate_level)
        result: Encoded = finish(found, pieces)
        return result

    low, high = 0, MAX_RATE_LEVEL
    if options.base_quality is not None:
        low = levels.base
        if levels.people is None:
            raise RequestError("a base quality and a target cannot both hold for a base-only file")
    best = at(low)
    if len(best.data) > target:
        raise RequestError(
            f"the picture cannot be coded in {target:,} bytes; the least is {len(best.data):,}"
        )
    for _ in range(SEARCH_STEPS):
        if high - low <= 5:
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


def _header(
    picture: pixels.Picture, model: Model, plan: grouping.GroupPlan | None,
    tasks: tuple[TaskInfo, ...], levels: Levels, tile: int,
) -> Header:  # fmt: skip
    layers = [LayerInfo(LayerId.BASE, levels.base)]
    if levels.people is not None:
        layers += [LayerInfo(layer, levels.people) for layer in (LayerId.MID, LayerId.FULL)]
    return Header(
        profile=catalogue.profile("scene").id,
        fingerprint=model.fingerprint,
        width=picture.width,
        height=picture.height,
        grey=picture.grey,
        tile=tile,
        coder=CoderId.RANS_16,
        tasks=tasks,
        layers=tuple(layers),
        groups=_groups(plan),
        parameters=b"",
    )


def _groups(plan: grouping.GroupPlan | None) -> tuple[Group, ...]:
    return plan.groups if plan else ()


def _named(runs: Iterable[Substream], plan: grouping.GroupPlan | None) -> Iterable[Substream]:
    """Give runs the ids of their groups instead of positions."""
    ids = [group.id for group in _groups(plan)] or [0]
    return (dataclasses.replace(run, group=ids[run.group]) for run in runs)


def _extras(
    picture: pixels.Picture, plan: grouping.GroupPlan | None, options: EncodeOptions, header: Header
) -> list[Substream]:
    """Group map, ICC profile and texts."""
    out = []
    if plan:
        flat = plan.labels.reshape(-1).tolist()
        data = encode_group_map(flat, plan.labels.shape[1], len(plan.groups))
        out.append(Substream(Kind.GROUP_MAP, LayerId.BASE, 0, data))
    for_people = any(info.layer == LayerId.MID for info in header.layers)
    if picture.icc and for_people:
        out.append(Substream(Kind.ICC, LayerId.MID, 0, icc.compress(picture.icc)))
    if options.text:
        if not for_people:
            raise RequestError("texts are kept with the layers for people; this file has none")
        lines = "".join(f"{key}={value}\n" for key, value in options.text.items())
        out.append(Substream(Kind.TEXT, LayerId.MID, 0, lines.encode()))
    return out


# ---- the public functions (vcmcodec.encode, vcmcodec.decode, vcmcodec.open)


def encode(
    image: pixels.Source,
    *,
    groups: Groups | None = None,
    device: str = "cpu",
    limits: Limits | None = None,
    **options: Any,
) -> bytes:
    """Encode a picture to the bytes of a `.vcm` file.

    Args:
        image: path, bytes, file object, `PIL.Image` or uint8 array.
        groups: mask or boxes (path, array, picture, list), or a `grouping.GroupPlan`.
        device: where the transforms run.
        limits: what to accept.
        **options: fields of `EncodeOptions`: tasks, quality, base_quality, target_size, ...

    Raises:
        VcmError: see `encode_picture`.
    """
    chosen = EncodeOptions(**options)
    return encode_picture(image, chosen, groups=groups, device=device, limits=limits).data


def decode(
    source: Openable,
    *,
    groups: Sequence[str | int] | str | int | None = None,
    width: float | None = None,
    background: str | tuple[int, int, int] | None = None,
    device: str = "cpu",
    limits: Limits | None = None,
) -> Image.Image:
    """Decode a file, or the groups and width of it that are asked for.

    Raises:
        VcmError: see `Reader.decode`.
    """
    with Reader(source, limits) as reader:
        return reader.decode(groups=groups, width=width, background=background, device=device)


def open(source: Openable, *, limits: Limits | None = None) -> Reader:
    """Open a file to look at it or to decode parts of it; reads only what is asked for.

    Raises:
        VcmError: see `Reader`.
    """
    return Reader(source, limits)
