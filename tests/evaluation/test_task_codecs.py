"""Codecs that are shown to machines, subjects around them, and what is kept between runs."""

from __future__ import annotations

import io
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from photographs import astronaut, coffee, psnr
from vcmcodec.cli.bench_tasks import CODECS
from vcmcodec.errors import RequestError
from vcmcodec.evaluation import prediction_cache, task_codecs, task_subjects
from vcmcodec.evaluation.labelled import LabelledPicture
from vcmcodec.evaluation.prediction_cache import PredictionCache
from vcmcodec.evaluation.task_subjects import FULL_SIZE, Judge, PixelSubject, Uncompressed
from vcmcodec.vision.backend import Features
from vcmcodec.vision.geometry import InputGeometry, prepare
from vcmcodec.vision.predictions import ClassScore, DetectedObject, LabelMap, Predictions


def picture(rgb: np.ndarray, number: int = 1) -> LabelledPicture:
    sink = io.BytesIO()
    Image.fromarray(rgb).save(sink, "PNG")
    return LabelledPicture(number, f"{number}.png", sink.getvalue(), None)


@dataclass
class Eye:
    """A network that finds one object over the left half of what it is shown."""

    longer_side: int = 48
    labels: tuple[str, ...] = ("cat",)
    tasks: tuple[str, ...] = ("detection",)
    splits: tuple[str, ...] = ("input",)
    seen: list[tuple[int, int]] = field(default_factory=list)

    def head(self, rgb: np.ndarray, split: str) -> Features:
        image, geometry = prepare(rgb, self.longer_side)
        self.seen.append(rgb.shape[:2])
        return Features(split, {"input": image}, geometry)

    def rest(self, features: Features, tasks: object) -> float:
        return float(features.tensors["input"][0, :, :20, :20].mean())

    def results(self, raw: float, geometry: InputGeometry, score: float) -> Predictions:
        box = (0.0, 0.0, geometry.width / 2, float(geometry.height))
        found = (DetectedObject("cat", raw, box),)
        return Predictions(geometry.height, geometry.width, found)

    def predict(self, rgb: np.ndarray, tasks: object = None, score: float = 0.3) -> Predictions:
        features = self.head(rgb, "input")
        return self.results(self.rest(features, ()), features.geometry, score)


@dataclass
class Counted:
    """JPEG, counting."""

    codec: task_codecs.PixelCodec
    encoded: int = 0

    def __getattr__(self, name: str) -> object:
        return getattr(self.codec, name)

    def encode(self, rgb: np.ndarray, quality: float) -> bytes:
        self.encoded += 1
        return self.codec.encode(rgb, quality)

    def decode(self, data: bytes) -> np.ndarray:
        return self.codec.decode(data)


def test_the_command_line_knows_the_codecs() -> None:
    assert (*task_codecs.OWN_NAMES, *task_codecs.RIVAL_NAMES) == CODECS
    assert all(len(ladder) >= 6 for ladder in task_codecs.LADDERS.values())
    with pytest.raises(RequestError, match="no codec 'gif': there are vcm-base"):
        task_codecs.open_rival("gif", 1)


@pytest.mark.parametrize("name", task_codecs.RIVAL_NAMES)
def test_every_codec_that_is_here_codes_odd_sizes(name: str) -> None:
    codec = task_codecs.open_rival(name, 1)
    if isinstance(codec, str):
        pytest.skip(codec)
    rgb = coffee(131, 97)
    files = [codec.encode(rgb, quality) for quality in codec.ladder]
    assert sorted(map(len, files)) == list(map(len, files))
    decoded = codec.decode(files[-1])
    assert 0 <= decoded.shape[0] - 131 <= 1
    assert 0 <= decoded.shape[1] - 97 <= 1
    assert psnr(decoded[:131, :97], rgb) > 26
    assert psnr(codec.decode(files[0])[:131, :97], rgb) < psnr(decoded[:131, :97], rgb)
    assert codec.version


