"""The `scene` profile: the picture's latent, a base layer for machines and layers for people.

Numbers of the networks stand on top; everything else is shared machinery.
"""

from __future__ import annotations

from vcmcodec.nn.latent_model import LatentShape
from vcmcodec.nn.picture_codec import PictureCodec
from vcmcodec.nn.transforms import TransformShape

LEVELS = 8
LMBDAS = tuple(0.0006 * 150 ** (i / (LEVELS - 1)) for i in range(LEVELS))
TRANSFORM = TransformShape(
    trunk=(48, 96, 192), latent=(64, 160, 320), trunk_blocks=1, latent_blocks=3
)
LATENT = LatentShape(
    slices=(16, 48, 96, 160), phases=(4, 2, 2, 2), layers=(0, 0, 1, 2), hyper=8, levels=LEVELS
)


def build() -> PictureCodec:
    """The networks, untrained."""
    return PictureCodec(TRANSFORM, LATENT, LMBDAS)
