"""How near a decoded picture is to the original: PSNR and MS-SSIM on 8-bit RGB.

Both take the pixels that a person would get: (H, W, 3) uint8 arrays after decoding, rounding and
cropping.  Nothing here knows about files or rates.
"""

from __future__ import annotations

import math

import numpy as np
import numpy.typing as npt

from vcmcodec.errors import RequestError

Pixels = npt.NDArray[np.uint8]

PEAK = 255.0
# Five scales, each half the one before, under an 11 pixel window: below this side the coarsest
# scale is smaller than the window and the measure is undefined (the package refuses as well).
MS_SSIM_SMALLEST_SIDE = (11 - 1) * 2**4 + 1


def _check(reference: Pixels, reconstruction: Pixels) -> None:
    for name, picture in (("reference", reference), ("reconstruction", reconstruction)):
        if picture.dtype != np.uint8 or picture.ndim != 3 or picture.shape[2] != 3:
            raise RequestError(
                f"{name}: expected (H, W, 3) uint8, got {picture.shape} {picture.dtype}"
            )
    if reference.shape != reconstruction.shape:
        raise RequestError(
            f"pictures differ in size: {reference.shape[:2]} and {reconstruction.shape[:2]}"
        )


def psnr_db(reference: Pixels, reconstruction: Pixels) -> float:
    """Return the peak signal-to-noise ratio over all RGB samples, in dB.

    Args:
        reference: (H, W, 3) uint8.
        reconstruction: (H, W, 3) uint8.

    Returns:
        dB with a peak of 255; infinity where the pictures are equal.

    Raises:
        RequestError: wrong type, or different sizes.
    """
    _check(reference, reconstruction)
    # Row blocks keep the float copy small: pictures of 100 megapixels come through here.
    total = 0.0
    for top in range(0, reference.shape[0], 256):
        rows = slice(top, top + 256)
        difference = reference[rows].astype(np.int32) - reconstruction[rows]
        total += float(np.sum(difference * difference, dtype=np.int64))
    if total == 0.0:
        return math.inf
    return 10.0 * math.log10(PEAK * PEAK * reference.size / total)


def ms_ssim(reference: Pixels, reconstruction: Pixels) -> float | None:
    """Return the multi-scale structural similarity of two RGB pictures, mean of the channels.

    Args:
        reference: (H, W, 3) uint8.
        reconstruction: (H, W, 3) uint8.

    Returns:
        Linear value, 1 where equal; None where a side is under MS_SSIM_SMALLEST_SIDE pixels,
        for which five scales are not defined.

    Raises:
        RequestError: wrong type, or different sizes.

    Source: Wang, Simoncelli, Bovik 2003; computed by `pytorch_msssim`, as CompressAI does, so
    that values compare with its published ones.
    """
    _check(reference, reconstruction)
    if min(reference.shape[:2]) < MS_SSIM_SMALLEST_SIDE:
        return None
    import pytorch_msssim  # type: ignore[import-untyped]
    import torch

    def tensor(picture: Pixels) -> torch.Tensor:
        # The float copy is made by numpy: decoded arrays may be read-only, which torch warns of.
        return torch.from_numpy(picture.astype(np.float32)).permute(2, 0, 1)[None]

    with torch.inference_mode():
        value = pytorch_msssim.ms_ssim(tensor(reference), tensor(reconstruction), data_range=PEAK)
    return float(value)


def ms_ssim_db(value: float) -> float:
    """Return MS-SSIM on the usual logarithmic axis, -10 log10(1 - value), in dB."""
    return math.inf if value >= 1.0 else -10.0 * math.log10(1.0 - value)
