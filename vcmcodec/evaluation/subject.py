"""vcmcodec itself in the shape of a rival: a picture and a quality in, a whole file out."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from vcmcodec.evaluation.metrics import Pixels

# Eight levels over the whole quality range; BD figures interpolate between them.
LADDER = (0.0, 15.0, 30.0, 45.0, 60.0, 75.0, 90.0, 100.0)


@dataclass(frozen=True)
class Subject:
    """vcmcodec with fixed arguments.

    Attributes:
        title: name in tables and charts.
        tasks: tasks the file is written for; None for all of them, with a base layer at its own
            level and a refinement.
        profile: what is coded.
        base_quality: level of the base layer; None for the default of the tasks.
        longer_side: pixels to which larger pictures are reduced, 0 for never; None for the
            default of the tasks.
        effort: looks of the vision network while the base layer is adapted to it; None for the
            default.
        model: name of a model; None for the profile's default.
        split: split point, of profiles of features; None for the model's first.
    """

    title: str = "vcm"
    tasks: tuple[str, ...] | None = ("human",)
    profile: str = "scene"
    base_quality: float | None = None
    longer_side: int | None = None
    effort: int | None = None
    model: str | None = None
    split: str | None = None

    def encode(self, rgb: Pixels, quality: float | None, groups: Pixels | None = None) -> bytes:
        """Return the whole file for an (H, W, 3) uint8 picture at `quality` 0..100.

        Args:
            rgb: the picture.
            quality: level of the picture for people; None for the default of the tasks.
            groups: (H, W) uint8 group of every pixel, or None for one group.
        """
        from vcmcodec import codec

        return codec.encode(
            rgb,
            tasks=self.tasks,
            quality=quality,
            base_quality=self.base_quality,
            longer_side=self.longer_side,
            effort=self.effort,
            groups=groups,
            profile=self.profile,
            model=self.model,
            split=self.split,
        )

    def decode(self, data: bytes) -> Pixels:
        """Return the picture in a file as (H, W, 3) uint8."""
        from vcmcodec import codec

        return np.asarray(codec.decode(data).convert("RGB"))
