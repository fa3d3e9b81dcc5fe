"""`formats/vcm-1.md` says the same numbers as the program."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from random_files import plain_header

from vcmcodec.bitstream import constants
from vcmcodec.bitstream.constants import CoderId, Kind, LayerId, ProfileId, TaskId
from vcmcodec.bitstream.container import Container, Substream, write
from vcmcodec.bitstream.limits import Limits
from vcmcodec.bitstream.profile_rules import CODERS

NORM = (Path(__file__).parents[2] / "formats" / "vcm-1.md").read_text(encoding="utf-8")


def table(first_cells: str) -> list[list[str]]:
    """Rows of the table whose head starts with these cells, as plain text."""
    lines = NORM.splitlines()
    start = next(at for at, line in enumerate(lines) if line.startswith(first_cells))
    rows = []
    for line in lines[start + 2 :]:
        if not line.startswith("|"):
            break
        rows.append([cell.strip().strip("`") for cell in line.strip("|").split("|")])
    return rows


def test_signature_and_version():
    fields = {row[1]: row[3] for row in table("| § | field")}
    assert bytes.fromhex(fields["signature"].strip("`")) == constants.SIGNATURE
    [version] = [row[3] for row in table("| § | field") if row[0] == "3.2"]
    assert tuple(map(int, version.split(", "))) == constants.VERSION


@pytest.mark.parametrize(
    ("column", "ids"), [(1, ProfileId), (2, CoderId), (3, LayerId), (4, TaskId)]
)
def test_ids(column, ids):
    stated = {int(row[0]): row[column] for row in table("| number |") if row[column]}
    assert stated == {member.value: member.name.lower() for member in ids}


def test_coders_of_the_profiles():
    [others, last] = re.findall(
        r"The coder of (.*?)\sis `rans_16`, that of (.*?)\sis `range_static`", NORM, re.DOTALL
    )[0]
    stated = dict.fromkeys(re.findall(r"`(\w+)`", others), "rans_16")
    stated |= dict.fromkeys(re.findall(r"`(\w+)`", last), "range_static")
    assert stated == {p.name.lower(): coder.name.lower() for p, coder in CODERS.items()}


def test_kinds():
    stated = {int(row[0], 16): row[1] for row in table("| kind | name")}
    assert stated == {kind.value: kind.name.lower() for kind in Kind}
    assert all(bool(kind & constants.CRITICAL) == (kind.value >= 0x80) for kind in Kind)


def test_homes_of_what_speaks_of_the_whole_picture():
    [rule] = re.findall(
        r"- The group map is in layer (\w+).*?ICC profile and text in layer (\w+)", NORM, re.DOTALL
    )
    homes = {kind: layer.name.lower() for kind, layer in constants.FILE_WIDE_LAYERS.items()}
    assert homes == {Kind.GROUP_MAP: rule[0], Kind.ICC: rule[1], Kind.TEXT: rule[1]}


def test_limits_of_the_format():
    stated = {row[0]: int(row[1]) for row in table("| name | value |")}
    assert stated == {name: getattr(constants, name) for name in stated}
    ours = {name for name in vars(constants) if re.match(r"MAX_|.*_BYTES$", name)}
    assert ours - {"CRC_BYTES"} <= set(stated)


def test_limits_of_the_program():
    stated = {row[2]: int(row[1]) for row in table("| limit | value | option |")}
    names = Limits.__dataclass_fields__
    assert stated == {"--" + n.replace("_", "-"): getattr(Limits(), n) for n in names}


def test_widths():
    for layer, width in constants.WIDTHS.items():
        assert re.search(rf"`{layer.name.lower()}` \((?:width )?{width}\)", NORM)


def test_flags():
    for name, value in (("grey", constants.FLAG_GREY), ("redacted", constants.FLAG_REDACTED)):
        assert f"bit {value.bit_length() - 1}: `{name}`" in NORM


def test_fields_stand_in_the_order_of_the_file():
    sections = [row[0] for row in table("| § | field")]
    assert sections == [f"3.{n}" for n in range(1, 14)] + ["4", "3.14", "3.15"]
    grammar = (Path(__file__).parents[2] / "formats" / "vcm.ksy").read_text(encoding="utf-8")
    for section in sections:
        assert f"doc: §{section}" in grammar


def test_the_example_is_a_file():
    example = NORM[NORM.index("## 11 Example") : NORM.index("## 12")]
    data = bytes.fromhex("".join(re.findall(r"^    ((?:[0-9a-f]{2} )+)", example, re.MULTILINE)))
    container = Container.read(data)
    [entry] = container.entries
    assert container.fetch([entry]) == {entry: b"abc"}
    assert data == write(container.header, [Substream(Kind.LATENT, LayerId.BASE, 0, b"abc")])
    assert container.header_bytes + 3 == len(data)
    assert (container.header.height, container.header.layers[0].rate_level) == (300, 3000)


def test_what_it_costs_is_what_the_norm_says():
    [cost] = re.findall(r"One task and one group cost (\d+) bytes", NORM)
    part = Substream(Kind.LATENT, LayerId.BASE, 0, bytes(1900))
    assert len(write(plain_header(), [part])) == 1900 + int(cost)
