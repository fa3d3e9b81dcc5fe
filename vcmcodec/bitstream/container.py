"""A `.vcm` file as a whole: read it in ranges, write it in canonical order (norm §3 to §7)."""

from __future__ import annotations

import zlib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from operator import attrgetter

from vcmcodec.bitstream import constants as c
from vcmcodec.bitstream import directory
from vcmcodec.bitstream.constants import Kind, LayerId
from vcmcodec.bitstream.cursor import ByteReader, ByteWriter
from vcmcodec.bitstream.directory import Entry, Order
from vcmcodec.bitstream.header import Header
from vcmcodec.bitstream.limits import Limits
from vcmcodec.bitstream.ranges import ByteSource, RangeReader, Source
from vcmcodec.errors import FormatError, RequestError, TruncatedError, UnsupportedError

__all__ = ["ByteSource", "Container", "Entry", "Limits", "Source", "Substream", "write"]


# bytes of substreams by kind, layer, position of the group, and tile
RunKey = tuple[Kind, LayerId, int, int]
Runs = Mapping[RunKey, bytes]


@dataclass(frozen=True, slots=True)
class Substream:
    """The bytes of one (kind, layer, group, tile), to be written."""

    kind: int
    layer: LayerId
    group: int
    data: bytes
    tile: int = 0


def write(header: Header, substreams: Iterable[Substream]) -> bytes:
    """Build a file; the order of `substreams` does not matter.

    Raises:
        RequestError: a field or the set of substreams is not legal.
    """
    fields = header.pack()
    order = Order(header)
    parts = sorted(substreams, key=lambda s: order.key(s.layer, s.tile, s.group, s.kind))
    entries = [
        Entry(p.kind, p.layer, p.group, p.tile, len(p.data), zlib.crc32(p.data), 0) for p in parts
    ]
    directory.check(header, entries, lambda field, text: RequestError(f"{field}: {text}"))
    body = fields + directory.pack(header, entries) + header.extra
    out = ByteWriter()
    out.raw(c.SIGNATURE)
    out.u8(header.version[0], "major")
    out.u8(header.version[1], "minor")
    out.varint(len(body) + c.CRC_BYTES, "header_length")
    out.raw(body)
    out.u32(zlib.crc32(out.done()), "header_crc32")
    return b"".join((out.done(), *(part.data for part in parts)))


class Container:
    """A file whose header and directory have been read and checked; payload comes on demand.

    Attributes:
        header: every field in front of the directory.
        entries: the directory in canonical order.
        header_bytes: bytes in front of the first substream.
        size: bytes of the whole file as its directory says.
    """

    def __init__(
        self, header: Header, entries: tuple[Entry, ...], header_bytes: int, reader: RangeReader
    ) -> None:
        self.header, self.entries, self.header_bytes = header, entries, header_bytes
        self.size = entries[-1].end
        self._reader = reader

    @classmethod
    def read(cls, source: Source, limits: Limits | None = None) -> Container:
        """Read and check header and directory: one read of 4 KiB, a second if they are longer.

        Args:
            source: bytes, an object with `get_bytes(offset, length)`, or such a callable.
            limits: what to accept; `Limits()` where None.

        Raises:
            FormatError: the header or directory is damaged, or bytes follow the last substream.
            TruncatedError: the source ends within the header.
            UnsupportedError: version, profile, coder, layer or critical kind is not known.
            LimitError: more of something than `limits` allows.
        """
        limits = limits or Limits()
        reader = RangeReader(source)
        header, entries, header_bytes = _read_header(reader, limits)
        container = cls(header, entries, header_bytes, reader)
        if reader.size is not None and reader.size > container.size:
            raise FormatError(
                "substreams",
                "bytes follow the last one",
                offset=container.size,
                stored=reader.size,
                expected=container.size,
            )
        return container

    @property
    def warnings(self) -> tuple[str, ...]:
        """What is wrong with the file without making it unreadable, as far as is known yet."""
        end = self._reader.end
        if end is None or end >= self.size:
            return ()
        whole = sum(map(self.is_whole, self.entries))
        bytes_there = f"no more than {end:,} of its {self.size:,} bytes are there"
        substreams_there = f"{whole} of {len(self.entries)} substreams are whole"
        if len(self.entries) == 1:
            substreams_there = "its only substream is not whole"
        return (f"the file is cut off: {bytes_there}, {substreams_there}",)

    @property
    def is_cut_off(self) -> bool:
        """Whether bytes are known to be missing at the end."""
        end = self._reader.end
        return end is not None and end < self.size

    def is_whole(self, entry: Entry) -> bool:
        """Whether all bytes of `entry` are there, as far as is known yet.

        The end of a source that has no `size` is known only once a read came back short.
        """
        end = self._reader.end
        return end is None or entry.end <= end

    def find(
        self,
        kind: int | None = None,
        layer: int | None = None,
        group: int | None = None,
        tile: int | None = None,
    ) -> tuple[Entry, ...]:
        """Return the entries that have all the given values, in directory order."""
        asked = {"kind": kind, "layer": layer, "group": group, "tile": tile}
        wanted = [(attrgetter(name), value) for name, value in asked.items() if value is not None]
        return tuple(e for e in self.entries if all(get(e) == value for get, value in wanted))

    def fetch(self, entries: Iterable[Entry], *, whole_only: bool = False) -> dict[Entry, bytes]:
        """Return the bytes of `entries`, each checked against its CRC-32.

        A source that is not exact is read at most once, so ask for all that is needed in one call.

        Args:
            entries: entries of this container.
            whole_only: leave out what is cut off, instead of raising.

        Raises:
            TruncatedError: a substream is cut off.
            FormatError: a substream is damaged.
        """
        wanted = list(entries)
        found = self._reader.read([(entry.offset, entry.end) for entry in wanted])
        result = {}
        for entry, data in zip(wanted, found, strict=True):
            if len(data) < entry.length:
                if whole_only:
                    continue
                message = f"{len(data)} of {entry.length} bytes are there"
                raise TruncatedError(entry.name, message, offset=entry.offset)
            crc32 = zlib.crc32(data)
            if crc32 != entry.crc32:
                raise _crc_error(entry.name, entry.offset, entry.crc32, crc32)
            result[entry] = data
        return result


