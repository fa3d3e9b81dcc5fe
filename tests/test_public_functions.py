"""The functions of the package, as a program calls them: what they tell, take and refuse."""

from __future__ import annotations

import dataclasses
import inspect
import io
import re
import threading
import warnings
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image, ImageFile

import vcmcodec
from photographs import astronaut, coffee, photograph, rewritten, substreams
from vcmcodec import api, codec, errors, pixels, scene_codec
from vcmcodec.bitstream.constants import Kind, LayerId, TaskId
from vcmcodec.bitstream.container import Container

# Names in annotations that are Python's or Pillow's, or unions that the docstrings spell out.
TYPING = {"Mapping", "None", "Image", "Source", "Groups", "ChosenGroups", "Tasks"}
BOXES = [{"label": "left", "box": [0, 0, 40, 60]}]


@cache
def whole() -> bytes:
    return vcmcodec.encode(coffee())


def cut() -> bytes:
    """Up to the end of the base layer."""
    entries = Container.read(whole()).entries
    return whole()[: max(e.end for e in entries if e.layer == LayerId.BASE) + 5]


# ---- warnings


def test_what_is_lost_on_the_way_in_is_told_as_a_warning(tmp_path: Path) -> None:
    path = tmp_path / "print.jpg"
    Image.fromarray(coffee()).convert("CMYK").save(path)
    with pytest.warns(vcmcodec.VcmWarning, match="CMYK converted") as told:
        vcmcodec.encode(path)
    assert len(told) == 1
    assert told[0].filename == __file__  # the caller's own line
    with pytest.warns(vcmcodec.VcmWarning, match="CMYK converted"):
        vcmcodec.features(path)
    encoded = vcmcodec.encode_picture(path)  # a record has them, and warns of nothing
    assert isinstance(encoded, vcmcodec.Encoded)
    assert "CMYK converted" in encoded.warnings[0]


def test_groups_that_are_adapted_together_are_told_as_a_warning() -> None:
    with pytest.warns(vcmcodec.VcmWarning, match="adapted together") as told:
        vcmcodec.encode(astronaut(), tasks=["detection"], groups=BOXES, effort=1)
    assert [str(one.message) for one in told] == [scene_codec.ADAPTED_TOGETHER]


def test_what_a_cut_file_lacks_is_told_as_a_warning() -> None:
    with vcmcodec.open(cut()) as reader:
        notes = list(reader.inspect().warnings)
        assert len(notes) == 2
        assert "cut off" in notes[0]
        with pytest.warns(vcmcodec.VcmWarning) as told:
            reader.decode()
    assert [str(one.message) for one in told] == notes
    assert told[0].filename == __file__
    with pytest.warns(vcmcodec.VcmWarning) as told:
        vcmcodec.decode(cut())
    assert [str(one.message) for one in told] == notes
    assert told[0].filename == __file__
    with pytest.warns(vcmcodec.VcmWarning) as told:
        vcmcodec.analyze(cut())
    assert [str(one.message) for one in told] == notes[:1]
    assert told[0].filename == __file__


def test_a_task_that_a_file_is_too_coarse_for_is_told_as_a_warning() -> None:
    data = vcmcodec.encode(coffee(), tasks=["classification"], base_quality=0, effort=0)
    with pytest.warns(vcmcodec.VcmWarning, match="detection needs a base quality of"):
        vcmcodec.analyze(data, tasks=["detection"])


def test_features_that_are_not_all_there_are_told_as_a_warning() -> None:
    data = vcmcodec.encode(photograph("coffee", 96, 96), profile="pyramid", groups=BOXES)
    first = Container.read(data).find(layer=LayerId.BASE, group=0)
    with pytest.warns(vcmcodec.VcmWarning, match="cut off"):
        vcmcodec.decode_features(data[: max(e.end for e in first)], groups=[0])


def test_where_nothing_is_lost_nothing_is_told() -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        data = vcmcodec.encode(coffee())
        assert vcmcodec.decode(data)
        assert vcmcodec.analyze(data)
        assert vcmcodec.features(coffee())


