"""rANS with 16-bit tables: one run of symbols to bytes and back (norm: "Entropy coding", rANS).

The coding itself is done by CompressAI's compiled module, which checks nothing: an index out of
range, a string of seven bytes or a run of one symbol end in a crash, a damaged string in wrong
symbols (its checks are assertions, compiled out).  So nothing unchecked reaches it:

* *Its own escape cannot be reached.*  The module treats the last symbol of a table as a signal to
  read a count of 4-bit pieces in a loop without end.  Every table is handed over with one more
  symbol of width zero, [65536, 65536).  A decoder looks up 16 bits of its state, 0 .. 65535, and
  takes the first boundary above them, so it never arrives there; an encoder is never given that
  symbol.  Escapes are ours: ordinary symbols of fixed tables (`cdf.split_escapes`).  (A module
  built with its assertions on would stop the program at such a table; none is published.)
* *A symbol reads at most one word.*  The decoder's state x lies in [2**31, 2**63): checked in the
  first 8 bytes, and kept: f * (x >> 16) + r is below 2**63 and at least 2**15, so one 32-bit word
  always brings it back.  Behind the data lies a tail of CHUNK + SLACK words, and at most CHUNK
  symbols are asked for at a time.
* *It cannot run on behind the data.*  Each step changes log2(x) by minus the symbol's cost,
  within 2**-14 (the rounding of x >> 16 and of the word appended, at x >= 2**31), and each word by
  32.  So after n symbols that cost B bits the module has read within (B +- (32 + n * 2**-13)) / 32
  words.  More than there are ends the run before the next chunk; with n <= LARGEST_RUN the true
  position is then at most 2 + 2 * n * 2**-18 <= 514 < SLACK words behind the data.
* *It ends where it should.*  The encoder starts at x = 2**31; a decoder must end there, with all
  words read.  The module does not tell its state, so `finish` decodes PROBE further symbols out
  of the tail, whose words all differ, with a table of odd frequencies: each bit of the state and
  the place in the tail decide what they are.  This is the sentinel: it costs no byte, and a
  decoder out of step passes it once in 2**31 times or less.
* *Runs of fewer than three symbols* are coded here: the module writes up to n / 2 + 2 words into
  room for n.  An empty run is no bytes at all.

Knows no torch and no shapes.
"""

from __future__ import annotations

import struct
import sys
from collections.abc import Sequence
from functools import cache
from typing import Any

import numpy as np
import numpy.typing as npt

from vcmcodec.entropy import extension
from vcmcodec.entropy.cdf import (
    ESCAPE_CDF,
    PIECE,
    PRECISION,
    TOTAL,
    Escapes,
    IntArray,
    LongArray,
    Tables,
    join_escapes,
    mantissa_pieces,
    split_escapes,
)
from vcmcodec.errors import FormatError, LimitError, RequestError

CHUNK = 1 << 13  # symbols asked of the module at a time; larger was no faster, and the tail grows
SLACK = 1 << 10  # words
LARGEST_RUN = 1 << 26  # symbols of one run, escapes' parts included
PROBE = 48  # symbols of 6 bits: 9 words
_STATE = 1 << 31  # state at the end of a decoded run

# Tables of the escapes' parts follow the given ones: the classes, then k mantissa bits, k = 1..8.
_PARTS: tuple[IntArray, ...] = (
    ESCAPE_CDF,
    *(np.arange(0, TOTAL + 1, TOTAL >> k, dtype=np.int32) for k in range(1, PIECE + 1)),
)


class _Books:
    """The tables of one run in the forms that coding needs; built once per `Tables`."""

    def __init__(self, tables: Tables) -> None:
        self.cdfs = (*tables.cdfs, *_PARTS)
        self.first_part = len(tables.cdfs)
        self._lists: list[list[int] | None] = [None] * len(self.cdfs)
        costs = [PRECISION - np.log2(np.diff(cdf)) for cdf in self.cdfs]
        self.bits = np.concatenate(costs)
        self.starts = np.cumsum([0, *(cost.size for cost in costs[:-1])])

    def choose(self, index: LongArray) -> tuple[list[int], list[list[int]], list[int], list[int]]:
        """Indexes, tables, sizes and offsets for the module: only the tables that occur."""
        used = np.flatnonzero(np.bincount(index, minlength=len(self.cdfs)))
        place = np.zeros(len(self.cdfs), np.int64)
        place[used] = np.arange(used.size)
        lists = [self._list(i) for i in used.tolist()]
        return place[index].tolist(), lists, [len(cdf) for cdf in lists], [0] * len(lists)

    def _list(self, i: int) -> list[int]:
        found = self._lists[i]
        if found is None:
            found = self._lists[i] = [*self.cdfs[i].tolist(), TOTAL]  # + the symbol of width zero
        return found


_BOOKS = "_rans_books"


def _books_of(tables: Tables) -> _Books:
    books = tables.__dict__.get(_BOOKS)
    if books is None:
        books = tables.__dict__[_BOOKS] = _Books(tables)
    assert isinstance(books, _Books)
    return books


def _module() -> Any:
    return extension.load("compressai", "ans")


