"""The `pyramid` profile: all levels of a feature pyramid as one latent, rebuilt at the other end.

The features are those of the reference vision network at its split point `fpn`: the pyramid levels,
and whatever else crosses there.  Numbers of the networks stand on top (norm §6.2).
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from itertools import pairwise

import numpy as np
import torch
from torch import Tensor

from vcmcodec.bitstream.container import Runs, Substream
from vcmcodec.nn import model_tensors
from vcmcodec.nn.gain import RATE_LEVEL_MAX, Level
from vcmcodec.nn.latent_model import LatentShape
from vcmcodec.nn.model_tensors import Model
from vcmcodec.nn.pyramid_codec import (
    LATENT_STRIDE,
    LATENT_UNIT,
    LevelGeometry,
    PyramidCodec,
    PyramidShape,
)
from vcmcodec.profiles import base_layer, features
from vcmcodec.profiles.features import FeatureSource, Place
from vcmcodec.profiles.seeking import Aim, seek
from vcmcodec.vision.backend import Features
from vcmcodec.vision.config import VisionConfig
from vcmcodec.vision.geometry import InputGeometry
from vcmcodec.vision.network import crossing
from vcmcodec.vision.predictions import Predictions
from vcmcodec.vision.sight import DEPTHS, Sight
from vcmcodec.vision.split import split_points

NAME = "pyramid"
SPLIT = "fpn"
LEVELS = 8
DEFAULT_QUALITY = 50.0
LMBDAS = tuple(0.2 * 200 ** (i / (LEVELS - 1)) for i in range(LEVELS))
RATE_WEIGHT = 3.0  # of the error, where rounding weighs bits; 1 is the loss's own (decisions/0008)
# bits a pixel that a distance of 1 in what is seen is worth where a latent is adapted: at quality
# 0, and how many times that at 100
SIGHT_PRICE = (0.025, 400.0)
LATENT = LatentShape(
    slices=(16, 48, 128), phases=(4, 2, 2), layers=(0, 0, 0), hyper=8, levels=LEVELS
)


def shape_for(config: VisionConfig, **changes: bool | int) -> PyramidShape:
    """The shape of a codec for the pyramid of a vision network.

    The coarsest pyramid level is derived where something else as coarse crosses and is coded, as
    c5 in some networks; else nothing would tell of it (decisions/0008).  Every finer level helps
    the next coarser one.

    Args:
        config: of the network.
        **changes: fields of `PyramidShape`.
    """
    point = split_points(config)[SPLIT]
    names = sorted(point.channels, key=lambda name: (point.strides[name], name))
    levels = sorted((n for n in names if n.startswith("p")), key=lambda n: point.strides[n])
    mixing = tuple((coarse, fine) for fine, coarse in pairwise(levels))
    as_coarse = [name for name in names if point.strides[name] == point.strides[levels[-1]]]
    derived = levels[-1] if len(as_coarse) > 1 else None
    return PyramidShape(
        names=tuple(names),
        channels=tuple(point.channels[name] for name in names),
        strides=tuple(point.strides[name] for name in names),
        coded=tuple(name for name in names if name != derived),
        mixing=mixing,
        **changes,  # type: ignore[arg-type]
    )


def build(config: VisionConfig, fingerprint: str, **changes: bool | int) -> PyramidCodec:
    """The networks, untrained, for a vision network of that shape and fingerprint."""
    return PyramidCodec(shape_for(config, **changes), LATENT, LMBDAS, fingerprint, SPLIT)


# ---- what `profiles/features.py` asks of a profile


def read_model(tensors: dict[str, Tensor], metadata: dict[str, str]) -> Model[PyramidCodec]:
    """A model from a weight file."""
    return model_tensors.unpack(tensors, metadata, PyramidCodec.rebuild)


def splits(model: Model[PyramidCodec]) -> tuple[str, ...]:
    """Split points that the model codes."""
    return (model.codec.split,)


def extract(model: Model[PyramidCodec], rgb: np.ndarray, split: str, device: str) -> Features:
    """Features of a picture (H, W, 3) uint8."""
    return features.bound_network(model.codec.binding, device).head(rgb, split)


def network(model: Model[PyramidCodec]) -> str:
    """Fingerprint of the network whose features these are."""
    return model.codec.binding


def check(model: Model[PyramidCodec], found: Features) -> None:
    """Raise RequestError where features are of another network."""
    features.check_network(found, model.codec.binding)


def grid(model: Model[PyramidCodec], geometry: InputGeometry, split: str) -> tuple[int, int]:
    """Rows and columns of the latent."""
    return geometry.padded_height // LATENT_STRIDE, geometry.padded_width // LATENT_STRIDE


def reads(model: Model[PyramidCodec], split: str, tasks: Collection[str]) -> tuple[str, ...]:
    """Names of the tensors that tasks read."""
    return crossing(split, tasks)


def default_quality(model: Model[PyramidCodec], split: str, tasks: Collection[str]) -> float:
    """The quality that serves the tasks."""
    return DEFAULT_QUALITY


@torch.inference_mode()
def analyse(model: Model[PyramidCodec], source: FeatureSource) -> Tensor:
    """The latent (rows, columns, channels), before any gain."""
    shape, place = model.codec.shape, source.place
    sides = place.geometry.padded_height, place.geometry.padded_width
    wanted = {}
    for name in shape.coded:
        count, stride = shape.of[name]
        wanted[name] = (count, sides[0] // stride, sides[1] // stride)
    features.check_features(source, wanted)
    return latent_of(model, source.tensors, place.labels)


@torch.inference_mode()
def latent_of(
    model: Model[PyramidCodec], tensors: Mapping[str, Tensor], labels: np.ndarray
) -> Tensor:
    """Fuse levels (1, C, h, w) to the latent (rows, columns, channels), before any gain."""
    device = model.codec.synthesis.enter.weight.device
    levels = {name: tensors[name].to(device) for name in model.codec.shape.coded}
    return model.codec.analysis(levels, LevelGeometry(labels, device))[0].cpu()


def price(codec: PyramidCodec, rate_level: int) -> Tensor:
    """Bits that one squared step of error is worth in each channel, for `EncodingCoder`.

    A step s of a channel costs lmbda (s / LATENT_UNIT)**2 over the number of levels, exactly so
    where training starts and nearly so later.
    """
    level = Level(rate_level, codec.latent.levels)
    step = codec.gains.inverse(level, slice(None)) / LATENT_UNIT
    pixels = LATENT_STRIDE**2
    return RATE_WEIGHT * codec.lmbda(level) * pixels / len(codec.shape.names) * step**2


@torch.inference_mode(False)  # what it reads may come from there
def adapt(
    model: Model[PyramidCodec], source: FeatureSource, analysed: Tensor, rate_level: int,
    effort: int,
) -> Tensor:  # fmt: skip
    """Move the latent to where the rest of the network sees more for its bits (decisions/0012)."""
    codec, labels = model.codec, source.place.labels
    scale, device = codec.synthesis.scale, codec.synthesis.enter.weight.device
    level, geometry = Level(rate_level, codec.latent.levels), LevelGeometry(labels, device)
    names = [name for name in codec.shape.names if name in DEPTHS]
    weights = {n: scale.get_buffer(f"deviation_{n}").square().reciprocal() for n in names}
    sight = Sight(features.bound_network(codec.binding, str(device)).model.network, weights)
    with torch.no_grad():
        tensors = {name: source.tensors[name].clone().to(device) for name in codec.shape.names}
        clean = sight.going_on(tensors)
    pixels = labels.size * LATENT_STRIDE**2
    worth = SIGHT_PRICE[0] * SIGHT_PRICE[1] ** (rate_level / RATE_LEVEL_MAX) * pixels

    def away(latent: Tensor) -> Tensor:
        levels = codec.synthesis(latent.to(device), geometry)
        return worth * sight.distance(sight.going_on(levels), clean)[0]

    aim = Aim(model, labels, level, price(codec, rate_level), away)
    return seek(aim, analysed.reshape(labels.size, -1), effort).reshape(analysed.shape)


def encode(
    model: Model[PyramidCodec], source: FeatureSource, analysed: Tensor, rate_level: int,
    digest: bool = False,
) -> list[Substream]:  # fmt: skip
    """Code the latent; one run a group."""
    place = source.place
    return base_layer.encode_base(
        model, analysed, place.labels, place.groups, rate_level, digest=digest,
        price=price(model.codec, rate_level),
    )  # fmt: skip


@torch.inference_mode()
def decode(
    model: Model[PyramidCodec], place: Place, rate_level: int, runs: Runs,
    names: Collection[str], device: str = "cpu",
) -> dict[str, Tensor]:  # fmt: skip
    """Rebuild the levels of `names`, (1, C, h, w); zero where nothing was decoded."""
    latent = base_layer.decode_base(model, place.labels, place.groups, rate_level, runs)
    if not names:
        return {}
    codec = model.codec
    geometry = LevelGeometry(place.labels, torch.device(device))
    levels = codec.synthesis(latent[None].to(device), geometry, names)
    present = np.isin(place.labels, sorted({group for (_, _, group, _) in runs}))
    return _absent_as_zero(levels, codec.shape.of, present)


def _absent_as_zero(
    levels: Mapping[str, Tensor], shapes: Mapping[str, tuple[int, int]], present: np.ndarray
) -> dict[str, Tensor]:
    """Put zeros where a cell's group was not decoded; a coarse cell is its top left position's."""
    if present.all():
        return {name: level.contiguous() for name, level in levels.items()}
    out = {}
    for name, level in levels.items():
        stride = shapes[name][1]
        if stride < LATENT_STRIDE:
            mask = present.repeat(2, 0).repeat(2, 1)
        else:
            step = stride // LATENT_STRIDE
            mask = present[::step, ::step]
        out[name] = level * torch.from_numpy(mask).to(level)
    return out


def predictions(
    model: Model[PyramidCodec], found: Features, tasks: Collection[str], score: float, device: str
) -> Predictions:
    """The rest of the vision network."""
    return features.rest_of_network(found, tasks, score, device)
