"""Whole operations: pictures to files and back, where bytes, profiles and weights meet.

This module knows every room below it but no layer of a network and no byte order.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, cast

from PIL import Image

from vcmcodec import catalogue, feature_codec, pixels, scene_codec
from vcmcodec.bitstream.limits import Limits
from vcmcodec.encoding import AUTO as AUTO
from vcmcodec.encoding import Encoded as Encoded
from vcmcodec.encoding import EncodeOptions as EncodeOptions
from vcmcodec.encoding import Groups
from vcmcodec.reader import Reader
from vcmcodec.sources import Openable

if TYPE_CHECKING:
    from vcmcodec.vision.backend import Features


def encode_picture(
    image: pixels.Source,
    options: EncodeOptions | None = None,
    *,
    groups: Groups | None = None,
    device: str = "cpu",
    limits: Limits | None = None,
) -> Encoded:
    """Encode a picture.

    Args:
        image: whatever `pixels.read` takes.
        options: see there.
        groups: a `GroupPlan`, a mask (path, array or picture), boxes (path or list), or "auto":
            the objects that the vision network detects.
        device: where the transforms run.

    Raises:
        PictureError: the picture or mask cannot be read.
        RequestError: options that do not go together.
        LimitError: too many pixels.
        WeightsError: the model is not there.
    """
    options = options or EncodeOptions()
    spec = catalogue.profile(options.profile)
    if spec.source == "features":
        return feature_codec.encode_picture(
            image, options, groups=groups, device=device, limits=limits
        )
    return scene_codec.encode(spec, image, options, groups, device, limits)


def encode_any(
    source: pixels.Source | Features,
    options: EncodeOptions | None = None,
    *,
    groups: Groups | None = None,
    device: str = "cpu",
    limits: Limits | None = None,
) -> Encoded:
    """Encode a picture, or features (`vision.backend.Features`, or a file of them).

    Raises:
        VcmError: see `encode_picture` and `feature_codec.encode_features`.
    """
    options = options or EncodeOptions()
    found = feature_codec.as_features(source)
    if found is not None:
        return feature_codec.encode_features(
            found, options, groups=groups, device=device, limits=limits
        )
    picture = cast("pixels.Source", source)
    return encode_picture(picture, options, groups=groups, device=device, limits=limits)


def encode(
    image: pixels.Source | Features,
    *,
    groups: Groups | None = None,
    device: str = "cpu",
    limits: Limits | None = None,
    **options: Any,
) -> bytes:
    """As `encode_any`, the bytes alone; nothing is told of what was lost.

    Args:
        image: path, bytes, file object, `PIL.Image` or uint8 array; or features, or the path or
            bytes of a file of them.
        groups: mask or boxes (path, array, picture, list), or a `grouping.GroupPlan`.
        device: where the transforms run.
        limits: what to accept.
        **options: fields of `EncodeOptions`: tasks, quality, base_quality, target_size, ...

    Raises:
        VcmError: see `encode_any`.
    """
    chosen = EncodeOptions(**options)
    return encode_any(image, chosen, groups=groups, device=device, limits=limits).data


def decode(
    source: Openable,
    *,
    groups: Sequence[str | int] | str | int | None = None,
    width: float | None = None,
    background: str | tuple[int, int, int] | None = None,
    longer_side: int | None = None,
    device: str = "cpu",
    limits: Limits | None = None,
) -> Image.Image:
    """As `Reader.inspect`, the picture alone; nothing is told of what is missing.

    Raises:
        VcmError: see there.
    """
    with Reader(source, limits) as reader:
        found = reader.inspect(
            groups=groups, width=width, background=background, longer_side=longer_side,
            device=device,
        )  # fmt: skip
    return found.image


def open(source: Openable, *, limits: Limits | None = None) -> Reader:
    """Open a file to look at it or to decode parts of it; reads only what is asked for.

    Raises:
        VcmError: see `Reader`.
    """
    return Reader(source, limits)
