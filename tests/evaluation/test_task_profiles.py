"""One table of all profiles: what both sides pay, what the highest setting loses, and the page."""

from __future__ import annotations

import io
import json
import math
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
import torch
from click.testing import CliRunner
from PIL import Image

import bottleneck_model
import pyramid_model
import semantic_model
from photographs import photograph
from vcmcodec import machine
from vcmcodec.cli.main import vcm
from vcmcodec.errors import RequestError
from vcmcodec.evaluation import markdown, task_bench, task_costs, task_report, timing
from vcmcodec.evaluation.labelled import LabelledPicture, LabelledSet
from vcmcodec.evaluation.macs import count_kmacs
from vcmcodec.evaluation.report import Table
from vcmcodec.evaluation.subject import Subject
from vcmcodec.evaluation.task_bench import Lineup
from vcmcodec.evaluation.task_files import FileSubject
from vcmcodec.evaluation.task_lineup import Plan
from vcmcodec.evaluation.task_subjects import FLOOR, Outcome, Sides
from vcmcodec.evaluation.timing import Timing
from vcmcodec.vision.predictions import DetectedObject, Predictions
from vcmcodec.vision.split import split_points
from weights_folder import weights_from

PIXELS = 48 * 64
BOX = (8.0, 8.0, 24.0, 30.0)
PAGE = f"# A page\n\nbefore\n\n{markdown.BEGIN}\nold\n{markdown.END}\n\nafter\n"


def write_set(folder: Path, count: int) -> Path:
    """`count` pieces of a photograph with a cat in each."""
    images, annotations = [], []
    for number in range(1, count + 1):
        rgb = photograph("chelsea", 48, 64, 20 * number, 30 * number % 90)
        Image.fromarray(rgb).save(folder / f"{number}.png")
        images.append({"id": number, "file_name": f"{number}.png", "width": 64, "height": 48})
        annotations.append(
            {"id": number, "image_id": number, "category_id": 7, "bbox": list(BOX), "iscrowd": 0}
        )
    whole = {"images": images, "annotations": annotations}
    path = folder / "set.json"
    path.write_text(json.dumps(whole | {"categories": [{"id": 7, "name": "cat"}]}))
    return path


@dataclass(frozen=True)
class Paid:
    """Setting k finds the cat in the first k of ten pictures; its edge multiplies 48 x 64 k."""

    codec: str
    best: int
    ours: bool = False
    variant: str = "full size"
    settings: tuple[float, ...] = (2, 4, 6, 8, 10)
    description: str = "made up"
    price: int = 100
    delay_ms: float = 0

    def run(self, picture: LabelledPicture, setting: float) -> Outcome:
        place = BOX if picture.id <= min(setting, self.best) else (40.0, 8.0, 9.0, 9.0)
        found = Predictions(48, 64, (DetectedObject("cat", 0.9, place),))
        return Outcome(round(self.price * setting), found)

    def show(self, picture: LabelledPicture, setting: float) -> tuple[np.ndarray, Outcome]:
        return picture.rgb(), self.run(picture, setting)

    def sides(self, picture: LabelledPicture, setting: float) -> Sides:
        def edge() -> bytes:
            torch.ones(48, round(setting)) @ torch.ones(round(setting), 64)
            return b"file"

        def server(data: bytes) -> Predictions:
            assert data == b"file"
            time.sleep(self.delay_ms / 1000)
            return self.run(picture, setting).predictions

        return Sides(edge, server, counted=self.ours)


def lineup() -> Lineup:
    """Ours reaches all, in either of two sizes; theirs half; features before coding nine."""
    subjects = (
        Paid("ours", 10, True, delay_ms=4),
        Paid("ours", 10, True, variant="reduced", price=90),
        Paid("theirs", 5),
    )
    whole = Paid("uncompressed", 10, settings=(10,), price=500)
    raw = Paid("ours", 9, settings=(10,), price=400)
    return Lineup(whole, subjects, "oracle (0000)", ("cat",), uncoded=(raw,))


@pytest.fixture(scope="module")
def labelled(tmp_path_factory: pytest.TempPathFactory) -> LabelledSet:
    return LabelledSet(write_set(tmp_path_factory.mktemp("set"), 10))


