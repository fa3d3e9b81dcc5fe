"""The `scene` profile: the picture's latent, a base layer for machines and layers for people.

Numbers of the networks stand on top; the rest says which values go into which substream, in which
order (norm §6): of the base, hyper-latent and base slices; of `mid`, the refinement where people's
level is finer than the base's, and its slice; of `full`, its slice.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from vcmcodec.bitstream.constants import CELL, Kind, LayerId
from vcmcodec.bitstream.container import Runs, Substream
from vcmcodec.bitstream.header import Header
from vcmcodec.grouping import as_pixels
from vcmcodec.nn.gain import LOG_UNIT, Level
from vcmcodec.nn.geometry import GroupGeometry
from vcmcodec.nn.latent_model import LatentShape
from vcmcodec.nn.model_tensors import Model, unpack
from vcmcodec.nn.picture_codec import PictureCodec, cell_grid
from vcmcodec.nn.slice_model import CellGrid
from vcmcodec.nn.transforms import TransformShape
from vcmcodec.profiles.coding import DecodingCoder, EncodingCoder, Hand
from vcmcodec.profiles.digests import Digests
from vcmcodec.profiles.tiles import (
    Rectangle,
    bounds,
    expand,
    grid_of,
    padded_pixels,
    tile_at,
    tiles,
)

NAME = "scene"
LEVELS = 8
LMBDAS = tuple(0.00015 * 600 ** (i / (LEVELS - 1)) for i in range(LEVELS))
TRANSFORM = TransformShape(
    trunk=(48, 96, 192), latent=(64, 160, 320), trunk_blocks=1, latent_blocks=3
)
LATENT = LatentShape(
    slices=(16, 48, 96, 160), phases=(6, 2, 2, 2), layers=(0, 0, 1, 2), hyper=8, levels=LEVELS
)

DEFAULT_QUALITY = 60.0
DEFAULT_BASE_QUALITY = 50.0  # of machine tasks, where no tasks model has measured them
TILE_CELLS = 64
TILED_FROM_CELLS = 2**14  # pictures with more are cut into tiles
# Below this difference of levels, in hundredths, coding the base's channels again costs more than
# it gives (measured, decisions/0005); part of the norm (section 6.1).
REFINED_FROM = 2000
RATE_PRICE = 0.15  # share of the Lagrangian's price at which rounding weighs bits; decisions/0005


def read_model(tensors: dict[str, Tensor], metadata: dict[str, str]) -> Model:
    """A model from a weight file."""
    return unpack(tensors, metadata, PictureCodec.rebuild)


def build() -> PictureCodec:
    """The networks, untrained."""
    return PictureCodec(TRANSFORM, LATENT, LMBDAS)


def tile_side(grid: tuple[int, int]) -> int:
    """Cells on a side of the tiles of a (rows, columns) grid; 0: it is not cut into tiles.

    Tiles of a strip that is narrower than `TILE_CELLS` are as much longer.
    """
    if grid[0] * grid[1] <= TILED_FROM_CELLS:
        return 0
    return TILE_CELLS**2 // min(*grid, TILE_CELLS)


@dataclass(frozen=True)
class Source:
    """A picture ready to be analysed.

    Attributes:
        rgb: (H, W, 3) uint8.
        labels: (rows, columns) group position of each cell.
        groups: number of positions.
        tile: side in cells, 0 for none.
    """

    rgb: np.ndarray
    labels: np.ndarray
    groups: int
    tile: int


@dataclass(frozen=True)
class Levels:
    """Rate levels in hundredths; `people` is None where only the base is written."""

    base: int
    people: int | None

    @property
    def refined(self) -> bool:
        """Whether the base's channels are coded again for people."""
        return self.people is not None and self.people - self.base >= REFINED_FROM

    @property
    def carried(self) -> bool:
        """Whether people make do with the base's channels, at their coarser level."""
        return self.people is not None and 0 < self.people - self.base < REFINED_FROM

    def at(self, layer: LayerId, levels: int) -> Level:
        """The level that values decoded up to `layer` are in, of a model's trained `levels`."""
        people = self.base if self.people is None else self.people
        return Level(self.base if layer == LayerId.BASE else people, levels)


