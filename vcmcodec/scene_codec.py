"""Pictures to files, for the profile that codes pictures: size, levels, groups, the header."""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Callable, Iterable, Sequence
from typing import TYPE_CHECKING

from vcmcodec import catalogue, grouping, pixels, reduction, scene_levels
from vcmcodec.bitstream import container as files
from vcmcodec.bitstream import icc, texts
from vcmcodec.bitstream.constants import MAX_RATE_LEVEL, Kind, LayerId, ProfileId, TaskId
from vcmcodec.bitstream.container import Substream
from vcmcodec.bitstream.header import Header, LayerInfo, TaskInfo
from vcmcodec.bitstream.limits import Limits
from vcmcodec.bitstream.parameters import CodedSize
from vcmcodec.bitstream.profile_rules import CODERS
from vcmcodec.encoding import (
    SEARCH_WIDTH,
    Encoded,
    EncodeOptions,
    Groups,
    cell_labels,
    choose_tasks,
    fit,
    group_map,
    group_table,
    named,
    plan_groups,
    rate_level,
    search,
    target_bytes,
)
from vcmcodec.errors import RequestError
from vcmcodec.models import (
    TasksModel,
    default_effort,
    default_longer_side,
    load_model,
    load_tasks,
)
from vcmcodec.torch_state import plain_torch

if TYPE_CHECKING:
    import numpy as np

    from vcmcodec.nn.model_tensors import Model
    from vcmcodec.profiles.scene import Levels, Piece, Source, Tally

WELL_FILLED = 0.97  # of a wanted size
OPENING_STEP = 500  # hundredths of quality between two tries for a picture unlike photographs
ADAPTED_TOGETHER = (
    "groups are adapted together: what is coded of one was chosen with the others in view"
)


@plain_torch()
def encode(
    spec: catalogue.ProfileSpec, image: pixels.Source, options: EncodeOptions,
    groups: Groups | None, device: str, limits: Limits | None,
) -> Encoded:  # fmt: skip
    """Encode a picture as a picture; see `codec.encode_picture`.

    Raises:
        VcmError: as there.
    """
    from vcmcodec.profiles.scene import Levels

    _refuse_what_features_need(spec, options)
    picture = pixels.read(image, limits)
    plan = plan_groups(groups, picture.height, picture.width, picture.rgb, device, limits)
    tasks = choose_tasks(spec, options.tasks)
    job = _prepare(spec, picture, plan, tasks, options, device)
    usual = scene_levels.usual_base_quality(job.model, tasks, job.reduced, job.looking is not None)
    target = target_bytes(options, picture.height, picture.width)
    if target is None:
        levels = scene_levels.choose(tasks, options, usual)
        both = options.base_quality is None and {info.task for info in tasks} == {TaskId.HUMAN}
        return job.noted(_encode_open(job.finish, job.pieces, levels, both))
    plain = _search(dataclasses.replace(job, looking=None), usual, target)
    if job.looking is None:
        return plain

    def adapted(level: int) -> Encoded:
        at = Levels(level, None)
        return job.finish(at, job.pieces(at))

    found = fit(adapted, plain, target)
    return plain if found is plain else job.noted(found)


@dataclasses.dataclass(frozen=True)
class _Looking:
    """Who looks while a base layer is adapted, and how often."""

    model: TasksModel
    effort: int


