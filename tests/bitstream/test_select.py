"""Parts of a file: what they equal, and that they give the whole again."""

from __future__ import annotations

import dataclasses
import json
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, assume, given, settings
from hypothesis import strategies as st
from random_files import CountingSource, MadeFile, layered_file, made_files, plain_header

from vcmcodec.bitstream.constants import Kind, LayerId, ProfileId, TaskId
from vcmcodec.bitstream.container import Container, Substream, write
from vcmcodec.bitstream.describe import describe
from vcmcodec.bitstream.parameters import FeatureParameters
from vcmcodec.bitstream.select import group_ids, merge, select
from vcmcodec.errors import FormatError, RequestError, TruncatedError
from vcmcodec.sources import FileSource

quick = settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.too_slow])


def merged(*parts: bytes) -> bytes:
    return merge([Container.read(part) for part in parts])


def written_for(made: MadeFile, task: int) -> bytes:
    """What an encoder writes that is asked for one task: the layers that it reads, and no other."""
    info = next(info for info in made.header.tasks if info.task == task)
    header = replace(
        made.header,
        tasks=(info,),
        layers=tuple(layer for layer in made.header.layers if layer.layer <= info.layer),
    )
    return write(header, [part for part in made.substreams if part.layer <= info.layer])


# --- what parts are --------------------------------------------------------------------------


@quick
@given(made_files(), st.data())
def test_extract_by_task_equals_encode_for_that_task(made, data):
    assume(made.header.tasks)
    task = data.draw(st.sampled_from(made.header.tasks)).task
    assert select(Container.read(made.data), tasks=[task]) == written_for(made, task)


@quick
@given(made_files(layered=True), st.data())
def test_task_part_and_the_layers_above_give_the_whole(made, data):
    top = made.header.layers[-1].layer
    info = data.draw(st.sampled_from([task for task in made.header.tasks if task.layer < top]))
    above = [layer.layer for layer in made.header.layers if layer.layer > info.layer]
    whole = Container.read(made.data)
    machine, people = select(whole, tasks=[info.task]), select(whole, layers=above)
    assert merged(machine, people) == made.data
    assert merged(people, machine) == made.data


@quick
@given(made_files(layered=True), st.data())
def test_any_cut_between_layers_can_be_undone(made, data):
    layers = [info.layer for info in made.header.layers]
    cut = data.draw(st.integers(1, len(layers) - 1))
    whole = Container.read(made.data)
    base, enhancement = select(whole, layers=layers[:cut]), select(whole, layers=layers[cut:])
    assert merged(base, enhancement) == made.data
    assert merged(enhancement, base, base) == made.data
    assert len(base) + len(enhancement) < len(made.data) + whole.header_bytes


@quick
@given(made_files())
def test_parts_by_group_give_the_whole(made):
    whole = Container.read(made.data)
    parts = [select(whole, groups=[group]) for group in made.header.group_ids]
    assert merged(*parts) == made.data
    for part, group in zip(parts, made.header.group_ids, strict=True):
        latents = Container.read(part).find(Kind.LATENT)
        assert {entry.group for entry in latents} == {group}


@quick
@given(made_files(layered=True))
def test_layers_and_groups_cut_into_single_pieces_give_the_whole(made):
    whole = Container.read(made.data)
    pieces = [
        select(whole, layers=[info.layer], groups=[group])
        for info in made.header.layers
        for group in made.header.group_ids
    ]
    assert merged(*pieces) == made.data


@quick
@given(made_files())
def test_everything_selected_is_the_file_itself(made):
    whole = Container.read(made.data)
    assert select(whole) == made.data
    assert select(whole, layers=[info.layer for info in made.header.layers]) == made.data
    assert merged(made.data, made.data) == made.data


def test_an_enhancement_part_keeps_the_tables_of_the_whole():
    whole = Container.read(layered_file())
    part = Container.read(select(whole, layers=["mid", "full"]))
    assert part.header == whole.header
    assert {entry.layer for entry in part.entries} == {LayerId.MID, LayerId.FULL}


