"""Extract, merge and verify: what can be done to a file without a model (norm §8).

The one place that joins the byte room with the coding of group maps.  It needs neither torch nor
numpy, so `vcm extract`, `merge` and `verify` start at once.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass

from vcmcodec.bitstream import icc, select, texts
from vcmcodec.bitstream.constants import Kind, LayerId, TaskId
from vcmcodec.bitstream.container import Container
from vcmcodec.bitstream.directory import Entry, kind_name
from vcmcodec.bitstream.header import Box, Header
from vcmcodec.bitstream.limits import Limits
from vcmcodec.errors import FormatError, RequestError, VcmError
from vcmcodec.sources import Openable, opened

DeepCheck = Callable[[Container], "Iterable[tuple[Entry, VcmError]]"]


def extract(
    source: Openable,
    *,
    tasks: Iterable[TaskId | int | str] | TaskId | int | str | None = None,
    layers: Iterable[LayerId | int | str] | LayerId | int | str | None = None,
    width: float | None = None,
    groups: Iterable[int | str] | int | str | None = None,
    drop_groups: Iterable[int | str] | int | str | None = None,
    redact: bool = False,
    limits: Limits | None = None,
) -> bytes:
    """Return a file with a part of the substreams, which are moved as they are.

    Args:
        source: the file: a path, bytes, a binary file object, or a source of byte ranges.
        tasks: keep what these read, one or several; the result equals what encoding for them writes
            at the same base quality and, where they are machine tasks alone, a longer side of 0.
        layers: keep these layers.
        width: keep what a decoder of this width reads: 0.25, 0.5 or 1.0.
        groups: keep these groups, by id or label; the group map stays whole, for `merge`.
        drop_groups: keep all groups but these.
        redact: of the groups that are not kept remove label, score and box, and make one of their
            cells; with them go texts and what else may speak of them.  Where cells are missing
            stays to be seen.
        limits: what to accept.

    Raises:
        RequestError: something asked for is not in the file, or options contradict each other.
        FormatError: the file is damaged.
    """
    tasks, layers, groups, drop_groups = (
        None if names is None else select.several(names)
        for names in (tasks, layers, groups, drop_groups)
    )
    if sum(choice is not None for choice in (tasks, layers, width)) > 1:
        raise RequestError("choose by tasks, layers or width: one of them")
    if groups is not None and drop_groups is not None:
        raise RequestError("choose groups to keep or groups to drop, not both")
    if redact and groups is None and drop_groups is None:
        raise RequestError("redact: say which groups to keep or to drop")
    with opened(source) as file:
        container = Container.read(file, limits)
        header = container.header
        if width is not None:
            layers = select.layers_of_width(header, width)
        keep = _kept_groups(header, groups, drop_groups)
        chosen = select.choose(container, layers=layers, tasks=tasks, groups=keep)
        if not redact or keep is None:
            return select.assemble(container, chosen)
        return _redacted(container, chosen, keep)


def merge(sources: Iterable[Openable], *, limits: Limits | None = None) -> bytes:
    """Put parts of one file together; their order does not matter.

    Raises:
        RequestError: the parts do not belong to the same file, or one is not there.
        FormatError: a part is damaged or cut off; it is named.
    """
    parts: dict[str, Container] = {}
    with ExitStack() as stack:
        for position, source in enumerate(sources, start=1):
            name = _part_name(source, position, parts)
            with _named(name):
                parts[name] = Container.read(stack.enter_context(opened(source)), limits)
        try:
            return select.merge(list(parts.values()))
        except FormatError:
            for name, container in parts.items():  # whose bytes they were
                with _named(name):
                    container.fetch(container.entries)
            raise


def _part_name(source: Openable, position: int, taken: Collection[str]) -> str:
    """What errors call a part: its own name, if it has one that is free, or else its number."""
    own = source if isinstance(source, str | os.PathLike) else getattr(source, "name", None)
    name = os.fspath(own) if isinstance(own, str | os.PathLike) else ""
    return name if name and name not in taken else f"part {position}"


@contextmanager
def _named(name: str) -> Iterator[None]:
    """Put a name in front of what goes wrong."""
    try:
        yield
    except VcmError as error:
        error.args = (f"{name}: {str(error).removeprefix(f'{name}: ')}",)
        raise


@dataclass(frozen=True, slots=True)
class Finding:
    """One substream and what is wrong with it: `problem` is None, or one line for people.

    `code` is that of the error class, such as `corrupt` or `truncated`; "ok" where all is well.
    """

    kind: str
    layer: str
    group: int
    tile: int
    offset: int
    num_bytes: int
    code: str
    problem: str | None


@dataclass(frozen=True, slots=True)
class Report:
    """What `verify` found.

    Attributes:
        ok: every byte of the file is there and as it was written.
        num_bytes: bytes of the file as its directory says.
        deep: whether the symbols were decoded, too.
        warnings: what is wrong with the file as a whole.
        findings: one for each substream, in directory order.
    """

    ok: bool
    num_bytes: int
    deep: bool
    warnings: tuple[str, ...]
    findings: tuple[Finding, ...]


def verify(
    source: Openable,
    *,
    deep: bool = False,
    decode_symbols: DeepCheck | None = None,
    limits: Limits | None = None,
) -> Report:
    """Check header, directory, every CRC-32, ICC profile, text, and group map against its table.

    Args:
        source: the file.
        deep: decode the symbols as well, by `decode_symbols`.
        decode_symbols: given a container, yields what is wrong with which entry; it needs the
            model, so it comes from a room above this one.
        limits: what to accept.

    Raises:
        FormatError: header or directory is damaged, so that nothing can be said of the rest.
        RequestError: there is no such file, or `deep` without `decode_symbols`.
    """
    if deep and decode_symbols is None:
        raise RequestError("a deep check needs the model that decodes the symbols")
    with opened(source) as file:
        container = Container.read(file, limits)
        problems: dict[Entry, VcmError] = {}
        for entry in container.entries:
            problem = _problem(container, entry)
            if problem is not None:
                problems[entry] = problem
        if deep and decode_symbols is not None:
            for entry, error in decode_symbols(container):
                problems.setdefault(entry, error)
    findings = tuple(_finding(entry, problems.get(entry)) for entry in container.entries)
    return Report(
        ok=not problems and not container.is_cut_off,
        num_bytes=container.size,
        deep=deep,
        warnings=container.warnings,
        findings=findings,
    )


def read_group_map(container: Container, data: bytes) -> list[int]:
    """Decode the bytes of a group map into one label a cell, row by row.

    Returns:
        Positions in `header.groups`; `len(header.groups)` for cells that were redacted.

    Raises:
        FormatError: the map is damaged, or does not fit boxes and counts of the group table.
    """
    from vcmcodec.entropy.group_map import decode_group_map

    header = container.header
    rows, columns = header.cell_rows, header.cell_columns
    labels = decode_group_map(data, rows, columns, header.map_labels)
    _check_map(header, labels)
    return labels


def _kept_groups(
    header: Header,
    groups: Iterable[int | str] | None,
    drop_groups: Iterable[int | str] | None,
) -> tuple[int, ...] | None:
    if groups is not None:
        return select.group_ids(header, groups)
    if drop_groups is None:
        return None
    dropped = select.group_ids(header, drop_groups)
    kept = tuple(group for group in header.group_ids if group not in dropped)
    if not kept:
        raise RequestError("nothing would be left after dropping every group")
    return kept


def _redacted(container: Container, chosen: select.Selection, keep: Sequence[int]) -> bytes:
    from vcmcodec.entropy.group_map import encode_group_map

    selection = select.redact(chosen, keep)
    if selection == chosen:
        return select.assemble(container, chosen)
    old, new = container.header, selection.header
    absent = len(new.groups)
    positions = {group.id: position for position, group in enumerate(new.groups)}
    relabel = [positions.get(group.id, absent) for group in old.groups] + [absent]
    maps = {}
    for entry, data in container.fetch(
        entry for entry in selection.entries if entry.kind == Kind.GROUP_MAP
    ).items():
        labels = [relabel[label] for label in read_group_map(container, data)]
        maps[entry] = encode_group_map(labels, old.cell_columns, new.map_labels)
    return select.assemble(container, selection, maps)


def _problem(container: Container, entry: Entry) -> VcmError | None:
    try:
        data = container.fetch([entry])[entry]
        if entry.kind == Kind.GROUP_MAP:
            read_group_map(container, data)
        elif entry.kind == Kind.ICC:
            icc.expand(data)
        elif entry.kind == Kind.TEXT:
            texts.unpack(data)
    except FormatError as error:
        return error
    return None


def _finding(entry: Entry, problem: VcmError | None) -> Finding:
    return Finding(
        kind=kind_name(entry.kind),
        layer=entry.layer.name.lower(),
        group=entry.group,
        tile=entry.tile,
        offset=entry.offset,
        num_bytes=entry.length,
        code=problem.code if problem else "ok",
        problem=str(problem) if problem else None,
    )


def _check_map(header: Header, labels: Sequence[int]) -> None:
    """Hold a map against the counts and boxes of the group table."""
    columns = header.cell_columns
    places: list[list[int]] = [[] for _ in range(header.map_labels)]
    for cell, label in enumerate(labels):
        places[label].append(cell)
    for group, cells in zip(header.groups, places, strict=False):
        if len(cells) != group.cells:
            message = f"group {group.id} has {len(cells)} cells"
            raise FormatError("group map", message, stored=len(cells), expected=group.cells)
        left, top = min(cell % columns for cell in cells), cells[0] // columns
        right, bottom = max(cell % columns for cell in cells), cells[-1] // columns
        box = Box(left, top, right - left + 1, bottom - top + 1)
        if box != group.box:
            message = f"group {group.id} does not fill its box"
            raise FormatError("group map", message, stored=box, expected=group.box)