@dataclasses.dataclass(frozen=True, eq=False)
class _Job:
    """A picture that is ready to be coded, at whatever levels.

    Attributes:
        several: whether it has more than one group, counted before one of them may vanish.
        reduced: whether it was reduced.
        looking: who looks while its base is adapted; None where it is not.
    """

    picture: pixels.Picture
    model: Model
    plan: grouping.GroupPlan | None
    tasks: tuple[TaskInfo, ...]
    options: EncodeOptions
    source: Source
    several: bool
    reduced: bool
    looking: _Looking | None

    def pieces(self, at: Levels | None = None) -> Iterable[Piece]:
        """Analyse the picture, and adapt it to some levels where anybody looks."""
        from vcmcodec import adaptation
        from vcmcodec.profiles import scene

        for_people = any(info.task == TaskId.HUMAN for info in self.tasks)
        found = scene.analyse(self.model, self.source, len(LayerId) if for_people else 1)
        if at is None or self.looking is None:
            return found
        adapt = functools.partial(
            adaptation.adapted, self.model, self.looking.model, self.source, rgb=self.picture.rgb,
            rate_level=at.base, effort=self.looking.effort,
        )  # fmt: skip
        return map(adapt, found)

    def finish(self, at: Levels, parts: Iterable[Piece], tally: Tally | None = None) -> Encoded:
        """Code what `pieces` gave, and put the file together."""
        from vcmcodec.profiles import scene

        picture, plan, options = self.picture, self.plan, self.options
        apart = self.reduced or self.looking is not None
        header = _header(picture, self.model, plan, self.tasks, at, self.source, apart)
        runs = scene.encode(self.model, self.source, parts, at, digest=options.digest, tally=tally)
        data = files.write(header, [*named(runs, plan), *_extras(picture, plan, options, header)])
        return Encoded(data, header, picture.warnings + (plan.warnings if plan else ()))

    def noted(self, encoded: Encoded) -> Encoded:
        """Say it where groups were adapted, which ties them together."""
        if self.looking is None or not self.several:
            return encoded
        return dataclasses.replace(encoded, warnings=(*encoded.warnings, ADAPTED_TOGETHER))


def _prepare(
    spec: catalogue.ProfileSpec, picture: pixels.Picture, plan: grouping.GroupPlan | None,
    tasks: tuple[TaskInfo, ...], options: EncodeOptions, device: str,
) -> _Job:  # fmt: skip
    """Load the model, reduce picture and groups, and find out who looks."""
    from vcmcodec.profiles import scene

    model = load_model(spec.name, options.model, device=device)
    size = _coded_size(picture, model, tasks, options)
    several = plan is not None and len(plan.groups) > 1
    rgb, reduced = picture.rgb, size != (picture.height, picture.width)
    if reduced:
        rgb, plan = _reduced(rgb, plan, size)
    labels = cell_labels(plan, *size)
    tile = scene.tile_side((labels.shape[0], labels.shape[1]))
    source = scene.Source(rgb, labels, len(plan.groups) if plan else 1, tile)
    looking = _looking(model, source, tasks, options, device, several)
    return _Job(picture, model, plan, tasks, options, source, several, reduced, looking)


def _refuse_what_features_need(spec: catalogue.ProfileSpec, options: EncodeOptions) -> None:
    if options.split is not None:
        raise RequestError(f"profile {spec.name} codes pictures: it has no split point")
    if options.vision is not None:
        raise RequestError(f"profile {spec.name} codes pictures: it needs no vision network")


def _encode_open(
    finish: Callable[[Levels, Iterable[Piece], Tally], Encoded],
    pieces: Callable[[Levels], Iterable[Piece]], levels: Levels, both: bool,
) -> Encoded:  # fmt: skip
    """Encode, at finer levels where the picture is nothing that the model knows.

    Its tables are closed where it is sure of a zero.  In a picture unlike all that it learned this
    can lose more than the whole file is worth; finer levels close fewer tables (decisions/0006).

    Args:
        finish: encodes.
        pieces: analyses the picture for some levels, anew each time, so that no large one is held.
        levels: what was asked for.
        both: whether base and people have one level.
    """
    from vcmcodec.profiles.scene import Levels, Tally

    asked = levels
    while True:
        tally = Tally()
        encoded = finish(levels, pieces(levels), tally)
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


def _looking(
    model: Model, source: Source, tasks: Sequence[TaskInfo], options: EncodeOptions, device: str,
    several: bool,
) -> _Looking | None:  # fmt: skip
    """Whether, and by whom, the base layer is adapted; None: it is coded as it is.

    Of several groups it is not unless that is asked for: the network sees the whole picture, so
    what is coded of one group would depend on the others, and tell of those that are redacted.

    Raises:
        RequestError: it cannot be, and is asked for.
    """
    asked = options.effort
    for_people = any(info.task == TaskId.HUMAN for info in tasks)
    if asked and for_people:
        raise RequestError("effort adapts files for machines alone; this one is for people, too")
    if asked == 0 or for_people:
        return None
    if asked is None and (several or options.longer_side == 0):
        return None
    if asked and source.tile:
        raise RequestError("the picture is too large to be adapted; --longer-side reduces it")
    effort = default_effort(model.fingerprint) if asked is None else asked
    if not effort or source.tile:
        return None
    found = load_tasks(model.fingerprint, device=device)
    if found.sight is None:
        raise RequestError(f"tasks model {found.id} cannot adapt base layers")
    return _Looking(found, effort)


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
    return pixels.size_within(true, longer) if longer else true


