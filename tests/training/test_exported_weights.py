"""From trained networks to a weight file that codes."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import load

from photographs import NAMES, coffee, photograph
from vcmcodec import models
from vcmcodec.codec import decode, encode
from vcmcodec.errors import RequestError
from vcmcodec.nn.latent_model import SCALE_COUNT, LatentShape
from vcmcodec.nn.model_tensors import Model
from vcmcodec.nn.picture_codec import PictureCodec, start_at_klt
from vcmcodec.nn.transforms import TransformShape
from vcmcodec.profiles import scene
from vcmcodec.training import export

TRANSFORM = TransformShape(trunk=(8, 16, 24), latent=(6, 12, 20), trunk_blocks=1, latent_blocks=1)
LATENT = LatentShape(
    slices=(2, 4, 6, 8), phases=(6, 2, 2, 2), layers=(0, 0, 1, 2), hyper=3, levels=scene.LEVELS
)


@pytest.fixture(scope="module")
def codec() -> PictureCodec:
    """Not trained: at its KLT start, which is a codec already."""
    torch.manual_seed(1)
    made = PictureCodec(TRANSFORM, LATENT, scene.LMBDAS)
    pieces = [photograph(name, 128, 128, 60, left) for name in NAMES for left in (60, 200)]
    start_at_klt(made, torch.from_numpy(np.stack(pieces)).permute(0, 3, 1, 2).float() / 255)
    return made


@pytest.fixture(scope="module")
def pictures(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("pictures")
    for name in NAMES[:2]:
        Image.fromarray(photograph(name, 270, 260, 60, 100)).save(folder / f"{name}.png")
    return folder


def test_an_exported_model_codes(
    codec: PictureCodec, pictures: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    said: list[str] = []
    blob, mark = export.export(codec, [pictures], crops=4, show=said.append)
    assert len(said) == 2
    export.enter(tmp_path, "tiny", "scene", blob, mark, licence="none")
    line = json.loads((tmp_path / "manifest.json").read_text())["models"][0]
    assert line["sha256"] == hashlib.sha256(blob).hexdigest()
    assert (line["fingerprint"], line["default"], line["licence"]) == (mark, True, "none")
    monkeypatch.setenv("VCMCODEC_WEIGHTS", str(tmp_path))
    models._load.cache_clear()
    file = encode(coffee(), quality=60, base_quality=20, digest=True)
    assert file != encode(coffee(), quality=60, base_quality=20, digest=True, model="scene-1")
    assert decode(file).size == (97, 131)
    # once more: the same weights from the same run
    again, same = export.export(codec, [pictures], crops=4, show=said.append)
    assert same == mark
    first, second = load(blob), load(again)
    assert first.keys() == second.keys()
    assert all(torch.equal(value, second[name]) for name, value in first.items())


def test_a_second_model_becomes_the_default(tmp_path: Path) -> None:
    for name in ("one", "two", "one"):
        export.enter(tmp_path, name, "scene", name.encode(), "00" * 8)
    export.enter(tmp_path, "other", "pyramid", b"other", "11" * 8)
    lines = json.loads((tmp_path / "manifest.json").read_text())["models"]
    assert {m["id"]: m["default"] for m in lines} == {"one": True, "two": False, "other": True}


def test_counting_leaves_coding_alone(codec: PictureCodec) -> None:
    """Symbols are counted by the coder's own order; nothing of it stays behind."""
    model = Model(codec, export.first_tables(LATENT.hyper), b"")
    crop = torch.from_numpy(coffee(96, 96)).permute(2, 0, 1).float() / 255
    before = scene.EncodingCoder
    with torch.inference_mode():
        counts = export.count_symbols(model, [crop, crop], np.random.default_rng(1))
    assert scene.EncodingCoder is before
    assert counts.shape == (SCALE_COUNT + LATENT.hyper, 2 * export.REACH + 3)
    hyper = counts[SCALE_COUNT:]
    assert (hyper.sum(1) == 2 * 36).all()  # each cell's, of two crops
    # base, and refinement or not, mid and full: every channel of every cell once or twice
    latent = int(counts[:SCALE_COUNT].sum())
    assert 2 * 36 * LATENT.channels <= latent <= 2 * 36 * (LATENT.channels + LATENT.base_channels)


def test_tables_follow_the_counts() -> None:
    counts = np.zeros((SCALE_COUNT + 2, 2 * export.REACH + 3), np.int64)
    middle = export.REACH + 1
    counts[30, middle - 5 : middle + 6] = 10_000  # flat, where a Gaussian would be narrow
    counts[SCALE_COUNT, middle + 7] = 5000
    tables = export.fit_tables(counts, 2)
    assert len(tables) == SCALE_COUNT + 2
    bits = tables.bits(np.arange(-5, 6), np.full(11, 30))
    assert np.ptp(bits) < 0.2
    assert tables.bits(np.array([7]), np.array([SCALE_COUNT]))[0] < 0.2
    assert tables.bits(np.array([-7]), np.array([SCALE_COUNT]))[0] > 5
    untouched = tables.bits(np.array([0, 3]), np.array([20, 20]))
    gaussian = export.first_tables(2).bits(np.array([0, 3]), np.array([20, 20]))
    assert untouched == pytest.approx(gaussian, abs=0.15)


def test_an_export_never_replaces_what_is_not_its_own(tmp_path: Path) -> None:
    """It replaced models of other profiles, after the whole training."""
    export.enter(tmp_path, "scene-1", "scene", b"scene", "00" * 8)
    with pytest.raises(RequestError, match="a scene-1 already, of profile scene"):
        export.enter(tmp_path, "scene-1", "pyramid", b"pyramid", "11" * 8)
    assert (tmp_path / "scene-1.safetensors").read_bytes() == b"scene"
    (tmp_path / "manifest.json").write_text('{"name": "of something else"}')
    with pytest.raises(RequestError, match="no manifest of models"):
        export.enter(tmp_path, "scene-2", "scene", b"x", "00" * 8)
    assert not (tmp_path / "scene-2.safetensors").exists()
