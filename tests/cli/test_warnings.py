"""What is lost or missing is told by the commands themselves, once, and by Python not at all."""

from __future__ import annotations

import warnings
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

import vcmcodec
from conftest import Run

BOXES = '[{"label": "left", "box": [0, 0, 40, 60]}]'


@pytest.fixture
def inputs(tmp_path: Path) -> None:
    """A picture that loses something, a cut file, and one for classification alone."""
    y, x = np.mgrid[:96, :128]
    rgb = np.stack([x * 2, y * 2, (x + y) % 200], axis=2).astype(np.uint8)
    Image.fromarray(rgb).convert("CMYK").save(tmp_path / "print.jpg")
    Image.fromarray(rgb).save(tmp_path / "a.png")
    (tmp_path / "boxes.json").write_text(BOXES)
    whole = vcmcodec.encode(rgb)
    (tmp_path / "cut.vcm").write_bytes(whole[:-5])


@pytest.mark.usefixtures("inputs")
@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        ("encode print.jpg -o b.vcm", "CMYK converted"),
        ("encode a.png -o b.vcm -t detection --groups boxes.json --effort 1", "adapted together"),
        ("features print.jpg -o b.safetensors", "CMYK converted"),
        ("analyze print.jpg --task detection", "CMYK converted"),
        ("decode cut.vcm -o b.png", "the file is cut off"),
        ("analyze cut.vcm --task detection --draw b.png", "the file is cut off"),
    ],
)
def test_a_command_tells_each_warning_once_and_python_none(
    vcm: Run, arguments: str, sentence: str
) -> None:
    with warnings.catch_warnings(record=True) as told:
        warnings.simplefilter("always")
        ran = vcm(*arguments.split())
    assert ran.code == 0
    assert ran.stderr.count(sentence) == 1
    assert not [one for one in told if issubclass(one.category, vcmcodec.VcmWarning)]
