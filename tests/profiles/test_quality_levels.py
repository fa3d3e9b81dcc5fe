"""Quality: monotone in rate and distortion, searched for by size, refined above the base."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from photographs import astronaut, photograph, psnr, substreams
from vcmcodec import edit
from vcmcodec.bitstream.constants import Kind, LayerId
from vcmcodec.codec import EncodeOptions, decode, encode, encode_picture
from vcmcodec.codec import open as open_file
from vcmcodec.errors import RequestError
from vcmcodec.profiles import scene

QUALITIES = tuple(range(0, 101, 10))
PICTURES = (
    ("astronaut", 20, 130), ("coffee", 120, 200), ("chelsea", 90, 130), ("rocket", 200, 200),
)  # fmt: skip


def curve(rgb: np.ndarray, **options: object) -> tuple[list[int], list[float]]:
    """Bytes and PSNR at each quality."""
    sizes, decibels = [], []
    for quality in QUALITIES:
        file = encode(rgb, quality=quality, **options)
        sizes.append(len(file))
        decibels.append(psnr(np.asarray(decode(file)), rgb))
    return sizes, decibels


def assert_monotone(sizes: list[int], decibels: list[float]) -> None:
    assert sizes == sorted(sizes), sizes
    assert sizes[-1] > 4 * sizes[0]
    assert decibels == sorted(decibels), decibels
    assert decibels[-1] > decibels[0] + 6


@pytest.mark.parametrize("piece", PICTURES, ids=lambda piece: piece[0])
@pytest.mark.parametrize("tasks", [["human"], None], ids=["one-level", "refined"])
def test_more_quality_is_more_bytes_and_less_error(
    piece: tuple[str, int, int], tasks: list[str] | None
) -> None:
    assert_monotone(*curve(photograph(piece[0], 176, 192, *piece[1:]), tasks=tasks))


def kodak() -> Path:
    """The folder of Kodak pictures: $VCMCODEC_DATA/kodak, or beside the checkout."""
    beside = Path(__file__).resolve().parents[2].parent / "shared" / "data"
    folder = Path(os.environ.get("VCMCODEC_DATA", beside)) / "kodak"
    if not any(folder.glob("*.png")):
        pytest.skip("no Kodak pictures; name the folder that holds kodak/ in VCMCODEC_DATA")
    return folder


@pytest.mark.slow
def test_quality_is_monotone_on_every_kodak_picture() -> None:
    for path in sorted(kodak().glob("*.png")):
        with Image.open(path) as image:
            rgb = np.array(image.convert("RGB"))
        try:
            assert_monotone(*curve(rgb))
        except AssertionError as error:
            raise AssertionError(f"{path.stem}: {error}") from error


def test_a_finer_level_for_people_refines_the_base() -> None:
    rgb = astronaut()
    coarse = encode(rgb, quality=20, base_quality=20)
    fine = encode(rgb, quality=90, base_quality=20)
    at_once = encode(rgb, quality=90, base_quality=90)
    kinds = [{k[0] for k in substreams(f)} for f in (coarse, fine, at_once)]
    assert [int(Kind.REFINEMENT) in k for k in kinds] == [False, True, False]
    before, after, best = (psnr(np.asarray(decode(f)), rgb) for f in (coarse, fine, at_once))
    assert after > before + 3
    assert abs(after - best) < 0.5
    assert len(coarse) < len(fine)
    # what is refined is the base's own channels: half width gains, too
    half = psnr(np.asarray(decode(fine, width=0.5)), rgb)
    assert half > psnr(np.asarray(decode(coarse, width=0.5)), rgb) + 1


def test_a_level_little_finer_is_carried_over() -> None:
    """A refinement that would cost more than it gives is left out: the base's values are scaled."""
    rgb = photograph("astronaut", 176, 192, 20, 130)
    step = scene.REFINED_FROM / 100
    base = encode(rgb, quality=30, base_quality=30)
    for finer, refined in ((0.01, False), (step - 0.01, False), (step, True)):
        file = encode(rgb, quality=30 + finer, base_quality=30)
        kinds = {key[0] for key in substreams(file)}
        assert (Kind.REFINEMENT in kinds) == refined
        alone = {k: v for k, v in substreams(file).items() if k[1] == LayerId.BASE}
        assert alone == {k: v for k, v in substreams(base).items() if k[1] == LayerId.BASE}
        gained = psnr(np.asarray(decode(file)), rgb) - psnr(np.asarray(decode(base)), rgb)
        assert gained > (-0.05 if finer < 1 else 0.1)


@pytest.mark.parametrize("base_quality", [0, 30, 60])
def test_a_refinement_costs_less_than_coding_twice(base_quality: float) -> None:
    """What the base said is context; it is not paid for again."""
    rgb = photograph("astronaut", 176, 192, 20, 130)
    two = encode(rgb, quality=90, base_quality=base_quality)
    one = encode(rgb, quality=90, base_quality=90)
    base = sum(len(v) for k, v in substreams(two).items() if k[1] == LayerId.BASE)
    assert len(two) < len(one) + base
    refined = sum(len(v) for k, v in substreams(two).items() if k[0] == Kind.REFINEMENT)
    alone = sum(len(v) for k, v in substreams(one).items() if k[1] == LayerId.BASE)
    assert refined < alone


