"""A network of one's own behind a filter: the generic feature of the `semantic` profile.

The encoder is the front of the reference network's architecture with weights that no label ever
touched; the filter removes from its feature what analysis does not need.  An adaptor makes of the
decoded feature what a vision network has at its own split point, and that network's rest goes on.
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
from vcmcodec.nn.unfilled import Unfilled
from vcmcodec.vision.config import VisionConfig
from vcmcodec.vision.layers import ConvNorm, Residual, channels_last, fold_norms
from vcmcodec.vision.network import VisionNetwork, stage
from vcmcodec.vision.weights import FINGERPRINT_DIGITS

FORMAT = "vcm-generic-2"
KEY = "generic"
ADAPTOR = "adaptor."
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
    """Encoder, filter and the stages behind the feature that self-supervision looks at.

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


class Front(nn.Module):
    """What makes the feature before it is filtered: the parts of a network up to c3."""

    mean: Tensor
    scale: Tensor

    def __init__(self, config: VisionConfig) -> None:
        super().__init__()
        self.register_buffer("mean", torch.zeros(1, 3, 1, 1))
        self.register_buffer("scale", torch.ones(1, 3, 1, 1))
        self.stem = ConvNorm(3, config.stem, 6, 2, act="silu")
        self.c2 = stage(config.stem, config.c2, config.blocks[0])
        self.c3 = stage(config.c2, config.c3, config.blocks[1])

    def forward(self, rgb: Tensor) -> Tensor:
        """(N, 3, H, W) in 0..1, sides multiples of 32, to (N, c3, H / 8, W / 8)."""
        out: Tensor = self.c3(self.c2(self.stem((rgb - self.mean) * self.scale)))
        return out


class Encoder(nn.Module):
    """Front and filter, as they ship: `GenericNetwork` without what lies behind the feature.

    Args:
        config: shape of the network; what lies behind c3 is not read.
        filtered: whether there is a filter.
    """

    def __init__(self, config: VisionConfig, *, filtered: bool = True) -> None:
        super().__init__()
        self.network = Front(config)
        self.filter: nn.Module = InformationFilter(config.c3) if filtered else nn.Identity()
        self.config, self.filtered = config, filtered

    def forward(self, rgb: Tensor) -> Tensor:
        """As `GenericNetwork.feature`."""
        out: Tensor = self.filter(self.network(rgb))
        return out


class Adaptor(nn.Module):
    """Decoded feature to the feature of a vision network at the same stride.

    Args:
        inputs, outputs: channels.
        width, blocks: channels and residual blocks inside.
    """

    def __init__(self, inputs: int, outputs: int, width: int = 96, blocks: int = 3) -> None:
        super().__init__()
        self.shape = {"inputs": inputs, "outputs": outputs, "width": width, "blocks": blocks}
        self.enter = ConvNorm(inputs, width, act="silu")
        self.blocks = nn.Sequential(*[Residual(width, "silu") for _ in range(blocks)])
        self.leave = nn.Conv2d(width, outputs, 1)

    def forward(self, feature: Tensor) -> Tensor:
        """(N, inputs, h, w) to (N, outputs, h, w)."""
        out: Tensor = self.leave(self.blocks(self.enter(feature)))
        return out

    def fold(self) -> Adaptor:
        """Merge the batch norms, in place, and go to evaluation; returns self."""
        self.eval()
        fold_norms(self)
        return self


@dataclass(frozen=True)
class GenericFacts:
    """What a weight file says of the networks.

    Attributes:
        longer_side: input size, pixels.
        reference: fingerprint of the vision network that the adaptor leads to, 16 hexadecimal
            digits.
    """

    longer_side: int
    reference: str


def _kind(name: str, value: Tensor) -> torch.dtype:
    return torch.float16 if name.endswith("weight") and value.dim() == 4 else torch.float32


def _rounded(module: nn.Module) -> dict[str, Tensor]:
    """Tensors as they are stored: kernels in float16, the rest in float32."""
    return {
        name: value.detach().cpu().contiguous().to(_kind(name, value))
        for name, value in module.state_dict().items()
    }


def rounded(network: GenericNetwork) -> tuple[GenericNetwork, str]:
    """A folded copy that is rounded as in a weight file, and its encoder's fingerprint."""
    copy = GenericNetwork(network.network.config, filtered=network.filtered)
    copy.load_state_dict(network.state_dict())
    tensors = _rounded(copy.fold())
    copy.load_state_dict({name: value.float() for name, value in tensors.items()})
    return channels_last(copy).requires_grad_(False), fingerprint(tensors)


def encoder_of(network: GenericNetwork) -> Encoder:
    """The part of a folded network that ships."""
    encoder = Encoder(network.network.config, filtered=network.filtered)
    fold_norms(encoder.eval())
    own = encoder.state_dict()
    encoder.load_state_dict({n: v for n, v in network.state_dict().items() if n in own})
    return encoder


def pack(
    encoder: Encoder, adaptor: Adaptor, facts: GenericFacts
) -> tuple[dict[str, Tensor], dict[str, str]]:
    """Tensors and metadata of folded networks."""
    tensors = _rounded(encoder)
    tensors |= {ADAPTOR + name: value for name, value in _rounded(adaptor).items()}
    about = {
        "format": FORMAT,
        "config": asdict(encoder.config),
        "filtered": encoder.filtered,
        "adaptor": adaptor.shape,
    }
    return tensors, {KEY: json.dumps({**about, **asdict(facts)}, sort_keys=True)}


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
) -> tuple[Encoder, Adaptor, GenericFacts]:
    """Undo `pack`; the networks are folded, in evaluation mode and without gradients.

    Raises:
        WeightsError: these are not the weights of such networks.
    """
    try:
        about: dict[str, Any] = json.loads(metadata[KEY])
        if about["format"] != FORMAT:
            raise WeightsError(f"{about['format']} is not the format of a generic network")
        with Unfilled():
            encoder = Encoder(VisionConfig.read(about["config"]), filtered=about["filtered"]).eval()
            adaptor = Adaptor(**about["adaptor"]).fold()
        fold_norms(encoder)
        own = {n: v.float() for n, v in tensors.items() if not n.startswith(ADAPTOR)}
        encoder.load_state_dict(own)
        adaptor.load_state_dict(
            {n.removeprefix(ADAPTOR): v.float() for n, v in tensors.items() if n not in own}
        )
        facts = GenericFacts(int(about["longer_side"]), str(about["reference"]))
    except (KeyError, TypeError, ValueError, RuntimeError) as error:
        raise WeightsError(f"these are not the weights of a generic network: {error}") from error
    for part in (encoder, adaptor):
        channels_last(part).requires_grad_(False)
    return encoder, adaptor, facts
