"""Every error this package raises on purpose.

    VcmError                        code, exit_code
    |-- FormatError                 the file is damaged: field, offset, stored, expected
    |   `-- TruncatedError          the file ends too early
    |-- UnsupportedError            a version, kind, profile or coder this program does not know
    |-- LimitError                  a size beyond a limit, with the option that raises it
    |-- WeightsError                no model for this file, or the wrong one
    |-- RequestError                the caller asked for something that is not there
    |   `-- PictureError            a picture, mask or box list that cannot be read
    `-- OutputError                 a result that cannot be written

Bad input never ends in any other exception.  `code` is stable and is what `--json` prints.

`VcmWarning` is no error: functions that return bare results give it to Python's `warnings`, those
that return a record have it there, and the command line tells it in its own way.
"""

from __future__ import annotations

import threading
import warnings
from collections.abc import Iterable
from typing import Any

# Filters of warnings belong to the whole process: whoever changes them or warns takes his turn, or
# one thread's picture would swallow what another thread is told.
WARNING_FILTERS = threading.RLock()


class VcmWarning(UserWarning):
    """What was lost, changed or found missing on the way to a result that is there nevertheless."""


def warn(notes: Iterable[str], stacklevel: int = 3) -> None:
    """Give each note to Python's `warnings`, as a `VcmWarning`.

    Args:
        notes: one sentence each.
        stacklevel: whose line is named; 3 is the caller of the function that calls this one.
    """
    with WARNING_FILTERS:
        for note in notes:
            warnings.warn(note, VcmWarning, stacklevel=stacklevel)


class VcmError(Exception):
    """Base of all errors of this package; its text is one line that a user can act on."""

    code = "error"


class FormatError(VcmError):
    """The file is damaged or was never legal.

    Attributes:
        field: name of the field in `formats/vcm-1.md`.
        offset: byte offset of that field in the file, or None where there is no one place.
        stored: what the file says.
        expected: what would have been right.
    """

    code = "corrupt"

    def __init__(
        self,
        field: str,
        message: str,
        *,
        offset: int | None = None,
        stored: Any = None,
        expected: Any = None,
    ) -> None:
        self.field, self.offset, self.stored, self.expected = field, offset, stored, expected
        text = f"{field}: {message}"
        if offset is not None:
            text += f" at byte {offset}"
        if stored is not None or expected is not None:
            text += f" (stored {stored}, expected {expected})"
        super().__init__(text)


class TruncatedError(FormatError):
    """The file ends before the bytes that are needed."""

    code = "truncated"


class UnsupportedError(VcmError):
    """The file uses a version, kind, profile or coder that this program does not know."""

    code = "unsupported"

    def __init__(self, what: str, found: Any, supported: Any) -> None:
        self.what, self.found, self.supported = what, found, supported
        super().__init__(f"{what} {found} is not supported (this program knows {supported})")


class LimitError(VcmError):
    """A size is beyond a limit that protects this machine; `option` raises the limit."""

    code = "limit"

    def __init__(self, what: str, value: int, limit: int, option: str | None = None) -> None:
        self.what, self.value, self.limit, self.option = what, value, limit, option
        text = f"{what}: {value:,} is more than the limit of {limit:,}"
        super().__init__(text + (f"; raise it with {option}" if option else ""))


class WeightsError(VcmError):
    """The model that a file needs is missing, damaged, or not the one that is at hand."""

    code = "weights"


class RequestError(VcmError):
    """The caller asked for a group, layer, task or setting that is not there."""

    code = "request"


class PictureError(RequestError):
    """A picture, mask or list of boxes cannot be read."""

    code = "picture"


class OutputError(VcmError):
    """A result cannot be written where it was asked for."""

    code = "output"
