"""vcmcodec: pictures for machines and people, in one file that is read in part.

    import vcmcodec

    data = vcmcodec.encode("street.png", quality=60, groups="boxes.json")
    preview = vcmcodec.decode(data, width=0.25)
    found = vcmcodec.analyze(data, tasks=["detection"])
    with vcmcodec.open("street.vcm") as reader:
        person = reader.decode(groups=["person"])

The names below are loaded when they are first used (PEP 562), so that importing the package costs
milliseconds and neither torch nor numpy.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

__version__ = "0.1.0"

if TYPE_CHECKING:
    from vcmcodec.api import analyze as analyze
    from vcmcodec.api import decode as decode
    from vcmcodec.api import decode_features as decode_features
    from vcmcodec.api import encode as encode
    from vcmcodec.api import features as features
    from vcmcodec.api import verify as verify
    from vcmcodec.bitstream.constants import TaskId as TaskId
    from vcmcodec.bitstream.describe import Description as Description
    from vcmcodec.bitstream.header import Group as Group
    from vcmcodec.bitstream.header import Header as Header
    from vcmcodec.bitstream.limits import Limits as Limits
    from vcmcodec.bitstream.ranges import ByteSource as ByteSource
    from vcmcodec.codec import encode_picture as encode_picture
    from vcmcodec.codec import open as open
    from vcmcodec.edit import Finding as Finding
    from vcmcodec.edit import Report as Report
    from vcmcodec.edit import extract as extract
    from vcmcodec.edit import merge as merge
    from vcmcodec.encoding import Encoded as Encoded
    from vcmcodec.encoding import EncodeOptions as EncodeOptions
    from vcmcodec.errors import FormatError as FormatError
    from vcmcodec.errors import LimitError as LimitError
    from vcmcodec.errors import OutputError as OutputError
    from vcmcodec.errors import PictureError as PictureError
    from vcmcodec.errors import RequestError as RequestError
    from vcmcodec.errors import TruncatedError as TruncatedError
    from vcmcodec.errors import UnsupportedError as UnsupportedError
    from vcmcodec.errors import VcmError as VcmError
    from vcmcodec.errors import VcmWarning as VcmWarning
    from vcmcodec.errors import WeightsError as WeightsError
    from vcmcodec.feature_codec import encode_features as encode_features
    from vcmcodec.grouping import GroupPlan as GroupPlan
    from vcmcodec.pixels import Picture as Picture
    from vcmcodec.reader import Decoded as Decoded
    from vcmcodec.reader import Reader as Reader
    from vcmcodec.sources import Openable as Openable
    from vcmcodec.vision.backend import Features as Features
    from vcmcodec.vision.predictions import ClassScore as ClassScore
    from vcmcodec.vision.predictions import DetectedObject as DetectedObject
    from vcmcodec.vision.predictions import LabelMap as LabelMap
    from vcmcodec.vision.predictions import Predictions as Predictions

_HOMES = {
    "analyze": "vcmcodec.api",
    "decode": "vcmcodec.api",
    "decode_features": "vcmcodec.api",
    "encode": "vcmcodec.api",
    "features": "vcmcodec.api",
    "verify": "vcmcodec.api",
    "TaskId": "vcmcodec.bitstream.constants",
    "Description": "vcmcodec.bitstream.describe",
    "Group": "vcmcodec.bitstream.header",
    "Header": "vcmcodec.bitstream.header",
    "Limits": "vcmcodec.bitstream.limits",
    "ByteSource": "vcmcodec.bitstream.ranges",
    "encode_picture": "vcmcodec.codec",
    "open": "vcmcodec.codec",
    "Finding": "vcmcodec.edit",
    "Report": "vcmcodec.edit",
    "extract": "vcmcodec.edit",
    "merge": "vcmcodec.edit",
    "EncodeOptions": "vcmcodec.encoding",
    "Encoded": "vcmcodec.encoding",
    "FormatError": "vcmcodec.errors",
    "LimitError": "vcmcodec.errors",
    "OutputError": "vcmcodec.errors",
    "PictureError": "vcmcodec.errors",
    "RequestError": "vcmcodec.errors",
    "TruncatedError": "vcmcodec.errors",
    "UnsupportedError": "vcmcodec.errors",
    "VcmError": "vcmcodec.errors",
    "VcmWarning": "vcmcodec.errors",
    "WeightsError": "vcmcodec.errors",
    "encode_features": "vcmcodec.feature_codec",
    "GroupPlan": "vcmcodec.grouping",
    "Picture": "vcmcodec.pixels",
    "Decoded": "vcmcodec.reader",
    "Reader": "vcmcodec.reader",
    "Openable": "vcmcodec.sources",
    "Features": "vcmcodec.vision.backend",
    "ClassScore": "vcmcodec.vision.predictions",
    "DetectedObject": "vcmcodec.vision.predictions",
    "LabelMap": "vcmcodec.vision.predictions",
    "Predictions": "vcmcodec.vision.predictions",
}

__all__ = [
    "ByteSource",
    "ClassScore",
    "Decoded",
    "Description",
    "DetectedObject",
    "EncodeOptions",
    "Encoded",
    "Features",
    "Finding",
    "FormatError",
    "Group",
    "GroupPlan",
    "Header",
    "LabelMap",
    "LimitError",
    "Limits",
    "Openable",
    "OutputError",
    "Picture",
    "PictureError",
    "Predictions",
    "Reader",
    "Report",
    "RequestError",
    "TaskId",
    "TruncatedError",
    "UnsupportedError",
    "VcmError",
    "VcmWarning",
    "WeightsError",
    "__version__",
    "analyze",
    "decode",
    "decode_features",
    "encode",
    "encode_features",
    "encode_picture",
    "extract",
    "features",
    "merge",
    "open",
    "verify",
]


def __getattr__(name: str) -> Any:
    home = _HOMES.get(name)
    if home is None:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = getattr(importlib.import_module(home), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *_HOMES})