def test_qualities_are_hundredths() -> None:
    rgb = astronaut(48, 64)
    with open_file(encode(rgb, quality=12.345, base_quality=0.004)) as reader:
        levels = {info.layer: info.rate_level for info in reader.header.layers}
    assert levels == {LayerId.BASE: 0, LayerId.MID: 1234, LayerId.FULL: 1234}
    assert encode(rgb, quality=40) != encode(rgb, quality=40.5)


@pytest.mark.parametrize("groups", [None, np.tile([[0, 1, 1, 2]], (3, 1))], ids=["plain", "groups"])
@pytest.mark.parametrize("share", [0.1, 0.4, 0.8])
def test_a_target_size_is_met(share: float, groups: np.ndarray | None) -> None:
    rgb = photograph("coffee", 180, 250, 60, 100)
    cells = None if groups is None else np.resize(groups, (12, 16)).astype(np.uint8)
    least, most = (len(encode(rgb, quality=q, groups=cells)) for q in (0, 100))
    target = round(least + share * (most - least))
    made = encode_picture(rgb, EncodeOptions(target_size=target), groups=cells)
    assert 0.9 * target <= len(made.data) <= target
    bpp = 8 * target / (180 * 250)
    same = encode_picture(rgb, EncodeOptions(target_bpp=bpp), groups=cells)
    assert same.data == made.data
    assert made.bpp <= bpp


def test_the_best_that_fits_is_found() -> None:
    rgb = photograph("coffee", 96, 128, 60, 100)
    best = encode(rgb, quality=100)
    for target in (len(best), len(best) + 1, 10 * len(best)):
        assert encode(rgb, target_size=target) == best
    assert len(encode(rgb, target_size=len(best) - 1)) < len(best)


@pytest.mark.parametrize(
    "options", [{}, {"tasks": ["detection"]}, {"tasks": ["human"]}, {"base_quality": 20}], ids=str
)
def test_a_target_that_is_too_small_names_the_least(options: dict[str, object]) -> None:
    rgb = photograph("coffee", 96, 128, 60, 100)
    with pytest.raises(RequestError, match="cannot be coded in 60 bytes; the least is") as caught:
        encode(rgb, target_size=60, **options)
    least = int(str(caught.value).split()[-1].replace(",", ""))
    # a byte or two less may be found on the way there: bytes hardly fall below some quality
    assert least - 2 <= len(encode(rgb, target_size=least, **options)) <= least


def test_a_base_above_the_usual_quality_does_not_stand_in_the_way_of_a_target() -> None:
    rgb = photograph("coffee", 96, 128, 60, 100)
    target = len(encode(rgb, base_quality=70, quality=90))
    found = encode_picture(rgb, EncodeOptions(base_quality=70, target_size=target))
    base, *above = found.header.layers
    assert len(found.data) <= target
    assert base.rate_level == 7000
    assert all(layer.rate_level > 8500 for layer in above)
    with pytest.raises(RequestError, match=r"^with base quality 70 the picture cannot"):
        encode(rgb, base_quality=70, target_size=target // 4)


def test_targets_for_machines_move_the_base() -> None:
    rgb = photograph("coffee", 180, 250, 60, 100)
    least, most = (len(encode(rgb, tasks=["detection"], base_quality=q)) for q in (0, 100))
    for share in (0.1, 0.6):
        target = round(least + share * (most - least))
        file = encode(rgb, tasks=["detection"], target_size=target)
        assert 0.9 * target <= len(file) <= target
    with pytest.raises(RequestError, match="cannot both hold"):
        encode(rgb, tasks=["detection"], base_quality=20, target_size=1000)


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"quality": "60"}, "quality must be a number"),
        ({"effort": True}, "effort must be a whole number"),
        ({"effort": 2.5}, "effort must be a whole number, not 2.5"),
        ({"longer_side": 100.5}, "longer_side must be a whole number, not 100.5"),
        ({"target_size": float("nan")}, "target_size must be a whole number, not nan"),
        ({"model": 5}, "model must be a name, not 5"),
        ({"vision": Path("net.onnx")}, "vision must be a name"),
        ({"text": "hello"}, "text must be pairs"),
        ({"text": {"a": 1}}, "keys and values of text must be strings, not \\('a', 1\\)"),
        ({"text": {1: "a"}}, "keys and values of text must be strings, not \\(1, 'a'\\)"),
        ({"target_bpp": float("inf")}, "a target of inf"),
        ({"target_bpp": float("nan")}, "a target of nan"),
        ({"tasks": "seeing"}, "no task seeing"),
    ],
)
def test_options_of_another_kind_are_refused(options: dict[str, object], said: str) -> None:
    with pytest.raises(RequestError, match=said):
        encode(photograph("astronaut", 64, 64), **options)


def test_one_task_may_be_named_alone() -> None:
    rgb = photograph("astronaut", 64, 64)
    assert encode(rgb, tasks="human") == encode(rgb, tasks=["human"])
    whole = encode(rgb)
    assert edit.extract(whole, tasks="detection") == edit.extract(whole, tasks=["detection"])
    assert edit.extract(whole, layers="base") == edit.extract(whole, layers=["base"])
