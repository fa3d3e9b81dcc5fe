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
    from vcmcodec.codec import encode_picture as encode_picture
    from vcmcodec.codec import open as open
    from vcmcodec.edit import extract as extract
    from vcmcodec.edit import merge as merge
    from vcmcodec.edit import verify as verify
    from vcmcodec.encoding import Encoded as Encoded
    from vcmcodec.encoding import EncodeOptions as EncodeOptions
    from vcmcodec.errors import VcmError as VcmError
    from vcmcodec.errors import VcmWarning as VcmWarning
    from vcmcodec.feature_codec import encode_features as encode_features
    from vcmcodec.reader import Reader as Reader

_HOMES = {
    "analyze": "vcmcodec.api",
    "encode": "vcmcodec.api",
    "decode": "vcmcodec.api",
    "features": "vcmcodec.api",
    "decode_features": "vcmcodec.api",
    "encode_picture": "vcmcodec.codec",
    "encode_features": "vcmcodec.feature_codec",
    "open": "vcmcodec.codec",
    "EncodeOptions": "vcmcodec.encoding",
    "Encoded": "vcmcodec.encoding",
    "Reader": "vcmcodec.reader",
    "extract": "vcmcodec.edit",
    "merge": "vcmcodec.edit",
    "verify": "vcmcodec.edit",
    "VcmError": "vcmcodec.errors",
    "VcmWarning": "vcmcodec.errors",
}

__all__ = [
    "EncodeOptions",
    "Encoded",
    "Reader",
    "VcmError",
    "VcmWarning",
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
