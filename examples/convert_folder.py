"""Convert a folder of pictures to `.vcm` files, with a manifest of what is in them.

    python examples/convert_folder.py photos/ archive/ --quality 60 --jobs 4

Every picture becomes `archive/NAME.jpg.vcm`, and `archive/manifest.csv` gets a line: file, bytes,
bits a pixel, the tasks it can be read for, and the objects that were found in it and coded each on
its own.  Run it again after an interruption or with more pictures: what is there already is not
coded again.  The manifest is made from the files themselves, so it never tells of others.
"""

from __future__ import annotations

import csv
import multiprocessing
import sys
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor
from functools import partial
from pathlib import Path

import click

import vcmcodec

PICTURES = {".jpg", ".jpeg", ".png", ".webp", ".avif", ".tif", ".tiff", ".bmp", ".ppm"}
COLUMNS = ("file", "bytes", "bpp", "tasks", "objects", "error")


@click.command()
@click.argument("pictures", type=click.Path(exists=True, file_okay=False, path_type=Path))
@click.argument("archive", type=click.Path(file_okay=False, path_type=Path))
@click.option("--quality", type=click.FloatRange(0, 100), default=None, help="For people.")
@click.option("--objects/--no-objects", default=True, help="Find objects and code each on its own.")
@click.option("--jobs", type=click.IntRange(1), default=1, show_default=True, help="Processes.")
def main(pictures: Path, archive: Path, quality: float | None, objects: bool, jobs: int) -> None:
    """Convert all PICTURES, folders in it included, to .vcm files in ARCHIVE."""
    names = sorted(
        path.relative_to(pictures)
        for path in pictures.rglob("*")
        if path.suffix.lower() in PICTURES
    )
    archive.mkdir(parents=True, exist_ok=True)
    convert = partial(convert_one, pictures, archive, quality, objects)
    failed = 0
    with (archive / "manifest.csv").open("w", newline="", encoding="utf-8") as file:
        manifest = csv.DictWriter(file, COLUMNS)
        manifest.writeheader()
        for row in in_processes(convert, names, jobs):
            manifest.writerow(row)
            file.flush()  # an interrupted run leaves the lines of what it did
            if row["error"]:
                failed += 1
                click.echo(f"{row['file']}: {row['error']}", err=True)
    click.echo(f"{len(names) - failed} of {len(names)} pictures are in {archive}", err=True)
    sys.exit(1 if failed else 0)


def in_processes(convert: partial[dict[str, object]], names: list[Path], jobs: int) -> Iterator:
    """Convert all, in this process or in several, in the order of the names."""
    if jobs == 1:
        yield from map(convert, names)
        return
    # Spawned, not forked: threads of torch do not survive a fork.
    with ProcessPoolExecutor(jobs, multiprocessing.get_context("spawn")) as pool:
        yield from pool.map(convert, names)


def convert_one(
    pictures: Path, archive: Path, quality: float | None, objects: bool, name: Path
) -> dict[str, object]:
    """Make the file of one picture if it is not there; return its line of the manifest."""
    target = archive / f"{name}.vcm"
    try:
        if not target.exists():
            groups = "auto" if objects else None
            data = vcmcodec.encode(pictures / name, quality=quality, groups=groups)
            target.parent.mkdir(parents=True, exist_ok=True)
            part = target.with_name(target.name + ".part")
            part.write_bytes(data)
            part.replace(target)  # the file is there whole or not at all
        return {"file": target.relative_to(archive)} | facts(target)
    except vcmcodec.VcmError as error:
        return {"file": name, "error": str(error)}


def facts(file: Path) -> dict[str, object]:
    """What a file says of itself; only its header is read."""
    with vcmcodec.open(file) as reader:
        header = reader.header
        found = Counter(g.label for g in reader.groups if g.label != "background")
        return {
            "bytes": reader.size,
            "bpp": f"{8 * reader.size / (header.width * header.height):.4f}",
            "tasks": " ".join(reader.tasks),
            "objects": " ".join(f"{label}:{count}" for label, count in sorted(found.items())),
            "error": "",
        }


if __name__ == "__main__":
    main()
