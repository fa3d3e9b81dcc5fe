"""Options that the trainings share, as decorators."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

import click

Command = TypeVar("Command", bound=Callable[..., Any])
Decorator = Callable[[Command], Command]

_FOLDER = click.Path(file_okay=False, path_type=Path)

threads = click.option("--threads", type=click.IntRange(1), default=1, show_default=True)
device = click.option("--device", default="cpu", show_default=True, help="cpu, cuda, cuda:1, ...")
seed = click.option("--seed", type=int, default=1, show_default=True)
start = click.option(
    "--start",
    metavar="MODEL",
    help="Begin with the weights of an installed model.",
)
quiet = click.option("-q", "--quiet", is_flag=True, help="Say nothing but errors.")


def prepare(threads: int, target: Path | None, model: str, profile: str) -> None:
    """What every training does first.

    Args:
        threads: of torch.
        target: where the finished model will be written, if it will.
        model, profile: its name and kind.

    Raises:
        RequestError: it could not be written there.
    """
    import torch

    from vcmcodec.training.export import check_room

    if target is not None:
        check_room(target, model, profile)
    torch.set_num_threads(threads)


def run_folder(
    says: str = "Where the run lives: state, log, TensorBoard files.  A run that is there goes on.",
) -> Decorator[Any]:
    """`--run`, the folder of everything that a training keeps."""
    return click.option("--run", "folder", required=True, type=_FOLDER, help=says)


def evaluate(
    says: str = "Pictures to measure on now and then; they are never trained on.",
) -> Decorator[Any]:
    """`--evaluate`, once for each folder, tar or picture."""
    return click.option(
        "--evaluate", multiple=True, type=click.Path(exists=True, path_type=Path), help=says
    )


def export(
    says: str = "At the end, freeze the averaged weights, fit the tables, and write them to this"
    " folder.",
) -> Decorator[Any]:
    """`--export`, the folder of weight files and their manifest."""
    return click.option("--export", "target", type=_FOLDER, help=says)
