"""Pictures that are decoded smaller than they are coded: thumbnails, and what networks look at."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

import vcmcodec
from photographs import coffee, photograph
from task_models import install
from vcmcodec import edit, machine, pixels
from vcmcodec.errors import RequestError
from vcmcodec.reader import Reader

HEIGHT, WIDTH = 203, 330
Lanczos = Image.Resampling.LANCZOS


def picture() -> np.ndarray:
    return photograph("coffee", HEIGHT, WIDTH, 60, 100)


def apart(one: Image.Image, other: Image.Image) -> float:
    """Mean difference of values."""
    assert one.size == other.size
    assert one.mode == other.mode
    return float(np.abs(np.asarray(one).astype(float) - np.asarray(other)).mean())


@pytest.mark.weights
@pytest.mark.parametrize(("side", "size"), [(165, (165, 102)), (41, (41, 25)), (9, (9, 6))])
def test_a_thumbnail_is_the_picture_reduced(side: int, size: tuple[int, int]) -> None:
    data = vcmcodec.encode(picture(), quality=60)
    small = vcmcodec.decode(data, longer_side=side)
    assert small.size == size
    assert apart(small, vcmcodec.decode(data).resize(size, Lanczos)) < 1.5


@pytest.mark.weights
def test_no_picture_is_enlarged() -> None:
    data = vcmcodec.encode(picture(), quality=30)
    assert apart(vcmcodec.decode(data, longer_side=5000), vcmcodec.decode(data)) == 0


@pytest.mark.weights
@pytest.mark.parametrize("background", [None, "red"])
def test_gaps_stay_gaps(background: str | None) -> None:
    mask = np.zeros((HEIGHT, WIDTH), np.uint8)
    mask[32:128, 96:256] = 5
    part = edit.extract(vcmcodec.encode(picture(), groups=mask), drop_groups=[0])
    whole = vcmcodec.decode(part, background=background)
    small = vcmcodec.decode(part, background=background, longer_side=60)
    assert small.mode == ("RGB" if background else "RGBA")
    assert apart(small, whole.resize(small.size, Lanczos)) < 4


@pytest.mark.weights
def test_a_grey_picture_stays_grey() -> None:
    grey = picture()[..., :1].repeat(3, 2)
    data = vcmcodec.encode(Image.fromarray(grey).convert("L"))
    assert vcmcodec.decode(data, longer_side=40).mode == "L"


@pytest.mark.weights
@pytest.mark.parametrize("side", [240, 60])
def test_what_was_reduced_before_coding_is_seen_in_any_size(side: int) -> None:
    data = vcmcodec.encode(picture(), tasks=["detection"], longer_side=160, effort=0)
    small = vcmcodec.decode(data, longer_side=side)
    assert max(small.size) == side
    assert apart(small, vcmcodec.decode(data).resize(small.size, Lanczos)) < 4


@pytest.mark.weights
def test_a_side_of_nothing_is_refused() -> None:
    data = vcmcodec.encode(coffee())
    with pytest.raises(RequestError, match="0 pixels"):
        vcmcodec.decode(data, longer_side=0)


@pytest.mark.weights
@pytest.mark.parametrize("mean", [2, 4, 8])
@pytest.mark.parametrize("groups", [None, [{"id": 3, "box": [70, 40, 150, 90]}]])
def test_means_of_a_preview_are_those_of_its_pixels(mean: int, groups: object) -> None:
    data = vcmcodec.encode(picture(), base_quality=40, groups=groups)
    with Reader(data) as reader:
        whole, there = reader.preview()
        small, also = reader.preview(mean=mean)
    assert small.shape == (-(-HEIGHT // mean), -(-WIDTH // mean), 3)
    assert np.array_equal(there, also)
    rows, columns = HEIGHT // mean, WIDTH // mean
    squares = whole[: rows * mean, : columns * mean].reshape(rows, mean, columns, mean, 3)
    away = squares.mean((1, 3)) - small[:rows, :columns]
    assert np.abs(away).mean() < 0.5  # rounding, and pixels that were beyond white


@pytest.mark.parametrize(
    ("size", "mean"), [((300, 400), 1), ((1200, 1600), 1), ((1300, 1700), 2), ((9000, 9000), 8)]
)
def test_at_least_twice_the_wanted_pixels_are_left(size: tuple[int, int], mean: int) -> None:
    assert pixels.mean_before(size, (312, 416)) == mean


def test_networks_are_shown_means_of_large_pictures(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("VCMCODEC_WEIGHTS", str(install(tmp_path, longer_side=160)))
    rgb = np.asarray(Image.fromarray(coffee()).resize((800, 560)))
    mask = np.zeros((560, 800), np.uint8)
    mask[160:480, 160:640] = 1
    data = vcmcodec.encode(rgb, tasks=["human"], groups=mask)
    asked: list[int] = []
    preview = Reader.preview

    def watched(reader: Reader, *, mean: int = 1, **given: object) -> object:
        asked.append(mean)
        return preview(reader, mean=mean, **given)  # type: ignore[arg-type]

    monkeypatch.setattr(Reader, "preview", watched)
    for chosen in (None, [1]):
        found = machine.analyze(data, groups=chosen, score=0.01)
        assert (found.height, found.width) == (560, 800)
        assert found.objects
    assert asked == [2, 2]