@pytest.fixture(scope="module")
def bench(labelled: LabelledSet) -> task_bench.TaskBench:
    return task_bench.run(labelled, lineup, resamples=30)


def test_codecs_are_compared_where_they_are_near_enough_and_cheapest(
    bench: task_bench.TaskBench,
) -> None:
    near, far = task_costs.operating_points(bench, "mAP50", 25.0)
    assert (near.codec, near.variant, near.point.setting, near.near) == ("ours", "reduced", 8, True)
    assert near.point.num_bytes == 720
    # five of ten are found from setting 6 on: the cheapest of equally good ones, and it is named
    assert (far.codec, far.point.setting, far.near) == ("theirs", 6, False)
    exact = task_costs.operating_points(bench, "mAP50", 0.0)[0]
    assert (exact.point.setting, exact.near) == (10, True)


def test_both_sides_are_timed_and_the_edge_is_counted(
    labelled: LabelledSet, bench: task_bench.TaskBench
) -> None:
    costs = task_costs.run(labelled, lineup(), bench, within=25.0, limit=2, repeats=2)
    assert costs.pictures == ("1.png", "6.png")  # evenly spread
    ours, theirs = costs.codecs
    assert ours.edge_kmacs == pytest.approx(48 * 8 * 64 / PIXELS / 1000)
    assert theirs.edge_kmacs is None
    assert ours.edge.repeats == ours.server.repeats == costs.uncompressed.repeats == 4
    slow = (Paid("ours", 10, True, delay_ms=25), *lineup().subjects[2:])
    waiting = Lineup(lineup().reference, slow, "oracle", ("cat",))
    late = task_bench.run(labelled, lambda: waiting, resamples=0)
    found = task_costs.run(labelled, waiting, late, limit=1, repeats=1).codecs
    assert found[0].server.median_ms >= 25 > found[0].edge.median_ms
    with pytest.raises(RequestError, match="at least one repeat"):
        task_costs.run(labelled, lineup(), bench, repeats=0)
    with pytest.raises(RequestError, match="at least one picture"):
        task_costs.run(labelled, lineup(), bench, limit=0)


def test_times_over_pictures_are_medians_of_medians() -> None:
    several = [Timing(3, 1, 9, 2), Timing(5, 4, 6, 2), Timing(40, 39, 41, 2)]
    assert timing.over_pictures(several) == Timing(5, 1, 41, 6)


def test_the_highest_setting_is_weighed_against_uncoded_features(
    bench: task_bench.TaskBench,
) -> None:
    full, reduced = bench.near_lossless
    assert (full.codec, full.setting, full.num_bytes, full.raw_bytes) == ("ours", 10, 1000, 4000)
    assert full.ratio.value == pytest.approx(4)
    assert reduced.ratio.value == pytest.approx(4000 / 900)
    nothing, better = full.losses["mAP50"], full.coding_losses["mAP50"]
    assert nothing is not None
    assert better is not None
    assert nothing.value == nothing.high == pytest.approx(0)
    assert better.value == pytest.approx(100 * (1 - 101 / 91))  # nine of ten: recall up to 0.9
    assert [curve.codec for curve in bench.curves] == ["ours", "ours", "theirs"]
    assert all("theirs" in (one.test, one.anchor) for one in bench.comparisons)


def test_tables_name_codecs_threads_and_dashes(
    labelled: LabelledSet, bench: task_bench.TaskBench
) -> None:
    costs = task_costs.run(labelled, lineup(), bench, within=25.0, limit=1, repeats=1)
    paid, kept = task_report.profile_tables(bench, costs)
    for table in (paid, kept):
        assert all(len(row) == len(table.columns) for row in table.rows)
    assert [row[0] for row in paid.rows] == ["uncompressed", "ours", "theirs"]
    kmacs, near = (paid.columns.index(name) for name in ("edge kMAC a pixel", "within 25 of mAP50"))
    assert [row[kmacs] for row in paid.rows] == ["-", "0.01", "-"]
    assert [row[near] for row in paid.rows] == ["-", "yes", "never"]
    assert "1 thread." in paid.notes[0]
    assert [row[5] for row in kept.rows] == ["pictures", "own features"] * 2
    assert any("oracle (0000)" in note for note in kept.notes)
    assert [t.title for t in task_report.tables(bench, costs)][2:4] == [paid.title, kept.title]
    assert len(task_report.tables(bench)) == 4


