"""Decoding the symbols of a whole file only to see whether that works: `vcm verify --deep`."""

from __future__ import annotations

from collections.abc import Iterator

from vcmcodec import catalogue
from vcmcodec.bitstream.constants import Kind, LayerId
from vcmcodec.bitstream.container import Container, Entry
from vcmcodec.edit import read_group_map
from vcmcodec.errors import VcmError
from vcmcodec.models import load_model


def decode_symbols(container: Container) -> Iterator[tuple[Entry, VcmError]]:
    """Decode every run of a file, group by group; yield what fails, with the entry it fails at.

    A run can be decoded only with all runs below it, so of each group and tile the lowest layer
    that fails is named.  Runs without their base are not checked.

    Raises:
        WeightsError: the model is not there.
    """
    import numpy as np

    from vcmcodec.profiles import scene

    header = container.header
    model = load_model(catalogue.profile(header.profile).name, fingerprint=header.fingerprint)
    shape = (header.cell_rows, header.cell_columns)
    labels = np.zeros(shape, np.int64)
    for entry in container.find(Kind.GROUP_MAP):
        try:
            data = container.fetch([entry])[entry]
            labels = np.array(read_group_map(container, data), np.int64).reshape(shape)
        except VcmError as error:
            yield entry, error
            return
    rates = {info.layer: info.rate_level for info in header.layers}
    if LayerId.BASE not in rates:
        return
    levels = scene.Levels(rates[LayerId.BASE], rates.get(LayerId.MID))
    for position, group in enumerate(header.group_ids):
        for tile in range(header.tile_count):
            runs: dict[tuple[Kind, LayerId, int, int], bytes] = {}
            for layer in LayerId:
                entries = [
                    entry
                    for entry in container.find(layer=layer, group=group, tile=tile)
                    if entry.kind in (Kind.LATENT, Kind.REFINEMENT, Kind.DIGEST)
                ]
                if not any(entry.kind == Kind.LATENT for entry in entries):
                    break
                try:
                    data_of = container.fetch(entries)
                    for entry, data in data_of.items():
                        runs[Kind(entry.kind), layer, position, tile] = data
                    scene.decode_values(model, header, labels, levels, runs, layer)
                except VcmError as error:
                    yield next(e for e in entries if e.kind == Kind.LATENT), error
                    break
