"""Results drawn on the picture: boxes, labels that can be read, areas in colour."""

from __future__ import annotations

import colorsys

import numpy as np
import numpy.typing as npt
from PIL import Image, ImageDraw, ImageFont

from vcmcodec.vision.predictions import ClassScore, LabelMap, Predictions

_GOLDEN = 0.61803398875  # turns of hue between neighbours in the list: never alike
AREA_WEIGHT = 0.45
LISTED = 5  # classes; more would hide the picture


def colour_of(index: int) -> tuple[int, int, int]:
    """A bright colour for the class number `index`, different from its neighbours'."""
    lightness = (0.5, 0.68, 0.42)[index % 3]
    r, g, b = colorsys.hls_to_rgb((0.02 + index * _GOLDEN) % 1.0, lightness, 0.9)
    return round(255 * r), round(255 * g), round(255 * b)


def palette(count: int) -> npt.NDArray[np.uint8]:
    """(count, 3) colours of a label map; 0, the background, is black."""
    colours = np.zeros((count, 3), np.uint8)
    for index in range(1, count):
        colours[index] = colour_of(index - 1)
    return colours


def mask_image(label_map: LabelMap) -> Image.Image:
    """A palette picture whose pixel values are class numbers, as `--groups` reads them."""
    image = Image.fromarray(label_map.labels, "P")
    image.putpalette(palette(256).tobytes())
    return image


def draw(
    rgb: npt.NDArray[np.uint8],
    predictions: Predictions,
    labels: tuple[str, ...],
    score: float = 0.3,
) -> Image.Image:
    """Draw everything that was found on a copy of the picture.

    Args:
        rgb: (H, W, 3) uint8, the picture that the predictions are about.
        predictions: what to draw.
        labels: all classes, which decides the colours.
        score: of the classes that are listed, at most five; the best is listed in any case.

    Returns:
        A picture of the same size, or larger where it was too small to hold text.
    """
    zoom = max(1, round(480 / max(rgb.shape[:2])))
    picture = rgb
    if predictions.label_map is not None:
        picture = _tint(rgb, predictions.label_map)
    image = Image.fromarray(picture).resize(
        (rgb.shape[1] * zoom, rgb.shape[0] * zoom), Image.Resampling.NEAREST
    )
    size = int(min(28, max(12, max(image.size) // 45)))
    font = ImageFont.load_default(size)
    pen = ImageDraw.Draw(image)
    taken: list[tuple[float, float, float, float]] = []
    things = sorted(predictions.objects or (), key=lambda o: -o.box[2] * o.box[3])
    for thing in things:
        x, y, w, h = (v * zoom for v in thing.box)
        colour = colour_of(labels.index(thing.label))
        pen.rectangle((x, y, x + w, y + h), outline=(0, 0, 0), width=4)
        pen.rectangle((x + 1, y + 1, x + w - 1, y + h - 1), outline=colour, width=2)
    for thing in things:
        x, y, w, h = (v * zoom for v in thing.box)
        text = f"{thing.label} {100 * thing.score:.0f}"
        _label(pen, image.size, (x, y, x + w, y + h), text, font, labels.index(thing.label), taken)
    if predictions.classes is not None:
        best = predictions.likely(score)[:LISTED]
        _list_classes(pen, image.size, best, font, labels)
    return image


def _tint(rgb: npt.NDArray[np.uint8], label_map: LabelMap) -> npt.NDArray[np.uint8]:
    colours = palette(len(label_map.names))[label_map.labels]
    there = label_map.labels > 0
    tinted = rgb.copy()
    mixed = (1 - AREA_WEIGHT) * rgb[there] + AREA_WEIGHT * colours[there]
    tinted[there] = mixed.astype(np.uint8)
    return tinted


def _label(
    pen: ImageDraw.ImageDraw,
    size: tuple[int, int],
    box: tuple[float, float, float, float],
    text: str,
    font: ImageFont.FreeTypeFont | ImageFont.ImageFont,
    index: int,
    taken: list[tuple[float, float, float, float]],
) -> None:
    """Write a label at the first free place: above the box, inside at the top, below, lower."""
    left, top, right, bottom = pen.textbbox((0, 0), text, font=font)
    w, h = right - left + 8, bottom - top + 6
    x = min(max(0.0, box[0]), max(0.0, size[0] - w))
    places = [box[1] - h, box[1], box[3], box[3] - h, *(box[1] + k * h for k in range(1, 6))]
    places = [min(max(0.0, y), max(0.0, size[1] - h)) for y in places]

    def is_free(y: float) -> bool:
        return all(x + w <= t[0] or t[2] <= x or y + h <= t[1] or t[3] <= y for t in taken)

    y = next((place for place in places if is_free(place)), places[0])
    taken.append((x, y, x + w, y + h))
    colour = colour_of(index)
    dark = 0.3 * colour[0] + 0.59 * colour[1] + 0.11 * colour[2] < 130
    pen.rectangle((x, y, x + w, y + h), fill=colour)
    ink = (255, 255, 255) if dark else (0, 0, 0)
    pen.text((x + 4 - left, y + 3 - top), text, fill=ink, font=font)


def _list_classes(
    pen: ImageDraw.ImageDraw,
    size: tuple[int, int],
    best: tuple[ClassScore, ...],
    font: ImageFont.FreeTypeFont | ImageFont.ImageFont,
    labels: tuple[str, ...],
) -> None:
    lines = [f"{c.label} {100 * c.score:.0f} %" for c in best]
    if not lines:
        return
    boxes = [pen.textbbox((0, 0), line, font=font) for line in lines]
    height = max(b[3] - b[1] for b in boxes) + 6
    width = max(b[2] - b[0] for b in boxes) + 12
    top = size[1] - height * len(lines)
    pen.rectangle((0, top, width, size[1]), fill=(0, 0, 0))
    for row, (line, c) in enumerate(zip(lines, best, strict=True)):
        y = top + row * height
        pen.rectangle((0, y, 4, y + height), fill=colour_of(labels.index(c.label)))
        pen.text((8 - boxes[row][0], y + 3 - boxes[row][1]), line, fill=(255, 255, 255), font=font)
