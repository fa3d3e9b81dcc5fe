"""Classification: is a class anywhere in the picture?"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from vcmcodec.vision.predictions import ClassScore


@torch.no_grad()
def decode_presence(logits: Tensor, labels: Sequence[str]) -> tuple[ClassScore, ...]:
    """Every class with its probability, best first; `logits` is (classes,), before the sigmoid."""
    scores = logits.float().sigmoid().cpu().tolist()
    found = [ClassScore(label, score) for label, score in zip(labels, scores, strict=True)]
    return tuple(sorted(found, key=lambda item: -item.score))
