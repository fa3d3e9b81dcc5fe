"""Extract, merge and verify on files, pipes and bytes; redaction with real group maps."""

from __future__ import annotations

import io
import os
import subprocess
import sys
import threading
from dataclasses import replace

import pytest
from hypothesis import HealthCheck, assume, given, settings
from hypothesis import strategies as st
from random_files import UNKNOWN_ANCILLARY, CountingSource, layered_file, made_files

from vcmcodec import edit
from vcmcodec.bitstream.constants import Kind, LayerId
from vcmcodec.bitstream.container import Container, Substream, write
from vcmcodec.bitstream.header import Box
from vcmcodec.bitstream.limits import Limits
from vcmcodec.entropy.group_map import encode_group_map
from vcmcodec.errors import FormatError, LimitError, RequestError, TruncatedError
from vcmcodec.sources import open_source, opened

# few of the files have as many groups as some tests want
SLOW_TO_MAKE = [HealthCheck.too_slow, HealthCheck.filter_too_much]
quick = settings(max_examples=60, deadline=None, suppress_health_check=SLOW_TO_MAKE)


def with_real_map(made) -> bytes:
    """The file with the group map that its labels code to."""
    columns, count = made.header.cell_columns, made.header.map_labels
    data = encode_group_map(made.labels, columns, count)
    parts = [
        replace(part, data=data) if part.kind == Kind.GROUP_MAP else part
        for part in made.substreams
    ]
    return write(made.header, parts)


def street() -> bytes:
    """The layered file with a real map: background above, a person below."""
    container = Container.read(layered_file())
    data = container.fetch(container.entries)
    data[container.entries[0]] = encode_group_map([0] * 768 + [1] * 768, 48, 2)
    return write(
        container.header,
        [Substream(e.kind, e.layer, e.group, data[e]) for e in container.entries],
    )


# --- extract ---------------------------------------------------------------------------------


@pytest.mark.parametrize(("width", "layers"), [(0.25, 1), (0.5, 2), (1.0, 3)])
def test_by_width(width, layers):
    part = edit.extract(street(), width=width)
    assert part == edit.extract(street(), layers=range(layers))


def test_dropping_groups_is_keeping_the_others():
    assert edit.extract(street(), drop_groups=["person"]) == edit.extract(street(), groups=[0])


@pytest.mark.parametrize(
    ("wanted", "words"),
    [
        ({"width": 0.75}, "no width 0.75 in this file; it has 0.25, 0.5, 1"),
        ({"width": 0.5, "layers": [0]}, "one of them"),
        ({"width": 0.5, "tasks": ["human"]}, "one of them"),
        ({"groups": [0], "drop_groups": [9]}, "not both"),
        ({"drop_groups": [0, 9]}, "nothing would be left"),
        ({"redact": True}, "which groups"),
    ],
)
def test_contradictions_are_refused(wanted, words):
    with pytest.raises(RequestError, match=words):
        edit.extract(street(), **wanted)


# --- redact ----------------------------------------------------------------------------------


@quick
@given(made_files(), st.data())
def test_redaction_leaves_no_trace_and_keeps_the_rest(made, data):
    header = made.header
    assume(len(header.groups) > 1)
    ids = header.group_ids
    keep = data.draw(st.lists(st.sampled_from(ids), min_size=1, max_size=len(ids) - 1, unique=True))
    whole = Container.read(with_real_map(made))
    part = edit.extract(with_real_map(made), groups=keep, redact=True)
    copy = Container.read(part)
    assert edit.verify(part).ok
    assert copy.header.groups == tuple(group for group in header.groups if group.id in keep)
    assert copy.header.redacted
    assert not copy.header.extra
    assert copy.find(Kind.TEXT) == ()
    assert all(entry.group in keep for entry in copy.find(UNKNOWN_ANCILLARY))
    [map_entry] = copy.find(Kind.GROUP_MAP)
    labels = edit.read_group_map(copy, copy.fetch([map_entry])[map_entry])
    old_ids = [ids[label] for label in made.labels]
    new_ids = [*copy.header.group_ids, None]
    assert [new_ids[label] for label in labels] == [
        group if group in keep else None for group in old_ids
    ]
    for kind in (Kind.LATENT, Kind.REFINEMENT, Kind.DIGEST):
        kept = [e for e in whole.find(kind) if e.group in keep]
        assert list(copy.fetch(copy.find(kind)).values()) == list(whole.fetch(kept).values())


