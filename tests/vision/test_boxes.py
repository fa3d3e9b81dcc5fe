"""Boxes: suppression against a brute-force reference, decoding against hand-made cells."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch.nn import functional

from vcmcodec.vision.geometry import InputGeometry, prepare
from vcmcodec.vision.tasks.boxes import overlaps, suppress
from vcmcodec.vision.tasks.detection import decode_boxes, flatten_levels
from vcmcodec.vision.tasks.segmentation import (
    LEAST,
    NEUTRAL,
    decode_label_map,
    possible_classes,
    scaled_argmax,
    told_of_objects,
)


def plain_overlap(a: np.ndarray, b: np.ndarray) -> float:
    """Intersection over union of two boxes, written out."""
    w = max(0.0, min(a[2], b[2]) - max(a[0], b[0]))
    h = max(0.0, min(a[3], b[3]) - max(a[1], b[1]))
    area = (a[2] - a[0]) * (a[3] - a[1]) + (b[2] - b[0]) * (b[3] - b[1]) - w * h
    return w * h / area if area > 0 else 0.0


def plain_suppress(
    boxes: np.ndarray, scores: np.ndarray, labels: np.ndarray, limit: float
) -> list[int]:
    """A box stays unless a better one of its label that stays overlaps it."""
    kept: list[int] = []
    for i in sorted(range(len(boxes)), key=lambda i: (-scores[i], i)):
        if all(labels[i] != labels[j] or plain_overlap(boxes[i], boxes[j]) <= limit for j in kept):
            kept.append(i)
    return kept


@given(st.integers(0, 2**32 - 1), st.integers(0, 40), st.sampled_from([0.3, 0.5, 0.7]))
def test_suppression_is_the_brute_force_answer(seed: int, count: int, limit: float) -> None:
    rng = np.random.default_rng(seed)
    boxes = rng.integers(0, 40, (count, 4)).astype(np.float64)
    boxes[:, 2:] += boxes[:, :2]
    scores = rng.integers(0, 8, count) / 8  # many equal scores
    labels = rng.integers(0, 3, count)
    assert suppress(boxes, scores, labels, limit).tolist() == plain_suppress(
        boxes, scores, labels, limit
    )


def test_suppression_keeps_at_most_the_limit() -> None:
    boxes = np.array([[10.0 * i, 0, 10 * i + 5, 5] for i in range(9)])
    kept = suppress(boxes, np.arange(9) / 9, np.zeros(9, int), 0.5, limit=4)
    assert kept.tolist() == [8, 7, 6, 5]


def test_overlaps_of_known_boxes() -> None:
    one = np.array([[0.0, 0, 4, 4]])
    others = np.array([[0.0, 0, 4, 4], [2, 0, 6, 4], [4, 4, 8, 8], [1, 1, 1, 1]])
    np.testing.assert_allclose(overlaps(one, others)[0], [1, 1 / 3, 0, 0])


def hand_made_maps() -> tuple[list[torch.Tensor], list[torch.Tensor]]:
    """A 64x64 input, three classes, one sure cell at stride 16: row 1, column 2."""
    logits = [torch.full((1, 3, 64 // s, 64 // s), -9.0) for s in (8, 16, 32)]
    distances = [torch.ones(1, 4, 64 // s, 64 // s) for s in (8, 16, 32)]
    logits[1][0, 2, 1, 2] = 3.0
    distances[1][0, :, 1, 2] = torch.tensor([1.0, 0.5, 0.25, 2.0])
    return logits, distances


def test_a_cell_becomes_the_box_that_it_describes() -> None:
    (boxes, scores, labels) = decode_boxes(*hand_made_maps(), 0.5, 0.5, 10)[0]
    # centre of the cell is (2.5, 1.5) cells of 16 pixels
    np.testing.assert_allclose(boxes, [[24.0, 16.0, 44.0, 56.0]])
    np.testing.assert_allclose(scores, [1 / (1 + np.exp(-3.0))], rtol=1e-6)
    assert labels.tolist() == [2]


def test_levels_are_listed_cell_by_cell() -> None:
    logits, boxes, centres, strides = flatten_levels(*hand_made_maps())
    assert logits.shape == (1, 64 + 16 + 4, 3)
    assert boxes.shape == (1, 84, 4)
    assert strides.tolist() == [8.0] * 64 + [16.0] * 16 + [32.0] * 4
    assert centres[0].tolist() == [4.0, 4.0]
    assert centres[1].tolist() == [12.0, 4.0]
    assert centres[64 + 4].tolist() == [8.0, 24.0]


@given(st.integers(1, 700), st.integers(1, 700), st.sampled_from([64, 320, 512]))
def test_boxes_come_back_to_the_true_picture(height: int, width: int, longer: int) -> None:
    geometry = InputGeometry.fit(height, width, longer)
    assert geometry.padded_height % 32 == geometry.padded_width % 32 == 0
    assert max(geometry.scaled_height, geometry.scaled_width) == longer
    whole = np.array([[0.0, 0, geometry.scaled_width, geometry.scaled_height]])
    np.testing.assert_allclose(geometry.true_boxes(whole), [[0, 0, width, height]])
    beyond = np.array([[-5.0, -5, 1e4, 1e4]])
    np.testing.assert_allclose(geometry.true_boxes(beyond), [[0, 0, width, height]])


def test_a_picture_lies_at_the_top_left_of_the_input() -> None:
    rgb = np.full((30, 50, 3), 255, np.uint8)
    image, geometry = prepare(rgb, 100)
    assert image.shape == (1, 3, 64, 128)
    assert (geometry.scaled_height, geometry.scaled_width) == (60, 100)
    assert image[0, :, :60, :100].min() == 1.0
    torch.testing.assert_close(image[0, :, 60:], torch.full((3, 4, 128), 114 / 255))
    torch.testing.assert_close(image[0, :, :, 100:], torch.full((3, 64, 28), 114 / 255))


def test_a_label_map_has_the_true_pictures_size_and_areas() -> None:
    logits = torch.zeros(4, 8, 8)  # a 64x64 input
    logits[2, :, :4] = 5.0
    logits[3, :, 4:] = 5.0
    geometry = InputGeometry(96, 120, 48, 60, 64, 64)
    labels = decode_label_map(logits, geometry)
    assert labels.shape == (96, 120)
    assert set(np.unique(labels)) == {2, 3}
    # the border between the classes is at 32 of 60 scaled columns
    assert abs(int((labels[0] == 2).sum()) - 64) <= 1
    unscaled = decode_label_map(logits, InputGeometry(64, 64, 64, 64, 64, 64))
    assert (unscaled[:, :32] == 2).all()
    assert (unscaled[:, 32:] == 3).all()


@pytest.mark.parametrize("cells", [1, 2, 5])
def test_classes_that_are_left_out_win_nowhere(cells: int) -> None:
    """Few classes are interpolated where few can win, and the label map is that of all."""
    torch.manual_seed(cells)
    coarse = torch.randn(1, 21, cells, cells)
    smooth = functional.interpolate(coarse, (14, 18), mode="bilinear")[0]
    smooth[5:] -= 9
    for logits, most in ((smooth, 5), (torch.randn(21, 14, 18), 21)):
        assert 1 <= len(possible_classes(logits)) <= most
        fine = functional.interpolate(logits[None], (112, 144), mode="bilinear")[0, :, :100, :130]
        found = decode_label_map(logits, InputGeometry(100, 130, 100, 130, 112, 144))
        np.testing.assert_array_equal(found, fine.argmax(0).numpy())
        found = decode_label_map(logits, InputGeometry(170, 221, 100, 130, 112, 144))
        np.testing.assert_array_equal(found, scaled_argmax(fine, 170, 221))


def test_areas_are_told_of_the_boxes_that_they_lie_in() -> None:
    logits = torch.zeros(4, 6, 8)
    boxes = np.array([[8.0, 8.0, 40.0, 32.0], [16.0, 8.0, 40.0, 24.0], [-9.0, 40.0, 90.0, 60.0]])
    scores, labels = np.array([0.9, 0.5, 0.02]), np.array([1, 1, 2])
    told = told_of_objects(logits, boxes, scores, labels)
    assert (told[0] == 0).all()  # the background
    nothing = float(np.log(LEAST / NEUTRAL))
    torch.testing.assert_close(told[1], torch.full((6, 8), nothing))
    torch.testing.assert_close(told[3], torch.full((6, 8), nothing))  # too weak to tell
    wanted = torch.full((6, 8), nothing)
    wanted[1:4, 1:5] = float(np.log(0.9 / NEUTRAL))  # the better of two boxes
    torch.testing.assert_close(told[2], wanted)
    assert (logits == 0).all()


def test_a_box_below_a_cells_size_still_tells_of_one() -> None:
    told = told_of_objects(
        torch.zeros(2, 4, 4), np.array([[9.0, 9.0, 10.0, 10.0]]), np.array([0.6]), np.array([0])
    )
    assert int((told[1] > 0).sum()) == 1
    assert told[1, 1, 1] > 0
