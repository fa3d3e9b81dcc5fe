"""No picture that anything is measured on is among those that anything is trained on.

Compared by the SHA-256 of decoded pixels and, since copies may have been scaled or compressed anew,
by a perceptual fingerprint: signs of the differences in a 9x8 thumbnail, either way round.
"""

from __future__ import annotations

import hashlib
import io
import os
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from photographs import photograph
from vcmcodec.training.photographs import picture_bytes

TRAINING = ("train-photos-0.tar", "train-photos-1.tar", "voc-train-0.tar", "voc-train-1.tar",
            "voc-train-2.tar")  # fmt: skip
EVALUATION = ("kodak", "voc-val.tar")
NEAR = 3  # of 64 bits


def data_folder() -> Path:
    """$VCMCODEC_DATA, or shared/data beside the checkout."""
    beside = Path(__file__).resolve().parents[2].parent / "shared" / "data"
    folder = Path(os.environ.get("VCMCODEC_DATA", beside))
    missing = [name for name in (*TRAINING, *EVALUATION) if not (folder / name).exists()]
    if missing:
        pytest.skip(f"no {missing[0]}; name the folder of pictures in VCMCODEC_DATA")
    return folder


def exact(image: Image.Image) -> bytes:
    """SHA-256 of size and pixels."""
    rgb = image.convert("RGB")
    return hashlib.sha256(repr(rgb.size).encode() + rgb.tobytes()).digest()


def gist(image: Image.Image) -> np.ndarray:
    """64 bits: is each ninth of a row brighter than the one to its left?"""
    small = image.convert("L").resize((9, 8), Image.Resampling.BOX)
    values = np.asarray(small, np.int16)
    return (values[:, 1:] > values[:, :-1]).reshape(-1)


def is_mask(name: str) -> bool:
    """Class masks lie beside the pictures of the labelled sets, as PNG."""
    return name.endswith(".png") and not name.startswith("kodim")


def fingerprints(sources: list[Path]) -> tuple[dict[bytes, str], list[str], np.ndarray]:
    """Names by exact fingerprint; names; gists (n, 64) bool."""
    found, names, gists = {}, [], []
    for name, data in picture_bytes(sources):
        if is_mask(name):
            continue
        with Image.open(io.BytesIO(data)) as image:
            found[exact(image)] = name
            names.append(name)
            gists.append(gist(image))
    return found, names, np.array(gists)


def near_pairs(left: np.ndarray, right: np.ndarray) -> list[tuple[int, int]]:
    """Rows of the two that are nearly the same."""
    a, b = (np.where(x, 1, -1).astype(np.float32) for x in (left, right))
    return [tuple(pair) for pair in np.argwhere((64 - a @ b.T) / 2 <= NEAR).tolist()]


@pytest.mark.slow
def test_training_saw_no_evaluation_picture() -> None:
    folder = data_folder()
    trained = fingerprints([folder / name for name in TRAINING])
    measured = fingerprints([folder / name for name in EVALUATION])
    assert len(trained[1]) > 3000
    assert len(measured[1]) >= 24 + 232
    assert not {trained[0][k] for k in trained[0].keys() & measured[0].keys()}
    flipped = measured[2].reshape(-1, 8, 8)[:, :, ::-1].reshape(-1, 64)
    pairs = near_pairs(trained[2], measured[2]) + near_pairs(trained[2], ~flipped)
    assert not [(trained[1][a], measured[1][b]) for a, b in pairs]


def test_the_gist_recognises_copies() -> None:
    """Scaled, compressed and mirrored copies are found; other pictures are not."""
    one = Image.fromarray(photograph("astronaut", 400, 400, 50, 50))
    file = io.BytesIO()
    one.resize((300, 290)).save(file, "jpeg", quality=50)
    copy = Image.open(file)
    others = [photograph(n, 300, 400) for n in ("coffee", "chelsea", "rocket")]
    gists = np.array([gist(copy), *(gist(Image.fromarray(o)) for o in others)])
    mine = gist(one)[None]
    assert near_pairs(mine, gists) == [(0, 0)]
    mirrored = gist(one.transpose(Image.Transpose.FLIP_LEFT_RIGHT))[None]
    assert near_pairs(mine, ~mirrored.reshape(-1, 8, 8)[:, :, ::-1].reshape(-1, 64)) == [(0, 0)]
    assert exact(one) != exact(copy)
    assert exact(one) == exact(one.copy())