@quick
@given(made_files())
def test_redacting_in_two_steps_is_redacting_at_once(made):
    ids = made.header.group_ids
    assume(len(ids) > 2)
    whole = with_real_map(made)
    once = edit.extract(whole, groups=ids[:1], redact=True)
    step = edit.extract(whole, drop_groups=ids[-1:], redact=True)
    assert edit.extract(step, groups=ids[:1], redact=True) == once


def test_redacted_labels_are_not_in_the_file():
    copy = edit.extract(street(), drop_groups=["person"], redact=True)
    assert b"person" in street()
    assert b"person" not in copy
    assert b"background" in copy


def test_redacted_parts_belong_together():
    whole = edit.extract(street(), groups=[0], redact=True)
    base = edit.extract(street(), groups=[0], redact=True, layers=["base"])
    rest = edit.extract(street(), groups=[0], redact=True, layers=["mid", "full"])
    assert edit.merge([rest, base]) == whole
    with pytest.raises(RequestError, match="differ in redacted"):
        edit.merge([base, edit.extract(street(), layers=["mid", "full"])])


def test_nothing_dropped_is_nothing_redacted():
    assert edit.extract(street(), groups=[0, 9], redact=True) == street()


def test_a_file_without_groups_cannot_be_redacted():
    plain = Container.read(layered_file())
    header = replace(plain.header, groups=())
    data = write(header, [Substream(Kind.LATENT, LayerId.BASE, 0, b"x")])
    with pytest.raises(RequestError, match="no groups to redact"):
        edit.extract(data, groups=[0], redact=True)


# --- verify ----------------------------------------------------------------------------------


def test_a_good_file_is_verified():
    report = edit.verify(street())
    assert report.ok
    assert {finding.code for finding in report.findings} == {"ok"}
    assert report.num_bytes == len(street())


def test_every_damaged_substream_is_named():
    data = bytearray(street())
    entries = Container.read(bytes(data)).entries
    for entry in (entries[2], entries[4]):
        data[entry.end - 1] ^= 0x40
    report = edit.verify(bytes(data))
    assert not report.ok
    assert [finding.code for finding in report.findings] == [
        "ok",
        "ok",
        *["corrupt", "ok"] * 2,
        "ok",
    ]
    assert "latent of layer base, group 9" in (report.findings[2].problem or "")


def test_text_that_is_no_text_is_named():
    container = Container.read(street())
    parts = [
        Substream(e.kind, e.layer, e.group, data)
        for e, data in container.fetch(container.entries).items()
    ]
    for text, ok in ((b"title=\xc3\xa9\n", True), (b"", True), (b"title=\xe9", False)):
        data = write(container.header, [*parts, Substream(Kind.TEXT, LayerId.MID, 0, text)])
        report = edit.verify(data)
        assert report.ok is ok
        problems = [(f.kind, f.problem) for f in report.findings if f.problem]
        assert problems == [("text", "text: byte 6 of it is not UTF-8")] * (not ok)


def test_a_cut_off_file_is_reported_not_raised():
    report = edit.verify(street()[:-1600])
    assert not report.ok
    assert [finding.code for finding in report.findings[-3:]] == ["ok", "truncated", "truncated"]
    assert "5 of 7 substreams are whole" in report.warnings[0]


def test_a_map_that_does_not_fit_the_groups_is_noticed():
    container = Container.read(street())
    moved = Box(0, 0, 48, 17)
    groups = (replace(container.header.groups[0], box=moved), container.header.groups[1])
    data = container.fetch(container.entries)
    parts = [Substream(e.kind, e.layer, e.group, data[e]) for e in container.entries]
    report = edit.verify(write(replace(container.header, groups=groups), parts))
    assert not report.ok
    assert "group 0 does not fill its box" in (report.findings[0].problem or "")


