"""`vcm models`: which models are installed."""

from __future__ import annotations

import dataclasses

import click

from vcmcodec import pretrained
from vcmcodec.cli import options, show


@click.command("models", short_help="List the models that are installed.")
@options.json_lines("model")
def command(*, as_json: bool) -> int:
    """List the models that are installed, and where they lie.

    The folder named by the environment variable VCMCODEC_WEIGHTS is searched first.
    """
    found = pretrained.models()
    if as_json:
        for model in found:
            show.json_line(dataclasses.asdict(model) | {"present": model.present})
        return 0
    if not found:
        show.complain(
            f"no model is installed; name a folder with a manifest.json in {pretrained.VARIABLE}"
        )
        return 1
    from rich.table import Table
    from rich.text import Text

    table = Table(box=None, pad_edge=False)
    for title in ("model", "profile", "splits", "tasks", "bytes", "fingerprint", "licence", "file"):
        table.add_column(title, overflow="fold")
    for model in found:
        cells = (
            model.id + (" (default)" if model.default else ""),
            model.profile,
            ", ".join(model.splits),
            ", ".join(model.tasks),
            f"{model.bytes:,}" if model.present else "MISSING",
            model.fingerprint,
            model.licence,
            str(model.path),
        )
        table.add_row(*map(Text, cells))  # as Text: rich would take [brackets] for markup
    show.rich_print(table)
    return 0
