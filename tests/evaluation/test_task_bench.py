"""The whole bench on a handful of pictures: made-up codecs with known results, and real ones."""

from __future__ import annotations

import csv
import io
import json
import re
import subprocess
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner
from PIL import Image
from test_page import BROWSER

import task_models
from photographs import astronaut, photograph
from vcmcodec.bitstream.container import Container
from vcmcodec.cli.main import vcm
from vcmcodec.codec import encode
from vcmcodec.errors import RequestError
from vcmcodec.evaluation import task_bench, task_gallery, task_page, task_report
from vcmcodec.evaluation.labelled import LabelledPicture, LabelledSet
from vcmcodec.evaluation.subject import Subject
from vcmcodec.evaluation.task_bench import Lineup
from vcmcodec.evaluation.task_files import FileSubject
from vcmcodec.evaluation.task_lineup import Plan
from vcmcodec.evaluation.task_subjects import Outcome, Sides
from vcmcodec.vision.backend import open_backend
from vcmcodec.vision.predictions import ClassScore, DetectedObject, LabelMap, Predictions

BOX = (8.0, 8.0, 24.0, 30.0)


def reduced() -> str:
    """How the bench calls pictures of the size at which the installed network looks."""
    return f"reduced to {open_backend().longer_side}"


def write_set(folder: Path, count: int = 6) -> Path:
    """`count` pieces of a photograph, each with a cat and a mask; `unicorn` is no network's."""
    images, annotations = [], []
    mask = np.zeros((48, 64), np.uint8)
    mask[8:38, 8:32] = 2
    for number in range(1, count + 1):
        rgb = photograph("chelsea", 48, 64, 40 * number, 30 * number % 90)
        Image.fromarray(rgb).save(folder / f"{number}.png")
        Image.fromarray(mask).save(folder / f"{number}-mask.png")
        images.append({"id": number, "file_name": f"{number}.png", "width": 64, "height": 48,
                       "mask": f"{number}-mask.png"})  # fmt: skip
        annotations.append(
            {"id": number, "image_id": number, "category_id": 7, "bbox": list(BOX), "iscrowd": 0}
        )
    categories = [{"id": 7, "name": "cat"}, {"id": 3, "name": "unicorn"}]
    path = folder / "some <b> set.json"
    path.write_text(
        json.dumps({"images": images, "annotations": annotations, "categories": categories})
    )
    return path


@dataclass(frozen=True)
class Fake:
    """Setting k finds the cat in the first k pictures of the set, for `price` times 100 k bytes."""

    codec: str
    price: int
    ours: bool = False
    variant: str = "full size"
    settings: tuple[float, ...] = (1, 2, 3, 4, 5, 6)
    description: str = "made up"

    def run(self, picture: LabelledPicture, setting: float) -> Outcome:
        score = 0.9 if picture.id <= setting else 0.2
        place = BOX if picture.id <= setting else (40.0, 8.0, 9.0, 9.0)
        labels = np.zeros((48, 64), np.uint8)
        if picture.id <= setting:
            labels[8:38, 8:32] = 1
        found = Predictions(
            48, 64, (DetectedObject("Cat", score, place),), (ClassScore("Cat", score),),
            LabelMap(labels, ("background", "Cat")),
        )  # fmt: skip
        return Outcome(round(100 * self.price * setting), found)

    def show(self, picture: LabelledPicture, setting: float) -> tuple[np.ndarray, Outcome]:
        return picture.rgb(), self.run(picture, setting)

    def sides(self, picture: LabelledPicture, setting: float) -> Sides:
        raise AssertionError("nobody asked what it costs")


def lineup() -> Lineup:
    """Ours at a quarter of the price of the better of their two sizes."""
    whole = Fake("uncompressed", 50, settings=(6,))
    subjects = (Fake("ours", 1, True), Fake("theirs", 9), Fake("theirs", 4, variant="reduced"))
    return Lineup(whole, subjects, "oracle (0000)", ("Cat", "dog"), ("HEIC: not here",))


@pytest.fixture(scope="module")
def labelled(tmp_path_factory: pytest.TempPathFactory) -> LabelledSet:
    return LabelledSet(write_set(tmp_path_factory.mktemp("set")))


@pytest.fixture(scope="module")
def bench(labelled: LabelledSet) -> task_bench.TaskBench:
    return task_bench.run(labelled, lineup, resamples=40, within=(1.0, 30.0))


