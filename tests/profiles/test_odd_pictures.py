"""Pictures of any size and form go through and come back as what they were."""

from __future__ import annotations

import io
import struct

import numpy as np
import pytest
from PIL import Image, ImageCms

from photographs import coffee, photograph, psnr
from vcmcodec.codec import EncodeOptions, decode, encode, encode_picture
from vcmcodec.codec import open as open_file
from vcmcodec.edit import extract
from vcmcodec.errors import LimitError, PictureError, RequestError
from vcmcodec.reader import GREY_PROFILE_DROPPED

SIZES = [(1, 1), (1, 400), (400, 1), (2, 2), (15, 17), (16, 16), (17, 16), (16, 17), (31, 33),
         (48, 1), (9, 129)]  # fmt: skip


@pytest.mark.parametrize(("height", "width"), SIZES)
def test_any_size_comes_back(height: int, width: int) -> None:
    rgb = photograph("chelsea", 300, 451)[-height:, -width:].copy()
    rgb = np.ascontiguousarray(np.resize(rgb, (height, width, 3)))
    for options in ({"quality": 90}, {"quality": 90, "base_quality": 0}, {"tasks": ["detection"]}):
        file = encode(rgb, **options)
        with open_file(file) as reader:
            assert (reader.header.height, reader.header.width) == (height, width)
            image = reader.decode()
        assert image.size == (width, height)
        assert image.mode == "RGB"
        assert np.asarray(image).shape == rgb.shape


@pytest.mark.parametrize(("height", "width"), [(1, 1), (3, 200), (17, 16), (33, 31)])
def test_small_pictures_look_like_themselves(height: int, width: int) -> None:
    """Padding repeats the edge: a picture of a pixel is not dragged towards black."""
    rgb = photograph("rocket", height, width, 100, 150)
    fine = np.asarray(decode(encode(rgb, quality=80)))
    assert psnr(fine, rgb) > 25


def test_padding_is_not_paid_for() -> None:
    """A picture one pixel over a cell costs little more than the cell."""
    rgb = photograph("coffee", 97, 97, 120, 200)
    assert len(encode(rgb, quality=50)) < 1.3 * len(encode(rgb[:96, :96], quality=50)) + 20


@pytest.mark.parametrize("tasks", [None, ["detection"]])
def test_grey_comes_back_grey(tasks: list[str] | None) -> None:
    grey = coffee().mean(-1).astype(np.uint8)
    file = encode(grey, tasks=tasks, quality=70)
    with open_file(file) as reader:
        assert reader.header.grey
        image = reader.decode()
        assert image.mode == "L"
        assert image.size == (97, 131)
        if tasks is None:
            assert psnr(np.asarray(image), grey) > 22
        assert reader.decode(background="black").mode == "L"
    cells = np.zeros((9, 7), np.uint8)
    cells[2:5] = 1
    part = encode(grey, groups=cells)
    assert decode(part, groups=[1], background="grey").mode == "L"
    assert decode(part, groups=[1], background="red").mode == "RGB"
    assert decode(part, groups=[1]).mode == "LA"


def png(image: Image.Image, **options: object) -> bytes:
    file = io.BytesIO()
    image.save(file, "png", **options)
    return file.getvalue()


def test_a_colour_profile_comes_back_to_people() -> None:
    profile = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
    source = png(Image.fromarray(coffee()), icc_profile=profile)
    for options in ({}, {"tasks": ["human"]}):
        assert decode(encode(source, **options)).info["icc_profile"] == profile
    assert "icc_profile" not in decode(encode(source, tasks=["segmentation"])).info
    assert "icc_profile" not in decode(encode(coffee())).info


def grey_profile() -> bytes:
    """A profile of version 2 for grey of a gamma of 2.2 (ICC.1:2001, 6.3.1)."""
    d50 = struct.pack(">3i", 0xF6D6, 0x10000, 0xD32D)
    tags = [
        (b"desc", b"desc" + struct.pack(">2I", 0, 5) + b"grey\0" + bytes(78)),
        (b"cprt", b"text" + bytes(4) + b"none\0"),
        (b"wtpt", b"XYZ " + bytes(4) + d50),
        (b"kTRC", b"curv" + struct.pack(">2IH", 0, 1, 0x0233)),
    ]
    table, body, start = struct.pack(">I", len(tags)), b"", 128 + 4 + 12 * len(tags)
    for name, data in tags:
        table += name + struct.pack(">2I", start + len(body), len(data))
        body += data + bytes(-len(data) % 4)
    size = struct.pack(">I", start + len(body))
    header = size + bytes(4) + b"\2\x20\0\0mntrGRAYXYZ " + bytes(12) + b"acsp" + bytes(28) + d50
    return header.ljust(128, b"\0") + table + body


@pytest.mark.parametrize(
    ("background", "mode"), [(None, "LA"), ("white", "L"), ("red", "RGB")], ids=str
)
def test_a_profile_of_grey_goes_with_grey_pictures_alone(background: str | None, mode: str) -> None:
    """On a coloured background the picture is RGB, and such a profile could not be applied."""
    grey, profile = Image.fromarray(coffee()).convert("L"), grey_profile()
    cells = np.zeros((9, 7), np.uint8)
    cells[2:5] = 1
    with open_file(encode(png(grey, icc_profile=profile), groups=cells)) as reader:
        shown = reader.inspect(groups=[1], background=background)
    assert shown.image.mode == mode
    if mode == "RGB":
        assert "icc_profile" not in shown.image.info
        assert shown.warnings == (GREY_PROFILE_DROPPED,)
        return
    assert shown.image.info["icc_profile"] == profile
    assert not shown.warnings
    own = ImageCms.ImageCmsProfile(io.BytesIO(profile))
    there = shown.image.convert("L")  # what a viewer does with it
    assert ImageCms.profileToProfile(there, own, ImageCms.createProfile("sRGB"), outputMode="RGB")


