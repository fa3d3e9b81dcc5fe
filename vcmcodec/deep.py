"""Decoding the symbols of a whole file only to see whether that works: `vcm verify --deep`."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from itertools import takewhile
from typing import TYPE_CHECKING

from vcmcodec import catalogue
from vcmcodec.bitstream.constants import Kind, LayerId
from vcmcodec.bitstream.container import Container, Entry, RunKey, Runs
from vcmcodec.edit import read_group_map
from vcmcodec.errors import VcmError
from vcmcodec.models import load_model
from vcmcodec.parts import CODED
from vcmcodec.torch_state import plain_torch

if TYPE_CHECKING:
    import numpy as np

    from vcmcodec.bitstream.header import Header
    from vcmcodec.nn.model_tensors import Model

Check = Callable[[Runs, LayerId, int], None]  # runs of one tile up to a layer, the tile's number


@dataclass(frozen=True)
class _Stack:
    """What one group has in one tile, from the base up to the highest layer without a gap.

    Attributes:
        latents: entry of each layer's latent, base first.
        runs: bytes of all these layers.
    """

    latents: tuple[Entry, ...]
    runs: Runs

    @property
    def top(self) -> LayerId:
        return LayerId(len(self.latents) - 1)


def decode_symbols(container: Container) -> Iterator[tuple[Entry, VcmError]]:
    """Decode every run of a file; yield what fails, with the entry it fails at.

    A run can be decoded only with all runs below it, so of each group and tile the lowest layer
    that fails is named.  Runs without their base are not checked.

    Raises:
        WeightsError: the model is not there.
    """
    import numpy as np

    header = container.header
    spec = catalogue.profile(header.profile)
    model = load_model(spec.name, fingerprint=header.fingerprint)
    labels = np.zeros((header.cell_rows, header.cell_columns), np.int64)
    for entry in container.find(Kind.GROUP_MAP):
        try:
            data = container.fetch([entry])[entry]
            labels = np.array(read_group_map(container, data), np.int64).reshape(labels.shape)
        except VcmError as error:
            yield entry, error
            return
    if LayerId.BASE not in {info.layer for info in header.layers}:
        return
    check = _picture_check if spec.source == "picture" else _feature_check
    decode = check(spec, model, header, labels)
    # By the entries that there are: a header of a few bytes can announce millions of tiles.
    for tile, groups in _by_tile(container).items():
        stacks: list[_Stack] = []
        for position, layers in groups.items():
            stack, error_at = _fetch(container, position, layers)
            stacks += [stack] if stack.latents else []
            if error_at:
                yield error_at
        for top in LayerId:
            yield from _wrong(decode, [stack for stack in stacks if stack.top == top], tile)


def _by_tile(container: Container) -> dict[int, dict[int, dict[LayerId, list[Entry]]]]:
    """Entries of coded symbols by tile, group position and layer."""
    position_of = {group: k for k, group in enumerate(container.header.group_ids)}
    found: dict[int, dict[int, dict[LayerId, list[Entry]]]] = {}
    for entry in container.entries:
        if entry.kind in CODED:
            groups = found.setdefault(entry.tile, {})
            layers = groups.setdefault(position_of[entry.group], {})
            layers.setdefault(entry.layer, []).append(entry)
    return found


def _fetch(
    container: Container, position: int, layers: dict[LayerId, list[Entry]]
) -> tuple[_Stack, tuple[Entry, VcmError] | None]:
    """Read what one group has in one tile, up to what cannot be read."""
    latents: list[Entry] = []
    runs: dict[RunKey, bytes] = {}
    held = ({Kind(entry.kind): entry for entry in layers.get(at, ())} for at in LayerId)
    for entries in takewhile(lambda entries: Kind.LATENT in entries, held):
        latent = entries[Kind.LATENT]
        try:
            found = container.fetch(entries.values())
        except VcmError as error:
            return _Stack(tuple(latents), runs), (latent, error)
        runs |= {(Kind(e.kind), e.layer, position, e.tile): data for e, data in found.items()}
        latents.append(latent)
    return _Stack(tuple(latents), runs), None


def _wrong(decode: Check, stacks: Sequence[_Stack], tile: int) -> Iterator[tuple[Entry, VcmError]]:
    """Decode stacks of equal height; yield what fails.

    The networks run over a whole tile however few groups are decoded, so all are decoded at once,
    and where that fails, one half after the other.
    """
    if not stacks:
        return
    runs = {key: data for stack in stacks for key, data in stack.runs.items()}
    try:
        decode(runs, stacks[0].top, tile)
    except VcmError as error:
        if len(stacks) == 1:
            yield _lowest(decode, stacks[0], tile) or (stacks[0].latents[-1], error)
            return
        middle = len(stacks) // 2
        yield from _wrong(decode, stacks[:middle], tile)
        yield from _wrong(decode, stacks[middle:], tile)


def _lowest(decode: Check, stack: _Stack, tile: int) -> tuple[Entry, VcmError] | None:
    """The first layer below the top that fails, and how."""
    for latent in stack.latents[:-1]:
        runs = {key: data for key, data in stack.runs.items() if key[1] <= latent.layer}
        try:
            decode(runs, latent.layer, tile)
        except VcmError as error:
            return latent, error
    return None


def _picture_check(
    spec: catalogue.ProfileSpec, model: Model, header: Header, labels: np.ndarray
) -> Check:
    """What decodes the runs of a tile of a picture up to a layer."""
    from vcmcodec.profiles import scene

    rates = {info.layer: info.rate_level for info in header.layers}
    levels = scene.Levels(rates[LayerId.BASE], rates.get(LayerId.MID))

    @plain_torch()
    def decode(runs: Runs, layer: LayerId, tile: int) -> None:
        scene.decode_tile(model, header, labels, levels, runs, layer, tile)

    return decode


def _feature_check(
    spec: catalogue.ProfileSpec, model: Model, header: Header, labels: np.ndarray
) -> Check:
    """What decodes the runs of features, which are never tiled."""
    from vcmcodec.feature_parts import place_of

    module = spec.load()
    place = place_of(header, module, model, labels)
    level = next(info.rate_level for info in header.layers if info.layer == LayerId.BASE)

    @plain_torch()
    def decode(runs: Runs, layer: LayerId, tile: int) -> None:
        module.decode(model, place, level, runs, (), "cpu")

    return decode
