"""Hypothesis strategies for legal files, and sources that count what is read from them."""

from __future__ import annotations

from dataclasses import dataclass

from hypothesis import strategies as st

from vcmcodec.bitstream import icc
from vcmcodec.bitstream.constants import CoderId, Kind, LayerId, ProfileId, TaskId
from vcmcodec.bitstream.container import Substream, write
from vcmcodec.bitstream.header import Box, Group, Header, LayerInfo, TaskInfo
from vcmcodec.bitstream.parameters import CodedSize, FeatureParameters
from vcmcodec.bitstream.profile_rules import CODERS

UNKNOWN_ANCILLARY = 0x2A
# Those that may have several layers more often: many tests are about layers.
_LAYERED = (ProfileId.SCENE, ProfileId.BOTTLENECK)
_PROFILES = (*[ProfileId.SCENE, ProfileId.BOTTLENECK] * 3, ProfileId.PYRAMID, ProfileId.SEMANTIC)
PAYLOAD = st.binary(max_size=40)


@dataclass(frozen=True)
class MadeFile:
    """A legal file, what it was made of, and its group map: one position in `groups` a cell."""

    header: Header
    substreams: tuple[Substream, ...]
    labels: tuple[int, ...]

    @property
    def data(self) -> bytes:
        return write(self.header, self.substreams)


@st.composite
def groups_of_a_grid(draw, rows: int, columns: int) -> tuple[tuple[Group, ...], tuple[int, ...]]:
    count = draw(st.integers(0, 4))
    if not count:
        return (), (0,) * (rows * columns)
    cell = st.integers(0, count - 1)
    drawn = draw(st.lists(cell, min_size=rows * columns, max_size=rows * columns))
    present = sorted(set(drawn))
    labels = tuple(present.index(label) for label in drawn)
    ids = draw(st.permutations(range(6))) if draw(st.booleans()) else [255, 0, 7, 3]
    text = st.text(st.characters(codec="utf-8", exclude_categories=("Cc", "Cs")), max_size=12)
    groups = []
    for position in range(len(present)):
        places = [divmod(at, columns) for at, label in enumerate(labels) if label == position]
        top, bottom = min(r for r, _ in places), max(r for r, _ in places)
        left, right = min(c for _, c in places), max(c for _, c in places)
        score = draw(st.none() | st.integers(0, 254).map(lambda step: step / 254))
        box = Box(left, top, right - left + 1, bottom - top + 1)
        groups.append(Group(ids[position], draw(text), score, box, len(places)))
    return tuple(groups), labels


@st.composite
def feature_parameters(draw) -> bytes:
    split = draw(
        st.text(st.characters(min_codepoint=33, max_codepoint=126), min_size=1, max_size=16)
    )
    return FeatureParameters(split, *(draw(st.integers(1, 4096)) for _ in range(2))).pack()


@st.composite
def rated_layers(
    draw, profile: ProfileId, layered: bool
) -> tuple[tuple[int, ...], tuple[int, ...]]:
    """Layers that a profile allows, and their rate levels."""
    base = draw(st.integers(0, 10_000))
    if profile in (ProfileId.PYRAMID, ProfileId.SEMANTIC):
        return (0,), (base,)
    layers = draw(st.sampled_from([(0, 1), (0, 1, 2), (0, 2), *([] if layered else [(0,)])]))
    people = draw(st.integers(base, 10_000)) if profile == ProfileId.SCENE else base
    return layers, tuple(people if layer else base for layer in layers)


