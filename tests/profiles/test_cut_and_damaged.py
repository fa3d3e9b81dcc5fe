"""Real files that are cut off or damaged: what is whole decodes, the rest is an error."""

from __future__ import annotations

import struct
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from itertools import chain
from typing import Any

import numpy as np
import pytest

from photographs import astronaut, photograph, pixels_of, rewritten, substreams
from vcmcodec import edit
from vcmcodec.bitstream.constants import FIRST_READ_BYTES, Kind, LayerId
from vcmcodec.bitstream.container import Container, Entry, Substream, write
from vcmcodec.codec import decode, encode
from vcmcodec.codec import open as open_file
from vcmcodec.errors import FormatError, TruncatedError, VcmError
from vcmcodec.sources import Openable

HEIGHT, WIDTH = 70, 90
CELLS = np.array([[0, 0, 0, 1, 1, 1], [0, 0, 2, 2, 1, 1], [0, 2, 2, 2, 0, 1], [0, 0, 2, 0, 0, 0],
                  [0, 0, 0, 0, 0, 0]], np.uint8)  # fmt: skip


@cache
def file(*, digest: bool = False) -> bytes:
    """Three groups, three layers, a refinement."""
    return encode(astronaut(HEIGHT, WIDTH), quality=80, groups=CELLS, digest=digest)


@cache
def picture_at(layer: LayerId) -> np.ndarray:
    return np.asarray(decode(file(), width={0: 0.25, 1: 0.5, 2: 1.0}[layer]))


