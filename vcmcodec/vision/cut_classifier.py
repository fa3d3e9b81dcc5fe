"""A torchvision classifier that can be cut: what crosses each cut, and what lies behind it.

    ResNet    stem /4 -> layer1 /4 -> layer2 /8 -> layer3 /16 -> layer4 /32 -> pooling, classes
    others    ... -> features13 -> features17 -> features -> the rest (MobileNet, EfficientNet, ...)

Of a network whose `features` are blocks, `features13` is what block 13 gives; see `block_ends`.

One tensor crosses each cut, and bears the split point's name.  The weights are the user's own: they
are read, and never changed.
"""

from __future__ import annotations

import copy
import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from vcmcodec.errors import RequestError
from vcmcodec.vision.split import SplitPoint
from vcmcodec.vision.weights import FINGERPRINT_DIGITS

RESNET = ("stem", "layer1", "layer2", "layer3", "layer4")
FEATURES = "features"
MEAN, DEVIATION = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)  # of ImageNet's pictures
_PROBE = 64  # side in pixels of a picture that tells the strides


class Given(nn.Module):
    """Stands in for a part of a network and gives what was computed before."""

    def __init__(self, features: Any) -> None:
        super().__init__()
        self._features = features

    def forward(self, x: Tensor) -> Any:
        """Whatever the input is."""
        return self._features


def replaced(network: nn.Module, name: str, stand_in: nn.Module) -> Any:
    """A network of the same parts but one, which another module stands for.

    The network itself stays as it is: others may be looking through it.
    """
    other = copy.copy(network)
    other._modules = {**network._modules, name: stand_in}
    return other


def normal(rgb: Tensor) -> Tensor:
    """Pictures (N, 3, H, W) in 0..1 as torchvision's classifiers and segmenters want them."""
    mean, deviation = (rgb.new_tensor(v).view(3, 1, 1) for v in (MEAN, DEVIATION))
    return (rgb - mean) / deviation


@torch.inference_mode()
def block_ends(blocks: nn.Sequential) -> list[int]:
    """Where a sequence of blocks can be cut well: behind the last block of each resolution.

    And before the last block, which in networks for mobile devices multiplies the channels: what
    crosses there is the same in fewer numbers.

    Args:
        blocks: from the picture on.

    Returns:
        Indices of blocks, the last one's among them; it alone where the parts are single layers.
    """
    last = len(blocks) - 1
    if not all(any(True for _ in block.children()) for block in blocks):
        return [last]
    device = next(blocks.parameters()).device
    x, rows = torch.zeros((1, 3, _PROBE, _PROBE), device=device), []
    for block in blocks:
        x = block(x)
        rows.append(x.shape[2])
    return [i for i in range(last + 1) if i >= last - 1 or rows[i + 1] < rows[i]]


class CutClassifier(nn.Module):
    """A frozen classifier and its split points.

    Attributes:
        network: torchvision's own.
        splits: names of the split points, from the picture inwards; may be none.
    """

    def __init__(self, network: nn.Module) -> None:
        """Take a network; it goes to evaluation and needs no gradients any more."""
        super().__init__()
        self.network: Any = network.eval().requires_grad_(False)
        parts = self._cut()
        self.splits = tuple(parts)
        self._stages = list(parts.values())  # a plain list: these are modules of the network

    @property
    def device(self) -> torch.device:
        """Where it runs."""
        return next(self.parameters()).device

    def _cut(self) -> dict[str, nn.Module]:
        """Split points and the parts up to each from the one before, from the picture inwards."""
        net = self.network
        if hasattr(net, "layer4"):
            stem = nn.Sequential(net.conv1, net.bn1, net.relu, net.maxpool)
            return dict(zip(RESNET, [stem, *(getattr(net, n) for n in RESNET[1:])], strict=True))
        features = getattr(net, FEATURES, None)
        if not isinstance(features, nn.Module):
            return {}
        if not isinstance(features, nn.Sequential):
            return {FEATURES: features}
        ends = block_ends(features)
        names = [*(f"{FEATURES}{end}" for end in ends[:-1]), FEATURES]
        starts = [0, *(end + 1 for end in ends[:-1])]
        parts = [features[a : b + 1] for a, b in zip(starts, ends, strict=True)]
        return dict(zip(names, parts, strict=True))

    def front_end(self, rgb: Tensor, split: str) -> dict[str, Tensor]:
        """What crosses a split point, (N, C, h, w), of pictures (N, 3, H, W) in 0..1.

        Raises:
            RequestError: there is no such split point.
        """
        if split not in self.splits:
            known = ", ".join(self.splits) or "none"
            raise RequestError(f"no split point {split}; there are {known}")
        x = normal(rgb)
        for stage in self._stages[: self.splits.index(split) + 1]:
            x = stage(x)
        return {split: x}

    def features(self, rgb: Tensor) -> dict[str, Tensor]:
        """What crosses every split point."""
        first = self.splits[0]
        return self.deeper(self.front_end(rgb, first)[first], first)

    def deeper(self, tensor: Tensor, split: str) -> dict[str, Tensor]:
        """A split point's tensor, and those of all split points behind it; gradients reach it."""
        found = {split: tensor}
        place = self.splits.index(split) + 1
        for name, stage in zip(self.splits[place:], self._stages[place:], strict=True):
            tensor = stage(tensor)
            found[name] = tensor
        return found

    def classify(self, features: Mapping[str, Tensor]) -> Tensor:
        """Logits (N, classes) from the last split point's tensor."""
        net, last = self.network, features[self.splits[-1]]
        logits: Tensor
        if self.splits[-1] == FEATURES:
            # some networks go on in place, which must not change what the caller holds
            logits = replaced(net, FEATURES, Given(last.clone()))(last)
        else:
            logits = net.fc(torch.flatten(net.avgpool(last), 1))
        return logits

    @torch.inference_mode()
    def points(self) -> dict[str, SplitPoint]:
        """Channels and stride of what crosses each split point.

        Raises:
            RequestError: the network cannot be cut, or a tensor's cells are no whole pixels.
        """
        if not self.splits:
            raise RequestError("this network has no split point")
        found = {}
        blank = torch.zeros((1, 3, _PROBE, _PROBE), device=self.device)
        for name, tensor in self.features(blank).items():
            channels, rows = tensor.shape[1:3]
            if _PROBE % rows:
                raise RequestError(f"split point {name}: {_PROBE} pixels become {rows} cells")
            found[name] = SplitPoint(name, {name: channels}, {name: _PROBE // rows})
        return found


def fingerprint(name: str, network: nn.Module) -> str:
    """16 hexadecimal digits of a network's weights, however they are kept in a file.

    Args:
        name: of its kind; the same tensors in another network are another one.
        network: its floating point tensors count, in name order; counters do not.
    """
    digest = hashlib.sha256(name.encode())
    for key, value in sorted(network.state_dict().items()):
        if value.is_floating_point():
            exact = value.detach().to("cpu", torch.float32).contiguous()
            digest.update(f"{key} {tuple(value.shape)}\n".encode())
            digest.update(exact.numpy().astype("<f4", copy=False).tobytes())
    return digest.hexdigest()[:FINGERPRINT_DIGITS]


@dataclass(frozen=True, eq=False)
class ClassifierModel:
    """A classifier of the user's own, ready to be cut.

    Attributes:
        name: as `vision.backend.open_backend` knows it, without its file: `torchvision:resnet18`.
        network: in evaluation mode.
        labels: the classes, in the order of the logits.
        fingerprint: of its weights.
    """

    name: str
    network: CutClassifier
    labels: tuple[str, ...]
    fingerprint: str
