"""A small pyramid model for tests: principal components of the shipped network's features."""

from __future__ import annotations

from functools import cache
from pathlib import Path

import torch

from photographs import NAMES, photograph
from vcmcodec.nn.latent_model import LatentShape
from vcmcodec.nn.model_tensors import Model
from vcmcodec.nn.pyramid_codec import PyramidCodec
from vcmcodec.profiles import pyramid
from vcmcodec.training import export
from vcmcodec.training.pyramid import start_at_pca
from vcmcodec.vision.backend import ReferenceBackend, open_backend

LATENT = LatentShape(slices=(8, 24), phases=(4, 2), layers=(0, 0), hyper=4, levels=pyramid.LEVELS)


@cache
def backend() -> ReferenceBackend:
    """The network that is installed."""
    found = open_backend()
    assert isinstance(found, ReferenceBackend)
    return found


@cache
def codec() -> PyramidCodec:
    """Not trained: at its start, but for a little of everything that starts at zero."""
    torch.manual_seed(1)
    model = backend().model
    shape = pyramid.shape_for(model.network.config, width=40, blocks=1)
    made = PyramidCodec(shape, LATENT, pyramid.LMBDAS, model.fingerprint, pyramid.SPLIT)
    start_at_pca(made, [backend().head(photograph(n, 256, 320), "fpn").tensors for n in NAMES])
    with torch.no_grad():
        for name, value in made.named_parameters():
            if name.endswith(("reduce.weight", "mix.weight")):
                value.normal_(0, 0.02)
            elif name.endswith("last.weight") and name.startswith("entropy."):
                value.normal_(0, 10)
            elif name.endswith("hyper_analysis.last.weight"):
                value.normal_(0, 1)
    return made.eval().requires_grad_(False)


def install(folder: Path) -> None:
    """Write the model and its manifest to a folder; the network is found where it is installed."""
    made = codec()
    made.entropy.freeze()
    made.gains.freeze()
    model = Model(made, export.first_tables(LATENT.hyper), b"")
    blob, mark = export.write_model(model)
    facts = {"splits": [pyramid.SPLIT], "network": made.binding, "licence": "none"}
    export.enter(folder, "pyramid-test", "pyramid", blob, mark, **facts)
