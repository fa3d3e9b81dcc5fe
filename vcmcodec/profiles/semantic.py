"""The `semantic` profile: one generic feature, learned without labels, that serves every task.

A model brings its own network (`vision/generic.py`), so nothing else need be installed: encoder
and filter make the feature, the codec carries it, and deeper stages and heads read what comes out.
Numbers of the networks stand on top (norm §6.2).
"""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from vcmcodec.bitstream.constants import CoderId
from vcmcodec.bitstream.container import Substream
from vcmcodec.errors import RequestError, WeightsError
from vcmcodec.nn import model_tensors
from vcmcodec.nn.gain import Level
from vcmcodec.nn.latent_model import LatentShape
from vcmcodec.nn.model_tensors import Model
from vcmcodec.nn.pyramid_codec import LATENT_STRIDE, LATENT_UNIT
from vcmcodec.nn.semantic_codec import FEATURE, SemanticCodec, geometry_of
from vcmcodec.profiles import base_layer, features
from vcmcodec.profiles.features import FeatureSource, Place, Runs
from vcmcodec.vision import generic
from vcmcodec.vision.backend import Features, ReferenceBackend
from vcmcodec.vision.generic import GenericFacts, GenericNetwork
from vcmcodec.vision.geometry import InputGeometry
from vcmcodec.vision.predictions import Predictions
from vcmcodec.vision.weights import VisionModel

NAME = "semantic"
CODER = CoderId.RANS_16
SPLIT = FEATURE
LEVELS = 8
DEFAULT_QUALITY = 50.0
LMBDAS = tuple(0.2 * 200 ** (i / (LEVELS - 1)) for i in range(LEVELS))
RATE_WEIGHT = 3.0  # of the error, where rounding weighs bits; as for pyramids (decisions/0008)
LATENT = LatentShape(
    slices=(16, 48, 96), phases=(2, 2, 2), layers=(0, 0, 0), hyper=8, levels=LEVELS
)
OWN = "generic."  # prefix of the network's tensors in a weight file


@dataclass(frozen=True, eq=False)
class SemanticModel:
    """Everything that ships, bound to itself.

    Attributes:
        coding: codec and tables.
        network: encoder, filter, deeper stages and heads, folded.
        facts: what the heads know.
    """

    coding: Model[SemanticCodec]
    network: GenericNetwork
    facts: GenericFacts

    @property
    def fingerprint(self) -> bytes:
        """What a file's header must carry."""
        return self.coding.fingerprint

    def to(self, device: torch.device) -> None:
        """Move the network and the transforms."""
        self.coding.to(device)
        self.network.to(device)

    def backend(self) -> ReferenceBackend:
        """The network as `vcm analyze` knows networks; its head knows of no filter."""
        facts = self.facts
        vision = VisionModel(
            self.network.network, facts.labels, facts.longer_side, {}, self.coding.codec.binding
        )
        return ReferenceBackend(vision)


def pack(
    model: Model[SemanticCodec], network: GenericNetwork, facts: GenericFacts
) -> tuple[dict[str, Tensor], dict[str, str]]:
    """Tensors and metadata of a weight file.

    Raises:
        WeightsError: the codec is not bound to this network, or not provably exact.
    """
    own, about = generic.pack(network, facts)
    if generic.fingerprint(own) != model.codec.binding:
        raise WeightsError("the codec was trained for another encoder")
    tensors, metadata = model_tensors.pack(model.codec, model.tables)
    return {**tensors, **{OWN + name: value for name, value in own.items()}}, {**metadata, **about}


# ---- what `profiles/features.py` asks of a profile


def read_model(tensors: dict[str, Tensor], metadata: dict[str, str]) -> SemanticModel:
    """A model from a weight file.

    Raises:
        WeightsError: it is not one, or its encoder is not the one that its codec is bound to.
    """
    own = {n.removeprefix(OWN): v for n, v in tensors.items() if n.startswith(OWN)}
    rest = {n: v for n, v in tensors.items() if not n.startswith(OWN)}
    coding = model_tensors.unpack(rest, metadata, SemanticCodec.rebuild)
    network, facts = generic.unpack(own, metadata)
    found, bound = generic.fingerprint(own), coding.codec.binding
    if found != bound:
        raise WeightsError(f"the encoder's fingerprint is {found}, the codec's {bound}")
    if network.network.config.c3 != coding.codec.shape.channels:
        raise WeightsError("encoder and codec do not agree on the feature's channels")
    return SemanticModel(coding, network, facts)


def splits(model: SemanticModel) -> tuple[str, ...]:
    """Split points that the model codes: the one."""
    return (SPLIT,)


