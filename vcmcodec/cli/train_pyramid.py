"""`vcm train pyramid`: teach the pyramid codec, and write its weights."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import click

from vcmcodec.cli import options, show, training_options
from vcmcodec.cli.training_view import training_view


@click.command("pyramid", short_help="The codec of a feature pyramid.")
@click.option(
    "--data",
    required=True,
    multiple=True,
    type=click.Path(exists=True, path_type=Path),
    help="A folder or tar shard of photographs; give it several times.  No label is read.",
)
@training_options.run_folder()
@click.option("--vision", metavar="ID", help="The vision network.  [default: the installed one]")
@training_options.evaluate()
@click.option("--steps", type=click.IntRange(1), help="Length of the whole schedule.")
@click.option("--batch", type=click.IntRange(1), help="Crops of a step.")
@click.option("--until", type=click.IntRange(1), help="Stop, and save, at this step.")
@training_options.start
@click.option(
    "--levels",
    type=options.CommaList(),
    default=(),
    help="Only these levels, as p3,p5: for ablations.",
)
@click.option(
    "--interleaved/--joined",
    default=True,
    show_default=True,
    help="Fuse the levels while encoding, or all of them first: for ablations.",
)
@training_options.threads
@training_options.device
@training_options.seed
@training_options.export()
@click.option("--model", default="pyramid-1", show_default=True, help="Name of the exported model.")
@training_options.quiet
def command(
    data: tuple[Path, ...], folder: Path, vision: str | None, evaluate: tuple[Path, ...], *,
    steps: int | None, batch: int | None, until: int | None, start: str | None,
    levels: tuple[str, ...], interleaved: bool, threads: int, device: str, seed: int,
    target: Path | None, model: str, quiet: bool,
) -> int:  # fmt: skip
    r"""Teach the pyramid codec: rate and error of all levels, over rate levels and group maps.

    \b
      vcm train pyramid --data photos/ --run runs/pyramid
      vcm train pyramid --data photos/ --run runs/pyramid --export weights/

    The vision network stays as it is, and the model works with that network alone.  The same
    command goes on where the run stopped; one that has reached its last step only exports.
    """
    from vcmcodec import catalogue
    from vcmcodec.training import export as exporting
    from vcmcodec.training import pyramid_run
    from vcmcodec.training.pyramid import PyramidRecipe

    training_options.prepare(threads, target, model, "pyramid")
    recipe = PyramidRecipe(levels=levels, interleaved=interleaved)
    recipe = dataclasses.replace(
        recipe,
        steps=recipe.steps if steps is None else steps,
        batch=recipe.batch if batch is None else batch,
    )
    with training_view(recipe.steps, quiet) as view:
        learned = pyramid_run.train(
            data, folder, recipe, view,
            vision=vision, evaluation=evaluate, seed=seed, until=until, start=start, device=device,
        )  # fmt: skip
    if target is not None:
        say = (lambda line: None) if quiet else show.say
        blob, mark = pyramid_run.export_model(learned.codec, data, vision=vision, show=say)
        exporting.enter(
            target, model, "pyramid", blob, mark,
            splits=[learned.codec.split],
            network=learned.codec.binding,
            tasks=[catalogue.task(task).name for task in catalogue.profile("pyramid").tasks],
            licence="see the model card",
            card=f"{model}.md",
        )  # fmt: skip
    return 0
