"""How CompressAI's coder crashes or lies, case by case, and that it cannot any more."""

from __future__ import annotations

import os
import subprocess
import sys
import textwrap

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from vcmcodec.entropy import rans
from vcmcodec.entropy.cdf import Tables, gaussian_tables
from vcmcodec.entropy.rans import RansDecoder, RansEncoder
from vcmcodec.errors import FormatError, LimitError, RequestError

TABLES = gaussian_tables([0.3, 1.0, 4.0])
INDEX = np.tile([1, 2, 2, 0], 10)
RNG = np.random.default_rng(3)
VALUES = np.where(INDEX > 0, np.rint(RNG.normal(0, 3, INDEX.size)), 0).astype(np.int32)
VALUES[5] = 70_000


def encode(values=VALUES, index=INDEX):
    encoder = RansEncoder(TABLES)
    encoder.push(values, index)
    return encoder.finish()


def decode(data, index=INDEX):
    decoder = RansDecoder(TABLES, data)
    values = decoder.pull(index)
    decoder.finish()
    return values


RUN = encode()


def passes_only_if_it_is_the_coding_of_what_it_gives(data):
    """Damage is refused, unless the bytes are what the encoder writes for what they say.

    That remains for flips inside raw mantissa bits: nothing but the CRC can notice these.
    """
    try:
        values = decode(data)
    except FormatError:
        return False
    assert encode(values) == data
    return True


def run_alone(script: str, **environment: str) -> str:
    """Run in a fresh process: there a crash is an exit status, not the end of the tests."""
    done = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(script)],
        env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path), **environment},
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-2000:]
    return done.stdout


def test_empty_input():
    """The module reads eight bytes of nothing."""
    assert encode(np.zeros(9, int), np.zeros(9, int)) == b""
    assert not decode(b"", np.zeros(9, int)).any()
    with pytest.raises(FormatError, match="empty, but symbols are coded"):
        decode(b"", np.ones(1, int))


def test_bytes_without_symbols():
    for data in (RUN, bytes.fromhex("0000008000")):  # the second: a bare state of 2**31
        with pytest.raises(FormatError, match="do not end where the run does"):
            decode(data, np.zeros(9, int))


def test_one_symbol():
    """The module writes eight bytes into room for four, and the heap is gone."""
    out = run_alone(
        """
        import numpy as np
        from vcmcodec.entropy.cdf import gaussian_tables
        from vcmcodec.entropy.rans import RansDecoder, RansEncoder
        tables = gaussian_tables([0.3, 1.0, 4.0], skip=0)
        sizes = set()
        for count in (1, 2, 3):
            for i in range(3):
                for value in (*range(-9, 10), 2**31 - 1, -2**31):
                    encoder = RansEncoder(tables)
                    encoder.push([value] * count, [i] * count)
                    data = encoder.finish()
                    decoder = RansDecoder(tables, data)
                    assert decoder.pull([i] * count).tolist() == [value] * count
                    decoder.finish()
                    sizes.add(len(data))
        print(min(sizes))
        """,
        MALLOC_CHECK_="3",
        MALLOC_PERTURB_="165",
    )
    assert int(out) == 5


def test_the_module_never_codes_fewer_than_three_symbols(monkeypatch):
    """Two symbols of 16 bits each are three words, written into room for two."""
    tables = Tables((np.array([0, 1, 65536], np.int32),), np.array([0], np.int32), skip=0)
    monkeypatch.setattr(rans, "_module", lambda: pytest.fail("the module was asked"))
    for values in ([0], [0, 0]):
        encoder = RansEncoder(tables)
        encoder.push(values, [0] * len(values))
        data = encoder.finish()
        monkeypatch.undo()
        assert RansDecoder(tables, data).pull([0] * len(values)).tolist() == values
        monkeypatch.setattr(rans, "_module", lambda: pytest.fail("the module was asked"))


@pytest.mark.parametrize("bad", [-1, 3, 2**40])
def test_index_out_of_range(bad):
    with pytest.raises(RequestError, match="outside 0 to 2"):
        encode(np.zeros(2, int), np.array([1, bad]))
    with pytest.raises(RequestError, match="outside 0 to 2"):
        decode(RUN, np.array([1, bad]))


@pytest.mark.parametrize(
    ("values", "index", "reason"),
    [
        ([1], [0], "skipped must be zero"),
        ([1, 2], [1], "2 symbols, but 1"),
        ([2**31], [1], "32 bits"),
        ([-(2**31) - 1], [1], "32 bits"),
        ([0.5], [1], "flat array of integers"),
        ([[1]], [[1]], "flat array of integers"),
    ],
)
def test_symbols_that_cannot_be_coded(values, index, reason):
    with pytest.raises(RequestError, match=reason):
        encode(np.array(values), np.array(index))


def test_truncation_at_every_length():
    for length in range(len(RUN)):
        assert not passes_only_if_it_is_the_coding_of_what_it_gives(RUN[:length])


