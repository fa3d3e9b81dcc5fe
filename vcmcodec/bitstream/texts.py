"""Notes about a picture, as pairs of key and value (norm §5.7)."""

from __future__ import annotations

from collections.abc import Mapping

from vcmcodec.errors import FormatError, RequestError

CONTROL = frozenset(map(chr, (*range(0x20), *range(0x7F, 0xA0))))  # norm §2


def pack(pairs: Mapping[str, str]) -> bytes:
    """The bytes of a text: one line `key=value` a pair.

    Raises:
        RequestError: a key is empty or holds "=", or something is no printable text.
    """
    for key, value in pairs.items():
        if not key or "=" in key:
            raise RequestError(f"a text cannot have the key {key!r}")
        if not is_line(key + value):
            raise RequestError(f"the text {key!r} must be one line of printable characters")
    return "".join(f"{key}={value}\n" for key, value in pairs.items()).encode()


def unpack(data: bytes) -> dict[str, str]:
    """The pairs of a text, in its order; of a key that occurs twice the last.

    Raises:
        FormatError: not UTF-8, or not lines of pairs.
    """
    try:
        lines = data.decode().split("\n")
    except UnicodeDecodeError as error:
        raise FormatError("text", f"byte {error.start} of it is not UTF-8") from error
    pairs = [line.partition("=") for line in lines[:-1]]
    if lines[-1] or not all(key and sign and is_line(key + value) for key, sign, value in pairs):
        raise FormatError("text", "is not lines of key=value")
    return {key: value for key, _, value in pairs}


def is_line(text: str) -> bool:
    """Whether a text is one line: no control characters, nor half a character."""
    whole = not any("\ud800" <= character <= "\udfff" for character in text)
    return whole and CONTROL.isdisjoint(text)
