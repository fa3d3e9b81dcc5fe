"""Which entries of a file serve a request: groups, layers, and the runs that must be there.

What holds for every profile; what the runs mean is the profile's.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from vcmcodec.bitstream.constants import WIDTHS, Kind, LayerId
from vcmcodec.bitstream.container import Container, Entry
from vcmcodec.bitstream.select import group_ids
from vcmcodec.edit import read_group_map
from vcmcodec.errors import FormatError, RequestError, TruncatedError

CODED = (Kind.LATENT, Kind.REFINEMENT, Kind.DIGEST)
Runs = dict[tuple[Kind, LayerId, int, int], bytes]  # (kind, layer, group position, tile)


@dataclass(frozen=True)
class Choice:
    """What is decoded: the layer that each group (by position) is decoded to."""

    layers: dict[int, LayerId]
    entries: tuple[Entry, ...]


class Parts:
    """Questions about the substreams of one file."""

    def __init__(self, container: Container) -> None:
        self._box = container

    def positions(self, groups: Sequence[str | int] | str | int | None) -> list[int]:
        """Positions of the groups asked for (labels or ids); of all, where nothing is asked."""
        ids = self._box.header.group_ids
        if groups is None:
            return list(range(len(ids)))
        asked = [groups] if isinstance(groups, str | int) else list(groups)
        return [ids.index(group) for group in group_ids(self._box.header, asked)]

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
        wanted = next((layer for layer, value in WIDTHS.items() if value == float(width)), None)
        if wanted is None:
            raise RequestError(
                f"no width {width}; there are {', '.join(map(str, WIDTHS.values()))}"
            )
        if wanted > there:
            raise RequestError(f"the file holds widths up to {WIDTHS[there]:g} only")
        return wanted

    def choose(self, positions: list[int], top: LayerId) -> Choice:
        """How far each group can be decoded, and the entries that this takes.

        Raises:
            RequestError: nothing of these groups is there.
            TruncatedError: the file is cut off within the base layer.
        """
        box = self._box
        ids = self._box.header.group_ids
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
        return Choice(layers, tuple(wanted))

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

    def check_runs(self, choice: Choice, labels: np.ndarray, refined: bool = False) -> None:
        """Hold the runs of the groups that are decoded against those that the norm asks for.

        A run that is not there would leave its cells at zero, and nobody would notice.

        Args:
            labels: (rows, columns) group positions on the grid of the latent.
            refined: whether the layer `mid` has refinements.

        Raises:
            FormatError: a run is missing or has no place.
        """
        from vcmcodec.profiles.tiles import grid_of, tiles

        ids = self._box.header.group_ids
        wanted: set[tuple[int, int, int, int]] = set()
        for number, where in enumerate(tiles(grid_of(labels), self._box.header.tile)):
            for position in set(np.unique(labels[where.slices]).tolist()) & set(choice.layers):
                top = choice.layers[position]
                runs = [(Kind.LATENT, layer) for layer in range(top + 1)]
                if refined and top > LayerId.BASE:
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

    def runs(
        self,
        choice: Choice,
        data: Mapping[Entry, bytes],
        layer: LayerId = LayerId.BASE,
        positions: Collection[int] | None = None,
    ) -> Runs:
        """What was fetched of a choice up to a layer, by kind, layer, group position and tile.

        Args:
            positions: only these groups; None for all of the choice.
        """
        position_of = {group: k for k, group in enumerate(self._box.header.group_ids)}
        wanted = choice.layers if positions is None else positions
        return {
            (Kind(e.kind), e.layer, position_of[e.group], e.tile): data[e]
            for e in choice.entries
            if position_of[e.group] in wanted and e.layer <= layer and e in data
        }
