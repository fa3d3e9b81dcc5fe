"""The directory: one entry a substream, in one canonical order (norm §4); no payload byte."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

from vcmcodec.bitstream import constants as c
from vcmcodec.bitstream.constants import Kind, LayerId
from vcmcodec.bitstream.cursor import ByteReader, ByteWriter
from vcmcodec.bitstream.header import Fail, Header
from vcmcodec.bitstream.limits import Limits
from vcmcodec.errors import FormatError, UnsupportedError

# Kinds that code the symbols of one group; the others may speak of the whole picture.
_OF_ONE_GROUP = frozenset({Kind.LATENT, Kind.REFINEMENT, Kind.DIGEST})
_SMALLEST_ENTRY = 8  # bytes: kind, layer, group, one byte of length, CRC-32


@dataclass(frozen=True, slots=True)
class Entry:
    """One line of the directory.

    Attributes:
        kind: a `Kind`, or a bare number for an ancillary kind that this program does not know.
        group: id of the group, 0 for what speaks of the whole picture.
        tile: position of the tile, row by row; 0 where the picture is not tiled.
        length: bytes of the substream.
        crc32: CRC-32 of the substream.
        offset: where it starts in the file; not stored, it follows from the lengths before it.
    """

    kind: int
    layer: LayerId
    group: int
    tile: int
    length: int
    crc32: int
    offset: int

    @property
    def end(self) -> int:
        """Offset of the first byte behind the substream."""
        return self.offset + self.length

    @property
    def critical(self) -> bool:
        """Whether a reader has to know this kind."""
        return bool(self.kind & c.CRITICAL)

    @property
    def name(self) -> str:
        """Words for messages, such as `latent of layer base, group 3`."""
        text = f"{kind_name(self.kind)} of layer {self.layer.name.lower()}, group {self.group}"
        return text + (f", tile {self.tile}" if self.tile else "")


def kind_name(kind: int) -> str:
    """A kind in words, such as `group map`; `kind 17` for one that is not known."""
    return kind.name.lower().replace("_", " ") if isinstance(kind, Kind) else f"kind {kind}"


class Order:
    """The canonical order of substreams in a file with `header`'s groups (norm §4.2)."""

    def __init__(self, header: Header) -> None:
        self._positions = {0: -1} | {group.id: at for at, group in enumerate(header.groups)}

    def key(self, layer: int, tile: int, group: int, kind: int) -> tuple[int, ...]:
        """Sort key: layer, tile, the group map, groups in table order, critical kinds first."""
        after_map = int(kind != Kind.GROUP_MAP)
        ancillary = int(not kind & c.CRITICAL)
        return layer, tile, after_map, self._positions.get(group, -1), ancillary, kind

    def of(self, entry: Entry) -> tuple[int, ...]:
        """Sort key of a directory entry."""
        return self.key(entry.layer, entry.tile, entry.group, entry.kind)


def pack(header: Header, entries: Sequence[Entry]) -> bytes:
    """Write the number of entries and the entries (norm §4.1)."""
    out = ByteWriter()
    out.varint(len(entries), "directory")
    for entry in entries:
        out.u8(entry.kind, "kind")
        out.u8(entry.layer, "layer")
        out.u8(entry.group, "group")
        if header.tile:
            out.varint(entry.tile, "tile")
        out.varint(entry.length, "length")
        out.u32(entry.crc32, "crc32")
    return out.done()


def unpack(
    fields: ByteReader, header: Header, limits: Limits, payload_offset: int
) -> tuple[Entry, ...]:
    """Read the directory and check the whole of it.

    Args:
        fields: stands at the number of entries.
        header: the fields before the directory.
        limits: bounds the length of each substream.
        payload_offset: where the first substream starts in the file.

    Raises:
        FormatError: an entry is not legal, or the order is not canonical.
        UnsupportedError: a critical kind that this program does not know.
        LimitError: a substream is longer than `limits` allows.
    """
    count = fields.varint("directory")
    if count * _SMALLEST_ENTRY > fields.left:
        raise FormatError(
            "directory", f"{count} entries do not fit", offset=fields.places["directory"]
        )
    entries = []
    offset = payload_offset
    for position in range(count):
        entry = _unpack_entry(fields, f"directory[{position}]", header, offset)
        limits.check("max_substream_bytes", entry.length)
        entries.append(entry)
        offset = entry.end
    check(header, entries, lambda field, text: _corrupt(fields, field, text))
    return tuple(entries)


