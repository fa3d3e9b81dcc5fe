"""The functions of the package: the rooms below, and what was lost on the way told as warnings.

A function that returns a bare result (bytes, a picture, tensors, findings) gives every warning to
Python's `warnings` as a `VcmWarning`.  One that returns a record (`Encoded`, `Report`) has them
there.  Rooms are imported when a function is called, so that importing this costs nothing.
"""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

from vcmcodec.errors import PictureError, RequestError, warn

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    import numpy as np
    from PIL import Image
    from typing_extensions import TypeIs

    from vcmcodec.bitstream.limits import Limits
    from vcmcodec.bitstream.ranges import ByteSource
    from vcmcodec.catalogue import Tasks
    from vcmcodec.edit import Report
    from vcmcodec.encoding import Groups
    from vcmcodec.pixels import Picture, Source
    from vcmcodec.sources import Openable
    from vcmcodec.vision.backend import Features
    from vcmcodec.vision.predictions import Predictions

    ChosenGroups = Sequence[str | int] | str | int | None


def encode(
    image: Source | Features,
    *,
    tasks: Tasks | None = None,
    quality: float | None = None,
    base_quality: float | None = None,
    longer_side: int | None = None,
    effort: int | None = None,
    target_size: int | None = None,
    target_bpp: float | None = None,
    profile: str = "scene",
    model: str | None = None,
    split: str | None = None,
    vision: str | None = None,
    digest: bool = False,
    text: Mapping[str, str] | None = None,
    groups: Groups | None = None,
    device: str = "cpu",
    limits: Limits | None = None,
) -> bytes:
    """Encode a picture, or features of one, to the bytes of a `.vcm` file.

    What was lost on the way in, and where groups are not independent, is told as `VcmWarning`.

    Args:
        image: path, bytes, file object, `PIL.Image` or uint8 array; or features, or the path or
            bytes of a file of them.
        groups: mask or boxes (path, array, picture, list), or a `GroupPlan`.
        device: where the transforms run.
        limits: what to accept.
        tasks, quality, base_quality, longer_side, effort, target_size, target_bpp, profile, model,
            split, vision, digest, text: see `EncodeOptions`.

    Raises:
        VcmError: see `encode_picture` and `encode_features`.
    """
    from vcmcodec import codec

    options = codec.EncodeOptions(
        tasks, quality, base_quality, longer_side, effort, target_size, target_bpp,
        profile, model, split, vision, digest, text,
    )  # fmt: skip
    try:
        encoded = codec.encode_any(image, options, groups=groups, device=device, limits=limits)
    except PictureError as error:
        if isinstance(image, str | os.PathLike):
            raise PictureError(f"{os.fspath(image)}: {error}") from error
        raise
    warn(encoded.warnings)
    return encoded.data


def decode(
    source: Openable,
    *,
    groups: ChosenGroups = None,
    width: float | None = None,
    background: str | tuple[int, int, int] | None = None,
    longer_side: int | None = None,
    device: str = "cpu",
    limits: Limits | None = None,
) -> Image.Image:
    """Decode a file, or the groups and width of it that are asked for.

    What is missing is told as `VcmWarning`.

    Raises:
        VcmError: see `Reader.inspect`, where the arguments are explained.
    """
    from vcmcodec.reader import Reader

    with Reader(source, limits) as reader:
        decoded = reader.inspect(
            groups=groups, width=width, background=background, longer_side=longer_side,
            device=device,
        )  # fmt: skip
    warn(decoded.warnings)
    return decoded.image


def analyze(
    source: Openable | Source,
    *,
    tasks: Tasks | None = None,
    score: float = 0.3,
    groups: ChosenGroups = None,
    device: str = "cpu",
    limits: Limits | None = None,
    vision: str | None = None,
) -> Predictions:
    """Say what is in a `.vcm` file, from its base layer or its features alone, or in a picture.

    What is missing or lost, and tasks that a file is too coarse for, are told as `VcmWarning`.

    Args:
        source: a file: path, bytes, binary file object or source of byte ranges; of it only the
            header and the base layer's substreams (of the chosen groups) are read.  Or a picture,
            as `encode` takes it, which the reference network then looks at.
        tasks: one or several of detection, segmentation and classification; None for all.
        score: objects below it are left out; classes are all given.
        groups: of a file: labels or ids; results come from their cells only.  None for all that are
            there.
        device: where the networks run.
        limits: what to accept.
        vision: another network for pictures, as in `vision.backend.open_backend`, or the one behind
            features, where the file's model goes with weights of the user's own; None for the
            installed one.

    Returns:
        Results in pixels of the true picture.

    Raises:
        PictureError: the source is neither a file nor a picture, or a damaged one.
        RequestError: groups of a picture, or a task that the network does not do.
        VcmError: see `machine.analyze`.
    """
    from vcmcodec.sources import bytes_unless_vcm, opened

    given = groups, tasks, score, device, vision
    if _is_picture(source):
        found, notes = _seen_in_picture(source, limits, *given)
    else:
        with opened(source) as file:
            data = bytes_unless_vcm(file)
            if data is None:
                found, notes = _seen_in_file(file, limits, *given)
            else:
                found, notes = _seen_in_picture(data, limits, *given)
    warn(notes)
    return found


