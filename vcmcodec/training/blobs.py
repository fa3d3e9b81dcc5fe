"""Many small arrays in one file, read back as views: the cache that training reads from.

`NAME.bin` holds the arrays one after another, `NAME.json` says where each one is.  A reader maps
the file, so that several processes share one copy in memory and a start costs nothing.
"""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from pathlib import Path

import numpy as np

from vcmcodec.errors import RequestError

ALIGN = 64


class BlobWriter:
    """Appends records of named arrays; the file counts as whole only after `close`."""

    def __init__(self, path: Path) -> None:
        path.parent.mkdir(parents=True, exist_ok=True)
        self._path = path
        self._data = open(path.with_suffix(".bin.part"), "wb")  # noqa: SIM115 - closed in close()
        self._index: dict[str, dict[str, tuple[int, str, list[int]]]] = {}

    def add(self, key: str, arrays: Mapping[str, np.ndarray]) -> None:
        """Write one record."""
        entry: dict[str, tuple[int, str, list[int]]] = {}
        for name, array in arrays.items():
            self._data.write(b"\0" * (-self._data.tell() % ALIGN))
            entry[name] = (self._data.tell(), array.dtype.str, list(array.shape))
            self._data.write(np.ascontiguousarray(array).tobytes())
        self._index[key] = entry

    def close(self) -> None:
        """Finish: only now do the two files carry their final names."""
        self._data.close()
        os.replace(self._path.with_suffix(".bin.part"), self._path.with_suffix(".bin"))
        part = self._path.with_suffix(".json.part")
        part.write_text(json.dumps(self._index))
        os.replace(part, self._path.with_suffix(".json"))


class BlobReader:
    """Records written by `BlobWriter`."""

    def __init__(self, path: Path) -> None:
        if not path.with_suffix(".json").exists():
            raise RequestError(f"no cache at {path}: build it first")
        self._index = json.loads(path.with_suffix(".json").read_text())
        self._data = np.memmap(path.with_suffix(".bin"), dtype=np.uint8, mode="r")

    def __len__(self) -> int:
        return len(self._index)

    def __contains__(self, key: str) -> bool:
        return key in self._index

    def keys(self) -> list[str]:
        """Names of all records, in the order in which they were written."""
        return list(self._index)

    def names(self, key: str) -> list[str]:
        """Names of the arrays of one record."""
        return list(self._index[key])

    def get(self, key: str, name: str) -> np.ndarray:
        """One array, a read-only view of the file."""
        offset, kind, shape = self._index[key][name]
        dtype = np.dtype(kind)
        size = int(np.prod(shape)) * dtype.itemsize
        return self._data[offset : offset + size].view(dtype).reshape(shape)
