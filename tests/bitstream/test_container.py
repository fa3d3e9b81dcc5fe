"""The container: identity, damage, truncation, reads, and what it costs."""

from __future__ import annotations

import zlib

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from random_files import CountingSource, layered_file, made_files, plain_header

from vcmcodec.bitstream.constants import SIGNATURE, Kind, LayerId
from vcmcodec.bitstream.container import Container, Substream, write
from vcmcodec.bitstream.limits import Limits
from vcmcodec.bitstream.parameters import CodedSize
from vcmcodec.bitstream.ranges import RangeReader
from vcmcodec.errors import (
    FormatError,
    LimitError,
    RequestError,
    TruncatedError,
    UnsupportedError,
    VcmError,
)

quick = settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.too_slow])


def substreams_of(container: Container) -> list[Substream]:
    data = container.fetch(container.entries)
    return [Substream(e.kind, e.layer, e.group, data[e], e.tile) for e in container.entries]


def substreams_of_bytes(data: bytes) -> list[Substream]:
    return substreams_of(Container.read(data))


def with_body(body: bytes, minor: int = 0, payload: bytes = b"") -> bytes:
    """A file around these header bytes, whose length and CRC-32 are right."""
    length = len(body) + 4
    varint = bytes([length]) if length < 128 else bytes([length & 0x7F | 0x80, length >> 7])
    front = SIGNATURE + bytes([1, minor]) + varint + body
    return front + zlib.crc32(front).to_bytes(4, "little") + payload


# --- identity --------------------------------------------------------------------------------


@quick
@given(made_files())
def test_reading_gives_back_what_was_written(made):
    container = Container.read(made.data)
    assert container.header == made.header
    assert set(substreams_of(container)) == set(made.substreams)
    assert container.size == len(made.data)
    assert container.warnings == ()


def test_the_smallest_file_byte_by_byte():
    header = plain_header(width=1, height=300)
    data = write(header, [Substream(Kind.LATENT, LayerId.BASE, 0, b"abc")])
    assert data.hex(" ") == (
        "89 56 43 4d 0d 0a 1a 0a"  # signature
        " 01 00"  # version
        " 25"  # 37 bytes of header follow
        " 01 00"  # scene, no flags
        " 00 01 02 03 04 05 06 07"  # fingerprint
        " 01 ac 02 00"  # width, height, not tiled
        " 01 00"  # rANS, no parameters
        " 01 01 00"  # one task: detection reads the base
        " 01 00 b8 17"  # one layer: the base at 30.00
        " 00"  # no groups
        " 01 81 00 00 03 c2 41 24 35"  # one entry: latent, base, group 0, 3 bytes, CRC-32
        " d3 d3 7d c7"  # CRC-32 of all before
        " 61 62 63"
    )


def test_order_of_substreams_is_the_file_s_and_not_the_writer_s():
    kinds = [(e.layer, e.group, e.kind) for e in Container.read(layered_file()).entries]
    assert kinds == [
        (0, 0, Kind.GROUP_MAP),
        (0, 0, Kind.LATENT),
        (0, 9, Kind.LATENT),
        (1, 0, Kind.LATENT),
        (1, 9, Kind.LATENT),
        (2, 0, Kind.LATENT),
        (2, 9, Kind.LATENT),
    ]


# --- any bytes are read or refused -----------------------------------------------------------


@quick
@given(st.binary(max_size=200))
def test_any_bytes_are_read_or_refused(data):
    with pytest.raises(VcmError):
        Container.read(data)


@settings(quick, max_examples=300)
@given(st.binary(max_size=90), st.sampled_from([0, 3]))
def test_any_header_with_a_right_checksum_is_read_or_refused(body, minor):
    read_or_refused(with_body(body, minor, b"\0" * 50))


@settings(quick, max_examples=200)
@given(made_files(), st.data())
def test_any_forged_header_is_refused_or_is_the_one_form_of_its_file(made, data):
    whole = made.data
    container = Container.read(whole)
    start = len(SIGNATURE) + 2 + (1 if whole[10] < 128 else 2)
    body = bytearray(whole[start : container.header_bytes - 4])
    for _ in range(data.draw(st.integers(1, 3))):
        place = data.draw(st.integers(0, len(body) - 1))
        body[place] = data.draw(st.integers(0, 255))
    forged = with_body(bytes(body), whole[9], whole[container.header_bytes :])
    read_or_refused(forged)


def read_or_refused(data: bytes) -> None:
    """What is accepted must have exactly one byte form: writing it again gives it again."""
    try:
        container = Container.read(data)
        parts = substreams_of(container)
    except VcmError:
        return
    assert write(container.header, parts) == data


