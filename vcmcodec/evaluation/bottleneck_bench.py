"""The rates of every split point: bytes, what edge and server pay, and how symbols are coded.

Files are whole and real.  The edge's part is the network up to the split point, the units, and the
entropy coder; the server's is everything from the file's bytes to raw results.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import cast

import numpy as np
import numpy.typing as npt

from vcmcodec import codec, feature_codec
from vcmcodec.bitstream.constants import Kind
from vcmcodec.bitstream.container import Container
from vcmcodec.encoding import EncodeOptions
from vcmcodec.errors import RequestError
from vcmcodec.evaluation.corpora import NamedPicture
from vcmcodec.evaluation.environment import Environment, describe_environment
from vcmcodec.evaluation.macs import count_kmacs
from vcmcodec.evaluation.report import Table, environment_note
from vcmcodec.evaluation.symbol_coding import count, entropy_bits, huffman_bits
from vcmcodec.evaluation.timing import measure_rounds, torch_threads
from vcmcodec.models import load_model
from vcmcodec.nn.bottleneck_tensors import BottleneckModel
from vcmcodec.profiles import bottleneck as profile
from vcmcodec.profiles.features import FeatureSource, Place, bound_network
from vcmcodec.vision.backend import Features
from vcmcodec.vision.network import TASKS

LADDER = (0.0, 20.0, 40.0, 60.0, 80.0, 100.0)


@dataclass(frozen=True)
class EdgeCost:
    """What one picture costs on both sides of a split point.

    Attributes:
        head_kmacs: of the network up to the split point, thousands a true pixel.
        unit_kmacs: of the units' encoders.
        edge_ms: median, from pixels to the file's bytes.
        server_ms: median, from the file's bytes to raw results.
    """

    head_kmacs: float
    unit_kmacs: float
    edge_ms: float
    server_ms: float


@dataclass(frozen=True)
class RatePoint:
    """One split point at one quality, over all pictures.

    Attributes:
        num_bytes: of all files.
        bpp: bits a true pixel.
        symbols: how many were coded.
        coded_bits: that the files' runs have.
        channel_bits: bound of one table a channel: order-0 entropy of each channel's symbols.
        shared_bits: bound of one table for all channels.
        huffman_bits: of the best Huffman code for all channels, which the seed system uses.
    """

    split: str
    quality: float
    num_bytes: int
    bpp: float
    symbols: int
    coded_bits: float
    channel_bits: float
    shared_bits: float
    huffman_bits: float


@dataclass(frozen=True)
class BottleneckBench:
    """Result of one run; `costs` by split point, of the first picture, at the middle quality."""

    pictures: tuple[str, ...]
    tasks: tuple[str, ...]
    points: tuple[RatePoint, ...]
    costs: dict[str, EdgeCost]
    parameters: dict[str, int]
    environment: Environment


def run(
    pictures: Sequence[NamedPicture],
    *,
    splits: Sequence[str] | None = None,
    qualities: Sequence[float] = LADDER,
    tasks: Sequence[str] = TASKS,
    model: str | None = None,
    threads: int = 1,
    repeats: int = 5,
    progress: Callable[[str], None] = lambda _: None,
) -> BottleneckBench:
    """Measure the units of a model on pictures.

    Args:
        pictures: at least one.
        splits: split points; None for all of the model.
        qualities: rates of each.
        tasks: that the files are written for.
        model: name; None for the default.
        threads: of torch.
        repeats: timed rounds.
        progress: called with one line before each piece of work.

    Raises:
        WeightsError: no model, or the network that it goes with is not installed.
        RequestError: no picture, or an unknown split point.
    """
    if not pictures:
        raise RequestError("there is no picture to measure on")
    found = cast("BottleneckModel", load_model(profile.NAME, model))
    known = profile.splits(found)
    chosen = tuple(splits or known)
    if not set(chosen) <= set(known):
        raise RequestError(f"the model codes {', '.join(known)}, not {', '.join(chosen)}")
    points, costs, parameters = [], {}, {}
    with torch_threads(threads):
        for split in chosen:
            progress(f"{split}: taking features")
            taken = [profile.extract(found, one.rgb, split, "cpu") for one in pictures]
            for quality in qualities:
                progress(f"{split} at quality {quality:g}")
                points.append(_point(found, taken, quality, tasks, model))
            costs[split] = edge_cost(
                found, pictures[0], split, tasks=tasks, model_id=model, repeats=repeats
            )
            parameters[split] = sum(
                value.numel()
                for name in found.codec.shape.of(split)
                for value in found.codec.unit(split, name).parameters()
            )
    names = tuple(one.name for one in pictures)
    environment = describe_environment(threads)
    return BottleneckBench(names, tuple(tasks), tuple(points), costs, parameters, environment)


def _point(
    model: BottleneckModel, taken: Sequence[Features], quality: float, tasks: Sequence[str],
    name: str | None,
) -> RatePoint:  # fmt: skip
    """Files of all features at one quality, and what their symbols would cost otherwise."""
    size, pixels, coded = 0, 0, 0.0
    channels: dict[tuple[str, int], list[npt.NDArray[np.int32]]] = {}
    for features in taken:
        options = EncodeOptions(tasks, quality, profile=profile.NAME, model=name)
        data = feature_codec.encode_features(features, options).data
        size += len(data)
        pixels += features.geometry.height * features.geometry.width
        coded += 8 * sum(e.length for e in Container.read(data).find(Kind.LATENT))
        for tensor, symbols in _symbols(model, features, quality, tasks):
            for i, channel in enumerate(symbols.reshape(-1, symbols.shape[-1]).T):
                channels.setdefault((tensor, i), []).append(channel)
    every = count(part for parts in channels.values() for part in parts)
    return RatePoint(
        taken[0].split,
        quality,
        size,
        8 * size / pixels,
        int(every.sum()),
        coded,
        sum(entropy_bits(count(parts)) for parts in channels.values()),
        entropy_bits(every),
        huffman_bits(every),
    )


def _symbols(
    model: BottleneckModel, features: Features, quality: float, tasks: Sequence[str]
) -> Iterator[tuple[str, npt.NDArray[np.int32]]]:
    """Each tensor's symbols (rows, columns, channels)."""
    source = _source(model, features, tasks)
    level = round(100 * quality)
    for name, latent in profile.analyse(model, source).items():
        yield name, profile.quantise(model.codec, features.split, name, latent, level)