def _to_array(symbols: list[int]) -> LongArray:
    try:
        return np.frombuffer(bytes(symbols), np.uint8).astype(np.int64)  # five times as fast
    except ValueError:
        return np.array(symbols, np.int64)


def _flat_integers(name: str, values: npt.ArrayLike) -> npt.NDArray[Any]:
    flat = np.asarray(values)
    if flat.ndim != 1 or not np.issubdtype(flat.dtype, np.integer):
        raise RequestError(f"{name} must be a flat array of integers, not {flat.dtype}{flat.shape}")
    return flat


def _coded(tables: Tables, table_index: npt.ArrayLike) -> tuple[int, LongArray, LongArray]:
    """How many places there are, which of them are coded, and with which table."""
    index = _flat_integers("table_index", table_index)
    if index.size and (int(index.min()) < 0 or int(index.max()) >= len(tables)):
        raise RequestError(f"table_index is outside 0 to {len(tables) - 1}")
    places = np.flatnonzero(index >= tables.skip)
    return index.size, places, index[places].astype(np.int64)


class RansEncoder:
    """Collects the parts of one run; `finish` codes them all.

    Args:
        tables: what the symbols are coded with.
    """

    def __init__(self, tables: Tables) -> None:
        self._tables = tables
        self._books = _books_of(tables)
        self._symbols: list[LongArray] = []
        self._index: list[LongArray] = []
        self._count = 0

    def push(self, symbols: npt.ArrayLike, table_index: npt.ArrayLike) -> None:
        """Add one part: what one `pull` of the decoder gives back.

        Args:
            symbols: flat integers within int32.
            table_index: as many integers; below `tables.skip` says "not coded".

        Raises:
            RequestError: lengths, types or ranges are wrong, or a skipped symbol is not zero.
            LimitError: the run is longer than LARGEST_RUN.
        """
        values = _flat_integers("symbols", symbols)
        tables = self._tables
        count, places, index = _coded(tables, table_index)
        if values.size != count:
            raise RequestError(f"{values.size} symbols, but {count} table indexes")
        value = values[places].astype(np.int64)
        if np.count_nonzero(values) != np.count_nonzero(value):
            raise RequestError("a symbol that is skipped must be zero")
        if value.size and not (value.min() >= -(1 << 31) and value.max() < 1 << 31):
            raise RequestError("symbols must be within 32 bits")
        position = tables.to_symbols(value, index)
        self._add(position, index)
        escaped = position == tables.sizes[index]
        if escaped.any():
            of = index[escaped]
            self._push_escapes(split_escapes(value[escaped], tables.lows[of], tables.highs[of]))

    def _push_escapes(self, escapes: Escapes) -> None:
        """Code the values behind the escapes of one part: all classes, then all mantissas."""
        first = self._books.first_part
        self._add(escapes.classes, np.full(escapes.classes.size, first, np.int64))
        owner, width, below = mantissa_pieces(escapes.widths)
        piece = (escapes.mantissas[owner] >> below) & ((np.int64(1) << width) - 1)
        self._add(piece, first + width)

    def _add(self, symbols: LongArray, index: LongArray) -> None:
        self._count += symbols.size
        if self._count > LARGEST_RUN:
            raise LimitError("symbols of one run", self._count, LARGEST_RUN)
        self._symbols.append(symbols)
        self._index.append(index)

    def finish(self) -> bytes:
        """Return the bytes of the run, no bytes if nothing was coded; the encoder is then empty."""
        symbols, index = self._symbols, self._index
        self._symbols, self._index, count, self._count = [], [], self._count, 0
        if not count:
            return b""
        symbol, of = np.concatenate(symbols), np.concatenate(index)
        if count < 3:  # the module would write behind its buffer
            pairs = [
                (int(cdf[s]), int(cdf[s + 1] - cdf[s]))
                for s, cdf in zip(symbol.tolist(), (self._books.cdfs[i] for i in of), strict=True)
            ]
            return _trim(encode_plainly(pairs))
        coder = _module().RansEncoder()
        return _trim(_swap(coder.encode_with_indexes(symbol.tolist(), *self._books.choose(of))))


