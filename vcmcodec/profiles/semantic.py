"""The `semantic` profile: one generic feature, learned without labels, that serves every task.

A model brings its own encoder (`vision/generic.py`), so nothing else is needed to write files:
encoder and filter make the feature, the codec carries it.  To analyze one, an adaptor takes it to
the installed vision network, whose deeper stages and heads go on.
Numbers of the networks stand on top (norm §6.2).
"""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from vcmcodec.bitstream.container import Runs, Substream
from vcmcodec.errors import WeightsError
from vcmcodec.nn import model_tensors
from vcmcodec.nn.gain import RATE_LEVEL_MAX, Level
from vcmcodec.nn.latent_model import LatentShape
from vcmcodec.nn.model_tensors import Model
from vcmcodec.nn.pyramid_codec import LATENT_STRIDE, LATENT_UNIT
from vcmcodec.nn.semantic_codec import FEATURE, SemanticCodec, geometry_of
from vcmcodec.profiles import base_layer, features
from vcmcodec.profiles.features import FeatureSource, Place
from vcmcodec.profiles.seeking import Aim, seek
from vcmcodec.vision import generic
from vcmcodec.vision.backend import Features, ReferenceBackend
from vcmcodec.vision.generic import Adaptor, Encoder, GenericFacts
from vcmcodec.vision.geometry import InputGeometry, fill, prepare
from vcmcodec.vision.predictions import Predictions
from vcmcodec.vision.sight import DEPTHS, Sight, channel_weights

NAME = "semantic"
SPLIT = FEATURE
LEVELS = 8
DEFAULT_QUALITY = 60.0
LMBDAS = tuple(0.1 * 80 ** (i / (LEVELS - 1)) for i in range(LEVELS))
RATE_WEIGHT = 3.0  # of the error, where rounding weighs bits; as for pyramids (decisions/0008)
LATENT = LatentShape(
    slices=(16, 48, 96), phases=(2, 2, 2), layers=(0, 0, 0), hyper=8, levels=LEVELS
)
# bits a pixel that a distance of 1 in what is seen is worth where a latent is adapted: at quality
# 0, and how many times that at 100
SIGHT_PRICE = (0.03, 100.0)
OWN = "generic."  # prefix of the network's tensors in a weight file


@dataclass(frozen=True, eq=False)
class SemanticModel:
    """Everything that ships; the codec is bound to the encoder.

    Attributes:
        coding: codec and tables.
        encoder: picture to feature, folded.
        adaptor: decoded feature to that of the vision network, folded.
        facts: input size, and which vision network that is.
    """

    coding: Model[SemanticCodec]
    encoder: Encoder
    adaptor: Adaptor
    facts: GenericFacts

    @property
    def fingerprint(self) -> bytes:
        """What a file's header must carry."""
        return self.coding.fingerprint

    def to(self, device: torch.device) -> None:
        """Move the networks and the transforms."""
        self.coding.to(device)
        self.encoder.to(device)
        self.adaptor.to(device)


def pack(
    model: Model[SemanticCodec], encoder: Encoder, adaptor: Adaptor, facts: GenericFacts
) -> tuple[dict[str, Tensor], dict[str, str]]:
    """Tensors and metadata of a weight file.

    Raises:
        WeightsError: the codec is not bound to this encoder, or not provably exact.
    """
    own, about = generic.pack(encoder, adaptor, facts)
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
    encoder, adaptor, facts = generic.unpack(own, metadata)
    found, bound = generic.fingerprint(own), coding.codec.binding
    if found != bound:
        raise WeightsError(f"the encoder's fingerprint is {found}, the codec's {bound}")
    channels = encoder.config.c3, adaptor.shape["inputs"]
    if channels != (coding.codec.shape.channels,) * 2:
        raise WeightsError("encoder, codec and adaptor do not agree on the feature's channels")
    return SemanticModel(coding, encoder, adaptor, facts)


def splits(model: SemanticModel) -> tuple[str, ...]:
    """Split points that the model codes: the one."""
    return (SPLIT,)


@torch.inference_mode()
def extract(model: SemanticModel, rgb: np.ndarray, split: str, device: str) -> Features:
    """The filtered feature of a picture (H, W, 3) uint8."""
    image, geometry = prepare(rgb, model.facts.longer_side)
    feature = model.encoder(image.to(model.encoder.network.mean.device))
    return Features(split, {FEATURE: feature}, geometry, model.coding.codec.binding)


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


@torch.inference_mode(False)  # what it reads may come from there
def adapt(
    model: SemanticModel, source: FeatureSource, analysed: Tensor, rate_level: int, effort: int
) -> Tensor:
    """Move the latent to where the vision network sees more for its bits (decisions/0012).

    It sees more where it sees what it sees in the picture itself; where that is not at hand, in the
    feature that was not coded.
    """
    codec, labels = model.coding.codec, source.place.labels
    device = codec.synthesis.enter.weight.device
    level, geometry = Level(rate_level, codec.latent.levels), geometry_of(labels, device)
    network = _reference(model, str(device)).model.network
    with torch.no_grad():
        looking = Sight(network, {})
        if source.rgb is None:
            feature = source.tensors[FEATURE].clone().to(device)
            clean = looking.going_on({SPLIT: model.adaptor(feature)})
        else:
            clean = looking.clean(fill(source.rgb, source.place.geometry).to(device))
    names = [name for name in DEPTHS if name in clean.features and name != "c2"]
    sight = Sight(network, channel_weights([clean.features], names))
    pixels = labels.size * LATENT_STRIDE**2
    worth = SIGHT_PRICE[0] * SIGHT_PRICE[1] ** (rate_level / RATE_LEVEL_MAX) * pixels

    def away(latent: Tensor) -> Tensor:
        feature = codec.synthesis(latent.to(device), geometry)
        with sight.precision():
            made = model.adaptor(feature)
        return worth * sight.distance(sight.going_on({SPLIT: made}), clean)[0]

    aim = Aim(model.coding, labels, level, price(codec, rate_level), away)
    return seek(aim, analysed.reshape(labels.size, -1), effort).reshape(analysed.shape)


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
    """What the vision network's rest finds in the adapted feature.

    Raises:
        WeightsError: that network is not installed, or another than the adaptor was taught for.
    """
    backend = _reference(model, device)
    feature = model.adaptor(found.tensors[FEATURE].to(device))
    at = Features(SPLIT, {FEATURE: feature}, found.geometry, backend.fingerprint)
    return backend.results(backend.rest(at, tasks), found.geometry, score)


def _reference(model: SemanticModel, device: str) -> ReferenceBackend:
    """The installed vision network that the adaptor leads to.

    Raises:
        WeightsError: it is not installed, or another than the adaptor was taught for.
    """
    backend = features.bound_network(model.facts.reference, device)
    if backend.model.network.config.c3 != model.adaptor.shape["outputs"]:
        raise WeightsError("the adaptor and the vision network do not agree on channels")
    return backend