def test_every_flipped_bit_is_noticed():
    header = plain_header(parameters=CodedSize(500, 760).pack(), tile=7)
    parts = [
        Substream(Kind.LATENT, LayerId.BASE, 0, b"some bytes", tile=2),
        Substream(Kind.DIGEST, LayerId.BASE, 0, b"12345678", tile=2),
    ]
    whole = write(header, parts)
    for bit in range(8 * len(whole)):
        damaged = bytearray(whole)
        damaged[bit // 8] ^= 1 << bit % 8
        with pytest.raises(VcmError):
            substreams_of_bytes(bytes(damaged))


# --- cut off ---------------------------------------------------------------------------------


@pytest.mark.parametrize("known_size", [True, False])
def test_cut_off_at_every_length(known_size):
    whole = layered_file(payload=40)
    full = Container.read(whole)
    expected = full.fetch(full.entries)
    for length in range(len(whole)):
        cut = whole[:length]
        source = cut if known_size else CountingSource(cut).get_bytes
        if length < full.header_bytes:
            with pytest.raises(TruncatedError):
                Container.read(source)
            continue
        container = Container.read(source)
        there = container.fetch(container.entries, whole_only=True)
        assert there == {e: d for e, d in expected.items() if e.end <= length}
        assert {e for e in container.entries if container.is_whole(e)} == set(there)
        assert container.is_cut_off
        assert f"{len(there)} of 7 substreams are whole" in container.warnings[0]
        with pytest.raises(TruncatedError, match=r"latent of layer \w+, group"):
            container.fetch(container.entries[-1:])


def test_a_far_source_of_unknown_size_is_found_cut_off_by_one_read():
    whole = layered_file(payload=8000)
    full = Container.read(whole)
    last = full.entries[-1]
    source = CountingSource(whole[: last.offset + 5])
    container = Container.read(source)
    assert container.warnings == ()  # nobody can know yet
    found = container.fetch(container.entries, whole_only=True)
    assert list(found) == list(full.entries[:-1])
    assert len(source.reads) == 2
    assert container.is_cut_off
    assert not container.is_whole(container.entries[-1])
    with pytest.raises(TruncatedError, match="5 of 4000 bytes are there"):
        container.fetch([container.entries[-1]])


def test_bytes_behind_the_last_substream_are_refused():
    with pytest.raises(FormatError, match="bytes follow the last one") as caught:
        Container.read(layered_file() + b"!")
    assert (caught.value.field, caught.value.stored) == ("substreams", caught.value.expected + 1)


# --- reads -----------------------------------------------------------------------------------


@pytest.mark.parametrize("wanted", [{"layer": LayerId.BASE}, {"group": 9}, {"layer": 2}, {}])
def test_any_part_of_a_far_file_takes_two_reads(wanted):
    whole = layered_file(payload=20_000)
    source = CountingSource(whole)
    container = Container.read(source.get_bytes)
    entries = container.find(**wanted)
    data = container.fetch(entries)
    assert [whole[e.offset : e.end] for e in entries] == list(data.values())
    needed = max(4096, entries[0].offset), entries[-1].end
    assert source.reads == [(0, 4096), (needed[0], needed[1] - needed[0])]


def test_a_small_file_takes_one_read():
    source = CountingSource(layered_file(payload=200))
    container = Container.read(source)
    container.fetch(container.entries)
    assert source.reads == [(0, 4096)]
    assert container.warnings == ()


def test_a_header_beyond_4_kib_takes_one_read_more():
    header = plain_header(tile=1, width=16 * 500, height=16)
    parts = [Substream(Kind.LATENT, LayerId.BASE, 0, b"x" * 99, tile) for tile in range(500)]
    whole = write(header, parts)
    source = CountingSource(whole)
    container = Container.read(source)
    assert container.header_bytes > 4096
    assert len(container.fetch(container.entries)) == 500
    assert len(source.reads) == 3
    assert source.reads[1] == (4096, container.header_bytes - 4096)


def test_an_exact_source_is_asked_for_nothing_but_what_is_needed():
    whole = layered_file(payload=20_000)
    source = CountingSource(whole, exact=True, size=len(whole))
    container = Container.read(source)
    wanted = container.find(group=9)
    container.fetch(wanted)
    assert source.reads == [(0, 4096)] + [(e.offset, e.length) for e in wanted]
    source.reads.clear()
    neighbours = container.find(layer=LayerId.FULL)
    container.fetch(neighbours)
    assert source.reads == [(neighbours[0].offset, 20_000)]


@quick
@given(
    st.lists(st.tuples(st.integers(0, 60), st.integers(0, 60)), max_size=6),
    st.booleans(),
    st.integers(0, 40),
    st.integers(0, 50),
)
def test_spans_are_what_slices_are(spans, exact, head, size):
    data = bytes(range(size))
    spans = [tuple(sorted(span)) for span in spans]
    source = CountingSource(data, exact=exact)
    reader = RangeReader(source)
    assert reader.head(head) == data[:head]
    asked = len(source.reads)
    assert reader.read(spans) == [data[start:stop] for start, stop in spans]
    assert exact or len(source.reads) <= asked + 1


@pytest.mark.parametrize("answer", [None, "text", b"x" * 5000])
def test_a_source_that_does_not_return_bytes_is_named(answer):
    with pytest.raises(RequestError, match=r"get_bytes\(0, 4096\)"):
        Container.read(lambda offset, length: answer)


def test_something_that_is_no_source_is_refused():
    with pytest.raises(RequestError, match="cannot read from int"):
        Container.read(7)


# --- what it costs ---------------------------------------------------------------------------


@pytest.mark.parametrize("num_bytes", [0, 1900, 16_000, 2_000_000])
def test_a_file_of_one_task_and_one_group_costs_57_bytes_at_most(num_bytes):
    header = plain_header(width=16_000, height=12_000, tile=128)
    whole = write(header, [Substream(Kind.LATENT, LayerId.BASE, 0, b"x" * num_bytes)])
    assert len(whole) - num_bytes <= 57


@pytest.mark.parametrize("count", [2, 20, 255])
def test_each_further_substream_costs_10_bytes_at_most(count):
    first = [Substream(Kind.LATENT, LayerId.BASE, 0, b"x" * 2_000_000)]
    more = [Substream(kind, LayerId.BASE, 0, b"y" * 9000) for kind in range(0x10, 0x10 + 200)]
    more = [part for part in more if not part.kind & 0x80][: count - 1]
    header = plain_header()
    alone, together = write(header, first), write(header, first + more)
    payload = sum(len(part.data) for part in more)
    assert len(together) - len(alone) - payload <= 10 * len(more)


# --- limits ----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("limits", "option"),
    [
        (Limits(max_pixels=768 * 512 - 1), "--max-pixels"),
        (Limits(max_groups=1), "--max-groups"),
        (Limits(max_header_bytes=50), "--max-header-bytes"),
        (Limits(max_substream_bytes=1499), "--max-substream-bytes"),
    ],
)
def test_a_limit_names_the_option_that_raises_it(limits, option):
    with pytest.raises(LimitError, match=option):
        Container.read(layered_file(), limits)


