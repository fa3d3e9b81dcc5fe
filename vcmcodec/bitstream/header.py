"""The header's fields as frozen dataclasses, packed and unpacked (norm §3); no file, no picture.

A header is checked by the same rules on both ways: what a file says wrongly is a FormatError
with its place, what a caller says wrongly is a RequestError.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from itertools import pairwise
from typing import TypeVar

from vcmcodec.bitstream import constants as c
from vcmcodec.bitstream import profile_rules
from vcmcodec.bitstream.constants import CoderId, LayerId, ProfileId, TaskId
from vcmcodec.bitstream.cursor import ByteReader, ByteWriter
from vcmcodec.bitstream.limits import Limits
from vcmcodec.bitstream.parameters import CodedSize
from vcmcodec.bitstream.texts import CONTROL
from vcmcodec.errors import FormatError, RequestError, UnsupportedError, VcmError

Fail = Callable[[str, str], VcmError]
_Id = TypeVar("_Id", ProfileId, CoderId, LayerId)


@dataclass(frozen=True, slots=True)
class Box:
    """A rectangle in cells; `left` and `top` are 0 at the picture's top left cell."""

    left: int
    top: int
    width: int
    height: int


@dataclass(frozen=True, slots=True)
class Group:
    """A set of cells that is coded independently of every other.

    Attributes:
        id: 0..255, unique in the file; what directory entries refer to.
        label: at most 64 bytes of UTF-8 without control characters.
        score: 0..1 in steps of 1/254 once it has been in a file, or None.
        box: the smallest rectangle that holds the group's cells.
        cells: how many cells belong to it, at least one.
    """

    id: int
    label: str
    score: float | None
    box: Box
    cells: int

    @property
    def title(self) -> str:
        """Id and label, as messages name it."""
        return f"{self.id} {self.label}".strip()


@dataclass(frozen=True, slots=True)
class LayerInfo:
    """A layer of the file and its rate level in hundredths, 0..10000."""

    layer: LayerId
    rate_level: int


@dataclass(frozen=True, slots=True)
class TaskInfo:
    """A task that the file was written for and the highest layer that it reads.

    `task` is a `TaskId`, or a bare number where a later minor version knows more tasks.
    """

    task: int
    layer: LayerId


