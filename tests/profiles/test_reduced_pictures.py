"""Pictures that machines alone look at are reduced before they are coded; results are not."""

from __future__ import annotations

import numpy as np
import pytest

from photographs import photograph
from task_models import install
from vcmcodec import edit, machine
from vcmcodec.bitstream.container import Container
from vcmcodec.bitstream.describe import describe
from vcmcodec.codec import EncodeOptions, decode, encode, encode_picture
from vcmcodec.errors import RequestError
from vcmcodec.grouping import from_mask, reduced
from vcmcodec.pixels import reduce
from vcmcodec.reader import Reader

HEIGHT, WIDTH, SIDE = 240, 330, 160


def picture() -> np.ndarray:
    return photograph("coffee", HEIGHT, WIDTH, 60, 150)


@pytest.fixture(autouse=True)
def _installed(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = install(tmp_path_factory.mktemp("tasks"), longer_side=192, coded_side=SIDE)
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


def test_groups_keep_their_place() -> None:
    mask = np.zeros((HEIGHT, WIDTH), np.uint8)
    mask[60:180, 100:260] = 9
    data = encode(picture(), tasks=["detection"], base_quality=90, groups=mask)
    (first, second) = describe(Container.read(data)).groups
    assert (first.id, second.id) == (0, 9)
    left, top, width, height = second.box
    assert abs(left - 100) < 34
    assert abs(top - 60) < 34
    assert abs(width - 160) < 68
    assert abs(height - 120) < 68
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
    less = reduced(plan, (HEIGHT, WIDTH), (32, 44))
    assert [group.id for group in less.groups] == [0]
    assert "dot has no cell left" in less.warnings[-1]
    options = EncodeOptions(tasks=["detection"], longer_side=44)
    made = encode_picture(picture(), options, groups=plan)
    assert any("dot" in warning for warning in made.warnings)
    assert [group.id for group in made.header.groups] == [0]


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