def test_known_results_are_found(bench: task_bench.TaskBench) -> None:
    assert (bench.pictures, bench.masks) == (6, 6)
    assert (bench.labels, bench.unknown) == (("cat",), ("unicorn",))
    assert set(bench.uncompressed.scores) == {"mAP50", "mAP", "mIoU", "presence"}
    for metric in ("mAP50", "mAP", "mIoU"):
        assert bench.uncompressed.scores[metric].value == pytest.approx(100)
    ours = bench.curves[0]
    assert [point.num_bytes for point in ours.points] == [100, 200, 300, 400, 500, 600]
    assert ours.points[0].bpp == pytest.approx(800 / (48 * 64))
    # k of 6 found before any false alarm: precision 1 up to recall k / 6
    assert ours.points[2].scores["mAP50"].value == pytest.approx(100 * 51 / 101)
    low, high = ours.points[2].scores["mAP50"].low, ours.points[2].scores["mAP50"].high
    assert low is not None
    assert high is not None
    assert low < 50 < high
    assert bench.uncompressed.scores["mAP50"].low == pytest.approx(100)


def test_a_quarter_of_the_bytes_is_found_and_its_variant_named(
    bench: task_bench.TaskBench,
) -> None:
    found = next(c for c in bench.comparisons if c.metric == "mAP50")
    assert (found.test, found.anchor) == ("ours", "theirs")
    assert found.rate is not None
    assert found.rate.value == pytest.approx(-75, abs=0.1)
    assert found.rate.high == pytest.approx(-75, abs=2)
    near = [r for r in bench.reaches if r.metric == "mAP50" and r.within == 30.0]
    assert [r.setting for r in near] == [5, 5]
    assert [r.setting_bytes for r in near] == [500, 2000]
    assert near[1].variant == "reduced"


def test_tables_and_csv_say_everything(bench: task_bench.TaskBench) -> None:
    tables = task_report.tables(bench)
    for table in tables:
        assert all(len(row) == len(table.columns) for row in table.rows)
    words = " ".join(note for table in tables for note in table.notes)
    for fact in ("oracle (0000)", "unicorn", "HEIC: not here", "full size and reduced", "40 boot",
                 "1, 2, 3, 4, 5, 6"):  # fmt: skip
        assert fact in words
    rows = list(csv.DictReader(io.StringIO(task_report.csv_text(bench))))
    assert len(rows) == 1 + 3 * 6
    assert rows[0]["codec"] == "uncompressed"
    assert float(rows[3]["mAP50"]) == pytest.approx(100 * 51 / 101, abs=1e-3)
    assert float(rows[3]["mAP50_low"]) < 50 < float(rows[3]["mAP50_high"])
    assert rows[-1]["variant"] == "reduced"


@pytest.mark.slow
def test_processes_give_what_one_gives(labelled: LabelledSet, bench: task_bench.TaskBench) -> None:
    beside = task_bench.run(labelled, lineup, resamples=40, within=(1.0, 30.0), jobs=2)
    assert beside.curves == bench.curves
    assert beside.comparisons == bench.comparisons
    assert beside.jobs == 2


def test_nothing_in_common_is_refused(labelled: LabelledSet, tmp_path: Path) -> None:
    def blind() -> Lineup:
        return Lineup(lineup().reference, lineup().subjects, "blind", ("tree",))

    with pytest.raises(RequestError, match="none of the data set's classes"):
        task_bench.run(labelled, blind)
    with pytest.raises(RequestError, match="nothing can be scored"):
        task_bench.run(labelled, lineup, metrics=())
    empty = tmp_path / "empty.json"
    empty.write_text('{"images": [], "annotations": [], "categories": []}')
    with pytest.raises(RequestError, match="no picture"):
        task_bench.run(LabelledSet(empty), lineup)


def test_our_base_is_asked_for_the_tasks_and_looked_up_by_bytes() -> None:
    asked = []

    def analyze(data: bytes, *, tasks: tuple[str, ...], score: float) -> Predictions:
        asked.append((len(data), tasks, score))
        return Predictions(112, 160, ())

    ours = Subject(tasks=("detection",))
    subject = FileSubject("vcm base", analyze, ours, ("detection",), (0.0, 30.0))
    sink = io.BytesIO()
    Image.fromarray(astronaut()).save(sink, "PNG")
    picture = LabelledPicture(1, "1.png", sink.getvalue(), None)
    small, large = (subject.run(picture, setting).num_bytes for setting in subject.settings)
    assert 50 < small < large
    assert asked == [(small, ("detection",), 0.01), (large, ("detection",), 0.01)]
    shown, outcome = subject.show(picture, 0.0)
    assert shown.shape == (112, 160, 3)
    assert outcome.num_bytes == small


