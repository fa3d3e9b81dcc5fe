"""Choosing some layers, tasks or groups of a file, and putting parts together (norm §8).

Substreams move as they are; no byte of them is understood here.
"""

from __future__ import annotations

import operator
from collections.abc import Callable, Iterable, Mapping, Sequence
from collections.abc import Set as AbstractSet
from dataclasses import dataclass, replace
from typing import Any, TypeVar

from vcmcodec.bitstream.constants import FILE_WIDE_LAYERS, WIDTHS, Kind, LayerId, TaskId
from vcmcodec.bitstream.container import Container, Substream, write
from vcmcodec.bitstream.directory import Entry, Order
from vcmcodec.bitstream.header import Header, LayerInfo, TaskInfo
from vcmcodec.errors import RequestError

_T = TypeVar("_T")


@dataclass(frozen=True, slots=True)
class Selection:
    """What a part of a file will hold."""

    header: Header
    entries: tuple[Entry, ...]


# --- names that a caller may use -------------------------------------------------------------


def several(names: Any) -> tuple[Any, ...]:
    """Names or ids of tasks, layers or groups as a caller gave them: one is a list of one."""
    if isinstance(names, str | int) or not isinstance(names, Iterable):
        return (names,)
    return tuple(names)


def task_id(header: Header, name: TaskId | int | str) -> int:
    """Return the id of a task of this file, asked for by id or name.

    Raises:
        RequestError: the file was not written for it.
    """
    names = {info.task: task_name(info.task) for info in header.tasks}
    for task, known in names.items():
        if name in (task, known):
            return task
    raise RequestError(f"no task {name!r} in this file; it has {_listed(names.values())}")


def task_name(task: int) -> str:
    """A task in words; `task 9` for one that this program does not know."""
    return task.name.lower() if isinstance(task, TaskId) else f"task {task}"


def layer_id(header: Header, name: LayerId | int | str) -> LayerId:
    """Return the id of a layer of this file, asked for by id or name.

    Raises:
        RequestError: the file has no such layer.
    """
    known = [info.layer for info in header.layers]
    for layer in known:
        if name in (layer, layer.name.lower()):
            return layer
    listed = _listed(layer.name.lower() for layer in known)
    raise RequestError(f"no layer {name!r} in this file; it has {listed}")


def layers_of_width(header: Header, width: float) -> tuple[LayerId, ...]:
    """Return the layers that a decoder of this width reads: 0.25, 0.5 or 1.0.

    Raises:
        RequestError: no such width, or the file lacks the layer that completes it.
    """
    known = tuple(info.layer for info in header.layers)
    for layer in known:
        if WIDTHS[layer] == width:
            return tuple(lower for lower in known if lower <= layer)
    listed = _listed(f"{WIDTHS[layer]:g}" for layer in known)
    raise RequestError(f"no width {width!r} in this file; it has {listed}")


def group_ids(header: Header, names: Iterable[int | str]) -> tuple[int, ...]:
    """Return the ids of groups asked for by id or label, in table order.

    A number, also one written as text, is an id where the file has that id; any other text is a
    label and stands for every group that bears it.

    Raises:
        RequestError: the file has no such group.
    """
    wanted: set[int] = set()
    for name in names:
        wanted |= _groups_called(header, name)
    if not wanted:
        raise RequestError("no group was asked for")
    return tuple(group for group in header.group_ids if group in wanted)


def _groups_called(header: Header, name: int | str) -> set[int]:
    number = _as_id(name)
    if number in header.group_ids:
        return {number}
    found = {group.id for group in header.groups if group.label == name}
    if not found:
        labels = _listed(group.title for group in header.groups)
        raise RequestError(f"no group {name!r} in this file; it has {labels or '0'}")
    return found


def _as_id(name: int | str) -> int | None:
    """A number, also one of numpy's or in digits; None where it is none."""
    if isinstance(name, str):
        return int(name) if name.isascii() and name.isdigit() else None
    try:
        return operator.index(name)
    except TypeError:
        return None


# --- choosing --------------------------------------------------------------------------------


def choose(
    container: Container,
    *,
    layers: Iterable[LayerId | int | str] | None = None,
    groups: Iterable[int | str] | None = None,
    tasks: Iterable[TaskId | int | str] | None = None,
) -> Selection:
    """Plan a part of a file, by layers or by tasks, and by groups; None means all.

    By tasks, or by layers where they are the lowest of the file: the part's tables are those of a
    file that was written for this, so it equals that file, where that has the same coded size and
    rate levels and was not adapted to a network.  By other layers: the tables stay
    whole, so that `merge` finds in them what the lower part has lost.  By groups: the tables and
    the group map stay whole too.

    Raises:
        RequestError: something asked for is not in the file, or nothing would be left.
    """
    header = container.header
    if tasks is not None and layers is not None:
        raise RequestError("choose by tasks or by layers, not by both")
    kept = {info.layer for info in header.layers}
    if tasks is not None:
        asked = {task_id(header, name) for name in tasks}
        if not asked:
            raise RequestError("no task was asked for")
        chosen = tuple(info for info in header.tasks if info.task in asked)
        top = max(info.layer for info in chosen)
        kept = {layer for layer in kept if layer <= top}
        header = _lowest_layers(header, kept, chosen)
    elif layers is not None:
        kept = {layer_id(header, name) for name in layers}
        if not kept:
            raise RequestError("no layer was asked for")
        below = {info.layer for info in header.layers if info.layer <= max(kept)}
        if kept == below:
            served = tuple(info for info in header.tasks if info.layer in kept)
            header = _lowest_layers(header, kept, served)
    entries = tuple(entry for entry in container.entries if entry.layer in kept)
    if groups is not None:
        entries = _of_groups(container.header, entries, group_ids(container.header, groups))
    if not entries:
        raise RequestError("the file holds no substream of what was asked for")
    return Selection(header, entries)