@torch.inference_mode()
def extract(model: SemanticModel, rgb: np.ndarray, split: str, device: str) -> Features:
    """The filtered feature of a picture (H, W, 3) uint8."""
    seen = model.backend().head(rgb, split)
    filtered = {FEATURE: model.network.filter(seen.tensors[FEATURE])}
    return Features(split, filtered, seen.geometry, seen.model)


def network(model: SemanticModel) -> str:
    """Fingerprint of the encoder."""
    return model.coding.codec.binding


def check(model: SemanticModel, found: Features) -> None:
    """Raise RequestError where features are of another encoder."""
    features.check_network(found, model.coding.codec.binding)


def grid(model: SemanticModel, geometry: InputGeometry, split: str) -> tuple[int, int]:
    """Rows and columns of the latent."""
    return geometry.padded_height // LATENT_STRIDE, geometry.padded_width // LATENT_STRIDE


def reads(model: SemanticModel, split: str, tasks: Collection[str]) -> tuple[str, ...]:
    """Names of the tensors that tasks read: one serves all."""
    return (FEATURE,) if tasks else ()


def default_quality(model: SemanticModel, split: str, tasks: Collection[str]) -> float:
    """The quality that serves the tasks."""
    return DEFAULT_QUALITY


@torch.inference_mode()
def analyse(model: SemanticModel, source: FeatureSource) -> Tensor:
    """The latent (rows, columns, channels), before any gain."""
    codec, place = model.coding.codec, source.place
    sides = place.geometry.padded_height // 8, place.geometry.padded_width // 8
    features.check_features(source, {FEATURE: (codec.shape.channels, *sides)})
    return latent_of(codec, source.tensors[FEATURE], place.labels)


@torch.inference_mode()
def latent_of(codec: SemanticCodec, feature: Tensor, labels: np.ndarray) -> Tensor:
    """The latent (rows, columns, channels) of a feature (1, C, h, w), before any gain."""
    device = codec.synthesis.enter.weight.device
    latent: Tensor = codec.analysis(feature.to(device), geometry_of(labels, device))
    return latent[0].cpu()


def price(codec: SemanticCodec, rate_level: int) -> Tensor:
    """Bits that one squared step of error is worth in each channel, for `EncodingCoder`.

    A step s of a channel costs lmbda (s / LATENT_UNIT)**2, exactly so where training starts and
    nearly so later.
    """
    level = Level(rate_level, codec.latent.levels)
    step = codec.gains.inverse(level, slice(None)) / LATENT_UNIT
    return RATE_WEIGHT * codec.lmbda(level) * LATENT_STRIDE**2 * step**2


def encode(
    model: SemanticModel, source: FeatureSource, analysed: Tensor, rate_level: int,
    digest: bool = False,
) -> list[Substream]:  # fmt: skip
    """Code the latent; one run a group."""
    place = source.place
    return base_layer.encode_base(
        model.coding, analysed, place.labels, place.groups, rate_level, digest=digest,
        price=price(model.coding.codec, rate_level),
    )  # fmt: skip


@torch.inference_mode()
def decode(
    model: SemanticModel, place: Place, rate_level: int, runs: Runs,
    names: Collection[str], device: str = "cpu",
) -> dict[str, Tensor]:  # fmt: skip
    """Rebuild the feature, (1, C, h, w); zero where nothing was decoded."""
    latent = base_layer.decode_base(model.coding, place.labels, place.groups, rate_level, runs)
    if not names:
        return {}
    geometry = geometry_of(place.labels, torch.device(device))
    feature: Tensor = model.coding.codec.synthesis(latent[None].to(device), geometry)
    present = np.isin(place.labels, sorted({group for (_, _, group, _) in runs}))
    if not present.all():
        fine = present.repeat(2, 0).repeat(2, 1)
        feature = feature * torch.from_numpy(fine).to(feature)
    return {FEATURE: feature.contiguous()}


@torch.inference_mode()
def predictions(
    model: SemanticModel, found: Features, tasks: Collection[str], score: float, device: str
) -> Predictions:
    """What the model's own heads find.

    Raises:
        RequestError: a task that the heads were not trained for.
    """
    unknown = sorted(set(tasks) - set(model.facts.tasks))
    if unknown:
        known = ", ".join(model.facts.tasks)
        raise RequestError(f"this model has no head for {', '.join(unknown)}; it has {known}")
    moved = {name: value.to(device) for name, value in found.tensors.items()}
    at = Features(found.split, moved, found.geometry, found.model)
    backend = model.backend()
    return backend.results(backend.rest(at, tasks), found.geometry, score)
