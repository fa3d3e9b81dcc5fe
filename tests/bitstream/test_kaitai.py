"""A parser compiled from `formats/vcm.ksy` agrees with ours on every field."""

from __future__ import annotations

import hashlib
import io
from pathlib import Path

import kaitaistruct
import pytest
from hypothesis import HealthCheck, given, settings
from kaitai.vcm import Vcm
from random_files import layered_file, made_files
from test_malformed import ILLEGAL, LEGAL

from vcmcodec.bitstream import constants
from vcmcodec.bitstream.container import Container

HERE = Path(__file__).parent
GRAMMAR = HERE.parents[1] / "formats" / "vcm.ksy"


def parse(data: bytes) -> Vcm:
    return Vcm(kaitaistruct.KaitaiStream(io.BytesIO(data)))


def assert_agrees(data: bytes) -> None:
    theirs, ours = parse(data), Container.read(data)
    header, fields = ours.header, theirs.header
    assert (theirs.major, theirs.minor) == header.version
    front = 10 + len(theirs.header_length.groups)
    assert theirs.header_length.value == ours.header_bytes - front
    assert (fields.profile, fields.coder) == (header.profile, header.coder)
    assert (fields.flags.grey, fields.flags.redacted) == (header.grey, header.redacted)
    assert fields.fingerprint == header.fingerprint
    sizes = fields.width.value, fields.height.value, fields.tile.value
    assert sizes == (header.width, header.height, header.tile)
    assert fields.parameters == header.parameters
    assert [(t.task, t.layer) for t in fields.tasks] == [(t.task, t.layer) for t in header.tasks]
    layers = [(layer.layer, layer.rate_level.value) for layer in fields.layers]
    assert layers == [(info.layer, info.rate_level) for info in header.layers]
    assert len(fields.groups) == len(header.groups)
    for their, our in zip(fields.groups, header.groups, strict=True):
        assert (their.id, their.label, their.cells.value) == (our.id, our.label, our.cells)
        assert (None if their.score == 0 else (their.score - 1) / 254) == our.score
        box = their.box
        sides = box.left.value, box.top.value, box.width.value, box.height.value
        assert sides == (our.box.left, our.box.top, our.box.width, our.box.height)
    assert fields.extra == header.extra
    data_of = ours.fetch(ours.entries)
    parts = zip(fields.directory.entries, theirs.substreams, ours.entries, strict=True)
    for line, substream, entry in parts:
        assert (line.kind, line.layer, line.group) == (entry.kind, entry.layer, entry.group)
        assert (line.tile.value if header.tile else 0) == entry.tile
        assert (line.length.value, line.crc32) == (entry.length, entry.crc32)
        assert substream.data == data_of[entry]
    assert theirs._io.is_eof()


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(made_files())
def test_agrees_on_any_file(made):
    assert_agrees(made.data)


def test_agrees_on_a_file_with_long_numbers():
    assert_agrees(layered_file(payload=300_000))


@pytest.mark.parametrize("name", LEGAL)
def test_agrees_on_files_made_by_hand(name):
    assert_agrees(LEGAL[name].build())


@pytest.mark.parametrize(
    "name", ["signature", "major version", "reserved flag", "no layer", "65 bytes of parameters"]
)
def test_refuses_what_a_grammar_can_refuse(name):
    with pytest.raises(kaitaistruct.ValidationFailedError):
        parse(ILLEGAL[name][0].build())


@pytest.mark.parametrize(
    ("theirs", "ours"),
    [
        (Vcm.Profile, constants.ProfileId),
        (Vcm.Layer, constants.LayerId),
        (Vcm.Task, constants.TaskId),
        (Vcm.Coder, constants.CoderId),
        (Vcm.Kind, constants.Kind),
    ],
)
def test_the_grammar_has_our_ids(theirs, ours):
    assert {i.name: i.value for i in theirs} == {i.name.lower(): i.value for i in ours}


def test_the_parser_was_generated_from_this_grammar():
    sha256 = hashlib.sha256(GRAMMAR.read_bytes()).hexdigest()
    stored = (HERE / "kaitai" / "vcm.ksy.sha256").read_text().strip()
    assert stored == sha256, "vcm.ksy changed: generate the parser again (kaitai/README.md)"
