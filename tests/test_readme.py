"""What README.md shows is executed: its commands and its Python."""

from __future__ import annotations

import json
import re
import shlex
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

import vcmcodec
from vcmcodec.cli.main import COMMANDS, vcm

README = (Path(__file__).resolve().parents[1] / "README.md").read_text()


def blocks(language: str) -> list[str]:
    return re.findall(rf"```{language}\n(.*?)```", README, flags=re.DOTALL)


@pytest.fixture
def street(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The picture and the boxes that the examples speak of."""
    monkeypatch.chdir(tmp_path)
    y, x = np.mgrid[:96, :128]
    picture = np.stack([x * 2, y * 2, (x + y) % 200], axis=2).astype(np.uint8)
    Image.fromarray(picture).save("street.png")
    boxes = [{"label": "person", "box": [40, 20, 30, 60]}, {"label": "car", "box": [0, 60, 40, 30]}]
    Path("boxes.json").write_text(json.dumps(boxes))


@pytest.mark.usefixtures("street")
def test_the_commands_of_the_first_screen_run() -> None:
    lines = [line[2:] for line in blocks("console")[0].splitlines() if line.startswith("$ vcm ")]
    assert len(lines) >= 5
    for line in lines:
        with pytest.raises(SystemExit) as ended:
            vcm.main(shlex.split(line, comments=True)[1:], prog_name="vcm")
        assert ended.value.code == 0, line


@pytest.mark.usefixtures("street")
def test_the_python_of_the_first_screen_runs() -> None:
    with pytest.raises(SystemExit):
        vcm.main(["encode", "street.png", "-o", "street.vcm", "--groups", "boxes.json"])
    names: dict[str, object] = {}
    exec(compile(blocks("python")[0], "README.md", "exec"), names)  # our own text
    assert isinstance(names["person"], Image.Image)
    assert isinstance(names["machines"], bytes)
    for name in ("found", "seen"):
        assert isinstance(names[name], vcmcodec.Predictions)


def test_every_command_is_in_the_table() -> None:
    for name, _, _ in COMMANDS:
        assert f"| `{name}` |" in README, name
