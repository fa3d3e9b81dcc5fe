"""Masks and boxes become groups of cells by the rules that the module states."""

from __future__ import annotations

import io
import json
from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from vcmcodec import grouping, reduction
from vcmcodec.bitstream.header import Box
from vcmcodec.errors import LimitError, PictureError, RequestError, VcmError


def check(plan: grouping.GroupPlan, height: int, width: int) -> None:
    """What holds for every plan: dense labels, ascending ids, true boxes and counts."""
    assert plan.labels.shape == (-(-height // 16), -(-width // 16))
    assert plan.labels.dtype == np.uint8
    assert np.array_equal(np.unique(plan.labels), np.arange(len(plan.groups)))
    assert [group.id for group in plan.groups] == sorted({group.id for group in plan.groups})
    for position, group in enumerate(plan.groups):
        rows, columns = np.nonzero(plan.labels == position)
        box = Box(columns.min(), rows.min(), np.ptp(columns) + 1, np.ptp(rows) + 1)
        assert group.box == box
        assert group.cells == len(rows)


@settings(max_examples=100, deadline=None)
@given(st.integers(1, 70), st.integers(1, 70), st.integers(1, 12), st.integers(0, 2**32 - 1))
def test_a_cell_belongs_to_the_id_that_most_of_its_pixels_have(
    height: int, width: int, count: int, seed: int
) -> None:
    rng = np.random.default_rng(seed)
    ids = rng.choice(256, count, replace=False)
    mask = ids[rng.integers(0, count, (height, width))].astype(np.uint8)
    plan = grouping.from_mask(mask, height, width)
    check(plan, height, width)
    found = np.array([group.id for group in plan.groups])[plan.labels]
    for row, column in np.ndindex(found.shape):
        cell = mask[16 * row : 16 * row + 16, 16 * column : 16 * column + 16]
        values, counts = np.unique(cell, return_counts=True)
        assert found[row, column] == values[counts.argmax()]  # the first, hence smallest, on a tie
    lost = set(np.unique(mask)) - set(found.ravel())
    assert len(plan.warnings) == (1 if lost else 0)
    told = " ".join(plan.warnings)
    names = [str(value) if value else grouping.BACKGROUND for value in sorted(lost)]
    assert all(name in told for name in names[: grouping.NAMED])


def test_a_photograph_for_a_mask_is_one_warning_and_not_hundreds() -> None:
    mask = np.zeros((32, 32), np.uint8)
    mask[16:] = np.arange(512).reshape(16, 32) // 2
    labels = {3: "person"}
    (told,) = grouping.from_mask(mask, 32, 32, labels).warnings
    assert told == (
        "254 groups have no cell in which they are the largest, and vanish:"
        " 1, 2, person, 4, 5 and 249 more"
    )
    mask[16:] = np.where(mask[16:] < 3, mask[16:], 0)
    (told,) = grouping.from_mask(mask, 32, 32).warnings
    assert told.endswith("and vanish: 1, 2")
    (told,) = grouping.from_mask(np.where(mask == 2, 2, 0), 32, 32).warnings
    assert told == "group 2 has no cell in which it is the largest; it vanishes"


def test_a_mask_of_cells_is_taken_as_it_is() -> None:
    mask = np.array([[0, 7, 7], [0, 0, 255]])
    plan = grouping.from_mask(mask, 32, 48, {7: "cat"})
    check(plan, 32, 48)
    assert [(group.id, group.label) for group in plan.groups] == [
        (0, "background"), (7, "cat"), (255, ""),
    ]  # fmt: skip


def test_a_boolean_mask_has_groups_0_and_1() -> None:
    mask = np.zeros((32, 32), bool)
    mask[:, 16:] = True
    assert [group.id for group in grouping.from_mask(mask, 32, 32).groups] == [0, 1]


@pytest.mark.parametrize(
    "mask",
    [
        np.zeros((31, 32), np.uint8),
        np.zeros((32, 32), np.float32),
        np.zeros((32, 32, 3), np.uint8),
        np.full((32, 32), 256),
        np.full((32, 32), -1),
    ],
)
def test_masks_of_another_form_are_refused(mask: np.ndarray) -> None:
    with pytest.raises(PictureError):
        grouping.from_mask(mask, 32, 32)


def test_a_name_for_an_id_that_is_not_there_is_refused() -> None:
    with pytest.raises(RequestError, match="9"):
        grouping.from_mask(np.zeros((16, 16), np.uint8), 16, 16, {9: "ghost"})


def test_a_box_claims_every_cell_it_touches() -> None:
    plan = grouping.from_boxes([{"label": "cat", "score": 0.5, "box": [15, 16, 18, 1]}], 64, 64)
    check(plan, 64, 64)
    assert plan.labels.tolist() == [[0, 0, 0, 0], [1, 1, 1, 0], [0, 0, 0, 0], [0, 0, 0, 0]]
    assert plan.groups[1].label == "cat"
    assert plan.groups[1].score == 0.5
    assert plan.groups[0].label == "background"


def test_a_box_that_ends_at_an_edge_does_not_touch_the_next_cell() -> None:
    plan = grouping.from_boxes([{"box": [0, 0, 16, 16]}], 32, 32)
    assert plan.labels.tolist() == [[1, 0], [0, 0]]


@pytest.mark.parametrize("order", [1, -1])
def test_the_smaller_box_lies_on_top_in_any_order(order: int) -> None:
    boxes = [{"id": 1, "label": "bus", "box": [0, 0, 64, 64]},
             {"id": 2, "label": "person", "box": [16, 16, 16, 32]}][::order]  # fmt: skip
    plan = grouping.from_boxes(boxes, 64, 64)
    check(plan, 64, 64)
    assert [(group.label, group.cells) for group in plan.groups] == [("bus", 14), ("person", 2)]


def test_of_equal_boxes_the_later_hides_the_earlier_and_says_so() -> None:
    boxes = [{"label": name, "box": [0, 0, 16, 16]} for name in ("first", "second")]
    plan = grouping.from_boxes(boxes, 32, 32)
    assert [group.label for group in plan.groups] == ["background", "second"]
    assert len(plan.warnings) == 1
    assert "first" in plan.warnings[0]


def test_boxes_are_clipped_and_those_outside_vanish_with_a_warning() -> None:
    boxes = [{"box": [-10, -10, 20, 1e9]}, {"label": "far", "box": [100, 0, 10, 10]},
             {"label": "flat", "box": [20, 20, 0, 5]}]  # fmt: skip
    plan = grouping.from_boxes(boxes, 32, 32)
    check(plan, 32, 32)
    assert plan.labels.tolist() == [[1, 0], [1, 0]]
    (told,) = plan.warnings
    assert told == "2 boxes lie outside the picture, and their groups vanish: 2 (far), 3 (flat)"
    (told,) = grouping.from_boxes(boxes[:2], 32, 32).warnings
    assert told == "box 2 (far) lies outside the picture; its group vanishes"


def test_boxes_that_are_hidden_are_told_of_in_one_sentence() -> None:
    boxes = [{"label": f"b{k}", "box": [0, 0, 16, 16]} for k in range(1, 9)]
    (told,) = grouping.from_boxes(boxes, 32, 32).warnings
    assert told.startswith("7 boxes are hidden by smaller ones, and their groups vanish: 1 (b1), ")
    assert told.endswith("5 (b5) and 2 more")


def touched(before: int, after: int, cell: int) -> list[int]:
    """True cells that a coded cell overlaps along one side, by fractions."""
    scale = Fraction(before, after)
    begin, end = 16 * cell * scale, min(16 * cell + 16, after) * scale
    return [c for c in range(-(-before // 16)) if 16 * c < end and 16 * c + 16 > begin]


@settings(max_examples=100, deadline=None)
@given(st.integers(1, 150), st.integers(1, 150), st.data())
def test_in_a_reduced_picture_a_box_claims_every_cell_that_its_cells_touch(
    height: int, width: int, data: st.DataObject
) -> None:
    """Cells went by their centres once, and what hung over an edge went to the background."""
    coded = data.draw(st.integers(1, height)), data.draw(st.integers(1, width))
    place = st.floats(0, 150)
    given_boxes = data.draw(st.lists(st.tuples(place, place, place, place), min_size=1, max_size=5))
    boxes = [{"id": 9 - i, "box": list(box)} for i, box in enumerate(given_boxes)]
    plan = grouping.from_boxes(boxes, height, width)
    less = reduction.reduce_groups(plan, (height, width), coded)
    check(less, *coded)
    areas = {
        b["id"]: (min(width, b["box"][0] + b["box"][2]) - min(width, b["box"][0]))
        * (min(height, b["box"][1] + b["box"][3]) - min(height, b["box"][1]))
        for b in boxes
    }
    for row, column in np.ndindex(less.labels.shape):
        rows, columns = touched(height, coded[0], row), touched(width, coded[1], column)
        there = {int(value) for value in plan.ids[np.ix_(rows, columns)].ravel()} - {0}
        lowest = min((areas[value] for value in there), default=0)
        wanted = {value for value in there if areas[value] == lowest} or {0}
        assert int(less.ids[row, column]) in wanted


def test_a_reduced_mask_goes_by_centres_and_boxes_do_not() -> None:
    cells = np.zeros((8, 8), np.uint8)
    cells[:, 3:5] = 1
    mask = grouping.from_mask(cells, 128, 128)
    assert reduction.reduce_groups(mask, (128, 128), (48, 48)).ids.tolist() == [[0, 1, 0]] * 3
    boxes = grouping.from_boxes([{"box": [40, 0, 24, 128]}], 128, 128)
    assert reduction.reduce_groups(boxes, (128, 128), (48, 48)).ids.tolist() == [[1, 1, 0]] * 3


def test_given_ids_are_kept_and_the_others_filled_in() -> None:
    boxes = [{"box": [0, 0, 16, 16]}, {"id": 1, "box": [16, 0, 16, 16]}, {"box": [32, 0, 16, 16]}]
    plan = grouping.from_boxes(boxes, 16, 64)
    assert [plan.groups[label].id for label in plan.labels[0]] == [2, 1, 3, 0]


@pytest.mark.parametrize(
    "item",
    [
        {},
        7,
        {"box": [1, 2, 3]},
        {"box": "1234"},
        {"box": [0, 0, float("nan"), 1]},
        {"box": [0, 0, -1, 1]},
        {"box": [0, 0, 1, True]},
        {"box": [0, 0, 10**400, 1]},
        {"id": 0, "box": [0, 0, 1, 1]},
        {"id": 256, "box": [0, 0, 1, 1]},
        {"id": "a", "box": [0, 0, 1, 1]},
        {"id": [], "box": [0, 0, 1, 1]},
        {"score": 2, "box": [0, 0, 1, 1]},
        {"score": "high", "box": [0, 0, 1, 1]},
    ],
)
def test_what_is_no_box_is_refused_with_its_place(item: object) -> None:
    with pytest.raises(PictureError, match="box 2"):
        grouping.from_boxes([{"box": [0, 0, 1, 1]}, item], 32, 32)


def test_repeated_ids_and_too_many_boxes_are_refused() -> None:
    box = {"id": 3, "box": [0, 0, 1, 1]}
    with pytest.raises(PictureError, match="same id"):
        grouping.from_boxes([box, box], 32, 32)
    with pytest.raises(LimitError):
        grouping.from_boxes([{"box": [0, 0, 1, 1]}] * 256, 32, 32)


def test_coco_annotations_are_read_with_their_category_names() -> None:
    content = {
        "categories": [{"id": 5, "name": "dog"}],
        "annotations": [
            {"id": 908400000015, "image_id": 1, "category_id": 5, "bbox": [0, 0, 9, 9]}
        ],
    }
    plan = grouping.read(json.dumps(content).encode(), 32, 32)
    assert [(group.id, group.label) for group in plan.groups] == [(0, "background"), (1, "dog")]


@pytest.mark.parametrize(
    "text",
    [
        "[", "{}", '{"annotations": 3}', "[3]", '[{"box": {}}]', "[" * 100_000,
        '{"annotations": [{"image_id": 1, "bbox": [0,0,1,1]}, {"image_id": 2, "bbox": [0,0,1,1]}]}',
        '{"annotations": [], "categories": 7}',
        '{"annotations": [{"category_id": [], "bbox": [0,0]}]}',
        '{"annotations": [], "categories": [3]}',
        "null", "7", '{"annotations": [], "images": 7}',
        '{"annotations": [{"image_id": 1, "bbox": [0,0,1,1]}], "images": [{"id": 1}, {"id": 2}]}',
        '{"annotations": [{"bbox": [0,0,1,1]}], "images": [{"width": 64, "height": 32}]}',
    ],
)  # fmt: skip
def test_broken_json_is_refused_and_nothing_worse(text: str) -> None:
    with pytest.raises(PictureError):
        grouping.read(text.encode(), 32, 32)


@settings(max_examples=60, deadline=None)
@given(
    st.recursive(
        st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=3),
        lambda inner: st.lists(inner, max_size=4)
        | st.dictionaries(st.sampled_from(["box", "bbox", "id", "label", "score", "annotations",
                                           "categories", "category_id", "image_id", "name"]),
                          inner, max_size=4),
    )
)  # fmt: skip
def test_any_json_gives_a_plan_or_an_error_of_ours(content: object) -> None:
    data = json.dumps(content).encode()
    try:
        plan = grouping.read(data, 40, 40)
    except VcmError:
        return
    check(plan, 40, 40)


def test_mask_files_are_read_by_value_and_palette_masks_by_index(tmp_path: Path) -> None:
    mask = np.zeros((32, 32), np.uint8)
    mask[16:] = 3
    grey, palette = Image.fromarray(mask), Image.fromarray(mask)
    palette.putpalette([255, 255, 255, 9, 9, 9, 9, 9, 9, 0, 0, 0])
    as_rgb = grey.convert("RGB")
    for name, image in (("grey", grey), ("palette", palette), ("rgb", as_rgb)):
        path = tmp_path / f"{name}.png"
        image.save(path)
        plan = grouping.read(path, 32, 32, {3: "road"})
        assert plan.labels.tolist() == [[0, 0], [1, 1]]
        assert [(group.id, group.label) for group in plan.groups] == [
            (0, "background"),
            (3, "road"),
        ]


def test_files_that_are_no_mask_are_refused(tmp_path: Path) -> None:
    out = io.BytesIO()
    Image.fromarray(np.random.default_rng(1).integers(0, 256, (32, 32, 3), np.uint8)).save(
        out, "PNG"
    )
    for source in (
        out.getvalue(),
        b"",
        b"text",
        out.getvalue()[:60],
        tmp_path / "nothing",
        tmp_path,
    ):
        with pytest.raises(PictureError):
            grouping.read(source, 32, 32)
    out = io.BytesIO()
    Image.new("L", (64, 64)).save(out, "PNG")
    with pytest.raises(VcmError, match="mask is 64 x 64"):
        grouping.read(out.getvalue(), 32, 32)


def test_labels_for_boxes_come_with_the_boxes() -> None:
    with pytest.raises(RequestError, match="masks"):
        grouping.read(b"[]", 32, 32, {1: "cat"})


@pytest.mark.parametrize("label", ["a\nb", "\x1b[31m", "x" * 65, "\u5b57" * 22])
def test_a_label_that_no_file_can_hold_is_named_with_its_place(label: str) -> None:
    boxes = [{"box": [0, 0, 8, 8]}, {"box": [0, 0, 8, 8], "label": label}]
    with pytest.raises(PictureError, match="box 2 of the list: the label"):
        grouping.from_boxes(boxes, 64, 64)
