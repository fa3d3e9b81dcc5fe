"""What the profiles of features share: their source, its place in the picture, and its groups.

A profile of features is one module beside this one that provides

    read_model(tensors, metadata)  -> model, from a weight file; it needs `.fingerprint` (8 bytes)
                                   and `.to(device)`
    splits(model)                  -> split points that it codes, the default one first
    extract(model, rgb, split, device)
                                   -> Features of a picture, by the network it is bound to
    network(model)                 -> fingerprint of that network, 16 hexadecimal digits
    check(model, features)         raises RequestError where features are not that network's
    grid(model, geometry, split)   -> (rows, columns) of its latent; groups are drawn on it
    reads(model, split, tasks)     -> names of the tensors that tasks read
    default_quality(model, split, tasks)
                                   -> the lowest quality, 0..100, that serves the tasks
    analyse(model, source)         -> anything: what no rate level changes, tensors checked
    adapt(model, source, analysed, rate_level, effort)
                                   -> what `analyse` gave, moved in so many looks to where the rest
                                   of the network sees more for its bits; only where the catalogue
                                   says that the profile `adapts`
    tasks(model)                   -> what that network can do; only where a model may do less than
                                   its profile
    layer(model, split, task)      -> the highest layer that a task reads; only where a profile has
                                   more than the base
    encode(model, source, analysed, rate_level, digest=False)
                                   -> substreams of the layers that `source.tasks` read;
                                   `Substream.group` is a position
    decode(model, place, rate_level, runs, names, device)
                                   -> the tensors of `names` alone; () decodes symbols and no more.
                                   Groups without runs are absent: their cells come out as zero
    predictions(model, features, tasks, score, device)
                                   -> Predictions, by the rest of the network

and a line in the catalogue with `source="features"`; the norm's rules for its header stand in
`bitstream/profile_rules.py`.
"""

from __future__ import annotations

import functools
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from torch import Tensor

from vcmcodec import pretrained
from vcmcodec.bitstream.constants import CELL
from vcmcodec.errors import RequestError, WeightsError
from vcmcodec.vision.geometry import InputGeometry

if TYPE_CHECKING:
    from vcmcodec.vision.backend import Backend, Features, ReferenceBackend
    from vcmcodec.vision.predictions import Predictions


@dataclass(frozen=True, eq=False)
class Place:
    """Where features lie, known to both ends.

    Attributes:
        split: name of the split point.
        geometry: sizes of the picture and of the network's input.
        labels: (rows, columns) group position of each position of the latent (`place_groups`).
        groups: number of group positions, cells without a group (redacted) counted.
        own: bytes of the profile's own in the header.
    """

    split: str
    geometry: InputGeometry
    labels: np.ndarray
    groups: int
    own: bytes = b""


@dataclass(frozen=True, eq=False)
class FeatureSource:
    """Features ready to be coded.

    Attributes:
        tensors: by name, (1, C, h, w) float32.
        place: where they lie.
        tasks: names of the tasks that the file is for.
        rgb: (H, W, 3) uint8, the picture whose features they are, where that is at hand.
    """

    tensors: Mapping[str, Tensor]
    place: Place
    tasks: tuple[str, ...]
    rgb: np.ndarray | None = None


