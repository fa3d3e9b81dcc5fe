"""Whole operations on features: a network's tensors to files and back, and the rest of the network.

As `codec` for pictures.  What differs between profiles of features is in their modules; see
`profiles/features.py` for what these provide.
"""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from types import ModuleType
from typing import TYPE_CHECKING, Any

import numpy as np

from vcmcodec import catalogue, grouping, pixels
from vcmcodec.bitstream import container as files
from vcmcodec.bitstream.constants import LayerId, TaskId
from vcmcodec.bitstream.header import Header, LayerInfo, TaskInfo
from vcmcodec.bitstream.limits import Limits
from vcmcodec.bitstream.parameters import FeatureParameters
from vcmcodec.bitstream.profile_rules import CODERS
from vcmcodec.encoding import (
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
from vcmcodec.feature_parts import check_split, hold, layer_of, narrowed, open_model, served
from vcmcodec.models import load_model
from vcmcodec.reader import Reader
from vcmcodec.sources import Openable
from vcmcodec.torch_state import plain_torch

if TYPE_CHECKING:
    from vcmcodec.profiles.features import FeatureSource
    from vcmcodec.vision.backend import Features
    from vcmcodec.vision.predictions import Predictions

ChosenGroups = Sequence[str | int] | str | int | None


@dataclass(frozen=True, eq=False)
class DecodedFeatures:
    """Features, or what was asked for of them.

    Attributes:
        features: the tensors; zero where nothing was decoded.
        groups: ids of the groups that they show.
        present: (rows, columns) bool, the picture's cells of those groups.
        warnings: one sentence each.
    """

    features: Features
    groups: tuple[int, ...]
    present: np.ndarray
    warnings: tuple[str, ...]

    @property
    def absent(self) -> float:
        """Share of the picture's cells that nothing was decoded for."""
        return 1 - float(self.present.mean())


# ---- encoding


def as_features(source: object) -> Features | None:
    """The features that a caller handed in, read where they are a file; None for anything else.

    Raises:
        RequestError: a file of features cannot be read.
    """
    from vcmcodec.vision import feature_files
    from vcmcodec.vision.backend import Features

    if isinstance(source, Features):
        return source
    if isinstance(source, str | os.PathLike):
        path = os.fspath(source)
        return feature_files.read(path) if path.endswith(feature_files.EXTENSION) else None
    if isinstance(source, bytes) and feature_files.is_features(source):
        return feature_files.read(source)
    return None


@plain_torch()
def features(
    image: pixels.Source,
    *,
    split: str = "fpn",
    model: str | None = None,
    device: str = "cpu",
    limits: Limits | None = None,
) -> Features:
    """Features of a picture at a split point of a vision network.

    Args:
        image: whatever `pixels.read` takes.
        split: name of the split point.
        model: as in `vision.backend.open_backend`; None for the default network.
        device: where the network runs.
        limits: what to accept.

    Raises:
        PictureError: the picture cannot be read.
        RequestError: there is no such split point.
        WeightsError: the network is not installed.
    """
    from vcmcodec.vision.backend import open_backend

    picture = pixels.read(image, limits)
    backend = open_backend(model, device=device)
    if split not in backend.splits:
        known = ", ".join(backend.splits) or "none"
        raise RequestError(f"the network has no split point {split}; there are {known}")
    return backend.head(picture.rgb, split)


@plain_torch()
def encode_picture(
    image: pixels.Source,
    options: EncodeOptions,
    *,
    groups: Groups | None = None,
    device: str = "cpu",
    limits: Limits | None = None,
) -> Encoded:
    """Encode the features that a profile's own network finds in a picture.

    Raises:
        VcmError: as `codec.encode_picture`.
    """
    picture = pixels.read(image, limits)
    spec, module, model = _load(options, device)
    split = check_split(module, model, options.split)
    found = _extract(module, model, picture.rgb, split, options.vision, device)
    plan = plan_groups(groups, picture.height, picture.width, picture.rgb, device, limits)
    made = _encode(spec, module, model, found, plan, options, picture.rgb)
    return Encoded(made.data, made.header, picture.warnings + made.warnings)


@plain_torch()
def encode_features(
    found: Features,
    options: EncodeOptions,
    *,
    groups: Groups | None = None,
    device: str = "cpu",
    limits: Limits | None = None,
) -> Encoded:
    """Encode features that were taken before (`features`, `vision.feature_files.read`).

    Args:
        found: the features.
        options: see there; `split`, where it is given, must be theirs.
        groups: as in `codec.encode_picture`, but for "auto".
        device: where the transforms run.
        limits: of which `max_pixels` counts here, for the picture whose features they are.

    Raises:
        LimitError: the picture is larger than `limits.max_pixels`.
        RequestError: the features are not those that the model codes, or options that do not go
            together.
        WeightsError: the model is not there.
    """
    spec, module, model = _load(options, device)
    split = check_split(module, model, options.split or found.split)
    if split != found.split:
        raise RequestError(f"these features are of split point {found.split}, not {split}")
    max_pixels = (limits or Limits()).max_pixels
    pixels.check_size(found.geometry.height, found.geometry.width, max_pixels)
    module.check(model, found)
    plan = plan_groups(groups, found.geometry.height, found.geometry.width, None, device, limits)
    return _encode(spec, module, model, found, plan, options)


def _load(options: EncodeOptions, device: str) -> tuple[catalogue.ProfileSpec, ModuleType, Any]:
    spec = catalogue.profile(options.profile)
    if spec.source != "features":
        raise RequestError(f"profile {spec.name} codes pictures, not features")
    if options.text:
        raise RequestError("texts are kept with the layers for people; this file has none")
    module, model = spec.load(), load_model(spec.name, options.model, device=device)
    return narrowed(spec, module, model, options.tasks), module, model


def _extract(
    module: ModuleType, model: Any, rgb: np.ndarray, split: str, vision: str | None, device: str
) -> Features:
    """Features of a picture, by the network that the caller names or else the installed one."""
    from vcmcodec.profiles.features import given_network

    if vision is None:
        return module.extract(model, rgb, split, device)
    return given_network(vision, module.network(model), device).head(rgb, split)


def _encode(
    spec: catalogue.ProfileSpec, module: ModuleType, model: Any, found: Features,
    plan: grouping.GroupPlan | None, options: EncodeOptions, rgb: np.ndarray | None = None,
) -> Encoded:  # fmt: skip
    tasks = choose_tasks(spec, options.tasks, layer_of(module, model, found.split))
    level = _level(module, model, found.split, tasks, options)
    target = target_bytes(options, found.geometry.height, found.geometry.width)
    source = dataclasses.replace(_source(module, model, found, plan, tasks), rgb=rgb)
    analysed = module.analyse(model, source)
    notes = _notes(source, plan)
    effort = _effort(spec, options)

    def at(level: int, effort: int = 0) -> Encoded:
        found = module.adapt(model, source, analysed, level, effort) if effort else analysed
        header = _header(spec, model, source, plan, tasks, level)
        runs = module.encode(model, source, found, level, digest=options.digest)
        data = files.write(header, [*named(runs, plan), *group_map(plan)])
        return Encoded(data, header, notes)

    if target is None:
        return at(level, effort)
    plain = search(at, target)
    return fit(lambda level: at(level, effort), plain, target) if effort else plain


def _effort(spec: catalogue.ProfileSpec, options: EncodeOptions) -> int:
    """How often the network looks while the latent is adapted to it: never, unless asked."""
    effort = options.effort or 0
    if effort and not spec.adapts:
        raise RequestError(f"profile {spec.name} codes features as they are: it takes no effort")
    return effort


def _level(
    module: ModuleType, model: Any, split: str, tasks: tuple[TaskInfo, ...], options: EncodeOptions
) -> int:
    """The rate level that is asked for, else the one that serves the tasks."""
    if options.longer_side:
        raise RequestError(
            "a longer side is for pictures; features are taken at the network's own size"
        )
    if options.quality is not None and options.base_quality is not None:
        raise RequestError("features have one quality: give quality or base quality, not both")
    given = options.quality if options.base_quality is None else options.base_quality
    if given is None:
        given = module.default_quality(model, split, _names(tasks))
    return rate_level("quality", given)


def _names(tasks: tuple[TaskInfo, ...]) -> tuple[str, ...]:
    return tuple(catalogue.task(TaskId(info.task)).name for info in tasks)


def _source(
    module: ModuleType, model: Any, found: Features, plan: grouping.GroupPlan | None,
    tasks: tuple[TaskInfo, ...],
) -> FeatureSource:  # fmt: skip
    from vcmcodec.profiles.features import FeatureSource, Place, place_groups

    geometry = found.geometry
    cells = cell_labels(plan, geometry.height, geometry.width)
    labels = place_groups(cells, geometry, module.grid(model, geometry, found.split))
    place = Place(found.split, geometry, labels, len(plan.groups) if plan else 1)
    return FeatureSource(found.tensors, place, _names(tasks))


def _notes(source: FeatureSource, plan: grouping.GroupPlan | None) -> tuple[str, ...]:
    """Warnings of the groups, and of those that are too small for the latent."""
    if plan is None:
        return ()
    there = set(np.unique(source.place.labels).tolist())
    lost = [group.label or str(group.id) for k, group in enumerate(plan.groups) if k not in there]
    if not lost:
        return plan.warnings
    note = f"too small for a position of the latent, so nothing of them is coded: {', '.join(lost)}"
    return (*plan.warnings, note)


def _header(
    spec: catalogue.ProfileSpec, model: Any, source: FeatureSource,
    plan: grouping.GroupPlan | None, tasks: tuple[TaskInfo, ...], level: int,
) -> Header:  # fmt: skip
    geometry, place = source.place.geometry, source.place
    own = FeatureParameters(place.split, geometry.scaled_height, geometry.scaled_width, place.own)
    return Header(
        profile=spec.id,
        fingerprint=model.fingerprint,
        width=geometry.width,
        height=geometry.height,
        grey=False,
        tile=0,
        coder=CODERS[spec.id],
        tasks=tasks,
        layers=tuple(LayerInfo(i, level) for i in LayerId if i <= max(t.layer for t in tasks)),
        groups=group_table(plan),
        parameters=own.pack(),
    )


# ---- decoding


@plain_torch()
def inspect(
    reader: Reader,
    *,
    tasks: catalogue.Tasks | None = None,
    groups: ChosenGroups = None,
    device: str = "cpu",
) -> DecodedFeatures:
    """Decode the features of an open file, and say what was decoded.

    Args:
        reader: the file.
        tasks: one or several; only the tensors that these read.  None for those that the file was
            written for.
        groups: labels or ids; None for all that are there.
        device: where the synthesis runs.

    Raises:
        RequestError: the file holds a picture, or no such group or task.
        TruncatedError: the file is cut off.
        FormatError: a substream is damaged.
        WeightsError: the model is not there.
    """
    from vcmcodec.vision.backend import Features

    asked = reader.tasks if tasks is None else catalogue.task_names(tasks)
    held = hold(reader, groups, asked, device)
    names = held.module.reads(held.model, held.place.split, asked)
    tensors = held.module.decode(held.model, held.place, held.rate_level, held.runs, names, device)
    network = held.module.network(held.model)
    found = Features(held.place.split, tensors, held.place.geometry, network)
    ids = tuple(reader.header.group_ids[k] for k in sorted(held.choice.layers))
    present = np.isin(held.cells, list(held.choice.layers))
    reader.note(held.notes)
    return DecodedFeatures(found, ids, present, reader.warnings)


def decode_features(
    source: Openable,
    *,
    tasks: catalogue.Tasks | None = None,
    groups: ChosenGroups = None,
    device: str = "cpu",
    limits: Limits | None = None,
) -> Features:
    """Decode a file of features; see `inspect`."""
    with Reader(source, limits) as reader:
        return inspect(reader, tasks=tasks, groups=groups, device=device).features


@plain_torch()
def analyze_reader(
    reader: Reader, tasks: Collection[str], score: float, groups: ChosenGroups, device: str,
    vision: str | None = None,
) -> tuple[Predictions, np.ndarray]:  # fmt: skip
    """The rest of the network, from decoded features; of the one that `vision` names, if it does.

    Returns:
        Results, and the cells (rows, columns) of the groups that were decoded.
    """
    from vcmcodec.profiles.features import given_network, go_on

    module, model = open_model(reader, device)
    given = None if vision is None else given_network(vision, module.network(model), device)
    if len(set(tasks)) == len(catalogue.profile(reader.header.profile).tasks):
        tasks = served(reader, tasks, device)  # "all" is all that the file was written for
    decoded = inspect(reader, tasks=tasks, groups=groups, device=device)
    if given is not None:
        return go_on(given, decoded.features, tasks, score, device), decoded.present
    found = module.predictions(model, decoded.features, tasks, score, device)
    return found, decoded.present