def cuts(container: Container) -> list[int]:
    """Around every border of substreams, inside each, and in the header."""
    borders = {container.header_bytes} | {e.end for e in container.entries}
    near = chain.from_iterable((b - 1, b, b + 1) for b in borders)
    inner = ((e.offset + e.end) // 2 for e in container.entries)
    front = (0, 1, 7, 8, 9, 12, container.header_bytes // 2)
    return sorted({c for c in chain(near, inner, front) if 0 <= c < container.size})


def reached(container: Container, length: int, group: int) -> LayerId | None:
    """The layer up to which a group's coded substreams lie before the cut."""
    found = None
    for layer in LayerId:
        mine = [
            e
            for e in container.entries
            if e.group == group and e.layer == layer and e.kind in (Kind.LATENT, Kind.REFINEMENT)
        ]
        if any(e.end > length for e in mine):
            break
        found = layer
    return found


@pytest.mark.parametrize("digest", [False, True])
def test_a_cut_file_decodes_to_what_is_whole(digest: bool) -> None:
    data = file(digest=digest)
    container = Container.read(data)
    base_end = max(e.end for e in container.entries
                   if e.layer == LayerId.BASE and e.kind != Kind.DIGEST)  # fmt: skip
    shown = 0
    for length in cuts(container):
        part = data[:length]
        if length < base_end:
            with pytest.raises(TruncatedError):
                decode(part)
            continue
        with open_file(part) as reader:
            decoded = reader.inspect()
        assert any("cut off" in note for note in decoded.warnings), length
        image = np.asarray(decoded.image)
        assert decoded.absent == 0
        assert image.shape == (HEIGHT, WIDTH, 3)
        layers = [reached(container, length, group) for group in (0, 1, 2)]
        assert decoded.layer == min(layer for layer in layers if layer is not None)
        for group, layer in enumerate(layers):
            assert layer is not None
            inside = pixels_of(group == CELLS, HEIGHT, WIDTH)
            assert np.array_equal(image[inside], picture_at(layer)[inside]), (length, group, layer)
        shown += 1
    assert shown > 20


def test_a_cut_file_still_serves_single_groups_and_narrow_widths() -> None:
    data = file()
    container = Container.read(data)
    first_base = container.find(Kind.LATENT, LayerId.BASE)
    cut = data[: first_base[1].end]  # groups 0 and 1 are there, 2 is not
    for group in (0, 1):
        inside = pixels_of(group == CELLS, HEIGHT, WIDTH)
        alone = np.asarray(decode(cut, groups=[group]))
        assert np.array_equal(alone[inside][:, :3], picture_at(LayerId.BASE)[inside])
    with pytest.raises(TruncatedError, match="base"):
        decode(cut, groups=[2])
    with pytest.raises(TruncatedError, match="base"):
        decode(cut)
    enough = data[: max(e.end for e in container.entries if e.layer == LayerId.MID)]
    assert np.array_equal(np.asarray(decode(enough, width=0.5)), picture_at(LayerId.MID))


@cache
def large_file() -> bytes:
    """Group map, base, refinement and mid each end behind the first read: a map of many groups."""
    random = np.random.default_rng(1)
    cells = random.integers(0, 180, (32, 32)).astype(np.uint8)
    return encode(photograph("astronaut", 512, 512), quality=75, base_quality=30, groups=cells)


def afar(data: bytes) -> Callable[[int, int], bytes]:
    """A source that does not know its size."""
    return lambda offset, length: data[offset : offset + length]


class Served:
    """The same, as an object; `exact` sources are asked for many small ranges."""

    def __init__(self, data: bytes, *, exact: bool) -> None:
        self.data, self.exact = data, exact

    def get_bytes(self, offset: int, length: int) -> bytes:
        return self.data[offset : offset + length]


def outcome(source: Openable, **asked: Any) -> tuple[object, ...]:
    """Picture, layer, groups and notes of a decoding, or the error that it ends with."""
    try:
        with open_file(source) as reader:
            decoded = reader.inspect(**asked)
    except VcmError as error:
        return type(error), getattr(error, "field", None), str(error)
    shown = (decoded.image.mode, decoded.image.tobytes())
    return shown, decoded.layer, decoded.groups, decoded.absent, decoded.warnings


def inner_cuts(container: Container) -> dict[str, int]:
    """A cut within a substream of each kind and layer, all behind the first read."""
    found = {}
    for entry in container.entries:
        middle = (entry.offset + entry.end) // 2
        if entry.offset < middle and middle > FIRST_READ_BYTES:
            found.setdefault(f"{Kind(entry.kind).name} {entry.layer.name}", middle)
    return found


def test_a_cut_source_without_a_size_shows_what_one_with_a_size_shows() -> None:
    """Where it ends is known only once the chosen runs were read: they were chosen too high."""
    data = large_file()
    container = Container.read(data)
    places = inner_cuts(container)
    assert {"GROUP_MAP BASE", "LATENT BASE", "REFINEMENT MID", "LATENT MID"} <= set(places)
    for place, length in places.items():
        cut = data[:length]
        wanted = outcome(cut)
        is_needed = place in ("GROUP_MAP BASE", "LATENT BASE")
        assert (wanted[0] is TruncatedError) == is_needed, place
        for source in (afar(cut), Served(cut, exact=False), Served(cut, exact=True)):
            assert outcome(source) == wanted, place


def test_a_cut_source_without_a_size_serves_the_groups_that_are_whole() -> None:
    data = large_file()
    first, second = Container.read(data).find(Kind.LATENT, LayerId.BASE)[:2]
    cut = data[: second.end - 1]
    with open_file(afar(cut)) as reader:
        decoded = reader.inspect(groups=[first.group])
    assert decoded.groups == (first.group,)
    assert decoded.image.tobytes() == decode(data, groups=[first.group], width=0.25).tobytes()
    with pytest.raises(TruncatedError, match="within the base layer"):
        decode(afar(cut), groups=[second.group])


def test_a_cut_source_without_a_size_gives_machines_no_empty_latent() -> None:
    data = large_file()
    for length in (inner_cuts(Container.read(data))[k] for k in ("GROUP_MAP BASE", "LATENT BASE")):
        with open_file(afar(data[:length])) as reader, pytest.raises(TruncatedError):
            reader.latent()
        with open_file(afar(data[:length])) as reader, pytest.raises(TruncatedError):
            reader.preview()


def needs(entry: Entry, groups: tuple[int, ...], layer: LayerId) -> bool:
    """Whether decoding these groups up to that layer reads the substream."""
    if entry.kind == Kind.GROUP_MAP:
        return True
    return entry.group in groups and entry.layer <= layer


def test_a_flipped_byte_matters_where_it_is_read_and_only_there() -> None:
    data = file(digest=True)
    container = Container.read(data)
    asked: list[tuple[tuple[int, ...], float, LayerId]] = [
        ((0, 1, 2), 1.0, LayerId.FULL),
        ((0, 1, 2), 0.25, LayerId.BASE),
        ((1,), 1.0, LayerId.FULL),
        ((2,), 0.5, LayerId.MID),
    ]
    whole = {a: np.asarray(decode(data, groups=a[0], width=a[1])) for a in asked}
    for entry in container.entries:
        damaged = bytearray(data)
        damaged[(entry.offset + entry.end) // 2] ^= 0x10
        for groups, width, layer in asked:
            if needs(entry, groups, layer):
                with pytest.raises(FormatError) as caught:
                    decode(bytes(damaged), groups=groups, width=width)
                assert not isinstance(caught.value, TruncatedError)
                assert caught.value.offset == entry.offset
            else:
                image = decode(bytes(damaged), groups=groups, width=width)
                assert np.array_equal(np.asarray(image), whole[groups, width, layer])


def test_a_flipped_byte_in_the_header_is_always_found() -> None:
    data = file()
    for place in range(Container.read(data).header_bytes):
        damaged = bytearray(data)
        damaged[place] ^= 0x04
        with pytest.raises(VcmError):
            decode(bytes(damaged))


@dataclass(frozen=True)
class Forgery:
    """One substream altered, its CRC-32 made to match."""

    key: tuple[int, int, int, int]
    data: bytes


def forgeries(data: bytes) -> list[Forgery]:
    random = np.random.default_rng(3)
    out = []
    for key, old in substreams(data).items():
        if key[0] not in (Kind.LATENT, Kind.REFINEMENT) or len(old) < 9:
            continue
        for place in random.choice(len(old), 4, replace=False).tolist():
            new = bytearray(old)
            new[place] ^= int(random.integers(1, 256))
            out.append(Forgery(key, bytes(new)))
        out += [Forgery(key, old[:-4]), Forgery(key, old + b"\0\0\0\0"), Forgery(key, b"")]
        out.append(Forgery(key, random.bytes(len(old))))
        out.append(Forgery(key, struct.pack("<Q", 1 << 31) + old[8:]))
    return out


@pytest.mark.parametrize("digest", [False, True])
def test_a_forged_payload_is_never_shown(digest: bool) -> None:
    """The run's own end gives it away (once in 2**31 it would not); with a digest, always."""
    data = file(digest=digest)
    made = forgeries(data)
    assert len(made) > 60
    for forgery in made:
        forged = rewritten(data, [(forgery.key, forgery.data)])
        with pytest.raises(FormatError):
            decode(forged)


def test_a_digest_speaks_of_the_symbols() -> None:
    """Another legal run in place of one: only the digest can know."""
    data = file(digest=True)
    other = substreams(encode(255 - astronaut(HEIGHT, WIDTH), quality=80, groups=CELLS))
    for key, old in substreams(data).items():
        if key[0] == Kind.LATENT and key[1] == LayerId.BASE:
            assert other[key] != old
            swapped = rewritten(data, [(key, other[key])])
            with pytest.raises(FormatError, match="the symbols of layer base") as caught:
                decode(swapped, width=0.25)
            assert caught.value.field == "digest"
            plain = rewritten(file(), [(key, other[key])])
            assert decode(plain, width=0.25).size == (WIDTH, HEIGHT)


@pytest.mark.parametrize("digest", [False, True])
def test_layers_of_another_picture_are_refused_or_found_out(digest: bool) -> None:
    data = file(digest=digest)
    other = substreams(
        encode(255 - astronaut(HEIGHT, WIDTH), quality=80, groups=CELLS, digest=digest)
    )
    for key in substreams(data):
        if key[1] > LayerId.BASE and key[0] != Kind.DIGEST:
            with pytest.raises(FormatError):
                decode(rewritten(data, [(key, other[key])]))


@pytest.mark.parametrize(
    ("kind", "layer"),
    [(Kind.REFINEMENT, LayerId.MID), (Kind.LATENT, LayerId.MID)],
    ids=["refinement", "latent"],
)
def test_a_run_that_is_missing_is_not_filled_with_zeros(kind: Kind, layer: LayerId) -> None:
    data = file()
    kept = [
        Substream(key[0], LayerId(key[1]), key[2], part, key[3])
        for key, part in substreams(data).items()
        if not (key[0] == kind and key[1] == layer and key[2] == 1)
    ]
    lacking = write(Container.read(data).header, kept)
    with pytest.raises(FormatError, match=f"{kind.name.lower()} of layer mid, group 1.* missing"):
        decode(lacking)
    assert np.array_equal(np.asarray(decode(lacking, width=0.25)), picture_at(LayerId.BASE))
    assert decode(lacking, groups=[0, 2]).mode == "RGBA"


def test_a_run_that_has_no_place_is_refused() -> None:
    plain = encode(astronaut(HEIGHT, WIDTH), quality=30, groups=CELLS)  # nothing is refined
    parts = [
        Substream(key[0], LayerId(key[1]), key[2], part, key[3])
        for key, part in substreams(plain).items()
    ]
    parts.append(Substream(Kind.REFINEMENT, LayerId.MID, 2, b""))
    with pytest.raises(FormatError, match="group 2, tile 0 has no place"):
        decode(write(Container.read(plain).header, parts))


def test_a_forged_group_map_is_refused() -> None:
    data = file()
    key = (int(Kind.GROUP_MAP), int(LayerId.BASE), 0, 0)
    old = substreams(data)[key]
    for new in (b"", old[:-1], old[::-1], bytes(len(old))):
        with pytest.raises(FormatError):
            decode(rewritten(data, [(key, new)]))


def test_a_map_that_disagrees_with_the_group_table_is_refused() -> None:
    """A legal map, of other cells than the header says: whoever trusts boxes would be misled."""
    from vcmcodec.entropy.group_map import encode_group_map

    data = file()
    key = (int(Kind.GROUP_MAP), int(LayerId.BASE), 0, 0)
    moved = encode_group_map(np.roll(CELLS, 1, 0).reshape(-1).tolist(), CELLS.shape[1], 3)
    assert not edit.verify(rewritten(data, [(key, moved)])).ok
    with pytest.raises(FormatError):
        decode(rewritten(data, [(key, moved)]))