def check(header: Header, entries: Sequence[Entry], fail: Fail) -> None:
    """Hold the directory against every rule of norm §4.2; raise what `fail(field, text)` makes."""
    if not entries:
        raise fail("directory", "there is no substream")
    known = _Known(
        frozenset(info.layer for info in header.layers),
        frozenset(header.group_ids),
        header.tile_count,
    )
    for position, entry in enumerate(entries):
        _check_entry(entry, f"directory[{position}]", known, fail)
    order = Order(header)
    keys = [order.of(entry) for entry in entries]
    for position, (low, high) in enumerate(pairwise(keys), start=1):
        if low == high:
            raise fail(f"directory[{position}]", f"second {entries[position].name}")
        if low > high:
            raise fail(f"directory[{position}]", "entries are not in canonical order")
    maps = any(entry.kind == Kind.GROUP_MAP for entry in entries)
    if maps and not header.groups:
        raise fail("directory", "there is a group map but no group")
    needs = any(e.layer == LayerId.BASE and e.kind in _OF_ONE_GROUP for e in entries)
    if header.groups and needs and not maps:
        raise fail("directory", "there are groups but no group map")


def _unpack_entry(fields: ByteReader, name: str, header: Header, offset: int) -> Entry:
    kind = fields.u8(f"{name}.kind")
    if kind in Kind._value2member_map_:
        kind = Kind(kind)
    elif kind & c.CRITICAL:
        known = ", ".join(str(int(known)) for known in Kind if known & c.CRITICAL)
        raise UnsupportedError("critical kind of substream", kind, known)
    layer = fields.u8(f"{name}.layer")
    if layer not in LayerId._value2member_map_:
        raise FormatError(
            f"{name}.layer", f"there is no layer {layer}", offset=fields.places[f"{name}.layer"]
        )
    return Entry(
        kind=kind,
        layer=LayerId(layer),
        group=fields.u8(f"{name}.group"),
        tile=fields.varint(f"{name}.tile") if header.tile else 0,
        length=fields.varint(f"{name}.length"),
        crc32=fields.u32(f"{name}.crc32"),
        offset=offset,
    )


def _corrupt(fields: ByteReader, field: str, message: str) -> FormatError:
    place = fields.places.get(field, fields.places.get(f"{field}.kind"))  # an entry starts there
    return FormatError(field, message, offset=place)


@dataclass(frozen=True, slots=True)
class _Known:
    """What entries may refer to."""

    layers: frozenset[LayerId]
    groups: frozenset[int]
    tiles: int


def _check_entry(entry: Entry, name: str, known: _Known, fail: Fail) -> None:
    if entry.layer not in known.layers:
        raise fail(f"{name}.layer", f"{entry.layer} is not a layer of the file")
    if entry.group not in known.groups and (entry.group or entry.kind in _OF_ONE_GROUP):
        raise fail(f"{name}.group", f"{entry.group} is not a group of the file")
    if not 0 <= entry.tile < known.tiles:
        raise fail(f"{name}.tile", f"{entry.tile} is not below {known.tiles}")
    if entry.kind not in Kind._value2member_map_:
        if entry.critical:
            raise fail(f"{name}.kind", f"critical kind {entry.kind} is not known")
    else:
        home = c.FILE_WIDE_LAYERS.get(Kind(entry.kind))
        if home is not None and (entry.layer, entry.group, entry.tile) != (home, 0, 0):
            raise fail(
                name, f"the {kind_name(entry.kind)} belongs to layer {home}, group 0, tile 0"
            )
    if entry.kind == Kind.DIGEST and entry.length != c.DIGEST_BYTES:
        raise fail(f"{name}.length", f"a digest has {c.DIGEST_BYTES} bytes, not {entry.length}")
