"""How a picture becomes the network's input, and how positions come back."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from PIL import Image
from torch import Tensor
from torch.nn import functional

from vcmcodec.errors import PictureError

GREY = 114 / 255  # padding, as in training
MULTIPLE = 32


@dataclass(frozen=True)
class InputGeometry:
    """Sizes on the way from a picture to the network's input.

    Attributes:
        height, width: true picture.
        scaled_height, scaled_width: after scaling; the picture lies at the top left.
        padded_height, padded_width: network's input, multiples of 32.
    """

    height: int
    width: int
    scaled_height: int
    scaled_width: int
    padded_height: int
    padded_width: int

    @classmethod
    def fit(cls, height: int, width: int, longer: int) -> InputGeometry:
        """Scale the longer side to `longer` pixels and pad to multiples of 32."""
        if height < 1 or width < 1:
            raise PictureError(f"a picture of {width}x{height} pixels shows nothing")
        scale = longer / max(height, width)
        h, w = max(1, round(height * scale)), max(1, round(width * scale))
        return cls.scaled(height, width, h, w)

    @classmethod
    def scaled(
        cls, height: int, width: int, scaled_height: int, scaled_width: int
    ) -> InputGeometry:
        """The geometry of a picture and the size that it was scaled to.

        Raises:
            PictureError: a side is below one pixel.
        """
        if min(height, width, scaled_height, scaled_width) < 1:
            raise PictureError(f"a picture of {width}x{height} pixels shows nothing")
        padded = (side + -side % MULTIPLE for side in (scaled_height, scaled_width))
        return cls(height, width, scaled_height, scaled_width, *padded)

    def true_boxes(self, corners: np.ndarray) -> np.ndarray:
        """(n, 4) x1 y1 x2 y2 from the network's input to the true picture, inside it."""
        scale = np.array(
            [self.width / self.scaled_width, self.height / self.scaled_height] * 2, np.float64
        )
        limit = np.array([self.width, self.height] * 2, np.float64)
        return np.clip(corners * scale, 0, limit)


def prepare(rgb: np.ndarray, longer: int) -> tuple[Tensor, InputGeometry]:
    """Network input of a picture.

    Args:
        rgb: (H, W, 3) uint8.
        longer: longer side of the scaled picture, pixels.

    Returns:
        (1, 3, h, w) float32 in 0..1 and the geometry.
    """
    if rgb.ndim != 3 or rgb.shape[2] != 3 or rgb.dtype != np.uint8:
        raise PictureError(f"expected (H, W, 3) uint8, not {rgb.shape} {rgb.dtype}")
    geometry = InputGeometry.fit(rgb.shape[0], rgb.shape[1], longer)
    return fill(rgb, geometry), geometry


def fill(
    rgb: np.ndarray, geometry: InputGeometry, covered: tuple[float, float] | None = None
) -> Tensor:
    """Network input, (1, 3, h, w) float32 in 0..1, of pixels (H, W, 3) uint8 of whatever size.

    `covered` is how much of the pixels' height and width the picture fills, where not all.
    """
    size = geometry.scaled_width, geometry.scaled_height
    down, across = covered or rgb.shape[:2]
    picture = np.asarray(
        Image.fromarray(rgb).resize(size, Image.Resampling.BILINEAR, (0, 0, across, down))
    )
    padded = torch.full((1, 3, geometry.padded_height, geometry.padded_width), GREY)
    scaled = torch.from_numpy(picture.copy()).permute(2, 0, 1).float() / 255
    padded[0, :, : size[1], : size[0]] = scaled
    return padded.contiguous(memory_format=torch.channels_last)


def fill_tensor(rgb: Tensor, geometry: InputGeometry) -> Tensor:
    """The same of pixels (N, 3, H, W) in 0..1, with a gradient."""
    size = geometry.scaled_height, geometry.scaled_width
    if rgb.shape[2:] != size:
        rgb = functional.interpolate(rgb, size, mode="bilinear", antialias=True)
    below, right = geometry.padded_height - size[0], geometry.padded_width - size[1]
    return functional.pad(rgb, (0, right, 0, below), value=GREY)


def to_multiple(tensor: Tensor, multiple: int) -> Tensor:
    """Repeat the last row and column of (N, C, h, w) until the sides are multiples of a number."""
    down, across = (-side % multiple for side in tensor.shape[2:])
    if down or across:
        tensor = functional.pad(tensor, (0, across, 0, down), mode="replicate")
    return tensor.contiguous(memory_format=torch.channels_last)
