"""What rivals reached, kept between runs: their code and these pictures do not change.

A key is a hash over the picture's pixels, the rival with all its settings, and the versions of
Pillow and of the library behind it, so a changed anything is another key.  A value is sizes and
metrics only; pictures and files are never kept.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import sys
import tempfile
from pathlib import Path

from vcmcodec.evaluation.rate_curve import Measurement
from vcmcodec.evaluation.rivals import Rival

# Raise it when a metric or the way it is computed changes.
METRICS_VERSION = 1


def default_path() -> Path:
    """Return the cache file of this user."""
    if sys.platform == "win32":
        base = Path(os.environ.get("LOCALAPPDATA", Path.home() / "AppData" / "Local"))
    else:
        base = Path(os.environ.get("XDG_CACHE_HOME", Path.home() / ".cache"))
    return base / "vcmcodec" / "rivals.json"


class RivalCache:
    """A table of past measurements of rivals in one JSON file; `path` None keeps nothing."""

    def __init__(self, path: Path | None) -> None:
        self.path = path
        self._new: dict[str, list[float | None]] = {}
        self._known = self._load()

    def _load(self) -> dict[str, list[float | None]]:
        # A cache is never worth an error: an unreadable one is an empty one.
        if self.path is None:
            return {}
        try:
            table = json.loads(self.path.read_text(encoding="utf-8"))
        except (OSError, ValueError):
            return {}
        return table if isinstance(table, dict) else {}

    @staticmethod
    def key(content_hash: str, rival: Rival, quality: float) -> str:
        """Return the key of one picture under one setting of one rival."""
        parts = (METRICS_VERSION, content_hash, rival.name, rival.version, rival.settings, quality)
        return hashlib.sha256(repr(parts).encode()).hexdigest()

    def get(self, key: str, codec: str, picture: str, quality: float) -> Measurement | None:
        """Return a kept measurement under the names given, or None."""
        value = self._new.get(key, self._known.get(key))
        if not isinstance(value, list) or len(value) != 4:
            return None
        num_bytes, bpp, psnr_db, ms_ssim = value
        if num_bytes is None or bpp is None or psnr_db is None:
            return None
        return Measurement(codec, picture, quality, int(num_bytes), bpp, psnr_db, ms_ssim)

    def put(self, key: str, measurement: Measurement) -> None:
        """Keep a measurement until `save`."""
        m = measurement
        self._new[key] = [m.num_bytes, m.bpp, m.psnr_db, m.ms_ssim]

    def save(self) -> None:
        """Merge what is new into the file, whole or not at all."""
        if self.path is None or not self._new:
            return
        table = {**self._load(), **self._new}
        # A read-only home is no reason to fail a measurement that is already made.
        with contextlib.suppress(OSError):
            self.path.parent.mkdir(parents=True, exist_ok=True)
            handle, name = tempfile.mkstemp(dir=self.path.parent, suffix=".tmp")
            with os.fdopen(handle, "w", encoding="utf-8") as sink:
                json.dump(table, sink)
            os.replace(name, self.path)