def test_a_map_that_is_no_map_is_noticed():
    report = edit.verify(layered_file())
    assert [finding.code for finding in report.findings[:2]] == ["corrupt", "ok"]


def test_a_damaged_header_is_raised():
    with pytest.raises(FormatError, match="header_crc32"):
        edit.verify(street().replace(b"person", b"parson"))


def test_deep_verification_takes_what_the_model_finds():
    def decode_symbols(container):
        yield container.entries[1], FormatError("latent", "out of step")

    report = edit.verify(street(), deep=True, decode_symbols=decode_symbols)
    assert (report.ok, report.deep) == (False, True)
    assert report.findings[1].problem == "latent: out of step"
    with pytest.raises(RequestError, match="deep check needs the model"):
        edit.verify(street(), deep=True)


# --- sources ---------------------------------------------------------------------------------


@pytest.fixture
def path(tmp_path):
    path = tmp_path / "street.vcm"
    path.write_bytes(street())
    return path


@pytest.mark.parametrize(
    "convert",
    [
        os.fspath,
        lambda path: path,
        lambda path: path.read_bytes(),
        lambda path: bytearray(path.read_bytes()),
        lambda path: memoryview(path.read_bytes()),
        lambda path: io.BytesIO(path.read_bytes()),
        lambda path: CountingSource(path.read_bytes()),
        lambda path: CountingSource(path.read_bytes()).get_bytes,
    ],
    ids=["str", "path", "bytes", "bytearray", "memoryview", "file", "source", "callable"],
)
def test_every_form_of_a_file_is_read(path, convert):
    part = edit.extract(convert(path), tasks=["detection"])
    assert part == edit.extract(street(), tasks=["detection"])
    assert edit.verify(convert(path)).ok
    assert edit.merge([part, convert(path)]) == street()


def test_a_file_object_counts_from_where_it_stands_and_stays_open(path):
    file = io.BytesIO(b"something before" + street())
    file.seek(16)
    assert edit.verify(file).ok
    assert not file.closed


def test_a_path_is_closed_again(path):
    with opened(path) as source:
        assert source.get_bytes(1, 3) == b"VCM"
        assert source.get_bytes(len(street()) - 2, 10**18) == street()[-2:]
        assert source.get_bytes(10**18, 1) == b""
    with pytest.raises(RequestError, match=r"street\.vcm"):
        source.get_bytes(0, 8)


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="needs named pipes")
def test_a_pipe_is_read_whole(tmp_path):
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    writer = threading.Thread(target=pipe.write_bytes, args=(street(),))
    writer.start()
    report = edit.verify(pipe)
    writer.join()
    assert report.ok


def test_what_cannot_be_opened_is_a_request_error(tmp_path):
    for source, words in [
        (tmp_path / "none.vcm", "none.vcm: No such file"),
        (str(tmp_path), "Is a directory"),
        ("a\0b", "null"),
        (io.StringIO("text"), "open as text"),
        (7, "from int"),
        (None, "from NoneType"),
    ]:
        with pytest.raises(RequestError, match=words):
            open_source(source)


def test_limits_reach_the_reader():
    few = Limits(max_pixels=9)
    for call in (
        edit.extract,
        edit.verify,
        lambda source, limits: edit.merge([source], limits=limits),
    ):
        with pytest.raises(LimitError, match="--max-pixels"):
            call(street(), limits=few)


def test_a_part_that_is_cut_off_is_not_merged():
    with pytest.raises(TruncatedError):
        edit.merge([street()[:-1]])


def test_bytes_are_edited_without_numpy_or_torch():
    program = (
        "import sys, vcmcodec.edit, vcmcodec.bitstream.describe, vcmcodec.entropy.group_map\n"
        "sys.exit(sorted({'numpy', 'torch', 'compressai', 'PIL'} & set(sys.modules)) or 0)"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)
    assert (done.returncode, done.stderr) == (0, "")
