"""Real files read from afar: at most two reads, and only the bytes that are asked for."""

from __future__ import annotations

from functools import cache
from pathlib import Path

import numpy as np
import pytest

from photographs import photograph
from vcmcodec.bitstream.constants import FIRST_READ_BYTES, Kind, LayerId
from vcmcodec.bitstream.container import Container
from vcmcodec.codec import decode, encode
from vcmcodec.codec import open as open_file

CELLS = np.zeros((15, 20), np.uint8)
CELLS[3:9, 4:11] = 1
CELLS[10:, :3] = 2


@cache
def file() -> bytes:
    """Larger than the first read."""
    made = encode(photograph("coffee", 240, 320, 60, 150), quality=100, groups=CELLS)
    assert len(made) > 2 * FIRST_READ_BYTES
    return made


class Afar:
    """A source that counts: a server, say."""

    def __init__(self, data: bytes) -> None:
        self.data, self.reads = data, list[tuple[int, int]]()

    def get_bytes(self, offset: int, length: int) -> bytes:
        self.reads.append((offset, length))
        return self.data[offset : offset + length]


ASKED: list[dict[str, object]] = [
    {},
    {"width": 0.25},
    {"width": 0.5},
    {"groups": [1]},
    {"groups": [2], "width": 0.5},
    {"groups": [0, 2], "width": 0.25},
]


@pytest.mark.parametrize("asked", ASKED, ids=str)
def test_two_reads_serve_any_partial_decode(asked: dict[str, object]) -> None:
    for source in (afar := Afar(file()), (bare := Afar(file())).get_bytes):
        image = decode(source, **asked)  # type: ignore[arg-type]
        assert np.array_equal(np.asarray(image), np.asarray(decode(file(), **asked)))  # type: ignore[arg-type]
    for one in (afar, bare):
        assert len(one.reads) <= 2
        assert one.reads[0] == (0, FIRST_READ_BYTES)


def test_one_read_serves_a_description() -> None:
    afar = Afar(file())
    with open_file(afar) as reader:
        facts = reader.describe()
        assert reader.bytes_read == FIRST_READ_BYTES
    assert len(afar.reads) == 1
    assert facts.num_bytes == len(file())


@pytest.mark.parametrize("asked", ASKED, ids=str)
def test_only_what_is_asked_for_is_read_of_a_file(asked: dict[str, object], tmp_path: Path) -> None:
    """The first 4 KiB, then the substreams of these groups and layers, and nothing else."""
    path = tmp_path / "picture.vcm"
    path.write_bytes(file())
    container = Container.read(file())
    groups = asked.get("groups", [0, 1, 2])
    top = {0.25: LayerId.BASE, 0.5: LayerId.MID, 1.0: LayerId.FULL}[asked.get("width", 1.0)]  # type: ignore[index]
    needed = [
        e
        for e in container.entries
        if e.kind == Kind.GROUP_MAP or (e.group in groups and e.layer <= top)  # type: ignore[operator]
    ]
    front = FIRST_READ_BYTES
    behind = sum(e.end - max(e.offset, front) for e in needed if e.end > front)
    with open_file(path) as reader:
        assert reader.bytes_read == FIRST_READ_BYTES
        reader.decode(**asked)  # type: ignore[arg-type]
        assert reader.bytes_read == FIRST_READ_BYTES + behind
    if asked:
        assert reader.bytes_read < len(file())


def test_paths_file_objects_and_bytes_are_the_same(tmp_path: Path) -> None:
    path = tmp_path / "picture.vcm"
    path.write_bytes(file())
    wanted = np.asarray(decode(file(), width=0.5))
    with path.open("rb") as opened:
        for source in (path, str(path), opened, memoryview(file()), bytearray(file())):
            assert np.array_equal(np.asarray(decode(source, width=0.5)), wanted)


def test_a_reader_serves_again_and_again() -> None:
    with open_file(file()) as reader:
        small, group, whole = reader.decode(width=0.25), reader.decode(groups=1), reader.decode()
        assert reader.layers == ("base", "mid", "full")
        assert set(reader.tasks) == {"human", "detection", "classification", "segmentation"}
        assert [g.id for g in reader.groups] == [0, 1, 2]
        assert reader.size == len(file())
        assert reader.warnings == ()
    assert np.array_equal(np.asarray(small), np.asarray(decode(file(), width=0.25)))
    assert np.array_equal(np.asarray(group), np.asarray(decode(file(), groups=[1])))
    assert np.array_equal(np.asarray(whole), np.asarray(decode(file())))


def test_what_the_caller_opened_stays_open() -> None:
    class Closing(Afar):
        closed = False

        def close(self) -> None:
            self.closed = True

    source = Closing(file())
    for _ in range(2):
        decode(source)
        assert not source.closed
