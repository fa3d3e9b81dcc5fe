"""Pictures that no photograph looks like: do they come back right, and at what size?

Ours is coded at one quality; WebP then at the quality whose PSNR is nearest, so that bytes
compare.  The PSNR of the mean colour alone stands beside it: what comes out below that is garbage,
whatever the picture.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable
from dataclasses import dataclass

import numpy as np

from vcmcodec.evaluation.corpora import NamedPicture, oddities
from vcmcodec.evaluation.environment import Environment, describe_environment
from vcmcodec.evaluation.metrics import psnr_db
from vcmcodec.evaluation.report import Table, decibel, environment_note
from vcmcodec.evaluation.rivals import RIVALS
from vcmcodec.evaluation.subject import Subject


@dataclass(frozen=True)
class OddityRow:
    """One picture, ours beside WebP.

    Attributes:
        picture: name.
        height: pixels.
        width: pixels.
        psnr_db: ours; infinite where exact.
        flat_psnr_db: of the picture's mean colour alone: what a file of three bytes would reach.
        worst_error: largest difference of any sample, 0..255.
        num_bytes: ours.
        webp_quality: the quality nearest in PSNR.
        webp_psnr_db: what it reaches.
        webp_bytes: its file.
    """

    picture: str
    height: int
    width: int
    psnr_db: float
    flat_psnr_db: float
    worst_error: int
    num_bytes: int
    webp_quality: int
    webp_psnr_db: float
    webp_bytes: int


@dataclass(frozen=True)
class Oddities:
    """Result of one run."""

    quality: float
    rows: tuple[OddityRow, ...]
    environment: Environment


def _nearest_webp(picture: NamedPicture, target_db: float) -> tuple[int, float, int]:
    """Return (quality, PSNR, bytes) of the WebP nearest to a PSNR; the smallest among equals."""
    webp = RIVALS["webp"]
    tried = []
    for quality in range(0, 101, 5):
        data = webp.encode(picture.rgb, quality)
        reached = psnr_db(picture.rgb, webp.decode(data))
        # Infinite on both sides is as near as can be; 100 dB stands for it in the distance.
        distance = abs(min(reached, 100.0) - min(target_db, 100.0))
        tried.append((distance, len(data), quality, reached))
    _, num_bytes, quality, reached = min(tried)
    return quality, reached, num_bytes


def measure(picture: NamedPicture, quality: float, subject: Subject) -> OddityRow:
    """Code one picture with ours and find the WebP that compares."""
    data = subject.encode(picture.rgb, quality)
    decoded = subject.decode(data)
    reached = psnr_db(picture.rgb, decoded)
    mean = np.broadcast_to(picture.rgb.mean(axis=(0, 1)).round(), picture.rgb.shape)
    webp_quality, webp_db, webp_bytes = _nearest_webp(picture, reached)
    return OddityRow(
        picture=picture.name,
        height=picture.rgb.shape[0],
        width=picture.rgb.shape[1],
        psnr_db=reached,
        flat_psnr_db=psnr_db(picture.rgb, mean.astype(np.uint8)),
        worst_error=int(np.abs(picture.rgb.astype(np.int16) - decoded).max()),
        num_bytes=len(data),
        webp_quality=webp_quality,
        webp_psnr_db=webp_db,
        webp_bytes=webp_bytes,
    )


def run(
    *,
    quality: float = 60.0,
    threads: int = 1,
    pictures: Iterable[NamedPicture] | None = None,
    subject: Subject | None = None,
    progress: Callable[[str], None] = lambda _: None,
) -> Oddities:
    """Code every odd picture at one quality.

    Args:
        quality: of our files.
        threads: what torch was set to; reported.
        pictures: others than the built-in ones.
        subject: vcmcodec with other arguments than the usual.
        progress: called with one line before each piece of work.
    """
    rows = []
    for picture in oddities() if pictures is None else pictures:
        progress(picture.name)
        rows.append(measure(picture, quality, subject or Subject()))
    return Oddities(quality, tuple(rows), describe_environment(threads))


def table(result: Oddities) -> Table:
    """Return the result as a table."""
    rows = []
    for row in result.rows:
        ratio = row.num_bytes / row.webp_bytes
        comparable = abs(min(row.psnr_db, 100.0) - min(row.webp_psnr_db, 100.0)) <= 1.0
        rows.append(
            (
                row.picture,
                f"{row.width}x{row.height}",
                decibel(row.psnr_db),
                decibel(row.flat_psnr_db),
                str(row.worst_error),
                str(row.num_bytes),
                f"{decibel(row.webp_psnr_db)} (q {row.webp_quality})",
                str(row.webp_bytes),
                f"{ratio:.2f}" if comparable and math.isfinite(ratio) else "not comparable",
            )
        )
    return Table(
        f"Pictures unlike photographs, quality {result.quality:g}",
        ("picture", "size", "PSNR dB", "flat dB", "worst error", "bytes", "WebP dB",
         "WebP bytes", "bytes of WebP's"),
        tuple(rows),
        (
            ("flat: PSNR of the mean colour alone. WebP (method 6): the quality nearest in PSNR; "
            "not comparable where more than 1 dB away (its 4:2:0 colour bounds what it reaches)."),
            environment_note(result.environment),
        ),
    )  # fmt: skip
