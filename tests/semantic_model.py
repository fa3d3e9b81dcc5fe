"""A small semantic model for tests: untrained, but for principal components of its own feature.

Its adaptor leads to the small vision network of `task_models`.
"""

from __future__ import annotations

from functools import cache
from pathlib import Path

import torch
from safetensors.torch import save

from photographs import NAMES, photograph
from task_models import SMALL, install_network
from vcmcodec.nn.latent_model import LatentShape
from vcmcodec.nn.model_tensors import Model
from vcmcodec.nn.semantic_codec import SemanticCodec, SemanticShape
from vcmcodec.profiles import semantic
from vcmcodec.training import export
from vcmcodec.training.semantic import start_at_pca
from vcmcodec.vision import generic
from vcmcodec.vision.config import VisionConfig
from vcmcodec.vision.generic import Adaptor, GenericFacts, GenericNetwork
from vcmcodec.vision.geometry import prepare

LATENT = LatentShape(slices=(8, 24), phases=(2, 2), layers=(0, 0), hyper=4, levels=semantic.LEVELS)
CONFIG = VisionConfig(
    stem=8, c2=12, c3=16, c4=24, c5=32, blocks=(0, 1, 1, 0), pyramid=(16, 16, 16), head=16
)
LONGER_SIDE = 256


@cache
def _rounded() -> tuple[GenericNetwork, str]:
    torch.manual_seed(5)
    return generic.rounded(GenericNetwork(CONFIG))


def network() -> GenericNetwork:
    """Not trained; folded, and rounded as in a weight file."""
    return _rounded()[0]


@cache
def codec() -> SemanticCodec:
    """At its start, but for a little of everything that starts at zero."""
    torch.manual_seed(1)
    mark = _rounded()[1]
    shape = SemanticShape(CONFIG.c3, width=24)
    made = SemanticCodec(shape, LATENT, semantic.LMBDAS, mark)
    with torch.no_grad():
        pictures = [prepare(photograph(name, 256, 320), 320)[0] for name in NAMES]
        start_at_pca(made, [network().feature(one) for one in pictures])
        for name, value in made.named_parameters():
            if name.endswith(("reduce.weight", "join.weight")):
                value.normal_(0, 0.05)
            elif name.endswith("last.weight") and name.startswith("entropy."):
                value.normal_(0, 10)
            elif name.endswith("hyper_analysis.last.weight"):
                value.normal_(0, 1)
    return made.eval().requires_grad_(False)


@cache
def adaptor() -> Adaptor:
    """Not trained."""
    torch.manual_seed(9)
    return Adaptor(CONFIG.c3, SMALL.c3, width=16, blocks=1).fold()


def tensors(reference: str) -> tuple[dict[str, torch.Tensor], dict[str, str]]:
    """What a weight file of the model holds, for a vision network of that fingerprint."""
    made = codec()
    made.entropy.freeze()
    made.gains.freeze()
    model = Model(made, export.first_tables(LATENT.hyper), b"")
    facts = GenericFacts(LONGER_SIDE, reference)
    return semantic.pack(model, generic.encoder_of(network()), adaptor(), facts)


def install(folder: Path) -> str:
    """Write both models and their manifest to a folder; the vision network's fingerprint."""
    reference = install_network(folder)
    values, metadata = tensors(reference)
    blob, mark = save(values, metadata), metadata["fingerprint"]
    facts = {"splits": [semantic.SPLIT], "network": codec().binding, "licence": "none"}
    export.enter(folder, "semantic-test", "semantic", blob, mark, **facts)
    return reference