def select(
    container: Container,
    *,
    layers: Iterable[LayerId | int | str] | None = None,
    groups: Iterable[int | str] | None = None,
    tasks: Iterable[TaskId | int | str] | None = None,
) -> bytes:
    """Write the part of a file that `choose` plans; see there.

    Raises:
        RequestError: something asked for is not in the file, or nothing would be left.
        FormatError: a substream of the part is damaged or cut off.
    """
    return assemble(container, choose(container, layers=layers, groups=groups, tasks=tasks))


def redact(selection: Selection, keep: Sequence[int]) -> Selection:
    """Plan the removal of what tells of the groups that are not in `keep`, but for their cells.

    Their lines in the table go; so do text and unknown ancillary substreams that speak of the
    whole picture, and header bytes that this program does not understand, because nobody can tell
    whether they speak of those groups.  The group map has to be coded again by the caller.
    Where every group is kept, there is nothing to remove.

    Raises:
        RequestError: the file has no group table.
    """
    header = selection.header
    if not header.groups:
        raise RequestError("the file has no groups to redact")
    left = tuple(group for group in header.groups if group.id in keep)
    if not left:
        raise RequestError("nothing would be left after redacting every group")
    if left == header.groups:
        return selection
    ids = set(header.group_ids)
    entries = tuple(
        entry
        for entry in _of_groups(header, selection.entries, keep)
        if _is_of_a_group(entry, ids) or entry.kind in (Kind.GROUP_MAP, Kind.ICC)
    )
    version = header.version if not header.extra else (header.version[0], 0)
    header = replace(header, groups=left, redacted=True, extra=b"", version=version)
    return Selection(header, entries)


def assemble(
    container: Container, selection: Selection, replaced: Mapping[Entry, bytes] | None = None
) -> bytes:
    """Write a selection; `replaced` gives new bytes for some of its entries.

    Raises:
        FormatError: a substream of the part is damaged or cut off.
    """
    new = dict(replaced or {})
    data = container.fetch(entry for entry in selection.entries if entry not in new) | new
    return write(selection.header, [_substream(e, data[e]) for e in selection.entries])


def _lowest_layers(
    header: Header, kept: AbstractSet[LayerId], tasks: tuple[TaskInfo, ...]
) -> Header:
    layers = tuple(info for info in header.layers if info.layer in kept)
    return replace(header, layers=layers, tasks=tasks)


def _is_of_a_group(entry: Entry, groups: AbstractSet[int]) -> bool:
    """Whether an entry speaks of one of the file's groups, not of the whole picture (norm §4.2)."""
    return entry.group in groups and entry.kind not in FILE_WIDE_LAYERS


def _of_groups(
    header: Header, entries: tuple[Entry, ...], keep: Iterable[int]
) -> tuple[Entry, ...]:
    dropped = set(header.group_ids).difference(keep)
    return tuple(entry for entry in entries if not _is_of_a_group(entry, dropped))


# --- merging ---------------------------------------------------------------------------------

_MUST_AGREE = (
    "version",
    "profile",
    "fingerprint",
    "width",
    "height",
    "grey",
    "redacted",
    "tile",
    "coder",
    "parameters",
    "groups",
    "extra",
)


def merge(containers: Sequence[Container]) -> bytes:
    """Put parts of one file together; their order does not matter.

    The tables of layers and tasks are united, every other field must agree, and a substream that
    several parts hold must be the same in all of them.

    Raises:
        RequestError: there is no part, or two parts do not belong to the same file.
        FormatError: a part is damaged or cut off.
    """
    if not containers:
        raise RequestError("there is nothing to merge")
    headers = [container.header for container in containers]
    for position, header in enumerate(headers[1:], start=2):
        for field in _MUST_AGREE:
            if getattr(header, field) != getattr(headers[0], field):
                apart = field == "parameters" and (header.is_apart or headers[0].is_apart)
                why = ": a base layer for machines alone goes with no other layers" if apart else ""
                raise RequestError(f"parts 1 and {position} differ in {field}{why}")
    header = replace(
        headers[0],
        layers=_united([h.layers for h in headers], "layers", _by_layer),
        tasks=_united([h.tasks for h in headers], "tasks", _by_task),
    )
    order = Order(header)
    parts: dict[tuple[int, ...], Substream] = {}
    for container in containers:
        for entry, data in container.fetch(container.entries).items():
            part = _substream(entry, data)
            if parts.setdefault(order.of(entry), part) != part:
                raise RequestError(f"the parts have different bytes for the {entry.name}")
    return write(header, parts.values())


def _united(
    tables: Sequence[tuple[_T, ...]], field: str, key: Callable[[_T], int]
) -> tuple[_T, ...]:
    lines: dict[int, _T] = {}
    for table in tables:
        for line in table:
            if lines.setdefault(key(line), line) != line:
                raise RequestError(f"the parts differ in {field}: {lines[key(line)]} and {line}")
    return tuple(lines[number] for number in sorted(lines))


def _by_layer(info: LayerInfo) -> int:
    return info.layer


def _by_task(info: TaskInfo) -> int:
    return info.task


def _substream(entry: Entry, data: bytes) -> Substream:
    return Substream(entry.kind, entry.layer, entry.group, data, entry.tile)


def _listed(names: Iterable[str]) -> str:
    return ", ".join(names)
