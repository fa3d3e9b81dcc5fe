"""No tensor of a teacher is in what ships: compared by content, whatever the name or shape."""

from __future__ import annotations

import hashlib
import os
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

from vcmcodec import pretrained
from vcmcodec.vision.backend import PROFILE

SMALLEST = 16  # values; a shorter vector may agree by chance


def teachers_folder() -> Path:
    """$VCMCODEC_DATA/teachers, or shared/data/teachers beside the checkout."""
    beside = Path(__file__).resolve().parents[2].parent / "shared" / "data"
    folder = Path(os.environ.get("VCMCODEC_DATA", beside)) / "teachers"
    if not list(folder.glob("*.pth")):
        pytest.skip("no teachers; name the folder of data in VCMCODEC_DATA")
    return folder


def fingerprint(values: torch.Tensor) -> bytes | None:
    """Of the sorted float16 values over their largest: blind to order, sign and scale."""
    flat = values.float().flatten().abs()
    if len(flat) < SMALLEST or not flat.max() > 0 or flat.min() == flat.max():
        return None
    scaled = np.sort((flat / flat.max()).numpy().astype(np.float16))
    return hashlib.sha256(scaled.tobytes()).digest()


def teacher_fingerprints(folder: Path) -> dict[bytes, str]:
    """Of every tensor of every teacher, as it runs."""
    from vcmcodec.evaluation.teachers import load_taps

    taps = load_taps(folder)
    found = {}
    for path in sorted(folder.glob("*.pth")):
        for name, value in taps.Teacher(str(path)).state_dict().items():
            mark = fingerprint(value)
            if mark is not None:
                found[mark] = f"{path.name} {name}"
    return found


def test_no_shipped_tensor_is_a_teachers() -> None:
    folder = teachers_folder()
    models = [m for m in pretrained.models() if m.profile == PROFILE and m.present]
    if not models:
        pytest.skip("no vision weights are installed")
    teachers = teacher_fingerprints(folder)
    assert len(teachers) > 100
    for model in models:
        marks = {fingerprint(v): name for name, v in load_file(model.path).items()}
        assert len(marks) > 30
        shared = {marks[mark]: teachers[mark] for mark in marks.keys() & teachers.keys() if mark}
        assert shared == {}


def test_the_fingerprint_sees_through_order_and_scale() -> None:
    torch.manual_seed(0)
    kernel = torch.randn(8, 4, 3, 3).half().float()
    copy = (kernel * -2).transpose(0, 1).flip(2)
    assert fingerprint(kernel) == fingerprint(copy)
    assert fingerprint(kernel) != fingerprint(torch.randn(8, 4, 3, 3))
