"""Pictures that machines alone look at are reduced before they are coded; results are not."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from photographs import Key, photograph, pixels_of, substreams
from task_models import install
from vcmcodec import edit, machine
from vcmcodec.bitstream.container import Container
from vcmcodec.bitstream.describe import describe
from vcmcodec.codec import EncodeOptions, decode, encode, encode_picture
from vcmcodec.errors import RequestError
from vcmcodec.grouping import from_boxes, from_mask
from vcmcodec.pixels import reduce
from vcmcodec.reader import Reader
from vcmcodec.reduction import reduce_groups

HEIGHT, WIDTH, SIDE = 240, 330, 160


def picture() -> np.ndarray:
    return photograph("coffee", HEIGHT, WIDTH, 60, 150)


@pytest.fixture(autouse=True)
def _installed(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = install(tmp_path_factory.mktemp("tasks"), longer_side=192, coded_side=SIDE)
    monkeypatch.setenv("VCMCODEC_WEIGHTS", str(folder))


@pytest.fixture(name="adapting")
def _adapting(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> None:
    """A tasks model by which base layers are adapted unasked."""
    folder = tmp_path_factory.mktemp("tasks")
    install(folder, longer_side=192, coded_side=SIDE, effort=2)
    monkeypatch.setenv("VCMCODEC_WEIGHTS", str(folder))


def size(data: bytes) -> tuple[int, int]:
    return Container.read(data).header.coded_size


def test_only_what_people_will_not_look_at_is_reduced_unasked() -> None:
    machines = encode(picture(), tasks=["detection"])
    assert size(machines) == (116, 160)
    assert size(encode(picture(), tasks=["detection", "human"])) == (HEIGHT, WIDTH)
    whole = encode(picture(), tasks=["detection"], longer_side=0)
    assert size(whole) == (HEIGHT, WIDTH)
    assert len(machines) < 0.5 * len(whole)
    assert size(encode(picture(), longer_side=100)) == (73, 100)
    small = picture()[:100, :SIDE]
    assert size(encode(small, tasks=["detection"])) == (100, SIDE)
    assert encode(small, tasks=["detection"]) == encode(small, tasks=["detection"], longer_side=0)


def test_everything_that_is_said_is_in_pixels_of_the_true_picture() -> None:
    data = encode(picture(), tasks=["detection"], base_quality=90)
    facts = describe(Container.read(data))
    assert (facts.width, facts.height, facts.coded_size) == (WIDTH, HEIGHT, (160, 116))
    assert facts.bpp == pytest.approx(8 * len(data) / (HEIGHT * WIDTH))
    image = decode(data)
    assert image.size == (WIDTH, HEIGHT)
    error = np.asarray(image.convert("RGB")).astype(float) - picture()
    assert np.sqrt((error**2).mean()) < 25  # the same picture, blurred
    found = machine.analyze(data, score=0.05)
    assert (found.height, found.width) == (HEIGHT, WIDTH)
    assert found.label_map is not None
    assert found.label_map.labels.shape == (HEIGHT, WIDTH)
    assert found.objects
    assert max(x + w for x, _, w, _ in (thing.box for thing in found.objects)) > SIDE


def test_it_is_coded_as_the_reduced_picture_would_be() -> None:
    data = encode(picture(), tasks=["detection"], base_quality=60)
    small = encode(reduce(picture(), (116, 160)), tasks=["detection"], base_quality=60)
    with Reader(data) as one, Reader(small) as other:
        assert np.array_equal(one.preview()[0], other.preview()[0])
    assert 0 < len(data) - len(small) <= 6  # the size, and larger numbers


@pytest.mark.parametrize(
    ("kind", "wanted"), [("mask", (99, 66, 165, 99)), ("box", (66, 33, 231, 165))]
)
def test_groups_keep_their_place(kind: str, wanted: tuple[int, int, int, int]) -> None:
    """A coded cell is 33 pixels; of the mask those whose centres lie in it, of the box all."""
    mask = np.zeros((HEIGHT, WIDTH), np.uint8)
    mask[60:180, 100:260] = 9
    groups = mask if kind == "mask" else [{"id": 9, "box": [100, 60, 160, 120]}]
    data = encode(picture(), tasks=["detection"], base_quality=90, groups=groups)
    (first, second) = describe(Container.read(data)).groups
    assert (first.id, second.id) == (0, 9)
    assert second.box == wanted
    left, top, width, height = second.box
    part = edit.extract(data, drop_groups=[0])
    found = machine.analyze(part, score=0.05)
    assert found.objects
    for thing in found.objects:
        x, y, w, h = thing.box
        assert left <= x + w / 2 <= left + width
        assert top <= y + h / 2 <= top + height
    shown = np.asarray(decode(part))
    assert shown.shape == (HEIGHT, WIDTH, 4)
    share = width * height / (HEIGHT * WIDTH)
    assert (shown[..., 3] > 0).mean() == pytest.approx(share, abs=0.02)


def test_a_group_that_is_too_small_vanishes_with_a_warning() -> None:
    cells = np.zeros((15, 21), np.uint8)
    cells[0, 0] = 3
    plan = from_mask(cells, HEIGHT, WIDTH, {3: "dot"})
    less = reduce_groups(plan, (HEIGHT, WIDTH), (32, 44))
    assert [group.id for group in less.groups] == [0]
    assert "dot has no cell left" in less.warnings[-1]
    options = EncodeOptions(tasks=["detection"], longer_side=44)
    made = encode_picture(picture(), options, groups=plan)
    assert any("dot" in warning for warning in made.warnings)
    assert [group.id for group in made.header.groups] == [0]


def test_many_groups_that_are_too_small_are_told_of_in_one_sentence() -> None:
    cells = np.zeros((15, 21), np.uint8)
    cells[0] = np.arange(21)
    less = reduce_groups(from_mask(cells, HEIGHT, WIDTH), (HEIGHT, WIDTH), (32, 44))
    (told,) = less.warnings
    assert told.startswith("20 groups have no cell left in the reduced picture, and vanish with")
    assert told.endswith(": 1, 2, 3, 4, 5 and 15 more")


def coded_runs(data: bytes, group: int) -> dict[Key, bytes]:
    return {key: value for key, value in substreams(data).items() if key[2] == group}


@pytest.mark.parametrize("kind", ["mask", "boxes"])
@pytest.mark.parametrize("effort", [None, 0])
def test_nothing_outside_a_group_reaches_it(kind: str, effort: int | None, adapting: None) -> None:
    """Bytes and pixels of the file that is written unasked: scaling mixed neighbours once, and a
    base layer was adapted with all groups in view."""
    if kind == "mask":
        y, x = np.mgrid[:15, :21]
        plan = from_mask((x // 5 + y // 4 * 5).astype(np.uint8), HEIGHT, WIDTH)
    else:
        boxes = [[30, 20, 100, 90], [100, 80, 120, 130], [170, 5, 37, 60], [0, 180, 50, 60]]
        plan = from_boxes([{"box": box} for box in boxes], HEIGHT, WIDTH)
    asked: dict[str, Any] = {"tasks": ["detection"], "groups": plan, "effort": effort}
    data = encode(picture(), **asked)
    assert size(data) == (116, 160)
    whole = np.asarray(decode(data))
    groups = Container.read(data).header.group_ids
    assert len(groups) >= 5
    for group in groups:
        inside = pixels_of(plan.ids == group, HEIGHT, WIDTH)[..., None]
        alone = np.asarray(decode(data, groups=[group]))
        for other in (255 - picture(), np.random.default_rng(5).integers(0, 256, whole.shape)):
            changed = encode(np.where(inside, picture(), other).astype(np.uint8), **asked)
            assert coded_runs(changed, group) == coded_runs(data, group)
            assert np.array_equal(np.asarray(decode(changed, groups=[group])), alone)
            elsewhere = groups[0] if group != groups[0] else groups[1]
            assert coded_runs(changed, elsewhere) != coded_runs(data, elsewhere)


@pytest.mark.parametrize("effort", [None, 0])
@pytest.mark.parametrize("place", [48, 53, 67, 80])
def test_a_redacted_object_leaves_nothing_behind(
    place: int, effort: int | None, adapting: None
) -> None:
    """Cells on the edges of a reduced box went to the background once, with the object in them."""
    face = [place, place, 90, 77]
    asked: dict[str, Any] = {
        "tasks": ["detection"], "effort": effort, "base_quality": 75,
        "groups": [{"label": "face", "box": face}, {"label": "cup", "box": [230, 20, 60, 60]}],
    }  # fmt: skip
    copies = []
    for colour in ((255, 0, 255), (0, 0, 0), None):
        rgb = np.full((HEIGHT, WIDTH, 3), 90, np.uint8)
        rgb[20:80, 230:290] = picture()[20:80, 230:290] // 2
        if colour:
            rgb[place : place + 77, place : place + 90] = colour
        data = encode(rgb, **asked)
        copies.append(edit.extract(data, drop_groups=["face"], redact=True))
        shown = np.asarray(decode(data)).astype(int)
        assert (pink(shown).sum() > 4000) == (colour == (255, 0, 255))
    assert copies[0] == copies[1] == copies[2]
    shown = np.asarray(decode(copies[0])).astype(int)
    assert not (pink(shown) & (shown[..., 3] > 0)).any()
    assert not shown[place : place + 77, place : place + 90, 3].any()


def pink(rgb: np.ndarray) -> np.ndarray:
    return (np.minimum(rgb[..., 0], rgb[..., 2]) - rgb[..., 1]) > 25


def test_a_group_that_vanishes_takes_its_pixels_with_it() -> None:
    cells = np.zeros((15, 21), np.uint8)
    cells[2, 2] = 3
    options = EncodeOptions(tasks=["detection"], longer_side=44)
    files = []
    for value in (0, 255):
        rgb = picture()
        rgb[32:48, 32:48] = value
        made = encode_picture(rgb, options, groups=cells)
        assert made.header.group_ids == (0,)
        assert any("its pixels with it" in note for note in made.warnings)
        files.append(made.data)
    assert files[0] == files[1]


def test_features_are_of_the_networks_own_size() -> None:
    with pytest.raises(RequestError, match="a longer side is for pictures"):
        encode(picture(), profile="pyramid", longer_side=100)


def test_its_parts_merge_and_lose_groups_as_those_of_others() -> None:
    mask = np.zeros((HEIGHT, WIDTH), np.uint8)
    mask[:, 150:] = 1
    data = encode(picture(), longer_side=SIDE, groups=mask, quality=50, base_quality=20)
    base = edit.extract(data, tasks=["detection"])
    assert machine.analyze(base).objects == machine.analyze(data).objects
    people = edit.extract(data, layers=["mid", "full"])
    assert edit.merge([base, people]) == data
    for redact in (False, True):
        part = edit.extract(data, drop_groups=[1], redact=redact)
        assert size(part) == (116, 160)
        assert decode(part).size == (WIDTH, HEIGHT)


def test_parts_of_another_size_do_not_belong_together() -> None:
    made = [encode(picture(), longer_side=side) for side in (SIDE, 0)]
    parts = edit.extract(made[0], layers=["base"]), edit.extract(made[1], layers=["mid"])
    with pytest.raises(RequestError, match="differ in parameters"):
        edit.merge(parts)
