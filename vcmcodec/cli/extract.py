"""`vcm extract`: a part of a file as a file of its own; bytes are moved, no network is run."""

from __future__ import annotations

import functools
from dataclasses import dataclass
from typing import Any

import click

from vcmcodec import edit
from vcmcodec.bitstream.constants import Kind, LayerId
from vcmcodec.bitstream.container import Container
from vcmcodec.bitstream.limits import Limits
from vcmcodec.bitstream.ranges import ByteSource
from vcmcodec.cli import batch, files, options, show
from vcmcodec.errors import RequestError
from vcmcodec.sources import opened

TEXTS_LOST = "texts are left out: they may speak of what was redacted"
ENHANCEMENT = "enhancement"  # all layers above the base


@dataclass(frozen=True)
class Settings:
    """What is kept of each file."""

    tasks: tuple[str, ...] | None
    layers: tuple[str, ...] | None
    width: float | None
    groups: tuple[str, ...] | None
    drop_groups: tuple[str, ...] | None
    redact: bool
    limits: Limits


def extract_one(settings: Settings, source: str | bytes) -> batch.Product:
    """Extract from one file, a path or its bytes."""
    with opened(source) as file:
        data = edit.extract(
            file,
            tasks=settings.tasks,
            layers=_layers(file, settings),
            width=settings.width,
            groups=settings.groups,
            drop_groups=settings.drop_groups,
            redact=settings.redact,
            limits=settings.limits,
        )
        lost = settings.redact and Container.read(file, settings.limits).find(Kind.TEXT)
    notes = (TEXTS_LOST,) if lost and not Container.read(data).find(Kind.TEXT) else ()
    return batch.Product(data, {"bytes": len(data)}, show.size(len(data)), 0, notes)


def _layers(file: ByteSource, settings: Settings) -> tuple[str, ...] | None:
    """The layers to keep, the word for all above the base resolved to those that are there.

    Raises:
        RequestError: there is none above the base.
    """
    if settings.layers is None or ENHANCEMENT not in settings.layers:
        return settings.layers
    known = [info.layer for info in Container.read(file, settings.limits).header.layers]
    above = [layer.name.lower() for layer in known if layer != LayerId.BASE]
    if not above:
        listed = ", ".join(layer.name.lower() for layer in known)
        raise RequestError(f"no layer {ENHANCEMENT!r} in this file; it has {listed}")
    return (*above, *(layer for layer in settings.layers if layer != ENHANCEMENT))


@click.command("extract", short_help="Copy a part of a file.")
@options.inputs("FILE|DIR|-...")
@options.output("The new file; for several files the folder they go to; - for a pipe.")
@click.option(
    "-t",
    "--task",
    "tasks",
    multiple=True,
    type=options.Names(options.TASK_NAMES),
    help="Keep what these tasks read.",
)
@click.option(
    "--layer",
    "layers",
    multiple=True,
    type=options.Names([*(layer.name.lower() for layer in LayerId), ENHANCEMENT]),
    help="Keep these layers; enhancement: all above the base.  A part without base waits for"
    " `vcm merge`.",
)
@click.option(
    "-w",
    "--width",
    type=options.Width(),
    help="Keep what a decoder of this width reads.",
)
@click.option(
    "-g",
    "--groups",
    multiple=True,
    type=options.CommaList(),
    metavar="LABEL|ID,...",
    help="Keep these groups.  A label means all groups that bear it.",
)
@click.option(
    "--drop-groups",
    multiple=True,
    type=options.CommaList(),
    metavar="LABEL|ID,...",
    help="Keep all groups but these.",
)
@click.option(
    "--redact",
    is_flag=True,
    help="Of the groups that are not kept remove label, score and box, too, and all texts; which"
    " cells are missing stays to be seen.  Their pixels are in no other group, unless these were"
    " coded with --effort or to a target size, or are features.",
)
@options.recursive
@options.existing
@options.limits(*options.FILE_LIMITS)
@options.as_json
@options.loudness
def command(
    inputs: tuple[str, ...],
    output: str,
    *,
    tasks: tuple[tuple[str, ...], ...],
    layers: tuple[tuple[str, ...], ...],
    width: float | None,
    groups: tuple[tuple[str, ...], ...],
    drop_groups: tuple[tuple[str, ...], ...],
    redact: bool,
    recursive: bool,
    **given: Any,
) -> int:
    r"""Copy a part of a file; bytes are moved, no network is run.

    \b
      vcm extract street.vcm -o det.vcm --task detection
      vcm extract street.vcm -o rest.vcm --layer enhancement
      vcm extract street.vcm -o person.vcm --groups person
      vcm extract street.vcm -o private.vcm --drop-groups person --redact
    """
    settings = Settings(
        tasks=options.flat(tasks),
        layers=options.flat(layers),
        width=width,
        groups=options.flat(groups),
        drop_groups=options.flat(drop_groups),
        redact=redact,
        limits=options.limits_of(given),
    )
    _check(settings)
    style = options.style("extracted", output, given)
    found = files.gather(inputs, {".vcm"}, recursive)
    jobs = files.plan(found, inputs, output, ".vcm")
    return batch.run(functools.partial(extract_one, settings), jobs, style)


def _check(settings: Settings) -> None:
    ways = [
        name
        for name, value in (
            ("--task", settings.tasks),
            ("--layer", settings.layers),
            ("--width", settings.width),
        )
        if value is not None
    ]
    if len(ways) > 1:
        raise click.UsageError(f"{' and '.join(ways)} exclude each other")
    if settings.groups and settings.drop_groups:
        raise click.UsageError("--groups and --drop-groups exclude each other")
    if not ways and not settings.groups and not settings.drop_groups:
        raise click.UsageError(
            "say what to keep: --task, --layer, --width, --groups, --drop-groups"
        )
    if settings.redact and not settings.groups and not settings.drop_groups:
        raise click.UsageError("--redact needs --groups or --drop-groups")
