"""`vcm train scene`: teach the picture codec, and write its weights."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import click

from vcmcodec.cli import show, training_options
from vcmcodec.cli.training_view import training_view


@click.command("scene", short_help="The picture codec.")
@click.option(
    "--data",
    required=True,
    multiple=True,
    type=click.Path(exists=True, path_type=Path),
    help="A folder or tar shard of photographs; give it several times.",
)
@training_options.run_folder()
@training_options.evaluate()
@click.option("--steps", type=click.IntRange(1), help="Length of the whole schedule.")
@click.option("--opening", type=click.IntRange(0), help="Steps at one rate and full width.")
@training_options.start
@click.option("--until", type=click.IntRange(1), help="Stop, and save, at this step.")
@training_options.threads
@training_options.seed
@click.option("--bfloat16/--no-bfloat16", default=True, show_default=True,
              help="Residual branches of the transforms in bfloat16.")  # fmt: skip
@training_options.export()
@click.option("--model", default="scene-1", show_default=True, help="Name of the exported model.")
@training_options.quiet
def command(
    data: tuple[Path, ...], folder: Path, evaluate: tuple[Path, ...], *, steps: int | None,
    opening: int | None, until: int | None, start: str | None, threads: int, seed: int,
    bfloat16: bool, target: Path | None, model: str, quiet: bool,
) -> int:  # fmt: skip
    r"""Teach the picture codec: rate and distortion over levels, widths, layers and group maps.

    \b
      vcm train scene --data photos/ --run runs/scene
      vcm train scene --data photos/ --run runs/scene --until 20000
      vcm train scene --data photos/ --run runs/longer --start scene-1 --steps 50000
      vcm train scene --data photos/ --run runs/scene --export weights/

    The same command goes on where the run stopped, to the step; one that has reached its last
    step only exports.
    """
    from vcmcodec.bitstream.constants import TaskId
    from vcmcodec.training import export as exporting
    from vcmcodec.training.scene import SceneRecipe
    from vcmcodec.training.scene_run import train

    training_options.prepare(threads, target, model, "scene")
    recipe = SceneRecipe()
    recipe = dataclasses.replace(
        recipe,
        steps=recipe.steps if steps is None else steps,
        opening=recipe.opening if opening is None else opening,
    )
    with training_view(recipe.steps, quiet) as view:
        learned = train(
            data, folder, recipe, view,
            evaluation=evaluate, seed=seed, bfloat16=bfloat16, until=until, start=start,
        )  # fmt: skip
    if target is not None:
        say = (lambda line: None) if quiet else show.say
        blob, mark = exporting.export(learned.codec, data, show=say)
        tasks = [task.name.lower() for task in TaskId]
        exporting.enter(
            target,
            model,
            "scene",
            blob,
            mark,
            tasks=tasks,
            licence="see the model card",
            card=f"{model}.md",
        )
    return 0