def test_markdown_holds_what_the_table_holds() -> None:
    table = Table("A <b> *b*", ("a|b", "c_d"), (("1\n2", "[3, 4]"),), ("a note",))
    assert markdown.markdown_text([table, table]).split("\n\n")[:4] == [
        "**A \\<b\\> \\*b\\***",
        "| a\\|b | c\\_d |\n|---|---:|\n| 1 2 | \\[3, 4\\] |",
        "- a note",
        "**A \\<b\\> \\*b\\***",
    ]


def test_a_page_keeps_all_but_the_old_table() -> None:
    page = markdown.insert("new\n", PAGE)
    assert page == PAGE.replace("\nold\n", "\n\nnew\n\n")
    assert markdown.insert("new\n", page) == page
    for broken in ("no place", PAGE + PAGE, f"{markdown.END}\n{markdown.BEGIN}", markdown.BEGIN):
        with pytest.raises(RequestError, match="no place for tables"):
            markdown.insert("new", broken)


def test_the_page_of_profiles_has_a_place_for_the_table() -> None:
    page = Path(__file__).resolve().parents[2] / "docs" / "profiles.md"
    text = page.read_text(encoding="utf-8")
    assert "new table" in markdown.insert("new table", text)
    assert "--markdown docs/profiles.md" in text


# ---- real profiles, with small models


