"""Which mask or list of boxes belongs to which input of `vcm encode`."""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Iterable, Sequence
from pathlib import Path

import click

from vcmcodec.cli.files import Input, Job, place
from vcmcodec.errors import PictureError

EXTENSIONS = (".json", ".png", ".pgm", ".tif", ".tiff", ".bmp")


def attach(jobs: Sequence[Job], groups: str | None) -> list[Job]:
    """Give each job the file that its groups are read from.

    Args:
        jobs: from `files.plan`.
        groups: what --groups was given, where it is a path: one file for every input, or a folder
            with one for each; None: there are no groups.

    Returns:
        The jobs with `beside` set; those for which the folder has nothing have a problem.

    Raises:
        click.UsageError: two inputs would share a file of the folder, which can be right for one.
    """
    if groups is None:
        return list(jobs)
    if not os.path.isdir(groups):
        return [dataclasses.replace(job, beside=Path(groups)) for job in jobs]
    attached = [job if job.input.problem else _attached(job, Path(groups)) for job in jobs]
    users: dict[str, Input] = {}
    for job in attached:
        if job.beside is None:
            continue
        first = users.setdefault(place(job.beside), job.input)
        if first is not job.input:
            names = " and ".join(_own_name(each) for each in (first, job.input))
            raise click.UsageError(
                f"{first.name} and {job.input.name} would share the groups of {job.beside}; give"
                f" each its own in {groups}: {names}"
            )
    return attached


def refuse_labels(jobs: Iterable[Job]) -> None:
    """Refuse labels for masks where there is none among the files of groups.

    Raises:
        click.UsageError: all of them are lists of boxes.
    """
    from vcmcodec import grouping

    found = {job.beside for job in jobs if job.beside is not None}
    if found and all(grouping.is_boxes(_beginning(file)) for file in found):
        raise click.UsageError("--labels names the groups of a mask; boxes carry their own labels")


def _beginning(file: Path) -> bytes:
    """The first bytes of a file; none of a pipe, which can be read only once, or of no file."""
    if not os.path.isfile(file):
        return b""
    try:
        with file.open("rb") as opened:
            return opened.read(1024)
    except OSError:  # its picture will say so
        return b""


def sources(jobs: Iterable[Job], groups: str | None) -> list[Path]:
    """Every file that groups may be read from, which no result may replace."""
    found = [job.beside for job in jobs if job.beside is not None]
    if groups is None or not os.path.isdir(groups):
        return found
    try:
        return [*found, *Path(groups).iterdir()]
    except OSError:  # what is in there cannot be looked up: every picture will say so
        return found


def _attached(job: Job, folder: Path) -> Job:
    """A job with its file of the folder, or with the problem that there is none.

    The folder may be laid out as the inputs are, or hold everything flat.  `a/1.png` has its groups
    in `a/1.png.json` or `a/1.json`, else in `1.json`: the more a name says, the earlier it counts.
    """
    relative = job.input.relative
    if job.input.path is None:
        return _without(job, f"standard input has no name to look for in {folder}")
    names = (relative, relative.with_suffix(""), Path(relative.name), Path(relative.stem))
    for name in names:
        for extension in EXTENSIONS:
            file = folder / f"{name}{extension}"
            if os.path.isfile(file):  # False, too, where the name is too long for a file
                return dataclasses.replace(job, beside=file)
    tried = dict.fromkeys((_own_name(job.input), f"{relative.stem}.json", f"{relative.stem}.png"))
    return _without(job, f"no mask or boxes in {folder}: none of {', '.join(tried)}")


def _without(job: Job, problem: str) -> Job:
    failing = dataclasses.replace(job.input, problem=PictureError(problem))
    return dataclasses.replace(job, input=failing)


def _own_name(each: Input) -> str:
    """A name in the folder that is no other input's."""
    return f"{each.relative}.json"
