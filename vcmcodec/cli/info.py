"""`vcm info`: what is in a file, without reading its payload."""

from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING, Any

import click

from vcmcodec.bitstream.constants import FILE_WIDE_LAYERS
from vcmcodec.bitstream.container import Container
from vcmcodec.bitstream.describe import Description, describe
from vcmcodec.bitstream.directory import kind_name
from vcmcodec.cli import batch, files, options, show
from vcmcodec.sources import opened

if TYPE_CHECKING:
    from rich.tree import Tree

_FILE_WIDE = {kind_name(kind) for kind in FILE_WIDE_LAYERS}


@click.command("info", short_help="Show what is in a file.")
@options.inputs("FILE|DIR|-...")
@options.recursive
@options.limits(*options.FILE_LIMITS)
@options.as_json
@options.loudness
def command(inputs: tuple[str, ...], *, recursive: bool, **given: Any) -> int:
    """Show what is in a file: layers, groups, tasks, and the bytes of each.

    Only the header is read, so a file over a slow line is shown at once.
    """
    limits = options.limits_of(given)
    style = batch.Style(
        "shown", json=given["as_json"], quiet=given["quiet"], verbose=given["verbose"]
    )

    def look(source: str | bytes) -> Description:
        with opened(source) as file:
            return describe(Container.read(file, limits))

    def tell(name: str, seen: Description) -> bool:
        if style.json:
            show.json_line({"source": name} | dataclasses.asdict(seen))
            return True
        if not style.quiet:
            for warning in seen.warnings:
                show.complain(f"warning: {warning}", name, colour="yellow")
        show.rich_print(tree(name, seen))
        return True

    return batch.inspect(look, tell, files.gather(inputs, {".vcm"}, recursive), style)


def tree(name: str, seen: Description) -> Tree:
    """Draw a description as a tree for people."""
    from rich.text import Text
    from rich.tree import Tree

    def line(head: str, *facts: str, num_bytes: int | None = None) -> Text:
        text = Text(head, style="bold")
        if num_bytes is not None:
            facts = (show.size(num_bytes), show.share(num_bytes, seen.num_bytes), *facts)
        return text.append("".join(f"  {fact}" for fact in facts if fact), style="not bold")

    root = Tree(line(show.printable(name), show.size(seen.num_bytes), _bpp(seen.bpp)))
    root.add(line("picture", _picture(seen), _coded(seen)))
    if seen.split is not None and seen.input_size is not None:
        width, height = seen.input_size
        root.add(line("features", f"split {seen.split}, of the picture at {width} x {height}"))
    tiles = f", tiles of {seen.tile} x {seen.tile} cells" if seen.tile else ""
    model = f"profile {seen.profile}, model {seen.fingerprint}, coder {seen.coder}{tiles}"
    root.add(line("coding", f"version {seen.version}, {model}"))
    root.add(line("header", num_bytes=seen.header_bytes))
    tasks = root.add(line("tasks", "what each has to read"))
    for task in seen.tasks:
        lost = "" if task.whole else "not in this file"
        tasks.add(line(task.name, f"up to {task.layer}", lost, num_bytes=task.num_bytes))
    texts = root.add(line("text")) if seen.text else root
    for key, value in seen.text.items():
        texts.add(line(show.printable(key), show.printable(value)))
    names = {group.id: group.label for group in seen.groups}
    layers = root.add(line("layers"))
    for layer in seen.layers:
        of_width = "" if layer.width is None else f", width {layer.width:g}"
        quality = f"quality {layer.rate_level:g}{of_width}"
        lost = "" if layer.whole else "not whole" if layer.substreams else "not in this file"
        branch = layers.add(line(layer.name, quality, lost, num_bytes=layer.num_bytes))
        for part in layer.substreams:
            of_group = part.group in names and part.kind not in _FILE_WIDE
            whose = f"group {part.group} {names[part.group]}" if of_group else ""
            where = f"tile {part.tile}" if seen.tile else ""
            cut = "" if part.whole else "cut off"
            branch.add(line(part.kind, whose.strip(), where, cut, num_bytes=part.num_bytes))
    if seen.groups:
        groups = root.add(line("groups"))
    for group in seen.groups:
        left, top, width, height = group.box
        score = "" if group.score is None else f"score {group.score:.2f}"
        place = f"{width} x {height} at ({left}, {top}), {show.counted(group.cells, 'cell')}"
        groups.add(
            line(f"{group.id} {group.label}".strip(), place, score, num_bytes=group.num_bytes)
        )
    return root


def _picture(seen: Description) -> str:
    colour = () if seen.grey is None else ("grey" if seen.grey else "colour",)
    redacted = ("redacted",) if seen.redacted else ()
    return ", ".join((f"{seen.width} x {seen.height}", *colour, *redacted))


def _coded(seen: Description) -> str:
    """How a picture's base layer is not that of the whole picture."""
    if seen.coded_size is None:
        return "for machines alone" if seen.apart else ""
    return f"reduced to {seen.coded_size[0]} x {seen.coded_size[1]}"


def _bpp(bpp: float) -> str:
    return f"{bpp:.3f} bits a pixel"
