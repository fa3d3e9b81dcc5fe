"""The pictures that a detector gets most wrong, drawn on one sheet to be looked at."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from vcmcodec.evaluation.labelled import LabelledSet
from vcmcodec.vision.drawing import colour_of
from vcmcodec.vision.predictions import Predictions
from vcmcodec.vision.tasks.boxes import overlaps

TILE = 300
SCORE = 0.3
OVERLAP = 0.5


@dataclass(frozen=True)
class PictureErrors:
    """How one picture went at a score of `SCORE`: hits, misses, false alarms."""

    image: dict[str, Any]
    hits: int
    missed: int
    false: int

    @property
    def quality(self) -> float:
        """F1 of the picture's boxes, 0..1; 1 where there was nothing and nothing was found."""
        total = 2 * self.hits + self.missed + self.false
        return 1.0 if total == 0 else 2 * self.hits / total


def count_errors(labelled: LabelledSet, found: Sequence[Predictions]) -> list[PictureErrors]:
    """Match boxes greedily, best score first, label by label; worst picture first."""
    names = {c["id"]: c["name"] for c in labelled.truth()["categories"]}
    boxes_of, errors = _annotations(labelled), []
    for image, result in zip(labelled.images, found, strict=True):
        mine = boxes_of[int(image["id"])]
        boxes = np.array([a["bbox"] for a in mine], float).reshape(-1, 4)
        boxes[:, 2:] += boxes[:, :2]
        free = [True] * len(mine)
        hits = false = 0
        for thing in result.objects or ():
            if thing.score < SCORE:
                continue
            x, y, w, h = thing.box
            overlap = overlaps(np.array([[x, y, x + w, y + h]]), boxes)[0]
            fitting = [
                i
                for i, a in enumerate(mine)
                if names[a["category_id"]] == thing.label and overlap[i] >= OVERLAP and free[i]
            ]
            if not fitting:
                false += 1
                continue
            best = max(fitting, key=lambda i: overlap[i])
            if mine[best]["iscrowd"]:
                continue
            free[best] = False
            hits += 1
        missed = sum(1 for i, a in enumerate(mine) if free[i] and not a["iscrowd"])
        errors.append(PictureErrors(image, hits, missed, false))
    return sorted(errors, key=lambda e: (e.quality, -e.missed - e.false))


def _annotations(labelled: LabelledSet) -> dict[int, list[dict[str, Any]]]:
    """The true boxes of each picture, by its id."""
    found: dict[int, list[dict[str, Any]]] = defaultdict(list)
    for annotation in labelled.truth()["annotations"]:
        found[annotation["image_id"]].append(annotation)
    return found


def contact_sheet(
    labelled: LabelledSet, found: Sequence[Predictions], count: int = 24, columns: int = 6
) -> Image.Image:
    """The worst pictures: truth in white, what was found in colour."""
    worst = count_errors(labelled, found)[:count]
    place = {int(image["id"]): i for i, image in enumerate(labelled.images)}
    wanted = {int(e.image["id"]): e for e in worst}
    rows = -(-len(worst) // columns)
    sheet = Image.new("RGB", (columns * TILE, rows * TILE), (30, 30, 30))
    order = {int(e.image["id"]): i for i, e in enumerate(worst)}
    font, boxes_of = ImageFont.load_default(13), _annotations(labelled)
    for picture in labelled.pictures():
        if picture.id not in wanted:
            continue
        result = found[place[picture.id]]
        tile = _tile(picture.rgb(), boxes_of[picture.id], result, labelled.labels, font)
        errors = wanted[picture.id]
        text = f"{errors.hits} hit, {errors.missed} missed, {errors.false} false"
        ImageDraw.Draw(tile).text((4, TILE - 18), text, fill=(255, 255, 255), font=font)
        row, column = divmod(order[picture.id], columns)
        sheet.paste(tile, (column * TILE, row * TILE))
    return sheet


def _tile(
    rgb: np.ndarray[Any, Any],
    truth: list[dict[str, Any]],
    result: Predictions,
    labels: tuple[str, ...],
    font: Any,
) -> Image.Image:
    scale = (TILE - 22) / max(rgb.shape[:2])
    size = max(1, round(rgb.shape[1] * scale)), max(1, round(rgb.shape[0] * scale))
    tile = Image.new("RGB", (TILE, TILE), (30, 30, 30))
    tile.paste(Image.fromarray(rgb).resize(size), (0, 0))
    pen = ImageDraw.Draw(tile)
    for a in truth:
        x, y, w, h = (v * scale for v in a["bbox"])
        shade = (140, 140, 140) if a["iscrowd"] else (255, 255, 255)
        pen.rectangle((x, y, x + w, y + h), outline=shade, width=2)
        pen.text((x + 3, y + h - 16), labels[a["category_id"] - 1], fill=shade, font=font,
                 stroke_width=2, stroke_fill=(0, 0, 0))  # fmt: skip
    for thing in result.objects or ():
        if thing.score >= SCORE:
            x, y, w, h = (v * scale for v in thing.box)
            colour = colour_of(labels.index(thing.label))
            pen.rectangle((x, y, x + w, y + h), outline=colour, width=2)
            text = f"{thing.label} {100 * thing.score:.0f}"
            pen.text((x + 3, y + 2), text, fill=colour, font=font,
                     stroke_width=2, stroke_fill=(0, 0, 0))  # fmt: skip
    return tile
