"""Pictures in and out: every mode, every way of being broken, and what is said about it."""

from __future__ import annotations

import io
import struct
import warnings
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image, ImageCms

from vcmcodec import pixels
from vcmcodec.bitstream.limits import Limits
from vcmcodec.errors import LimitError, OutputError, PictureError, RequestError, VcmError

SRGB = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()


def noise(*shape: int) -> np.ndarray:
    return np.random.default_rng(7).integers(0, 256, shape, dtype=np.uint8)


def file_of(image: Image.Image, format: str = "PNG", **options: object) -> bytes:
    out = io.BytesIO()
    image.save(out, format, **options)
    return out.getvalue()


@pytest.mark.parametrize("size", [(1, 1), (1, 17), (16, 16), (33, 5)])
@pytest.mark.parametrize("format", ["PNG", "TIFF", "PPM", "BMP"])
def test_lossless_files_of_any_size_arrive_unchanged(size: tuple[int, int], format: str) -> None:
    array = noise(*size, 3)
    picture = pixels.read(file_of(Image.fromarray(array), format))
    assert np.array_equal(picture.rgb, array)
    assert (picture.height, picture.width) == size
    assert not picture.grey
    assert picture.warnings == ()


def test_every_kind_of_source_gives_the_same_picture(tmp_path: Path) -> None:
    array = noise(20, 30, 3)
    image = Image.fromarray(array)
    path = tmp_path / "a.png"
    image.save(path)
    data = path.read_bytes()
    for source in (path, str(path), data, io.BytesIO(data), image, array, pixels.Picture(array)):
        assert np.array_equal(pixels.read(source).rgb, array)
    with path.open("rb") as file:
        assert np.array_equal(pixels.read(file).rgb, array)


def test_the_array_is_a_copy_that_later_changes_do_not_reach() -> None:
    array = noise(4, 4, 3)
    picture = pixels.read(array)
    array[:] = 0
    assert picture.rgb.any()


@pytest.mark.parametrize("shape", [(8, 9), (8, 9, 1)])
def test_grey_arrays_stay_grey(shape: tuple[int, ...]) -> None:
    picture = pixels.read(noise(*shape))
    assert picture.grey
    assert picture.rgb.shape == (8, 9, 3)
    assert (picture.rgb == picture.rgb[:, :, :1]).all()


@pytest.mark.parametrize(
    "array",
    [
        np.zeros((4, 4, 3)),
        np.zeros((4, 4, 4), np.uint8),
        np.zeros((4, 0, 3), np.uint8),
        np.zeros(4, np.uint8),
        np.zeros((1, 4, 4, 3), np.uint8),
    ],
)
def test_arrays_of_another_form_are_refused(array: np.ndarray) -> None:
    with pytest.raises(PictureError):
        pixels.read(array)


def test_grey_and_bilevel_files_stay_grey() -> None:
    grey = Image.fromarray(noise(9, 9))
    assert pixels.read(file_of(grey)).grey
    bilevel = pixels.read(file_of(grey.convert("1")))
    assert bilevel.grey
    assert set(np.unique(bilevel.rgb)) == {0, 255}


def test_a_palette_is_grey_exactly_if_its_colours_are() -> None:
    indexes = noise(8, 8) % 4
    for palette, grey in (([0] * 3 + [90] * 3 + [120] * 3 + [255] * 3, True),
                          ([0, 0, 0, 255, 0, 0, 0, 255, 0, 0, 0, 255], False)):  # fmt: skip
        image = Image.fromarray(indexes).copy()
        image.putpalette(palette)
        picture = pixels.read(file_of(image))
        assert picture.grey is grey
        expected = np.array(palette, np.uint8).reshape(4, 3)[indexes]
        assert np.array_equal(picture.rgb, expected)


@pytest.mark.parametrize("mode", ["RGBA", "LA"])
def test_transparency_is_dropped_with_a_warning_and_colours_are_kept(mode: str) -> None:
    array = noise(6, 6, len(mode))
    picture = pixels.read(file_of(Image.fromarray(array)))
    channels = array[:, :, :-1]
    assert np.array_equal(picture.rgb, np.broadcast_to(channels, (6, 6, 3)))
    assert picture.grey is (mode == "LA")
    assert any("transparency" in warning for warning in picture.warnings)


def test_opaque_alpha_needs_no_warning() -> None:
    array = noise(6, 6, 4)
    array[:, :, 3] = 255
    assert pixels.read(file_of(Image.fromarray(array))).warnings == ()


def test_a_transparent_palette_entry_is_warned_of() -> None:
    image = Image.fromarray(noise(8, 8) % 2).copy()
    image.putpalette([0, 0, 0, 255, 0, 0])
    picture = pixels.read(file_of(image, transparency=0))
    assert any("transparency" in warning for warning in picture.warnings)
    assert set(map(tuple, picture.rgb.reshape(-1, 3).tolist())) == {(0, 0, 0), (255, 0, 0)}


