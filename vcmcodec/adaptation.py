"""Adapts a base layer for machines alone to what the vision network sees in the picture.

Analysis knows pixels, not what a network makes of them.  So before the latent is coded it is moved,
in a few steps along the gradient of rate and sight, to where the decoder's network sees what it
sees in the picture itself (content-adaptive optimisation, Campos et al. 2019, for machines).  Only
the encoder pays; the file and its decoder know nothing of it.
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
from vcmcodec.nn.integer import VALUE_UNIT
from vcmcodec.nn.model_tensors import Model
from vcmcodec.nn.picture_codec import cell_grid
from vcmcodec.nn.rate_estimate import symbol_bits
from vcmcodec.profiles import scene
from vcmcodec.profiles.base_layer import code_base
from vcmcodec.profiles.coding import Rounder
from vcmcodec.vision.geometry import MULTIPLE, fill_tensor, prepare, to_multiple
from vcmcodec.vision.network import VisionOutput
from vcmcodec.vision.sight import Seen

STEP = 0.125  # of the first look, in steps of the latent, over the root of the effort
LAST_STEP = 0.1  # share of it that the last look makes
MOMENTS = (0.9, 0.95)

# latent (cells, base channels), dequantised -> what the decoder's network sees
View = Callable[[Tensor], Seen[VisionOutput]]


class SeekingCoder:
    """Rounds a latent as encoding does, with a gradient (`nn.latent_model.Coder`).

    Attributes:
        bits: estimate of what the symbols cost.
    """

    exact = False

    def __init__(self, latent: Tensor, hyper: Tensor, rounder: Rounder) -> None:
        """Take a latent in steps and its hyper-latent, (cells, channels) each."""
        self.latent, self._hyper, self._rounder = latent, hyper, rounder
        self.bits = latent.new_zeros(())

    def hyper(self, channels: int) -> Tensor:
        """Round the hyper-latent, which stays as it is."""
        return torch.floor(self._hyper[:, :channels] + 0.5)

    def values(self, where: slice, rows: Tensor, mean: Tensor, index: Tensor) -> Tensor:
        """Round around the means, straight through, and count the bits."""
        away = self.latent[rows, where] - mean / VALUE_UNIT
        chosen, _ = self._rounder(away.detach(), index.detach(), where)
        shut = index < self._rounder.skip
        symbols = (away + (chosen - away).detach()).masked_fill(shut, 0.0)
        self.bits = self.bits + symbol_bits(symbols, index).masked_fill(shut, 0.0).sum()
        return symbols * VALUE_UNIT + mean


@torch.inference_mode(False)  # what it reads may come from there, and must be cloned
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
    codec, labels, device = model.codec, source.labels, model.codec.analysis.mean.device
    level = Level(rate_level, codec.latent.levels)
    channels = slice(0, codec.latent.base_channels)
    gain = codec.gains.gain(level, channels)
    rounder = Rounder(model.tables, scene.price(codec, level, codec.latent.base_channels))
    grid = cell_grid(labels, codec.latent.phases)
    clean, view, num_pixels = _look(model, tasks, source, rgb, level)
    price = tasks.facts.sight_price_at(100 * rate_level / RATE_LEVEL_MAX) * num_pixels

    def costs(steps: Tensor) -> Tensor:
        """Bits, estimated, and what is seen differently, in bits."""
        with torch.no_grad():
            hyper = codec.hyper_analysis(steps)
        coder = SeekingCoder(steps, hyper, rounder)
        values = code_base(codec, coder, grid, level)
        latent = codec.dequantise(values, level).reshape(1, *labels.shape, -1)
        away, _ = sight.distance(view(latent.to(device)), clean)
        return coder.bits + price * away.cpu()

    first = (piece.latent[:, channels].clone() * gain).detach()
    steps = first.clone().requires_grad_(True)
    optimiser = torch.optim.Adam([steps], lr=STEP / effort**0.5, betas=MOMENTS)
    best, least = first, float("inf")
    with torch.enable_grad():
        for look in range(effort + 1):
            cost = costs(steps)
            if float(cost.detach()) < least:
                best, least = steps.detach().clone(), float(cost.detach())
            if look == effort:
                break
            optimiser.zero_grad()
            cost.backward()  # type: ignore[no-untyped-call]
            share = 1 - (1 - LAST_STEP) * look / effort
            optimiser.param_groups[0]["lr"] = share * STEP / effort**0.5
            optimiser.step()
    return dataclasses.replace(piece, latent=best / gain)


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
    pixels = torch.from_numpy(rgb.copy()).permute(2, 0, 1)[None].float() / 255
    padded = to_multiple(pixels, MULTIPLE)
    present = torch.ones(1, *source.labels.shape, 1, device=device)
    features = level_features(level, tasks.facts.config.levels).to(device)

    def straight(latent: Tensor) -> Seen[VisionOutput]:
        split = tasks.transform(latent, features, present)
        split = to_multiple(split, MULTIPLE // SPLIT_STRIDE)
        return sight.going_on({tasks.facts.split: split})

    return sight.clean(padded.to(device)), straight, padded.shape[2] * padded.shape[3]