def test_a_picture_that_is_read_meanwhile_does_not_swallow_a_warning(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    inside, go_on, usual = threading.Event(), threading.Event(), ImageFile.ImageFile.load

    def slow(image: ImageFile.ImageFile) -> object:
        inside.set()
        go_on.wait(0.3)
        return usual(image)

    monkeypatch.setattr(ImageFile.ImageFile, "load", slow)
    read: list[pixels.Picture] = []
    path = Path(__file__).parents[1] / "docs" / "kodak-rd.png"
    with warnings.catch_warnings(record=True) as told:
        warnings.simplefilter("always")
        other = threading.Thread(target=lambda: read.append(pixels.read(path)))
        other.start()
        assert inside.wait(10)
        errors.warn(["of another picture"])
        go_on.set()
        other.join()
    assert [str(one.message) for one in told] == ["of another picture"]
    assert not read[0].warnings


def test_pictures_are_the_same_with_and_without_warnings() -> None:
    assert vcmcodec.encode(coffee()) == vcmcodec.encode_picture(coffee()).data
    with vcmcodec.open(whole()) as reader:
        assert np.array_equal(np.asarray(reader.decode()), np.asarray(vcmcodec.decode(whole())))


# ---- tasks


@cache
def features_file() -> bytes:
    return vcmcodec.encode(photograph("coffee", 96, 96), profile="pyramid")


@pytest.mark.parametrize(
    "call",
    [
        lambda tasks: vcmcodec.encode(coffee(), tasks=tasks, effort=0),
        lambda tasks: vcmcodec.encode(photograph("coffee", 96, 96), tasks=tasks, profile="pyramid"),
        lambda tasks: vcmcodec.extract(whole(), tasks=tasks),
        lambda tasks: vcmcodec.analyze(whole(), tasks=tasks).to_json("", ""),
        lambda tasks: vcmcodec.analyze(features_file(), tasks=tasks).to_json("", ""),
        lambda tasks: {
            name: tensor.numpy().tobytes()
            for name, tensor in vcmcodec.decode_features(
                features_file(), tasks=tasks
            ).tensors.items()
        },
    ],
    ids=["encode", "encode features", "extract", "analyze", "analyze features", "decode_features"],
)
def test_one_task_may_be_given_by_its_name_wherever_tasks_are(call: Callable[..., object]) -> None:
    name = "classification"
    alone = call(name)
    for several in ([name], (name,), {name}, TaskId.CLASSIFICATION):
        assert call(several) == alone, several
    assert call(["detection", "classification"]) != alone
    for wrong, what in (("seeing", "seeing"), (["seeing"], "seeing"), ([], "no task"), (2.5, "2")):
        with pytest.raises(vcmcodec.RequestError, match=what):
            call(wrong)


# ---- analyze


def seen(source: object, **options: Any) -> dict[str, object]:
    return vcmcodec.analyze(source, **options).to_json("", "")  # type: ignore[arg-type]


def test_a_picture_is_analyzed_in_whatever_form_it_is(tmp_path: Path) -> None:
    rgb = photograph("astronaut", 200, 200, 0, 120)
    found = seen(rgb)
    assert found["width"] == 200
    assert {thing["label"] for thing in found["objects"]} == {"person"}  # type: ignore[attr-defined]
    path = tmp_path / "a.png"
    Image.fromarray(rgb).save(path)
    for source in (Image.fromarray(rgb), pixels.read(rgb), path, str(path), path.read_bytes()):
        assert seen(source) == found
    with path.open("rb") as file:
        assert seen(file) == found
        assert seen(memoryview(path.read_bytes())) == found
    assert set(found) - set(seen(rgb, tasks="detection")) == {"classes", "areas"}
    grey = np.asarray(Image.fromarray(rgb).convert("L"))
    assert seen(grey) == seen(np.stack([grey] * 3, axis=2))


def test_a_file_is_told_from_a_picture_by_its_first_bytes(tmp_path: Path) -> None:
    found = seen(whole())
    path = tmp_path / "a.png"  # whatever its name promises
    path.write_bytes(whole())
    with path.open("rb") as file:
        assert seen(path) == seen(file) == seen(io.BytesIO(whole())) == found
    reads: list[tuple[int, int]] = []

    def far_away(offset: int, length: int) -> bytes:
        reads.append((offset, length))
        return whole()[offset : offset + length]

    assert seen(far_away) == found
    assert len(reads) <= 2  # no byte is read only to see what it is


def test_what_a_picture_loses_before_it_is_analyzed_is_told() -> None:
    file = io.BytesIO()
    Image.fromarray(coffee()).convert("CMYK").save(file, "JPEG")
    with pytest.warns(vcmcodec.VcmWarning, match="CMYK converted") as told:
        vcmcodec.analyze(file.getvalue(), tasks="detection")
    assert told[0].filename == __file__


def test_what_cannot_be_analyzed_is_one_clear_error(tmp_path: Path) -> None:
    (tmp_path / "text.vcm").write_text("not what its name says")
    (tmp_path / "text.png").write_text("nor this")
    png = io.BytesIO()
    Image.fromarray(coffee()).save(png, "PNG")
    neither = "neither a .vcm file nor a picture"
    for source, options, kind, text in (
        (b"words", {}, vcmcodec.PictureError, neither),
        (whole()[:2], {}, vcmcodec.PictureError, neither),
        (b"", {}, vcmcodec.PictureError, "empty"),
        (tmp_path / "text.png", {}, vcmcodec.PictureError, neither),
        (tmp_path / "text.vcm", {}, vcmcodec.FormatError, "not a .vcm file"),
        (whole().replace(b"\r\n", b"\n", 1), {}, vcmcodec.FormatError, "transfer as text"),
        (png.getvalue()[:900], {}, vcmcodec.PictureError, "damaged"),
        (tmp_path / "none.png", {}, vcmcodec.RequestError, "none.png: No such file"),
        (np.zeros((4, 4, 3)), {}, vcmcodec.PictureError, "uint8"),
        (5, {}, vcmcodec.RequestError, "from int"),
        (coffee(), {"groups": [1]}, vcmcodec.RequestError, "a picture has none"),
        (coffee(), {"tasks": "human"}, vcmcodec.RequestError, "no machine task human"),
        (coffee(), {"limits": vcmcodec.Limits(max_pixels=9)}, vcmcodec.LimitError, "pixels"),
    ):  # fmt: skip
        with pytest.raises(kind, match=text):
            seen(source, **options)  # type: ignore[arg-type]


# ---- verify


def test_a_deep_check_brings_its_own_decoder() -> None:
    data = vcmcodec.encode(coffee(), digest=True)
    report = vcmcodec.verify(data, deep=True)
    assert (report.ok, report.deep) == (True, True)
    digest = next(key for key in substreams(data) if key[0] == Kind.DIGEST)
    wrong = rewritten(data, [(digest, bytes(8))])  # every CRC-32 is right
    assert vcmcodec.verify(wrong).ok
    assert not vcmcodec.verify(wrong, deep=True).ok


# ---- signatures


def test_a_misspelt_option_is_refused_by_encode_itself() -> None:
    with pytest.raises(TypeError, match=r"encode\(\) got an unexpected keyword argument 'qualty'"):
        vcmcodec.encode(coffee(), qualty=60)  # type: ignore[call-arg]


def test_encode_takes_every_option_that_there_is_with_the_same_default() -> None:
    taken = inspect.signature(vcmcodec.encode).parameters
    options = dataclasses.fields(vcmcodec.EncodeOptions)
    assert not any(one.kind == one.VAR_KEYWORD for one in taken.values())
    assert set(taken) == {"image", "groups", "device", "limits"} | {one.name for one in options}
    for one in options:
        assert taken[one.name].default == one.default, one.name


def test_every_option_goes_where_it_belongs(monkeypatch: pytest.MonkeyPatch) -> None:
    """They are handed on by position."""
    seen: list[vcmcodec.EncodeOptions] = []
    header = Container.read(whole()).header  # before encoding is replaced

    def note(image: object, options: vcmcodec.EncodeOptions, **rest: object) -> vcmcodec.Encoded:
        seen.append(options)
        return vcmcodec.Encoded(b"", header, ())

    monkeypatch.setattr(codec, "encode_any", note)
    given = {
        "tasks": ("detection",), "quality": 1.0, "base_quality": 2.0, "longer_side": 3, "effort": 4,
        "target_size": 5, "target_bpp": 6.0, "profile": "pyramid", "model": "m", "split": "s",
        "vision": "v", "digest": True, "text": {"k": "t"},
    }  # fmt: skip
    vcmcodec.encode(b"", **given)  # type: ignore[arg-type]
    assert dataclasses.asdict(seen[0]) == given


def test_what_public_functions_take_and_give_is_public() -> None:
    """`Any` would be what no type checker can check."""
    for function in filter(inspect.isfunction, map(vars(api).get, vcmcodec.__all__)):
        text = " ".join(map(str, inspect.get_annotations(function).values()))
        names = set(re.findall(r"[A-Z][A-Za-z]+", text)) - TYPING
        assert names, function.__name__
        for name in names:
            assert name in vcmcodec.__all__, (function.__name__, name)