def test_sixteen_bits_are_rounded_and_warned_of() -> None:
    values = np.array([[0, 128, 129, 257, 32768, 65406, 65407, 65535]], np.uint16)
    picture = pixels.read(file_of(Image.fromarray(values)))
    assert picture.grey
    assert picture.rgb[0, :, 0].tolist() == [0, 0, 1, 1, 128, 254, 255, 255]
    assert any("16 bits" in warning for warning in picture.warnings)


def sixteen_bit_rgb_png(width: int, height: int) -> bytes:
    import zlib

    def chunk(kind: bytes, data: bytes) -> bytes:
        return (
            struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))
        )

    rows = b"".join(b"\0" + bytes(range(width * 6)) for _ in range(height))
    header = struct.pack(">IIBBBBB", width, height, 16, 2, 0, 0, 0)
    return (b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(rows))
            + chunk(b"IEND", b""))  # fmt: skip


def test_sixteen_bit_colour_is_warned_of() -> None:
    picture = pixels.read(sixteen_bit_rgb_png(4, 2))
    assert picture.rgb[0, 0].tolist() == [0, 2, 4]
    assert any("16 bits" in warning for warning in picture.warnings)


def test_cmyk_without_a_profile_is_converted_and_warned_of() -> None:
    image = Image.new("CMYK", (5, 5), (0, 255, 255, 0))
    picture = pixels.read(file_of(image, "TIFF"))
    assert picture.rgb[0, 0].tolist() == [255, 0, 0]
    assert any("approximate" in warning for warning in picture.warnings)
    assert picture.icc is None


def test_a_profile_of_another_colour_space_never_stays() -> None:
    wrong = SRGB[:16] + b"CMYK" + SRGB[20:]
    picture = pixels.read(file_of(Image.new("CMYK", (5, 5)), "TIFF", icc_profile=wrong))
    assert picture.icc is None
    picture = pixels.read(file_of(Image.new("L", (5, 5)), icc_profile=SRGB))
    assert picture.icc is None
    assert any("profile" in warning for warning in picture.warnings)


def test_damaged_and_huge_profiles_are_dropped_with_a_warning() -> None:
    image = Image.new("RGB", (5, 5))
    for icc in (b"nonsense", SRGB + bytes(1 << 20)):
        picture = pixels.read(file_of(image, "TIFF", icc_profile=icc))
        assert picture.icc is None
        assert any("profile" in warning for warning in picture.warnings)


@pytest.mark.parametrize("extension", ["png", "jpg", "webp", "tiff", "avif"])
def test_the_profile_comes_in_and_goes_out(extension: str) -> None:
    picture = pixels.read(file_of(Image.fromarray(noise(8, 8, 3)), icc_profile=SRGB))
    assert picture.icc == SRGB
    out = io.BytesIO()
    pixels.save(pixels.to_image(picture.rgb, icc=picture.icc), out, extension)
    assert pixels.read(out.getvalue()).icc == SRGB


def test_floating_point_pictures_are_refused() -> None:
    with pytest.raises(PictureError, match="floating-point"):
        pixels.read(file_of(Image.fromarray(np.ones((4, 4), np.float32)), "TIFF"))


@pytest.mark.parametrize("orientation", range(1, 9))
def test_orientation_is_applied(orientation: int) -> None:
    array = noise(4, 6, 3)
    exif = Image.Exif()
    exif[0x0112] = orientation
    picture = pixels.read(file_of(Image.fromarray(array), exif=exif))
    upright = {
        1: array, 2: array[:, ::-1], 3: array[::-1, ::-1], 4: array[::-1],
        5: array.transpose(1, 0, 2), 6: np.rot90(array, -1),
        7: np.rot90(array, 2).transpose(1, 0, 2), 8: np.rot90(array),
    }[orientation]  # fmt: skip
    assert np.array_equal(picture.rgb, upright)


def test_a_photograph_with_a_preview_behind_it_is_read() -> None:
    first, second = Image.fromarray(noise(16, 16, 3)), Image.fromarray(noise(8, 8, 3))
    data = file_of(first, "MPO", save_all=True, append_images=[second])
    picture = pixels.read(data)
    assert picture.rgb.shape == (16, 16, 3)
    assert any("holds 2 pictures" in warning for warning in picture.warnings)


