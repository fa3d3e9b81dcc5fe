"""The `bottleneck` profile: the tensors at a split point, each through a small unit.

A task that needs fewer tensors than others needs fewer layers of the file: layer `base` holds what
classification reads, `mid` what segmentation reads besides, `full` the rest (norm §6.2).

A model may be bound to a classifier of torchvision in place of the package's own network: one
tensor crosses each of its split points, and its files are for classification.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping

import numpy as np
import torch
from torch import Tensor

from vcmcodec.bitstream.constants import Kind, LayerId
from vcmcodec.bitstream.container import Runs, Substream
from vcmcodec.entropy.cdf import Tables
from vcmcodec.entropy.static import decode_static, encode_static
from vcmcodec.errors import RequestError
from vcmcodec.nn import bottleneck_tensors
from vcmcodec.nn.bottleneck_codec import BottleneckCodec, BottleneckShape, UnitShape, key
from vcmcodec.nn.bottleneck_tensors import BottleneckModel, join_tables
from vcmcodec.nn.pyramid_codec import LATENT_STRIDE, LevelGeometry
from vcmcodec.profiles import features
from vcmcodec.profiles.digests import Digests
from vcmcodec.profiles.features import FeatureSource, Place
from vcmcodec.vision.backend import Features
from vcmcodec.vision.config import VisionConfig
from vcmcodec.vision.geometry import InputGeometry
from vcmcodec.vision.network import TASKS, crossing
from vcmcodec.vision.predictions import Predictions
from vcmcodec.vision.split import SplitPoint, split_points

NAME = "bottleneck"
SPLITS = ("c3", "c4", "c5", "fpn")  # the first is the default
LEVELS = 8
LMBDAS = tuple(0.08 * 200 ** (i / (LEVELS - 1)) for i in range(LEVELS))
LATENTS = {8: 96, 16: 96, 32: 128}  # coded channels by the tensor's stride
CLASSIFIER_LATENTS = {4: 64, **LATENTS}
MAP_PARAMETERS = 160_000  # of a unit's first and last map each; wide tensors get fewer channels
DEFAULT_QUALITY = 50.0
# who reads least comes first, so that its part of a file is a prefix of everybody's
_ORDER = ("classification", "segmentation", "detection")


def shape_for(
    config: VisionConfig, splits: Collection[str] = SPLITS, latents: Mapping[int, int] = LATENTS
) -> BottleneckShape:
    """The units for split points of a vision network.

    Args:
        config: of the network.
        splits: their names.
        latents: coded channels by stride of the tensor.

    Raises:
        RequestError: there is no such split point, or it lies before stride 8.
    """
    points, units = split_points(config), []
    for split in splits:
        if split not in points or min(points[split].strides.values()) < min(latents):
            raise RequestError(f"no units for split point {split}; there are {', '.join(SPLITS)}")
        units += _units(points[split], layers_for(split), latents)
    return BottleneckShape(tuple(units), LEVELS)


def classifier_shape_for(
    points: Mapping[str, SplitPoint], splits: Collection[str],
    latents: Mapping[int, int] = CLASSIFIER_LATENTS,
) -> BottleneckShape:  # fmt: skip
    """The units for split points of a classifier; one layer holds what crosses.

    Args:
        points: all split points of the network.
        splits: names of those that get units.
        latents: coded channels by stride of the tensor.

    Raises:
        RequestError: there is no such split point, or its tensor has a stride without units.
    """
    units = []
    for split in splits:
        if split not in points:
            raise RequestError(
                f"the network has no split point {split}; it has {', '.join(points)}"
            )
        point = points[split]
        unknown = set(point.strides.values()) - set(latents)
        if unknown:
            raise RequestError(
                f"no units for split point {split}: its tensor has stride {max(unknown)}, not one"
                f" of {', '.join(map(str, latents))}"
            )
        units += _units(point, dict.fromkeys(point.channels, 0), latents)
    return BottleneckShape(tuple(units), LEVELS)


def _units(
    point: SplitPoint, layers: Mapping[str, int], latents: Mapping[int, int]
) -> list[UnitShape]:
    """The units of a split point."""
    found = []
    for name, stride in point.strides.items():
        channels = point.channels[name]
        values = channels * max(1, LATENT_STRIDE // stride) ** 2
        width = min(latents[stride], values, MAP_PARAMETERS // values)
        found.append(UnitShape(point.name, name, channels, stride, width, layers[name]))
    return found


def build(shape: BottleneckShape, fingerprint: str, network: str = "") -> BottleneckCodec:
    """The units, untrained, for the vision network of that fingerprint (and name, if foreign)."""
    return BottleneckCodec(shape, LMBDAS, fingerprint, network)


def layers_for(split: str) -> dict[str, int]:
    """The layer of each tensor of a split point: what fewer tasks read comes first."""
    layers: dict[str, int] = {}
    for count in range(1, len(_ORDER) + 1):
        number = 1 + max(layers.values(), default=-1)
        added = [name for name in crossing(split, _ORDER[:count]) if name not in layers]
        layers |= dict.fromkeys(added, number)
    return layers


def layer(model: BottleneckModel, split: str, task: str) -> LayerId:
    """The highest layer that a task reads."""
    units = model.codec.shape.of(split)
    return LayerId(max(units[name].layer for name in reads(model, split, [task])))


def tasks(model: BottleneckModel) -> tuple[str, ...]:
    """What the network behind the split points can do."""
    return tasks_of(model.codec)


def tasks_of(codec: BottleneckCodec) -> tuple[str, ...]:
    """The same, of units without tables."""
    return ("classification",) if codec.network else TASKS


# ---- what `profiles/features.py` asks of a profile


def read_model(tensors: dict[str, Tensor], metadata: dict[str, str]) -> BottleneckModel:
    """A model from a weight file."""
    return bottleneck_tensors.unpack(tensors, metadata)


def in_order(names: Collection[str]) -> tuple[str, ...]:
    """Split points, those of the reference network as in `SPLITS`."""
    order = {name: place for place, name in enumerate(SPLITS)}
    return tuple(sorted(names, key=lambda name: order.get(name, len(order))))


def splits(model: BottleneckModel) -> tuple[str, ...]:
    """Split points that the model codes, the default one first."""
    return in_order(model.codec.shape.splits)


def extract(model: BottleneckModel, rgb: np.ndarray, split: str, device: str) -> Features:
    """Features of a picture (H, W, 3) uint8."""
    codec = model.codec
    return features.bound_network(codec.binding, device, codec.network).head(rgb, split)


def network(model: BottleneckModel) -> str:
    """Fingerprint of the network whose features these are."""
    return model.codec.binding


def check(model: BottleneckModel, found: Features) -> None:
    """Raise RequestError where features are of another network."""
    features.check_network(found, model.codec.binding)


def grid(model: BottleneckModel, geometry: InputGeometry, split: str) -> tuple[int, int]:
    """Rows and columns of the finest latent."""
    return geometry.padded_height // LATENT_STRIDE, geometry.padded_width // LATENT_STRIDE


def reads(model: BottleneckModel, split: str, tasks: Collection[str]) -> tuple[str, ...]:
    """Names of the tensors that tasks read."""
    if model.codec.network:  # a classifier: whatever is asked of it needs all that crosses
        return tuple(model.codec.shape.of(split)) if tasks else ()
    return crossing(split, tasks)


def default_quality(model: BottleneckModel, split: str, tasks: Collection[str]) -> float:
    """The quality that serves the tasks."""
    return DEFAULT_QUALITY


@torch.inference_mode()
def analyse(model: BottleneckModel, source: FeatureSource) -> dict[str, Tensor]:
    """The latents (rows, columns, channels) of all tensors that the tasks' layers hold."""
    place = source.place
    units = model.codec.shape.of(place.split)
    names = [name for names in _layers_for(model, source) for name in names]
    sides = place.geometry.padded_height, place.geometry.padded_width
    wanted = {}
    for name in names:
        stride = units[name].stride
        wanted[name] = (units[name].channels, sides[0] // stride, sides[1] // stride)
    features.check_features(source, wanted)
    return latents_of(model.codec, place.split, {n: source.tensors[n] for n in names}, place.labels)


@torch.inference_mode()
def latents_of(
    codec: BottleneckCodec, split: str, tensors: Mapping[str, Tensor], labels: np.ndarray
) -> dict[str, Tensor]:
    """Latents (rows, columns, channels) of tensors (1, C, h, w), before any gain."""
    geometry, out = None, {}
    for name, tensor in tensors.items():
        unit = codec.unit(split, name)
        device = unit.mean.device
        geometry = geometry or LevelGeometry(labels, device)
        out[name] = unit.analyse(tensor.to(device), geometry)[0]
    return out


@torch.inference_mode()
def quantise(
    codec: BottleneckCodec, split: str, name: str, latent: Tensor, rate_level: int
) -> np.ndarray:
    """Symbols (rows, columns, channels) int32 of a latent."""
    steps = codec.unit(split, name).steps(latent, codec.level(rate_level))
    return torch.floor(steps + 0.5).clamp(-(2.0**30), 2.0**30).to(torch.int32).cpu().numpy()


def encode(
    model: BottleneckModel, source: FeatureSource, analysed: Mapping[str, Tensor], rate_level: int,
    digest: bool = False,
) -> list[Substream]:  # fmt: skip
    """Code the latents: one run a group and layer."""
    place = source.place
    symbols = {
        name: quantise(model.codec, place.split, name, latent, rate_level)
        for name, latent in analysed.items()
    }
    out = []
    for number, names in enumerate(_layers_for(model, source)):
        tables = _tables(model, place.split, names, rate_level)
        for group in np.unique(place.labels).tolist():
            channels = [
                channel
                for name in names
                for channel in symbols[name][_where(model, place, name, group)].T
            ]
            run = encode_static(channels, tables)
            out.append(Substream(Kind.LATENT, LayerId(number), group, run))
            if digest:
                hashes = Digests([group])
                hashes.add(group, channels)
                out += hashes.close(LayerId(number))
    return out


@torch.inference_mode()
def decode(
    model: BottleneckModel, place: Place, rate_level: int, runs: Runs,
    names: Collection[str], device: str = "cpu",
) -> dict[str, Tensor]:  # fmt: skip
    """Rebuild the tensors of `names`, (1, C, h, w); zero where nothing was decoded.

    Raises:
        FormatError: a run or its digest is wrong.
    """
    symbols = {
        name: np.zeros((*_labels(model, place, name).shape, unit.latent), np.int32)
        for name, unit in model.codec.shape.of(place.split).items()
    }
    present: dict[str, list[int]] = {name: [] for name in symbols}
    for number, group, held in _runs_by_layer(model, place.split, runs):
        tables = _tables(model, place.split, held, rate_level)
        where = {name: _where(model, place, name, group) for name in held}
        counts = [int(where[n].sum()) for n in held for _ in range(symbols[n].shape[2])]
        run = runs[Kind.LATENT, LayerId(number), group, 0]
        channels = decode_static(run, counts, tables)
        hashes = Digests([group])
        hashes.add(group, channels)
        hashes.check(LayerId(number), runs)
        for name in held:
            count = symbols[name].shape[2]
            symbols[name][where[name]] = np.stack(channels[:count], 1)
            channels = channels[count:]
            present[name].append(group)
    geometry = LevelGeometry(place.labels, torch.device(device))
    return {
        name: _rebuild(model, place, name, symbols[name], present[name], rate_level, geometry)
        for name in symbols
        if name in names
    }


def _rebuild(
    model: BottleneckModel, place: Place, name: str, symbols: np.ndarray, groups: list[int],
    rate_level: int, geometry: LevelGeometry,
) -> Tensor:  # fmt: skip
    """One tensor of its symbols; zero in cells of groups that are not there."""
    unit = model.codec.unit(place.split, name)
    values = torch.from_numpy(symbols).float()[None].to(unit.mean.device)
    tensor = unit.synthesise(values, model.codec.level(rate_level), geometry)
    there = np.isin(_labels(model, place, name), groups)
    if not there.all():
        times = unit.shape.latent_stride // unit.shape.stride
        there = there.repeat(times, 0).repeat(times, 1)
        tensor = tensor * torch.from_numpy(there).to(tensor)
    return tensor.contiguous()


def predictions(
    model: BottleneckModel, found: Features, tasks: Collection[str], score: float, device: str
) -> Predictions:
    """The rest of the vision network."""
    return features.rest_of_network(found, tasks, score, device, model.codec.network)


# ---- layers, groups, tables


def _layers_for(model: BottleneckModel, source: FeatureSource) -> tuple[tuple[str, ...], ...]:
    """Tensors of each layer that a source's tasks read."""
    split = source.place.split
    top = max(layer(model, split, task) for task in source.tasks or tasks(model))
    return model.codec.shape.layers(split)[: top + 1]


def _labels(model: BottleneckModel, place: Place, name: str) -> np.ndarray:
    """Group position of each position of a tensor's latent; coarse ones are their top left's."""
    step = model.codec.shape.of(place.split)[name].latent_stride // LATENT_STRIDE
    return place.labels[::step, ::step]


def _where(model: BottleneckModel, place: Place, name: str, group: int) -> np.ndarray:
    """(rows, columns) bool: positions of a tensor's latent that are a group's."""
    found: np.ndarray = _labels(model, place, name) == group
    return found


def _tables(model: BottleneckModel, split: str, names: Collection[str], rate_level: int) -> Tables:
    """One table a channel of all tensors of a layer."""
    return join_tables([model.tables_of(key(split, name), rate_level) for name in names])


def _runs_by_layer(
    model: BottleneckModel, split: str, runs: Runs
) -> Iterator[tuple[int, int, tuple[str, ...]]]:
    """Layer, group position and tensors of each run that is at hand."""
    for number, names in enumerate(model.codec.shape.layers(split)):
        for kind, layer_id, group, _ in sorted(runs):
            if kind == Kind.LATENT and layer_id == number:
                yield number, group, names
