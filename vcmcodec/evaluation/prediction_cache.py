"""What networks found in decoded pictures, kept between runs.

Coding 232 pictures at eight rates and two sizes with five codecs, and showing each to a network,
takes an hour; nothing of it changes until a version does.  Two tables in one SQLite file: what a
codec made of a picture (size of the file, hash of the decoded pixels), and what a network found
in such pixels.  Keys are hashes over everything that decides the value.  Pictures are not kept.
"""

from __future__ import annotations

import hashlib
import io
import json
import sqlite3
import zlib
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from vcmcodec.evaluation.metrics import Pixels
from vcmcodec.evaluation.rival_cache import default_path as rivals_path
from vcmcodec.vision.predictions import ClassScore, DetectedObject, LabelMap, Predictions

# Raise it when scaling before a codec, or the way predictions are made, changes.
VERSION = 1


def default_path() -> Path:
    """Return the cache file of this user."""
    return rivals_path().with_name("task-predictions.sqlite")


def pixel_hash(rgb: Pixels) -> str:
    """Hash of a picture's size and pixels."""
    digest = hashlib.sha256(repr(rgb.shape).encode())
    digest.update(np.ascontiguousarray(rgb).tobytes())
    return digest.hexdigest()


def key(*parts: Any) -> str:
    """Key over everything that decides a value."""
    return hashlib.sha256(repr((VERSION, *parts)).encode()).hexdigest()


class PredictionCache:
    """The two tables; `path` None keeps nothing.  Never worth an error: what fails is a miss."""

    def __init__(self, path: Path | None) -> None:
        self._store: sqlite3.Connection | None = None
        if path is None:
            return
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            self._store = sqlite3.connect(path, timeout=30.0)
            self._store.execute(
                "CREATE TABLE IF NOT EXISTS kept (key TEXT PRIMARY KEY, value BLOB)"
            )
            self._store.commit()
        except (OSError, sqlite3.Error):
            self.close()

    def coded(self, key: str) -> tuple[int, str] | None:
        """(bytes of the file, hash of the decoded pixels) of a coded picture, or None."""
        value = self._get(key)
        if value is None:
            return None
        try:
            num_bytes, decoded = json.loads(value)
            return int(num_bytes), str(decoded)
        except (ValueError, TypeError):
            return None

    def put_coded(self, key: str, num_bytes: int, decoded: str) -> None:
        """Keep what `coded` gives."""
        self._put(key, json.dumps([num_bytes, decoded]).encode())

    def predictions(self, key: str) -> Predictions | None:
        """What a network found, or None."""
        value = self._get(key)
        if value is None:
            return None
        try:
            return unpack(value)
        except (ValueError, KeyError, TypeError, OSError, zlib.error):
            return None

    def put_predictions(self, key: str, predictions: Predictions) -> None:
        """Keep what `predictions` gives."""
        self._put(key, pack(predictions))

    def close(self) -> None:
        """Write what is new and let go of the file."""
        store, self._store = self._store, None
        if store is not None:
            try:
                store.commit()
            except sqlite3.Error:
                pass
            finally:
                store.close()

    def _get(self, key: str) -> bytes | None:
        if self._store is None:
            return None
        try:
            row = self._store.execute("SELECT value FROM kept WHERE key = ?", (key,)).fetchone()
        except sqlite3.Error:
            return None
        return bytes(row[0]) if row is not None else None

    def _put(self, key: str, value: bytes) -> None:
        if self._store is None:
            return
        try:
            self._store.execute("INSERT OR REPLACE INTO kept VALUES (?, ?)", (key, value))
            self._store.commit()  # at once: other processes wait for the file otherwise
        except sqlite3.Error:
            self.close()  # a full disk or a read-only home: go on without


def pack(predictions: Predictions) -> bytes:
    """Predictions as bytes; positions and scores are kept exactly."""
    facts: dict[str, Any] = {"size": [predictions.height, predictions.width]}
    if predictions.objects is not None:
        facts["objects"] = [[o.label, o.score, *o.box] for o in predictions.objects]
    if predictions.classes is not None:
        facts["classes"] = [[c.label, c.score] for c in predictions.classes]
    picture = b""
    if predictions.label_map is not None:
        facts["names"] = list(predictions.label_map.names)
        sink = io.BytesIO()
        Image.fromarray(predictions.label_map.labels).save(sink, "PNG")
        picture = sink.getvalue()
    head = zlib.compress(json.dumps(facts).encode())
    return len(head).to_bytes(4, "little") + head + picture


def unpack(data: bytes) -> Predictions:
    """The inverse of `pack`.

    Raises:
        ValueError, KeyError, TypeError, OSError, zlib.error: these are no such bytes.
    """
    size = int.from_bytes(data[:4], "little")
    facts = json.loads(zlib.decompress(data[4 : 4 + size]))
    objects = classes = label_map = None
    if "objects" in facts:
        objects = tuple(
            DetectedObject(label, score, (x, y, w, h))
            for label, score, x, y, w, h in facts["objects"]
        )
    if "classes" in facts:
        classes = tuple(ClassScore(label, score) for label, score in facts["classes"])
    if "names" in facts:
        with Image.open(io.BytesIO(data[4 + size :])) as image:
            label_map = LabelMap(np.array(image.convert("L"), np.uint8), tuple(facts["names"]))
    height, width = facts["size"]
    return Predictions(height, width, objects, classes, label_map)
