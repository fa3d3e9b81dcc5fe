"""What a caller hands in as "a file", as a source of byte ranges: paths, file objects, bytes.

The byte room takes sources and opens nothing; this is the one place that opens `.vcm` files.
"""

from __future__ import annotations

import io
import os
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import IO, TypeAlias, cast

from vcmcodec.bitstream.container import begins_like_vcm
from vcmcodec.bitstream.ranges import ByteSource, BytesSource
from vcmcodec.errors import RequestError

EXTENSION = ".vcm"
Openable: TypeAlias = (
    str
    | os.PathLike[str]
    | bytes
    | bytearray
    | memoryview
    | IO[bytes]
    | ByteSource
    | Callable[[int, int], bytes]
)


class FileSource:
    """A seekable binary file as a source; it is asked for what is needed and nothing else.

    Args:
        file: an open file, of which the part from its present position on counts.
        name: for messages.
        owned: whether `close()` closes the file.
    """

    exact = True

    def __init__(self, file: IO[bytes], name: str = "file", *, owned: bool = False) -> None:
        self._file, self.name, self._owned = file, name, owned
        self._origin = file.tell()
        self.size = max(0, file.seek(0, io.SEEK_END) - self._origin)
        self._lock = threading.Lock()  # a place is sought and read from as one

    def get_bytes(self, offset: int, length: int) -> bytes:
        """Return `length` bytes from `offset`; fewer only at the end of the file."""
        left = min(length, self.size - offset)  # never allocate for bytes that are not there
        if left <= 0:
            return b""
        parts = []
        try:
            with self._lock:
                self._file.seek(self._origin + offset)
                while left > 0:
                    part = self._file.read(left)
                    if not part:
                        break
                    parts.append(part)
                    left -= len(part)
        except (OSError, ValueError) as error:
            raise _cannot_read(self.name, error) from None
        return b"".join(parts)

    def close(self) -> None:
        """Close the file if it was opened here."""
        if self._owned:
            self._file.close()


class CallableSource:
    """A bare `get_bytes(offset, length)` as a source."""

    def __init__(self, get_bytes: Callable[[int, int], bytes]) -> None:
        self.get_bytes = get_bytes


class CountingSource:
    """A source that counts the bytes that are asked of it.

    Attributes:
        bytes_read: how many it gave so far.
    """

    def __init__(self, source: ByteSource) -> None:
        self._source, self.bytes_read = source, 0
        self.exact = bool(getattr(source, "exact", False))
        size = getattr(source, "size", None)
        if size is not None:
            self.size = size

    def get_bytes(self, offset: int, length: int) -> bytes:
        """Return `length` bytes from `offset`; fewer only at the end."""
        data = self._source.get_bytes(offset, length)
        self.bytes_read += len(data)
        return data


def open_source(source: Openable) -> ByteSource:
    """Return a source of byte ranges for whatever a caller may hand in.

    A path that cannot be searched, such as a named pipe, and a file object that cannot, such as
    standard input, are read whole.  What is to be closed after use, `opened_here` tells.

    Args:
        source: a path, bytes, a binary file object, an object with `get_bytes(offset, length)`, or
            a callable of that form.

    Raises:
        RequestError: there is no such file, it cannot be read, or `source` is none of these.
    """
    if isinstance(source, bytes | bytearray | memoryview):
        return BytesSource(source)
    if isinstance(source, str | os.PathLike):
        return _open_path(source)
    if hasattr(source, "get_bytes"):
        return source
    if hasattr(source, "read"):
        name = str(getattr(source, "name", "file"))
        if isinstance(source, io.TextIOBase):
            raise RequestError(f"{name}: is open as text; open it with mode 'rb'")
        return _from_file(cast("IO[bytes]", source), name, owned=False)
    if callable(source):
        return CallableSource(source)
    raise RequestError(f"cannot read a file from {type(source).__name__}")


def opened_here(opened: ByteSource, source: Openable) -> FileSource | None:
    """What `open_source` opened for a source and must be closed; None where nothing is."""
    return opened if isinstance(opened, FileSource) and opened is not source else None


def bytes_unless_vcm(source: ByteSource) -> bytes | None:
    """All bytes of what is no `.vcm` file: of a picture, say.

    Returns:
        None for a `.vcm` file, told by its name or its first bytes, some of which may be damaged,
        and for ranges of bytes that the caller gives, of which none is read ahead.
    """
    if not isinstance(source, FileSource | BytesSource):
        return None
    if isinstance(source, FileSource) and source.name.lower().endswith(EXTENSION):
        return None
    if begins_like_vcm(source.get_bytes(0, 4)):
        return None
    return source.get_bytes(0, source.size)


@contextmanager
def opened(source: Openable) -> Iterator[ByteSource]:
    """Open a source for the length of a `with` block; what the caller had opened stays open."""
    found = open_source(source)
    try:
        yield found
    finally:
        ours = opened_here(found, source)
        if ours is not None:
            ours.close()


def _open_path(path: str | os.PathLike[str]) -> ByteSource:
    name = os.fspath(path)
    try:
        # Without a buffer, which would read more than was asked for.
        file = open(path, "rb", buffering=0)  # noqa: SIM115
    except (OSError, ValueError) as error:
        raise _cannot_read(name, error) from None
    try:
        source = _from_file(file, name, owned=True)
    except BaseException:
        file.close()
        raise
    if not isinstance(source, FileSource):
        file.close()
    return source


def _from_file(file: IO[bytes], name: str, *, owned: bool) -> ByteSource:
    try:
        if file.seekable():
            return FileSource(file, name, owned=owned)
        data = file.read()
    except (OSError, ValueError) as error:
        raise _cannot_read(name, error) from None
    return BytesSource(data)


def _cannot_read(name: str, error: Exception) -> RequestError:
    reason = error.strerror if isinstance(error, OSError) and error.strerror else str(error)
    return RequestError(f"{name}: {reason}")