@dataclass(frozen=True, slots=True)
class Header:
    """Everything in front of the directory.

    Attributes:
        width, height: true size in pixels.
        tile: side of a tile in cells, 0 where the picture is not tiled.
        groups: empty where there is one group, id 0, and no map.
        parameters: what one profile needs besides, at most 64 bytes.
        version: major and minor.
        redacted: the group map has one label more than there are groups: cells that were removed.
        extra: header bytes of a later minor version, kept but not understood.
    """

    profile: ProfileId
    fingerprint: bytes
    width: int
    height: int
    grey: bool
    tile: int
    coder: CoderId
    tasks: tuple[TaskInfo, ...]
    layers: tuple[LayerInfo, ...]
    groups: tuple[Group, ...]
    parameters: bytes = b""
    version: tuple[int, int] = c.VERSION
    redacted: bool = False
    extra: bytes = b""

    @property
    def coded_size(self) -> tuple[int, int]:
        """Height and width in pixels at which the picture is coded: the true ones, or less.

        Raises:
            FormatError: the parameters of a picture are damaged.
        """
        if self.profile != ProfileId.SCENE or not self.parameters:
            return self.height, self.width
        size = CodedSize.unpack(self.parameters)
        return size.height, size.width

    @property
    def is_apart(self) -> bool:
        """Whether a picture's base layer is not the one that layers of the whole picture go with.

        It was reduced, or adapted to a vision network, before it was coded.
        """
        return self.profile == ProfileId.SCENE and bool(self.parameters)

    @property
    def is_reduced(self) -> bool:
        """Whether a picture was reduced before it was coded."""
        return self.coded_size != (self.height, self.width)

    @property
    def cell_rows(self) -> int:
        """Rows of the cell grid; the last one may reach beyond the picture."""
        return -(-self.coded_size[0] // c.CELL)

    @property
    def cell_columns(self) -> int:
        """Columns of the cell grid; the last one may reach beyond the picture."""
        return -(-self.coded_size[1] // c.CELL)

    @property
    def tile_count(self) -> int:
        """Number of tiles, 1 where the picture is not tiled; they are counted row by row."""
        if not self.tile:
            return 1
        return -(-self.cell_rows // self.tile) * -(-self.cell_columns // self.tile)

    @property
    def map_labels(self) -> int:
        """Number of different labels in the group map; the last one is "absent" if redacted."""
        return len(self.groups) + self.redacted

    @property
    def group_ids(self) -> tuple[int, ...]:
        """Ids of the groups in table order; (0,) where the table is empty."""
        return tuple(group.id for group in self.groups) or (0,)

    def pack(self) -> bytes:
        """Write the fields from the profile to the last group (norm §3.4 to §3.13).

        Raises:
            RequestError: a field is not legal.
        """
        check(self, lambda field, message: RequestError(f"{field}: {message}"))
        out = ByteWriter()
        out.u8(self.profile, "profile")
        out.u8(c.FLAG_GREY * self.grey | c.FLAG_REDACTED * self.redacted, "flags")
        out.raw(self.fingerprint)
        out.varint(self.width, "width")
        out.varint(self.height, "height")
        out.varint(self.tile, "tile")
        out.u8(self.coder, "coder")
        out.u8(len(self.parameters), "parameters")
        out.raw(self.parameters)
        out.u8(len(self.tasks), "tasks")
        for task in self.tasks:
            out.u8(task.task, "tasks")
            out.u8(task.layer, "tasks")
        out.u8(len(self.layers), "layers")
        for layer in self.layers:
            out.u8(layer.layer, "layers")
            out.varint(layer.rate_level, "layers")
        out.varint(len(self.groups), "groups")
        for group in self.groups:
            _pack_group(group, out)
        return out.done()

    @classmethod
    def unpack(cls, fields: ByteReader, version: tuple[int, int], limits: Limits) -> Header:
        """Read what `pack` writes; `extra` stays empty, it lies behind the directory.

        Raises:
            FormatError: a field is not legal.
            UnsupportedError: a profile, coder or layer that this program does not know.
            LimitError: more pixels or groups than `limits` allows.
        """
        profile = _known(ProfileId, fields.u8("profile"), "profile")
        flags = fields.u8("flags")
        if flags & ~c.KNOWN_FLAGS:
            message, place = "reserved bits are set", fields.places["flags"]
            raise FormatError("flags", message, offset=place, stored=flags, expected=0)
        header = cls(
            profile=profile,
            fingerprint=fields.take(c.FINGERPRINT_BYTES, "fingerprint"),
            width=fields.varint("width"),
            height=fields.varint("height"),
            grey=bool(flags & c.FLAG_GREY),
            tile=fields.varint("tile"),
            coder=_known(CoderId, fields.u8("coder"), "coder"),
            parameters=fields.take(fields.u8("parameters"), "parameters"),
            tasks=tuple(_unpack_tasks(fields)),
            layers=tuple(_unpack_layers(fields)),
            groups=tuple(_unpack_groups(fields, limits)),
            version=version,
            redacted=bool(flags & c.FLAG_REDACTED),
        )
        if max(header.width, header.height) <= c.MAX_SIDE:  # before any rule that counts cells
            limits.check("max_pixels", header.width * header.height)
        check(header, lambda field, message: _corrupt(fields, field, message))
        limits.check("max_pixels", header.cell_rows * header.cell_columns * c.CELL**2)
        return header


def check(header: Header, fail: Fail) -> None:
    """Hold a header against norm §3 and §6; raise what `fail(field, message)` makes."""
    if header.version[0] != c.VERSION[0]:
        raise fail("major", f"{header.version[0]} is not {c.VERSION[0]}")
    if header.extra and header.version <= c.VERSION:
        raise fail("extra", f"version {header.version[0]}.{header.version[1]} has no such bytes")
    if len(header.fingerprint) != c.FINGERPRINT_BYTES:
        raise fail("fingerprint", f"has {len(header.fingerprint)} bytes, not 8")
    for field, side in (("width", header.width), ("height", header.height)):
        if not 1 <= side <= c.MAX_SIDE:
            raise fail(field, f"{side} is not within 1..{c.MAX_SIDE}")
    if not 0 <= header.tile <= c.MAX_TILE:
        raise fail("tile", f"{header.tile} is not within 0..{c.MAX_TILE}")
    if len(header.parameters) > c.MAX_PARAMETER_BYTES:
        raise fail("parameters", f"{len(header.parameters)} bytes are more than 64")
    _check_layers(header, fail)
    profile_rules.check(header, fail)
    _check_groups(header, fail)


def _check_layers(header: Header, fail: Fail) -> None:
    if not header.layers:
        raise fail("layers", "there is none")
    known = [info.layer for info in header.layers]
    if any(low >= high for low, high in pairwise(known)):
        raise fail("layers", "ids do not ascend")
    for position, info in enumerate(header.layers):
        if not 0 <= info.rate_level <= c.MAX_RATE_LEVEL:
            message = f"{info.rate_level} is not within 0..{c.MAX_RATE_LEVEL}"
            raise fail(f"layers[{position}].rate_level", message)
    if any(low.task >= high.task for low, high in pairwise(header.tasks)):
        raise fail("tasks", "ids do not ascend")
    for position, task in enumerate(header.tasks):
        if task.layer not in known:
            raise fail(f"tasks[{position}].layer", f"{task.layer} is not a layer of the file")


def _check_groups(header: Header, fail: Fail) -> None:
    if header.redacted and not header.groups:
        raise fail("groups", "a redacted file has at least one")
    if header.map_labels > c.MAX_GROUPS:
        raise fail("groups", f"{header.map_labels} labels are more than {c.MAX_GROUPS}")
    if len(set(header.group_ids)) != len(header.group_ids):
        raise fail("groups", "an id occurs twice")
    for position, group in enumerate(header.groups):
        for field, message in _group_faults(group, header.cell_rows, header.cell_columns):
            raise fail(f"groups[{position}].{field}", message)
    covered = sum(group.cells for group in header.groups)
    grid = header.cell_rows * header.cell_columns
    if covered > grid or (header.groups and not header.redacted and covered < grid):
        raise fail("groups", f"they have {covered} cells together where the picture has {grid}")


def _group_faults(group: Group, rows: int, columns: int) -> Iterator[tuple[str, str]]:
    if not 0 <= group.id <= c.MAX_GROUP_ID:
        yield "id", f"{group.id} is not within 0..{c.MAX_GROUP_ID}"
    if not CONTROL.isdisjoint(group.label):
        yield "label", "holds control characters"
    if len(group.label.encode("utf-8", "surrogatepass")) > c.MAX_LABEL_BYTES:
        yield "label", f"is longer than {c.MAX_LABEL_BYTES} bytes"
    if any("\ud800" <= character <= "\udfff" for character in group.label):
        yield "label", "is not Unicode text"
    if group.score is not None and not 0.0 <= group.score <= 1.0:
        yield "score", f"{group.score} is not within 0..1"
    box = group.box
    if min(box.left, box.top, box.width, box.height) < 0:
        yield "box", "is negative"
    if box.left + box.width > columns or box.top + box.height > rows:
        yield "box", f"reaches beyond the {columns} x {rows} cells of the picture"
    if not 1 <= group.cells <= box.width * box.height:
        yield (
            "cells",
            f"{group.cells} is not within 1..{box.width * box.height}, the cells of the box",
        )


def _corrupt(fields: ByteReader, field: str, message: str) -> FormatError:
    return FormatError(field, message, offset=fields.places.get(field))


def _known(ids: type[_Id], value: int, what: str) -> _Id:
    try:
        return ids(value)
    except ValueError:
        raise UnsupportedError(what, value, ", ".join(str(int(known)) for known in ids)) from None


def _unpack_tasks(fields: ByteReader) -> Iterator[TaskInfo]:
    for position in range(fields.u8("tasks")):
        task = fields.u8(f"tasks[{position}].task")
        layer = _known(LayerId, fields.u8(f"tasks[{position}].layer"), "layer")
        yield TaskInfo(TaskId(task) if task in TaskId._value2member_map_ else task, layer)


def _unpack_layers(fields: ByteReader) -> Iterator[LayerInfo]:
    for position in range(fields.u8("layers")):
        layer = _known(LayerId, fields.u8(f"layers[{position}].layer"), "layer")
        yield LayerInfo(layer, fields.varint(f"layers[{position}].rate_level"))


def _unpack_groups(fields: ByteReader, limits: Limits) -> Iterator[Group]:
    count = fields.varint("groups")
    if count > c.MAX_GROUPS:
        raise _corrupt(fields, "groups", f"{count} are more than {c.MAX_GROUPS}")
    limits.check("max_groups", count)
    for position in range(count):
        name = f"groups[{position}]"
        yield Group(
            id=fields.u8(f"{name}.id"),
            score=_score(fields.u8(f"{name}.score")),
            label=_unpack_label(fields, f"{name}.label"),
            box=Box(*(fields.varint(f"{name}.box") for _ in range(4))),
            cells=fields.varint(f"{name}.cells"),
        )


def _unpack_label(fields: ByteReader, field: str) -> str:
    data = fields.take(fields.u8(field), field)
    try:
        return data.decode("utf-8")
    except UnicodeDecodeError:
        raise _corrupt(fields, field, "is not UTF-8") from None


def _pack_group(group: Group, out: ByteWriter) -> None:
    label = group.label.encode("utf-8")
    out.u8(group.id, "id")
    out.u8(0 if group.score is None else 1 + round(group.score * c.SCORE_STEPS), "score")
    out.u8(len(label), "label")
    out.raw(label)
    for number in (group.box.left, group.box.top, group.box.width, group.box.height):
        out.varint(number, "box")
    out.varint(group.cells, "cells")


def _score(stored: int) -> float | None:
    return None if stored == 0 else (stored - 1) / c.SCORE_STEPS
