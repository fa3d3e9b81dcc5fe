"""Adapts a base layer for machines alone to what the vision network sees in the picture.

Analysis knows pixels, not what a network makes of them.  So before the latent is coded it is moved
to where the decoder's network sees what it sees in the picture itself (`profiles.seeking`).
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable

import numpy as np
import torch
from torch import Tensor

from vcmcodec.models import TasksModel
from vcmcodec.nn.feature_transform import SPLIT_STRIDE, level_features
from vcmcodec.nn.gain import RATE_LEVEL_MAX, Level
from vcmcodec.nn.geometry import GroupGeometry
from vcmcodec.nn.model_tensors import Model
from vcmcodec.profiles import scene
from vcmcodec.profiles.seeking import Aim, seek
from vcmcodec.vision.geometry import MULTIPLE, fill_tensor, prepare, to_multiple
from vcmcodec.vision.network import VisionOutput
from vcmcodec.vision.sight import Seen

# latent (1, rows, columns, base channels), dequantised -> what the decoder's network sees
View = Callable[[Tensor], Seen[VisionOutput]]


@torch.inference_mode(False)  # what it reads may come from there
def adapted(
    model: Model, tasks: TasksModel, source: scene.Source, piece: scene.Piece, rgb: np.ndarray,
    rate_level: int, effort: int,
) -> scene.Piece:  # fmt: skip
    """Move the base of a picture's only tile to where the network sees most for its bits.

    Args:
        model: of pictures.
        tasks: looks at the base layer; it must have `sight`.
        source: the picture as it is coded.
        piece: its analysis.
        rgb: (H, W, 3) uint8, the picture before it was reduced.
        rate_level: of the base, in hundredths.
        effort: how often to look, at least once.

    Returns:
        The base channels of the best latent that was met, which may be the first.
    """
    sight = tasks.sight
    assert sight is not None
    codec, device = model.codec, model.codec.analysis.mean.device
    level, base = Level(rate_level, codec.latent.levels), codec.latent.base_channels
    clean, view, num_pixels = _look(model, tasks, source, rgb, level)
    price = tasks.facts.sight_price_at(100 * rate_level / RATE_LEVEL_MAX) * num_pixels

    def away(latent: Tensor) -> Tensor:
        return price * sight.distance(view(latent.to(device)), clean)[0]

    aim = Aim(model, source.labels, level, scene.price(codec, level, base), away)
    return dataclasses.replace(piece, latent=seek(aim, piece.latent[:, :base], effort))


def _look(
    model: Model, tasks: TasksModel, source: scene.Source, rgb: np.ndarray, level: Level
) -> tuple[Seen[VisionOutput], View, int]:
    """What the network sees in the picture, how it looks at a latent, and its input's pixels.

    As `machine` does, at a preview or straight at the latent.
    """
    sight, vision = tasks.sight, tasks.vision
    assert sight is not None
    device, true, coded = sight.device, rgb.shape[:2], source.rgb.shape[:2]
    if tasks.looks_at_preview(true, coded):
        seeing = tasks.seeing_previews(100 * level.rate_level / RATE_LEVEL_MAX).network
        image, geometry = prepare(rgb, vision.longer_side)
        masks = GroupGeometry(source.labels).to(device)

        def preview(latent: Tensor) -> Seen[VisionOutput]:
            shown = model.codec.synthesis(latent, masks)[:, :, : coded[0], : coded[1]].clamp(0, 1)
            shown = shown + ((shown * 255).round() / 255 - shown).detach()
            return sight.look(fill_tensor(shown, geometry), seeing)

        return sight.clean(image.to(device)), preview, image.shape[2] * image.shape[3]
    # reduced as the network reduces pictures, if at all
    pixels = torch.from_numpy(source.rgb.copy()).permute(2, 0, 1)[None].float() / 255
    padded = to_multiple(pixels, MULTIPLE)
    present = torch.ones(1, *source.labels.shape, 1, device=device)
    features = level_features(level, tasks.facts.config.levels).to(device)

    def straight(latent: Tensor) -> Seen[VisionOutput]:
        split = tasks.transform(latent, features, present)
        split = to_multiple(split, MULTIPLE // SPLIT_STRIDE)
        return sight.going_on({tasks.facts.split: split})

    return sight.clean(padded.to(device)), straight, padded.shape[2] * padded.shape[3]