def encode_plainly(intervals: Sequence[tuple[int, int]]) -> bytes:
    """The coder in full, for runs too short for the module: (start, frequency) pairs to words."""
    state, words = _STATE, bytearray()
    for start, frequency in reversed(intervals):
        if state >= frequency << 47:
            words[:0] = struct.pack("<I", state & 0xFFFFFFFF)
            state >>= 32
        state = (state // frequency << PRECISION) + state % frequency + start
    return struct.pack("<Q", state) + bytes(words)


def _swap(words: bytes) -> bytes:
    """Between the module's native words and the file's little-endian ones."""
    if sys.byteorder == "little":
        return words
    return np.frombuffer(words, "<u4").astype(">u4").tobytes()


def _trim(words: bytes) -> bytes:
    """Leave out the zero bytes, three at most, at the top of the state (the first 8 bytes)."""
    keep = 8
    while keep > 5 and not words[keep - 1]:
        keep -= 1
    return words[:keep] + words[8:]


def _untrim(data: bytes) -> bytes:
    """Undo `_trim`: the length says how many bytes were left out."""
    left_out = -len(data) % 4
    keep = 8 - left_out
    if len(data) < keep:
        raise FormatError("run", "too short", stored=len(data), expected=f"at least {keep} bytes")
    state = int.from_bytes(data[:keep], "little")
    if not _STATE <= state < 1 << 63 or (left_out < 3 and not data[keep - 1]):
        raise FormatError("run", "not the start of a coded run", stored=data[:keep].hex())
    return data[:keep] + bytes(left_out) + data[keep:]


@cache
def _tail() -> bytes:
    """The words behind the data: all different, since the factor is odd."""
    places = np.arange(1, CHUNK + SLACK + 1, dtype=np.uint64)
    return (places * np.uint64(0x9E3779B1)).astype("<u4").tobytes()


_PROBE_CDF = [0, *np.cumsum([1023, 1025] * 32).tolist(), TOTAL]


@cache
def _probe_symbols() -> list[int]:
    """What the probe reads if the state is 2**31 and the next word is the tail's first."""
    decoder = _module().RansDecoder()
    decoder.set_stream(_swap(struct.pack("<Q", _STATE) + _tail()[: 4 * PROBE]))
    return _probe(decoder)


def _probe(decoder: Any) -> list[int]:
    symbols = decoder.decode_stream([0] * PROBE, [_PROBE_CDF], [len(_PROBE_CDF)], [0])
    assert isinstance(symbols, list)
    return symbols


class RansDecoder:
    """Reads one run, part by part, as it was pushed.

    Args:
        tables: those that the run was coded with.
        data: all bytes of the run.

    Raises:
        FormatError: the bytes cannot be the start of a run.
    """

    def __init__(self, tables: Tables, data: bytes) -> None:
        self._tables = tables
        self._books = _books_of(tables)
        self._words = 0  # that lie behind the state
        self._symbols, self._bits = 0, 0.0
        self._decoder: Any = None
        self._damaged = False
        if data:
            words = _untrim(data)
            self._words = len(words) // 4 - 2
            self._decoder = _module().RansDecoder()
            self._decoder.set_stream(_swap(words + _tail()))

    def pull(self, table_index: npt.ArrayLike) -> IntArray:
        """Decode one part.

        Args:
            table_index: flat integers, the same as those given to `push`.

        Returns:
            int32 symbols, as many; zero where the index is below `tables.skip`.

        Raises:
            FormatError: the run is damaged, or ends before this part does.
            RequestError: an index is out of range.
        """
        count, places, index = _coded(self._tables, table_index)
        symbols = np.zeros(count, np.int32)
        if not places.size:
            return symbols
        position = self._decode(index)
        value = position + self._tables.lows[index]
        escaped = position == self._tables.sizes[index]
        if escaped.any():
            value[escaped] = self._pull_escapes(index[escaped])
        symbols[places] = value
        return symbols

    def _pull_escapes(self, of: LongArray) -> LongArray:
        first = self._books.first_part
        classes = self._decode(np.full(of.size, first, np.int64))
        widths = classes >> 1
        owner, width, below = mantissa_pieces(widths)
        mantissas = np.zeros(of.size, np.int64)
        if owner.size:
            np.add.at(mantissas, owner, self._decode(first + width) << below)
        escapes = Escapes(classes, widths, mantissas)
        values = join_escapes(escapes, self._tables.lows[of], self._tables.highs[of])
        if values.min() < -(1 << 31) or values.max() >= 1 << 31:
            raise FormatError("run", "an escaped symbol is beyond 32 bits")
        return values

    def _decode(self, index: LongArray) -> LongArray:
        """Decode symbols of the given tables, a chunk at a time (see the module's text)."""
        if self._decoder is None:
            raise FormatError("run", "empty, but symbols are coded", expected=index.size)
        if self._symbols + index.size > LARGEST_RUN:
            raise LimitError("symbols of one run", self._symbols + index.size, LARGEST_RUN)
        books, parts = self._books, []
        for start in range(0, index.size, CHUNK):
            chunk = index[start : start + CHUNK]
            symbols = _to_array(self._decoder.decode_stream(*books.choose(chunk)))
            self._symbols += chunk.size
            self._bits += float(books.bits[books.starts[chunk] + symbols].sum())
            if self._bits - 32 * self._words > self._margin():
                self._decoder, self._damaged = None, True
                raise FormatError("run", "ends before its symbols do")
            parts.append(symbols)
        return parts[0] if len(parts) == 1 else np.concatenate(parts)

    def _margin(self) -> float:
        """By how many bits the words read may differ from the symbols' cost."""
        return 32 + self._symbols / 8192

    def finish(self) -> None:
        """Check that the run ends here.

        Raises:
            FormatError: the decoder is out of step, or bytes are left.
        """
        if self._decoder is not None:
            left = self._bits - 32 * self._words < -self._margin()
            self._damaged = left or not self._symbols or _probe(self._decoder) != _probe_symbols()
            self._decoder = None
        if self._damaged:
            raise FormatError("run", "the symbols do not end where the run does")
