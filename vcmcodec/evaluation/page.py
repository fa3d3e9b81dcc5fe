"""A rate-distortion run as one HTML file that needs nothing else: no network, no other file.

Every picture is in the file once, as a class of the style sheet, however often it is shown.  The
page forbids itself any request (Content-Security-Policy), so that it cannot come to need one.
"""

from __future__ import annotations

import base64
import json
from html import escape

from vcmcodec.evaluation.charts import draw_curves, svg_text
from vcmcodec.evaluation.gallery import CROP, Exhibit, Version
from vcmcodec.evaluation.metrics import ms_ssim_db
from vcmcodec.evaluation.rate_distortion import RateDistortion
from vcmcodec.evaluation.report import Table, decibel, rate_distortion_tables

_POLICY = "default-src 'none'; img-src data:; style-src 'unsafe-inline'; script-src 'unsafe-inline'"

_STYLE = """
:root { color-scheme: light; --line: #d0d0d0; }
body { font: 16px/1.5 system-ui, sans-serif; color: #1a1a1a; background: #fff;
       max-width: 1180px; margin: 0 auto; padding: 1rem; }
h1 { font-size: 1.6rem; } h2 { font-size: 1.25rem; margin-top: 2.2rem; }
table { border-collapse: collapse; font-size: .85rem; font-variant-numeric: tabular-nums; }
th, td { border-bottom: 1px solid var(--line); padding: .25rem .6rem; text-align: right; }
th:first-child, td:first-child { text-align: left; }
.scroll { overflow-x: auto; } .note { color: #555; font-size: .85rem; }
.chart svg { width: 100%; height: auto; }
.pair { position: relative; overflow: hidden; border: 1px solid var(--line); touch-action: none; }
.pair > div, .crop { background-repeat: no-repeat; }
.pair > div { position: absolute; inset: 0; background-size: 100% 100%; }
.pair .over { clip-path: inset(0 calc(100% - var(--at)) 0 0); }
.pair .bar { left: var(--at); right: auto; width: 2px; margin-left: -1px; background: #fff;
             box-shadow: 0 0 3px #000; }
.pair .tag { position: absolute; top: .5rem; padding: .1rem .5rem; font-size: .8rem;
             background: rgba(0,0,0,.65); color: #fff; }
.pair .tag.a { left: .5rem; } .pair .tag.b { right: .5rem; }
.controls { display: flex; gap: 1rem; align-items: center; flex-wrap: wrap; margin: .5rem 0; }
.controls input[type=range] { flex: 1; min-width: 12rem; }
.crops { display: grid; grid-template-columns: repeat(auto-fit, minmax(180px, 1fr)); gap: .6rem; }
.crops figure { margin: 0; } .crops figcaption { font-size: .8rem; }
.crop { width: 100%; aspect-ratio: 1; image-rendering: pixelated; }
"""

# One slider a picture: moves the edge of the upper picture, by hand, by key or by dragging on it.
_SCRIPT = """
for (const box of document.querySelectorAll('.exhibit')) {
  const pair = box.querySelector('.pair'), range = box.querySelector('input');
  const [a, b] = box.querySelectorAll('select');
  const over = pair.querySelector('.over'), under = pair.querySelector('.under');
  const move = () => pair.style.setProperty('--at', range.value + '%');
  const show = () => {
    over.className = 'over ' + a.value; under.className = 'under ' + b.value;
    over.setAttribute('aria-label', a.selectedOptions[0].text);
    under.setAttribute('aria-label', b.selectedOptions[0].text);
    pair.querySelector('.tag.a').textContent = a.selectedOptions[0].text;
    pair.querySelector('.tag.b').textContent = b.selectedOptions[0].text;
  };
  const drag = event => {
    if (event.buttons !== 1) return;
    const place = pair.getBoundingClientRect();
    range.value = 100 * (event.clientX - place.left) / place.width;
    move();
  };
  range.addEventListener('input', move);
  pair.addEventListener('pointerdown', drag); pair.addEventListener('pointermove', drag);
  a.addEventListener('change', show); b.addEventListener('change', show);
  move(); show();
}
document.documentElement.dataset.ready = 'yes';
"""


def _table(table: Table) -> str:
    head = "".join(f"<th>{escape(name)}</th>" for name in table.columns)
    rows = "".join(
        "<tr>" + "".join(f"<td>{escape(cell)}</td>" for cell in row) + "</tr>" for row in table.rows
    )
    notes = "".join(f'<p class="note">{escape(note)}</p>' for note in table.notes)
    return (
        f'<h2>{escape(table.title)}</h2><div class="scroll"><table>'
        f"<thead><tr>{head}</tr></thead><tbody>{rows}</tbody></table></div>{notes}"
    )


def _class(exhibit: int, version: int) -> str:
    return f"p{exhibit}-{version}"


def _picture_styles(exhibits: tuple[Exhibit, ...]) -> str:
    lines = []
    for i, exhibit in enumerate(exhibits):
        for j, version in enumerate(exhibit.versions):
            data = base64.b64encode(version.webp).decode("ascii")
            lines.append(
                f".{_class(i, j)} {{ background-image: url(data:image/webp;base64,{data}); }}"
            )
    return "\n".join(lines)


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
        f'<figure><div class="crop {_class(i, j)}" style="{style}" role="img" '
        f'aria-label="{label}"></div><figcaption>{label}</figcaption></figure>'
    )


def _exhibit(exhibit: Exhibit, i: int) -> str:
    def options(selected: int) -> str:
        return "".join(
            f'<option value="{_class(i, j)}"{" selected" if j == selected else ""}>'
            f"{escape(_label(version))}</option>"
            for j, version in enumerate(exhibit.versions)
        )

    crops = ""
    if min(exhibit.width, exhibit.height) >= CROP:
        crops = "".join(
            f'<p class="note">{CROP}x{CROP} pixels at {left}, {top}</p><div class="crops">'
            + "".join(_crop(exhibit, i, j, (left, top)) for j in range(len(exhibit.versions)))
            + "</div>"
            for left, top in exhibit.crops
        )
    name = escape(exhibit.picture, quote=True)
    last = len(exhibit.versions) - 1
    return (
        f'<section class="exhibit">{_table(_figures(exhibit))}'
        f'<div class="controls"><label>left <select>{options(1)}</select></label>'
        f'<input type="range" min="0" max="100" value="50" step="0.1" '
        f'aria-label="edge between left and right, {name}">'
        f"<label>right <select>{options(last)}</select></label></div>"
        f'<div class="pair" style="--at: 50%; aspect-ratio: {exhibit.width} / {exhibit.height}; '
        f'max-width: {exhibit.width}px">'
        f'<div class="under {_class(i, last)}" role="img"></div>'
        f'<div class="over {_class(i, 1)}" role="img"></div><div class="bar"></div>'
        f'<span class="tag a"></span><span class="tag b"></span></div>{crops}</section>'
    )


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
    facts = json.dumps({"curves": len(result.curves), "pictures": len(result.pictures)})
    return (
        '<!DOCTYPE html><html lang="en"><head><meta charset="utf-8">'
        f'<meta http-equiv="Content-Security-Policy" content="{_POLICY}">'
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        f"<title>{escape(title)}</title><style>{_STYLE}{_picture_styles(exhibits)}</style></head>"
        f'<body data-facts="{escape(facts, quote=True)}"><h1>{escape(title)}</h1>'
        f'<div class="chart">{chart}</div>{_table(figures)}{beside}{_table(points)}'
        f"<script>{_SCRIPT}</script></body></html>\n"
    )
