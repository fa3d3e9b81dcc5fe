"""Limits that protect a reader from what a file asks for (norm §7.3)."""

from __future__ import annotations

from dataclasses import dataclass

from vcmcodec.errors import LimitError

_WORDS = {
    "max_pixels": "pixels",
    "max_groups": "groups",
    "max_header_bytes": "header bytes",
    "max_substream_bytes": "bytes of a substream",
}


@dataclass(frozen=True, slots=True)
class Limits:
    """The most that a reader accepts; each field is raised by the option of the same name."""

    max_pixels: int = 2**28
    max_groups: int = 256
    max_header_bytes: int = 2**20
    max_substream_bytes: int = 2**28

    def check(self, name: str, value: int) -> None:
        """Compare `value` with the limit called `name`.

        Raises:
            LimitError: `value` is more; the error names the option, such as `--max-pixels`.
        """
        limit: int = getattr(self, name)
        if value > limit:
            raise LimitError(_WORDS[name], value, limit, "--" + name.replace("_", "-"))