def test_every_flipped_bit():
    passed = 0
    for bit in range(8 * len(RUN)):
        damaged = bytearray(RUN)
        damaged[bit // 8] ^= 1 << bit % 8
        passed += passes_only_if_it_is_the_coding_of_what_it_gives(bytes(damaged))
    assert passed <= 20  # the escape's mantissa and class have about as many bits


def test_trailing_bytes():
    for tail in (b"\0", bytes(4), bytes(8), bytes(64), RUN, rans._tail()[:4], rans._tail()[:400]):
        assert not passes_only_if_it_is_the_coding_of_what_it_gives(RUN + tail)


def test_one_index_wrong_by_one():
    """Seen elsewhere: three quarters of all symbols wrong, and no word said."""
    plain = np.where(INDEX > 0, VALUES % 3, 0)
    data = encode(plain)
    for place in np.flatnonzero(INDEX == 2):
        wrong = INDEX.copy()
        wrong[place] = 1
        with pytest.raises(FormatError):
            decode(data, wrong)


def test_pulling_beyond_the_end_stops_soon():
    decoder = RansDecoder(TABLES, RUN)
    with pytest.raises(FormatError, match="ends before its symbols do"):
        decoder.pull(np.full(10_000_000, 2, np.uint8))
    assert decoder._symbols <= 2 * rans.CHUNK
    with pytest.raises(FormatError):
        decoder.finish()


@settings(max_examples=200, deadline=None)
@given(st.binary(max_size=64))
def test_random_blobs(blob):
    """200 of 200 random strings decoded "fine" once."""
    passes_only_if_it_is_the_coding_of_what_it_gives(blob)


def test_hostile_data_never_crashes():
    out = run_alone(
        """
        import random
        import numpy as np
        from vcmcodec.entropy.cdf import Tables, gaussian_tables
        from vcmcodec.entropy.rans import RansDecoder
        from vcmcodec.errors import FormatError
        rough = Tables((np.array([0, 1, 65536], np.int32),), np.array([0], np.int32), skip=0)
        random.seed(1)
        refused = 0
        for tables in (rough, gaussian_tables([0.3, 60.0], skip=0)):
            for trial in range(40):
                size = random.choice((5, 6, 8, 12, 100, 4000))
                data = bytes([random.choice((0, 255, trial % 256))]) * (size - 5)
                for head in (b"\\0\\0\\0\\x80\\0", b"\\xff" * 7, random.randbytes(7)):
                    try:
                        decoder = RansDecoder(tables, head + data)
                        for _ in range(3):
                            decoder.pull(np.full(random.choice((1, 99, 70000)), len(tables) - 1))
                        decoder.finish()
                    except FormatError:
                        refused += 1
        print(refused)
        """,
        MALLOC_CHECK_="3",
    )
    assert int(out) > 220


def test_bypass_that_never_ends():
    """A string of ones is an endless count in the module's own escape, which no table lets in."""
    decoder = RansDecoder(TABLES, b"\xff" * 7 + b"\x7f" + b"\xff" * 4000)
    with pytest.raises(FormatError):
        decoder.pull(np.full(200_000, 2))
    books = rans._books_of(TABLES)
    _, lists, sizes, offsets = books.choose(np.arange(len(books.cdfs)))
    assert all(cdf[-2:] == [65536, 65536] for cdf in lists)
    assert sizes == [len(cdf) for cdf in lists]
    assert not any(offsets)


def test_escape_classes_beyond_32_bits():
    tables = Tables((np.array([0, 1, 65536], np.int32),), np.array([5], np.int32), skip=0)
    pairs = [(1, 65535), (65535, 1), *[(65280, 256)] * 3, (65024, 512)]  # class 31 below, all ones
    data = rans._trim(rans.encode_plainly(pairs))
    with pytest.raises(FormatError, match="beyond 32 bits"):
        RansDecoder(tables, data).pull([0])


@pytest.mark.parametrize("data", [b"\0" * 5, b"\0" * 8, b"\xff" * 8, b"\0\0\0\x80\0\0\0\0", b"\1"])
def test_states_that_no_encoder_leaves(data):
    with pytest.raises(FormatError):
        RansDecoder(TABLES, data)


def test_a_run_too_long(monkeypatch):
    monkeypatch.setattr(rans, "LARGEST_RUN", 20)
    with pytest.raises(LimitError):
        encode()
    with pytest.raises(LimitError):
        decode(RUN)


def test_the_package_is_missing(monkeypatch):
    from vcmcodec.entropy import extension

    for name, module in (("no_such_package", "ans"), ("hypothesis", "no_such_module")):
        with pytest.raises(RequestError, match="pip install"):
            extension.load(name, module)


def test_neither_torch_nor_the_package_is_imported():
    out = run_alone(
        """
        import sys
        from vcmcodec.entropy.cdf import gaussian_tables
        from vcmcodec.entropy.rans import RansDecoder, RansEncoder
        encoder = RansEncoder(gaussian_tables([1.0], skip=0))
        encoder.push([1, 2, 3, 4], [0] * 4)
        RansDecoder(gaussian_tables([1.0], skip=0), encoder.finish()).pull([0] * 4)
        print([name for name in ("torch", "compressai", "range_coder") if name in sys.modules])
        """
    )
    assert out.strip() == "[]"
