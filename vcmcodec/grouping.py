"""Masks and lists of boxes become groups of cells.

A *cell* is 16 x 16 pixels.  This module says which group each cell belongs to and what the file
says of that group (id, label, score, box); it must not know torch or how the map is coded.

Two ways in, both resolved here once, so that the encoder sees cells only:

* a **mask** gives every pixel a group id.  A cell belongs to the id that most of its pixels inside
  the picture have; on a tie, to the smallest such id.  A mask may also have one pixel a cell.
* a list of **boxes** claims every cell that a box touches, so that no object is cut.  Where boxes
  overlap, the one with the smaller area lies on top (a person in front of a bus stays whole, in
  whatever order a detector lists them); of equal areas the later one.  Cells that no box touches
  are group 0, `background`.

Groups that end up without a cell vanish, and `GroupPlan.warnings` names them.
"""

from __future__ import annotations

import math
import os
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from vcmcodec import box_lists
from vcmcodec.bitstream.constants import CELL
from vcmcodec.bitstream.header import Box, Group
from vcmcodec.bitstream.limits import Limits
from vcmcodec.errors import LimitError, PictureError, RequestError

if TYPE_CHECKING:
    from numpy.typing import NDArray
    from PIL import Image

MAX_ID = 255  # an id is one byte in the file
BACKGROUND = "background"
NAMED = 5  # things that a warning names; the others it counts


@dataclass(frozen=True, eq=False)
class GroupPlan:
    """Which group each cell of a picture belongs to.

    Attributes:
        labels: (rows, columns) uint8, positions in `groups` (not ids).
        groups: in order of id; every group has at least one cell.
        warnings: groups that vanished, one sentence for each reason.
        stacked: ids of the groups from the lowest to the topmost, where these are boxes, which
            claim every cell that they touch; empty for a mask.
    """

    labels: NDArray[np.uint8]
    groups: tuple[Group, ...]
    warnings: tuple[str, ...] = ()
    stacked: tuple[int, ...] = ()

    @property
    def ids(self) -> NDArray[np.uint8]:
        """Group id of each cell, (rows, columns)."""
        return np.array([group.id for group in self.groups], np.uint8)[self.labels]


def as_pixels(cells: NDArray[Any], size: tuple[int, int], cell: int = CELL) -> NDArray[Any]:
    """Values of cells (rows, columns) as values of pixels, (height, width), `cell` a side each."""
    wide = cells.repeat(cell, 0).repeat(cell, 1)
    return np.asarray(wide[: size[0], : size[1]])


