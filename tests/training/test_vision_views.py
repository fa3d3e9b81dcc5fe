"""What the vision network is shown: labels, views of pictures, batches."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import numpy as np
import pytest
import torch
from made_pictures import SIZE, write_cache, write_data

from vcmcodec.errors import RequestError
from vcmcodec.training.blobs import BlobReader, BlobWriter
from vcmcodec.training.vision_batches import Batch, VisionBatches, sampling_weights
from vcmcodec.training.vision_pictures import Sample, decode_all, read_samples
from vcmcodec.training.vision_views import IGNORED, Objects, Window, cut_view, known_objects


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_data(tmp_path_factory.mktemp("data"))


@pytest.fixture(scope="module")
def cache(data: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_cache(data, tmp_path_factory.mktemp("cache"))


def samples_of(data: Path) -> dict[str, Sample]:
    return {sample.name: sample for sample in read_samples(data)}


def test_labels_are_read_as_the_files_mean_them(data: Path) -> None:
    samples = samples_of(data)
    assert len(samples) == 7
    first, second = samples["voc-train-0.png"], samples["voc-train-2-0.png"]
    assert first.boxes.tolist() == [[10, 20, 50, 50]]
    assert (first.complete, second.complete) == (True, False)
    assert (first.trust.tolist(), second.trust.tolist()) == ([1.0], [pytest.approx(0.8)])
    assert samples["voc-train-3.png"].difficult.tolist() == [True]
    assert not samples["voc-train-2-1.png"].labelled
    assert not samples["photo.png"].labelled


def test_large_photographs_are_reduced(data: Path) -> None:
    sizes = {sample.name: rgb.shape[:2] for sample, rgb, _ in decode_all(data, read_samples(data))}
    assert sizes["photo.png"] == (176, 352)
    assert sizes["voc-train-0.png"] == SIZE


def test_a_view_moves_pixels_mask_and_boxes_alike(data: Path, cache: Path) -> None:
    reader = BlobReader(cache / "pictures")
    sample = samples_of(data)["voc-train-0.png"]
    for flip in (False, True):
        window = Window(left=10, top=20, width=64, height=32, flip=flip)
        view = cut_view(reader, sample, window, (64, 128))
        x1, y1, x2, y2 = view.objects.boxes[0]
        assert (y1, y2) == (0, 60)
        assert (x1, x2) == ((48, 128) if flip else (0, 80))
        inside = view.mask == 1
        columns = inside.any(0).nonzero()[:, 0]
        assert (int(columns[0]), int(columns[-1]) + 1) == (int(x1), int(x2))
        assert int(inside.any(1).nonzero()[-1, 0]) + 1 == 60


def test_beyond_the_picture_nothing_is_taught(data: Path, cache: Path) -> None:
    reader = BlobReader(cache / "pictures")
    sample = samples_of(data)["voc-train-0.png"]
    window = Window(left=-96, top=0, width=192, height=60, flip=False)
    view = cut_view(reader, sample, window, (64, 128))
    assert (view.mask[:, :64] == IGNORED).all()
    assert view.valid[:, :8].sum() == 0
    assert view.valid[:, 8:].min() == 1
    assert (view.rgb[:, :, :60] == 114).all()


def test_doubtful_objects_are_ignored_not_punished(data: Path) -> None:
    samples = samples_of(data)
    teacher = np.array(
        [[10, 20, 50, 50, 0.9, 0], [60, 0, 90, 20, 0.7, 6], [0, 0, 9, 9, 0.2, 7]], np.float32
    )
    complete = known_objects(samples["voc-train-0.png"], teacher)
    assert complete.labels.tolist() == [0, 6, 7]
    assert complete.trust.tolist() == [1, 0, 0]
    partial = known_objects(samples["voc-train-2-0.png"], teacher)
    assert partial.trust.tolist() == pytest.approx([0.8, 0.7, 0])
    assert known_objects(samples["voc-train-3.png"], teacher).trust[0] == 0


def test_objects_join_in_order() -> None:
    one = Objects(np.zeros((1, 4)), np.array([1]), np.array([0.5]))
    two = Objects(np.ones((2, 4)), np.array([2, 3]), np.array([1.0, 0.0]))
    assert one.join(two).labels.tolist() == [1, 2, 3]


def test_rare_classes_are_drawn_more_often() -> None:
    empty = np.zeros((0, 4), np.float32)

    def sample(labels: list[int]) -> Sample:
        count = len(labels)
        return Sample("", "", None, np.zeros((count, 4), np.float32), np.array(labels, np.int64),
                      np.ones(count, np.float32), np.zeros(count, bool), True)  # fmt: skip

    nothing = dataclasses.replace(sample([]), boxes=empty, complete=False)
    weights = sampling_weights([sample([3])] + [sample([5])] * 997 + [nothing] * 2)
    assert weights.sum() == pytest.approx(1)
    assert weights[0] / weights[1] == pytest.approx(np.sqrt(0.08 / 0.001))
    assert weights[-1] < weights[1]


def test_a_batch_is_a_function_of_seed_and_step(data: Path, cache: Path) -> None:
    def batch(seed: int, step: int) -> Batch:
        return VisionBatches(data, cache, side=64, size=3, seed=seed, mosaic=0.5)[step]

    assert torch.equal(batch(1, 5).rgb, batch(1, 5).rgb)
    assert not torch.equal(batch(1, 5).rgb, batch(1, 6).rgb)
    assert not torch.equal(batch(1, 5).rgb, batch(2, 5).rgb)
    assert batch(1, 5).rgb.shape == (3, 3, 64, 64)


def test_unfinished_caches_do_not_count(tmp_path: Path) -> None:
    writer = BlobWriter(tmp_path / "x")
    writer.add("a", {"v": np.arange(5, dtype=np.int16)})
    with pytest.raises(RequestError, match="no cache"):
        BlobReader(tmp_path / "x")
    writer.close()
    reader = BlobReader(tmp_path / "x")
    assert reader.get("a", "v").tolist() == [0, 1, 2, 3, 4]
    assert ("a" in reader, len(reader), reader.names("a")) == (True, 1, ["v"])
