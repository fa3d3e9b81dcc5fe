"""A small vision network and feature transform, seeded and installed beside the scene model."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from pathlib import Path

import torch

from vcmcodec import pretrained
from vcmcodec.nn.feature_transform import FeatureTransform, FeatureTransformConfig
from vcmcodec.training.export import enter
from vcmcodec.training.tasks_export import export
from vcmcodec.vision import weights
from vcmcodec.vision.config import VisionConfig
from vcmcodec.vision.labels import VOC
from vcmcodec.vision.network import TASKS, VisionNetwork
from vcmcodec.vision.sight import DEPTHS, channel_weights

QUALITIES = {"detection": 30.0, "segmentation": 25.0, "classification": 10.0}
ADAPTED = {"detection": 12.0, "segmentation": 12.0, "classification": 5.0}
CHANNELS = 12
SMALL = VisionConfig(stem=8, c2=8, c3=CHANNELS, c4=8, c5=8, pyramid=(8, 8, 8), head=8)


def small_network() -> VisionNetwork:
    """A network that finds something everywhere."""
    torch.manual_seed(0)
    network = VisionNetwork(SMALL).eval()
    for out in (*network.detection.class_outs, network.segmentation.out):
        torch.nn.init.normal_(out.weight)
        torch.nn.init.zeros_(out.bias)
    with torch.no_grad():
        network.segmentation.out.bias[0] = -2  # no class is sure to be there
    return network


def small_transform() -> FeatureTransform:
    """A transform whose every part has a say."""
    torch.manual_seed(1)
    config = FeatureTransformConfig(
        channels=CHANNELS,
        blocks=1,
        halves=8,
        around=8,
        split_blocks=1,
    )
    transform = FeatureTransform(config)
    for parameter in transform.parameters():
        torch.nn.init.normal_(parameter, std=0.2)
    return transform


def small_sight() -> dict[str, torch.Tensor]:
    """What errors in the small network's features count."""
    network = small_network().fold()
    crops = torch.rand(2, 3, 64, 64, generator=torch.Generator().manual_seed(3))
    with torch.no_grad():
        return channel_weights([network.features(crops)], tuple(DEPTHS))


def install_network(folder: Path, longer_side: int = 320) -> str:
    """Put the vision network alone into a folder; its fingerprint."""
    blob = weights.pack(small_network(), labels=VOC, longer_side=longer_side)
    mark = hashlib.sha256(blob).hexdigest()[:16]
    enter(folder, "vision-small", "vision", blob, mark, tasks=list(TASKS))
    return mark


def install(
    folder: Path, *, scene: str | None = None, replaced: dict[str, torch.Tensor] | None = None,
    longer_side: int = 320, shares: Sequence[tuple[float, float]] = (),
    coded_side: int | None = None, effort: int | None = None,
) -> Path:  # fmt: skip
    """Fill a folder for `VCMCODEC_WEIGHTS`; the models in it fit the installed scene model.

    With an effort the tasks model says what its network's channels count, too.
    """
    vision = install_network(folder, longer_side)
    export(
        small_transform(),
        folder,
        "tasks-small",
        scene=scene or pretrained.find(profile="scene").fingerprint,
        vision=vision,
        base_quality=QUALITIES,
        replaced=replaced,
        preview_shares=shares,
        longer_side=coded_side,
        effort=effort or 0,
        sight=None if effort is None else small_sight(),
        sight_prices=() if effort is None else ((0.0, 0.2), (100.0, 20.0)),
        adapted_quality=None if effort is None else ADAPTED,
    )
    return folder
