"""Groups of real files: what lies outside a group reaches neither its bytes nor its pixels."""

from __future__ import annotations

from dataclasses import dataclass
from unittest import mock

import numpy as np
import pytest
from hypothesis import HealthCheck, Phase, given, seed, settings
from hypothesis import strategies as st

from photographs import Key, grid, photograph, pixels_of, substreams
from vcmcodec import edit, models, pretrained
from vcmcodec.bitstream.constants import Kind
from vcmcodec.bitstream.container import Container
from vcmcodec.codec import decode, encode
from vcmcodec.nn import blocks
from vcmcodec.nn.geometry import GroupGeometry
from vcmcodec.profiles import scene

SCENE = bytes.fromhex(pretrained.find(profile="scene").fingerprint)

few = settings(
    max_examples=12,
    deadline=None,
    derandomize=True,
    phases=(Phase.explicit, Phase.generate),  # to shrink a failure takes minutes
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large],
)


@dataclass(frozen=True)
class Case:
    """A picture, a map of groups (one id a cell) and one of the groups."""

    rgb: np.ndarray
    cells: np.ndarray
    group: int
    quality: float
    base_quality: float | None
    machines: bool = False  # the file is for them alone, otherwise as it is written unasked

    @property
    def inside(self) -> np.ndarray:
        """(H, W): pixels of the group."""
        return pixels_of(self.cells == self.group, *self.rgb.shape[:2])

    @property
    def kinds(self) -> set[int]:
        """Kinds of substreams that the group must have."""
        if self.machines:
            return {int(Kind.LATENT), int(Kind.DIGEST)}
        base = self.base_quality
        if base is None:
            base = min(scene.DEFAULT_BASE_QUALITY, self.quality)
        levels = scene.Levels(round(100 * base), round(100 * self.quality))
        refined = {int(Kind.REFINEMENT)} if levels.refined else set()
        return {int(Kind.LATENT), int(Kind.DIGEST)} | refined

    def encode(self, rgb: np.ndarray) -> bytes:
        quality, base = self.quality, self.base_quality
        if self.machines:
            return encode(rgb, tasks=["detection"], quality=quality, groups=self.cells, digest=True)
        return encode(rgb, quality=quality, base_quality=base, groups=self.cells, digest=True)


