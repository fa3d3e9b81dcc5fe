"""A rate-distortion run as one HTML file that needs nothing else: no network, no other file."""

from __future__ import annotations

from html import escape

from vcmcodec.evaluation.charts import draw_curves, svg_text
from vcmcodec.evaluation.gallery import CROP, Exhibit, Version
from vcmcodec.evaluation.metrics import ms_ssim_db
from vcmcodec.evaluation.page_parts import (
    document,
    picture_class,
    picture_styles,
    slider,
    table_html,
)
from vcmcodec.evaluation.rate_distortion import RateDistortion
from vcmcodec.evaluation.report import Table, decibel, rate_distortion_tables


def _label(version: Version) -> str:
    if version.figures is None:
        return version.title
    f = version.figures
    return f"{version.title}, {f.num_bytes:,} bytes, {decibel(f.psnr_db)} dB"


def _figures(exhibit: Exhibit) -> Table:
    rows = []
    for version in exhibit.versions:
        f = version.figures
        if f is None:
            continue
        similarity = "n/a" if f.ms_ssim is None else decibel(ms_ssim_db(f.ms_ssim))
        rows.append(
            (
                version.title,
                f"{f.setting:g}",
                f"{f.num_bytes:,}",
                f"{f.bpp:.4f}",
                decibel(f.psnr_db),
                similarity,
                f"{version.encode_ms:.0f}",
                f"{version.decode_ms:.0f}",
            )
        )
    columns = ("codec", "quality", "bytes", "bits a pixel", "PSNR dB", "MS-SSIM dB",
               "encode ms", "decode ms")  # fmt: skip
    notes = (
        (
            "Rivals: the finest quality whose file is no larger than ours, or their smallest file. "
            "Times: of one run, for a rough idea."
        ),
    )
    return Table(exhibit.picture, columns, tuple(rows), notes)


def _crop(exhibit: Exhibit, i: int, j: int, place: tuple[int, int]) -> str:
    left, top = place
    across, down = exhibit.width - CROP, exhibit.height - CROP
    style = (
        f"background-size: {100 * exhibit.width / CROP:.4f}% {100 * exhibit.height / CROP:.4f}%; "
        f"background-position: {100 * left / max(1, across):.4f}% {100 * top / max(1, down):.4f}%"
    )
    label = escape(_label(exhibit.versions[j]), quote=True)
    return (
        f'<figure><div class="crop {picture_class(i, j)}" style="{style}" role="img" '
        f'aria-label="{label}"></div><figcaption>{label}</figcaption></figure>'
    )


def _exhibit(exhibit: Exhibit, i: int) -> str:
    crops = ""
    if min(exhibit.width, exhibit.height) >= CROP:
        crops = "".join(
            f'<p class="note">{CROP}x{CROP} pixels at {left}, {top}</p><div class="crops">'
            + "".join(_crop(exhibit, i, j, (left, top)) for j in range(len(exhibit.versions)))
            + "</div>"
            for left, top in exhibit.crops
        )
    labels = [_label(version) for version in exhibit.versions]
    pair = slider(exhibit.picture, i, labels, (exhibit.width, exhibit.height))
    return f'<section class="exhibit">{table_html(_figures(exhibit))}{pair}{crops}</section>'


def html_page(result: RateDistortion, exhibits: tuple[Exhibit, ...], subject: str | None) -> str:
    """Return the page.

    Args:
        result: a run.
        exhibits: pictures to compare; may be none.
        subject: name of the curve to stand out.
    """
    title = f"Rate and distortion on {len(result.pictures)} pictures"
    means = "Whole files, means over pictures"
    chart = svg_text(draw_curves(result.curves, subject=subject, title=means))
    points, figures = rate_distortion_tables(result)
    body = "".join(_exhibit(exhibit, i) for i, exhibit in enumerate(exhibits))
    beside = (
        "<h2>Side by side at equal bytes</h2>"
        f"<p>Drag across a picture, or use its slider.</p>{body}"
        if exhibits
        else ""
    )
    return document(
        title,
        f'<div class="chart">{chart}</div>{table_html(figures)}{beside}{table_html(points)}',
        picture_styles([[version.webp for version in exhibit.versions] for exhibit in exhibits]),
        {"curves": len(result.curves), "pictures": len(result.pictures)},
    )