def _read_header(reader: RangeReader, limits: Limits) -> tuple[Header, tuple[Entry, ...], int]:
    front = ByteReader(reader.head(c.FIRST_READ_BYTES), short=TruncatedError)
    _check_signature(front)
    major, minor = front.u8("major"), front.u8("minor")
    if major != c.VERSION[0]:
        raise UnsupportedError("major version", major, str(c.VERSION[0]))
    length = front.varint("header_length")
    limits.check("max_header_bytes", length)
    start, end = front.offset, front.offset + length
    data = reader.head(end)
    if len(data) < end:
        raise TruncatedError("header", f"{len(data)} of {end} bytes are there", offset=len(data))
    if length < c.CRC_BYTES:
        raise FormatError("header_length", "no room for the CRC-32", offset=start, stored=length)
    body_end = end - c.CRC_BYTES
    stored = int.from_bytes(data[body_end:], "little")
    crc32 = zlib.crc32(data[:body_end])
    if stored != crc32:
        raise _crc_error("header_crc32", body_end, stored, crc32)
    fields = ByteReader(data[start:body_end], origin=start)
    header = Header.unpack(fields, (major, minor), limits)
    entries = directory.unpack(fields, header, limits, end)
    place = fields.offset + start
    extra = fields.take(fields.left, "extra")
    if extra and header.version <= c.VERSION:
        raise FormatError("extra", "bytes follow the directory", offset=place)
    return replace(header, extra=extra), entries, end


def begins_like_vcm(data: bytes) -> bool:
    """Whether bytes begin as a `.vcm` file does, be its first byte damaged or not."""
    return data[1:4] == c.SIGNATURE[1:4]


def _check_signature(front: ByteReader) -> None:
    wanted = c.SIGNATURE
    data = front.take(min(len(wanted), front.left), "signature")
    if data == wanted:
        return
    if wanted.startswith(data):
        told = f"{len(data)} of 8 bytes are there" if data else "the file is empty"
        raise TruncatedError("signature", told, offset=0)
    message = "this is not a .vcm file"
    unix, dos = wanted.replace(b"\r\n", b"\n"), wanted.replace(b"\n", b"\r\n")
    seven_bit = bytes(byte & 0x7F for byte in wanted)
    if any(data.startswith(damaged[:8]) for damaged in (unix, dos, seven_bit)):
        message = "the file was damaged by a transfer as text"
    raise FormatError("signature", message, offset=0, stored=data.hex(), expected=wanted.hex())


def _crc_error(field: str, offset: int, stored: int, expected: int) -> FormatError:
    return FormatError(
        field,
        "the bytes do not fit their CRC-32",
        offset=offset,
        stored=f"{stored:08x}",
        expected=f"{expected:08x}",
    )