@st.composite
def maps(draw: st.DrawFn, rows: int, columns: int) -> np.ndarray:
    """1 to 12 groups: single cells at random, cells in a frame, blocks, diagonals."""
    count = draw(st.integers(1, 12))
    kind = draw(st.sampled_from(["scattered", "frame", "blocks", "diagonal", "dots"]))
    y, x = np.mgrid[:rows, :columns]
    if kind == "scattered":
        flat = draw(st.lists(st.integers(0, count - 1), min_size=rows * columns,
                             max_size=rows * columns))  # fmt: skip
        return np.array(flat, np.uint8).reshape(rows, columns)
    if kind == "frame":
        away = np.minimum(np.minimum(y, rows - 1 - y), np.minimum(x, columns - 1 - x))
        return (away % count).astype(np.uint8)
    if kind == "blocks":
        return ((y // 2 * 5 + x // 2) % count).astype(np.uint8)
    if kind == "diagonal":  # all groups touch at corners
        return ((x + 3 * y) % count).astype(np.uint8)
    cells = np.zeros((rows, columns), np.uint8)
    for group in range(1, count):
        cells[draw(st.integers(0, rows - 1)), draw(st.integers(0, columns - 1))] = group
    return cells


@st.composite
def cases(draw: st.DrawFn) -> Case:
    height, width = draw(st.integers(1, 105)), draw(st.integers(1, 121))
    cells = draw(maps(*grid(height, width)))
    name, top = draw(st.sampled_from([("astronaut", 30), ("chelsea", 90), ("rocket", 200)]))
    quality = draw(st.sampled_from([10, 45.5, 100]))
    base = draw(st.sampled_from([None, 0, 10]))
    group = int(draw(st.sampled_from(np.unique(cells).tolist())))
    machines = draw(st.booleans())
    return Case(photograph(name, height, width, top, 150), cells, group, quality, base, machines)


def of_group(file: bytes, group: int) -> dict[Key, bytes]:
    coded = (Kind.LATENT, Kind.REFINEMENT, Kind.DIGEST)
    return {k: v for k, v in substreams(file).items() if k[2] == group and k[0] in coded}


def elsewhere(case: Case) -> list[np.ndarray]:
    """The picture with everything outside the group changed: inverted, and made of noise."""
    random = np.random.default_rng(5)
    noise = random.integers(0, 256, case.rgb.shape).astype(np.uint8)
    return [np.where(case.inside[..., None], case.rgb, other) for other in (255 - case.rgb, noise)]


@seed(1)
@few
@given(cases())
def test_nothing_outside_a_group_reaches_it(case: Case) -> None:
    file = case.encode(case.rgb)
    mine, inside = of_group(file, case.group), case.inside
    whole, alone = np.asarray(decode(file)), np.asarray(decode(file, groups=[case.group]))
    assert np.array_equal(alone[inside][:, :3], whole[inside])
    small = np.asarray(decode(file, width=0.25))
    for rgb in elsewhere(case):
        other = case.encode(rgb)
        assert of_group(other, case.group) == mine
        assert np.array_equal(np.asarray(decode(other))[inside], whole[inside])
        assert np.array_equal(np.asarray(decode(other, groups=[case.group])), alone)
        assert np.array_equal(np.asarray(decode(other, width=0.25))[inside], small[inside])
    assert {key[0] for key in mine} == case.kinds


@seed(2)
@few
@given(cases(), st.data())
def test_parts_of_a_picture_fit_together(case: Case, data: st.DataObject) -> None:
    file = case.encode(case.rgb)
    everything = np.unique(case.cells).tolist()
    some = data.draw(st.lists(st.sampled_from(everything), min_size=1, unique=True))
    whole, part = np.asarray(decode(file)), decode(file, groups=some)
    there = np.isin(case.cells, some)
    mask = pixels_of(there, *case.rgb.shape[:2])
    assert np.array_equal(np.asarray(part)[mask][:, :3], whole[mask])
    assert part.mode == ("RGB" if mask.all() else "RGBA")
    if not mask.all():
        assert np.array_equal(np.asarray(part)[..., 3] == 255, mask)
        assert not np.asarray(part)[~mask].any()
    for one in some:
        alone = np.asarray(decode(edit.extract(file, groups=[one])))
        inside = pixels_of(case.cells == one, *case.rgb.shape[:2])
        assert np.array_equal(alone[inside][:, :3], whole[inside])


def test_values_of_groups_that_are_not_decoded_are_zero() -> None:
    cells = np.zeros((3, 4), np.uint8)
    cells[1:, 1:3] = 1
    file = encode(photograph("astronaut", 48, 64, 30, 150), quality=80, groups=cells)
    with mock.patch.object(scene, "synthesise", wraps=scene.synthesise) as shown:
        decode(file, groups=[1])
    values = shown.call_args.args[1].numpy()
    assert not values[cells == 0].any()
    assert values[cells == 1].any(-1).all()


def test_the_groups_that_matter_are_told_apart() -> None:
    """The test above can fail: with one group for all, noise elsewhere does change the bytes."""
    cells = np.zeros((3, 4), np.uint8)
    cells[1, 1:3] = 1
    case = Case(photograph("astronaut", 48, 64, 30, 150), cells, 1, 60, None)
    base = case.encode(case.rgb)
    for rgb in elsewhere(case):
        assert encode(rgb, quality=60) != encode(case.rgb, quality=60)
        assert of_group(case.encode(rgb), 0) != of_group(base, 0)


@pytest.mark.weights
@pytest.mark.skipif(
    models.default_effort(SCENE) == 0, reason="the installed tasks model adapts nothing"
)
def test_a_file_for_machines_as_it_is_written_unasked_tells_nothing_of_other_groups() -> None:
    """Reduced by the shipped tasks model's default, which adapts what has one group."""
    boxes = [
        {"label": "face", "box": [180, 40, 120, 150]},
        {"label": "toy", "box": [350, 10, 90, 300]},
    ]
    rgb = photograph("astronaut", 512, 512)
    other = rgb.copy()
    other[40:190, 180:300] = (0, 255, 0)
    files = [encode(one, tasks=["detection"], groups=boxes) for one in (rgb, other)]
    assert Container.read(files[0]).header.coded_size == (416, 416)
    for group in (0, 2):
        assert of_group(files[0], group) == of_group(files[1], group)
    assert of_group(files[0], 1) != of_group(files[1], 1)
    copies = [edit.extract(file, drop_groups=["face"], redact=True) for file in files]
    assert copies[0] == copies[1]
    assert not np.asarray(decode(copies[1]))[40:190, 180:300, 3].any()


def test_one_group_costs_what_no_groups_cost() -> None:
    rgb = photograph("chelsea", 97, 131, 90, 150)
    for tasks in (None, ["detection"]):
        none = encode(rgb, tasks=tasks, quality=70)
        one = encode(rgb, tasks=tasks, quality=70, groups=np.full((97, 131), 7, np.uint8))
        coded = {(k[0], k[1], k[3]): v for k, v in of_group(one, 7).items()}
        assert coded == {(k[0], k[1], k[3]): v for k, v in substreams(none).items()}
        assert np.array_equal(np.asarray(decode(one)), np.asarray(decode(none)))
        assert len(one) - len(none) <= 20  # the group's own line in the header, an empty map


def convolutions(cells: np.ndarray | None, rgb: np.ndarray) -> tuple[int, int]:
    """Depthwise convolutions and rows through 1x1 maps, of encoding and decoding a picture."""
    with (
        mock.patch.object(blocks.F, "conv2d", wraps=blocks.F.conv2d) as taps,
        mock.patch.object(blocks.F, "linear", wraps=blocks.F.linear) as maps,
    ):
        decode(encode(rgb, quality=60, groups=cells))
    rows = sum(call.args[0].numel() // call.args[0].shape[-1] for call in maps.call_args_list)
    return taps.call_count, rows


def test_time_grows_with_colours_and_not_with_groups() -> None:
    rgb = photograph("rocket", 112, 192, 200, 150)
    single, rows = convolutions(None, rgb)
    cells = np.zeros((7, 12), np.uint8)
    cells[1:6:2, 1:11:2] = np.arange(1, 16).reshape(3, 5)  # 15 islands in a sea: two colours
    many, rows_of_many = convolutions(cells, rgb)
    assert len(GroupGeometry(cells).masks16 or ()) == 2
    assert single > 0
    assert many == 2 * single
    assert rows_of_many == rows


@pytest.mark.parametrize("count", [1, 4, 12])
def test_what_groups_cost_in_bytes(count: int) -> None:
    """Each further substream costs 8 bytes of its run and at most 10 of the directory."""
    rgb = photograph("astronaut", 112, 160, 30, 150)
    cells = (np.arange(10)[None] * count // 10).repeat(7, 0).astype(np.uint8)
    file = encode(rgb, tasks=["detection"], base_quality=60, groups=cells)
    runs = {k: v for k, v in substreams(file).items() if k[0] == Kind.LATENT}
    assert len(runs) == len(np.unique(cells))
    directory = Container.read(file).header_bytes
    assert directory <= 57 + 24 * len(runs)
