"""What the header's `parameters` hold: of pictures (norm §6.1) and of feature sets (norm §6.2)."""

from __future__ import annotations

from dataclasses import dataclass

from vcmcodec.bitstream.constants import (
    INPUT_MULTIPLE,
    MAX_INPUT_PIXELS,
    MAX_PARAMETER_BYTES,
    MAX_SPLIT_BYTES,
    ProfileId,
)
from vcmcodec.bitstream.cursor import ByteReader, ByteWriter
from vcmcodec.errors import FormatError, RequestError

FIELD = "parameters"
FEATURE_PROFILES = (ProfileId.PYRAMID, ProfileId.BOTTLENECK, ProfileId.SEMANTIC)


@dataclass(frozen=True)
class CodedSize:
    """Size in pixels at which a picture for machines alone is coded: its own, or a smaller one."""

    height: int
    width: int

    def pack(self) -> bytes:
        """The bytes of the header's field."""
        out = ByteWriter()
        out.varint(self.height, FIELD)
        out.varint(self.width, FIELD)
        return out.done()

    @classmethod
    def unpack(cls, data: bytes) -> CodedSize:
        """Read what `pack` wrote.

        Raises:
            FormatError: these are not two numbers.
        """
        reader = ByteReader(data)
        size = cls(reader.varint(FIELD), reader.varint(FIELD))
        if reader.left:
            raise FormatError(FIELD, f"{reader.left} bytes behind the coded size")
        return size

    def fits(self, height: int, width: int) -> bool:
        """Whether a picture of that size can be coded at this one."""
        return 1 <= self.height <= height and 1 <= self.width <= width


@dataclass(frozen=True)
class FeatureParameters:
    """Where in which network the features were taken.

    Attributes:
        split: name of the split point, printable ASCII without spaces, 1 to 16 characters.
        scaled_height, scaled_width: size in pixels to which the picture was scaled for the
            network; it lies at the top left of the network's input, which is padded.
        own: what one profile adds.
    """

    split: str
    scaled_height: int
    scaled_width: int
    own: bytes = b""

    def pack(self) -> bytes:
        """The bytes of the header's field.

        Raises:
            RequestError: a value is out of its range.
        """
        if not _is_name(self.split):
            raise RequestError(f"{self.split!r} cannot name a split point in a file")
        if not _is_input(self.scaled_height, self.scaled_width):
            size = f"{self.scaled_width} x {self.scaled_height}"
            raise RequestError(f"a network's input cannot have {size} pixels")
        out = ByteWriter()
        out.u8(len(self.split), FIELD)
        out.raw(self.split.encode("ascii"))
        out.varint(self.scaled_height, FIELD)
        out.varint(self.scaled_width, FIELD)
        out.raw(self.own)
        data = out.done()
        if len(data) > MAX_PARAMETER_BYTES:
            raise RequestError(f"{len(data)} bytes of parameters; {MAX_PARAMETER_BYTES} have room")
        return data

    @classmethod
    def unpack(cls, data: bytes) -> FeatureParameters:
        """Read what `pack` wrote.

        Raises:
            FormatError: these are no parameters of a feature set.
        """
        reader = ByteReader(data)
        try:
            split = reader.take(reader.u8(FIELD), FIELD).decode("ascii")
        except UnicodeDecodeError as error:
            raise FormatError(FIELD, "the split point's name is not ASCII") from error
        if not _is_name(split):
            raise FormatError(FIELD, f"{split!r} names no split point")
        height, width = reader.varint(FIELD), reader.varint(FIELD)
        if not _is_input(height, width):
            raise FormatError(FIELD, f"a network's input of {width} x {height} pixels")
        return cls(split, height, width, reader.take(reader.left, FIELD))


def _is_name(split: str) -> bool:
    return 1 <= len(split) <= MAX_SPLIT_BYTES and all("!" <= c <= "~" for c in split)


def _is_input(height: int, width: int) -> bool:
    padded = [-(-side // INPUT_MULTIPLE) * INPUT_MULTIPLE for side in (height, width)]
    return min(height, width) >= 1 and padded[0] * padded[1] <= MAX_INPUT_PIXELS
