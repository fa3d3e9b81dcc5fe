"""A feature transform as named tensors: what the tasks model of a codec and a vision network is.

It fits one picture model (whose base latent it reads) and one vision network (whose split tensor
it makes); both are named by their fingerprints.  Tensors of the vision network that were trained as
well (its first stages, for previews) stand beside it as `replaced.<name>`; what an error in each
channel of the network's features counts, for the encoder that adapts a base layer, stands as
`sight.<depth>`.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, fields
from itertools import pairwise
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from vcmcodec.bitstream.constants import MAX_SIDE
from vcmcodec.errors import WeightsError
from vcmcodec.nn.feature_transform import FeatureTransform, FeatureTransformConfig
from vcmcodec.nn.unfilled import Unfilled

FORMAT = "vcm-tasks-1"
KEY = "tasks"  # one entry: safetensors writes several in an order that changes
REPLACED = "replaced."
OWN = "transform."
SIGHT = "sight."
# Kept in float32: they carry the whole signal.
FULL_PRECISION = ("mean", "scale", "bias")
MOST_EFFORT = 1000


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
        adapted_quality: the same where the base layer is adapted to the network.
        preview_shares: (base quality, share of the replaced tensors, 0..1), by rising quality;
            linear in between.  none: they replace the network's own altogether.
        longer_side: pixels to which a picture that machines alone look at is reduced before it is
            coded; None: it is not.
        effort: how often the network looks while a base layer for machines alone is adapted to it;
            0: never.
        sight_prices: (base quality, bits a pixel that a distance of 1 between what the network sees
            is worth), by rising quality; linear in the logarithm in between.
        facts: what the model card says in numbers.
    """

    config: FeatureTransformConfig
    scene: str
    vision: str
    split: str
    base_quality: Mapping[str, float]
    reduced_quality: Mapping[str, float]
    adapted_quality: Mapping[str, float]
    preview_shares: tuple[tuple[float, float], ...]
    longer_side: int | None
    effort: int
    sight_prices: tuple[tuple[float, float], ...]
    facts: Mapping[str, Any]

    def sight_price_at(self, quality: float) -> float:
        """Bits a pixel that a distance of 1 is worth at a quality of the base layer, 0..100."""
        qualities, prices = zip(*self.sight_prices, strict=True)
        return float(np.exp(np.interp(quality, qualities, np.log(prices))))

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
    adapted_quality: Mapping[str, float] | None = None,
    preview_shares: Sequence[tuple[float, float]] = (),
    longer_side: int | None = None,
    effort: int = 0,
    sight: Mapping[str, Tensor] | None = None,
    sight_prices: Sequence[tuple[float, float]] = (),
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
        adapted_quality: None for the same as `reduced_quality`.
        preview_shares, longer_side, effort, sight_prices: see `TaskFacts`.
        sight: what an error in each channel of the network's features counts, (C, 1, 1) by depth.
        facts: for the model card.
    """
    named = {OWN + name: value for name, value in transform.state_dict().items()}
    named |= {REPLACED + name: value for name, value in (replaced or {}).items()}
    named |= {SIGHT + name: value for name, value in (sight or {}).items()}
    tensors = {}
    for name, value in named.items():
        whole = name.endswith(FULL_PRECISION) or name.startswith(SIGHT)
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
        "adapted_quality": {t: float(value) for t, value in (adapted_quality or {}).items()},
        "preview_shares": [[float(q), float(share)] for q, share in preview_shares],
        "longer_side": longer_side,
        "effort": effort,
        "sight_prices": [[float(q), float(price)] for q, price in sight_prices],
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
        adapted = reduced | _qualities(about.get("adapted_quality", {}))
        side = about.get("longer_side")
        if side is not None and not 1 <= int(side) <= MAX_SIDE:
            raise ValueError(f"{side} pixels are no side")
        effort = int(about.get("effort", 0))
        if not 0 <= effort <= MOST_EFFORT:
            raise ValueError(f"an effort of {effort} is outside 0 to {MOST_EFFORT}")
        return TaskFacts(
            config, str(about["scene"]), str(about["vision"]), str(about["split"]), qualities,
            reduced, adapted, _shares(about.get("preview_shares", ())),
            None if side is None else int(side), effort, _prices(about.get("sight_prices", ())),
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


def _by_quality(table: Sequence[Sequence[float]]) -> tuple[tuple[float, float], ...]:
    """Pairs of a quality and a figure; ValueError where they are none, or do not ascend."""
    pairs = tuple((float(quality), float(value)) for quality, value in table)
    rising = all(low[0] < high[0] for low, high in pairwise(pairs))
    if not rising or not all(0 <= quality <= 100 for quality, _ in pairs):
        raise ValueError(f"{pairs} are not figures by quality")
    return pairs


def _shares(table: Sequence[Sequence[float]]) -> tuple[tuple[float, float], ...]:
    pairs = _by_quality(table)
    if not all(0 <= share <= 1 for _, share in pairs):
        raise ValueError(f"{pairs} are not shares by quality")
    return pairs


def _prices(table: Sequence[Sequence[float]]) -> tuple[tuple[float, float], ...]:
    pairs = _by_quality(table)
    if not all(0 < price < math.inf for _, price in pairs):
        raise ValueError(f"{pairs} are not prices by quality")
    return pairs


class Unpacked(NamedTuple):
    """What a weight file holds.

    Attributes:
        transform: in evaluation mode.
        replaced: tensors that take the place of the vision network's, by its names.
        sight: what an error in each channel counts, by depth; empty where the model says nothing.
        facts: the rest.
    """

    transform: FeatureTransform
    replaced: dict[str, Tensor]
    sight: dict[str, Tensor]
    facts: TaskFacts


def unpack(tensors: Mapping[str, Tensor], metadata: Mapping[str, str]) -> Unpacked:
    """Undo `pack`.

    Raises:
        WeightsError: tensors are missing or of the wrong shape.
    """
    facts = read_facts(metadata)

    def below(prefix: str) -> dict[str, Tensor]:
        return {
            k.removeprefix(prefix): v.float() for k, v in tensors.items() if k.startswith(prefix)
        }

    try:
        with Unfilled():
            transform = FeatureTransform(facts.config)
        transform.load_state_dict(below(OWN))
    except (RuntimeError, TypeError, ValueError) as error:
        raise WeightsError(f"these are not the weights of a tasks model: {error}") from error
    sight = below(SIGHT)
    if bool(sight) != bool(facts.sight_prices):
        raise WeightsError("a tasks model tells either both of sight and its price, or neither")
    return Unpacked(transform.eval().requires_grad_(False), below(REPLACED), sight, facts)
