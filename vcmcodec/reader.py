"""Reading a `.vcm` file: what is in it, and the picture or any part of it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from types import TracebackType
from typing import TYPE_CHECKING

import numpy as np
from PIL import Image

from vcmcodec import catalogue, pixels
from vcmcodec.bitstream import icc
from vcmcodec.bitstream.constants import WIDTHS, Kind, LayerId
from vcmcodec.bitstream.container import Container, Entry
from vcmcodec.bitstream.describe import Description, describe
from vcmcodec.bitstream.header import Group, Header
from vcmcodec.bitstream.limits import Limits
from vcmcodec.bitstream.select import group_ids
from vcmcodec.edit import read_group_map
from vcmcodec.errors import FormatError, RequestError, TruncatedError
from vcmcodec.models import load_model
from vcmcodec.sources import CountingSource, Openable, open_source

if TYPE_CHECKING:
    from torch import Tensor

    from vcmcodec.nn.gain import Level
    from vcmcodec.nn.model_tensors import Model
    from vcmcodec.profiles import scene

CODED = (Kind.LATENT, Kind.REFINEMENT, Kind.DIGEST)
TRANSPARENT = "transparent"


@dataclass(frozen=True)
class Decoded:
    """A picture, or what was asked for of it.

    Attributes:
        image: RGB or grey; with alpha where cells are absent and the background is transparent.
        layer: the highest layer that all of it comes from.
        groups: ids of the groups that it shows.
        absent: share of the picture's pixels that nothing was decoded for.
        warnings: one sentence each.
    """

    image: Image.Image
    layer: LayerId
    groups: tuple[int, ...]
    absent: float
    warnings: tuple[str, ...]


@dataclass(frozen=True)
class _Choice:
    """What is decoded: the layer that each group (by position) is decoded to."""

    layers: dict[int, LayerId]
    entries: tuple[Entry, ...]


@dataclass(frozen=True, eq=False)
class BaseLatent:
    """What machines read of a file.

    Attributes:
        latent: (rows, columns, base channels) float32, dequantised; zero where nothing was decoded.
        level: the rate level that it was coded at.
        present: (rows, columns) bool, the cells of the groups that were decoded.
        groups: ids of those groups.
    """

    latent: Tensor
    level: Level
    present: np.ndarray
    groups: tuple[int, ...]


@dataclass(frozen=True, eq=False)
class _Fetched:
    """Bytes of the chosen entries, and what it takes to decode them."""

    data: dict[Entry, bytes]
    labels: np.ndarray
    levels: scene.Levels
    model: Model


class Reader:
    """A file whose header has been read; the rest is read when it is asked for.

    Args:
        source: path, bytes, binary file object, or an object with `get_bytes(offset, length)`.

    Raises:
        VcmError: see `Container.read`.
    """

    def __init__(self, source: Openable, limits: Limits | None = None) -> None:
        self._source = CountingSource(open_source(source))
        self._notes: tuple[str, ...] = ()
        try:
            self.container = Container.read(self._source, limits)
        except BaseException:
            self.close()
            raise

    @property
    def header(self) -> Header:
        """Everything that the file says of itself."""
        return self.container.header

    @property
    def size(self) -> int:
        """Bytes of the whole file, as its directory says."""
        return self.container.size

    @property
    def bytes_read(self) -> int:
        """Bytes that were asked of the source so far."""
        return self._source.bytes_read

    @property
    def warnings(self) -> tuple[str, ...]:
        """What is wrong with the file, or was with the last decoding, one sentence each."""
        return self.container.warnings + self._notes

    @property
    def groups(self) -> tuple[Group, ...]:
        """Groups of the file; empty where it has one group and no map."""
        return self.header.groups

    @property
    def layers(self) -> tuple[str, ...]:
        """Names of the layers, base first."""
        return tuple(info.layer.name.lower() for info in self.header.layers)

    @property
    def tasks(self) -> tuple[str, ...]:
        """Names of the tasks that the file was written for."""
        known = {int(spec.id): spec.name for spec in catalogue.TASKS}
        return tuple(known[info.task] for info in self.header.tasks if info.task in known)

    def describe(self) -> Description:
        """Everything that `vcm info` shows."""
        return describe(self.container)

    def close(self) -> None:
        """Close the file, if it was opened here."""
        self._source.close()

    def __enter__(self) -> Reader:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:  # fmt: skip
        self.close()

    # ---- decoding

    def decode(
        self,
        *,
        groups: Sequence[str | int] | str | int | None = None,
        width: float | None = None,
        background: str | tuple[int, int, int] | None = None,
        device: str = "cpu",
    ) -> Image.Image:
        """Decode the picture, or the groups and width of it that are asked for (see `inspect`)."""
        decoded = self.inspect(groups=groups, width=width, background=background, device=device)
        return decoded.image

    def inspect(
        self,
        *,
        groups: Sequence[str | int] | str | int | None = None,
        width: float | None = None,
        background: str | tuple[int, int, int] | None = None,
        device: str = "cpu",
    ) -> Decoded:
        """Decode, and say what was decoded.

        Args:
            groups: labels or ids; None for all that are there.
            width: 0.25, 0.5 or 1; None for the widest that is there.
            background: colour of cells that are not decoded, or "transparent" (the default).
            device: where the synthesis runs.

        Raises:
            RequestError: no such group or width, or no base layer in the file.
            TruncatedError: the file is cut off within the base layer.
            FormatError: a substream is damaged.
            WeightsError: the model is not there.
        """
        from vcmcodec.profiles import scene

        header = self.header
        colour = None
        if background is not None and background != TRANSPARENT:
            colour = pixels.parse_colour(background)
        top = self._top_layer(width)
        choice = self._choose(self._positions(groups), top)
        profiles = self.container.find(Kind.ICC)[:1] if top > LayerId.BASE else ()
        got = self._fetch(choice, profiles, device)
        data, labels, model = got.data, got.labels, got.model
        rgb = np.zeros((header.height, header.width, 3), np.uint8)
        there = np.zeros(labels.shape, bool)
        for layer in sorted(set(choice.layers.values())):
            chosen = {k for k, at in choice.layers.items() if at == layer}
            values, level = self._values(got, choice, layer, chosen)
            shown = scene.synthesise(model, values, level, labels, (header.height, header.width))
            inside = np.isin(labels, list(chosen))
            there |= inside
            if inside.all():
                rgb = shown
            else:
                mask = _pixels(inside, header)
                rgb[mask] = shown[mask]
        notes = []
        least = min(choice.layers.values())
        if least < top:
            notes.append(f"some groups are there up to layer {least.name.lower()} only")
        self._notes = tuple(notes)
        profile_data = data.get(profiles[0]) if profiles else None
        kept = None if profile_data is None else icc.expand(profile_data)
        image, absent = _finish(rgb, there, header, kept, colour)
        ids = tuple(header.group_ids[k] for k in sorted(choice.layers))
        return Decoded(image, least, ids, absent, self.warnings)

    def latent(
        self, *, groups: Sequence[str | int] | str | int | None = None, device: str = "cpu"
    ) -> BaseLatent:
        """Decode what machines read: the base layer's latent, and no pixel of it.

        Args:
            groups: labels or ids; None for all that are there.
            device: of the result.

        Raises:
            VcmError: as `inspect`.
        """
        choice = self._choose(self._positions(groups), self._top_layer(WIDTHS[LayerId.BASE]))
        got = self._fetch(choice, (), device)
        values, level = self._values(got, choice, LayerId.BASE, set(choice.layers))
        ids = tuple(self.header.group_ids[k] for k in sorted(choice.layers))
        present = np.isin(got.labels, list(choice.layers))
        return BaseLatent(got.model.codec.dequantise(values, level).to(device), level, present, ids)

    def _fetch(self, choice: _Choice, more: tuple[Entry, ...], device: str) -> _Fetched:
        """Read the group map, the chosen runs and `more`, and what it takes to decode them."""
        from vcmcodec.profiles import scene

        header = self.header
        profile = catalogue.profile(header.profile)
        maps = self.container.find(Kind.GROUP_MAP)
        data = self.container.fetch([*maps, *choice.entries, *more], whole_only=True)
        labels = self._labels(data[maps[0]] if maps else None)
        rates = {info.layer: info.rate_level for info in header.layers}
        levels = scene.Levels(rates[LayerId.BASE], rates.get(LayerId.MID))
        self._check_runs(choice, labels, levels)
        model = load_model(profile.name, fingerprint=header.fingerprint, device=device)
        return _Fetched(data, labels, levels, model)

    def _values(
        self, got: _Fetched, choice: _Choice, layer: LayerId, chosen: set[int]
    ) -> tuple[Tensor, Level]:
        """Latent of some group positions up to a layer, in 1/16 steps of the level beside it."""
        from vcmcodec.profiles import scene

        position_of = {group: k for k, group in enumerate(self.header.group_ids)}
        runs = {
            (Kind(e.kind), e.layer, position_of[e.group], e.tile): got.data[e]
            for e in choice.entries
            if position_of[e.group] in chosen and e.layer <= layer and e in got.data
        }
        values = scene.decode_values(got.model, self.header, got.labels, got.levels, runs, layer)
        return values, got.levels.at(layer, got.model.codec.latent.levels)

    def _positions(self, groups: Sequence[str | int] | str | int | None) -> list[int]:
        """Positions of the groups asked for; of all, where nothing is asked."""
        ids = self.header.group_ids
        if groups is None:
            return list(range(len(ids)))
        asked = [groups] if isinstance(groups, str | int) else list(groups)
        return [ids.index(group) for group in group_ids(self.header, asked)]

    def _top_layer(self, width: float | None) -> LayerId:
        layers = [info.layer for info in self.header.layers]
        if LayerId.BASE not in layers or not self.container.find(Kind.LATENT, LayerId.BASE):
            raise RequestError("the file holds no base layer; merge it with the file that does")
        held = {e.layer for e in self.container.find(Kind.LATENT)}
        there = max(layer for layer in layers if set(range(layer + 1)) <= set(map(int, held)))
        if width is None:
            return there
        wanted = next((layer for layer, value in WIDTHS.items() if value == float(width)), None)
        if wanted is None:
            raise RequestError(
                f"no width {width}; there are {', '.join(map(str, WIDTHS.values()))}"
            )
        if wanted > there:
            raise RequestError(f"the file holds widths up to {WIDTHS[there]:g} only")
        return wanted

    def _choose(self, positions: list[int], top: LayerId) -> _Choice:
        """How far each group can be decoded, and the entries that this takes."""
        box = self.container
        ids = self.header.group_ids
        wanted, layers = [], {}
        for position in positions:
            mine = [e for e in box.entries if e.group == ids[position] and e.kind in CODED]
            coded = [e for e in mine if e.kind != Kind.DIGEST]
            if not any(e.layer == LayerId.BASE for e in coded):
                continue  # dropped on purpose: absent
            reached = None
            for layer in range(top + 1):
                parts = [e for e in coded if e.layer == layer]
                if not parts or not all(map(box.is_whole, parts)):
                    break
                reached = LayerId(layer)
            if reached is None:
                entry = next(e for e in coded if not box.is_whole(e))
                raise TruncatedError(
                    entry.name, "the file is cut off within the base layer", offset=entry.offset
                )
            layers[position] = reached
            wanted += [e for e in mine if e.layer <= reached and box.is_whole(e)]
        if not layers:
            names = ", ".join(str(ids[k]) for k in positions)
            raise RequestError(f"nothing of group {names} is in this file")
        return _Choice(layers, tuple(wanted))

    def _labels(self, data: bytes | None) -> np.ndarray:
        shape = (self.header.cell_rows, self.header.cell_columns)
        if data is None:
            return np.zeros(shape, np.int64)
        return np.array(read_group_map(self.container, data), np.int64).reshape(shape)

    def _check_runs(self, choice: _Choice, labels: np.ndarray, levels: scene.Levels) -> None:
        """Hold the runs of the groups that are decoded against those that the norm asks for.

        A run that is not there would leave its cells at zero, and nobody would notice.
        """
        from vcmcodec.profiles.tiles import grid_of, tiles

        ids = self.header.group_ids
        wanted: set[tuple[int, int, int, int]] = set()
        for number, where in enumerate(tiles(grid_of(labels), self.header.tile)):
            for position in set(np.unique(labels[where.slices]).tolist()) & set(choice.layers):
                top = choice.layers[position]
                runs = [(Kind.LATENT, layer) for layer in range(top + 1)]
                if levels.refined and top > LayerId.BASE:
                    runs.append((Kind.REFINEMENT, LayerId.MID))
                wanted |= {(kind, layer, ids[position], number) for kind, layer in runs}
        found = {
            (e.kind, int(e.layer), e.group, e.tile) for e in choice.entries if e.kind != Kind.DIGEST
        }
        for kind, layer, group, tile in sorted(wanted ^ found):
            state = "is missing" if (kind, layer, group, tile) in wanted else "has no place"
            raise FormatError(
                "directory",
                f"{Kind(kind).name.lower()} of layer {LayerId(layer).name.lower()},"
                f" group {group}, tile {tile} {state}",
            )


def _pixels(cells: np.ndarray, header: Header) -> np.ndarray:
    """A mask of cells as a mask of pixels, (H, W)."""
    wide = cells.repeat(16, 0).repeat(16, 1)
    return np.asarray(wide[: header.height, : header.width])


def _finish(
    rgb: np.ndarray, there: np.ndarray, header: Header, icc_profile: bytes | None,
    colour: tuple[int, int, int] | None,
) -> tuple[Image.Image, float]:  # fmt: skip
    """Background or alpha where nothing was decoded; the picture and the share of such pixels."""
    if there.all():
        return pixels.to_image(rgb, header.grey, icc_profile), 0.0
    mask = _pixels(there, header)
    absent = 1 - float(mask.mean())
    if colour is None:
        rgb[~mask] = 0
        alpha = np.where(mask, 255, 0).astype(np.uint8)
        return pixels.to_image(rgb, header.grey, icc_profile, alpha), absent
    rgb[~mask] = colour
    grey = header.grey and len(set(colour)) == 1
    return pixels.to_image(rgb, grey, icc_profile), absent
