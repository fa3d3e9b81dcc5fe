"""The functions of the package: the rooms below, and what was lost on the way told as warnings.

A function that returns a bare result (bytes, a picture, tensors, findings) gives every warning to
Python's `warnings` as a `VcmWarning`.  One that returns a record (`Encoded`, `Report`) has them
there.  Rooms are imported when a function is called, so that importing this costs nothing.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from vcmcodec.errors import warn

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from PIL import Image

    from vcmcodec.bitstream.limits import Limits
    from vcmcodec.catalogue import Tasks
    from vcmcodec.edit import Report
    from vcmcodec.encoding import Groups
    from vcmcodec.pixels import Source
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
    encoded = codec.encode_any(image, options, groups=groups, device=device, limits=limits)
    warn(encoded.warnings)
    return encoded.data


def decode(
    source: Openable,
    *,
    groups: ChosenGroups = None,
    width: float | None = None,
    background: str | tuple[int, int, int] | None = None,
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
        decoded = reader.inspect(groups=groups, width=width, background=background, device=device)
    warn(decoded.warnings)
    return decoded.image


def analyze(
    source: Openable,
    *,
    tasks: Tasks | None = None,
    score: float = 0.3,
    groups: ChosenGroups = None,
    device: str = "cpu",
    limits: Limits | None = None,
    vision: str | None = None,
) -> Predictions:
    """Say what is in the picture of a file, from its base layer or its features alone.

    What is missing, and tasks that the file is too coarse for, are told as `VcmWarning`.

    Args:
        source: path, bytes, binary file object or source of byte ranges; of it only the header and
            the base layer's substreams (of the chosen groups) are read.
        tasks: one or several of detection, segmentation and classification; None for all.
        score: objects below it are left out; classes are all given.
        groups: labels or ids; results come from their cells only.  None for all that are there.
        device: where the networks run.
        limits: what to accept.
        vision: the network behind features, where the file's model goes with weights of the user's
            own; None for the installed one.

    Returns:
        Results in pixels of the true picture.

    Raises:
        VcmError: see `machine.analyze`.
    """
    from vcmcodec import machine
    from vcmcodec.reader import Reader
    from vcmcodec.vision.network import TASKS

    asked = TASKS if tasks is None else tasks
    with Reader(source, limits) as reader:
        found = machine.analyze_reader(
            reader, tasks=asked, score=score, groups=groups, device=device, vision=vision
        )
        notes = (*reader.warnings, *machine.shortfalls(reader, asked))
    warn(notes)
    return found


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