def test_a_file_at_the_limits_is_read():
    whole = layered_file()
    header_bytes = Container.read(whole).header_bytes
    Container.read(whole, Limits(768 * 512, 2, header_bytes, 1500))


ONE = [Substream(Kind.LATENT, LayerId.BASE, 0, b"x")]


def test_pixels_under_cells_count_where_a_picture_is_a_strip():
    strip = plain_header(width=1, height=2**16, tile=64)
    data = write(strip, ONE)
    Container.read(data, Limits(max_pixels=2**20))
    with pytest.raises(LimitError, match="--max-pixels"):
        Container.read(data, Limits(max_pixels=2**20 - 1))


@pytest.mark.parametrize(("side", "tile"), [(2912, 0), (16 * 182, 182), (2**14, 182)])
def test_no_tile_has_more_cells_than_a_decoder_must_bear(side, tile):
    write(plain_header(width=16 * 180, height=16 * 182), ONE)
    with pytest.raises(RequestError, match="cells in one piece"):
        write(plain_header(width=side, height=side, tile=tile), ONE)


def test_a_huge_header_length_is_refused_before_it_is_read():
    source = CountingSource(SIGNATURE + b"\x01\x00" + b"\xff" * 7 + b"\x7f" + b"\0" * 5000)
    with pytest.raises(LimitError, match="--max-header-bytes"):
        Container.read(source)
    assert len(source.reads) == 1


# --- versions and kinds ----------------------------------------------------------------------


def test_another_major_version_is_not_supported():
    data = bytearray(layered_file())
    data[8] = 2
    with pytest.raises(UnsupportedError, match="major version 2 is not supported"):
        Container.read(bytes(data))


def test_a_later_minor_version_is_read_and_its_bytes_are_kept():
    header = plain_header(version=(1, 7), extra=b"something new")
    data = write(header, [Substream(Kind.LATENT, LayerId.BASE, 0, b"x")])
    assert Container.read(data).header == header


@pytest.mark.parametrize(
    ("data", "words"),
    [
        (b"", "the file is empty"),
        (SIGNATURE[:5], "5 of 8 bytes"),
        (b"\xff\xd8\xff\xe0 a picture", "not a .vcm file"),
        (SIGNATURE.replace(b"\r\n", b"\n") + b"\x01", "transfer as text"),
        (SIGNATURE.replace(b"\n", b"\r\n"), "transfer as text"),
        (bytes(byte & 127 for byte in SIGNATURE), "transfer as text"),
    ],
)
def test_what_is_no_vcm_file_is_said_to_be_none(data, words):
    with pytest.raises(FormatError, match=words) as caught:
        Container.read(data)
    assert caught.value.field == "signature"


def test_a_directory_of_many_thousand_entries_is_no_burden():
    header = plain_header(tile=1, width=16 * 140, height=16 * 140)
    parts = [Substream(Kind.LATENT, LayerId.BASE, 0, b"x", tile) for tile in range(0, 19_600, 2)]
    source = CountingSource(write(header, parts), exact=True)
    container = Container.read(source)
    every_other = container.entries[::2]
    assert len(container.fetch(every_other)) == 4900
    assert len(source.reads) == 2 + 4900
