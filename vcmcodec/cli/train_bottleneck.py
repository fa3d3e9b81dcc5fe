"""`vcm train bottleneck`: teach the units of split points, and write their weights."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import click

from vcmcodec.cli import files, options, show, training_options
from vcmcodec.cli.training_view import training_view

_EXISTING = click.Path(exists=True, path_type=Path)


@click.command("bottleneck", short_help="Units at split points of the vision network.")
@click.option(
    "--data",
    multiple=True,
    type=_EXISTING,
    help="A folder or tar shard of photographs; give it several times.  No label is read.",
)
@click.option(
    "--labels",
    type=click.Path(exists=True, dir_okay=False, path_type=Path),
    help="COCO JSON of labelled pictures that lie beside it, in place of --data: match its labels.",
)
@training_options.run_folder()
@click.option(
    "--vision",
    metavar="ID|torchvision:NAME=FILE",
    help="The vision network; a classifier of torchvision with your own weights, which it then"
    " takes to use the units.  [default: the installed one]",
)
@click.option(
    "--splits",
    type=options.CommaList(),
    default="c3,c4,c5,fpn",
    show_default=True,
    help="Split points that get units; the first is the default of the model (of the reference"
    " network the first in this order).  A ResNet of torchvision has stem, layer1 .."
    " layer4, a MobileNet features6, features13, ... and features.",
)
@click.option(
    "--rate",
    type=click.Choice(["estimator", "l1"]),
    default="estimator",
    show_default=True,
    help="How bits are estimated: by a neural estimator, or by the size of what is coded.",
)
@training_options.evaluate()
@click.option("--steps", type=click.IntRange(2), help="Length of the whole schedule.")
@click.option("--batch", type=click.IntRange(1), help="Views of a step.")
@click.option("--until", type=click.IntRange(1), help="Stop, and save, at this step.")
@training_options.start
@training_options.threads
@training_options.device
@training_options.seed
@training_options.export()
@click.option("--crops", type=click.IntRange(1), default=400, show_default=True,
              help="Views on which the tables are fitted.")  # fmt: skip
@click.option("--model", default="bottleneck-1", show_default=True, help="Name of the model.")
@training_options.quiet
def command(
    data: tuple[Path, ...], labels: Path | None, folder: Path, *, vision: str | None,
    splits: tuple[str, ...], rate: str, evaluate: tuple[Path, ...], steps: int | None,
    batch: int | None, until: int | None, start: str | None, threads: int, device: str, seed: int,
    target: Path | None, crops: int, model: str, quiet: bool,
) -> int:  # fmt: skip
    r"""Teach bottleneck units: rate, and what the rest of the network makes of what comes through.

    \b
      vcm train bottleneck --data photos/ --run runs/units
      vcm train bottleneck --labels voc-train.json --run runs/labelled --splits c4
      vcm train bottleneck --data photos/ --run runs/units --export weights/
      vcm train bottleneck --data photos/ --run runs/mine --export weights/ \
          --vision torchvision:resnet18=resnet18.pth --splits layer3,layer2

    Without labels the results must be those on untouched tensors; with labels, what these say.  The
    vision network stays as it is, and the model works with that network alone.  The same command
    goes on where the run stopped; one that has reached its last step only exports.
    """
    if bool(data) == (labels is not None):
        raise click.UsageError("give --data, or --labels, and not both")
    if target is not None:
        files.refuse_inputs([target / f"{model}.safetensors"], options.network_files(vision))
    import numpy as np

    from vcmcodec import catalogue
    from vcmcodec.profiles import bottleneck
    from vcmcodec.training import bottleneck_export, bottleneck_run
    from vcmcodec.training import export as exporting
    from vcmcodec.training.bottleneck import BottleneckRecipe

    training_options.prepare(threads, target, model, "bottleneck")
    recipe = BottleneckRecipe(splits, rate="l1" if rate == "l1" else "estimator")
    recipe = dataclasses.replace(
        recipe,
        steps=recipe.steps if steps is None else steps,
        batch=recipe.batch if batch is None else batch,
    )
    with training_view(recipe.steps, quiet) as view:
        learned = bottleneck_run.train(
            data, folder, recipe, view,
            labels=labels, vision=vision, evaluation=evaluate, seed=seed, until=until,
            start=start, device=device,
        )  # fmt: skip
    if target is not None:
        frozen = bottleneck_run.open_network(vision, "cpu")
        views = bottleneck_run.open_views(data, labels, frozen, recipe.crop)
        images, _ = views(crops, np.random.default_rng(seed + 1))
        say = (lambda line: None) if quiet else show.say
        blob, mark = bottleneck_export.export_model(learned.codec, frozen, images, show=say)
        names = [catalogue.task(task).name for task in catalogue.profile("bottleneck").tasks]
        exporting.enter(
            target, model, "bottleneck", blob, mark,
            splits=list(bottleneck.in_order(learned.codec.shape.splits)),
            network=learned.codec.binding,
            tasks=[name for name in names if name in bottleneck.tasks_of(learned.codec)],
            licence="see the model card",
            card=f"{model}.md",
        )  # fmt: skip
    return 0
