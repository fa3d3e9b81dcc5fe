"""`vcm train semantic`: encoder and filter, codec, adaptor; stage by stage."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from vcmcodec.cli import show, training_options
from vcmcodec.cli.training_view import training_view

if TYPE_CHECKING:
    from collections.abc import Callable

    from vcmcodec.profiles.semantic import SemanticModel

STAGES = ("features", "codec", "adaptor")


@click.command("semantic", short_help="One generic feature, its codec, and what reads it.")
@click.option(
    "--stage",
    type=click.Choice(STAGES),
    required=True,
    help="features and codec learn from pictures alone; the adaptor, from a vision network.",
)
@click.option(
    "--data",
    multiple=True,
    type=click.Path(exists=True, path_type=Path),
    help="A folder or tar shard of pictures; give it several times.  No label is read.",
)
@click.option(
    "--objects",
    multiple=True,
    type=click.Path(exists=True, path_type=Path),
    help="For adaptor: the same, of objects, which are enlarged.",
)
@training_options.run_folder("Where all stages live.  A stage that is there goes on.")
@click.option(
    "--start",
    metavar="MODEL",
    help="For adaptor: teach behind an installed model, whose features, codec and files stay, and"
    " begin with its adaptor where that leads to the same kind of network.",
)
@click.option("--vision", metavar="ID",
              help="For adaptor: the vision network.  [default: the installed one]")  # fmt: skip
@training_options.evaluate(
    "For codec: pictures to measure on now and then; they are never trained on."
)
@click.option("--steps", type=click.IntRange(1), help="Length of the stage's whole schedule.")
@click.option("--batch", type=click.IntRange(1), help="Pictures of a step.")
@click.option("--until", type=click.IntRange(0), help="Stop, and save, at this step.")
@click.option("--filter/--no-filter", "filtered", default=True, show_default=True,
              help="For features: the information filter; for ablations.")  # fmt: skip
@click.option("--price", type=click.FloatRange(0), help="For features: of a bit behind the filter.")
@click.option(
    "--retained",
    type=click.FloatRange(0),
    help="For features: weight of what the feature no longer tells of the picture.",
)
@click.option("--guided/--unguided", default=True, show_default=True,
              help="For features: crops that follow the heat; for ablations.")  # fmt: skip
@click.option("--interactions", type=click.Choice(("gated", "plain")), default="gated",
              show_default=True, help="For codec: at equal arithmetic; for ablations.")  # fmt: skip
@click.option("--checkerboard/--one-pass", default=True, show_default=True,
              help="For codec: two passes a slice, or one; for ablations.")  # fmt: skip
@training_options.threads
@training_options.device
@training_options.seed
@training_options.export(
    "For adaptor: at the end, fit the tables on --data and write everything to this folder."
)
@click.option(
    "--model", default="semantic-1", show_default=True, help="Name of the exported model."
)
@training_options.quiet
def command(
    stage: str, data: tuple[Path, ...], objects: tuple[Path, ...], folder: Path, *,
    start: str | None, vision: str | None, evaluate: tuple[Path, ...],
    steps: int | None, batch: int | None, until: int | None, filtered: bool,
    price: float | None, retained: float | None, guided: bool, interactions: str,
    checkerboard: bool, threads: int, device: str, seed: int,
    target: Path | None, model: str, quiet: bool,
) -> int:  # fmt: skip
    r"""Teach a feature without labels, a codec for it, and what joins it to a vision network.

    \b
      vcm train semantic --stage features --data photos/ --run runs/semantic
      vcm train semantic --stage codec    --data photos/ --run runs/semantic
      vcm train semantic --stage adaptor  --data photos/ --run runs/semantic \
                         --objects voc/ --export weights/
      vcm train semantic --stage adaptor  --data photos/ --run runs/adaptor \
                         --objects voc/ --start semantic-1 --export weights/
      vcm train probe runs/semantic --labels train.json --evaluate val.json

    Each stage goes on from what the one before left in the folder.  The same command goes on where
    a stage stopped; one that has reached its last step only exports.
    """
    from vcmcodec.training import semantic_adaptor, semantic_features, semantic_run
    from vcmcodec.training.near_first import NearFirstRecipe
    from vcmcodec.training.semantic import CodecRecipe, FeaturesRecipe

    _check(stage, data, objects, target, start)
    training_options.prepare(threads, target, model, "semantic")
    common: dict[str, Any] = {"seed": seed, "until": until, "device": device}
    if stage == "features":
        weights: dict[str, Any] = {"price": price, "retained": retained}
        given = {name: value for name, value in weights.items() if value is not None}
        features = FeaturesRecipe(guided=guided, filtered=filtered)
        features = _with(dataclasses.replace(features, **given), steps, batch)
        with training_view(features.steps, quiet) as view:
            semantic_features.train(data, folder, features, view, **common)
    elif stage == "codec":
        codec = _with(CodecRecipe(kind=interactions, checkerboard=checkerboard), steps, batch)
        with training_view(codec.steps, quiet) as view:
            semantic_run.train(data, folder, codec, view, evaluation=evaluate, **common)
    else:
        adaptor = _with(NearFirstRecipe(), steps, batch)
        installed = None if start is None else semantic_adaptor.installed(start, device)
        with training_view(adaptor.steps, quiet) as view:
            semantic_adaptor.train(
                data, folder, adaptor, view,
                objects=objects, vision=vision, start=installed, **common,
            )  # fmt: skip
        if target is not None:
            say = (lambda line: None) if quiet else show.say
            _export(folder, data, target, model, installed, say)
    return 0


def _check(
    stage: str, data: tuple[Path, ...], objects: tuple[Path, ...], target: Path | None,
    start: str | None,
) -> None:  # fmt: skip
    """Refuse options that do not go with a stage."""
    if stage != "adaptor" and (objects or target is not None or start is not None):
        raise click.UsageError("--objects, --start and --export go with --stage adaptor alone")
    if not data:
        raise click.UsageError("pictures are missing: give --data")


def _with(recipe: Any, steps: int | None, batch: int | None) -> Any:
    """A recipe with another length or batch, where they are given."""
    given = {"steps": steps, "batch": batch}
    return dataclasses.replace(recipe, **{k: v for k, v in given.items() if v is not None})


def _export(
    folder: Path, data: tuple[Path, ...], target: Path, model: str,
    start: SemanticModel | None, say: Callable[[str], None],
) -> None:  # fmt: skip
    from vcmcodec import catalogue
    from vcmcodec.profiles import semantic
    from vcmcodec.training import export as exporting
    from vcmcodec.training import semantic_export

    if start is None:
        blob, mark, encoder = semantic_export.export_model(folder, data, show=say)
    else:
        blob, mark, encoder = semantic_export.export_adaptor(start, folder)
    exporting.enter(
        target, model, "semantic", blob, mark,
        splits=[semantic.SPLIT],
        network=encoder,
        tasks=[catalogue.task(task).name for task in catalogue.profile("semantic").tasks],
        licence="see the model card",
        card=f"{model}.md",
    )  # fmt: skip
