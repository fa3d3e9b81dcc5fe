"""Files made by hand, and `vcm` run in this process or in one of its own."""

from __future__ import annotations

import ast
import os
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import pytest

from vcmcodec.bitstream.constants import CoderId, Kind, LayerId, ProfileId, TaskId
from vcmcodec.bitstream.container import Substream, write
from vcmcodec.bitstream.header import Box, Group, Header, LayerInfo, TaskInfo
from vcmcodec.entropy.group_map import encode_group_map

ROOT = Path(__file__).resolve().parents[2]


@dataclass(frozen=True)
class Ran:
    """How a command ended."""

    code: int
    stdout: bytes
    stderr: str

    @property
    def lines(self) -> list[str]:
        return self.stdout.decode().splitlines()


Run = Callable[..., Ran]


def loaded(arguments: list[str], names: tuple[str, ...], folder: Path) -> list[str]:
    """Which of the modules a command loads, run in a process of its own."""
    report = f"print([name for name in {names} if name in sys.modules], file=sys.stderr)"
    script = (
        "import atexit, sys\n"
        f"atexit.register(lambda: {report})\n"
        "from vcmcodec.cli.main import vcm\n"
        f"vcm({arguments!r}, prog_name='vcm')\n"
    )
    ended = subprocess.run(
        [sys.executable, "-c", script],
        cwd=folder,
        env=os.environ | {"PYTHONPATH": str(ROOT)},
        capture_output=True,
        check=False,
    )
    assert b"Traceback" not in ended.stderr
    found = ast.literal_eval(ended.stderr.decode().splitlines()[-1])
    assert isinstance(found, list)
    return found


@pytest.fixture(scope="session")
def hand_made() -> bytes:
    """A file of three layers and two groups whose payload is no codec's."""
    labels = [0] * 12
    labels[5] = labels[6] = 1
    groups = (Group(0, "background", None, Box(0, 0, 4, 3), 10),
              Group(1, "person", 0.5, Box(1, 1, 2, 1), 2))  # fmt: skip
    header = Header(
        profile=ProfileId.SCENE,
        fingerprint=b"12345678",
        width=60,
        height=40,
        grey=False,
        tile=0,
        coder=CoderId.RANS_16,
        tasks=(TaskInfo(TaskId.HUMAN, LayerId.FULL), TaskInfo(TaskId.DETECTION, LayerId.BASE)),
        layers=tuple(LayerInfo(layer, 3000) for layer in LayerId),
        groups=groups,
    )
    latents = [
        Substream(Kind.LATENT, layer, group, bytes(20 + group + layer))
        for layer in LayerId
        for group in (0, 1)
    ]
    group_map = Substream(Kind.GROUP_MAP, LayerId.BASE, 0, encode_group_map(labels, 4, 2))
    return write(header, [group_map, *latents])


@pytest.fixture
def vcm(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfdbinary: pytest.CaptureFixture) -> Run:
    """Run `vcm` in this process, in a folder of its own."""
    from vcmcodec.cli.main import vcm as program

    monkeypatch.chdir(tmp_path)

    def run(*arguments: object) -> Ran:
        capfdbinary.readouterr()
        with pytest.raises(SystemExit) as ended:
            program.main([str(argument) for argument in arguments], prog_name="vcm")
        out, err = capfdbinary.readouterr()
        code = ended.value.code
        return Ran(code if isinstance(code, int) else int(code is not None), out, err.decode())

    return run


@pytest.fixture
def vcm_process(tmp_path: Path) -> Run:
    """Run `vcm` as a process, in a folder of its own; `stdin` are bytes for its input."""

    def run(*arguments: object, stdin: bytes = b"", **environment: str) -> Ran:
        ended = subprocess.run(
            [sys.executable, "-m", "vcmcodec", *map(str, arguments)],
            input=stdin,
            capture_output=True,
            cwd=tmp_path,
            env=os.environ | {"PYTHONPATH": str(ROOT)} | environment,
            check=False,
            timeout=300,
        )
        return Ran(ended.returncode, ended.stdout, ended.stderr.decode())

    return run