@st.composite
def headers(draw, layered: bool = False) -> tuple[Header, tuple[int, ...]]:
    """Legal headers, and their cells' labels; `layered`: some task reads less than all layers."""
    width, height = draw(st.integers(1, 90)), draw(st.integers(1, 90))
    profile = draw(st.sampled_from(_LAYERED if layered else _PROFILES))
    coded = CodedSize(height, width)
    parameters = b"" if profile == ProfileId.SCENE else draw(feature_parameters())
    if profile == ProfileId.SCENE and draw(st.booleans()):
        coded = CodedSize(draw(st.integers(1, height)), draw(st.integers(1, width)))
        parameters = coded.pack()
    groups, labels = draw(groups_of_a_grid(-(-coded.height // 16), -(-coded.width // 16)))
    layers, rates = draw(rated_layers(profile, layered))
    tasks = draw(st.dictionaries(st.sampled_from([0, 1, 2, 3, 77]), st.sampled_from(layers)))
    if layered:
        tasks[draw(st.sampled_from([0, 1, 2, 3, 77]))] = 0
    minor = draw(st.sampled_from([0, 0, 0, 4]))
    header = Header(
        profile=profile,
        fingerprint=draw(st.binary(min_size=8, max_size=8)),
        width=width,
        height=height,
        grey=draw(st.booleans()),
        tile=draw(st.sampled_from([0, 0, 2, 5])) if profile == ProfileId.SCENE else 0,
        coder=CODERS[profile],
        tasks=tuple(
            TaskInfo(TaskId(task) if task < 4 else task, LayerId(tasks[task]))
            for task in sorted(tasks)
        ),
        layers=tuple(map(LayerInfo, map(LayerId, layers), rates)),
        groups=groups,
        parameters=parameters,
        version=(1, minor),
        extra=draw(st.binary(max_size=9)) if minor else b"",
    )
    return header, labels


@st.composite
def made_files(draw, layered: bool = False) -> MadeFile:
    """Files with a latent in every layer, tile and group, and anything else now and then."""
    header, labels = draw(headers(layered))
    parts = []
    for layer in (info.layer for info in header.layers):
        for tile in range(header.tile_count):
            for group in header.group_ids:
                parts.append(Substream(Kind.LATENT, layer, group, draw(PAYLOAD), tile))
                if layer == LayerId.MID and draw(st.booleans()):
                    parts.append(Substream(Kind.REFINEMENT, layer, group, draw(PAYLOAD), tile))
                if draw(st.booleans()):
                    parts.append(Substream(Kind.DIGEST, layer, group, b"8 bytes.", tile))
        if draw(st.booleans()):
            group = draw(st.sampled_from((0, *header.group_ids)))
            parts.append(Substream(UNKNOWN_ANCILLARY, layer, group, draw(PAYLOAD)))
        if layer == LayerId.MID and draw(st.booleans()):
            profile = icc.compress(b"p" + draw(PAYLOAD))
            parts.append(Substream(Kind.ICC, layer, 0, profile))
            parts.append(Substream(Kind.TEXT, layer, 0, draw(st.text(max_size=12)).encode()))
    if header.groups:
        parts.append(Substream(Kind.GROUP_MAP, LayerId.BASE, 0, draw(PAYLOAD)))
    return MadeFile(header, tuple(draw(st.permutations(parts))), labels)


class CountingSource:
    """A source that keeps a list of the (offset, length) it was asked for."""

    def __init__(self, data: bytes, *, exact: bool = False, size: int | None = None) -> None:
        self.data, self.exact, self.size = data, exact, size
        self.reads: list[tuple[int, int]] = []

    def get_bytes(self, offset: int, length: int) -> bytes:
        self.reads.append((offset, length))
        return self.data[offset : offset + length]


def plain_header(**changes) -> Header:
    """The header of a picture of 768 x 512 pixels, for detection, without groups."""
    fields = {
        "profile": ProfileId.SCENE,
        "fingerprint": bytes(range(8)),
        "width": 768,
        "height": 512,
        "grey": False,
        "tile": 0,
        "coder": CoderId.RANS_16,
        "tasks": (TaskInfo(TaskId.DETECTION, LayerId.BASE),),
        "layers": (LayerInfo(LayerId.BASE, 3000),),
        "groups": (),
    }
    return Header(**(fields | changes))


def layered_file(payload: int = 3000) -> bytes:
    """A file with three layers of `payload` bytes each, two groups in each, and a group map."""
    half = Box(0, 0, 48, 16), Box(0, 16, 48, 16)
    names = (0, "background", None), (9, "person", 1.0)
    header = plain_header(
        tasks=(TaskInfo(TaskId.HUMAN, LayerId.FULL), TaskInfo(TaskId.DETECTION, LayerId.BASE)),
        layers=tuple(LayerInfo(layer, 5000) for layer in LayerId),
        groups=tuple(Group(*name, box, 768) for name, box in zip(names, half, strict=True)),
    )
    parts = [Substream(Kind.GROUP_MAP, LayerId.BASE, 0, b"map of cells")]
    for layer in LayerId:
        for group in (0, 9):
            data = bytes([16 * layer + group]) * (payload // 2)
            parts.append(Substream(Kind.LATENT, layer, group, data))
    return write(header, parts)