@pytest.mark.parametrize("format", ["GIF", "PNG", "WEBP", "TIFF"])
def test_sequences_are_refused(format: str) -> None:
    frames = [Image.fromarray(noise(8, 8, 3) // (n + 1)) for n in range(3)]
    data = file_of(frames[0], format, save_all=True, append_images=frames[1:])
    with pytest.raises(PictureError, match=r"3 frames|3 pages"):
        pixels.read(data)


@pytest.mark.parametrize(
    ("data", "words"),
    [(b"", "empty"), (b"just some text\n", "not a picture"), (b"\x89PNG\r\n\x1a\n", "picture")],
)
def test_what_is_no_picture_is_refused(data: bytes, words: str, tmp_path: Path) -> None:
    path = tmp_path / "x.png"
    path.write_bytes(data)
    for source in (data, path):
        with pytest.raises(PictureError, match=words) as caught:
            pixels.read(source)
        assert "\n" not in str(caught.value)


def test_folders_and_missing_files_are_refused(tmp_path: Path) -> None:
    with pytest.raises(PictureError, match="folder"):
        pixels.read(tmp_path)
    with pytest.raises(PictureError, match="No such file"):
        pixels.read(tmp_path / "nothing.png")


@pytest.mark.parametrize("format", ["PNG", "JPEG", "WEBP", "TIFF", "BMP", "GIF"])
def test_truncated_files_are_refused(format: str) -> None:
    data = file_of(Image.fromarray(noise(40, 40, 3)), format)
    for length in (len(data) // 2, len(data) // 3, 30):
        with pytest.raises(PictureError):
            pixels.read(data[:length])


@settings(max_examples=150, deadline=None)
@given(st.sampled_from(["PNG", "JPEG", "TIFF", "GIF", "BMP", "PPM"]), st.data())
def test_any_damage_gives_a_picture_or_an_error_of_ours(format: str, data: st.DataObject) -> None:
    whole = bytearray(file_of(Image.fromarray(noise(12, 12, 3)), format))
    for _ in range(data.draw(st.integers(1, 4))):
        whole[data.draw(st.integers(0, len(whole) - 1))] = data.draw(st.integers(0, 255))
    try:
        picture = pixels.read(bytes(whole), Limits(max_pixels=10_000))
    except VcmError:
        return
    assert picture.rgb.dtype == np.uint8
    assert picture.rgb.size <= 30_000


def test_too_many_pixels_are_refused_before_they_are_decoded() -> None:
    data = file_of(Image.new("1", (20_000, 10_000)))  # beyond Pillow's own limit, too
    with pytest.raises(LimitError, match="--max-pixels"):
        pixels.read(data, Limits(max_pixels=199_999_999))
    with pytest.raises(LimitError):
        pixels.read(noise(4, 4, 3), Limits(max_pixels=15))
    assert Image.MAX_IMAGE_PIXELS is not None  # the process's own limit is as it was


def test_decoded_pictures_come_out_as_they_are() -> None:
    array = noise(7, 5, 3)
    image = pixels.to_image(array)
    assert np.array_equal(np.array(image), array)
    grey = pixels.to_image(np.repeat(array[:, :, :1], 3, axis=2), grey=True)
    assert grey.mode == "L"
    assert np.array_equal(np.array(grey), array[:, :, 0])
    see_through = pixels.to_image(array, alpha=array[:, :, 0])
    assert see_through.mode == "RGBA"
    assert np.array_equal(np.array(see_through)[:, :, 3], array[:, :, 0])


@pytest.mark.parametrize("extension", ["png", "webp", "tiff", "ppm", "bmp"])
def test_lossless_formats_are_written_losslessly(extension: str, tmp_path: Path) -> None:
    array = noise(9, 11, 3)
    path = tmp_path / f"a.{extension}"
    pixels.save(pixels.to_image(array), path)
    assert np.array_equal(pixels.read(path).rgb, array)


def test_what_a_format_cannot_hold_is_refused() -> None:
    see_through = pixels.to_image(noise(4, 4, 3), alpha=noise(4, 4))
    with pytest.raises(RequestError, match="transparency"):
        pixels.save(see_through, io.BytesIO(), "jpg")
    with pytest.raises(RequestError, match="picture format"):
        pixels.save(see_through, "a.doc")
    with pytest.raises(OutputError):
        pixels.save(Image.new("RGB", (20_000, 1)), io.BytesIO(), "webp")


def test_a_strip_counts_with_all_of_its_cells() -> None:
    strip = noise(160, 1, 3)
    pixels.read(strip, Limits(max_pixels=160 * 16))
    with pytest.raises(LimitError, match="--max-pixels"):
        pixels.read(strip, Limits(max_pixels=160 * 16 - 1))


def test_threads_leave_the_filters_of_warnings_as_they_were() -> None:
    before = list(warnings.filters)
    data = file_of(Image.fromarray(noise(40, 40, 3)))
    with ThreadPoolExecutor(4) as pool:
        for picture in pool.map(pixels.read, [data] * 400):
            assert picture.warnings == ()
    assert list(warnings.filters) == before


def test_bytes_in_a_tiff_of_32_bits_keep_their_brightness() -> None:
    """They were taken for very dark values of 16 bits."""
    values = noise(20, 30).astype(np.int32)
    picture = pixels.read(file_of(Image.fromarray(values), "TIFF"))
    assert np.array_equal(picture.rgb[:, :, 1], values)
    assert "32 bits" in picture.warnings[0]
    wide = pixels.read(file_of(Image.fromarray(values * 257), "TIFF"))
    assert np.array_equal(wide.rgb[:, :, 1], values)
    assert "16 bits" in wide.warnings[0]