def test_the_page_shows_the_same_picture_in_every_version(
    labelled: LabelledSet, bench: task_bench.TaskBench, tmp_path: Path
) -> None:
    scenes = task_gallery.collect(labelled, lineup(), bench, limit=2)
    assert len(scenes) == 2
    titles = [sight.title for sight in scenes[0].sights]
    assert titles == ["uncompressed", "ours, full size", "truth", "theirs, reduced"]
    ours, theirs = scenes[0].sights[1], scenes[0].sights[3]
    assert ours.num_bytes == 600  # cheapest within 3 points
    assert theirs.num_bytes == 400  # the finest that is no larger
    assert scenes[0].sights[0].found == scenes[0].sights[2].found == ("cat",)
    text = task_page.html_page(bench, scenes)
    assert "Content-Security-Policy" in text
    assert "some &lt;b&gt; set" in text
    assert "<b>" not in text
    addresses = re.findall(r"url\((.)", text)
    assert addresses.count("d") == 8
    assert set(addresses) == {"d", "#"}
    if BROWSER is None:
        return
    target = tmp_path / "page.html"
    target.write_text(text, encoding="utf-8")
    done = subprocess.run(
        [BROWSER, "--headless", "--no-sandbox", "--disable-gpu", "--virtual-time-budget=3000",
         f"--user-data-dir={tmp_path / 'profile'}", "--dump-dom", target.as_uri()],
        capture_output=True, text=True, timeout=120, check=True,
    )  # fmt: skip
    assert 'data-ready="yes"' in done.stdout
    tags = re.findall(r'<span class="tag [ab]">([^<]*)</span>', done.stdout)
    assert tags[:2] == ["ours, full size, 600 bytes", "theirs, reduced, 400 bytes"]


