"""A feature transform as named tensors: what the tasks model of a codec and a vision network is.

It fits one picture model (whose base latent it reads) and one vision network (whose split tensor
it makes); both are named by their fingerprints.  Tensors of the vision network that were trained as
well (its first stages, for previews) stand beside it as `replaced.<name>`.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, fields
from itertools import pairwise
from typing import Any

import numpy as np
import torch
from torch import Tensor

from vcmcodec.bitstream.constants import MAX_SIDE
from vcmcodec.errors import WeightsError
from vcmcodec.nn.feature_transform import FeatureTransform, FeatureTransformConfig

FORMAT = "vcm-tasks-1"
KEY = "tasks"  # one entry: safetensors writes several in an order that changes
REPLACED = "replaced."
OWN = "transform."
# Kept in float32: they carry the whole signal.
FULL_PRECISION = ("mean", "scale", "bias")


@dataclass(frozen=True)
class TaskFacts:
    """What a tasks model says of itself, known without its tensors.

    Attributes:
        config: shape of the feature transform.
        scene: fingerprint of the picture model, 16 hexadecimal digits.
        vision: fingerprint of the vision network, likewise.
        split: split point whose tensor is made.
        base_quality: task -> lowest quality of the base layer, 0..100, that serves it.
        reduced_quality: the same where the picture is reduced before it is coded.
        preview_shares: (base quality, share of the replaced tensors, 0..1), by rising quality;
            linear in between.  none: they replace the network's own altogether.
        longer_side: pixels to which a picture that machines alone look at is reduced before it is
            coded; None: it is not.
        facts: what the model card says in numbers.
    """

    config: FeatureTransformConfig
    scene: str
    vision: str
    split: str
    base_quality: Mapping[str, float]
    reduced_quality: Mapping[str, float]
    preview_shares: tuple[tuple[float, float], ...]
    longer_side: int | None
    facts: Mapping[str, Any]

    def share_at(self, quality: float) -> float:
        """Share of the replaced tensors at a quality of the base layer, 0..100."""
        if not self.preview_shares:
            return 1.0
        qualities, shares = zip(*self.preview_shares, strict=True)
        return float(np.interp(quality, qualities, shares))


def pack(
    transform: FeatureTransform,
    *,
    scene: str,
    vision: str,
    base_quality: Mapping[str, float],
    replaced: Mapping[str, Tensor] | None = None,
    split: str = "c3",
    reduced_quality: Mapping[str, float] | None = None,
    preview_shares: Sequence[tuple[float, float]] = (),
    longer_side: int | None = None,
    facts: Mapping[str, Any] | None = None,
) -> tuple[dict[str, Tensor], dict[str, str]]:
    """Tensors and metadata for a safetensors file.

    Args:
        transform: the trained transform.
        scene: fingerprint of the picture model, 16 hexadecimal digits.
        vision: fingerprint of the vision network.
        base_quality: task -> default quality of the base layer.
        replaced: tensors that take the place of the (folded) vision network's own, by its names.
        split: split point of the vision network.
        reduced_quality: None for the same as `base_quality`.
        preview_shares, longer_side: see `TaskFacts`.
        facts: for the model card.
    """
    named = {OWN + name: value for name, value in transform.state_dict().items()}
    named |= {REPLACED + name: value for name, value in (replaced or {}).items()}
    tensors = {}
    for name, value in named.items():
        whole = name.endswith(FULL_PRECISION)
        kind = torch.float32 if whole else torch.float16
        tensors[name] = value.detach().cpu().to(kind).contiguous()
    about = {
        "format": FORMAT,
        "config": asdict(transform.config),
        "scene": scene,
        "vision": vision,
        "split": split,
        "base_quality": {task: float(value) for task, value in base_quality.items()},
        "reduced_quality": {t: float(value) for t, value in (reduced_quality or {}).items()},
        "preview_shares": [[float(q), float(share)] for q, share in preview_shares],
        "longer_side": longer_side,
        "facts": dict(facts or {}),
    }
    return tensors, {KEY: json.dumps(about, sort_keys=True)}


def read_facts(metadata: Mapping[str, str]) -> TaskFacts:
    """Read the metadata of a weight file.

    Raises:
        WeightsError: it is not that of a tasks model.
    """
    try:
        about = json.loads(metadata.get(KEY, "{}"))
        if about.get("format") != FORMAT:
            raise WeightsError(f"the file holds {about.get('format', 'no tasks model')}")
        known = {field.name for field in fields(FeatureTransformConfig)}
        config = FeatureTransformConfig(**{k: v for k, v in about["config"].items() if k in known})
        qualities = _qualities(about["base_quality"])
        reduced = qualities | _qualities(about.get("reduced_quality", {}))
        side = about.get("longer_side")
        if side is not None and not 1 <= int(side) <= MAX_SIDE:
            raise ValueError(f"{side} pixels are no side")
        return TaskFacts(
            config, str(about["scene"]), str(about["vision"]), str(about["split"]), qualities,
            reduced, _shares(about.get("preview_shares", ())), None if side is None else int(side),
            dict(about.get("facts", {})),
        )  # fmt: skip
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise WeightsError(f"these are not the weights of a tasks model: {error!r}") from error


def _qualities(table: Mapping[str, float]) -> dict[str, float]:
    """Qualities by task; ValueError where one is outside 0 to 100."""
    found = {str(task): float(value) for task, value in table.items()}
    if not all(0 <= value <= 100 for value in found.values()):
        raise ValueError(f"qualities {found} are outside 0 to 100")
    return found


def _shares(table: Sequence[Sequence[float]]) -> tuple[tuple[float, float], ...]:
    """Pairs of a quality and a share; ValueError where they are none, or do not ascend."""
    pairs = tuple((float(quality), float(share)) for quality, share in table)
    rising = all(low[0] < high[0] for low, high in pairwise(pairs))
    if not rising or not all(0 <= q <= 100 and 0 <= share <= 1 for q, share in pairs):
        raise ValueError(f"{pairs} are not shares by quality")
    return pairs


def unpack(
    tensors: Mapping[str, Tensor], metadata: Mapping[str, str]
) -> tuple[FeatureTransform, dict[str, Tensor], TaskFacts]:
    """Undo `pack`: the transform in evaluation mode, the replaced tensors, and the facts.

    Raises:
        WeightsError: tensors are missing or of the wrong shape.
    """
    facts = read_facts(metadata)
    try:
        transform = FeatureTransform(facts.config)
        own = {k.removeprefix(OWN): v.float() for k, v in tensors.items() if k.startswith(OWN)}
        transform.load_state_dict(own)
    except (RuntimeError, TypeError, ValueError) as error:
        raise WeightsError(f"these are not the weights of a tasks model: {error}") from error
    replaced = {
        name.removeprefix(REPLACED): value.float()
        for name, value in tensors.items()
        if name.startswith(REPLACED)
    }
    return transform.eval().requires_grad_(False), replaced, facts
