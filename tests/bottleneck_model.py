"""A small bottleneck model for tests: principal components of the shipped network's tensors."""

from __future__ import annotations

from functools import cache
from pathlib import Path

import torch

from photographs import NAMES, photograph
from vcmcodec.profiles import bottleneck
from vcmcodec.training import bottleneck_export, export
from vcmcodec.training.bottleneck import Learned, start_at_pca
from vcmcodec.vision.backend import ReferenceBackend, open_backend
from vcmcodec.vision.split import split_points

LATENTS = {8: 12, 16: 12, 32: 16}
SPLITS = ("c4", "c3", "c5", "fpn")


@cache
def backend() -> ReferenceBackend:
    """The network that is installed."""
    found = open_backend()
    assert isinstance(found, ReferenceBackend)
    return found


def pictures(height: int = 128, width: int = 160) -> torch.Tensor:
    """Pieces of all photographs, (N, 3, height, width) in 0..1."""
    pieces = [
        torch.from_numpy(photograph(name, height, width, top, 60))
        for name in NAMES
        for top in (0, 110)
    ]
    return torch.stack(pieces).permute(0, 3, 1, 2).float() / 255


def tensors_of(images: torch.Tensor, split: str) -> dict[str, torch.Tensor]:
    """What crosses a split point."""
    with torch.inference_mode():
        return backend().model.network.front_end(images, split)


def learned(splits: tuple[str, ...] = SPLITS, latents: dict[int, int] | None = None) -> Learned:
    """Units at their start, but for a little of everything that starts at zero."""
    torch.manual_seed(1)
    model = backend().model
    shape = bottleneck.shape_for(model.network.config, splits, latents or LATENTS)
    made = Learned(bottleneck.build(shape, model.fingerprint))
    points = split_points(model.network.config)
    sample: dict[str, torch.Tensor] = {}
    for split in splits:
        assert set(points[split].channels) <= {unit.name for unit in shape.units}
        sample |= tensors_of(pictures(), split)
    start_at_pca(made, [sample])
    with torch.no_grad():
        for name, value in made.codec.named_parameters():
            if name.endswith("reduce.weight"):
                value.normal_(0, 0.02)
            elif name.endswith(".taps"):
                value.add_(0.03 * torch.randn_like(value))
    return made


@cache
def blob() -> tuple[bytes, str]:
    """The weight file of the model, and its fingerprint."""
    made = learned()
    return bottleneck_export.export_model(made.codec, backend().model, pictures(160, 320), show=len)


def install(folder: Path) -> None:
    """Write the model and its manifest to a folder; the network is found where it is installed."""
    data, mark = blob()
    facts = {"splits": list(SPLITS), "network": backend().model.fingerprint, "licence": "none"}
    export.enter(folder, "bottleneck-test", "bottleneck", data, mark, **facts)
