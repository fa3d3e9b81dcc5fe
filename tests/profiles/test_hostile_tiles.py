"""Small files that announce very many tiles: what they cost is what their directory holds."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import replace

import numpy as np
import pytest
import torch

from photographs import photograph, rewritten, substreams
from vcmcodec import edit
from vcmcodec.bitstream.constants import Kind, LayerId
from vcmcodec.bitstream.container import Container, Substream, write
from vcmcodec.bitstream.header import Box, Group
from vcmcodec.codec import decode, encode
from vcmcodec.codec import open as open_file
from vcmcodec.deep import decode_symbols
from vcmcodec.entropy.group_map import encode_group_map
from vcmcodec.errors import FormatError
from vcmcodec.models import load_model
from vcmcodec.profiles import scene, tiles


def one_cell() -> bytes:
    """A grey cell, for machines."""
    return encode(
        np.full((16, 16, 3), 128, np.uint8), quality=10, tasks=["detection"], longer_side=0
    )


def run_of(file: bytes) -> bytes:
    return next(data for key, data in substreams(file).items() if key[0] == Kind.LATENT)


def many_tiles(side: int, held: int) -> bytes:
    """A picture of side x side cells, each a tile, of which the first ones are there."""
    header = Container.read(one_cell()).header
    header = replace(header, width=16 * side, height=16 * side, tile=1)
    run = run_of(one_cell())
    return write(
        header, [Substream(Kind.LATENT, LayerId.BASE, 0, run, tile) for tile in range(held)]
    )


def many_groups(side: int, count: int) -> bytes:
    """The same, redacted: groups of one cell each, of which the first is there."""
    header = Container.read(one_cell()).header
    groups = tuple(Group(k, "", None, Box(k, 0, 1, 1), 1) for k in range(count))
    header = replace(
        header, width=16 * side, height=16 * side, tile=1, redacted=True, groups=groups
    )
    labels = [*range(count), *[count] * (side * side - count)]
    parts = [
        Substream(Kind.GROUP_MAP, LayerId.BASE, 0, encode_group_map(labels, side, count + 1)),
        Substream(Kind.LATENT, LayerId.BASE, 0, run_of(one_cell())),
    ]
    return write(header, parts)


@pytest.fixture
def calls(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Numbers of the tiles that were decoded."""
    numbers: list[int] = []
    plain = scene.decode_tile

    def counted(*arguments: object) -> torch.Tensor:
        numbers.append(arguments[-1])  # type: ignore[arg-type]
        return plain(*arguments)  # type: ignore[arg-type]

    monkeypatch.setattr(scene, "decode_tile", counted)
    return numbers


def test_deep_verification_decodes_what_is_there_and_nothing_else(
    calls: list[int], monkeypatch: pytest.MonkeyPatch
) -> None:
    """A file of 1.8 KB that announces 65,536 tiles of 200 groups once took minutes."""
    file = many_groups(256, 200)
    assert len(file) < 2000
    searches = []
    plain = Container.find

    def counted(self: Container, *asked: object, **named: object) -> object:
        searches.append(asked)
        return plain(self, *asked, **named)  # type: ignore[arg-type]

    monkeypatch.setattr(Container, "find", counted)
    assert edit.verify(file, deep=True, decode_symbols=decode_symbols).ok
    assert calls == [0]
    assert len(searches) < 5


class Seen(Mapping):  # type: ignore[type-arg]
    """Runs that count how often one is looked at."""

    def __init__(self, runs: Mapping[tuple[Kind, LayerId, int, int], bytes]) -> None:
        self.runs, self.count = runs, 0

    def __len__(self) -> int:
        return len(self.runs)

    def __iter__(self) -> Iterator[tuple[Kind, LayerId, int, int]]:
        for key in self.runs:
            self.count += 1
            yield key

    def __getitem__(self, key: tuple[Kind, LayerId, int, int]) -> bytes:
        return self.runs[key]


