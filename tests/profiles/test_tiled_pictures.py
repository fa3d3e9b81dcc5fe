"""Large pictures in tiles, made small here by lowering the sizes at which they begin."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch

from photographs import photograph, pixels_of, substreams
from vcmcodec import edit
from vcmcodec.bitstream.constants import Kind, LayerId
from vcmcodec.bitstream.container import Container
from vcmcodec.codec import decode, encode
from vcmcodec.codec import open as open_file
from vcmcodec.errors import FormatError, TruncatedError
from vcmcodec.models import load_model
from vcmcodec.nn.gain import Level
from vcmcodec.nn.transforms import Synthesis
from vcmcodec.profiles import scene

HEIGHT, WIDTH = 150, 230  # 10 x 15 cells
TILE = 4
TILES = 3 * 4


@pytest.fixture
def tiled(monkeypatch: pytest.MonkeyPatch) -> None:
    """Tiles of 4 cells for every picture of more than 64x64 pixels."""
    monkeypatch.setattr(scene, "TILED_FROM_CELLS", 16)
    monkeypatch.setattr(scene, "TILE_CELLS", TILE)


def picture() -> np.ndarray:
    return photograph("astronaut", HEIGHT, WIDTH, 20, 130)


def cells() -> np.ndarray:
    labels = np.zeros((10, 15), np.uint8)
    labels[2:9, 3:11] = 1  # over several tiles
    labels[0, 14] = 2  # one cell in one tile
    return labels


@pytest.mark.usefixtures("tiled")
def test_tiles_are_in_the_header_and_the_directory() -> None:
    file = encode(picture(), quality=60, groups=cells())
    header = Container.read(file).header
    assert header.tile == TILE
    assert header.tile_count == TILES
    base = [k for k in substreams(file) if k[0] == Kind.LATENT and k[1] == LayerId.BASE]
    wanted = set()
    for number in range(TILES):
        top, left = TILE * (number // 4), TILE * (number % 4)
        for group in np.unique(cells()[top : top + TILE, left : left + TILE]).tolist():
            wanted.add((group, number))
    assert {(k[2], k[3]) for k in base} == wanted
    assert encode(photograph("astronaut", 64, 64), quality=60) != file
    small = Container.read(encode(photograph("astronaut", 64, 64), quality=60))
    assert small.header.tile == 0


@pytest.mark.parametrize("groups", [None, cells()], ids=["plain", "groups"])
@pytest.mark.usefixtures("tiled")
def test_a_tiled_file_is_a_file(groups: np.ndarray | None) -> None:
    file = encode(picture(), quality=70, base_quality=30, groups=groups, digest=True)
    assert edit.extract(file, tasks=["detection"]) == encode(
        picture(), tasks=["detection"], base_quality=30, groups=groups, digest=True
    )
    assert edit.merge([edit.extract(file, layers=[k]) for k in LayerId]) == file
    whole = np.asarray(decode(file))
    assert whole.shape == (HEIGHT, WIDTH, 3)
    base = edit.extract(file, tasks=["detection"])
    assert np.array_equal(np.asarray(decode(base)), np.asarray(decode(file, width=0.25)))
    if groups is not None:
        for group in (0, 1, 2):
            inside = pixels_of(groups == group, HEIGHT, WIDTH)
            alone = np.asarray(decode(file, groups=[group]))
            assert np.array_equal(alone[inside][:, :3], whole[inside])
            changed = np.where(inside[..., None], picture(), 255 - picture())
            other = encode(changed, quality=70, base_quality=30, groups=groups, digest=True)
            mine = [
                {k: v for k, v in substreams(f).items() if k[2] == group and k[0] != Kind.GROUP_MAP}
                for f in (file, other)
            ]
            assert mine[0] == mine[1]
            assert np.array_equal(np.asarray(decode(other))[inside], whole[inside])


def test_tiles_cost_a_little_and_show_no_seams(monkeypatch: pytest.MonkeyPatch) -> None:
    plain = encode(picture(), quality=60)
    one = np.asarray(decode(plain)).astype(int)
    monkeypatch.setattr(scene, "TILED_FROM_CELLS", 16)
    monkeypatch.setattr(scene, "TILE_CELLS", TILE)
    # the same file: only the synthesis is done in tiles
    assert np.abs(np.asarray(decode(plain)).astype(int) - one).max() <= 1
    tiled = encode(picture(), quality=60)
    assert len(plain) < len(tiled) < 2.0 * len(plain)  # contexts begin anew 12 times, 4 runs each
    error = np.abs(np.asarray(decode(tiled)).astype(int) - picture().astype(int)).mean(-1)
    near = np.zeros((HEIGHT, WIDTH), bool)
    for border in range(64, WIDTH, 64):
        near[:, border - 1 : border + 1] = True
    for border in range(64, HEIGHT, 64):
        near[border - 1 : border + 1] = True
    plain_error = np.abs(one - picture().astype(int)).mean(-1)
    assert error[near].mean() < 1.3 * plain_error[near].mean() + 0.5


def test_analysis_in_tiles_is_the_analysis() -> None:
    """Each tile sees true neighbours as far as its values reach."""
    model = load_model("scene")
    labels = cells().astype(np.int64)
    for groups in (np.zeros_like(labels), labels):
        whole = next(iter(scene.analyse(model, scene.Source(picture(), groups, 3, 0), 3))).latent
        whole = whole.reshape(10, 15, -1)
        steps = whole.abs().mean()
        for piece in scene.analyse(model, scene.Source(picture(), groups, 3, TILE), 3):
            part = piece.latent.reshape(piece.where.rows, piece.where.columns, -1)
            apart = (part - whole[piece.where.slices]).abs().max()
            assert float(apart) < 1e-4 * max(1.0, float(steps) * 10)


def test_synthesis_in_tiles_is_the_synthesis(monkeypatch: pytest.MonkeyPatch) -> None:
    model = load_model("scene")
    torch.manual_seed(1)
    labels = cells().astype(np.int64)
    level = Level(6000, scene.LEVELS)
    for channels in model.codec.transform.latent:
        values = torch.randn(10, 15, channels) * 30
        for groups in (np.zeros_like(labels), labels):
            monkeypatch.undo()
            whole = scene.synthesise(model, values, level, groups, (HEIGHT, WIDTH))
            monkeypatch.setattr(scene, "TILED_FROM_CELLS", 16)
            monkeypatch.setattr(scene, "TILE_CELLS", TILE)
            parts = scene.synthesise(model, values, level, groups, (HEIGHT, WIDTH))
            assert np.abs(parts.astype(int) - whole.astype(int)).max() <= 1


def test_the_halo_is_not_too_small(monkeypatch: pytest.MonkeyPatch) -> None:
    """With a cell less the synthesis in tiles does differ, so the tests above can fail."""
    from vcmcodec.nn.transforms import TransformShape

    model = load_model("scene")
    torch.manual_seed(1)
    values = torch.randn(10, 15, 320) * 60
    labels, level = np.zeros((10, 15), np.int64), Level(0, scene.LEVELS)
    whole = scene.synthesise(model, values, level, labels, (HEIGHT, WIDTH))
    monkeypatch.setattr(scene, "TILED_FROM_CELLS", 16)
    monkeypatch.setattr(scene, "TILE_CELLS", TILE)
    monkeypatch.setattr(TransformShape, "halo_cells", property(lambda shape: 0))
    parts = scene.synthesise(model, values, level, labels, (HEIGHT, WIDTH))
    assert np.abs(parts.astype(int) - whole.astype(int)).max() > 1


@pytest.mark.usefixtures("tiled")
def test_cut_tiled_files() -> None:
    groups = cells()
    file = encode(picture(), quality=60, groups=groups)
    container = Container.read(file)
    at = {0: 0.25, 1: 0.5, 2: 1.0}
    shown = {layer: np.asarray(decode(file, width=width)) for layer, width in at.items()}
    coded = [e for e in container.entries if e.kind != Kind.GROUP_MAP]
    base_end = max(e.end for e in coded if e.layer == LayerId.BASE)
    ends = sorted({e.end for e in coded})
    for length in [*ends[:-1:6], base_end, base_end + 1, ends[-1] - 1]:
        part = file[:length]
        if length < base_end:
            with pytest.raises(TruncatedError):
                decode(part)
            continue
        with open_file(part) as reader:
            decoded = reader.inspect()
        assert decoded.warnings
        image = np.asarray(decoded.image)
        for group in (0, 1, 2):
            inside = pixels_of(groups == group, HEIGHT, WIDTH)
            layer = min((e.layer for e in coded if e.group == group and e.end > length), default=3)
            assert np.array_equal(image[inside], shown[int(layer) - 1][inside])


@pytest.mark.usefixtures("tiled")
def test_a_missing_tile_is_noticed() -> None:
    from vcmcodec.bitstream.container import Substream, write

    file = encode(picture(), tasks=["detection"])
    parts = [
        Substream(k[0], LayerId(k[1]), k[2], data, k[3])
        for k, data in substreams(file).items()
        if k[3] != 5
    ]
    with pytest.raises(FormatError, match="tile 5 is missing"):
        decode(write(Container.read(file).header, parts))


def test_a_strip_is_cut_into_long_tiles() -> None:
    """Decoding one in one piece took 2 GB, and as many seconds as it has thousands of cells."""
    assert scene.tile_side((1, 2**14)) == 0
    assert scene.tile_side((1, 2**14 + 1)) == scene.TILE_CELLS**2
    assert scene.tile_side((20, 2**14)) == scene.TILE_CELLS**2 // 20
    assert scene.tile_side((200, 300)) == scene.TILE_CELLS
    rgb = np.repeat(photograph("astronaut", 500, 1, 0, 100), 530, 0)
    file = encode(rgb, quality=20)
    assert Container.read(file).header.tile == scene.TILE_CELLS**2
    assert decode(file).size == (1, len(rgb))


@pytest.mark.parametrize("tile", [0, TILE], ids=["whole", "tiled"])
@pytest.mark.parametrize("size", [(HEIGHT, WIDTH), (160, 240), (145, 225)], ids=str)
def test_synthesis_of_some_cells_is_that_part_of_the_synthesis(
    monkeypatch: pytest.MonkeyPatch, tile: int, size: tuple[int, int]
) -> None:
    model, level = load_model("scene"), Level(6000, scene.LEVELS)
    if tile:
        monkeypatch.setattr(scene, "TILED_FROM_CELLS", 16)
        monkeypatch.setattr(scene, "TILE_CELLS", tile)
    torch.manual_seed(1)
    random = np.random.default_rng(3)
    maps = [np.zeros((10, 15), np.int64), cells(), random.integers(0, 5, (10, 15))]
    for channels in model.codec.transform.latent:
        values = torch.randn(10, 15, channels) * 30
        for labels in maps:
            whole = scene.synthesise(model, values, level, labels, size)
            for wanted in [labels == 1, labels >= 2, labels == 9, random.random((10, 15)) < 0.05]:
                onto = random.integers(0, 256, whole.shape, np.uint8)
                inside = pixels_of(wanted, *size)[..., None]
                expected = np.where(inside, whole, onto)
                shown = scene.synthesise(
                    model, values, level, labels, size, wanted=wanted, onto=onto
                )
                assert shown is onto
                assert np.array_equal(shown, expected)


@pytest.mark.parametrize("width", [None, 0.25])
@pytest.mark.usefixtures("tiled")
def test_no_more_is_synthesised_than_the_groups_take(
    monkeypatch: pytest.MonkeyPatch, width: float | None
) -> None:
    """Decoding one group of a large picture took nearly as long as decoding all of it."""
    file, taken = encode(picture(), quality=60, groups=cells()), list[tuple[int, ...]]()
    forward = Synthesis.forward

    def counted(self: Synthesis, latent: torch.Tensor, *given: Any) -> object:
        taken.append(tuple(latent.shape[1:3]))
        return forward(self, latent, *given)

    monkeypatch.setattr(Synthesis, "forward", counted)
    decode(file, groups=[2], width=width)
    assert taken == [(5, 5)]  # one cell in the picture's corner, and its halo of four
    taken.clear()
    decode(file, width=width)
    assert len(taken) == TILES


@pytest.mark.usefixtures("tiled")
def test_groups_of_different_layers_are_synthesised_once_each(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    file = encode(picture(), quality=60, base_quality=20, groups=cells())
    whole, preview = np.asarray(decode(file)), np.asarray(decode(file, width=0.25))
    parts = [edit.extract(file, groups=[2]), edit.extract(file, layers=[LayerId.BASE])]
    mixed, taken = edit.merge(parts), list[int]()
    forward = Synthesis.forward

    def counted(self: Synthesis, latent: torch.Tensor, *given: Any) -> object:
        taken.append(latent.shape[-1])
        return forward(self, latent, *given)

    monkeypatch.setattr(Synthesis, "forward", counted)
    shown = np.asarray(decode(mixed))
    inside = pixels_of(cells() == 2, HEIGHT, WIDTH)[..., None]
    assert np.array_equal(shown, np.where(inside, whole, preview))
    widths = load_model("scene").codec.transform.latent
    assert taken.count(widths[-1]) == 1
    assert taken.count(widths[0]) == TILES