def test_a_base_part_drops_the_tasks_and_layers_that_it_cannot_serve():
    part = Container.read(select(Container.read(layered_file()), layers=["base"]))
    assert [info.task for info in part.header.tasks] == [TaskId.DETECTION]
    assert [info.layer for info in part.header.layers] == [LayerId.BASE]


def test_colour_and_text_stay_out_of_the_base():
    parts = [
        Substream(Kind.LATENT, LayerId.BASE, 0, b"b"),
        Substream(Kind.LATENT, LayerId.MID, 0, b"m"),
        Substream(Kind.ICC, LayerId.MID, 0, b"profile"),
        Substream(Kind.TEXT, LayerId.MID, 0, b"text"),
    ]
    header = plain_header(layers=Container.read(layered_file()).header.layers)
    part = Container.read(select(Container.read(write(header, parts)), tasks=["detection"]))
    assert [entry.kind for entry in part.entries] == [Kind.LATENT]


# --- what is refused -------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("wanted", "words"),
    [
        ({"tasks": ["segmentation"]}, "no task 'segmentation' in this file; it has human, detect"),
        ({"tasks": [TaskId.CLASSIFICATION]}, "no task"),
        ({"tasks": []}, "no task"),
        ({"layers": ["top"]}, "no layer 'top' in this file; it has base, mid, full"),
        ({"layers": []}, "no layer"),
        ({"groups": ["dog"]}, "no group 'dog' in this file; it has 0 background, 9 person"),
        ({"groups": [1]}, "no group 1"),
        ({"groups": []}, "no group"),
        ({"tasks": ["human"], "layers": ["base"]}, "not by both"),
    ],
)
def test_what_is_not_there_is_refused_with_what_is(wanted, words):
    with pytest.raises(RequestError, match=words):
        select(Container.read(layered_file()), **wanted)


def test_a_part_without_any_substream_is_refused():
    whole = Container.read(layered_file())
    part = Container.read(select(whole, layers=["mid"]))
    with pytest.raises(RequestError, match="no substream of what was asked for"):
        select(part, tasks=["detection"])


def test_groups_are_named_by_id_or_label():
    groups = Container.read(layered_file()).header.groups
    header = plain_header(groups=(replace(groups[0], label="9"), groups[1]))
    assert group_ids(header, ["9"]) == (9,)  # an id goes before a label
    assert group_ids(header, [0, "person"]) == (0, 9)
    twins = plain_header(groups=tuple(replace(group, label="car") for group in groups))
    assert group_ids(twins, ["car"]) == (0, 9)
    assert group_ids(plain_header(), [0]) == (0,)
    with pytest.raises(RequestError, match=r"it has 0$"):
        group_ids(plain_header(), ["car"])


CHANGES = {
    "version": {"version": (1, 1)},
    "profile": {"profile": ProfileId.PYRAMID, "parameters": FeatureParameters("p3", 9, 9).pack()},
    "fingerprint": {"fingerprint": b"12345678"},
    "width": {"width": 767},
    "height": {"height": 511},
    "grey": {"grey": True},
    "tile": {"tile": 50},
    "parameters": {"parameters": b"\x30\x30"},
}


@pytest.mark.parametrize("field", CHANGES)
def test_parts_of_different_files_are_refused_by_the_field_that_differs(field):
    part = [Substream(Kind.LATENT, LayerId.BASE, 0, b"x")]
    one, other = write(plain_header(), part), write(plain_header(**CHANGES[field]), part)
    with pytest.raises(RequestError, match=f"parts 1 and 2 differ in {field}"):
        merged(one, other)


def test_parts_with_different_groups_are_refused():
    whole = Container.read(layered_file())
    groups = (replace(whole.header.groups[0], label="sky"), whole.header.groups[1])
    data = whole.fetch(whole.entries)
    parts = [Substream(e.kind, e.layer, e.group, data[e]) for e in whole.entries]
    with pytest.raises(RequestError, match="differ in groups"):
        merged(layered_file(), write(replace(whole.header, groups=groups), parts))


def test_parts_with_different_rate_levels_are_refused():
    part = [Substream(Kind.LATENT, LayerId.BASE, 0, b"x")]
    layer = replace(plain_header().layers[0], rate_level=1)
    with pytest.raises(RequestError, match="differ in layers"):
        merged(write(plain_header(), part), write(plain_header(layers=(layer,)), part))