@dataclass(frozen=True)
class Piece:
    """One tile's latent, (cells, channels), before any gain."""

    number: int
    where: Rectangle
    latent: Tensor


@torch.inference_mode()
def analyse(model: Model, source: Source, widths: int) -> Iterator[Piece]:
    """Run the analysis transform, tile by tile, each with a halo of true neighbours."""
    codec = model.codec
    for number, where in enumerate(tiles(grid_of(source.labels), source.tile)):
        around = expand(where, codec.transform.halo_cells, grid_of(source.labels))
        geometry = GroupGeometry(source.labels[around.slices]).to(codec.analysis.mean.device)
        image = padded_pixels(source.rgb, around).to(codec.analysis.mean.device)
        inner = where.inside(around)
        parts = codec.analysis(image, geometry, widths)
        latent = torch.cat([part[0][inner.slices] for part in parts], -1).cpu()
        yield Piece(number, where, latent.reshape(where.size, -1))


class Tally:
    """What an encoding cost.

    Attributes:
        bits: of all symbols, by the integer tables.
        closed: worth in bits, at the Lagrangian's price, of the error that people see where the
            networks are sure of a zero that is none (decisions/0006).
    """

    def __init__(self) -> None:
        self.bits = self.closed = 0.0

    def count(self, coder: EncodingCoder, *, for_people: bool) -> None:
        """Add what one coder spent and, where people see its values, lost."""
        self.bits += coder.bits
        self.closed += RATE_PRICE * coder.closed if for_people else 0.0


@torch.inference_mode()
def encode(
    model: Model, source: Source, pieces: Iterable[Piece], levels: Levels, *, digest: bool = False,
    coder_class: type[EncodingCoder] | None = None, tally: Tally | None = None,
) -> list[Substream]:  # fmt: skip
    """Code analysed tiles; `Substream.group` is the group's position.

    Args:
        digest: add a hash of the symbols of every layer, group and tile.
        coder_class: what to code with, where it is not `EncodingCoder`.
        tally: is told what it costs.
    """
    out: list[Substream] = []
    tally = tally or Tally()
    for piece in pieces:
        made_by = coder_class or EncodingCoder
        out.extend(_encode_piece(model, source, piece, levels, digest, made_by, tally))
    return out


class _Tile:
    """What encoding and decoding of one tile share: grid, owners and levels."""

    def __init__(self, model: Model, labels: np.ndarray, groups: int, levels: Levels) -> None:
        shape = model.codec.latent
        self.grid: CellGrid = cell_grid(labels, shape.phases)
        self.hand = Hand(labels.reshape(-1), groups)
        self.base_level = Level(levels.base, shape.levels)
        self.level = Level(levels.base if levels.people is None else levels.people, shape.levels)


def price(codec: PictureCodec, level: Level, channels: int) -> Tensor:
    """Bits that one squared step is worth in each channel: lmbda 255**2 step**2 / 3."""
    step = torch.exp2(level.floats(codec.gains.log_inverse[:, :channels]) / LOG_UNIT)
    return RATE_PRICE**-1 * codec.lmbda(level) * 255**2 / 3 * step**2


