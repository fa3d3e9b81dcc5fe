"""What every page of a report shares: frame, style, tables, and pictures with a slider between.

Every picture is in a page once, as a class of the style sheet, however often it is shown.  A page
forbids itself any request (Content-Security-Policy), so that it cannot come to need one.
"""

from __future__ import annotations

import base64
import json
from collections.abc import Iterable, Mapping, Sequence
from html import escape
from typing import Any

from vcmcodec.evaluation.report import Table

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
             background: rgba(0,0,0,.65); color: #fff; max-width: 44%; overflow: hidden;
             text-overflow: ellipsis; white-space: nowrap; }
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


def table_html(table: Table) -> str:
    """Return a table under its title, with its notes below."""
    head = "".join(f"<th>{escape(name)}</th>" for name in table.columns)
    rows = "".join(
        "<tr>" + "".join(f"<td>{escape(cell)}</td>" for cell in row) + "</tr>" for row in table.rows
    )
    notes = "".join(f'<p class="note">{escape(note)}</p>' for note in table.notes)
    return (
        f'<h2>{escape(table.title)}</h2><div class="scroll"><table>'
        f"<thead><tr>{head}</tr></thead><tbody>{rows}</tbody></table></div>{notes}"
    )


def picture_class(exhibit: int, version: int) -> str:
    """Return the name of the style that shows one version of one exhibit."""
    return f"p{exhibit}-{version}"


def picture_styles(exhibits: Iterable[Sequence[bytes]]) -> str:
    """Return the styles of all pictures, WebP files by exhibit and version."""
    lines = []
    for i, versions in enumerate(exhibits):
        for j, webp in enumerate(versions):
            data = base64.b64encode(webp).decode("ascii")
            lines.append(
                f".{picture_class(i, j)}"
                f" {{ background-image: url(data:image/webp;base64,{data}); }}"
            )
    return "\n".join(lines)


def slider(
    name: str, exhibit: int, labels: Sequence[str], size: tuple[int, int], right: int | None = None
) -> str:
    """Return two versions of a picture over each other, with an edge to be dragged.

    Args:
        name: of the picture.
        exhibit: its number, as in `picture_styles`.
        labels: of its versions; the second is shown on the left at first.
        size: width and height in pixels.
        right: version on the right at first; the last one if None.
    """
    right = len(labels) - 1 if right is None else right

    def choices(selected: int) -> str:
        return "".join(
            f'<option value="{picture_class(exhibit, j)}"{" selected" if j == selected else ""}>'
            f"{escape(label)}</option>"
            for j, label in enumerate(labels)
        )

    width, height = size
    return (
        f'<div class="controls"><label>left <select>{choices(1)}</select></label>'
        f'<input type="range" min="0" max="100" value="50" step="0.1" '
        f'aria-label="edge between left and right, {escape(name, quote=True)}">'
        f"<label>right <select>{choices(right)}</select></label></div>"
        f'<div class="pair" style="--at: 50%; aspect-ratio: {width} / {height}; '
        f'max-width: {width}px">'
        f'<div class="under {picture_class(exhibit, right)}" role="img"></div>'
        f'<div class="over {picture_class(exhibit, 1)}" role="img"></div><div class="bar"></div>'
        f'<span class="tag a"></span><span class="tag b"></span></div>'
    )


def document(title: str, body: str, styles: str, facts: Mapping[str, Any]) -> str:
    """Return a whole page.

    Args:
        title: plain text.
        body: HTML below the heading.
        styles: beside those that all pages share.
        facts: a few numbers for programs that read the page.
    """
    return (
        '<!DOCTYPE html><html lang="en"><head><meta charset="utf-8">'
        f'<meta http-equiv="Content-Security-Policy" content="{_POLICY}">'
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        f"<title>{escape(title)}</title><style>{_STYLE}{styles}</style></head>"
        f'<body data-facts="{escape(json.dumps(facts), quote=True)}"><h1>{escape(title)}</h1>'
        f"{body}<script>{_SCRIPT}</script></body></html>\n"
    )
