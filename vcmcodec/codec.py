"""Whole operations: pictures to files and back, where bytes, profiles and weights meet.

This module knows every room below it but no layer of a network and no byte order.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterable, Sequence
from typing import TYPE_CHECKING, Any, cast

from PIL import Image

from vcmcodec import catalogue, feature_codec, grouping, pixels
from vcmcodec.bitstream import container as files
from vcmcodec.bitstream import icc
from vcmcodec.bitstream.constants import MAX_RATE_LEVEL, CoderId, Kind, LayerId, TaskId
from vcmcodec.bitstream.container import Substream
from vcmcodec.bitstream.header import Header, LayerInfo, TaskInfo
from vcmcodec.bitstream.limits import Limits
from vcmcodec.bitstream.parameters import CodedSize
from vcmcodec.encoding import AUTO as AUTO
from vcmcodec.encoding import Encoded as Encoded
from vcmcodec.encoding import EncodeOptions as EncodeOptions
from vcmcodec.encoding import (
    Groups,
    cell_labels,
    choose_tasks,
    group_map,
    group_table,
    named,
    plan_groups,
    rate_level,
    search,
    target_bytes,
)
from vcmcodec.errors import RequestError
from vcmcodec.models import default_base_quality, default_longer_side, load_model
from vcmcodec.reader import Reader
from vcmcodec.sources import Openable

if TYPE_CHECKING:
    from vcmcodec.nn.model_tensors import Model
    from vcmcodec.profiles.scene import Levels, Piece, Source, Tally
    from vcmcodec.vision.backend import Features

OPENING_STEP = 500  # hundredths of quality between two tries for a picture unlike photographs
MACHINE_TASKS = (TaskId.DETECTION, TaskId.CLASSIFICATION, TaskId.SEGMENTATION)


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
    options = options or EncodeOptions()
    spec = catalogue.profile(options.profile)
    if spec.source == "features":
        return feature_codec.encode_picture(
            image, options, groups=groups, device=device, limits=limits
        )
    return _encode_scene(spec, image, options, groups, device, limits)


def _encode_scene(
    spec: catalogue.ProfileSpec, image: pixels.Source, options: EncodeOptions,
    groups: Groups | None, device: str, limits: Limits | None,
) -> Encoded:  # fmt: skip
    """Encode a picture as a picture."""
    from vcmcodec.profiles import scene

    if options.split is not None:
        raise RequestError(f"profile {spec.name} codes pictures: it has no split point")
    if options.vision is not None:
        raise RequestError(f"profile {spec.name} codes pictures: it needs no vision network")
    picture = pixels.read(image, limits)
    plan = plan_groups(groups, picture.height, picture.width, picture.rgb, device)
    tasks = choose_tasks(spec, options.tasks)
    model = load_model(spec.name, options.model, device=device)
    size = _coded_size(picture, model, tasks, options)
    rgb, reduced = picture.rgb, size != (picture.height, picture.width)
    if reduced:
        rgb = pixels.reduce(rgb, size)
        plan = plan and grouping.reduced(plan, (picture.height, picture.width), size)
    labels = cell_labels(plan, *size)
    tiled = size[0] * size[1] > scene.TILED_FROM_PIXELS
    source = scene.Source(
        rgb, labels, len(plan.groups) if plan else 1, scene.TILE_CELLS if tiled else 0
    )
    usual = _default_base_quality(model, tasks, reduced)
    levels = _levels(tasks, options, usual)
    target = target_bytes(options, picture.height, picture.width)
    widths = len(LayerId) if levels.people is not None else 1

    def finish(
        at: scene.Levels, parts: Iterable[scene.Piece], tally: scene.Tally | None = None
    ) -> Encoded:
        header = _header(picture, model, plan, tasks, at, source)
        runs = scene.encode(model, source, parts, at, digest=options.digest, tally=tally)
        data = files.write(header, [*named(runs, plan), *_extras(picture, plan, options, header)])
        notes = picture.warnings + (plan.warnings if plan else ())
        return Encoded(data, header, notes)

    def pieces() -> Iterable[scene.Piece]:
        return scene.analyse(model, source, widths)

    if target is None:
        both = options.base_quality is None and {info.task for info in tasks} == {TaskId.HUMAN}
        return _encode_open(finish, pieces, levels, both)
    return _search(finish, list(pieces()), (levels, usual), tasks, options, target)


def _encode_open(
    finish: Callable[[Levels, Iterable[Piece], Tally], Encoded],
    pieces: Callable[[], Iterable[Piece]], levels: Levels, both: bool,
) -> Encoded:  # fmt: skip
    """Encode, at finer levels where the picture is nothing that the model knows.

    Its tables are closed where it is sure of a zero.  In a picture unlike all that it learned this
    can lose more than the whole file is worth; finer levels close fewer tables (decisions/0006).

    Args:
        finish: encodes.
        pieces: analyses the picture, again for every level, so that no large one is held.
        levels: what was asked for.
        both: whether base and people have one level.
    """
    from vcmcodec.profiles.scene import Levels, Tally

    asked = levels
    while True:
        tally = Tally()
        encoded = finish(levels, pieces(), tally)
        people = levels.people
        if people is None or tally.closed <= tally.bits or people == MAX_RATE_LEVEL:
            break
        finer = min(people + OPENING_STEP, MAX_RATE_LEVEL)
        levels = Levels(finer if both else levels.base, finer)
    if people is None or asked.people is None or people == asked.people:
        return encoded
    note = (
        f"unlike all that the model knows: coded at quality {people / 100:g} instead of"
        f" {asked.people / 100:g}"
    )
    return dataclasses.replace(encoded, warnings=(*encoded.warnings, note))


def _machine_names(tasks: Sequence[TaskInfo]) -> tuple[str, ...]:
    asked = {info.task for info in tasks}
    return tuple(catalogue.task(task).name for task in MACHINE_TASKS if task in asked)


def _coded_size(
    picture: pixels.Picture, model: Model, tasks: Sequence[TaskInfo], options: EncodeOptions
) -> tuple[int, int]:
    """Height and width at which a picture is coded.

    Raises:
        RequestError: a longer side below 0.
    """
    true = picture.height, picture.width
    longer = options.longer_side
    if longer is None:
        if any(info.task == TaskId.HUMAN for info in tasks):
            return true
        longer = default_longer_side(model.fingerprint) or 0
    if longer < 0:
        raise RequestError(f"a picture cannot be reduced to {longer} pixels")
    if longer == 0 or longer >= max(true):
        return true
    return max(1, round(true[0] * longer / max(true))), max(1, round(true[1] * longer / max(true)))


def _default_base_quality(model: Model, tasks: Sequence[TaskInfo], reduced: bool) -> float:
    """The cheapest base that serves every machine task that is asked for."""
    from vcmcodec.profiles.scene import DEFAULT_BASE_QUALITY

    measured = default_base_quality(model.fingerprint, _machine_names(tasks), reduced=reduced)
    return DEFAULT_BASE_QUALITY if measured is None else measured


def _levels(tasks: Sequence[TaskInfo], options: EncodeOptions, usual_base: float) -> Levels:
    """Rate levels of base and people (see docs/architecture.md, "Quality, tasks and layers")."""
    from vcmcodec.profiles.scene import DEFAULT_QUALITY, Levels

    asked = {info.task for info in tasks}
    quality = DEFAULT_QUALITY if options.quality is None else options.quality
    people = rate_level("quality", quality)
    if options.base_quality is not None:
        base = rate_level("base quality", options.base_quality)
    elif asked == {TaskId.HUMAN}:
        base = people
    else:
        base = min(rate_level("base quality", usual_base), people)
    if TaskId.HUMAN not in asked:
        return Levels(base, None)
    if base > people:
        raise RequestError(
            f"base quality {base / 100:g} is above the picture's quality {people / 100:g}"
        )
    return Levels(base, people)


def _search(
    finish: Any, pieces: list[Any], start: tuple[Levels, float], tasks: Sequence[TaskInfo],
    options: EncodeOptions, target: int,
) -> Encoded:  # fmt: skip
    """The highest quality whose file is no larger than the target."""
    levels, usual_base = start

    def at(level: int) -> Encoded:
        changed = dataclasses.replace(options, quality=level / 100)
        found = _levels(tasks, changed, usual_base)
        if found.people is None and options.base_quality is None:
            found = dataclasses.replace(found, base=level)
        result: Encoded = finish(found, pieces)
        return result

    low = 0
    if options.base_quality is not None:
        low = levels.base
        if levels.people is None:
            raise RequestError("a base quality and a target cannot both hold for a base-only file")
    return search(at, target, low)


def _header(
    picture: pixels.Picture, model: Model, plan: grouping.GroupPlan | None,
    tasks: tuple[TaskInfo, ...], levels: Levels, source: Source,
) -> Header:  # fmt: skip
    layers = [LayerInfo(LayerId.BASE, levels.base)]
    if levels.people is not None:
        layers += [LayerInfo(layer, levels.people) for layer in (LayerId.MID, LayerId.FULL)]
    coded = CodedSize(*source.rgb.shape[:2])
    reduced = coded.is_reduced(picture.height, picture.width)
    return Header(
        profile=catalogue.profile("scene").id,
        fingerprint=model.fingerprint,
        width=picture.width,
        height=picture.height,
        grey=picture.grey,
        tile=source.tile,
        coder=CoderId.RANS_16,
        tasks=tasks,
        layers=tuple(layers),
        groups=group_table(plan),
        parameters=coded.pack() if reduced else b"",
    )


def _extras(
    picture: pixels.Picture, plan: grouping.GroupPlan | None, options: EncodeOptions, header: Header
) -> list[Substream]:
    """Group map, ICC profile and texts."""
    out = group_map(plan)
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


def encode_any(
    source: pixels.Source | Features,
    options: EncodeOptions | None = None,
    *,
    groups: Groups | None = None,
    device: str = "cpu",
    limits: Limits | None = None,
) -> Encoded:
    """Encode a picture, or features (`vision.backend.Features`, or a file of them).

    Raises:
        VcmError: see `encode_picture` and `feature_codec.encode_features`.
    """
    options = options or EncodeOptions()
    found = feature_codec.as_features(source)
    if found is not None:
        return feature_codec.encode_features(found, options, groups=groups, device=device)
    picture = cast("pixels.Source", source)
    return encode_picture(picture, options, groups=groups, device=device, limits=limits)


def encode(
    image: pixels.Source | Features,
    *,
    groups: Groups | None = None,
    device: str = "cpu",
    limits: Limits | None = None,
    **options: Any,
) -> bytes:
    """Encode a picture, or features of one, to the bytes of a `.vcm` file.

    Args:
        image: path, bytes, file object, `PIL.Image` or uint8 array; or features, or the path or
            bytes of a file of them.
        groups: mask or boxes (path, array, picture, list), or a `grouping.GroupPlan`.
        device: where the transforms run.
        limits: what to accept.
        **options: fields of `EncodeOptions`: tasks, quality, base_quality, target_size, ...

    Raises:
        VcmError: see `encode_any`.
    """
    chosen = EncodeOptions(**options)
    return encode_any(image, chosen, groups=groups, device=device, limits=limits).data


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
