"""Facts about a file, as `vcm info` shows them: frozen dataclasses that are ready for JSON."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass

from vcmcodec.bitstream import texts
from vcmcodec.bitstream.constants import CELL, FILE_WIDE_LAYERS, WIDTHS, Kind, LayerId
from vcmcodec.bitstream.container import Container
from vcmcodec.bitstream.directory import Entry, kind_name
from vcmcodec.bitstream.header import Header
from vcmcodec.bitstream.parameters import FEATURE_PROFILES, FeatureParameters
from vcmcodec.bitstream.select import task_name
from vcmcodec.errors import FormatError


@dataclass(frozen=True, slots=True)
class SubstreamFacts:
    """One substream; `crc32` is hexadecimal, `whole` is False for one that is cut off."""

    kind: str
    layer: str
    group: int
    tile: int
    offset: int
    num_bytes: int
    crc32: str
    critical: bool
    whole: bool


@dataclass(frozen=True, slots=True)
class LayerFacts:
    """One layer; `num_bytes` and `bpp` are its own, without the layers below.

    `width` is that of the decoder that reads up to here; None where features are coded, which have
    none.  `rate_level` is the quality, 0..100.  `whole` is False for a layer that is cut off or
    that this part of a file does not hold.
    """

    name: str
    width: float | None
    rate_level: float
    num_bytes: int
    bpp: float
    whole: bool
    substreams: tuple[SubstreamFacts, ...]


@dataclass(frozen=True, slots=True)
class GroupFacts:
    """One group; the box is (left, top, width, height) in pixels, cut at the picture's edge."""

    id: int
    label: str
    score: float | None
    box: tuple[int, int, int, int]
    cells: int
    num_bytes: int


@dataclass(frozen=True, slots=True)
class TaskFacts:
    """One task.

    Attributes:
        num_bytes: of the header and of everything up to the task's layer that who has it reads.
        whole: whether the file has every layer that the task reads.
    """

    name: str
    layer: str
    num_bytes: int
    bpp: float
    whole: bool


@dataclass(frozen=True, slots=True)
class Description:
    """A file.

    Attributes:
        fingerprint: of the model, hexadecimal.
        grey: whether the picture has one channel; None where features are coded, which do not tell.
        tile: side of a tile in cells, 0 where the picture is not tiled.
        parameters: of the profile, hexadecimal.
        split: split point of the network whose features are coded; None where a picture is.
        input_size: width and height to which the picture was scaled for that network, or None.
        coded_size: width and height to which a picture was reduced before it was coded, or None.
        apart: whether a picture's base layer was reduced, or made for machines alone, so that no
            layers of the whole picture go with it.
        redacted: whether groups were removed without a trace.
        num_bytes: the whole file as its directory says, header included.
        header_bytes: everything before the first substream.
        bpp: `num_bytes` in bits over the picture's true pixels.
        cut_off: whether the file ends too early.
        text: notes about the picture, by key; empty where they are not there or damaged.
    """

    version: str
    profile: str
    fingerprint: str
    width: int
    height: int
    grey: bool | None
    redacted: bool
    coder: str
    tile: int
    parameters: str
    split: str | None
    input_size: tuple[int, int] | None
    coded_size: tuple[int, int] | None
    apart: bool
    num_bytes: int
    header_bytes: int
    bpp: float
    cut_off: bool
    warnings: tuple[str, ...]
    tasks: tuple[TaskFacts, ...]
    layers: tuple[LayerFacts, ...]
    groups: tuple[GroupFacts, ...]
    text: dict[str, str]


def read_text(container: Container) -> dict[str, str]:
    """Notes about the picture, by key; empty where there are none.

    Raises:
        FormatError: they are damaged.
    """
    pairs: dict[str, str] = {}
    for data in container.fetch(container.find(Kind.TEXT), whole_only=True).values():
        pairs |= texts.unpack(data)
    return pairs