def _encode_piece(
    model: Model, source: Source, piece: Piece, levels: Levels, digest: bool,
    coder_class: type[EncodingCoder], tally: Tally,
) -> list[Substream]:  # fmt: skip
    codec, shape, base_channels = model.codec, model.codec.latent, model.codec.latent.base_channels
    labels = source.labels[piece.where.slices]
    tile = _Tile(model, labels, source.groups, levels)
    present = [int(group) for group in np.unique(labels)]
    out: list[Substream] = []
    hashes = Digests(present, piece.number)

    def coder(steps: Tensor, hyper: Tensor | None, level: Level) -> EncodingCoder:
        worth = price(codec, level, steps.shape[1])
        digests = hashes.running if digest else None
        return coder_class(steps, hyper, model.tables, tile.hand, price=worth, digests=digests)

    def close(coder: EncodingCoder, kind: Kind, layer: LayerId) -> None:
        runs = coder.finish()
        is_replaced = layer == LayerId.BASE and levels.refined
        tally.count(coder, for_people=levels.people is not None and not is_replaced)
        out.extend(Substream(kind, layer, g, runs[g], piece.number) for g in present)

    def close_layer(layer: LayerId) -> None:
        if digest:
            out.extend(hashes.close(layer))

    base = piece.latent[:, :base_channels]
    steps = base * codec.gains.gain(tile.base_level, slice(0, base_channels))
    current = coder(steps, codec.hyper_analysis(steps), tile.base_level)
    hyper = codec.entropy.hyper_context(current.hyper(shape.hyper), tile.grid)
    values = codec.entropy.code_slices(
        current, tile.grid, tile.base_level, hyper, LayerId.BASE, steps[:, :0]
    )
    close(current, Kind.LATENT, LayerId.BASE)
    close_layer(LayerId.BASE)
    if levels.people is None:
        return out

    steps = piece.latent * codec.gains.gain(tile.level, slice(0, shape.channels))
    log_gain = codec.gains.log_gain[:, :base_channels]
    if levels.refined:
        current = coder(steps, None, tile.level)
        values = codec.entropy.code_refinement(
            current, tile.grid, tile.level, tile.base_level, hyper, values, log_gain
        )
        close(current, Kind.REFINEMENT, LayerId.MID)
    elif levels.carried:
        values = codec.entropy.carry_over(values, tile.level, tile.base_level, log_gain)
    for layer in (LayerId.MID, LayerId.FULL):
        current = coder(steps, None, tile.level)
        values = codec.entropy.code_slices(current, tile.grid, tile.level, hyper, layer, values)
        close(current, Kind.LATENT, layer)
        close_layer(layer)
    return out


@torch.inference_mode()
def decode_values(
    model: Model, header: Header, labels: np.ndarray, levels: Levels, runs: Runs, layer: LayerId
) -> Tensor:
    """Decode the latent up to `layer` from the runs that are at hand.

    Args:
        labels: (rows, columns) group positions; positions without runs stay zero.
        runs: bytes by (kind, layer, group position, tile).  A group must have all of its runs up
            to `layer` in a tile, or none.

    Returns:
        (rows, columns, channels) in 1/16 steps of people's level, or of the base's for the base.

    Raises:
        FormatError: a run or its digest is wrong.
    """
    shape = model.codec.latent
    channels = sum(c for c, at in zip(shape.slices, shape.layers, strict=True) if at <= layer)
    out = torch.zeros(*labels.shape, channels)
    by_tile: dict[int, dict[tuple[Kind, LayerId, int, int], bytes]] = {}
    for key, data in runs.items():
        by_tile.setdefault(key[3], {})[key] = data
    for number, mine in sorted(by_tile.items()):
        where = tile_at(grid_of(labels), header.tile, number)
        out[where.slices] = decode_tile(model, header, labels, levels, mine, layer, number)
    return out


@torch.inference_mode()
def decode_tile(
    model: Model, header: Header, labels: np.ndarray, levels: Levels, runs: Runs, layer: LayerId,
    number: int,
) -> Tensor:  # fmt: skip
    """Decode one tile of the latent, as `decode_values` does all.

    Args:
        runs: of this tile alone, at least one.
        number: of the tile.

    Returns:
        (rows, columns, channels) of the tile, in steps as there.

    Raises:
        FormatError: a run or its digest is wrong.
    """
    where = tile_at(grid_of(labels), header.tile, number)
    groups = max(len(header.group_ids), header.map_labels)
    tile = _Tile(model, labels[where.slices], groups, levels)
    have = sorted({group for (_, _, group, _) in runs})
    values = _decode_tile(model, tile, levels, runs, layer, number, have)
    return values.reshape(where.rows, where.columns, -1)


