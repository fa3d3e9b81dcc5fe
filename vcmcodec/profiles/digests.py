"""Hashes of symbols, which tell whether a decoder has found the encoder's (norm §5.4)."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable

import numpy as np

from vcmcodec.bitstream.constants import DIGEST_BYTES, Kind, LayerId
from vcmcodec.bitstream.container import Runs, Substream
from vcmcodec.errors import FormatError


class Digests:
    """One hash for each group, of the layer and tile that are being coded.

    Attributes:
        running: by group position; coders update them with the symbols in their order.
    """

    def __init__(self, groups: Iterable[int], tile: int = 0) -> None:
        """Take the groups that have symbols in a tile."""
        self._groups, self._tile = tuple(groups), tile
        self._begin()

    def _begin(self) -> None:
        self.running = {group: hashlib.sha256() for group in self._groups}

    def add(self, group: int, symbols: Iterable[np.ndarray]) -> None:
        """Update a group's hash with arrays of integers, one after the other."""
        for one in symbols:
            self.running[group].update(one.astype("<i4").tobytes())

    def close(self, layer: LayerId) -> list[Substream]:
        """The digests of a layer that has been encoded; the next layer begins."""
        found = [
            Substream(Kind.DIGEST, layer, group, mark.digest()[:DIGEST_BYTES], self._tile)
            for group, mark in self.running.items()
        ]
        self._begin()
        return found

    def check(self, layer: LayerId, runs: Runs) -> None:
        """Compare with those that a file has for a layer that was decoded; the next layer begins.

        Raises:
            FormatError: the symbols are not the encoder's.
        """
        for group, mark in self.running.items():
            stored = runs.get((Kind.DIGEST, layer, group, self._tile))
            found = mark.digest()[:DIGEST_BYTES]
            if stored is not None and stored != found:
                raise FormatError(
                    "digest", f"the symbols of layer {layer.name.lower()} are not the encoder's",
                    stored=stored.hex(), expected=found.hex(),
                )  # fmt: skip
        self._begin()
