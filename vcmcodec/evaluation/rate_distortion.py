"""Rate and distortion of several codecs on the same pictures in one run.

Every figure is of whole files: bits over the true pixels with all headers, and the pixels that
come out of the file again.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Protocol

import numpy as np

from vcmcodec.errors import RequestError
from vcmcodec.evaluation.corpora import NamedPicture, list_pictures, read_picture
from vcmcodec.evaluation.environment import Environment, describe_environment
from vcmcodec.evaluation.metrics import Pixels, ms_ssim, psnr_db
from vcmcodec.evaluation.rate_curve import (
    BdResult,
    Measurement,
    RateCurve,
    average_curve,
    bd_psnr,
    bd_rate,
    bd_rate_spread,
)
from vcmcodec.evaluation.rival_cache import RivalCache
from vcmcodec.evaluation.rivals import Rival
from vcmcodec.evaluation.subject import Subject

METRICS = ("psnr", "ms-ssim")
Progress = Callable[[str], None]


class StillCodec(Protocol):
    """What both sides of a comparison offer."""

    @property
    def title(self) -> str:
        """Name in tables and charts."""

    def encode(self, rgb: Pixels, quality: float) -> bytes:
        """Return the whole file for an (H, W, 3) uint8 picture."""

    def decode(self, data: bytes) -> Pixels:
        """Return the picture in a file, (H, W, 3) uint8."""


@dataclass(frozen=True)
class Comparison:
    """BD figures of `test` against `anchor` on one metric.

    Attributes:
        rate: BD-rate of the averaged curves in percent (the field's figure); None if refused.
        quality: BD-PSNR, or its MS-SSIM counterpart, in dB; None if refused.
        spread: 95 % interval of the BD-rate over the choice of pictures; None if unknown.
        picture_mean: mean over pictures of each picture's own BD-rate, in percent.
        picture_worst: the highest of those.
        reason: why figures are missing; None where they are not.
        published: the anchor's points are not of this run.
    """

    metric: str
    anchor: str
    test: str
    rate: BdResult | None
    quality: BdResult | None
    spread: tuple[float, float] | None = None
    picture_mean: float | None = None
    picture_worst: float | None = None
    reason: str | None = None
    published: bool = False


@dataclass(frozen=True)
class RateDistortion:
    """Result of one run; `settings` says how each codec was called."""

    pictures: tuple[str, ...]
    pixels: int
    settings: dict[str, str]
    environment: Environment
    curves: tuple[RateCurve, ...]
    comparisons: tuple[Comparison, ...]
    measurements: tuple[Measurement, ...]


def measure(codec: StillCodec, picture: NamedPicture, quality: float) -> Measurement:
    """Code one picture, decode the file, return size and quality."""
    data = codec.encode(picture.rgb, quality)
    return score(codec.title, picture, quality, data, codec.decode(data))


def score(
    title: str, picture: NamedPicture, quality: float, data: bytes, decoded: Pixels
) -> Measurement:
    """Return the figures of a file that is already written and decoded."""
    return Measurement(
        codec=title,
        picture=picture.name,
        setting=quality,
        num_bytes=len(data),
        bpp=8.0 * len(data) / picture.pixels,
        psnr_db=psnr_db(picture.rgb, decoded),
        ms_ssim=ms_ssim(picture.rgb, decoded),
    )


def measure_rival(
    rival: Rival, picture: NamedPicture, quality: float, cache: RivalCache, content_hash: str
) -> Measurement:
    """As `measure`, or from the cache."""
    key = cache.key(content_hash, rival, quality)
    known = cache.get(key, rival.title, picture.name, quality)
    if known is None:
        known = measure(rival, picture, quality)
        cache.put(key, known)
    return known


def compare(anchor: Sequence[Measurement], test: Sequence[Measurement], metric: str) -> Comparison:
    """Return BD figures of one codec's measurements against another's, same pictures."""
    curves = [average_curve(side[0].codec, side) for side in (anchor, test)]
    base = compare_curves(curves[0], curves[1], metric)
    if base.rate is None:
        return base
    own = []
    for picture in sorted({m.picture for m in test}):
        sides = [[m for m in side if m.picture == picture] for side in (anchor, test)]
        try:
            pair = [average_curve(side[0].codec, side) for side in sides]
            own.append(bd_rate(pair[0], pair[1], metric).value)
        except RequestError:
            continue
    return replace(
        base,
        spread=bd_rate_spread(anchor, test, metric),
        picture_mean=float(np.mean(own)) if own else None,
        picture_worst=max(own) if own else None,
    )


def compare_curves(anchor: RateCurve, test: RateCurve, metric: str) -> Comparison:
    """Return BD figures of two averaged curves; a refusal becomes the comparison's `reason`."""
    rate = quality = reason = None
    try:
        rate = bd_rate(anchor, test, metric)
        quality = bd_psnr(anchor, test, metric)
    except RequestError as error:
        rate, quality, reason = None, None, str(error)
    return Comparison(
        metric, anchor.name, test.name, rate, quality, reason=reason, published=anchor.published
    )


def run(
    folder: Path,
    *,
    subject: Subject | None,
    qualities: Sequence[float],
    rivals: Sequence[Rival],
    published: Sequence[RateCurve] = (),
    limit: int | None = None,
    cache: RivalCache | None = None,
    threads: int = 1,
    progress: Progress = lambda _: None,
) -> RateDistortion:
    """Measure the subject and its rivals on the pictures of a folder and compare them.

    Args:
        folder: pictures, each read whole.
        subject: vcmcodec with its arguments; None measures rivals alone.
        qualities: the subject's ladder.
        rivals: codecs to compare with, each at its own ladder.
        published: averaged curves of other sources, for context.
        limit: only so many pictures, in order of name.
        cache: kept results of rivals; None keeps none.
        threads: what torch was set to; reported.
        progress: called with one line before each piece of work.

    Raises:
        RequestError: no pictures.
        PictureError: one cannot be read.
    """
    cache = cache or RivalCache(None)
    measurements: list[Measurement] = []
    names, pixels = [], 0
    try:
        for path in list_pictures(folder, limit):
            picture = read_picture(path)
            names.append(picture.name)
            pixels += picture.pixels
            content_hash = picture.content_hash
            for rival in rivals:
                progress(f"{picture.name}: {rival.title}")
                measurements += [
                    measure_rival(rival, picture, quality, cache, content_hash)
                    for quality in rival.ladder
                ]
            if subject is not None:
                progress(f"{picture.name}: {subject.title}")
                measurements += [measure(subject, picture, quality) for quality in qualities]
    finally:
        cache.save()
    return summarize(
        measurements,
        pictures=tuple(names),
        pixels=pixels,
        settings=_settings(subject, qualities, rivals),
        environment=describe_environment(threads),
        test=subject.title if subject else None,
        published=published,
    )


def summarize(
    measurements: Sequence[Measurement],
    *,
    pictures: tuple[str, ...],
    pixels: int,
    settings: dict[str, str],
    environment: Environment,
    test: str | None,
    published: Sequence[RateCurve] = (),
) -> RateDistortion:
    """Turn measurements into curves and, where `test` names a codec, BD figures against all."""
    sides: dict[str, list[Measurement]] = {}
    for measurement in measurements:
        sides.setdefault(measurement.codec, []).append(measurement)
    curves = {name: average_curve(name, side) for name, side in sides.items()}
    comparisons = []
    if test is not None:
        for metric in METRICS:
            comparisons += [
                compare(side, sides[test], metric) for name, side in sides.items() if name != test
            ]
            comparisons += [compare_curves(curve, curves[test], metric) for curve in published]
    return RateDistortion(
        pictures=pictures,
        pixels=pixels,
        settings=settings,
        environment=environment,
        curves=(*curves.values(), *published),
        comparisons=tuple(comparisons),
        measurements=tuple(measurements),
    )


def _settings(
    subject: Subject | None, qualities: Sequence[float], rivals: Sequence[Rival]
) -> dict[str, str]:
    words = {rival.title: f"{rival.description}, quality {rival.ladder}" for rival in rivals}
    if subject is not None:
        tasks = "all" if subject.tasks is None else ", ".join(subject.tasks)
        words[subject.title] = (
            f"profile {subject.profile}, tasks {tasks}, quality {tuple(qualities)}"
        )
    return words
