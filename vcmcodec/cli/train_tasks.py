"""`vcm train tasks`: teach what takes base layers to the vision network."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import click

from vcmcodec.cli import show, training_options
from vcmcodec.cli.training_view import training_view

EFFORT = 8
LONGER_SIDE = 416  # the vision network's own; `vcm bench tasks --base-sides` says what is best
_PICTURES = click.Path(exists=True, path_type=Path)


@click.command("tasks", short_help="From the base layer to the vision network.")
@click.option("--data", required=True, multiple=True, type=_PICTURES,
              help="A folder or tar shard of photographs; give it several times.")  # fmt: skip
@click.option("--objects", multiple=True, type=_PICTURES,
              help="The same, of objects; they are enlarged.  No label is read.")  # fmt: skip
@training_options.run_folder(
    "Where the run lives: checkpoint and log.  A run that is there goes on."
)
@click.option("--scene", metavar="ID", help="The picture model.  [default: the installed one]")
@click.option("--vision", metavar="ID", help="The vision network.  [default: the installed one]")
@click.option(
    "--start", is_flag=True, help="Begin with the tasks model that is installed for the codec."
)
@click.option(
    "--previews",
    type=click.FloatRange(0, 1),
    metavar="SHARE",
    help="Share of the steps in which the preview stages learn, not the transform.  [default: 0.3]",
)
@click.option(
    "--adapted",
    "adapted_share",
    type=click.FloatRange(0, 1),
    metavar="SHARE",
    help="Share of the transform's batches whose base layers are adapted to the network; with"
    " --start.  [default: 0]",
)
@click.option(
    "--near",
    type=click.FloatRange(0, 1),
    metavar="SHARE",
    help="Share of the steps, the first ones, in which the transform learns c3 and c4 alone, in"
    " large steps.  [default: 0.7]",
)
@click.option("--steps", type=click.IntRange(1), help="Length of the whole schedule.")
@click.option("--minutes", type=click.FloatRange(0.01), help="Stop, and save, after so long.")
@training_options.threads
@training_options.seed
@training_options.export(
    "At the end write the averaged weights to this folder and enter them in its manifest."
)
@click.option(
    "--quality",
    "qualities",
    multiple=True,
    metavar="TASK=Q",
    help="Lowest quality of the base layer that serves a task, as `vcm bench tasks` found it.",
)
@click.option(
    "--reduced-quality",
    multiple=True,
    metavar="TASK=Q",
    help="The same for pictures that are reduced before they are coded.  [default: as --quality]",
)
@click.option(
    "--adapted-quality",
    multiple=True,
    metavar="TASK=Q",
    help="The same for base layers that are adapted to the network.  [default: as"
    " --reduced-quality]",
)
@click.option(
    "--effort",
    type=click.IntRange(0, 1000),
    default=EFFORT,
    show_default=True,
    metavar="LOOKS",
    help="How often the network looks, by default, while a base layer is adapted to it; 0: never.",
)
@click.option(
    "--longer-side",
    type=click.IntRange(0),
    default=LONGER_SIDE,
    show_default=True,
    metavar="PIXELS",
    help="To what pictures that machines alone look at are reduced before coding; 0: not at all.",
)
@click.option("--model", default="tasks-1", show_default=True, help="Name of the exported model.")
@training_options.quiet
def command(
    data: tuple[Path, ...], objects: tuple[Path, ...], folder: Path, *, scene: str | None,
    vision: str | None, start: bool, previews: float | None, adapted_share: float | None,
    near: float | None, steps: int | None, minutes: float | None, threads: int, seed: int,
    target: Path | None, qualities: tuple[str, ...],
    reduced_quality: tuple[str, ...], adapted_quality: tuple[str, ...], effort: int,
    longer_side: int, model: str, quiet: bool,
) -> int:  # fmt: skip
    r"""Teach what takes base layers to the vision network.

    Pictures that are coded at the size at which the network looks, or are smaller, are seen
    through a transform from their latents, larger ones through stages of the network that learn on
    previews.

    \b
      vcm train tasks --data photos/ --objects voc/ --run runs/tasks
      vcm train tasks --data photos/ --objects voc/ --run runs/tasks --export weights/ \
          --quality detection=45 --quality segmentation=45 --quality classification=20

    Picture codec and vision network stay as they are; the model works with these two alone.
    """
    from vcmcodec.training import photographs, tasks, tasks_pair
    from vcmcodec.vision.network import TASKS

    training_options.prepare(threads, target, model, "tasks")
    chosen = _read_qualities("--quality", qualities)
    reduced = _read_qualities("--reduced-quality", reduced_quality)
    adapted = _read_qualities("--adapted-quality", adapted_quality)
    if target is not None and set(chosen) != set(TASKS):
        raise click.UsageError(f"--export needs a --quality for each of {', '.join(TASKS)}")
    if adapted_share and not start:
        raise click.UsageError("--adapted adapts to the tasks model of --start")
    given = {"steps": steps, "previews": previews, "adapted": adapted_share, "near": near}
    numbers: dict[str, Any] = {name: value for name, value in given.items() if value is not None}
    recipe = dataclasses.replace(tasks.TasksRecipe(seed=seed), **numbers)
    pair = tasks_pair.Installed.find(scene, vision)
    views = photographs.Views(data, objects, recipe.side)
    trainer = pair.trainer(recipe, views, start=start)
    with training_view(recipe.steps, quiet) as view:
        taught = tasks.train_tasks(trainer, folder, minutes=minutes, report=view)
    if target is not None:
        path = pair.export(
            trainer,
            taught,
            target,
            model,
            base_quality=chosen,
            reduced_quality=reduced,
            adapted_quality=adapted,
            effort=effort,
            longer_side=longer_side or None,
        )
        if not quiet:
            show.say(f"{path.name}: {path.stat().st_size:,} bytes")
    return 0


def _read_qualities(option: str, given: tuple[str, ...]) -> dict[str, float]:
    """TASK=Q to numbers.

    Raises:
        UsageError: no such task, or no number from 0 to 100.
    """
    from vcmcodec.vision.network import TASKS

    chosen: dict[str, float] = {}
    for text in given:
        task, _, number = text.partition("=")
        try:
            value = float(number)
        except ValueError:
            value = -1.0
        if task not in TASKS or not 0 <= value <= 100:
            raise click.UsageError(
                f"{option} {text}: write TASK=Q, as detection=45, Q from 0 to 100"
            )
        chosen[task] = value
    return chosen
