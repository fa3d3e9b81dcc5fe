"""Bounded reads and writes of numbers; the only place with shifts and byte order (norm §2)."""

from __future__ import annotations

from vcmcodec.bitstream.constants import VARINT_MAX, VARINT_MAX_BYTES
from vcmcodec.errors import FormatError, RequestError


class ByteReader:
    """Reads numbers from `data`, one after the other, and remembers where each field stood.

    Args:
        data: the bytes; nothing beyond them is ever read.
        offset: where to start in `data`.
        short: error class for a read past the end.
        origin: place of `data[0]` in the file, for error messages.
    """

    def __init__(
        self,
        data: bytes,
        offset: int = 0,
        *,
        short: type[FormatError] = FormatError,
        origin: int = 0,
    ) -> None:
        self._data, self._short, self._origin = data, short, origin
        self.offset = offset
        self.places: dict[str, int] = {}

    @property
    def left(self) -> int:
        """Bytes not read yet."""
        return len(self._data) - self.offset

    def take(self, length: int, field: str) -> bytes:
        """Read `length` bytes as they are."""
        start = self.offset
        self.places[field] = self._origin + start
        if length > self.left:
            message = f"needs {length} bytes where {self.left} are left"
            raise self._short(field, message, offset=self._origin + start)
        self.offset += length
        return self._data[start : self.offset]

    def u8(self, field: str) -> int:
        """Read one byte."""
        return self.take(1, field)[0]

    def u32(self, field: str) -> int:
        """Read four bytes, the lowest first."""
        return int.from_bytes(self.take(4, field), "little")

    def varint(self, field: str) -> int:
        """Read an unsigned LEB128 number in its shortest form, of at most 8 bytes."""
        place = self._origin + self.offset
        value = 0
        for position in range(VARINT_MAX_BYTES):
            byte = self.u8(field)
            value |= (byte & 0x7F) << (7 * position)
            if byte < 0x80:
                if byte == 0 and position:
                    raise FormatError(field, "number is not in its shortest form", offset=place)
                self.places[field] = place
                return value
        message = f"number is longer than {VARINT_MAX_BYTES} bytes"
        raise FormatError(field, message, offset=place)


class ByteWriter:
    """Collects numbers into bytes; the mirror image of `ByteReader`."""

    def __init__(self) -> None:
        self._data = bytearray()

    def raw(self, data: bytes) -> None:
        """Append bytes as they are."""
        self._data += data

    def u8(self, value: int, field: str) -> None:
        """Append one byte."""
        self._bound(value, 0xFF, field)
        self._data.append(value)

    def u32(self, value: int, field: str) -> None:
        """Append four bytes, the lowest first."""
        self._bound(value, 0xFFFFFFFF, field)
        self._data += value.to_bytes(4, "little")

    def varint(self, value: int, field: str) -> None:
        """Append an unsigned LEB128 number in its shortest form."""
        self._bound(value, VARINT_MAX, field)
        while value >= 0x80:
            self._data.append(value & 0x7F | 0x80)
            value >>= 7
        self._data.append(value)

    def done(self) -> bytes:
        """Everything written so far."""
        return bytes(self._data)

    @staticmethod
    def _bound(value: int, most: int, field: str) -> None:
        if not 0 <= value <= most:
            raise RequestError(f"{field}: {value} is not within 0..{most}")
