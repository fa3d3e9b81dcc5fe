"""`vcm merge`: parts of a file become the whole again."""

from __future__ import annotations

import functools
import io
from pathlib import Path
from typing import Any

import click

from vcmcodec import edit
from vcmcodec.bitstream.constants import Kind
from vcmcodec.bitstream.container import Container
from vcmcodec.bitstream.limits import Limits
from vcmcodec.cli import batch, files, options, show
from vcmcodec.sources import FileSource


def merge_all(inputs: list[files.Input], limits: Limits, _: str | bytes) -> batch.Product:
    """Merge all inputs into one file."""
    data = edit.merge([_part(each) for each in inputs], limits=limits)
    facts = {"sources": [each.name for each in inputs], "bytes": len(data)}
    whole = Container.read(data)
    layers = [info.layer for info in whole.header.layers]
    gone = [layer.name.lower() for layer in layers if not whole.find(Kind.LATENT, layer)]
    notes = tuple(f"layer {name} is in none of the parts" for name in gone)
    return batch.Product(data, facts, show.size(len(data)), 0, notes)


def _part(each: files.Input) -> str | FileSource:
    """A part, with a name by which errors call it."""
    source = each.source()
    return FileSource(io.BytesIO(source), "standard input") if isinstance(source, bytes) else source


@click.command("merge", short_help="Put parts of a file together again.")
@options.inputs("FILE|DIR|-...")
@options.output("The whole file; - for a pipe.", "FILE|-")
@options.existing
@options.limits(*options.FILE_LIMITS)
@options.json_lines("result")
@options.loudness
def command(inputs: tuple[str, ...], output: str, **given: Any) -> int:
    r"""Put parts of a file together again, in any order.

    \b
      vcm extract street.vcm -o base.vcm --layer base
      vcm extract street.vcm -o enhancement.vcm --layer mid --layer full
      vcm merge base.vcm enhancement.vcm -o street.vcm
    """
    style = options.style("merged", output, given)
    found = files.gather(inputs, {".vcm"}, recursive=None)
    if output.endswith("/") or Path(output).is_dir():
        raise click.UsageError(f"merging makes one file, and {output} is a folder")
    if output == files.STANDARD:
        files.refuse_terminal()
    target = None if output == files.STANDARD else Path(output)
    files.refuse_inputs([target], files.paths(found))
    names = ", ".join(each.name for each in found)
    whole = files.Input(Path(names), Path(names))
    work = functools.partial(merge_all, found, options.limits_of(given))
    return batch.run(work, [files.Job(whole, target)], style)