def test_decoding_looks_at_every_run_once_and_not_once_for_every_tile() -> None:
    side = 6
    file = many_tiles(side, side * side)
    header, model = Container.read(file).header, load_model("scene")
    runs = Seen({(Kind.LATENT, LayerId.BASE, 0, k): run_of(file) for k in range(side * side)})
    labels, levels = np.zeros((side, side), np.int64), scene.Levels(1000, None)
    values = scene.decode_values(model, header, labels, levels, runs, LayerId.BASE)
    assert runs.count <= 2 * len(runs)
    assert values.shape[:2] == (side, side)
    assert torch.equal(values[0, 0], values[-1, -1])


def test_a_million_tiles_of_which_one_is_there_are_refused(calls: list[int]) -> None:
    file = many_tiles(1024, 1)
    assert len(file) < 100
    assert Container.read(file).header.tile_count == 2**20
    with pytest.raises(FormatError, match="group 0, tile 1 is missing"):
        decode(file)
    with open_file(file) as reader, pytest.raises(FormatError, match="tile 1 is missing"):
        reader.latent()
    assert calls == []
    assert edit.verify(file, deep=True, decode_symbols=decode_symbols).ok
    assert calls == [0]


@pytest.mark.parametrize("side", [0, 1, 3, 4, 50])
@pytest.mark.parametrize("grid", [(1, 1), (7, 10), (12, 8)])
def test_tiles_are_found_by_number(grid: tuple[int, int], side: int) -> None:
    numbers = np.full(grid, -1)
    for number, where in enumerate(tiles.tiles(grid, side)):
        assert tiles.tile_at(grid, side, number) == where
        assert (numbers[where.slices] == -1).all()
        numbers[where.slices] = number
    assert np.array_equal(tiles.tile_numbers(grid, side), numbers)


CELLS = np.array([[0, 0, 1, 1, 3, 3], [0, 2, 2, 1, 3, 4], [0, 2, 2, 0, 0, 4]], np.uint8)


@pytest.fixture
def tiled(monkeypatch: pytest.MonkeyPatch) -> bytes:
    """Five groups over tiles of 2 cells, three layers, a refinement."""
    monkeypatch.setattr(scene, "TILED_FROM_PIXELS", 100)
    monkeypatch.setattr(scene, "TILE_CELLS", 2)
    return encode(photograph("astronaut", 48, 96, 20, 160), quality=80, groups=CELLS)


def test_deep_verification_names_every_run_that_is_wrong(tiled: bytes, calls: list[int]) -> None:
    parts = substreams(tiled)
    latents = [key for key in parts if key[0] == Kind.LATENT]
    base, mid, full = (
        [k for k in latents if k[1] == layer and len(parts[k]) > 8] for layer in LayerId
    )
    bad = [base[0], base[3], mid[5], full[-1]]
    assert len({key[2:] for key in bad}) == len(bad)
    forged = rewritten(tiled, [(key, parts[key] + b"1234") for key in bad])
    assert edit.verify(forged).ok
    report = edit.verify(forged, deep=True, decode_symbols=decode_symbols)
    layers = {layer.name.lower(): layer for layer in LayerId}
    found = {(layers[f.layer], f.group, f.tile) for f in report.findings if f.problem}
    assert found == {key[1:] for key in bad}
    assert set(calls) == set(range(Container.read(tiled).header.tile_count))


def test_deep_verification_decodes_a_whole_file_once(tiled: bytes, calls: list[int]) -> None:
    assert edit.verify(tiled, deep=True, decode_symbols=decode_symbols).ok
    assert calls == list(range(Container.read(tiled).header.tile_count))


def test_deep_verification_checks_parts_up_to_the_gap(tiled: bytes) -> None:
    """Of a part without `mid`, `full` cannot be decoded, but the base can."""
    kept = [
        Substream(key[0], LayerId(key[1]), key[2], data, key[3])
        for key, data in substreams(tiled).items()
        if key[1] != LayerId.MID or key[2] == 1
    ]
    part = write(Container.read(tiled).header, kept)
    assert edit.verify(part, deep=True, decode_symbols=decode_symbols).ok
    key = next(k for k in substreams(part) if k[0] == Kind.LATENT and k[2] == 3)
    forged = rewritten(part, [(key, substreams(part)[key] + b"1234")])
    report = edit.verify(forged, deep=True, decode_symbols=decode_symbols)
    assert [(f.layer, f.group, f.tile) for f in report.findings if f.problem] == [
        ("base", 3, key[3])
    ]