def describe(container: Container) -> Description:
    """Gather the facts from header and directory; of payload, only notes are read."""
    header = container.header
    notes: tuple[str, ...] = ()
    text: dict[str, str] = {}
    try:
        text = read_text(container)
    except FormatError as error:
        notes = (str(error),)
    own = _feature_parameters(header)
    return Description(
        version=f"{header.version[0]}.{header.version[1]}",
        profile=header.profile.name.lower(),
        fingerprint=header.fingerprint.hex(),
        width=header.width,
        height=header.height,
        grey=None if header.profile in FEATURE_PROFILES else header.grey,
        redacted=header.redacted,
        coder=header.coder.name.lower(),
        tile=header.tile,
        parameters=header.parameters.hex(),
        split=own.split if own else None,
        input_size=(own.scaled_width, own.scaled_height) if own else None,
        coded_size=_coded_size(header),
        apart=header.is_apart,
        num_bytes=container.size,
        header_bytes=container.header_bytes,
        bpp=_bpp(container, container.size),
        cut_off=container.is_cut_off,
        warnings=container.warnings + notes,
        tasks=tuple(_task_facts(container)),
        layers=tuple(_layer_facts(container)),
        groups=tuple(_group_facts(container)),
        text=text,
    )


def _coded_size(header: Header) -> tuple[int, int] | None:
    """Width and height at which a picture is coded; None for features, and for the true size."""
    height, width = header.coded_size
    return (width, height) if header.is_reduced else None


def _feature_parameters(header: Header) -> FeatureParameters | None:
    """Where the features were taken; None for pictures, and where that is damaged."""
    if header.profile not in FEATURE_PROFILES:
        return None
    try:
        return FeatureParameters.unpack(header.parameters)
    except FormatError:
        return None


def _task_facts(container: Container) -> Iterable[TaskFacts]:
    for info in container.header.tasks:
        up_to = [entry for entry in container.entries if entry.layer <= info.layer]
        needed = (entry for entry in up_to if entry.critical or entry.kind == Kind.ICC)
        num_bytes = container.header_bytes + _total(needed)
        yield TaskFacts(
            name=task_name(info.task),
            layer=info.layer.name.lower(),
            num_bytes=num_bytes,
            bpp=_bpp(container, num_bytes),
            whole=_has_layers_up_to(container, info.layer),
        )


def _has_layers_up_to(container: Container, layer: LayerId) -> bool:
    """Whether of every layer up to one something is there, and all of that is whole."""
    needed = [info.layer for info in container.header.layers if info.layer <= layer]
    found = [[e for e in container.find(layer=one) if e.critical] for one in needed]
    return all(entries and all(map(container.is_whole, entries)) for entries in found)


def _layer_facts(container: Container) -> Iterable[LayerFacts]:
    of_features = container.header.profile in FEATURE_PROFILES
    for info in container.header.layers:
        entries = container.find(layer=info.layer)
        yield LayerFacts(
            name=info.layer.name.lower(),
            width=None if of_features else WIDTHS[info.layer],
            rate_level=info.rate_level / 100,
            num_bytes=_total(entries),
            bpp=_bpp(container, _total(entries)),
            whole=bool(entries) and all(map(container.is_whole, entries)),
            substreams=tuple(_substream_facts(container, entry) for entry in entries),
        )


def _substream_facts(container: Container, entry: Entry) -> SubstreamFacts:
    return SubstreamFacts(
        kind=kind_name(entry.kind),
        layer=entry.layer.name.lower(),
        group=entry.group,
        tile=entry.tile,
        offset=entry.offset,
        num_bytes=entry.length,
        crc32=f"{entry.crc32:08x}",
        critical=entry.critical,
        whole=container.is_whole(entry),
    )


def _group_facts(container: Container) -> Iterable[GroupFacts]:
    header = container.header
    down, across = header.coded_size
    num_bytes: Counter[int] = Counter()
    for entry in container.entries:
        if entry.kind not in FILE_WIDE_LAYERS:
            num_bytes[entry.group] += entry.length
    for group in header.groups:
        box = group.box
        left, right = (_pixel(x, across, header.width) for x in (box.left, box.left + box.width))
        top, bottom = (_pixel(y, down, header.height) for y in (box.top, box.top + box.height))
        yield GroupFacts(
            id=group.id,
            label=group.label,
            score=group.score,
            box=(left, top, right - left, bottom - top),
            cells=group.cells,
            num_bytes=num_bytes[group.id],
        )


def _pixel(cell: int, coded: int, true: int) -> int:
    """Where the left or upper edge of a cell lies in the true picture, which it may end."""
    return min(cell * CELL, coded) * true // coded


def _total(entries: Iterable[Entry]) -> int:
    return sum(entry.length for entry in entries)


def _bpp(container: Container, num_bytes: int) -> float:
    return 8 * num_bytes / (container.header.width * container.header.height)
