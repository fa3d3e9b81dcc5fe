"""Rivals through Pillow, their cache, and a whole run of them."""

from __future__ import annotations

import itertools
import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from vcmcodec.errors import PictureError, RequestError
from vcmcodec.evaluation import rate_distortion
from vcmcodec.evaluation.charts import draw_curves, save_chart, svg_text
from vcmcodec.evaluation.corpora import (
    keep_largest_groups,
    list_pictures,
    oddities,
    photo,
    read_group_mask,
    read_picture,
)
from vcmcodec.evaluation.published import read_curve, read_curves
from vcmcodec.evaluation.report import rate_distortion_tables, to_json
from vcmcodec.evaluation.rival_cache import RivalCache
from vcmcodec.evaluation.rivals import RIVALS, choose, nearest_in_bytes


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    where = tmp_path_factory.mktemp("pictures")
    whole = Image.fromarray(photo(768, 512).rgb)
    whole.crop((100, 100, 292, 276)).save(where / "a.png")
    whole.crop((400, 200, 592, 376)).save(where / "b.png")
    (where / "notes.txt").write_text("not a picture")
    return where


@pytest.mark.parametrize("name", list(RIVALS))
def test_rate_and_quality_rise_along_the_ladder(name: str) -> None:
    rival, picture = RIVALS[name], photo(192, 128)
    ladder = rival.ladder[::3]
    points = [rate_distortion.measure(rival, picture, quality) for quality in ladder]
    assert all(a.bpp < b.bpp for a, b in itertools.pairwise(points))
    assert all(a.psnr_db < b.psnr_db for a, b in itertools.pairwise(points))
    assert rival.decode(rival.encode(picture.rgb, 50)).shape == picture.rgb.shape


def test_jpeg_is_optimised_and_420() -> None:
    picture = photo(192, 128)
    rival = RIVALS["jpeg"]
    data = rival.encode(picture.rgb, 50)
    # SOF0, three components: sampling factors 2x2 for luma and 1x1 for colour.
    start = data.index(b"\xff\xc0")
    assert [data[start + 11 + 3 * i] for i in range(3)] == [0x22, 0x11, 0x11]
    plain = RIVALS["jpeg"].__class__("j", "J", "JPEG", "jpg", (("subsampling", "4:2:0"),), (50,))
    assert len(data) < len(plain.encode(picture.rgb, 50))


def test_unknown_rival_is_named() -> None:
    with pytest.raises(RequestError, match="'bmp'"):
        choose(("jpeg", "bmp"))


def test_nearest_in_bytes_is_the_finest_that_fits() -> None:
    rival, rgb = RIVALS["webp"], photo(192, 128).rgb
    quality, data = nearest_in_bytes(rival, rgb, 1500)
    assert len(data) <= 1500 < len(rival.encode(rgb, quality + 1))
    quality, data = nearest_in_bytes(rival, rgb, 1)
    assert quality == 0
    assert len(data) > 1


def test_run_of_rivals_alone_reports_everything(folder: Path, tmp_path: Path) -> None:
    cache_path = tmp_path / "deep" / "cache.json"
    rivals = choose(("jpeg", "webp"))
    first = rate_distortion.run(
        folder, subject=None, qualities=(), rivals=rivals, cache=RivalCache(cache_path)
    )
    assert first.pictures == ("a", "b")
    assert first.pixels == 2 * 192 * 176
    assert {m.codec for m in first.measurements} == {"JPEG", "WebP"}
    for m in first.measurements:
        assert m.bpp == pytest.approx(8 * m.num_bytes / (192 * 176))
        assert m.ms_ssim is not None
    result = rate_distortion.summarize(
        first.measurements,
        pictures=first.pictures,
        pixels=first.pixels,
        settings=first.settings,
        environment=first.environment,
        test="WebP",
    )
    by_metric = {c.metric: c for c in result.comparisons}
    rate = by_metric["psnr"].rate
    assert rate is not None
    assert -60 < rate.value < -10
    assert by_metric["psnr"].picture_mean == pytest.approx(rate.value, abs=8)
    record = json.loads(to_json(result))
    assert record["settings"]["JPEG"].startswith("optimize True, subsampling 4:2:0")
    assert record["environment"]["versions"]["pillow"]
    assert len(record["measurements"]) == len(first.measurements)
    points, figures = rate_distortion_tables(result)
    assert len(points.rows) == sum(len(r.ladder) for r in rivals)
    assert any("a, b" in note for note in figures.notes)


