"""What no reader would accept is not written: the rules of test_malformed hold for writers."""

from __future__ import annotations

from dataclasses import replace

import pytest
from random_files import plain_header

from vcmcodec.bitstream.constants import CoderId, Kind, LayerId, TaskId
from vcmcodec.bitstream.container import Substream, write
from vcmcodec.bitstream.header import Box, Group, LayerInfo, TaskInfo
from vcmcodec.errors import RequestError

LATENT = Substream(Kind.LATENT, LayerId.BASE, 0, b"x")
WRONG_HEADERS = {
    "fingerprint": {"fingerprint": b"short"},
    "width": {"width": 0},
    "tile": {"tile": -1},
    "parameters": {"parameters": bytes(65)},
    "major": {"version": (2, 0)},
    "profile": {"profile": 99},
    "coder": {"coder": CoderId.RANGE_STATIC},
    "layers[1].rate_level": {"layers": (LayerInfo(LayerId.BASE, 2), LayerInfo(LayerId.MID, 1))},
    "extra": {"extra": b"x"},
    "layers": {"layers": ()},
    "layers[0].rate_level": {"layers": (LayerInfo(LayerId.BASE, 10_001),)},
    "tasks[0].layer": {"tasks": (TaskInfo(TaskId.HUMAN, LayerId.FULL),)},
    "tasks": {"tasks": (TaskInfo(TaskId.HUMAN, LayerId.BASE),) * 2},
    "groups": {"redacted": True},
}
WHOLE = Group(0, "all", None, Box(0, 0, 48, 32), 48 * 32)
WRONG_GROUPS = {
    "id": {"id": 256},
    "label": {"label": "é" * 33},
    "score": {"score": 1.01},
    "cells": {"cells": 1537},
}
WRONG_PARTS = {
    "latent": [LATENT, LATENT],
    "layer": [replace(LATENT, layer=LayerId.MID)],
    "group": [replace(LATENT, group=1)],
    "tile": [replace(LATENT, tile=1)],
    "kind": [replace(LATENT, kind=0xFF)],
    "directory": [],
}


@pytest.mark.parametrize("field", WRONG_HEADERS)
def test_a_wrong_header_is_not_written(field):
    with pytest.raises(RequestError) as caught:
        write(plain_header(**WRONG_HEADERS[field]), [LATENT])
    assert str(caught.value).startswith(f"{field}: ")


@pytest.mark.parametrize("field", WRONG_GROUPS)
def test_a_wrong_group_is_not_written(field):
    header = plain_header(groups=(replace(WHOLE, **WRONG_GROUPS[field]),))
    group_map = Substream(Kind.GROUP_MAP, LayerId.BASE, 0, b"")
    part = replace(LATENT, group=header.groups[0].id)
    with pytest.raises(RequestError, match=rf"^groups\[0\]\.{field}: "):
        write(header, [group_map, part])


@pytest.mark.parametrize("label", ["\ud800", "a\nb", "\x9b31m"])
def test_a_label_that_is_no_text_is_not_written(label):
    header = plain_header(groups=(replace(WHOLE, label=label),))
    with pytest.raises(RequestError, match=r"groups\[0\]\.label"):
        write(header, [Substream(Kind.GROUP_MAP, LayerId.BASE, 0, b""), LATENT])


@pytest.mark.parametrize("field", WRONG_PARTS)
def test_wrong_parts_are_not_written(field):
    with pytest.raises(RequestError, match=field):
        write(plain_header(), WRONG_PARTS[field])