def _source(model: BottleneckModel, features: Features, tasks: Sequence[str]) -> FeatureSource:
    labels = np.zeros(profile.grid(model, features.geometry, features.split), np.int64)
    place = Place(features.split, features.geometry, labels, 1)
    return FeatureSource(features.tensors, place, tuple(tasks))


def edge_cost(
    model: BottleneckModel,
    picture: NamedPicture,
    split: str,
    *,
    quality: float = 50.0,
    tasks: Sequence[str] = TASKS,
    model_id: str | None = None,
    repeats: int = 5,
) -> EdgeCost:
    """Arithmetic and time of a picture on both sides of a split point.

    Args:
        model: units.
        picture: what is sent.
        split: split point.
        quality: rate; it changes the entropy coder's time alone.
        tasks: that the file is written for, and that the server then does.
        model_id: name of the model; None for the default.
        repeats: timed rounds.

    Raises:
        WeightsError: the network that the model goes with is not installed.
    """
    backend = bound_network(model.codec.binding, "cpu")
    pixels = picture.rgb.shape[0] * picture.rgb.shape[1]
    features = backend.head(picture.rgb, split)

    def edge() -> bytes:
        return codec.encode(
            picture.rgb, profile=profile.NAME, split=split, quality=quality, tasks=tasks,
            model=model_id,
        )  # fmt: skip

    data = edge()

    def server() -> None:
        decoded = feature_codec.decode_features(data, tasks=tasks)
        backend.rest(decoded, tasks)

    times = measure_rounds({"edge": edge, "server": server}, repeats)
    return EdgeCost(
        count_kmacs(lambda: backend.head(picture.rgb, split), pixels)[0],
        count_kmacs(lambda: profile.analyse(model, _source(model, features, tasks)), pixels)[0],
        times["edge"].median_ms,
        times["server"].median_ms,
    )


_RATES = (
    "split", "quality", "bytes", "bits a pixel", "head kMAC", "unit kMAC", "edge ms", "server ms",
    "parameters",
)  # fmt: skip
_ON_RATES = (
    "Whole files over the pictures' true pixels; kMAC a true pixel; times are medians of the first"
    " picture at quality 50, from pixels to a file and from it to raw results."
)
_CODING = (
    "split", "quality", "symbols", "bits a symbol", "table a channel", "one table",
    "one Huffman code",
)  # fmt: skip
_ON_CODING = (
    "Real bits of the files, against the best there can be of each kind.  The files' static tables"
    " were counted on training pictures, the rivals' on the very symbols that they code, and they"
    " transmit none.  Below zero: ours is smaller."
)


def tables(result: BottleneckBench) -> tuple[Table, ...]:
    """Rates beside what the edge pays, and how the symbols are coded."""
    rates = tuple(
        (
            point.split,
            f"{point.quality:g}",
            f"{point.num_bytes / len(result.pictures):,.0f}",
            f"{point.bpp:.4f}",
            f"{result.costs[point.split].head_kmacs:.2f}",
            f"{result.costs[point.split].unit_kmacs:.3f}",
            f"{result.costs[point.split].edge_ms:.0f}",
            f"{result.costs[point.split].server_ms:.0f}",
            f"{result.parameters[point.split]:,}",
        )
        for point in result.points
    )
    environment = environment_note(result.environment)
    coding = tuple(
        (
            point.split,
            f"{point.quality:g}",
            f"{point.symbols:,}",
            f"{point.coded_bits / point.symbols:.4f}",
            f"{100 * (point.coded_bits / point.channel_bits - 1):+.1f} %",
            f"{100 * (point.coded_bits / point.shared_bits - 1):+.1f} %",
            f"{100 * (point.coded_bits / point.huffman_bits - 1):+.1f} %",
        )
        for point in result.points
        if point.channel_bits
    )
    words = f"{len(result.pictures)} pictures, files for {', '.join(result.tasks)}"
    return (
        Table(f"Bottleneck units: {words}", _RATES, rates, (_ON_RATES, environment)),
        Table("How the symbols are coded", _CODING, coding, (_ON_CODING,)),
    )
