"""Lists of boxes: JSON of our own or COCO's, and what one box must be."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypeGuard

from vcmcodec.bitstream.constants import MAX_LABEL_BYTES
from vcmcodec.bitstream.texts import is_line
from vcmcodec.errors import PictureError


@dataclass(frozen=True)
class LabelledBox:
    """A box in pixels, clipped to the picture, before it has claimed cells."""

    id: int
    label: str
    score: float | None
    left: float
    top: float
    right: float
    bottom: float

    @property
    def area(self) -> float:
        """Pixels that are left of it."""
        return (self.right - self.left) * (self.bottom - self.top)


def read(data: bytes, height: int, width: int) -> list[dict[str, Any]]:
    """The list of boxes in a JSON file, with COCO's category names as labels.

    Args:
        data: the file.
        height, width: of the picture that they are for.

    Raises:
        PictureError: it is no such list, or of several pictures, or of another size.
    """
    try:
        content = json.loads(data)
    except (ValueError, RecursionError) as error:
        raise PictureError(f"not a JSON list of boxes: {error}") from error
    if isinstance(content, list):
        return content
    if not isinstance(content, dict):
        raise PictureError("not a JSON list of boxes")
    boxes, categories = content.get("annotations"), content.get("categories", [])
    if not _is_list_of_objects(boxes) or not _is_list_of_objects(categories):
        raise PictureError('a JSON object of boxes needs a list "annotations", as COCO has it')
    pictures = content.get("images", [])
    if not _is_list_of_objects(pictures):
        raise PictureError('"images" of a JSON object of boxes is no list of objects')
    if len(pictures) > 1 or len({str(box.get("image_id")) for box in boxes}) > 1:
        raise PictureError("annotations of several pictures; give those of this picture alone")
    for picture in pictures:
        told = picture.get("width", width), picture.get("height", height)
        if told != (width, height):
            raise PictureError(
                f"annotations of a picture of {told[0]} x {told[1]}; this one is {width} x {height}"
            )
    names = {str(each.get("id")): str(each.get("name", "")) for each in categories}
    return [{"label": names.get(str(box.get("category_id")), ""), **box} for box in boxes]


def _is_list_of_objects(value: Any) -> TypeGuard[list[dict[str, Any]]]:
    return isinstance(value, list) and all(isinstance(item, dict) for item in value)


def parse_box(item: Any, place: int, box_id: int, height: int, width: int) -> LabelledBox:
    """One item of a list as a box of a picture of some height and width.

    Args:
        item: `box` or `bbox`, perhaps `label` or `category_id`, `score`.
        place: in the list, for the message.
        box_id: its id.

    Raises:
        PictureError: it is no box, or its label or score cannot be held.
    """
    where = f"box {place + 1} of the list"
    if not isinstance(item, Mapping) or not ("box" in item or "bbox" in item):
        raise PictureError(f'{where}: no "box": [x, y, width, height]')
    sides = item["box"] if "box" in item else item["bbox"]
    if not isinstance(sides, Sequence) or len(sides) != 4 or not all(map(_is_number, sides)):
        raise PictureError(f"{where}: a box is four finite numbers [x, y, width, height]")
    left, top, box_width, box_height = map(float, sides)
    if box_width < 0 or box_height < 0:
        raise PictureError(f"{where}: negative width or height")
    score = item.get("score")
    if score is not None and not (_is_number(score) and 0 <= score <= 1):
        raise PictureError(f"{where}: a score lies between 0 and 1, not {score!r}")
    label = str(item.get("label", item.get("category_id", "")))
    if not is_line(label):
        raise PictureError(f"{where}: the label {label!r} holds control characters")
    if len(label.encode()) > MAX_LABEL_BYTES:
        raise PictureError(f"{where}: the label has more than {MAX_LABEL_BYTES} bytes")
    return LabelledBox(
        box_id,
        label,
        None if score is None else float(score),
        left=min(max(left, 0.0), width),
        top=min(max(top, 0.0), height),
        right=min(max(left + box_width, 0.0), width),
        bottom=min(max(top + box_height, 0.0), height),
    )


def _is_number(value: Any) -> bool:
    if not isinstance(value, int | float) or isinstance(value, bool):
        return False
    try:
        return math.isfinite(value)
    except OverflowError:  # a whole number beyond any float
        return False
