"""Which entries of a file serve a request: groups, layers, and the runs that must be there.

What holds for every profile; what the runs mean is the profile's.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from vcmcodec.bitstream.constants import MAX_GROUPS, WIDTHS, Kind, LayerId
from vcmcodec.bitstream.container import Container, Entry, Runs
from vcmcodec.bitstream.select import group_ids, several
from vcmcodec.edit import read_group_map
from vcmcodec.errors import FormatError, RequestError, TruncatedError

CODED = (Kind.LATENT, Kind.REFINEMENT, Kind.DIGEST)
MAX_LABELS = MAX_GROUPS + 1  # of a group map, "absent" counted


@dataclass(frozen=True)
class Choice:
    """What is decoded: the layer that each group (by position) is decoded to."""

    layers: dict[int, LayerId]
    entries: tuple[Entry, ...]


@dataclass(frozen=True)
class Fetched:
    """A choice that was read, and its bytes: all of its entries, the group map, what else is whole.

    Attributes:
        choice: what is decoded; all of its entries are in `data`.
        data: bytes of each entry, their CRC-32 checked.
    """

    choice: Choice
    data: dict[Entry, bytes]


class Parts:
    """Questions about the substreams of one file."""

    def __init__(self, container: Container) -> None:
        self._box = container

    def positions(self, groups: Sequence[str | int] | str | int | None) -> list[int]:
        """Positions of the groups asked for (labels or ids); of all, where nothing is asked."""
        ids = self._box.header.group_ids
        if groups is None:
            return list(range(len(ids)))
        return [ids.index(group) for group in group_ids(self._box.header, several(groups))]

    def top_layer(self, width: float | None = None) -> LayerId:
        """The layer that a width asks for, or the highest that is there.

        Raises:
            RequestError: no such width, or no base layer.
        """
        layers = [info.layer for info in self._box.header.layers]
        if LayerId.BASE not in layers or not self._box.find(Kind.LATENT, LayerId.BASE):
            raise RequestError("the file holds no base layer; merge it with the file that does")
        held = {e.layer for e in self._box.find(Kind.LATENT)}
        there = max(layer for layer in layers if set(range(layer + 1)) <= set(map(int, held)))
        if width is None:
            return there
        wanted = next((layer for layer, value in WIDTHS.items() if value == width), None)
        if wanted is None:
            raise RequestError(
                f"no width {width!r}; there are {', '.join(map(str, WIDTHS.values()))}"
            )
        if wanted > there:
            raise RequestError(f"the file holds widths up to {WIDTHS[there]:g} only")
        return wanted

    def choose(self, positions: list[int], top: LayerId) -> Choice:
        """How far each group can be decoded, and the entries that this takes.

        Raises:
            RequestError: nothing of these groups is there.
            TruncatedError: the file is cut off within the group map or the base layer.
        """
        box, ids = self._box, self._box.header.group_ids
        for entry in self.maps:
            if not box.is_whole(entry):
                raise _cut_off(entry)
        coded: dict[int, list[Entry]] = {}
        for entry in box.entries:
            if entry.kind in CODED:
                coded.setdefault(entry.group, []).append(entry)
        wanted, layers = [], {}
        for position in positions:
            mine = coded.get(ids[position], [])
            if not any(e.layer == LayerId.BASE and e.kind != Kind.DIGEST for e in mine):
                continue  # dropped on purpose: absent
            layers[position] = reached = self._reached(mine, top)
            wanted += [e for e in mine if e.layer <= reached and box.is_whole(e)]
        if not layers:
            names = ", ".join(str(ids[k]) for k in positions)
            raise RequestError(f"nothing of group {names} is in this file")
        return Choice(layers, tuple(wanted))

    def _reached(self, mine: Sequence[Entry], top: LayerId) -> LayerId:
        """The highest layer whose runs, and all below, are whole in the entries of one group."""
        reached = None
        for layer in range(top + 1):
            runs = [e for e in mine if e.layer == layer and e.kind != Kind.DIGEST]
            if not runs or not all(map(self._box.is_whole, runs)):
                break
            reached = LayerId(layer)
        if reached is None:
            runs = [e for e in mine if e.kind != Kind.DIGEST]
            raise _cut_off(next(e for e in runs if not self._box.is_whole(e)))
        return reached

    def fetch(self, positions: list[int], top: LayerId, more: Iterable[Entry] = ()) -> Fetched:
        """Read the group map, the runs that some groups are decoded from, and what else is whole.

        Args:
            positions: of the groups.
            top: the highest layer that is wanted.
            more: entries that are read as well, in the same read, where they are whole.

        Raises:
            RequestError: nothing of these groups is there.
            TruncatedError: the file is cut off within the group map or the base layer.
            FormatError: a substream is damaged.
        """
        hoped = self.choose(positions, top)
        data = self._box.fetch([*self.maps, *hoped.entries, *more], whole_only=True)
        # Where a source without a size ends, this very read may have been the first to tell.
        return Fetched(self.choose(positions, top), data)

    @property
    def maps(self) -> tuple[Entry, ...]:
        """The entry of the group map, if there is one."""
        return self._box.find(Kind.GROUP_MAP)

    def labels(self, data: Mapping[Entry, bytes]) -> np.ndarray:
        """Group position of each cell, (rows, columns), from what `maps` held.

        Raises:
            FormatError: the map is damaged.
        """
        shape = (self._box.header.cell_rows, self._box.header.cell_columns)
        if not self.maps:
            return np.zeros(shape, np.int64)
        flat = read_group_map(self._box, data[self.maps[0]])
        return np.array(flat, np.int64).reshape(shape)

    def check_runs(self, got: Fetched, labels: np.ndarray, refined: bool = False) -> None:
        """Hold the runs that were read of the groups against those that the norm asks for.

        A run that is not there would leave its cells at zero, and nobody would notice.

        Args:
            labels: (rows, columns) group positions on the grid of the latent.
            refined: whether the layer `mid` has refinements.

        Raises:
            FormatError: a run is missing or has no place.
        """
        from vcmcodec.profiles.tiles import grid_of, tile_numbers

        ids, layers = self._box.header.group_ids, got.choice.layers
        tile_of = tile_numbers(grid_of(labels), self._box.header.tile)
        there = np.isin(labels, list(layers))
        pairs = np.unique(tile_of[there] * MAX_LABELS + labels[there]).tolist()
        left = {
            (e.kind, int(e.layer), e.group, e.tile)
            for e in got.choice.entries
            if e.kind != Kind.DIGEST and e in got.data
        }
        for number, position in (divmod(pair, MAX_LABELS) for pair in pairs):
            top = layers[position]
            runs = [(Kind.LATENT, layer) for layer in range(top + 1)]
            if refined and top > LayerId.BASE:
                runs.append((Kind.REFINEMENT, LayerId.MID))
            for kind, layer in runs:
                run = (kind, layer, ids[position], number)
                if run not in left:
                    raise _misplaced(run, "is missing")
                left.remove(run)
        if left:
            raise _misplaced(min(left), "has no place")

    def runs(
        self,
        got: Fetched,
        layer: LayerId = LayerId.BASE,
        positions: Collection[int] | None = None,
    ) -> Runs:
        """What was read of a choice up to a layer, by kind, layer, group position and tile.

        Args:
            positions: only these groups; None for all of the choice.
        """
        position_of = {group: k for k, group in enumerate(self._box.header.group_ids)}
        wanted = got.choice.layers if positions is None else positions
        return {
            (Kind(e.kind), e.layer, position_of[e.group], e.tile): got.data[e]
            for e in got.choice.entries
            if position_of[e.group] in wanted and e.layer <= layer
        }


def _misplaced(run: tuple[int, int, int, int], state: str) -> FormatError:
    kind, layer, group, tile = run
    name = f"{Kind(kind).name.lower()} of layer {LayerId(layer).name.lower()}"
    return FormatError("directory", f"{name}, group {group}, tile {tile} {state}")


def _cut_off(entry: Entry) -> TruncatedError:
    place = "the group map" if entry.kind == Kind.GROUP_MAP else "the base layer"
    message = f"the file is cut off within {place}"
    return TruncatedError(entry.name, message, offset=entry.offset)
