"""Notes about a picture: what is kept, what is refused."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from vcmcodec.bitstream import texts
from vcmcodec.errors import FormatError, RequestError

LINE = st.text(st.characters(blacklist_categories=["Cc", "Cs"]), max_size=20)
KEY = LINE.filter(lambda key: key and "=" not in key)


@given(st.dictionaries(KEY, LINE, max_size=5))
def test_pairs_come_back(pairs: dict[str, str]) -> None:
    assert texts.unpack(texts.pack(pairs)) == pairs


@pytest.mark.parametrize(
    "pairs",
    [
        {"": "x"},
        {"a=b": "c"},
        {"a": "x\nb=forged"},
        {"a": "\x1b[31m"},
        {"a\0": ""},
        {"a": "\ud800"},
    ],
)
def test_what_is_no_line_is_refused(pairs: dict[str, str]) -> None:
    with pytest.raises(RequestError, match="text"):
        texts.pack(pairs)


@pytest.mark.parametrize("data", [b"\xff=1\n", b"a=1", b"a\n", b"=1\n", b"a=\x07\n", b"\n"])
def test_damaged_texts_are_refused(data: bytes) -> None:
    with pytest.raises(FormatError, match="text"):
        texts.unpack(data)
