"""ICC profiles as a file keeps them: deflated, with a dictionary that knows sRGB (norm §5.6).

The profile that cameras and programs embed most often has 3144 bytes, more than a small picture.
It comes back byte for byte: what a caller gets is what was there, not a profile that is as good.
"""

from __future__ import annotations

import functools
import struct
import zlib
from base64 import b64decode

from vcmcodec.bitstream.constants import ICC_CURVE_ENTRIES, MAX_ICC_BYTES
from vcmcodec.errors import FormatError, RequestError

_RAW = -15  # deflate without a frame (the CRC-32 is in the directory), window of 32 KiB
_LEVEL, _MEMORY = 9, 9

# Headers and tags as they stand in common RGB profiles: first of version 4, then of version 2.
_TAGS = (
    "nZTPaxNBFMe/3UTb2ojVhlJEcA5VKiSpbaG04kEbtRWixLRWqwXZbCbJ0v3FZtMYvPrrIFjwIPWgtQr+B3oV9Fit"
    "oCiKiDdPglgVQWp8kw3Ntrba9oXd+fJ23mTm+z67gBQDhf8AoBuOnejvY6dHzjB4QlZy1sF4PIYV48dr1IjxZVhT"
    "9BzWFg0pnlOAmjrS3YplO6RpN4gVHEvoa6SDSlZOkZ4iHbJpg6RnRD7p6o9CZ1z9TWh7KBEFJLEmy3h00qOVrK2T"
    "biPdqmt5pbIfcZIAN04O0ridrh3IIYF+9IEhiTxUaHAQptEgz5av21uuOw6TahS6WyjCpooMslQbomyeVuU0pinP"
    "6aehWPW96mcu3dXprh7oAzZ8KJXmdgG1N4D5iVLp191SaX4a8L0HHhvVepN86vlO+YlqrvUOsOUi8PBJNZe8CTy6"
    "ArS8tWRbLqd8dEnpNPD1AbB5BGh6AWw663pVeY57b4ChC9SiZ8DkLWA3zd8ySscfiKmGKTUuZqn2OSTUYyM6XJaO"
    "DR4ZEqscPRxlOZq0EksDccbWyNLWCj9x0l0VrujM0CosfSkzMya05C9zUmZGaqnyI4WqXEmCw2BKN4g9SezZSukp"
    "oZ+Svjqe56R94r24PK7yAulXwmgtr6ukf4pancv0PvgDIu9wJUtasBFw+fTvB+oCGY9OerTDzzviUFHTKtpqJuuw"
    "NmUP6+jt7WEDvKBxxwnHZWVMtlMsauqWbBQB98zl2Ca8ZWRyd0dvd3e4M9LhMeqfD1cZVY7mTpR7VtM8s/TbsXie"
    "Of03l8lJYvASMfjOw+pUhdVZz3maBS9Zx7H2tbcXCoWIypWIMHQh/jthFeH5v4hYbsEedoin5bzmMOGbYmpm3mY5"
    "S1Y4Cy+FeN2Fy+8jlOBpbnODKoaJMtXIULuNlOqopsFUY6UmrrNsSbhcUzTd/43guQgaZ4PwfZ6Bv6kBvtHbousL"
    "fYvVD0O8ead2fnK5X/guLgnpurjl1Ey5LpoYYn8A"
)


def compress(profile: bytes) -> bytes:
    """Return a profile as its substream holds it.

    Raises:
        RequestError: the profile has no byte, or more than a file may hold.
    """
    if not 0 < len(profile) <= MAX_ICC_BYTES:
        raise RequestError(
            f"an ICC profile of {len(profile):,} bytes; a file holds 1 to {MAX_ICC_BYTES:,}"
        )
    deflate = zlib.compressobj(
        _LEVEL, zlib.DEFLATED, _RAW, _MEMORY, zlib.Z_DEFAULT_STRATEGY, dictionary()
    )
    return deflate.compress(profile) + deflate.flush()


def expand(data: bytes) -> bytes:
    """Return the profile that a substream holds; never more than `MAX_ICC_BYTES` are made.

    Raises:
        FormatError: the bytes are no deflate stream, or one that is cut off, that bytes follow, or
            that holds nothing or too much.
    """
    inflate = zlib.decompressobj(_RAW, dictionary())
    try:
        profile = inflate.decompress(data, MAX_ICC_BYTES + 1)
    except zlib.error as error:
        raise FormatError("icc", "not a deflate stream") from error
    if len(profile) > MAX_ICC_BYTES:
        raise FormatError("icc", f"inflates to more than {MAX_ICC_BYTES:,} bytes")
    if not inflate.eof:
        raise FormatError("icc", "the deflate stream is cut off")
    if inflate.unused_data:
        raise FormatError("icc", "bytes follow the deflate stream", stored=len(data))
    if not profile:
        raise FormatError("icc", "the profile is empty")
    return profile


@functools.cache
def dictionary() -> bytes:
    """Bytes that deflate may refer to before a profile begins: tags, then the curve of sRGB."""
    # No value before rounding is nearer than 7e-5 to a half: any floating point gives the same.
    curve = (
        int(65535 * _srgb(i / (ICC_CURVE_ENTRIES - 1)) + 0.5) for i in range(ICC_CURVE_ENTRIES)
    )
    head = struct.pack(">4sII", b"curv", 0, ICC_CURVE_ENTRIES)
    tags = zlib.decompress(b64decode("".join(_TAGS)), _RAW)
    return tags + head + struct.pack(f">{ICC_CURVE_ENTRIES}H", *curve)


def _srgb(value: float) -> float:
    """Light of an sRGB value, both 0..1 (IEC 61966-2-1, 5.2)."""
    return value / 12.92 if value <= 0.04045 else float(((value + 0.055) / 1.055) ** 2.4)
