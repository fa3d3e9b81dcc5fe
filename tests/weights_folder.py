"""A folder of weights in place of the installed ones, for as long as a fixture lives."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from vcmcodec import models


@contextmanager
def weights_from(folder: Path) -> Iterator[None]:
    """Load models from `folder` alone; none that was loaded before or inside is kept."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("VCMCODEC_WEIGHTS", str(folder))
        models._load.cache_clear()
        yield
    models._load.cache_clear()
