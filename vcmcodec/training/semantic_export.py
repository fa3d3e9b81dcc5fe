"""From the stages of a semantic run to a weight file that ships."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
from safetensors.torch import load_file, save
from torch import Tensor

from vcmcodec.nn.model_tensors import Model
from vcmcodec.profiles import semantic as profile
from vcmcodec.profiles.semantic import SemanticModel
from vcmcodec.training import export, semantic_run
from vcmcodec.training.photographs import PhotographCrops
from vcmcodec.training.semantic_adaptor import STAGE
from vcmcodec.vision import generic
from vcmcodec.vision.generic import Adaptor, GenericFacts


def read_adaptor(folder: Path) -> tuple[Adaptor, str]:
    """A finished stage's adaptor, folded, and the fingerprint of the network that it leads to.

    Raises:
        RequestError: the stage has not been run there.
    """
    path = semantic_run.result(folder, STAGE)
    about = semantic_run.facts_of(path)
    adaptor = Adaptor(**about["adaptor"]).fold()
    adaptor.load_state_dict(load_file(path))
    return adaptor, str(about["reference"])


def export_model(
    folder: Path,
    data: Sequence[Path],
    *,
    crops: int = 400,
    crop: int = 256,
    seed: int = 7,
    show: Callable[[str], None] = print,
) -> tuple[bytes, str, str]:
    """Freeze everything that ships, count symbols on training crops, fit the tables.

    Args:
        folder: of all stages, each of them done.
        data: folders or tar shards of photographs.

    Returns:
        The bytes of a safetensors file, the model's fingerprint and that of its encoder, both in
        hexadecimal digits.
    """
    learned, network = semantic_run.read_codec(folder)
    adaptor, mark = read_adaptor(folder)
    facts = GenericFacts(semantic_run.LONGER_SIDE, mark)
    random = np.random.default_rng(seed)
    pool = PhotographCrops(data, crop, upright=True)

    def count(model: Model) -> np.ndarray:
        def latent_of(crop: Tensor, labels: np.ndarray) -> Tensor:
            feature = semantic_run.features_of(network, crop)
            return profile.latent_of(model.codec, feature, labels)

        drawn = pool.batch(crops, random)
        return export.count_base_symbols(model, drawn, random, latent_of, profile.price)

    model = export.fit_model(learned.codec, count, show)
    return _packed(SemanticModel(model, generic.encoder_of(network), adaptor, facts))


def export_adaptor(start: SemanticModel, folder: Path) -> tuple[bytes, str, str]:
    """An installed model with an adaptor that was taught behind it; see `export_model`.

    Its codec stays, so it keeps its fingerprint, and files that were made before can be read.
    """
    adaptor, mark = read_adaptor(folder)
    facts = GenericFacts(start.facts.longer_side, mark)
    return _packed(SemanticModel(start.coding, start.encoder, adaptor, facts))


def _packed(model: SemanticModel) -> tuple[bytes, str, str]:
    tensors, metadata = profile.pack(model.coding, model.encoder, model.adaptor, model.facts)
    profile.read_model(dict(tensors), dict(metadata))
    return save(tensors, metadata), metadata["fingerprint"], model.coding.codec.binding
