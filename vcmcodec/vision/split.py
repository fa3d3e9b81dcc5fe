"""The named split points of the reference network, and what crosses each of them.

point = split_points(network.config)["c4"]
point.shapes(384, 512)          # {"c3": (64, 48, 64), "c4": (128, 24, 32)}
features = network.front_end(rgb, "c4")          # on the camera
output = network.back_end(features, "c4")        # in another process, from bytes
"""

from __future__ import annotations

from dataclasses import dataclass

from vcmcodec.vision.config import VisionConfig
from vcmcodec.vision.network import SPLITS, STAGE_STRIDES


@dataclass(frozen=True)
class SplitPoint:
    """A place where the network can be cut.

    Attributes:
        name: as in `network.SPLITS`.
        channels: of each tensor that crosses, by name.
        strides: picture pixels a cell, of each tensor.
    """

    name: str
    channels: dict[str, int]
    strides: dict[str, int]

    def shapes(self, height: int, width: int) -> dict[str, tuple[int, int, int]]:
        """(C, h, w) of each tensor for an input of the given size, multiples of 32."""
        return {
            name: (count, height // self.strides[name], width // self.strides[name])
            for name, count in self.channels.items()
        }


def split_points(config: VisionConfig) -> dict[str, SplitPoint]:
    """Every split point of a network of that shape, from the picture inwards."""
    widths = dict(zip(("p3", "p4", "p5"), config.pyramid, strict=True))
    widths |= {name: getattr(config, name) for name in STAGE_STRIDES if name not in widths}
    return {
        split: SplitPoint(
            split,
            {name: widths[name] for name in names},
            {name: STAGE_STRIDES[name] for name in names},
        )
        for split, names in SPLITS.items()
    }
