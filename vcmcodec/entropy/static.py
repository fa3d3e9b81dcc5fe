"""One table a channel, no context: the coding of split-point tensors with the range coder.

Per channel, in this order: its symbols; the classes of those that escaped; the pieces of their
mantissas (`cdf.split_escapes`).  Norm: "Entropy coding", static tables.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from vcmcodec.entropy.cdf import (
    ESCAPE_CDF,
    Escapes,
    IntArray,
    LongArray,
    Tables,
    join_escapes,
    mantissa_pieces,
    split_escapes,
)
from vcmcodec.entropy.range_coder import LARGEST_TABLE, RangeDecoder, RangeEncoder
from vcmcodec.errors import FormatError, RequestError

_FIELD = "static_run"


def encode_static(channels: Sequence[npt.ArrayLike], tables: Tables) -> bytes:
    """Code channel i with table i; no bytes if no channel has a symbol.

    Args:
        channels: per channel flat int32 symbols, of any number.
        tables: one a channel, at most 1023 values each.

    Raises:
        RequestError: channels and tables do not fit, or symbols are no 32-bit integers.
    """
    _check_tables(len(channels), tables)
    flat = [np.asarray(channel) for channel in channels]
    for channel in flat:
        if channel.ndim != 1 or (channel.size and channel.dtype.kind not in "iu"):
            raise RequestError("a channel must be a flat array of integers")
        if channel.size and (channel.min() < -(1 << 31) or channel.max() >= 1 << 31):
            raise RequestError("symbols must be within 32 bits")
    if not any(channel.size for channel in flat):
        return b""
    encoder = RangeEncoder()
    for i, channel in enumerate(flat):
        if channel.size:
            _encode_channel(encoder, channel.astype(np.int64), tables, i)
    return encoder.finish()


def decode_static(data: bytes, counts: Sequence[int], tables: Tables) -> list[IntArray]:
    """Read counts[i] symbols of each channel i.

    Raises:
        FormatError: the bytes are not those that these symbols would be coded in.
        RequestError: channels and tables do not fit.
    """
    _check_tables(len(counts), tables)
    decoder = RangeDecoder(data) if any(counts) else None
    channels = []
    for i, count in enumerate(counts):
        values = np.zeros(0, np.int64)
        if decoder is not None and count:
            values = _decode_channel(decoder, count, tables, i)
        channels.append(values.astype(np.int32))
    if encode_static(channels, tables) != data:
        raise FormatError(_FIELD, "not the coding of any symbols")
    return channels


def _check_tables(channels: int, tables: Tables) -> None:
    if channels != len(tables) or tables.skip:
        raise RequestError(f"{channels} channels need as many tables, and none that is skipped")
    if max(cdf.size for cdf in tables.cdfs) > LARGEST_TABLE + 1:
        raise RequestError(f"a static table has at most {LARGEST_TABLE - 1} values")


def _encode_channel(encoder: RangeEncoder, values: LongArray, tables: Tables, i: int) -> None:
    symbols = tables.to_symbols(values, np.full(values.size, i))
    encoder.symbols(symbols.tolist(), tables.cdfs[i].tolist())
    outside = values[symbols == tables.sizes[i]]
    if outside.size:
        escapes = split_escapes(outside, *_limits(tables, i, outside.size))
        encoder.symbols(escapes.classes.tolist(), ESCAPE_CDF.tolist())
        owner, widths, below = mantissa_pieces(escapes.widths)
        pieces = escapes.mantissas[owner] >> below
        for piece, width in zip(pieces.tolist(), widths.tolist(), strict=True):
            encoder.uniform(piece & ((1 << width) - 1), 1 << width)


def _decode_channel(decoder: RangeDecoder, count: int, tables: Tables, i: int) -> LongArray:
    symbols = np.array(decoder.symbols([0] * count, tables.cdfs[i].tolist()), np.int64)
    values: LongArray = symbols + tables.lows[i]
    escaped = symbols == tables.sizes[i]
    number = int(escaped.sum())
    if number:
        classes = np.array(decoder.symbols([0] * number, ESCAPE_CDF.tolist()), np.int64)
        owner, widths, below = mantissa_pieces(classes >> 1)
        pieces = [decoder.uniform(0, 1 << width) for width in widths.tolist()]
        mantissas = np.zeros(number, np.int64)
        np.add.at(mantissas, owner, np.array(pieces, np.int64) << below)
        escapes = Escapes(classes, classes >> 1, mantissas)
        values[escaped] = join_escapes(escapes, *_limits(tables, i, number))
        if values.min() < -(1 << 31) or values.max() >= 1 << 31:
            raise FormatError(_FIELD, "an escaped symbol is beyond 32 bits")
    return values


def _limits(tables: Tables, i: int, count: int) -> tuple[LongArray, LongArray]:
    return np.full(count, tables.lows[i]), np.full(count, tables.highs[i])
