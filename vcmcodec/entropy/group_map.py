"""Which cell belongs to which group, in a few dozen bytes (norm: "Entropy coding", group map).

The map is coded in raster order with adaptive binary decisions: is the label that of the first
likely neighbour, of the second, ..., and if of none, which other one.  How the four known
neighbours agree among themselves selects the counts of each decision:

    TL  T  TR
     L  ?

One walk serves both directions: the encoder's decisions are given, the decoder's come back.  A map
drawn on a coarser grid (2, 4 or 8 cells) is coded on that grid.

Pure standard library and `range-coder`: reading a map needs no numpy.
"""

from __future__ import annotations

from collections.abc import Sequence

from vcmcodec.entropy.range_coder import RangeDecoder, RangeEncoder
from vcmcodec.errors import FormatError, RequestError

LARGEST_COUNT = 257  # 256 groups, and "absent"
_SCALES = (1, 2, 4, 8)  # cells along the side of a block of equal labels
_SCALE_CDF = (0, 8, 14, 15, 16)
_STEP, _LIMIT = 2, 1023  # a count grows by _STEP; all are halved when their sum passes _LIMIT
# (no, yes) at the start: of the j-th neighbour, then "not seen before", then "lowest not seen".
_START = ((2, 8), (2, 4), (2, 2), (2, 2))
_START_NEW, _START_LOWEST = (2, 2), (2, 4)
_PATTERNS = 64

Coder = RangeEncoder | RangeDecoder


def encode_group_map(labels: Sequence[int], columns: int, count: int) -> bytes:
    """Code a map of labels; no bytes if there is one group only.

    Args:
        labels: row by row, each within 0 .. count - 1.
        columns: cells in a row.
        count: how many labels there are, 1 .. 257.

    Raises:
        RequestError: sizes or labels are out of range.
    """
    cells = list(labels)
    if not 1 <= count <= LARGEST_COUNT or columns < 1 or not cells or len(cells) % columns:
        raise RequestError(f"no map: {len(cells)} cells in {columns} columns, {count} groups")
    if not 0 <= min(cells) <= max(cells) < count:
        raise RequestError(f"a label of the group map is outside 0 to {count - 1}")
    return b"" if count == 1 else _encode(cells, len(cells) // columns, columns, count)


def decode_group_map(data: bytes, rows: int, columns: int, count: int) -> list[int]:
    """Read a map.

    Returns:
        rows * columns labels, row by row.

    Raises:
        FormatError: the bytes are not those that the map they give would be coded in.
        RequestError: the size or the count is out of range.
    """
    if not 1 <= count <= LARGEST_COUNT or rows < 1 or columns < 1:
        raise RequestError(f"no map: {rows} x {columns} cells, {count} groups")
    if count == 1:
        if data:
            raise FormatError("group_map", "not empty, but there is one group", stored=len(data))
        return [0] * (rows * columns)
    decoder = RangeDecoder(data)
    scale = _SCALES[decoder.symbols([0], _SCALE_CDF)[0]]
    coarse = -(-columns // scale)
    blocks = _walk(decoder, [0] * (-(-rows // scale) * coarse), coarse, count)
    cells = _spread(blocks, rows, columns, scale)
    if _encode(cells, rows, columns, count) != data:
        raise FormatError("group_map", "not the coding of any map")
    return cells


def _encode(cells: list[int], rows: int, columns: int, count: int) -> bytes:
    scale, blocks = _thin(cells, rows, columns)
    encoder = RangeEncoder()
    encoder.symbols([_SCALES.index(scale)], _SCALE_CDF)
    _walk(encoder, blocks, -(-columns // scale), count)
    return encoder.finish()


def _thin(cells: list[int], rows: int, columns: int) -> tuple[int, list[int]]:
    """The largest scale at which nothing is lost, and the map at that scale."""
    for scale in reversed(_SCALES[1:]):
        blocks = [
            label
            for start in range(0, rows * columns, scale * columns)
            for label in cells[start : start + columns : scale]
        ]
        if _spread(blocks, rows, columns, scale) == cells:
            return scale, blocks
    return 1, cells


def _spread(blocks: list[int], rows: int, columns: int, scale: int) -> list[int]:
    """Undo `_thin`."""
    if scale == 1:
        return blocks
    cells: list[int] = []
    coarse = -(-columns // scale)
    for start in range(0, len(blocks), coarse):
        row = [label for label in blocks[start : start + coarse] for _ in range(scale)][:columns]
        for _ in range(scale):
            cells += row
    return cells[: rows * columns]


class _Counts:
    """Adaptive counts of binary decisions, by context number."""

    def __init__(self, coder: Coder) -> None:
        self._bit = coder.bit
        starts = [start for start in _START for _ in range(_PATTERNS)]
        starts += [_START_NEW, _START_LOWEST]
        self._no = [no for no, _ in starts]
        self._yes = [yes for _, yes in starts]

    def decide(self, context: int, value: bool) -> bool:
        """Code or read one decision, then count it."""
        no, yes = self._no[context], self._yes[context]
        value = self._bit(value, no, yes)
        if value:
            yes += _STEP
        else:
            no += _STEP
        if no + yes > _LIMIT:
            no, yes = (no + 1) >> 1, (yes + 1) >> 1
        self._no[context], self._yes[context] = no, yes
        return value


_NEW = len(_START) * _PATTERNS
_LOWEST = _NEW + 1


def _walk(coder: Coder, cells: list[int], columns: int, count: int) -> list[int]:
    """Code the cells, or replace them by what is read; returns them."""
    counts = _Counts(coder)
    decide = counts.decide
    seen = [False] * count
    for i in range(len(cells)):
        left, top, top_left, top_right = _neighbours(cells, i, columns)
        pattern = (
            (left == top)
            | (top_left == left) << 1
            | (top_left == top) << 2
            | (top_right == top) << 3
            | (top_right == left) << 4
            | (top_right == top_left) << 5
        )
        first, second = (top, left) if top_left == left else (left, top)
        label = cells[i]
        if decide(pattern, label == first):
            cells[i] = first
        else:
            tried = [first]
            for near in (second, top_right, top_left):
                if len(tried) == count - 1:
                    continue  # one label is left: nothing to decide
                if near not in tried:
                    context = len(tried) * _PATTERNS + pattern
                    tried.append(near)
                    if decide(context, label == near):
                        cells[i] = near
                        break
            else:
                cells[i] = _other_label(coder, counts, label, tried, seen)
        seen[cells[i]] = True
    return cells


def _neighbours(cells: list[int], i: int, columns: int) -> tuple[int, int, int, int]:
    """Left, top, top left and top right of a cell; nearest known ones stand in at the border."""
    x = i % columns
    if i < columns:
        left = cells[i - 1] if x else 0
        return left, left, left, left
    top = cells[i - columns]
    top_right = cells[i - columns + 1] if x + 1 < columns else top
    if not x:
        return top, top, top, top_right
    return cells[i - 1], top, cells[i - columns - 1], top_right


def _other_label(
    coder: Coder, counts: _Counts, label: int, tried: list[int], seen: list[bool]
) -> int:
    """Code a label that none of the neighbours tried has; there always is one."""
    old = [k for k, known in enumerate(seen) if known and k not in tried]
    new = [k for k, known in enumerate(seen) if not known and k not in tried]
    if new and (not old or counts.decide(_NEW, label in new)):
        if len(new) == 1 or counts.decide(_LOWEST, label == new[0]):
            return new[0]
        old = new[1:]
    if len(old) == 1:
        return old[0]
    place = old.index(label) if label in old else 0  # a decoder does not know it yet
    return old[coder.uniform(place, len(old))]