def test_cached_run_is_equal_and_codes_nothing(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def run() -> rate_distortion.RateDistortion:
        return rate_distortion.run(
            folder,
            subject=None,
            qualities=(),
            rivals=choose(("jpeg",)),
            limit=1,
            cache=RivalCache(tmp_path / "cache.json"),
        )

    first = run()
    kept = json.loads((tmp_path / "cache.json").read_text())
    assert all(isinstance(v, list) and len(v) == 4 for v in kept.values())

    def refuse(*args: object) -> None:
        raise AssertionError("measured again")

    monkeypatch.setattr(rate_distortion, "measure", refuse)
    assert run().measurements == first.measurements
    (tmp_path / "cache.json").write_text('{"broken')
    with pytest.raises(AssertionError, match="measured again"):
        run()


def test_cache_key_depends_on_everything() -> None:
    jpeg, webp = RIVALS["jpeg"], RIVALS["webp"]
    keys = {
        RivalCache.key("a", jpeg, 10),
        RivalCache.key("b", jpeg, 10),
        RivalCache.key("a", jpeg, 11),
        RivalCache.key("a", webp, 10),
    }
    assert len(keys) == 4


def test_chart_is_written_and_names_its_axes(folder: Path, tmp_path: Path) -> None:
    result = rate_distortion.run(
        folder, subject=None, qualities=(), rivals=choose(("jpeg",)), limit=1
    )
    figure = draw_curves(result.curves, subject="JPEG", title="one picture")
    save_chart(figure, tmp_path / "chart.png")
    with Image.open(tmp_path / "chart.png") as image:
        assert image.width > 1000
    text = svg_text(figure)
    for words in ("Rate, bits a pixel", "PSNR of RGB, dB", "MS-SSIM", "JPEG", "one picture"):
        assert words in text
    with pytest.raises(RequestError, match=r"\.png or \.svg"):
        save_chart(figure, tmp_path / "chart.gif")


def test_published_curves_are_read_or_refused(tmp_path: Path) -> None:
    record = {"name": "X", "results": {"bpp": [0.4, 0.2], "psnr-rgb": [32.0, 30.0]}}
    (tmp_path / "x.json").write_text(json.dumps(record))
    (curve,) = read_curves(tmp_path)
    assert curve.published
    assert [(p.bpp, p.psnr_db) for p in curve.points] == [(0.2, 30.0), (0.4, 32.0)]
    (tmp_path / "y.json").write_text('{"results": {"bpp": [1.0]}}')
    with pytest.raises(RequestError, match=r"y\.json"):
        read_curve(tmp_path / "y.json")
    with pytest.raises(RequestError, match="no published curves"):
        read_curves(tmp_path / "nothing")


def test_folder_of_pictures(folder: Path, tmp_path: Path) -> None:
    assert [p.name for p in list_pictures(folder)] == ["a.png", "b.png"]
    assert [p.name for p in list_pictures(folder, 1)] == ["a.png"]
    with pytest.raises(RequestError, match="no pictures"):
        list_pictures(tmp_path)
    with pytest.raises(RequestError, match="not a folder"):
        list_pictures(folder / "a.png")


def test_group_maps_of_cells_and_of_pixels(folder: Path, tmp_path: Path) -> None:
    picture = read_picture(folder / "a.png")
    cells = np.arange(11 * 12, dtype=np.uint8).reshape(11, 12) % 5
    Image.fromarray(cells).save(tmp_path / "a.png")
    mask = read_group_mask(tmp_path, picture)
    assert mask.shape == (176, 192)
    assert np.array_equal(mask[::16, ::16], cells)
    Image.fromarray(mask).save(tmp_path / "a.png")
    assert np.array_equal(read_group_mask(tmp_path, picture), mask)
    Image.fromarray(cells[:5]).save(tmp_path / "a.png")
    with pytest.raises(PictureError, match="neither"):
        read_group_mask(tmp_path, picture)


def test_largest_groups_are_kept() -> None:
    mask = np.repeat(np.array([7, 3, 9, 1], np.uint8), [5, 9, 2, 3])[None]
    kept = keep_largest_groups(mask, 3)
    assert sorted(np.unique(kept, return_counts=True)[1].tolist()) == [5, 5, 9]
    assert (kept[mask == 3] == 1).all()
    assert (kept[(mask == 9) | (mask == 1)] == 0).all()


def test_oddities_are_what_they_say() -> None:
    table = {picture.name: picture.rgb for picture in oddities()}
    assert all(rgb.dtype == np.uint8 and rgb.shape[2] == 3 for rgb in table.values())
    assert table["1x1"].shape == (1, 1, 3)
    assert table["4000x1"].shape == (1, 4000, 3)
    assert table["1x4000"].shape == (4000, 1, 3)
    assert len(np.unique(table["one colour"].reshape(-1, 3), axis=0)) == 1
    stripes = table["stripes at Nyquist"].astype(int)
    assert (np.abs(np.diff(stripes, axis=1)) == 255).all()
    assert table["noise"].std() > 70


def test_photo_continues_without_seams() -> None:
    large, small = photo(1700, 1100).rgb, photo(768, 512).rgb
    assert large.shape == (1100, 1700, 3)
    assert np.array_equal(large[:512, :768], small)
    assert np.array_equal(large[512:1024, :768], small[::-1])
    assert np.array_equal(large[:512, 768:1536], small[:, ::-1])
