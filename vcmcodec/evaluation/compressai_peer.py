"""CompressAI's `mbt2018_mean` as a peer for speed: the architecture, with random weights.

Time does not depend on what the weights say, so nothing is downloaded.

`import compressai` imports torchvision for its list of transforms, which may need
our help to import (`vision.torchvision_backend`).
"""

from __future__ import annotations

import warnings
from typing import Any

import numpy as np

from vcmcodec.errors import RequestError
from vcmcodec.evaluation.metrics import Pixels
from vcmcodec.vision.torchvision_backend import import_torchvision


class Mbt2018Mean:
    """`mbt2018_mean(quality=3)` with random weights, ready to code.

    Raises:
        RequestError: CompressAI or torchvision cannot be imported.
    """

    title = "CompressAI mbt2018-mean (quality 3, random weights)"

    def __init__(self) -> None:
        import_torchvision()
        try:
            with warnings.catch_warnings():
                # Its imports use what torch and others deprecate; none of it is ours to mend.
                warnings.simplefilter("ignore", DeprecationWarning)
                from compressai.zoo import mbt2018_mean
        except (ImportError, RuntimeError) as error:
            raise RequestError(f"CompressAI cannot be imported: {error}") from error
        self.model = mbt2018_mean(quality=3, pretrained=False).eval()
        self.model.update()

    def compress(self, rgb: Pixels) -> dict[str, Any]:
        """Return strings and shape for an (H, W, 3) uint8 picture, padded to 64 pixels."""
        import torch

        height, width = rgb.shape[:2]
        padded = np.pad(rgb, ((0, -height % 64), (0, -width % 64), (0, 0)), mode="edge")
        scaled = padded.astype(np.float32).transpose(2, 0, 1)[None] / 255.0
        with torch.no_grad():
            return dict(self.model.compress(torch.from_numpy(scaled)))

    def decompress(self, coded: dict[str, Any]) -> Pixels:
        """Return the padded picture, (H, W, 3) uint8."""
        import torch

        with torch.no_grad():
            picture = self.model.decompress(coded["strings"], coded["shape"])["x_hat"]
            samples = (picture[0] * 255.0).round().to(torch.uint8).permute(1, 2, 0)
            return np.asarray(samples)