def cell_at(
    box: Sequence[float], scale: tuple[float, float], grid: tuple[int, ...]
) -> tuple[int, int]:
    """Row and column of the cell in which a box (x, y, width, height) has its centre.

    Args:
        box: in pixels of the true picture.
        scale: coded pixels in a true one, down and across.
        grid: rows and columns of the cells; the last ones also hold what lies beyond.
    """
    x, y, w, h = box
    row, column = int((y + h / 2) * scale[0] // CELL), int((x + w / 2) * scale[1] // CELL)
    return min(row, grid[0] - 1), min(column, grid[1] - 1)


def from_mask(
    mask: NDArray[Any], height: int, width: int, names: Mapping[int, str] | None = None
) -> GroupPlan:
    """Make groups of a mask's pixel values.

    Args:
        mask: (height, width) of group ids 0..255, integers or booleans; or one value a cell,
            (ceil(height / 16), ceil(width / 16)).
        height: of the picture, in pixels.
        width: of the picture, in pixels.
        names: label of an id; id 0 is `background` and the others have no label where not given.

    Raises:
        PictureError: neither size fits, or the values are not ids.
        RequestError: a name for an id that the mask does not have.
    """
    mask = np.asarray(mask)
    if mask.ndim != 2 or mask.dtype.kind not in "biu":
        raise PictureError(f"a mask must be (H, W) of integers, not {mask.shape} of {mask.dtype}")
    rows, columns = _grid(height, width)
    _check_mask_size(mask.shape, height, width)
    if int(mask.min()) < 0 or int(mask.max()) > MAX_ID:
        raise PictureError(f"mask values must be group ids 0..{MAX_ID}, found {mask.max()}")
    if mask.shape == (height, width):
        ids, vanished = _majority(mask.astype(np.uint8), rows, columns)
    else:
        ids, vanished = mask.astype(np.uint8), []
    names = dict(names or {})
    unknown = sorted(set(names) - {int(value) for value in np.unique(mask)})
    if unknown:
        raise RequestError(f"the mask has no pixel of group {', '.join(map(str, unknown))}")
    names.setdefault(0, BACKGROUND)
    notes = one_sentence(
        [names.get(value) or str(value) for value in vanished],
        "group {} has no cell in which it is the largest; it vanishes",
        "{} groups have no cell in which they are the largest, and vanish: {}",
    )
    facts = {int(value): (names.get(int(value), ""), None) for value in np.unique(ids)}
    return make_plan(ids, facts, notes)


def one_sentence(names: Sequence[str], one: str, several: str) -> tuple[str, ...]:
    """A warning about some things by name: a picture that is no mask has hundreds of them.

    Args:
        names: of the things; none: no warning.
        one: with a place for the name of a single thing.
        several: with places for how many there are, and for the first few names.
    """
    if len(names) < 2:
        return tuple(one.format(name) for name in names)
    first, rest = names[:NAMED], len(names) - NAMED
    if rest > 0:
        return (several.format(len(names), f"{', '.join(first)} and {rest} more"),)
    return (several.format(len(names), ", ".join(first)),)


def from_boxes(boxes: Sequence[Mapping[str, Any]], height: int, width: int) -> GroupPlan:
    """Make one group of each box, and group 0 of the rest.

    Args:
        boxes: each with `box` (or COCO's `bbox`) as [x, y, width, height] in pixels from the
            upper left corner; optional `label`, `score`, and with `box` also `id` (1..255, by
            default the first free ones in the list's order).
        height: of the picture, in pixels.
        width: of the picture, in pixels.

    Raises:
        PictureError: an item that is no box, with its place in the list.
        LimitError: more than 255 boxes.
    """
    if len(boxes) > MAX_ID:
        raise LimitError("boxes", len(boxes), MAX_ID)
    given = [_given_id(item, place) for place, item in enumerate(boxes)]
    free = (number for number in range(1, MAX_ID + 1) if number not in given)
    parsed = [
        box_lists.parse_box(item, place, next(free) if box_id is None else box_id, height, width)
        for place, (item, box_id) in enumerate(zip(boxes, given, strict=True))
    ]
    if len({box.id for box in parsed}) != len(parsed):
        raise PictureError("two boxes have the same id")
    rows, columns = _grid(height, width)
    ids = np.zeros((rows, columns), np.uint8)
    stacked = sorted(parsed, key=lambda box: -box.area)  # stable: the later of equals on top
    for box in stacked:
        if box.right <= box.left or box.bottom <= box.top:
            continue
        ids[
            int(box.top) // CELL : math.ceil(box.bottom / CELL),
            int(box.left) // CELL : math.ceil(box.right / CELL),
        ] = box.id
    present = {int(value) for value in np.unique(ids)}
    facts: dict[int, tuple[str, float | None]] = {0: (BACKGROUND, None)}
    facts |= {box.id: (box.label, box.score) for box in parsed}
    lost = [box for box in parsed if box.id not in present]
    notes = one_sentence(
        [f"{box.id} ({box.label or 'no label'})" for box in lost if box.area <= 0],
        "box {} lies outside the picture; its group vanishes",
        "{} boxes lie outside the picture, and their groups vanish: {}",
    )
    notes += one_sentence(
        [f"{box.id} ({box.label or 'no label'})" for box in lost if box.area > 0],
        "box {} is hidden by smaller boxes; its group vanishes",
        "{} boxes are hidden by smaller ones, and their groups vanish: {}",
    )
    return make_plan(ids, facts, notes, [0, *(box.id for box in stacked)])


def read(
    source: str | os.PathLike[str] | bytes,
    height: int,
    width: int,
    names: Mapping[int, str] | None = None,
    limits: Limits | None = None,
) -> GroupPlan:
    """Read a mask picture or a JSON list of boxes and make groups of it.

    Args:
        source: a path, or the file's bytes.  What begins with `[` or `{` is JSON: a list for
            `from_boxes`, or COCO annotations of this one picture; anything else is a mask: a grey
            picture's values, or a palette picture's indexes, are the ids.
        height: of the picture, in pixels.
        width: of the picture, in pixels.
        names: labels of a mask's ids.
        limits: of a mask's pixels.

    Raises:
        PictureError: neither a mask nor a list of boxes.
    """
    from vcmcodec import pixels

    if isinstance(source, str | os.PathLike):
        try:
            data = Path(source).read_bytes()
        except OSError as error:
            raise PictureError(f"{os.fspath(source)}: {error.strerror or error}") from error
    else:
        data = source
    if is_boxes(data):
        if names:
            raise RequestError("boxes carry their own labels; other labels are for masks only")
        return from_boxes(box_lists.read(data, height, width), height, width)
    with pixels.open_image(data, (limits or Limits()).max_pixels) as image:
        return from_image(image, height, width, names)


def is_boxes(data: bytes) -> bool:
    """Whether a file, or what it begins with, is JSON and no mask."""
    return data.lstrip()[:1] in (b"[", b"{")


def from_image(
    image: Image.Image, height: int, width: int, names: Mapping[int, str] | None = None
) -> GroupPlan:
    """Make groups of a mask that Pillow holds: grey values or palette indexes are the ids.

    Raises:
        PictureError: of the wrong size, or a colour picture.
    """
    from vcmcodec import pixels

    _check_mask_size((image.height, image.width), height, width)
    values = pixels.values_of(image)
    if values.ndim == 3 and (values == values[:, :, :1]).all():
        values = values[:, :, 0]  # grey levels that some program stored as RGB
    if values.ndim != 2 or values.dtype.kind not in "biu":
        raise PictureError("a mask must be a grey or palette picture, whose values are group ids")
    return from_mask(values, height, width, names)


def _grid(height: int, width: int) -> tuple[int, int]:
    return -(-height // CELL), -(-width // CELL)


def _check_mask_size(shape: tuple[int, ...], height: int, width: int) -> None:
    rows, columns = _grid(height, width)
    if shape not in ((height, width), (rows, columns)):
        raise PictureError(
            f"the mask is {shape[1]} x {shape[0]}, but the picture is {width} x {height}"
            f" (in cells {columns} x {rows})"
        )


def _given_id(item: Any, place: int) -> int | None:
    """The group id that a box states; COCO's `id` is none, it counts a whole data set's boxes."""
    if not isinstance(item, Mapping) or "box" not in item or "id" not in item:
        return None
    value = item["id"]
    if isinstance(value, bool) or not isinstance(value, int) or not 1 <= value <= MAX_ID:
        raise PictureError(
            f"box {place + 1} of the list: an id is a whole number from 1 to {MAX_ID},"
            f" not {value!r}"
        )
    return value


def _majority(
    mask: NDArray[np.uint8], rows: int, columns: int
) -> tuple[NDArray[np.uint8], list[int]]:
    """Give each cell the id most of its pixels have; also the ids that no cell took."""
    values, positions = np.unique(mask, return_inverse=True)
    positions = positions.reshape(mask.shape)
    ids = np.empty((rows, columns), np.uint8)
    column_of = np.arange(mask.shape[1]) // CELL * len(values)
    for row in range(rows):  # one row of cells at a time: the counts of a large mask stay small
        strip = positions[row * CELL : (row + 1) * CELL] + column_of
        counts = np.bincount(strip.ravel(), minlength=columns * len(values))
        ids[row] = values[counts.reshape(columns, len(values)).argmax(axis=1)]
    return ids, sorted({int(value) for value in values} - {int(value) for value in np.unique(ids)})


def make_plan(
    ids: NDArray[np.uint8], facts: Mapping[int, tuple[str, float | None]], notes: Iterable[str],
    stacked: Sequence[int] = (),
) -> GroupPlan:  # fmt: skip
    """Number the groups that are there, and find the box and the cells of each.

    Args:
        ids: (rows, columns) group id of each cell.
        facts: label and score of every id.
        notes: warnings.
        stacked: ids of boxes from the bottom to the top; none of a mask.
    """
    present, inverse = np.unique(ids, return_inverse=True)
    labels = inverse.reshape(ids.shape).astype(np.uint8)
    groups = []
    for position, group_id in enumerate(int(value) for value in present):
        inside = labels == position
        in_rows, in_columns = np.flatnonzero(inside.any(axis=1)), np.flatnonzero(inside.any(axis=0))
        box = Box(
            left=int(in_columns[0]),
            top=int(in_rows[0]),
            width=int(in_columns[-1] - in_columns[0]) + 1,
            height=int(in_rows[-1] - in_rows[0]) + 1,
        )
        label, score = facts[group_id]
        groups.append(Group(group_id, label, score, box, int(inside.sum())))
    order = tuple(box_id for box_id in stacked if box_id in present)
    return GroupPlan(labels, tuple(groups), tuple(notes), order)
