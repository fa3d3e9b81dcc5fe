"""Decoding the symbols of a whole file only to see whether that works: `vcm verify --deep`."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING

from vcmcodec import catalogue
from vcmcodec.bitstream.constants import Kind, LayerId
from vcmcodec.bitstream.container import Container, Entry
from vcmcodec.edit import read_group_map
from vcmcodec.errors import VcmError
from vcmcodec.models import load_model
from vcmcodec.parts import CODED, Runs

if TYPE_CHECKING:
    import numpy as np

    from vcmcodec.bitstream.header import Header
    from vcmcodec.nn.model_tensors import Model

Check = Callable[[Runs, LayerId], None]


def decode_symbols(container: Container) -> Iterator[tuple[Entry, VcmError]]:
    """Decode every run of a file, group by group; yield what fails, with the entry it fails at.

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
    rates = {info.layer: info.rate_level for info in header.layers}
    if LayerId.BASE not in rates:
        return
    check = _picture_check if spec.source == "picture" else _feature_check
    decode = check(spec, model, header, labels)
    for position, group in enumerate(header.group_ids):
        for tile in range(header.tile_count):
            runs: Runs = {}
            for layer in LayerId:
                entries = [
                    entry
                    for entry in container.find(layer=layer, group=group, tile=tile)
                    if entry.kind in CODED
                ]
                if not any(entry.kind == Kind.LATENT for entry in entries):
                    break
                try:
                    for entry, data in container.fetch(entries).items():
                        runs[Kind(entry.kind), layer, position, tile] = data
                    decode(runs, layer)
                except VcmError as error:
                    yield next(e for e in entries if e.kind == Kind.LATENT), error
                    break


def _picture_check(
    spec: catalogue.ProfileSpec, model: Model, header: Header, labels: np.ndarray
) -> Check:
    """What decodes the runs of a picture up to a layer."""
    from vcmcodec.profiles import scene

    rates = {info.layer: info.rate_level for info in header.layers}
    levels = scene.Levels(rates[LayerId.BASE], rates.get(LayerId.MID))

    def decode(runs: Runs, layer: LayerId) -> None:
        scene.decode_values(model, header, labels, levels, runs, layer)

    return decode


def _feature_check(
    spec: catalogue.ProfileSpec, model: Model, header: Header, labels: np.ndarray
) -> Check:
    """What decodes the runs of features."""
    from vcmcodec.feature_parts import place_of

    module = spec.load()
    place = place_of(header, module, model, labels)
    level = next(info.rate_level for info in header.layers if info.layer == LayerId.BASE)

    def decode(runs: Runs, layer: LayerId) -> None:
        module.decode(model, place, level, runs, (), "cpu")

    return decode
