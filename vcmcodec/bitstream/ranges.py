"""Ranges of bytes out of a source, with as few reads as its kind needs (norm §7.1).

A source is bytes, an object with `get_bytes(offset, length)`, or a bare callable of that form.
One that says `exact = True` (bytes, a file) is asked for what is needed and nothing else; any
other is taken for something far away, where a read costs more than its bytes, and is asked once
for the span from the first to the last byte that is needed.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Callable, Sequence
from operator import itemgetter
from typing import Protocol

from vcmcodec.errors import RequestError

GetBytes = Callable[[int, int], bytes]


class ByteSource(Protocol):
    """Where bytes come from.

    An implementation may also have `size: int | None`, the number of its bytes where known, and
    `exact: bool`, True where many small reads cost no more than a large one.
    """

    def get_bytes(self, offset: int, length: int) -> bytes:
        """Return `length` bytes from `offset`; fewer only where the source ends."""
        ...


Source = bytes | bytearray | memoryview | ByteSource | GetBytes
Span = tuple[int, int]  # first byte, first byte behind


class BytesSource:
    """Bytes at hand as a source."""

    exact = True

    def __init__(self, data: bytes | bytearray | memoryview) -> None:
        self._data = bytes(data)
        self.size = len(self._data)

    def get_bytes(self, offset: int, length: int) -> bytes:
        """Return `length` bytes from `offset`; fewer only at the end."""
        return self._data[offset : offset + length]


class RangeReader:
    """Keeps the front of a source and reads spans behind it.

    Attributes:
        end: no byte at or behind this offset can be had; None while that is not known.
        size: the exact number of bytes of the source; None while that is not known.
    """

    def __init__(self, source: Source) -> None:
        if isinstance(source, bytes | bytearray | memoryview):
            source = BytesSource(source)
        get_bytes = getattr(source, "get_bytes", source)
        if not callable(get_bytes):
            raise RequestError(f"source: cannot read from {type(source).__name__}")
        self._get_bytes: GetBytes = get_bytes
        self._exact = bool(getattr(source, "exact", False))
        self._head = b""
        self.size: int | None = getattr(source, "size", None)
        self.end = self.size

    def head(self, length: int) -> bytes:
        """Return the first `length` bytes, fewer if the source ends; each is read only once."""
        if len(self._head) < length:
            self._head += self._read(len(self._head), length)
        return self._head[:length]

    def read(self, spans: Sequence[Span]) -> list[bytes]:
        """Return the bytes of each span, fewer where the source ends."""
        blocks = [(start, self._read(start, stop)) for start, stop in self._plan(spans)]
        return [self._cut(span, blocks) for span in spans]

    def _plan(self, spans: Sequence[Span]) -> list[Span]:
        """Spans to ask the source for: in order, apart from each other, not at hand yet."""
        at_hand = len(self._head)
        missing = sorted(
            (max(start, at_hand), stop) for start, stop in spans if stop > max(start, at_hand)
        )
        plan: list[Span] = []
        for start, stop in missing:
            if plan and (not self._exact or start <= plan[-1][1]):
                plan[-1] = plan[-1][0], max(stop, plan[-1][1])
            else:
                plan.append((start, stop))
        return plan

    def _cut(self, span: Span, blocks: list[tuple[int, bytes]]) -> bytes:
        start, stop = span
        front = self._head[start:stop]
        behind = max(start, len(self._head))
        at = bisect_right(blocks, behind, key=itemgetter(0)) - 1
        if at < 0 or stop <= behind:
            return front
        origin, data = blocks[at]
        return front + data[behind - origin : stop - origin]

    def _read(self, start: int, stop: int) -> bytes:
        if self.end is not None:
            stop = min(stop, self.end)
        if stop <= start:
            return b""
        data = self._get_bytes(start, stop - start)
        if not isinstance(data, bytes | bytearray | memoryview) or len(data) > stop - start:
            raise RequestError(f"source: get_bytes({start}, {stop - start}) did not return bytes")
        data = bytes(data)
        if len(data) < stop - start:
            self.end = start + len(data)
            if data or start == len(self._head):
                self.size = self.end
        return data
