"""The functions of the package, as a program calls them: what they tell, take and refuse."""

from __future__ import annotations

import threading
import warnings
from functools import cache
from pathlib import Path

import numpy as np
import pytest
from PIL import Image, ImageFile

import vcmcodec
from photographs import astronaut, coffee, photograph
from vcmcodec import errors, pixels, scene_codec
from vcmcodec.bitstream.constants import LayerId
from vcmcodec.bitstream.container import Container

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
