"""A codec of pictures small enough to be trained in a test, and pictures to train it on."""

from __future__ import annotations

from pathlib import Path

from PIL import Image

from photographs import NAMES, photograph
from vcmcodec.nn.feature_transform import FeatureTransform
from vcmcodec.nn.latent_model import LatentShape
from vcmcodec.nn.picture_codec import PictureCodec
from vcmcodec.nn.transforms import TransformShape
from vcmcodec.training.coder import Learned
from vcmcodec.training.scene import SceneRecipe
from vcmcodec.training.tasks import transform_shape
from vcmcodec.vision.config import VisionConfig

TRANSFORM = TransformShape(trunk=(8, 16, 24), latent=(6, 12, 20), trunk_blocks=1, latent_blocks=1)
LATENT = LatentShape(
    slices=(2, 4, 6, 8), phases=(6, 2, 2, 2), layers=(0, 0, 1, 2), hyper=3, levels=8
)
RECIPE = SceneRecipe(crop=64, batch=1, steps=40, opening=2, warm_up=3, task_crop=64, task_batch=1)
EYES = VisionConfig(stem=8, c2=8, c3=16, c4=16, c5=16, head=8)


class Tiny(Learned[PictureCodec]):
    """A codec small enough to be trained in a test, its prior and its feature transform."""

    def __init__(self, vision: VisionConfig = EYES) -> None:
        lmbdas = tuple(0.0006 * 150 ** (i / 7) for i in range(8))
        super().__init__(PictureCodec(TRANSFORM, LATENT, lmbdas))
        shape = transform_shape(vision, TRANSFORM, LATENT.levels)
        self.transform = FeatureTransform(shape)


def write_pictures(folder: Path) -> Path:
    for number, name in enumerate(NAMES[:3]):
        Image.fromarray(photograph(name, 160, 200, 60, 100)).save(folder / f"{number}.png")
    return folder
