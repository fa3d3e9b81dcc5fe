"""Every number of `formats/vcm-1.md`, once each, with its section; it imports nothing of ours.

Ids are append-only: a number once given is never reused and never renumbered.
"""

from __future__ import annotations

from enum import IntEnum

# §3.1 Signature: a high bit against 7-bit transfers, CR LF and LF against text-mode transfers,
# and the end-of-file character that stops a terminal from printing the rest.
SIGNATURE = b"\x89VCM\r\n\x1a\n"
VERSION = (1, 0)  # §3.2 major, minor: what this program writes

# §2 Number forms
VARINT_MAX_BYTES = 8  # 56 bits: 256 such numbers add up without leaving 64 bits
VARINT_MAX = (1 << (7 * VARINT_MAX_BYTES)) - 1

# §3 Header
CELL = 16  # pixels on a cell's side
FINGERPRINT_BYTES = 8
CRC_BYTES = 4
MAX_SIDE = 2**30  # pixels on a picture's side
MAX_TILE = 2**16 - 1  # cells on a tile's side
MAX_TILE_CELLS = 2**15  # of a tile of a picture, or of one that is not tiled
MAX_PARAMETER_BYTES = 64
MAX_RATE_LEVEL = 10_000  # hundredths
MAX_LABEL_BYTES = 64
MAX_GROUPS = 256  # ids are one byte
MAX_GROUP_ID = 255
SCORE_STEPS = 254  # stored value 1..255 stands for 0/254 .. 254/254; 0 for "no score"

FLAG_GREY = 0x01
FLAG_REDACTED = 0x02
KNOWN_FLAGS = FLAG_GREY | FLAG_REDACTED

# §5 Substreams
CRITICAL = 0x80  # this bit of a kind: who does not know the kind cannot read the file
DIGEST_BYTES = 8
MAX_ICC_BYTES = 1 << 20  # camera and monitor profiles are 0.5 to 60 kB, printers' up to 2 MB
ICC_CURVE_ENTRIES = 1024  # of the dictionary's curve (§5.6)

# §6.2 Features
MAX_SPLIT_BYTES = 16
MAX_INPUT_PIXELS = 2**24  # of a network's padded input: 4096 x 4096
INPUT_MULTIPLE = 32  # to which its sides are padded

# §7 Reading
FIRST_READ_BYTES = 4096


class ProfileId(IntEnum):
    """What is coded (§3.4)."""

    SCENE = 1
    PYRAMID = 2
    BOTTLENECK = 3
    SEMANTIC = 4


class LayerId(IntEnum):
    """What one width of the networks adds to the file (§3.12)."""

    BASE = 0
    MID = 1
    FULL = 2


class TaskId(IntEnum):
    """What the file is read for (§3.11)."""

    HUMAN = 0
    DETECTION = 1
    CLASSIFICATION = 2
    SEGMENTATION = 3


class CoderId(IntEnum):
    """Entropy coder of the runs (§3.9)."""

    RANS_16 = 1
    RANGE_STATIC = 2


class Kind(IntEnum):
    """What a substream holds (§5); the top bit says critical."""

    GROUP_MAP = 0x80
    LATENT = 0x81
    REFINEMENT = 0x82
    ICC = 0x01
    DIGEST = 0x02
    TEXT = 0x03


# Width of the networks that a layer completes.
WIDTHS = {LayerId.BASE: 0.25, LayerId.MID: 0.5, LayerId.FULL: 1.0}
# Where the kinds that speak of the whole picture live: (layer, group 0, tile 0).  The group map is
# needed first; what only people need stays out of files that hold the base layer alone.
FILE_WIDE_LAYERS = {Kind.GROUP_MAP: LayerId.BASE, Kind.ICC: LayerId.MID, Kind.TEXT: LayerId.MID}
