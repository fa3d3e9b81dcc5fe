"""Results straight from a base layer: which bytes, which cells, which groups, no pixel.

The networks are small and seeded: what they say means nothing, but it must be the same wherever
the same cells were decoded.
"""

from __future__ import annotations

from dataclasses import replace
from functools import cache
from pathlib import Path

import numpy as np
import pytest
import torch

from photographs import astronaut, photograph, pixels_of
from task_models import install, small_network
from vcmcodec import edit, machine, models, pretrained
from vcmcodec.bitstream.constants import FIRST_READ_BYTES, Kind, LayerId
from vcmcodec.bitstream.container import Container
from vcmcodec.codec import encode
from vcmcodec.errors import RequestError, TruncatedError, WeightsError
from vcmcodec.nn.transforms import Synthesis
from vcmcodec.profiles import scene
from vcmcodec.vision.network import TASKS
from vcmcodec.vision.predictions import ClassScore, DetectedObject, LabelMap, Predictions

CELLS = np.zeros((15, 20), np.uint8)
CELLS[3:9, 4:11] = 1
CELLS[10:, :3] = 2


@pytest.fixture(scope="module")
def weights(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return install(tmp_path_factory.mktemp("tasks"))


@pytest.fixture(autouse=True)
def _installed(weights: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("VCMCODEC_WEIGHTS", str(weights))


@cache
def file() -> bytes:
    """Three layers, three groups; the base alone is longer than the first read."""
    made = encode(picture(), quality=100, base_quality=90, groups=CELLS)
    base = edit.extract(made, tasks=["detection"])
    assert FIRST_READ_BYTES < len(base) < 0.8 * len(made)
    return made


def picture() -> np.ndarray:
    return photograph("coffee", 240, 320, 60, 150)


def same(one: Predictions, other: Predictions) -> bool:
    return one.to_json("", "all") == other.to_json("", "all")


class Afar:
    """A source that counts: a server, say."""

    def __init__(self, data: bytes) -> None:
        self.data, self.reads = data, list[tuple[int, int]]()

    def get_bytes(self, offset: int, length: int) -> bytes:
        self.reads.append((offset, length))
        return self.data[offset : offset + length]


@pytest.mark.parametrize("groups", [None, [1], [0, 2]], ids=str)
def test_only_the_base_of_the_chosen_groups_is_read_and_no_pixel_is_decoded(
    groups: list[int] | None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def forbidden(*arguments: object, **options: object) -> None:
        raise AssertionError("a picture was decoded")

    monkeypatch.setattr(Synthesis, "forward", forbidden)
    monkeypatch.setattr(scene, "synthesise", forbidden)
    path = tmp_path / "picture.vcm"
    path.write_bytes(file())
    needed = [
        e
        for e in Container.read(file()).entries
        if e.kind == Kind.GROUP_MAP
        or (e.layer == LayerId.BASE and e.group in (groups or [0, 1, 2]))
    ]
    front = FIRST_READ_BYTES
    behind = sum(e.end - max(e.offset, front) for e in needed if e.end > front)
    with machine.Reader(path) as reader:
        found = machine.analyze_reader(reader, groups=groups)
        assert reader.bytes_read == front + behind
        assert reader.bytes_read < 0.8 * len(file())
    assert found.objects
    assert found.classes
    assert found.label_map is not None


def test_two_reads_serve_a_server() -> None:
    afar = Afar(file())
    assert same(machine.analyze(afar), machine.analyze(file()))
    assert len(afar.reads) == 2
    end = max(offset + length for offset, length in afar.reads)
    assert end <= max(e.end for e in Container.read(file()).find(Kind.LATENT, LayerId.BASE))


def test_base_only_full_and_cut_off_files_say_the_same() -> None:
    base = edit.extract(file(), tasks=["detection"])
    whole = machine.analyze(file())
    assert same(machine.analyze(base), whole)
    assert same(machine.analyze(file()[: len(base) + 400]), whole)
    with pytest.raises(TruncatedError, match="cut off"):
        machine.analyze(base[:-5])


def test_only_the_tasks_that_are_asked_for_are_answered() -> None:
    whole = machine.analyze(file()).to_json("", "all")
    for task, key in zip(TASKS, ("objects", "areas", "classes"), strict=True):
        found = machine.analyze(file(), tasks=[task]).to_json("", "all")
        assert {*found} - {"file", "task", "width", "height"} == {key}
        assert found[key] == whole[key]


def test_results_of_groups_come_from_their_cells_only() -> None:
    found = machine.analyze(file(), groups=[1])
    assert found.objects
    for thing in found.objects:
        x, y, w, h = thing.box
        assert CELLS[int((y + h / 2) // 16), int((x + w / 2) // 16)] == 1
    assert found.label_map is not None
    inside = pixels_of(CELLS == 1, 240, 320)
    assert not found.label_map.labels[~inside].any()
    assert found.label_map.labels[inside].any()
    assert not same(found, machine.analyze(file(), groups=[0, 1]))


def test_what_lies_outside_a_group_cannot_change_its_results() -> None:
    inside = pixels_of(CELLS == 1, 240, 320)[..., None]
    other = encode(
        np.where(inside, picture(), 255 - picture()), quality=100, base_quality=90, groups=CELLS
    )
    assert same(machine.analyze(file(), groups=[1]), machine.analyze(other, groups=[1]))
    assert not same(machine.analyze(file()), machine.analyze(other))


def test_a_dropped_group_is_a_group_that_was_not_chosen() -> None:
    chosen = machine.analyze(file(), groups=[1, 2])
    for redact in (False, True):
        part = edit.extract(file(), drop_groups=[0], redact=redact)
        assert same(machine.analyze(part), chosen), redact


def test_a_tiled_file_says_what_the_same_file_in_one_piece_says(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(scene, "TILED_FROM_PIXELS", 1000)
    monkeypatch.setattr(scene, "TILE_CELLS", 8)
    tiled = encode(picture(), base_quality=90, tasks=["detection"], groups=CELLS)
    with machine.Reader(tiled) as reader:
        assert reader.header.tile == 8
        latent = reader.latent(groups=[1, 2])
    assert latent.latent.shape == (15, 20, 64)
    assert np.array_equal(latent.present, CELLS > 0)
    assert not latent.latent[torch.from_numpy(~latent.present)].any()
    found = machine.analyze(tiled)
    assert found.objects


@pytest.mark.parametrize("size", [(1, 1), (16, 16), (17, 33), (47, 64), (112, 160)], ids=str)
def test_results_of_any_size_lie_in_the_true_picture(size: tuple[int, int]) -> None:
    found = machine.analyze(encode(astronaut(*size), tasks=["detection"]), score=0.0)
    assert (found.height, found.width) == size
    assert found.label_map is not None
    assert found.label_map.labels.shape == size
    assert found.objects
    for thing in found.objects:
        x, y, w, h = thing.box
        assert 0 <= x <= x + w <= size[1] + 1e-3
        assert 0 <= y <= y + h <= size[0] + 1e-3


# ---- large pictures


def test_one_window_over_everything_is_the_picture_in_one_piece(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    whole = machine.analyze(file())
    monkeypatch.setattr(machine, "WHOLE_CELLS", 1)
    in_one = machine.analyze(file())
    assert in_one.classes == whole.classes
    assert in_one.objects
    assert whole.objects
    assert set(in_one.objects) <= set(whole.objects)  # fewer, where the picture's edge cut boxes
    assert len(in_one.objects) > 0.8 * len(whole.objects)
    assert in_one.label_map is not None
    assert whole.label_map is not None
    assert np.array_equal(in_one.label_map.labels, whole.label_map.labels)


def test_windows_answer_for_their_core_and_find_each_object_once(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """A window tells of all objects that it sees whole; the picture has each of them once."""
    truth = [
        DetectedObject("cat", 0.9, (10.0, 12.0, 30.0, 40.0)),
        DetectedObject("dog", 0.8, (60.0, 50.0, 8.0, 28.0)),  # centre between four cores
        DetectedObject("cat", 0.7, (290.0, 200.0, 30.0, 40.0)),
    ]
    areas = np.random.default_rng(0).integers(0, 3, (240, 320)).astype(np.uint8)
    seen = []

    def look(base, header, model, where, tasks, score) -> Predictions:  # type: ignore[no-untyped-def]
        seen.append(where)
        rows, columns = where.pixel_slices
        left, top = columns.start, rows.start
        moved = [
            replace(t, box=(t.box[0] - left, t.box[1] - top, *t.box[2:]))
            for t in truth
            if left <= t.box[0] and t.box[0] + t.box[2] <= columns.stop
            and top <= t.box[1] and t.box[1] + t.box[3] <= rows.stop
        ]  # fmt: skip
        labels = areas[where.pixel_slices]
        best = ClassScore("cat", left / 1000), ClassScore("dog", 0.5 - top / 1000)
        names = ("background", "cat", "dog")
        return Predictions(*labels.shape, tuple(moved), best, LabelMap(labels, names))

    monkeypatch.setattr(machine, "WHOLE_CELLS", 1)
    monkeypatch.setattr(machine, "WINDOW_CELLS", 4)
    monkeypatch.setattr(machine, "HALO_CELLS", 3)
    monkeypatch.setattr(machine, "_look", look)
    found = machine.analyze(file())
    assert len(seen) == 4 * 5
    assert max(where.size for where in seen) <= 10 * 10
    assert found.objects == tuple(truth)
    assert found.label_map is not None
    assert np.array_equal(found.label_map.labels, areas)
    assert found.classes == (ClassScore("dog", 0.5), ClassScore("cat", 16 * 13 / 1000))


def test_windows_of_real_networks_agree_with_the_whole(monkeypatch: pytest.MonkeyPatch) -> None:
    whole = machine.analyze(file())
    monkeypatch.setattr(machine, "WHOLE_CELLS", 1)
    monkeypatch.setattr(machine, "WINDOW_CELLS", 8)
    monkeypatch.setattr(machine, "HALO_CELLS", 6)
    parts = machine.analyze(file())
    assert parts.label_map is not None
    assert whole.label_map is not None
    assert (parts.label_map.labels == whole.label_map.labels).mean() > 0.8
    assert parts.objects
    assert len(parts.objects) <= 100


# ---- what does not fit


def test_requests_that_cannot_be_met() -> None:
    for options, text in (
        ({"tasks": ["human"]}, "no machine task human"),
        ({"tasks": []}, "no task"),
        ({"groups": ["dog"]}, "no group 'dog'"),
    ):
        with pytest.raises(RequestError, match=text):
            machine.analyze(file(), **options)  # type: ignore[arg-type]
    with pytest.raises(RequestError, match="no base layer"):
        machine.analyze(edit.extract(file(), layers=["mid", "full"]))


def test_a_file_without_a_fitting_tasks_model_is_one_clear_error(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(models, "find_tasks", lambda scene: None)
    with pytest.raises(WeightsError, match="no tasks model reads the base layer"):
        machine.analyze(file())


def test_a_tasks_model_needs_its_own_vision_network(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("VCMCODEC_WEIGHTS", str(install(tmp_path)))
    (vision,) = [m for m in pretrained.models() if m.id == "vision-small"]
    manifest = tmp_path / "manifest.json"
    manifest.write_text(manifest.read_text().replace(vision.fingerprint, "0" * 16))
    with pytest.raises(WeightsError, match=f"fingerprint {vision.fingerprint}"):
        machine.analyze(file())


def test_back_end_tensors_take_the_place_of_the_networks_own(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = machine.analyze(file())
    bias = small_network().fold().classification.out.bias.detach().clone()
    bias[7] = 9.0
    monkeypatch.setenv(
        "VCMCODEC_WEIGHTS", str(install(tmp_path / "a", back={"classification.out.bias": bias}))
    )
    after = machine.analyze(file())
    assert after.objects == before.objects
    assert after.classes is not None
    assert (after.classes[0].label, after.classes[0].score > 0.99) == ("cat", True)
    for number, (name, value) in enumerate({"classification.in": bias, "c5.x": bias[:2]}.items()):
        monkeypatch.setenv(
            "VCMCODEC_WEIGHTS", str(install(tmp_path / str(number), back={name: value}))
        )
        with pytest.raises(WeightsError, match=name):
            machine.analyze(file())
