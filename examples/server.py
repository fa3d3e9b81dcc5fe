"""A server that says what is in a camera's pictures, from base layers alone.

    python examples/server.py watch link/
    python examples/server.py show link/ street.jpg -o street.png

`watch` prints a JSON line for every base layer that `camera.py` sends; nothing else is read for it.
`show` is for a person who wants to see one of them: it asks the camera for the other layers, merges
them with the base, and decodes the picture.  What lies in `link/` is told in `camera.py`.
"""

from __future__ import annotations

import json
import time
from pathlib import Path

import click

import vcmcodec

LINK = click.argument("link", type=click.Path(file_okay=False, path_type=Path))
EVERY = 0.2  # seconds between two looks around


@click.group()
def main() -> None:
    """Analyze what a camera sends, and see one of its pictures."""


@main.command()
@LINK
@click.option("--score", type=click.FloatRange(0, 1), default=0.3, help="Of objects, at least.")
@click.option("--seconds", type=float, default=None, help="Stop after this time.")
def watch(link: Path, score: float, seconds: float | None) -> None:
    """Say what is in every picture whose base layer comes through LINK."""
    end = None if seconds is None else time.monotonic() + seconds
    seen: set[Path] = set()
    while end is None or time.monotonic() < end:
        for base in sorted(set((link / "base").glob("*.vcm")) - seen):
            seen.add(base)
            click.echo(json.dumps(look(base, score)))
        time.sleep(EVERY)


def look(base: Path, score: float) -> dict[str, object]:
    """What is in one picture, or why nobody can say."""
    try:
        found = vcmcodec.analyze(base, tasks=("detection", "classification"), score=score)
    except vcmcodec.VcmError as error:
        return {"file": base.stem, "error": {"code": error.code, "message": str(error)}}
    facts = found.above(score).to_json(base.stem, "all")
    return facts | {"bytes": base.stat().st_size}


@main.command()
@LINK
@click.argument("name")
@click.option("-o", "--output", type=click.Path(path_type=Path), required=True)
@click.option("--seconds", type=float, default=60, help="To wait for the camera.")
def show(link: Path, name: str, output: Path, seconds: float) -> None:
    """Fetch the rest of the picture NAME and write the whole to a picture or .vcm file."""
    base, rest = link / "base" / f"{name}.vcm", link / "rest" / f"{name}.vcm"
    if not base.exists():
        raise click.ClickException(f"the camera sent no {name}")
    if not rest.exists():
        part = link / "wanted" / f"{name}.part"
        part.write_bytes(base.read_bytes())
        part.replace(link / "wanted" / base.name)  # whole or not at all
    end = time.monotonic() + seconds
    while not rest.exists():
        if time.monotonic() > end:
            raise click.ClickException(f"the camera did not answer in {seconds:g} seconds")
        time.sleep(EVERY)
    whole = vcmcodec.merge([base, rest])
    if output.suffix == ".vcm":
        output.write_bytes(whole)
    else:
        vcmcodec.decode(whole).save(output)
    click.echo(f"{name}: {base.stat().st_size:,} + {rest.stat().st_size:,} bytes -> {output}")


if __name__ == "__main__":
    main()