def _reduced(
    rgb: np.ndarray, plan: grouping.GroupPlan | None, size: tuple[int, int]
) -> tuple[np.ndarray, grouping.GroupPlan | None]:
    """A picture and its groups at the size at which they are coded."""
    if plan is None:
        return pixels.reduce(rgb, size), None
    coded = reduction.reduce_groups(plan, (rgb.shape[0], rgb.shape[1]), size)
    if len(plan.groups) == 1:
        return pixels.reduce(rgb, size), coded
    return reduction.reduce(rgb, size, plan.ids, coded.ids), coded


def _search(job: _Job, usual_base: float, target: int) -> Encoded:
    """The highest quality whose file is no larger than the target.

    Where a base fit for machines would leave much of it empty, the base is finer.

    Raises:
        RequestError: even the lowest is larger; or a base quality, for a file of a base alone.
    """
    from vcmcodec.profiles.scene import REFINED_FROM

    tasks, options, low = job.tasks, job.options, 0
    if options.base_quality is not None:
        if TaskId.HUMAN not in {info.task for info in tasks}:
            raise RequestError("a base quality and a target cannot both hold for a base-only file")
        low = rate_level("base quality", options.base_quality)
    pieces = list(job.pieces())

    def with_base(level: int, base: float) -> Encoded:
        changed = dataclasses.replace(options, quality=level / 100)
        return job.finish(scene_levels.choose(tasks, changed, base), pieces)

    def at(level: int) -> Encoded:
        made = with_base(level, usual_base)
        if 0 < level == low and len(made.data) > target:
            raise RequestError(
                f"with base quality {low / 100:g} the picture cannot be coded in {target:,} bytes;"
                f" the least is {len(made.data):,}"
            )
        return made

    found = search(at, target, low)
    levels = {info.layer: info.rate_level for info in found.header.layers}
    people = levels.get(LayerId.MID)
    nearest = REFINED_FROM - 1
    if people is None or len(found.data) >= WELL_FILLED * target:
        return found
    if not nearest - SEARCH_WIDTH <= people - levels[LayerId.BASE] <= nearest:
        return found
    # One level more, and the base's channels are coded again: a step of half the file.  In between
    # lie files whose base is finer than machines need, and whose channels people then share.
    if options.base_quality is not None:
        note = f"the next finer file refines the base layer, and does not fit into {target:,} bytes"
        return dataclasses.replace(found, warnings=(*found.warnings, note))

    def shared(level: int) -> Encoded:
        return with_base(level, max(usual_base, (level - nearest) / 100))

    return search(shared, target, people)


def _header(
    picture: pixels.Picture, model: Model, plan: grouping.GroupPlan | None,
    tasks: tuple[TaskInfo, ...], levels: Levels, source: Source, apart: bool,
) -> Header:  # fmt: skip
    layers = [LayerInfo(LayerId.BASE, levels.base)]
    if levels.people is not None:
        layers += [LayerInfo(layer, levels.people) for layer in (LayerId.MID, LayerId.FULL)]
    coded = CodedSize(*source.rgb.shape[:2])
    return Header(
        profile=ProfileId.SCENE,
        fingerprint=model.fingerprint,
        width=picture.width,
        height=picture.height,
        grey=picture.grey,
        tile=source.tile,
        coder=CODERS[ProfileId.SCENE],
        tasks=tasks,
        layers=tuple(layers),
        groups=group_table(plan),
        parameters=coded.pack() if apart else b"",
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
        out.append(Substream(Kind.TEXT, LayerId.MID, 0, texts.pack(options.text)))
    return out
