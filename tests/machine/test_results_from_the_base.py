"""Results straight from a base layer: which bytes, which cells, which groups, no pixel.

The networks are small and seeded: what they say means nothing, but it must be the same wherever
the same cells were decoded.
"""

from __future__ import annotations

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
from vcmcodec.codec import decode, encode
from vcmcodec.errors import RequestError, TruncatedError, WeightsError
from vcmcodec.nn.transforms import Synthesis
from vcmcodec.profiles import scene
from vcmcodec.vision.network import TASKS
from vcmcodec.vision.predictions import Predictions
from vcmcodec.vision.predictor import Predictor

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
    monkeypatch.setattr(scene, "TILED_FROM_CELLS", 4)
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


@pytest.fixture
def large(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A network that looks at pictures of at most 192 pixels."""
    monkeypatch.setenv("VCMCODEC_WEIGHTS", str(install(tmp_path / "small", longer_side=192)))


@pytest.mark.usefixtures("large")
def test_a_large_picture_is_seen_through_its_preview(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("VCMCODEC_FLOAT32", "1")  # as the predictor here looks
    with machine.Reader(file()) as reader:
        model = models.load_tasks(reader.header.fingerprint)
    preview = np.asarray(decode(file(), width=0.25).convert("RGB"))
    wanted = Predictor(model.vision).predict(preview, score=0.1)
    assert same(machine.analyze(file(), score=0.1), wanted)
    smaller = encode(picture()[:160, :192], tasks=["detection"], base_quality=90)
    with machine.Reader(smaller) as reader:  # no larger than the network's input
        model = models.load_tasks(reader.header.fingerprint)
        seen = machine.see(reader.latent(), reader.header, model)
    assert same(machine.analyze(smaller), seen)


@pytest.mark.parametrize(
    ("size", "side"), [((240, 320), 192), ((321, 239), 192), ((228, 384), 208)], ids=str
)
def test_a_picture_reduced_to_what_the_network_looks_at_is_seen_without_a_pixel(
    size: tuple[int, int], side: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its objects and areas lie in the true picture, and only its latent is read.

    Encoder and network may round a size differently: the last one is such a size.
    """
    monkeypatch.setenv(
        "VCMCODEC_WEIGHTS", str(install(tmp_path, longer_side=side, coded_side=side))
    )
    reduced = encode(photograph("coffee", *size, 60, 150), tasks=["detection"], base_quality=90)

    def forbidden(*arguments: object, **options: object) -> None:
        raise AssertionError("a picture was decoded")

    monkeypatch.setattr(Synthesis, "forward", forbidden)
    with machine.Reader(reduced) as reader:
        assert max(reader.header.coded_size) == side
        found = machine.analyze_reader(reader, score=0.0)
        model = models.load_tasks(reader.header.fingerprint)
        assert same(found, machine.see(reader.latent(), reader.header, model, score=0.0))
    assert (found.height, found.width) == size
    assert found.label_map is not None
    assert found.label_map.labels.shape == size
    assert found.objects
    right = max(x + w for x, _, w, _ in (thing.box for thing in found.objects))
    below = max(y + h for _, y, _, h in (thing.box for thing in found.objects))
    assert right > 0.9 * size[1]
    assert below > 0.9 * size[0]
    assert all(x + w <= size[1] + 1e-3 for x, _, w, _ in (thing.box for thing in found.objects))


@pytest.mark.usefixtures("large")
def test_a_picture_reduced_further_is_enlarged_to_what_the_network_looks_at(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    reduced = encode(picture(), tasks=["detection"], base_quality=90, longer_side=128)
    looks = list[int]()
    forward = Synthesis.forward
    monkeypatch.setattr(Synthesis, "forward", lambda *given: (looks.append(1), forward(*given))[1])
    assert machine.analyze(reduced, score=0.0).objects
    assert looks


@pytest.mark.usefixtures("large")
def test_stages_taught_on_previews_serve_large_pictures_alone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    smaller = encode(picture()[:160, :192], tasks=["detection"], base_quality=90)
    large, small = machine.analyze(file(), score=0.1), machine.analyze(smaller, score=0.1)
    stem = small_network().fold().stem.conv.weight.detach() * 2
    folder = install(tmp_path / "taught", longer_side=192, replaced={"stem.conv.weight": stem})
    monkeypatch.setenv("VCMCODEC_WEIGHTS", str(folder))
    assert not same(machine.analyze(file(), score=0.1), large)
    assert same(machine.analyze(smaller, score=0.1), small)


@pytest.mark.usefixtures("large")
def test_the_finer_a_preview_the_more_of_the_networks_own_stages(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    own = {q: machine.analyze(encoded(q), score=0.1) for q in (0, 50, 100)}
    stem = small_network().fold().stem.conv.weight.detach() * 2
    for name, shares in {"all": (), "table": ((0, 1), (100, 0))}.items():
        taught = {"stem.conv.weight": stem}
        folder = install(tmp_path / name, longer_side=192, replaced=taught, shares=shares)
        monkeypatch.setenv("VCMCODEC_WEIGHTS", str(folder))
        if name == "all":
            full = {q: machine.analyze(encoded(q), score=0.1) for q in own}
    mixed = {q: machine.analyze(encoded(q), score=0.1) for q in own}
    assert same(mixed[0], full[0])
    assert not same(mixed[50], full[50])
    assert not same(mixed[50], own[50])
    assert same(mixed[100], own[100])
    assert not same(full[100], own[100])


def encoded(base_quality: float) -> bytes:
    return encode(picture(), tasks=["detection"], base_quality=base_quality)


@pytest.mark.usefixtures("large")
def test_a_large_picture_takes_its_base_layer_and_no_more(tmp_path: Path) -> None:
    path = tmp_path / "picture.vcm"
    path.write_bytes(file())
    base = edit.extract(file(), tasks=["detection"])
    with machine.Reader(path) as reader:
        found = machine.analyze_reader(reader)
        assert reader.bytes_read < len(base) + 400
    assert found.objects
    assert same(machine.analyze(base), found)


@pytest.mark.usefixtures("large")
def test_groups_of_a_large_picture_are_its_cells_and_nothing_else() -> None:
    found = machine.analyze(file(), groups=[1])
    inside = pixels_of(CELLS == 1, 240, 320)
    assert found.objects
    for thing in found.objects:
        x, y, w, h = thing.box
        assert CELLS[int((y + h / 2) // 16), int((x + w / 2) // 16)] == 1
    assert found.label_map is not None
    assert not found.label_map.labels[~inside].any()
    other = encode(
        np.where(inside[..., None], picture(), 255 - picture()),
        quality=100, base_quality=90, groups=CELLS,
    )  # fmt: skip
    assert same(found, machine.analyze(other, groups=[1]))
    assert same(found, machine.analyze(edit.extract(file(), drop_groups=[0, 2])))


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


def test_tensors_taught_on_previews_must_fit_the_network(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    bias = small_network().fold().stem.conv.bias.detach()
    for number, (name, value) in enumerate({"stem.in": bias, "stem.conv.bias": bias[:2]}.items()):
        monkeypatch.setenv(
            "VCMCODEC_WEIGHTS", str(install(tmp_path / str(number), replaced={name: value}))
        )
        with pytest.raises(WeightsError, match=name):
            machine.analyze(file())
