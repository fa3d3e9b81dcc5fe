"""The range coder of PyPI's `range-coder` behind a safe door (norm: "Entropy coding", range coder).

For small side streams: group maps, static tables of one channel.  Its compiled module works on
files and checks little: a negative symbol reads out of bounds, a table of zeros divides by zero, a
total above 2**24 hangs, a decoder takes at most 1024 symbols and reads 0xFF for ever behind the
end.  So every symbol, table and total is checked here, and the file is a hidden one: in memory
where the system has that, else in a private temporary folder.

A decoder cannot know that it is out of step.  Whoever reads with one codes what it read again and
compares (`static`, `group_map`): one text has exactly one legal coding.

Knows no numpy.
"""

from __future__ import annotations

import contextlib
import itertools
import os
import tempfile
import weakref
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from vcmcodec.entropy import extension
from vcmcodec.errors import OutputError, RequestError

LARGEST_TOTAL = 1 << 24  # the range may be as small as this
LARGEST_TABLE = 1024  # symbols; the module's decoder has room for no more

_FINISHED = "the range encoder is finished"


def _module() -> Any:
    return extension.load("range_coder", "_range_coder")


@contextlib.contextmanager
def _hidden_file() -> Iterator[Path]:
    """The path of an empty file that nobody else sees and that leaves no trace."""
    if hasattr(os, "memfd_create"):
        descriptor = os.memfd_create("range-coder")
        try:
            path = Path(f"/proc/self/fd/{descriptor}")
            if path.exists():
                yield path
                return
        finally:
            os.close(descriptor)
    try:
        folder = tempfile.TemporaryDirectory(prefix="range-coder-")
    except OSError as error:
        raise OutputError(f"no temporary folder for the range coder: {error}") from error
    with folder as name:
        yield Path(name, "stream")


def check_table(cumulative: Sequence[int]) -> list[int]:
    """Return the table as a list of ints, if both coders can live with it.

    Raises:
        RequestError: it does not rise strictly from 0, or is too long or too large.
    """
    table = list(cumulative)
    if not 2 <= len(table) <= LARGEST_TABLE + 1 or table[0] != 0 or table[-1] > LARGEST_TOTAL:
        raise RequestError(
            f"a range coder table has 1 to {LARGEST_TABLE} symbols, "
            f"starts at 0 and ends at {LARGEST_TOTAL} or below"
        )
    if any(low >= high for low, high in itertools.pairwise(table)):
        raise RequestError("a range coder table must rise strictly")
    return table


def _check_counts(zeros: int, ones: int) -> None:
    if not (zeros > 0 < ones and zeros + ones <= LARGEST_TOTAL):
        raise RequestError(f"counts {zeros} and {ones} are not a range coder table")


class RangeEncoder:
    """Codes symbols one after the other; `finish` returns the bytes."""

    def __init__(self) -> None:
        scratch = contextlib.ExitStack()
        self._path = scratch.enter_context(_hidden_file())
        self._release = weakref.finalize(self, scratch.close)
        self._coder: Any = _module().RangeEncoder(str(self._path))

    def bit(self, value: bool, zeros: int, ones: int) -> bool:
        """Code one decision with counts above zero of either outcome; returns `value`.

        Yes is symbol 0: what is read behind the end, all ones, are then unlikely decisions, and
        their coding is longer than the data.  So whoever compares notices a missing end.
        """
        _check_counts(zeros, ones)
        if self._coder is None:
            raise RequestError(_FINISHED)
        self._coder.encode([0 if value else 1], [0, ones, zeros + ones])
        return value

    def uniform(self, value: int, count: int) -> int:
        """Code one of `count` equally likely values, at most LARGEST_TABLE; returns `value`."""
        return self.symbols([value], range(count + 1))[0]

    def symbols(self, values: Sequence[int], cumulative: Sequence[int]) -> list[int]:
        """Code symbols with one table; returns them.

        Raises:
            RequestError: a symbol is not in the table, or the table is not legal.
        """
        table, known = check_table(cumulative), list(values)
        if self._coder is None:
            raise RequestError(_FINISHED)
        if known and not 0 <= min(known) <= max(known) < len(table) - 1:
            raise RequestError(f"symbols must be within 0 to {len(table) - 2}")
        if known:
            self._coder.encode(known, table)
        return known

    def finish(self) -> bytes:
        """Return the bytes, at least one."""
        if self._coder is None:
            raise RequestError(_FINISHED)
        self._coder.close()
        self._coder = None  # the module would write on into a closed file
        try:
            data = self._path.read_bytes()
        except OSError as error:
            raise OutputError(f"the range coder's output is lost: {error}") from error
        self._release()
        if not data:
            raise OutputError("the range coder could not write its temporary file")
        return data


class RangeDecoder:
    """Reads what a `RangeEncoder` coded, given the same tables in the same order."""

    def __init__(self, data: bytes) -> None:
        scratch = contextlib.ExitStack()
        path = scratch.enter_context(_hidden_file())  # read piece by piece: lives as long as self
        self._release = weakref.finalize(self, scratch.close)
        try:
            path.write_bytes(data)
        except OSError as error:
            raise OutputError(f"no temporary file for the range coder: {error}") from error
        self._coder: Any = _module().RangeDecoder(str(path))

    def bit(self, _value: bool, zeros: int, ones: int) -> bool:
        """Read one decision; the first argument is there so that both coders look alike."""
        _check_counts(zeros, ones)
        return not self._coder.decode(1, [0, ones, zeros + ones])[0]

    def uniform(self, _value: int, count: int) -> int:
        """Read one of `count` equally likely values."""
        return self.symbols([0], range(count + 1))[0]

    def symbols(self, like: Sequence[int], cumulative: Sequence[int]) -> list[int]:
        """Read as many symbols of one table as `like` has.

        Raises:
            RequestError: the table is not legal.
        """
        table = check_table(cumulative)
        values: list[int] = self._coder.decode(len(like), table) if like else []
        return values
