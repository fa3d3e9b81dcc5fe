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
    for model in found:
        default = " (default)" if model.default else ""
        size = show.size(model.bytes) if model.present else "MISSING"
        serves = ", ".join(model.tasks)
        if model.splits:
            serves += f" at {', '.join(model.splits)}"
        told = (serves, f"weights: {model.licence}" if model.licence else "", str(model.path))
        click.echo(
            show.printable(f"{model.id}{default}  {model.profile}  {model.fingerprint}  {size}")
        )
        for line in filter(None, told):
            click.echo(f"    {show.printable(line)}")
    return 0
