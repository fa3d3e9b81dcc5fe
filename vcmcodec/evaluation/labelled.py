"""Pictures with labels: a COCO JSON beside a folder or a tar of pictures and class masks."""

from __future__ import annotations

import io
import json
import math
import tarfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from PIL import Image, UnidentifiedImageError

from vcmcodec.errors import PictureError, RequestError

Pixels = npt.NDArray[np.uint8]


@dataclass(frozen=True)
class LabelledPicture:
    """One picture of a labelled set.

    Attributes:
        id: as in the JSON.
        name: file name.
        data: bytes of the picture file.
        mask: (H, W) uint8, 0 background, 1.. classes, 255 unknown; None where there is none.
    """

    id: int
    name: str
    data: bytes
    mask: Pixels | None

    def rgb(self) -> Pixels:
        """The picture, (H, W, 3) uint8."""
        try:
            return np.asarray(Image.open(io.BytesIO(self.data)).convert("RGB"))
        except (OSError, UnidentifiedImageError) as error:
            raise PictureError(f"{self.name} is not a picture: {error}") from error


class LabelledSet:
    """A COCO JSON (`images`, `annotations`, `categories`) and its files.

    An image's optional `mask` names a class mask, its optional `tar` the archive that holds both;
    `difficult` or `iscrowd` annotations are neither hit nor miss.
    """

    def __init__(self, labels: Path, files: Path | None = None, limit: int | None = None) -> None:
        """Read the labels; pictures are read one by one later.

        Args:
            labels: the JSON file.
            files: folder of pictures, or of the tars that the JSON names; the JSON's own folder
                if None.
            limit: only so many pictures, evenly spread over the list.

        Raises:
            RequestError: the JSON is not one of this kind.
        """
        self.name = labels.stem
        self._files = files or labels.parent
        try:
            coco = json.loads(labels.read_text())
            images, annotations = list(coco["images"]), list(coco["annotations"])
            categories = sorted(coco["categories"], key=lambda c: int(c["id"]))
            self._category = {int(c["id"]): i for i, c in enumerate(categories)}
            self.labels = tuple(str(c["name"]) for c in categories)
            _check_images(images)
            _check_annotations(annotations, self._category)
        except (OSError, ValueError, KeyError, TypeError) as error:
            # the text of a KeyError is the bare key; that of no other names all that was read
            why = repr(error) if isinstance(error, KeyError) else str(error)
            raise RequestError(f"{labels} is not a COCO label file: {why}") from error
        if not images:
            raise RequestError(f"{labels} names no picture")
        if limit is not None and limit < len(images):
            images = [images[i * len(images) // limit] for i in range(limit)]
        self.images: list[dict[str, Any]] = images
        chosen = {int(image["id"]) for image in images}
        self.annotations: list[dict[str, Any]] = [
            a for a in annotations if int(a["image_id"]) in chosen
        ]

    def __len__(self) -> int:
        return len(self.images)

    def pictures(self) -> Iterator[LabelledPicture]:
        """Every picture, tar by tar."""
        tars: dict[str | None, list[dict[str, Any]]] = {}
        for image in self.images:
            tars.setdefault(image.get("tar"), []).append(image)
        for tar, images in tars.items():
            if tar is None:
                for image in images:
                    yield self._picture(image, self._read_file)
            else:
                with tarfile.open(self._files / tar) as archive:
                    for image in images:
                        yield self._picture(image, lambda name: _member(archive, name))

    def _picture(self, image: dict[str, Any], read: Any) -> LabelledPicture:
        mask = image.get("mask")
        labels = None
        if mask:
            labels = np.asarray(Image.open(io.BytesIO(read(mask))))
        return LabelledPicture(
            int(image["id"]), image["file_name"], read(image["file_name"]), labels
        )

    def _read_file(self, name: str) -> bytes:
        try:
            return (self._files / name).read_bytes()
        except OSError as error:
            raise PictureError(f"{name}: {error.strerror or error}") from error

    def truth(self) -> dict[str, Any]:
        """The labels for COCO's evaluation: category ids from 1, difficult objects as crowds."""
        return {
            "images": [
                {"id": int(i["id"]), "width": int(i["width"]), "height": int(i["height"])}
                for i in self.images
            ],
            "categories": [{"id": i + 1, "name": name} for i, name in enumerate(self.labels)],
            "annotations": [
                {
                    "id": number,
                    "image_id": int(a["image_id"]),
                    "category_id": self._category[int(a["category_id"])] + 1,
                    "bbox": [float(v) for v in a["bbox"]],
                    "area": float(a.get("area") or a["bbox"][2] * a["bbox"][3]),
                    "iscrowd": int(bool(a.get("difficult") or a.get("iscrowd"))),
                }
                for number, a in enumerate(self.annotations, start=1)
            ],
        }

    def presence(self) -> npt.NDArray[np.int8]:
        """(pictures, classes): 1 there, 0 not there, -1 only as a difficult object."""
        rows = {int(image["id"]): i for i, image in enumerate(self.images)}
        found = np.zeros((len(self.images), len(self.labels)), np.int8)
        for a in self.annotations:
            place = rows[int(a["image_id"])], self._category[int(a["category_id"])]
            if not (a.get("difficult") or a.get("iscrowd")):
                found[place] = 1
            elif found[place] == 0:
                found[place] = -1
        return found


def _check_images(images: list[Any]) -> None:
    """Raise ValueError, TypeError or KeyError unless every picture can be found and scored."""
    for place, image in enumerate(images):
        if not isinstance(image, dict):
            raise TypeError(f"images[{place}] is not an object")
        missing = [k for k in ("id", "file_name", "width", "height") if image.get(k) is None]
        if missing:
            raise ValueError(f"images[{place}] has no {missing[0]}")
        if min(int(image["width"]), int(image["height"])) < 1:
            raise ValueError(f"images[{place}] has no pixels")
    if len({int(image["id"]) for image in images}) != len(images):
        raise ValueError("two images have the same id")


def _check_annotations(annotations: list[Any], categories: dict[int, int]) -> None:
    """The same of every object."""
    for place, one in enumerate(annotations):
        if not isinstance(one, dict):
            raise TypeError(f"annotations[{place}] is not an object")
        missing = [k for k in ("image_id", "category_id", "bbox") if one.get(k) is None]
        if missing:
            raise ValueError(f"annotations[{place}] has no {missing[0]}")
        if int(one["category_id"]) not in categories:
            raise ValueError(f"annotations[{place}] is of category {one['category_id']}: none such")
        box = one["bbox"]
        if not isinstance(box, list) or len(box) != 4:
            raise ValueError(f"annotations[{place}].bbox is not [x, y, width, height]")
        if not all(math.isfinite(float(v)) for v in box) or min(box[2:]) < 0:
            raise ValueError(f"annotations[{place}].bbox is no box")


def _member(archive: tarfile.TarFile, name: str) -> bytes:
    try:
        file = archive.extractfile(name)
    except KeyError:
        file = None
    if file is None:
        raise PictureError(f"{archive.name!r} has no {name}")
    return file.read()
