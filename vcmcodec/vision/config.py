"""The shape of the reference vision network, as its weight files say it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, fields
from typing import Any


@dataclass(frozen=True)
class VisionConfig:
    """Every number that decides the network's shape.

    Attributes:
        stem, c2, c3, c4, c5: channels of the backbone's stages.
        blocks: blocks in c2, c3, c4, c5.
        pyramid: channels of p3, p4, p5.
        head: channels inside the detection head.
        segmentation: channels inside the segmentation head.
        classes: number of classes, without background.
        cross: c5 ends in a cross-stage block; else, as in weight files that do not say, in residual
            ones.
        areas: channels inside the deep segmentation head, which stands beside the light one; 0 for
            none.
    """

    stem: int = 32
    c2: int = 32
    c3: int = 64
    c4: int = 128
    c5: int = 256
    blocks: tuple[int, int, int, int] = (2, 2, 2, 1)
    pyramid: tuple[int, int, int] = (64, 128, 256)
    head: int = 80
    segmentation: int = 64
    classes: int = 20
    cross: bool = True
    areas: int = 0

    @classmethod
    def read(cls, values: Mapping[str, Any]) -> VisionConfig:
        """From JSON, which may have fields that are not known and lack newer ones."""
        known = {field.name for field in fields(cls)}
        found: dict[str, Any] = {"cross": False}
        for name, value in values.items():
            if name in known:
                found[name] = tuple(value) if isinstance(value, list) else value
        return cls(**found)