def _decode_tile(
    model: Model, tile: _Tile, levels: Levels, runs: Runs, layer: LayerId, number: int,
    groups: list[int],
) -> Tensor:  # fmt: skip
    codec, shape = model.codec, model.codec.latent
    hashes = Digests(groups, number)

    def coder(kind: Kind, at: LayerId) -> DecodingCoder:
        parts = {g: runs[kind, at, g, number] for g in groups if (kind, at, g, number) in runs}
        return DecodingCoder(parts, tile.grid.size, model.tables, tile.hand, hashes.running)

    current = coder(Kind.LATENT, LayerId.BASE)
    hyper = codec.entropy.hyper_context(current.hyper(shape.hyper), tile.grid)
    nothing = torch.zeros(tile.grid.size, 0)
    values = codec.entropy.code_slices(
        current, tile.grid, tile.base_level, hyper, LayerId.BASE, nothing
    )
    current.finish()
    hashes.check(LayerId.BASE, runs)
    if layer == LayerId.BASE:
        return values
    log_gain = codec.gains.log_gain[:, : shape.base_channels]
    if levels.refined:
        current = coder(Kind.REFINEMENT, LayerId.MID)
        values = codec.entropy.code_refinement(
            current, tile.grid, tile.level, tile.base_level, hyper, values, log_gain
        )
        current.finish()
    elif levels.carried:
        values = codec.entropy.carry_over(values, tile.level, tile.base_level, log_gain)
    for at in (LayerId.MID, LayerId.FULL)[: int(layer)]:
        current = coder(Kind.LATENT, at)
        values = codec.entropy.code_slices(current, tile.grid, tile.level, hyper, at, values)
        current.finish()
        hashes.check(at, runs)
    return values


@torch.inference_mode()
def synthesise(
    model: Model, values: Tensor, level: Level, labels: np.ndarray, size: tuple[int, int], *,
    wanted: np.ndarray | None = None, onto: np.ndarray | None = None, mean: int = 1,
) -> np.ndarray:  # fmt: skip
    """Pixels of decoded values, in tiles where the picture is large, none larger than is needed.

    Args:
        values: (rows, columns, channels of a layer), in 1/16 steps of `level`.
        labels: (rows, columns) group positions.
        size: height and width of the picture, of means where these are wanted.
        wanted: (rows, columns) bool, the cells whose pixels are wanted; None for all.
        onto: (H, W, 3) uint8 that these are written to; None for black.
        mean: so many pixels a side, 1, 2, 4 or 8, become their mean.

    Returns:
        (H, W, 3) uint8: `onto`, where it is given.
    """
    out = np.zeros((*size, 3), np.uint8) if onto is None else onto
    there = np.ones(labels.shape, bool) if wanted is None else wanted
    for tile in tiles(grid_of(labels), tile_side(grid_of(labels))):
        where = bounds(there, tile)
        if where is None:
            continue
        rgb = _synthesise_piece(model, values, level, labels, where, mean)
        place = out[where.slices_of(CELL // mean)]
        rgb = rgb[: place.shape[0], : place.shape[1]]
        inside = there[where.slices]
        if inside.all():
            place[...] = rgb
        else:
            shown = as_pixels(inside, (rgb.shape[0], rgb.shape[1]), CELL // mean)
            np.copyto(place, rgb, where=shown[..., None])
    return out


def _synthesise_piece(
    model: Model, values: Tensor, level: Level, labels: np.ndarray, where: Rectangle, mean: int
) -> np.ndarray:
    """Pixels of whole cells, or means, (H, W, 3) uint8, out of theirs and a halo's values."""
    codec = model.codec
    around = expand(where, codec.transform.halo_cells, grid_of(labels))
    device = codec.synthesis.patch.weight.device
    geometry = GroupGeometry(labels[around.slices]).to(device)
    latent = codec.dequantise(values[around.slices][None], level).to(device)
    image = codec.synthesis(latent, geometry, mean)[0].cpu()
    image = image[(slice(None), *where.inside(around).slices_of(CELL // mean))]
    return torch.floor(image.clamp(0, 1) * 255 + 0.5).to(torch.uint8).permute(1, 2, 0).numpy()
