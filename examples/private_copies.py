"""Copy a folder of `.vcm` files without the people in them.

    python examples/private_copies.py archive/ public/ --drop person

The groups with that label are left out of every copy.  No picture is decoded or coded again: bytes
are moved, and everything else stays as it was, to the bit.  Label and box go, too (--redact, the
default): which cells are missing can be seen, and not what was there; with --no-redact they stay,
and `vcm merge` with the original gives back the whole.

A copy is as private as the groups are right: whom nobody marked in `vcm encode --groups` is in the
background, and stays.  So a file without any groups is refused, not copied, and a label that is in
no file at all, misspelt perhaps, is an error before anything is copied.  Nor should pictures
for machines alone that have groups be encoded with --effort: it adapts all groups together, so that
those which stay were chosen with the others in view.  Unasked, `vcm encode` does not.
"""

from __future__ import annotations

import contextlib
import sys
from pathlib import Path

import click

import vcmcodec
from vcmcodec.errors import RequestError


@click.command()
@click.argument("archive", type=click.Path(exists=True, file_okay=False, path_type=Path))
@click.argument("public", type=click.Path(file_okay=False, path_type=Path))
@click.option("--drop", default=("person",), multiple=True, show_default=True, help="Labels.")
@click.option("--redact/--no-redact", default=True, help="Drop label, box and shape as well.")
def main(archive: Path, public: Path, drop: tuple[str, ...], redact: bool) -> None:
    """Copy all files of ARCHIVE to PUBLIC without the groups that have one of the labels."""
    found = sorted(archive.rglob("*.vcm"))
    unknown = set(drop) - labels_of(found)
    if unknown:
        raise click.UsageError(f"no file has a group called {', '.join(sorted(unknown))}")
    failed = 0
    for file in found:
        name = file.relative_to(archive)
        try:
            copy, dropped = private_copy(file, set(drop), redact)
        except vcmcodec.VcmError as error:
            failed += 1
            click.echo(f"{name}: not copied: {error}", err=True)
            continue
        target = public / name
        target.parent.mkdir(parents=True, exist_ok=True)
        part = target.with_name(target.name + ".part")
        part.write_bytes(copy)
        part.replace(target)  # the copy is there whole or not at all
        click.echo(
            f"{name}: {dropped} groups dropped, {len(copy):,} of {file.stat().st_size:,} bytes"
        )
    sys.exit(1 if failed else 0)


def labels_of(found: list[Path]) -> set[str]:
    """The labels of all groups of some files; of those that cannot be read, none."""
    labels = set()
    for file in found:
        with contextlib.suppress(vcmcodec.VcmError), vcmcodec.open(file) as reader:
            labels |= {group.label for group in reader.groups}
    return labels


def private_copy(file: Path, drop: set[str], redact: bool) -> tuple[bytes, int]:
    """Return a file without the groups that have one of the labels, and how many these are.

    Raises:
        VcmError: the file is damaged, has no groups, or would be empty.
    """
    with vcmcodec.open(file) as reader:
        groups = reader.groups
    if not groups:
        raise RequestError("it has no groups, so who is in it is not known")
    dropped = [group.id for group in groups if group.label in drop]
    if not dropped:
        return file.read_bytes(), 0
    return vcmcodec.extract(file, drop_groups=dropped, redact=redact), len(dropped)


if __name__ == "__main__":
    main()
