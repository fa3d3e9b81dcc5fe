"""Tables as Markdown, and the place in a page that belongs to them."""

from __future__ import annotations

from collections.abc import Sequence

from vcmcodec.errors import RequestError
from vcmcodec.evaluation.report import Table

BEGIN, END = "<!-- table: begin -->", "<!-- table: end -->"
_SPECIAL = str.maketrans({c: f"\\{c}" for c in "\\`*_[]<>|&~"})


def markdown_text(tables: Sequence[Table]) -> str:
    """Tables one after another, each with its title above and its notes below.

    Texts stand as they are: what Markdown or HTML would take for markup is escaped.
    """
    return "\n\n".join(_block(table) for table in tables) + "\n"


def insert(text: str, page: str) -> str:
    """A page with `text` between the two lines that mark the place of tables.

    Args:
        text: ends with a line break.
        page: holds `BEGIN` and `END`, each once and on a line of its own.

    Raises:
        RequestError: the page has no such place.
    """
    lines = page.splitlines()
    places = [[i for i, line in enumerate(lines) if line.strip() == mark] for mark in (BEGIN, END)]
    if any(len(found) != 1 for found in places) or places[0] > places[1]:
        raise RequestError(
            f"the page has no place for tables: a line {BEGIN} and below it a line {END}, once each"
        )
    (start,), (end,) = places
    return "\n".join([*lines[: start + 1], "", text.rstrip("\n"), "", *lines[end:]]) + "\n"


def _block(table: Table) -> str:
    rule = ["---"] + ["---:"] * (len(table.columns) - 1)
    rows = [_row(table.columns), "|" + "|".join(rule) + "|", *map(_row, table.rows)]
    parts = [f"**{_plain(table.title)}**", "\n".join(rows)]
    if table.notes:
        parts.append("\n".join(f"- {_plain(note)}" for note in table.notes))
    return "\n\n".join(parts)


def _row(cells: Sequence[str]) -> str:
    return "| " + " | ".join(map(_plain, cells)) + " |"


def _plain(text: str) -> str:
    return " ".join(text.split()).translate(_SPECIAL)
