"""Pictures for training: what is read, how it is cut, and maps of groups over it."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from tiny_scene import write_pictures

from vcmcodec.errors import PictureError, RequestError
from vcmcodec.training.photographs import (
    PhotographCrops,
    picture_bytes,
    random_labels,
    read_pictures,
)


@pytest.fixture(scope="module")
def pictures(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_pictures(tmp_path_factory.mktemp("pictures"))


def test_crops_are_pieces_of_the_pictures(pictures: Path) -> None:
    pool = PhotographCrops([pictures], 48)
    batch = pool.batch(6, np.random.default_rng(2))
    assert batch.shape == (6, 3, 48, 48)
    assert torch.equal(batch, pool.batch(6, np.random.default_rng(2)))
    assert not torch.equal(batch, pool.batch(6, np.random.default_rng(3)))
    assert float(batch.min()) >= 0
    assert 0.1 < float(batch.mean()) < 0.9
    assert float(batch.max()) <= 1
    with pytest.raises(RequestError, match="at least 161x161"):
        PhotographCrops([pictures], 161)
    with pytest.raises(RequestError, match="no such folder"):
        list(picture_bytes([pictures / "nothing"]))


def test_pictures_come_out_of_folders_shards_and_files(pictures: Path, tmp_path: Path) -> None:
    import tarfile

    shard = tmp_path / "shard.tar"
    (tmp_path / "notes.txt").write_text("no picture")
    with tarfile.open(shard, "w") as out:
        for path in (*sorted(pictures.iterdir(), reverse=True), tmp_path / "notes.txt"):
            out.add(path, path.name)
    folder = list(picture_bytes([pictures]))
    assert [name for name, _ in folder] == ["0.png", "1.png", "2.png"]
    assert list(picture_bytes([shard])) == folder
    assert list(picture_bytes([pictures / "1.png"])) == folder[1:2]


def test_class_masks_beside_pictures_are_never_opened(tmp_path: Path) -> None:
    import tarfile

    folder = tmp_path / "labelled"
    folder.mkdir()
    for name in ("a.webp", "b.jpg", "c.png"):
        Image.new("RGB", (8, 8)).save(folder / name)
    for name in ("a.png", "b.png"):
        (folder / name).write_bytes(b"a mask that must not be read")
    shard = tmp_path / "shard.tar"
    with tarfile.open(shard, "w") as out:
        for path in folder.iterdir():
            out.add(path, path.name)
    for source in (folder, shard):
        assert [name for name, _ in picture_bytes([source])] == ["a.webp", "b.jpg", "c.png"]


def test_a_file_that_is_no_picture_is_named(tmp_path: Path) -> None:
    (tmp_path / "bad.png").write_text("no picture")
    with pytest.raises(PictureError, match=r"bad\.png"):
        PhotographCrops([tmp_path], 64)
    with pytest.raises(PictureError, match=r"bad\.png"):
        read_pictures([tmp_path], 1)


def test_random_maps_hold_a_few_groups() -> None:
    random = np.random.default_rng(4)
    maps = [random_labels(16, 16, random) for _ in range(100)]
    assert all(m.shape == (16, 16) and m.min() >= 0 and m.max() <= 3 for m in maps)
    assert {len(np.unique(m)) for m in maps} >= {2, 3, 4}