def place_groups(cells: np.ndarray, geometry: InputGeometry, grid: tuple[int, int]) -> np.ndarray:
    """Draw a map of the picture's cells on the grid of a latent.

    Every position belongs to the group of the cell under its centre; what lies in the padding of
    the network's input, to that of the nearest cell.  Integers alone, so both ends agree (norm
    §6.2).  A group of few cells of a large picture may come out with no position at all.

    Args:
        cells: (rows, columns) group position of each cell of 16x16 picture pixels.
        grid: rows and columns of the latent.

    Returns:
        (rows, columns) int64 group positions.
    """
    sides = (
        (grid[0], geometry.padded_height, geometry.scaled_height, geometry.height),
        (grid[1], geometry.padded_width, geometry.scaled_width, geometry.width),
    )
    index = []
    for count, padded, scaled, true in sides:
        centre = (2 * np.arange(count, dtype=np.int64) + 1) * padded  # in 1 / (2 count) pixels
        pixel = np.minimum(centre * true // (2 * count * scaled), true - 1)
        index.append(pixel // CELL)
    return np.asarray(cells[np.ix_(*index)], np.int64)


def check_features(source: FeatureSource, shapes: Mapping[str, tuple[int, int, int]]) -> None:
    """Hold tensors against the shapes (C, h, w) that the network would have given.

    Raises:
        RequestError: a tensor is missing or has another shape.
    """
    for name, shape in shapes.items():
        if name not in source.tensors:
            raise RequestError(f"split {source.place.split} needs the tensor {name}")
        found = tuple(source.tensors[name].shape)
        if found != (1, *shape):
            raise RequestError(f"{name} is {found}; for this picture it must be {(1, *shape)}")


# ---- the network whose features these are


def bound_network(fingerprint: str, device: str, name: str = "") -> ReferenceBackend:
    """The installed vision network with that fingerprint.

    Args:
        fingerprint: of its weights.
        device: where it runs.
        name: of a network whose weights are the user's own (`torchvision:resnet18`), and are never
            installed.

    Raises:
        WeightsError: it is not installed.
        RequestError: there is no such device.
    """
    from vcmcodec.vision.backend import PROFILE, ReferenceBackend, open_backend

    if name:
        raise WeightsError(
            f"this model goes with the weights {fingerprint} of {name}, which are your own: say"
            f" where they are, with --vision {name}=FILE (in Python vision=...)"
        )
    try:
        file = pretrained.find(profile=PROFILE, fingerprint=fingerprint)
    except WeightsError as error:
        raise WeightsError(
            f"the vision network {fingerprint}, which this model goes with, is not installed:"
            f" {error}"
        ) from error
    backend = open_backend(file.id, device=device)
    assert isinstance(backend, ReferenceBackend)
    if backend.fingerprint != fingerprint:
        raise WeightsError(
            f"vision network {file.id} is not the one that its manifest describes: its fingerprint"
            f" is {backend.fingerprint}, not {fingerprint}"
        )
    return backend


def check_network(features: Features, fingerprint: str) -> None:
    """Raise RequestError where features are of another network than a model codes."""
    if features.model != fingerprint:
        raise RequestError(
            f"these features are of network {features.model or 'without a name'}; the model codes"
            f" those of {fingerprint}"
        )


def given_network(vision: str, fingerprint: str, device: str) -> Backend:
    """The network that the caller names, with the weights that a model goes with.

    Args:
        vision: as in `vision.backend.open_backend`.
        fingerprint: of the weights that it must have.
        device: where it runs.

    Raises:
        WeightsError: it has other weights, or none.
        RequestError: the name means nothing, or there is no such device.
    """
    path = Path(vision.removeprefix("torchvision:").partition("=")[2] or vision)
    backend = _open_once(vision, device, pretrained.stamp(path))
    if backend.fingerprint != fingerprint:
        raise WeightsError(
            f"{vision} is another network than this model goes with: its weights have fingerprint"
            f" {backend.fingerprint or 'none'}, not {fingerprint}"
        )
    return backend


@functools.lru_cache(maxsize=2)
def _open_once(vision: str, device: str, stamp: tuple[int, int]) -> Backend:
    from vcmcodec.vision.backend import open_backend

    return open_backend(vision, device=device)


def rest_of_network(
    features: Features, tasks: Collection[str], score: float, device: str, name: str = ""
) -> Predictions:
    """What the installed network finds, going on from its features; `name` as above."""
    return go_on(bound_network(features.model, device, name), features, tasks, score, device)


def go_on(
    backend: Backend, features: Features, tasks: Collection[str], score: float, device: str
) -> Predictions:
    """What a network finds, going on from its features."""
    moved = {name: value.to(device) for name, value in features.tensors.items()}
    at = type(features)(features.split, moved, features.geometry, features.model)
    return backend.results(backend.rest(at, tasks), features.geometry, score)