def test_parts_with_different_bytes_for_a_substream_are_refused():
    one, other = (
        write(plain_header(), [Substream(Kind.LATENT, LayerId.BASE, 0, data)])
        for data in (b"one", b"other")
    )
    with pytest.raises(RequestError, match="different bytes for the latent of layer base"):
        merged(one, other)


def test_nothing_to_merge_is_refused():
    with pytest.raises(RequestError, match="nothing to merge"):
        merge([])


def test_a_damaged_or_cut_off_file_gives_its_good_parts_only():
    whole = bytearray(layered_file())
    container = Container.read(bytes(whole))
    last = container.entries[-1]
    whole[last.offset] ^= 1
    damaged = Container.read(bytes(whole))
    assert select(damaged, tasks=["detection"]) == select(container, tasks=["detection"])
    with pytest.raises(FormatError, match="latent of layer full, group 9"):
        select(damaged)
    cut = Container.read(bytes(whole[: last.offset]))
    assert select(cut, tasks=["detection"]) == select(container, tasks=["detection"])
    with pytest.raises(TruncatedError, match="latent of layer full, group 9"):
        select(cut)


def test_a_part_of_a_far_file_takes_two_reads():
    source = CountingSource(layered_file(payload=20_000))
    select(Container.read(source), layers=["mid", "full"], groups=["person"])
    assert len(source.reads) == 2


# --- what a file says of itself --------------------------------------------------------------


@quick
@given(made_files())
def test_described_bytes_add_up(made):
    facts = describe(Container.read(made.data))
    assert json.loads(json.dumps(dataclasses.asdict(facts)))["width"] == made.header.width
    layers = sum(layer.num_bytes for layer in facts.layers)
    assert facts.header_bytes + layers == facts.num_bytes == len(made.data)
    lines = [line for layer in facts.layers for line in layer.substreams]
    assert sum(line.num_bytes for line in lines) == layers
    assert facts.bpp == 8 * len(made.data) / (made.header.width * made.header.height)
    for task in facts.tasks:
        assert task.num_bytes <= facts.num_bytes


def test_described_groups_are_in_pixels_and_within_the_picture():
    whole = Container.read(layered_file(payload=3000))
    background, person = describe(whole).groups
    assert (background.box, person.box) == ((0, 0, 768, 256), (0, 256, 768, 256))
    assert (person.label, person.score, person.num_bytes) == ("person", 1.0, 3 * 1500)
    assert background.num_bytes == 3 * 1500  # without the map, which is nobody's


def test_a_description_says_what_is_missing():
    whole = layered_file()
    cut = describe(Container.read(whole[:-1]))
    assert cut.cut_off
    assert [layer.whole for layer in cut.layers] == [True, True, False]
    assert [line.whole for line in cut.layers[2].substreams] == [True, False]
    part = describe(Container.read(select(Container.read(whole), layers=["full"])))
    assert not part.cut_off
    assert [layer.whole for layer in part.layers] == [False, False, True]
    assert all(task.whole for task in describe(Container.read(whole)).tasks)
    assert [task.whole for task in cut.tasks] == [False, True]
    assert not any(task.whole for task in part.tasks)


def test_ids_may_be_numbers_of_any_kind() -> None:
    header = Container.read(layered_file()).header
    first = header.group_ids[0]
    assert group_ids(header, [np.int64(first)]) == group_ids(header, [first]) == (first,)  # type: ignore[list-item]
    with pytest.raises(RequestError, match="no group"):
        group_ids(header, [1.5])  # type: ignore[list-item]


def test_a_file_is_read_by_several_threads_at_once(tmp_path: Path) -> None:
    """One sought while another was about to read."""
    data = bytes(range(256)) * 4096
    (tmp_path / "a").write_bytes(data)

    def part(number: int) -> bool:
        offset = 7919 * number % (len(data) - 64)
        return source.get_bytes(offset, 64) == data[offset : offset + 64]

    with (tmp_path / "a").open("rb", buffering=0) as file, ThreadPoolExecutor(8) as threads:
        source = FileSource(file)
        assert all(threads.map(part, range(4000)))
