"""PSNR and MS-SSIM against values that are known otherwise."""

from __future__ import annotations

import math

import numpy as np
import pytest
from skimage.metrics import peak_signal_noise_ratio

from vcmcodec.errors import RequestError
from vcmcodec.evaluation.metrics import MS_SSIM_SMALLEST_SIDE, ms_ssim, ms_ssim_db, psnr_db


def noise(height: int, width: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, (height, width, 3), np.uint8)


def test_psnr_of_one_level_everywhere() -> None:
    picture = np.full((300, 20, 3), 100, np.uint8)
    assert psnr_db(picture, picture + 1) == pytest.approx(20 * math.log10(255))
    assert psnr_db(picture, picture) == math.inf


@pytest.mark.parametrize("size", [(1, 1), (255, 3), (257, 5), (600, 9)])
def test_psnr_is_that_of_another_library(size: tuple[int, int]) -> None:
    a, b = noise(*size, seed=1), noise(*size, seed=2)
    assert psnr_db(a, b) == pytest.approx(peak_signal_noise_ratio(a, b), abs=1e-9)


def test_ms_ssim_orders_damage_and_knows_its_smallest_size() -> None:
    rows, columns = np.mgrid[0:192, 0:200]
    picture = np.stack((rows, columns, (rows + columns) // 2), axis=2).astype(np.uint8)
    shaken = np.random.default_rng(3)

    def damaged(by: int) -> np.ndarray:
        return np.clip(picture + shaken.integers(-by, by + 1, picture.shape), 0, 255).astype(
            np.uint8
        )

    values = [ms_ssim(picture, damaged(by)) for by in (0, 8, 40)]
    assert values[0] == pytest.approx(1.0)
    assert values[0] > values[1] > values[2] > 0.0
    side = MS_SSIM_SMALLEST_SIDE
    assert ms_ssim(noise(side, side), noise(side, side)) is not None
    assert ms_ssim(noise(side - 1, side), noise(side - 1, side)) is None


def test_ms_ssim_on_its_axis() -> None:
    assert ms_ssim_db(0.99) == pytest.approx(20.0)
    assert ms_ssim_db(1.0) == math.inf


def test_wrong_pictures_are_refused() -> None:
    with pytest.raises(RequestError, match="differ in size"):
        psnr_db(noise(4, 4), noise(4, 5))
    with pytest.raises(RequestError, match="uint8"):
        psnr_db(noise(4, 4), noise(4, 4).astype(np.float32))
    with pytest.raises(RequestError, match="uint8"):
        ms_ssim(noise(4, 4)[..., 0], noise(4, 4)[..., 0])