@pytest.fixture(scope="module")
def installed(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    folder = tmp_path_factory.mktemp("weights")
    for model in (pyramid_model, bottleneck_model, semantic_model):
        model.install(folder)
    with weights_from(folder):
        yield


@pytest.fixture(scope="module")
def real(
    installed: None, tmp_path_factory: pytest.TempPathFactory
) -> tuple[task_bench.TaskBench, task_costs.Costs, LabelledSet]:
    """All kinds of features, and JPEG, at two settings on two pictures."""
    labelled = LabelledSet(write_set(tmp_path_factory.mktemp("real"), 2))
    names = ("vcm-pyramid", "vcm-bottleneck-c4", "vcm-bottleneck-fpn", "vcm-semantic", "jpeg")
    plan = Plan(names, base_ladder=(0.0, 100.0))
    bench = task_bench.run(labelled, plan, resamples=5)
    assert not bench.missing
    return bench, task_costs.run(labelled, plan(), bench, limit=1, repeats=1), labelled


@pytest.mark.weights
def test_raw_bytes_are_those_that_cross_the_split_point(
    real: tuple[task_bench.TaskBench, task_costs.Costs, LabelledSet],
) -> None:
    bench = real[0]
    kept = {one.codec: one for one in bench.near_lossless}
    network = pyramid_model.backend()
    longer = network.longer_side
    sides = (-(-longer * 3 // 4 // 32) * 32, -(-longer // 32) * 32)  # 48 x 64, filled up to 32
    points = split_points(network.model.network.config)
    for name, split in (("pyramid", "fpn"), ("bottleneck-fpn", "fpn"), ("bottleneck-c4", "c4")):
        one = kept[f"vcm {name}"]
        assert one.raw_bytes == 4 * sum(map(math.prod, points[split].shapes(*sides).values()))
        assert one.setting == 100
        assert one.ratio.value == pytest.approx(one.raw_bytes / one.num_bytes)
        assert one.ratio.value > 1
        # of one network: what it finds in its own features is what it finds in the picture
        assert one.losses == one.coding_losses
    assert kept["vcm semantic"].raw_bytes < kept["vcm bottleneck-c4"].raw_bytes
    tops = {c.codec: max(c.points, key=lambda p: p.setting) for c in bench.curves}
    assert all(one.num_bytes == tops[name].num_bytes for name, one in kept.items())


@pytest.mark.weights
def test_every_profile_says_what_both_sides_pay(
    real: tuple[task_bench.TaskBench, task_costs.Costs, LabelledSet],
) -> None:
    bench, costs, labelled = real
    paid = {one.at.codec: one for one in costs.codecs}
    assert set(paid) == {curve.codec for curve in bench.curves}
    assert paid["JPEG"].edge_kmacs is None
    assert all(one.edge.median_ms > 0 and one.server.median_ms > 0 for one in costs.codecs)
    rgb = next(labelled.pictures()).rgb()
    network = pyramid_model.backend()
    for name, split in (("pyramid", "fpn"), ("bottleneck-c4", "c4"), ("bottleneck-fpn", "fpn")):
        front = count_kmacs(lambda split=split: network.head(rgb, split), PIXELS)[0]  # type: ignore[misc]
        found = paid[f"vcm {name}"].edge_kmacs
        assert found is not None
        assert found > front  # and the units' or the codec's encoder besides
    fpn, c4 = (paid[f"vcm bottleneck-{split}"].edge_kmacs for split in ("fpn", "c4"))
    assert fpn is not None
    assert c4 is not None
    assert fpn > c4


@pytest.mark.weights
@pytest.mark.usefixtures("installed")
def test_uncoded_features_are_those_that_the_tasks_read() -> None:
    rgb = photograph("coffee", 96, 128, 0, 0)
    sink = io.BytesIO()
    Image.fromarray(rgb).save(sink, "PNG")
    picture = LabelledPicture(1, "1.png", sink.getvalue(), None)
    tasks = ("classification",)
    subject = Subject(tasks=tasks, profile="bottleneck", split="fpn")
    coded = FileSubject("vcm bottleneck-fpn", machine.analyze, subject, tasks, (0.0, 100.0))
    uncoded = coded.uncoded()
    assert uncoded is not None
    assert uncoded.codec == coded.codec
    raw, file = uncoded.run(picture, 0), coded.run(picture, 100)
    network = pyramid_model.backend()
    p5 = network.head(rgb, "fpn").tensors["p5"]  # p3 and p4 are not read
    assert raw.num_bytes == 4 * p5.numel() > file.num_bytes
    assert raw.predictions.classes == network.predict(rgb, tasks, FLOOR).classes
    assert raw.predictions.objects is None
    best = max(raw.predictions.classes or (), key=lambda one: one.score)
    near = {one.label: one.score for one in file.predictions.classes or ()}
    assert near[best.label] == pytest.approx(best.score, abs=0.2)
    scene = FileSubject("vcm base", machine.analyze, Subject(), tasks, (0.0,))
    assert scene.uncoded() is None


@pytest.mark.weights
@pytest.mark.usefixtures("installed")
def test_the_command_writes_its_table_into_a_page(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    page = tmp_path / "page.md"
    page.write_text(PAGE)
    labels = write_set(tmp_path, 2)
    arguments = ["bench", "tasks", str(labels), "--codecs", "vcm-pyramid,jpeg", "--threads", "1",
                 "--base-quality", "0,100", "--resamples", "0", "--costs", "1",
                 "--markdown", str(page)]  # fmt: skip
    done = CliRunner().invoke(vcm, arguments)
    assert done.exit_code == 0, done.output
    text = page.read_text()
    assert text.startswith("# A page\n\nbefore\n")
    assert text.endswith(f"{markdown.END}\n\nafter\n")
    assert "\nold\n" not in text
    rows = [line for line in text.splitlines() if line.startswith(("| vcm pyramid", "| JPEG"))]
    assert [row.count("|") for row in rows] == [rows[0].count("|")] * 2 + [rows[2].count("|")]
    fresh = tmp_path / "fresh.md"
    arguments[arguments.index("vcm-pyramid,jpeg")] = "jpeg"
    again = CliRunner().invoke(vcm, [*arguments[:-1], str(fresh)])
    assert again.exit_code == 0, again.output
    assert fresh.read_text().startswith("**Bytes, accuracy")
    assert "Judge: vision-" in fresh.read_text()
    assert "highest setting" not in fresh.read_text()  # no features were coded


def test_a_page_without_a_place_is_refused_before_anything_is_measured(tmp_path: Path) -> None:
    labels = write_set(tmp_path, 1)
    page = tmp_path / "page.md"
    page.write_text("my notes\n")
    done = CliRunner().invoke(vcm, ["bench", "tasks", str(labels), "--markdown", str(page)])
    assert done.exit_code == 1
    assert "no place for tables" in done.output
    assert page.read_text() == "my notes\n"
    done = CliRunner().invoke(
        vcm, ["bench", "tasks", str(labels), "--costs", "0", "--markdown", str(tmp_path / "new.md")]
    )
    assert done.exit_code == 2
    assert "--costs must not be 0" in done.output