def test_alpha_is_dropped_with_a_warning() -> None:
    image = Image.fromarray(coffee())
    image.putalpha(Image.linear_gradient("L").resize(image.size))
    made = encode_picture(png(image))
    assert any("alpha" in warning or "transparen" in warning for warning in made.warnings)
    assert decode(made.data).mode == "RGB"
    assert not encode_picture(png(Image.fromarray(coffee()))).warnings


def test_backgrounds() -> None:
    rgb = photograph("astronaut", 48, 64, 30, 150)
    cells = np.zeros((3, 4), np.uint8)
    cells[1, 1] = 9
    file = encode(rgb, groups=cells)
    whole = np.asarray(decode(file))
    for background, value in (
        ("red", (255, 0, 0)),
        ((1, 2, 3), (1, 2, 3)),
        ("#0a0b0c", (10, 11, 12)),
    ):
        image = np.array(decode(file, groups=[9], background=background))
        assert np.array_equal(image[16:32, 16:32], whole[16:32, 16:32])
        image[16:32, 16:32] = value
        assert (image == value).all()
    with open_file(file) as reader:
        decoded = reader.inspect(groups="9")
        assert decoded.groups == (9,)
        assert decoded.absent == pytest.approx(11 / 12)
    for bad in ("nonsense", (1, 2), (0, 0, 256), ("a", "b", "c"), 7):
        with pytest.raises(RequestError, match="no colour"):
            decode(file, groups=[9], background=bad)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    "options",
    [
        {"quality": -0.1}, {"quality": 100.1}, {"quality": float("nan")}, {"base_quality": 101},
        {"quality": 20, "base_quality": 30}, {"tasks": []}, {"tasks": ["nonsense"]},
        {"profile": "nonsense"}, {"target_size": 1000, "target_bpp": 1.0},
        {"target_size": 1000, "quality": 3}, {"target_size": 0}, {"target_bpp": -1},
        {"target_bpp": float("nan")}, {"device": "nonsense"},
        {"groups": np.zeros((3, 3), np.uint8)},
    ],
    ids=str,
)  # fmt: skip
def test_options_that_cannot_be_are_refused(options: dict[str, object]) -> None:
    with pytest.raises(RequestError):
        encode(coffee(40, 60), **options)  # type: ignore[arg-type]


@pytest.mark.parametrize("asked", [{"width": 0.3}, {"groups": ["nobody"]}, {"groups": []},
                                   {"groups": 7}, {"device": "nonsense"}], ids=str)  # fmt: skip
def test_requests_that_cannot_be_are_refused(asked: dict[str, object]) -> None:
    file = encode(coffee(40, 60))
    with pytest.raises(RequestError):
        decode(file, **asked)  # type: ignore[arg-type]
    with pytest.raises(RequestError, match=r"up to 0\.25 only"):
        decode(encode(coffee(40, 60), tasks=["detection"]), width=0.5)


def test_what_is_no_picture_is_refused() -> None:
    from vcmcodec.bitstream.limits import Limits

    for bad in (b"", b"text", np.zeros((0, 3, 3), np.uint8), np.zeros((3, 3, 3), np.float32)):
        with pytest.raises(PictureError):
            encode(bad)
    with pytest.raises(LimitError, match="max-pixels"):
        encode_picture(coffee(40, 60), EncodeOptions(), limits=Limits(max_pixels=2399))
    file = encode(coffee(40, 60))
    with pytest.raises(LimitError, match="max-pixels"):
        decode(file, limits=Limits(max_pixels=2399))


def checks(height: int, width: int) -> np.ndarray:
    """Red and blue squares of five pixels: the model is sure that no picture is like this."""
    rows, columns = np.mgrid[:height, :width] // 5
    return np.where((rows + columns)[..., None] % 2, (255, 0, 0), (0, 0, 255)).astype(np.uint8)


def test_what_the_model_rules_out_is_coded_finer_rather_than_lost() -> None:
    rgb = checks(96, 128)
    made = encode_picture(rgb, EncodeOptions(quality=60))
    people = made.header.layers[-1].rate_level
    assert people > 6000
    [note] = [text for text in made.warnings if "unlike" in text]
    assert note.endswith(f"coded at quality {people / 100:g} instead of 60")
    flat = np.broadcast_to(rgb.mean((0, 1)).round().astype(np.uint8), rgb.shape)
    assert psnr(np.asarray(decode(made.data)), rgb) > psnr(flat, rgb) + 4
    # Machines' part is as it is without people, and a wanted size is still a size.
    alone = encode(rgb, tasks=["detection"], longer_side=0)
    assert extract(made.data, tasks=["detection"]) == alone
    assert len(encode(rgb, target_size=2000)) <= 2000


def test_a_photograph_is_coded_at_the_level_that_was_asked_for() -> None:
    for quality in (0, 35, 90):
        made = encode_picture(coffee(), EncodeOptions(quality=quality))
        assert made.header.layers[-1].rate_level == 100 * quality
        assert made.warnings == ()
