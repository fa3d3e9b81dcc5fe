"""How little a codec of features loses at its highest setting, and how small its files then are."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from vcmcodec.evaluation.task_compare import Estimate, Samples, estimate, estimate_or_none

Floats = npt.NDArray[np.float64]


@dataclass(frozen=True)
class NearLossless:
    """A codec of features at its highest setting.

    Attributes:
        codec: name in tables.
        setting: its highest.
        num_bytes: of the whole file, mean over pictures.
        raw_bytes: of the same features as float32, mean over pictures; those that the tasks read.
        ratio: raw bytes over the file's.
        losses: percent of the result on uncompressed pictures that is lost, by metric; None where
            that result is zero.  Below zero: it is better.
        coding_losses: the same against what the codec's own network finds in the features before
            coding, so that nothing but coding is in it.
    """

    codec: str
    setting: float
    num_bytes: float
    raw_bytes: float
    ratio: Estimate
    losses: dict[str, Estimate | None]
    coding_losses: dict[str, Estimate | None]


def near_lossless(
    subjects: Sequence[Samples],
    uncoded: Mapping[str, Samples],
    reference: Samples,
    metrics: Sequence[str],
) -> tuple[NearLossless, ...]:
    """The highest setting of every codec of features.

    Args:
        subjects: all codecs.
        uncoded: features before coding, by the name of the codec that codes them.
        reference: the uncompressed pictures.
        metrics: what to compare.
    """
    found = []
    for one in subjects:
        if one.codec not in uncoded:
            continue
        raw = uncoded[one.codec]
        top = max(range(len(one.settings)), key=lambda i: one.settings[i])
        found.append(
            NearLossless(
                one.codec,
                one.settings[top],
                float(one.num_bytes[top, 0]),
                float(raw.num_bytes[0, 0]),
                estimate(raw.num_bytes[0] / one.num_bytes[top]),
                {m: _loss(one.values(m)[top], reference.values(m)[0]) for m in metrics},
                {m: _loss(one.values(m)[top], raw.values(m)[0]) for m in metrics},
            )
        )
    return tuple(found)


def _loss(values: Floats, whole: Floats) -> Estimate | None:
    """Percent of `whole` that is lost, picture draw by picture draw; both (choices,)."""
    left: Floats = np.divide(values, whole, out=np.full(whole.shape, np.nan), where=whole > 0)
    return estimate_or_none(100 * (1 - left))