@pytest.mark.weights
def test_the_command_measures_ours_and_the_others(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    labels = write_set(tmp_path, 2)
    arguments = ["bench", "tasks", str(labels), "--codecs", "vcm-preview,jpeg", "--threads", "1",
                 "--resamples", "20", "--costs", "1", "--base-quality", "0,20,40,60", "--json",
                 str(tmp_path / "found.json"), "--csv", str(tmp_path / "found.csv"),
                 "--html", str(tmp_path / "found.html"), "--html-pictures", "1"]  # fmt: skip
    done = CliRunner().invoke(vcm, arguments)
    assert done.exit_code == 0, done.output
    assert "Left out, unknown to the network: unicorn" in done.output
    found = json.loads((tmp_path / "found.json").read_text())["tasks"]
    assert [c["codec"] for c in found["curves"]] == ["vcm base as a picture", "JPEG", "JPEG"]
    assert [c["variant"] for c in found["curves"]][1:] == ["full size", reduced()]
    assert [p["setting"] for p in found["curves"][0]["points"]] == [0, 20, 40, 60]
    assert found["judge"].startswith("vision-1 (")
    assert found["environment"]["threads"] == 1
    costs = json.loads((tmp_path / "found.json").read_text())["costs"]
    assert costs["pictures"] == ["1.png"]
    assert [one["at"]["codec"] for one in costs["codecs"]] == ["vcm base as a picture", "JPEG"]
    assert costs["codecs"][0]["edge_kmacs"] > 0
    assert costs["codecs"][1]["edge_kmacs"] is None
    assert "edge kMAC a pixel" in (tmp_path / "found.html").read_text()
    assert len((tmp_path / "found.csv").read_text().splitlines()) == 1 + 1 + 4 + 8 + 8
    assert "dataset.ready" in (tmp_path / "found.html").read_text()
    assert (tmp_path / "cache" / "vcmcodec" / "task-predictions.sqlite").stat().st_size > 10_000


@pytest.mark.weights
def test_the_base_layer_answers_without_pixels_beside_others(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With a small network that finds anything anywhere: what counts is the way of the bytes."""
    monkeypatch.setenv("VCMCODEC_WEIGHTS", str(task_models.install(tmp_path / "weights")))
    plan = Plan(("vcm-base", "jpeg"), base_ladder=(0, 20, 40, 60))
    labels = write_set(tmp_path, 2)
    found = task_bench.run(LabelledSet(labels), plan, resamples=0)
    base, jpeg, _ = found.curves
    assert (base.codec, base.variant, base.ours) == ("vcm base", "full size", True)
    assert set(base.points[0].scores) == {"mAP50", "mAP", "mIoU", "presence"}
    rgb = LabelledSet(labels).pictures().__next__().rgb()
    first = Subject(tasks=("detection",), base_quality=0).encode(rgb, None)
    assert base.points[0].num_bytes == pytest.approx(len(first), rel=0.3)
    assert [one.num_bytes for one in base.points] == sorted({o.num_bytes for o in base.points})
    assert jpeg.points[0].num_bytes > base.points[0].num_bytes
    assert "tasks-small (" in found.versions["vcm base"]
    assert found.curves[0].points[0].scores["mIoU"].low is None  # no draws were asked for
    assert not found.missing


@pytest.mark.weights
def test_the_base_layer_runs_adapted_and_as_it_is(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = task_models.install(tmp_path / "weights", longer_side=64, coded_side=64, effort=2)
    monkeypatch.setenv("VCMCODEC_WEIGHTS", str(folder))
    whole, adapted, plain = Plan(("vcm-base", "vcm-base-plain"), base_ladder=(30,))().subjects
    assert [one.codec for one in (whole, adapted, plain)] == ["vcm base"] * 2 + ["vcm base-plain"]
    assert (whole.variant, adapted.variant) == ("full size", "reduced to 64")
    assert plain.variant == adapted.variant
    picture = next(LabelledSet(write_set(tmp_path, 1)).pictures())
    rgb = picture.rgb()
    for subject, asked in ((whole, {"longer_side": 0}), (adapted, {}), (plain, {"effort": 0})):
        data = encode(rgb, tasks=["detection"], base_quality=30, **asked)  # type: ignore[arg-type]
        assert subject.run(picture, 30).num_bytes == len(data)


@pytest.mark.weights
def test_previews_of_adapted_bases_are_not_called_full_size(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Only the pictures given to the codec are at full size: its files reduce them."""
    folder = task_models.install(tmp_path / "weights", longer_side=64, coded_side=48, effort=2)
    monkeypatch.setenv("VCMCODEC_WEIGHTS", str(folder))
    codecs = ("vcm-preview", "vcm-preview-adapted", "vcm-picture")
    picture = next(LabelledSet(write_set(tmp_path, 1)).pictures())
    sizes = []
    for subject in Plan(codecs, base_ladder=(30,))().subjects:
        file = Container.read(subject.sides(picture, 30).edge())
        sizes.append((subject.variant, file.header.coded_size))
        assert subject.show(picture, 30)[0].shape == (48, 64, 3)
    assert sizes == [("full size", (48, 64)), ("reduced to 48 in the file", (36, 48)),
                     ("full size", (48, 64))]  # fmt: skip


@pytest.mark.weights
def test_a_plan_names_what_cannot_be_run(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", "")
    opened = Plan(("hevc", "jpeg"))()
    assert opened.missing == ("HEVC: there is no ffmpeg on the path",)
    other = Plan(("vcm-base", "jpeg"), judge="vision-1")()
    assert other.missing == ("vcm base: it brings its own network and cannot be judged by another",)
    assert [one.variant for one in opened.subjects] == ["full size", reduced()]
    with pytest.raises(RequestError, match="no codec can be run: HEVC"):
        Plan(("hevc",))()


def test_a_picture_given_for_labels_is_one_short_line(tmp_path: Path) -> None:
    """The whole file once stood in the message: a decoder's error names all that it was given."""
    Image.fromarray(photograph("chelsea", 200, 300, 0, 0)).save(tmp_path / "labels.json", "png")
    with pytest.raises(RequestError, match="is not a COCO label file") as caught:
        LabelledSet(tmp_path / "labels.json")
    assert len(str(caught.value)) < 300
    (tmp_path / "keys.json").write_text('{"images": []}')
    with pytest.raises(RequestError, match="KeyError"):
        LabelledSet(tmp_path / "keys.json")
