"""A network of one's own behind a filter: the generic feature of the `semantic` profile.

The encoder is the front of the reference network's architecture with weights that no label ever
touched; the filter removes from its feature what analysis does not need; what lies behind (deeper
stages, pyramid, heads) reads the feature after it was decoded.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

import torch
from torch import Tensor, nn

from vcmcodec.errors import WeightsError
from vcmcodec.vision.layers import channels_last, fold_norms
from vcmcodec.vision.network import VisionConfig, VisionNetwork
from vcmcodec.vision.weights import FINGERPRINT_DIGITS

FORMAT = "vcm-generic-1"
KEY = "generic"
ENCODER = ("mean", "scale", "stem.", "c2.", "c3.")  # parts of the network that make the feature
CONFIG = VisionConfig(stem=16, c5=192, blocks=(1, 1, 2, 1), pyramid=(80, 80, 80), head=64)
LEAST_STEP = 0.25  # a value's step in its price, in root mean squares of the feature


class InformationFilter(nn.Module):
    """A gate of every value of a feature, from its position alone.

    The gate is a sigmoid stretched a little below 0 and cut off there, so it can shut for good
    (as the hard concrete gates of Louizos et al. 2018; at 1 there is no such edge, since a gate
    must be able to leave it).  A price in bits on what it lets through closes it wherever the
    other losses do not object.
    """

    STRETCH = 0.1

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.gate = nn.Conv2d(channels, channels, 1)
        nn.init.normal_(self.gate.weight, std=0.01)
        assert self.gate.bias is not None
        nn.init.constant_(self.gate.bias, 2.5)  # open to begin with

    def openness(self, feature: Tensor) -> Tensor:
        """The gates, 0..1, of a feature (N, C, h, w)."""
        wide = torch.sigmoid(self.gate(feature)) * (1 + self.STRETCH) - self.STRETCH
        return wide.clamp(min=0)

    def forward(self, feature: Tensor) -> Tensor:
        """(N, C, h, w) to the same shape."""
        return feature * self.openness(feature)


def price(feature: Tensor, scale: Tensor) -> Tensor:
    """Bits a value that a feature would cost: those of a Gaussian channel with noise of one step.

    Args:
        feature: filtered, any shape.
        scale: its root mean square before it was filtered; no gradient passes through it, so that
            the price cannot be had by making everything smaller.
    """
    step = LEAST_STEP * scale.detach().clamp(min=1e-6)
    return 0.5 * torch.log2(1 + (feature / step).square()).mean()


class GenericNetwork(nn.Module):
    """Encoder, filter and everything behind the decoded feature.

    Args:
        config: shape of the network.
        filtered: whether there is a filter.
    """

    def __init__(self, config: VisionConfig = CONFIG, *, filtered: bool = True) -> None:
        super().__init__()
        self.network = VisionNetwork(config)
        self.filter: nn.Module = InformationFilter(config.c3) if filtered else nn.Identity()
        self.filtered = filtered

    def feature(self, rgb: Tensor) -> Tensor:
        """The generic feature (N, c3, H / 8, W / 8) of pictures (N, 3, H, W) in 0..1."""
        out: Tensor = self.filter(self.network.front_end(rgb, "c3")["c3"])
        return out

    def deeper(self, feature: Tensor) -> dict[str, Tensor]:
        """c4 and c5 behind a feature."""
        c4 = self.network.c4(feature)
        return {"c4": c4, "c5": self.network.c5(c4)}

    def fold(self) -> GenericNetwork:
        """Merge the batch norms, in place, and go to evaluation; returns self."""
        self.eval()
        fold_norms(self)
        return self


@dataclass(frozen=True)
class GenericFacts:
    """What a weight file says of the network.

    Attributes:
        labels: the classes of the heads.
        longer_side: input size, pixels.
        tasks: what the heads were trained for.
    """

    labels: tuple[str, ...]
    longer_side: int
    tasks: tuple[str, ...]


def pack(network: GenericNetwork, facts: GenericFacts) -> tuple[dict[str, Tensor], dict[str, str]]:
    """Tensors and metadata of a folded network: kernels in float16, the rest in float32."""
    tensors = {
        name: value.detach().cpu().contiguous().to(_kind(name, value))
        for name, value in network.state_dict().items()
    }
    config = asdict(network.network.config)
    about = {"format": FORMAT, "config": config, "filtered": network.filtered}
    return tensors, {KEY: json.dumps({**about, **asdict(facts)}, sort_keys=True)}


def _kind(name: str, value: Tensor) -> torch.dtype:
    return torch.float16 if name.endswith("weight") and value.dim() == 4 else torch.float32


def fingerprint(tensors: Mapping[str, Tensor]) -> str:
    """16 hexadecimal digits of what makes the feature, of tensors as `pack` gives them."""
    digest = hashlib.sha256()
    for name in sorted(tensors):
        own = name.removeprefix("network.")
        if name.startswith("filter.") or own.startswith(ENCODER):
            value = tensors[name]
            digest.update(f"{name} {tuple(value.shape)} {value.dtype}\n".encode())
            digest.update(value.contiguous().numpy().tobytes())
    return digest.hexdigest()[:FINGERPRINT_DIGITS]


def unpack(
    tensors: Mapping[str, Tensor], metadata: Mapping[str, str]
) -> tuple[GenericNetwork, GenericFacts]:
    """Undo `pack`; the network is folded, in evaluation mode and without gradients.

    Raises:
        WeightsError: these are not the weights of such a network.
    """
    try:
        about: dict[str, Any] = json.loads(metadata[KEY])
        if about["format"] != FORMAT:
            raise WeightsError(f"{about['format']} is not the format of a generic network")
        config = VisionConfig.read(about["config"])
        network = GenericNetwork(config, filtered=about["filtered"]).fold()
        network.load_state_dict({name: value.float() for name, value in tensors.items()})
        facts = GenericFacts(
            tuple(about["labels"]), int(about["longer_side"]), tuple(about["tasks"])
        )
    except (KeyError, TypeError, ValueError, RuntimeError) as error:
        raise WeightsError(f"these are not the weights of a generic network: {error}") from error
    return channels_last(network).requires_grad_(False), facts
