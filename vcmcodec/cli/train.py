"""`vcm train`: teach the networks again, from pictures."""

from __future__ import annotations

import click

from vcmcodec.cli.table import CommandTable

TRAININGS = (
    ("scene", "train_scene", "The picture codec."),
    ("vision", "train_vision", "The vision network."),
    ("tasks", "train_tasks", "From the base layer to the vision network."),
    ("pyramid", "train_pyramid", "The codec of a feature pyramid."),
    ("semantic", "train_semantic", "One generic feature, its codec, and what reads it."),
    ("probe", "train_probe", "Linear probes of semantic runs: their ablations."),
    ("bottleneck", "train_bottleneck", "Units at split points of the vision network."),
)


@click.group(
    "train",
    cls=CommandTable,
    table=TRAININGS,
    short_help="Teach the networks again, from pictures.",
)
def command() -> None:
    """Teach the networks again, from pictures: resumable to the step, watched, and logged."""