def _is_picture(source: Openable | Source) -> TypeIs[Image.Image | np.ndarray | Picture]:
    """Whether a source is a picture already, and no file of any kind."""
    import numpy as np
    from PIL import Image

    from vcmcodec.pixels import Picture

    return isinstance(source, Image.Image | np.ndarray | Picture)


def _seen_in_file(
    file: ByteSource, limits: Limits | None,
    groups: ChosenGroups, tasks: Tasks | None, score: float, device: str, vision: str | None,
) -> tuple[Predictions, tuple[str, ...]]:  # fmt: skip
    """Results of a `.vcm` file, and what is to be told of it."""
    from vcmcodec import machine
    from vcmcodec.reader import Reader
    from vcmcodec.vision.network import TASKS

    asked = TASKS if tasks is None else tasks
    with Reader(file, limits) as reader:
        found = machine.analyze_reader(
            reader, tasks=asked, score=score, groups=groups, device=device, vision=vision
        )
        return found, (*reader.warnings, *machine.shortfalls(reader, asked))


def _seen_in_picture(
    image: Source, limits: Limits | None,
    groups: ChosenGroups, tasks: Tasks | None, score: float, device: str, vision: str | None,
) -> tuple[Predictions, tuple[str, ...]]:  # fmt: skip
    """Results of a picture, and what was lost on the way in."""
    from PIL import UnidentifiedImageError

    from vcmcodec import pixels

    if groups is not None:
        raise RequestError("groups are those of a .vcm file; a picture has none")
    try:
        picture = pixels.read(image, limits)
    except PictureError as error:
        if isinstance(error.__cause__, UnidentifiedImageError):
            message = "neither a .vcm file nor a picture in any format that is read here"
            raise PictureError(message) from error
        raise
    from vcmcodec import machine  # not before there is a picture: torch takes seconds

    found = machine.analyze_picture(picture.rgb, tasks, score, device, vision)
    return found, picture.warnings


def features(
    image: Source,
    *,
    split: str = "fpn",
    model: str | None = None,
    device: str = "cpu",
    limits: Limits | None = None,
) -> Features:
    """Features of a picture at a split point of a vision network.

    What was lost on the way in is told as `VcmWarning`.

    Args:
        image: as `encode` takes it.
        split: name of the split point.
        model: the network's; None for the one that is installed.
        device: where the network runs.
        limits: what to accept.

    Raises:
        VcmError: see `feature_codec.features`.
    """
    from vcmcodec import feature_codec, pixels

    picture = pixels.read(image, limits)
    found = feature_codec.features(picture, split=split, model=model, device=device, limits=limits)
    warn(picture.warnings)
    return found


def decode_features(
    source: Openable,
    *,
    tasks: Tasks | None = None,
    groups: ChosenGroups = None,
    device: str = "cpu",
    limits: Limits | None = None,
) -> Features:
    """Decode a file of features.

    What is missing is told as `VcmWarning`.

    Args:
        source: the file.
        tasks: one or several; only the tensors that these read.  None for those that the file was
            written for.
        groups: labels or ids; None for all that are there.
        device: where the synthesis runs.
        limits: what to accept.

    Raises:
        VcmError: see `feature_codec.inspect`.
    """
    from vcmcodec import feature_codec
    from vcmcodec.reader import Reader

    with Reader(source, limits) as reader:
        decoded = feature_codec.inspect(reader, tasks=tasks, groups=groups, device=device)
    warn(decoded.warnings)
    return decoded.features


def verify(source: Openable, *, deep: bool = False, limits: Limits | None = None) -> Report:
    """Check header, directory, every CRC-32, ICC profile, text, and group map against its table.

    Args:
        source: the file.
        deep: decode all symbols as well, which takes the model and its time.
        limits: what to accept.

    Raises:
        FormatError: header or directory is damaged, so that nothing can be said of the rest.
        RequestError: there is no such file.
        WeightsError: the model is not there, and the check is deep.
    """
    from vcmcodec import edit

    if not deep:
        return edit.verify(source, limits=limits)
    from vcmcodec.deep import decode_symbols

    return edit.verify(source, deep=True, decode_symbols=decode_symbols, limits=limits)
