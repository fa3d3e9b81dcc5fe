"""A camera that sends a machine's part of every picture, and the rest when somebody asks.

    python examples/camera.py photos/ link/ --store store/

It works together with `server.py` through nothing but `.vcm` files in the folder `link/`, which
stands for any transport (rsync, a bucket, a mailbox):

    link/base/NAME.vcm     camera to server: the base layer, enough to say what is in the picture
    link/wanted/NAME.vcm   server to camera: that base again; somebody wants to see this picture
    link/rest/NAME.vcm     camera to server: the layers for people; with the base it is the whole

The whole files stay in `store/`, where they are found again after a restart.
"""

from __future__ import annotations

import time
from pathlib import Path

import click

import vcmcodec

MACHINES = ("detection", "classification", "segmentation")
PEOPLE = ("mid", "full")


@click.command()
@click.argument("pictures", type=click.Path(exists=True, file_okay=False, path_type=Path))
@click.argument("link", type=click.Path(file_okay=False, path_type=Path))
@click.option("--store", type=click.Path(file_okay=False, path_type=Path), required=True)
@click.option("--quality", type=click.FloatRange(0, 100), default=60, help="For people.")
@click.option("--every", type=float, default=0.5, help="Seconds between two looks around.")
@click.option("--seconds", type=float, default=None, help="Stop after this time.")
def main(
    pictures: Path, link: Path, store: Path, quality: float, every: float, seconds: float | None
) -> None:
    """Watch the folder PICTURES and the folder LINK."""
    for folder in (store, link / "base", link / "wanted", link / "rest"):
        folder.mkdir(parents=True, exist_ok=True)
    end = None if seconds is None else time.monotonic() + seconds
    refused: set[tuple[Path, int]] = set()
    while end is None or time.monotonic() < end:
        for picture in sorted(pictures.iterdir()):
            state = picture, picture.stat().st_size  # one that is still being written grows
            if (store / f"{picture.name}.vcm").exists() or state in refused:
                continue
            try:
                record(picture, link, store, quality)
            except vcmcodec.VcmError as error:
                refused.add(state)
                click.echo(str(error), err=True)  # which names the picture
        for wanted in sorted((link / "wanted").glob("*.vcm")):
            try:
                send_rest(wanted, link, store)
            except vcmcodec.VcmError as error:
                click.echo(f"{wanted.stem}: {error}", err=True)
            wanted.unlink()
        time.sleep(every)


def record(picture: Path, link: Path, store: Path, quality: float) -> None:
    """Code one picture; keep all of it, send what machines need."""
    whole = vcmcodec.encode(picture, quality=quality)
    base = vcmcodec.extract(whole, tasks=MACHINES)
    put(link / "base" / f"{picture.name}.vcm", base)
    put(store / f"{picture.name}.vcm", whole)
    click.echo(f"{picture.name}: sent {len(base):,} of {len(whole):,} bytes")


def send_rest(wanted: Path, link: Path, store: Path) -> None:
    """Answer one request."""
    rest = vcmcodec.extract(store / wanted.name, layers=PEOPLE)
    put(link / "rest" / wanted.name, rest)
    click.echo(f"{wanted.stem}: sent the other {len(rest):,} bytes")


def put(target: Path, data: bytes) -> None:
    """Write a file that the other side sees whole or not at all."""
    part = target.with_name(target.name + ".part")
    part.write_bytes(data)
    part.replace(target)


if __name__ == "__main__":
    main()