def test_a_codec_that_is_missing_says_so(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    assert task_codecs.open_rival("hevc", 1) == "HEVC: there is no ffmpeg on the path"
    script = tmp_path / "ffmpeg"
    script.write_text("#!/bin/sh\necho ' V..... mpeg4'\n")
    script.chmod(0o755)
    assert task_codecs.open_rival("hevc", 1) == "HEVC: this ffmpeg was built without libx265"
    script.write_text("#!/bin/sh\necho 'broken: no such thing' >&2\nexit 3\n")
    with pytest.raises(RequestError, match="ffmpeg failed: broken: no such thing"):
        task_codecs.open_rival("hevc", 1)
    monkeypatch.setitem(__import__("sys").modules, "pillow_jxl", None)
    assert task_codecs.open_rival("jxl", 1) == "JPEG XL: pillow-jxl-plugin is not installed"


def test_a_reduced_picture_is_what_the_network_would_have_made_of_it() -> None:
    rgb = astronaut(112, 160)
    small = task_subjects.reduce(rgb, 48)
    assert small.shape == (34, 48, 3)
    ours, _ = prepare(small, 48)
    whole, _ = prepare(rgb, 48)
    assert (ours == whole).all()


def test_results_are_in_pixels_of_the_true_picture_at_every_size() -> None:
    rgb = astronaut(112, 160)
    for splits in (("input",), ()):
        judge = Judge("eye", Eye(splits=splits), "print")
        (thing,) = judge.look(task_subjects.reduce(rgb, 48), 112, 160).objects or ()
        assert thing.box == pytest.approx((0, 0, 80, 112))


def test_predictions_of_a_scaled_picture_are_scaled() -> None:
    labels = np.zeros((10, 20), np.uint8)
    labels[:, 10:] = 1
    small = Predictions(
        10, 20, (DetectedObject("cat", 0.5, (1, 2, 3, 4)),), (ClassScore("cat", 0.5),),
        LabelMap(labels, ("background", "cat")),
    )  # fmt: skip
    large = task_subjects.scaled(small, 30, 40)
    assert (large.objects or ())[0].box == (2, 6, 6, 12)
    assert large.classes == small.classes
    assert large.label_map is not None
    assert large.label_map.labels.shape == (30, 40)
    assert (large.label_map.labels[:, :20] == 0).all()
    assert (large.label_map.labels[:, 20:] == 1).all()


def open_counted(
    cache: Path | None, longer: int | None = None
) -> tuple[PixelSubject, Counted, Eye]:
    codec = task_codecs.open_rival("jpeg", 1)
    assert not isinstance(codec, str)
    counted, eye = Counted(codec), Eye()
    judge = Judge("eye", eye, "print")
    return PixelSubject(counted, judge, longer, PredictionCache(cache)), counted, eye  # type: ignore[arg-type]


def test_a_second_run_neither_codes_nor_looks(tmp_path: Path) -> None:
    file = tmp_path / "deep" / "kept.sqlite"
    one = picture(astronaut())
    subject, counted, eye = open_counted(file)
    first = subject.run(one, 20)
    assert (counted.encoded, len(eye.seen)) == (1, 1)
    assert first.num_bytes == len(counted.codec.encode(astronaut(), 20))
    again, counted, eye = open_counted(file)
    second = again.run(one, 20)
    assert (counted.encoded, len(eye.seen)) == (0, 0)
    assert second.num_bytes == first.num_bytes
    assert second.predictions.objects == first.predictions.objects
    again.run(one, 21)  # another setting
    again.run(picture(coffee(), 2), 20)  # another picture
    assert (counted.encoded, len(eye.seen)) == (2, 2)
    smaller, counted, eye = open_counted(file, 48)
    assert smaller.variant == "reduced to 48"
    assert smaller.run(one, 20).num_bytes < first.num_bytes
    assert eye.seen == [(34, 48)]
    other = PixelSubject(
        counted.codec, Judge("eye", eye, "another print"), None, PredictionCache(file)
    )
    assert other.variant == FULL_SIZE
    other.run(one, 20)
    assert len(eye.seen) == 2  # another network


def test_our_own_files_are_coded_every_time(tmp_path: Path) -> None:
    own = task_codecs.open_own("vcm-preview", None, (10.0,))
    assert own.version is None
    assert (own.name, own.ladder) == ("vcm-preview", (10.0,))
    assert task_codecs.open_own("vcm-picture", None, None).ladder == task_codecs.PICTURE_LADDER


def test_a_damaged_cache_is_an_empty_one(tmp_path: Path) -> None:
    file = tmp_path / "kept.sqlite"
    file.write_bytes(b"this is no database, whatever its name says" * 100)
    subject, counted, _ = open_counted(file)
    subject.run(picture(astronaut()), 20)
    assert counted.encoded == 1
    nowhere = PredictionCache(tmp_path / "kept.sqlite" / "inside")
    assert nowhere.coded("key") is None
    nowhere.put_coded("key", 1, "hash")
    nowhere.close()


def test_what_is_kept_comes_back_whole(tmp_path: Path) -> None:
    labels = np.arange(12, dtype=np.uint8).reshape(3, 4) % 3
    full = Predictions(
        3, 4,
        (DetectedObject("cat", 1 / 3, (0.1, 0.2, 1 / 7, 2.0)),), (ClassScore("cat", 2 / 3),),
        LabelMap(labels, ("background", "cat", "dog")),
    )  # fmt: skip
    bare = Predictions(3, 4, ())
    cache = PredictionCache(tmp_path / "kept.sqlite")
    cache.put_predictions("full", full)
    cache.put_predictions("bare", bare)
    cache.put_coded("file", 17, "hash")
    cache.close()
    cache = PredictionCache(tmp_path / "kept.sqlite")
    back = cache.predictions("full")
    assert back is not None
    assert (back.height, back.width) == (3, 4)
    assert (back.objects, back.classes) == (full.objects, full.classes)
    assert back.label_map is not None
    assert (back.label_map.labels == labels).all()
    assert back.label_map.names == ("background", "cat", "dog")
    back = cache.predictions("bare")
    assert back is not None
    assert (back.objects, back.classes, back.label_map) == ((), None, None)
    assert cache.coded("file") == (17, "hash")
    assert cache.coded("full") is None
    assert cache.predictions("file") is None
    assert cache.predictions("none") is None


def test_keys_depend_on_everything() -> None:
    keys = {prediction_cache.key(*parts) for parts in (("a", 1), ("a", 2), ("a1",), ("a", "1"))}
    assert len(keys) == 4
    rgb = np.zeros((4, 6, 3), np.uint8)
    assert prediction_cache.pixel_hash(rgb) != prediction_cache.pixel_hash(rgb.reshape(6, 4, 3))


def test_the_finest_file_that_is_no_larger_is_found() -> None:
    subject, counted, _ = open_counted(None)
    one = picture(astronaut())
    limit = len(counted.codec.encode(astronaut(), 40)) + 3
    quality = subject.nearest(one, limit)
    assert quality >= 40
    assert len(counted.codec.encode(astronaut(), quality)) <= limit
    assert len(counted.codec.encode(astronaut(), quality + 1)) > limit
    assert subject.nearest(one, 1) == 0


def test_the_uncompressed_picture_costs_what_it_was_given_as() -> None:
    eye = Eye()
    one = picture(astronaut())
    subject = Uncompressed(Judge("eye", eye, "print"), PredictionCache(None))
    assert subject.run(one, 0).num_bytes == len(one.data)
    assert eye.seen == [(112, 160)]


def test_a_judge_that_cannot_do_what_is_asked_is_refused() -> None:
    with pytest.raises(RequestError, match="eye does none of segmentation"):
        Judge("eye", Eye(), "print", ("segmentation",))
    assert Judge("eye", Eye(), "print", ("classification",)).tasks == ("detection",)
