"""`vcm train vision`: teach the reference vision network, and write its weights."""

from __future__ import annotations

import dataclasses
import signal
from collections.abc import Callable
from pathlib import Path
from types import FrameType
from typing import TYPE_CHECKING

import click

from vcmcodec.cli import show, training_options
from vcmcodec.cli.training_view import training_view

if TYPE_CHECKING:
    from vcmcodec.vision.network import VisionNetwork

_FOLDER = click.Path(file_okay=False, path_type=Path)


@click.command("vision", short_help="The vision network.")
@click.option(
    "--data",
    required=True,
    type=click.Path(exists=True, file_okay=False, path_type=Path),
    help="Folder with voc-train*.json and their tars, and train-photos-*.tar.",
)
@click.option(
    "--teachers",
    type=click.Path(exists=True, file_okay=False, path_type=Path),
    help="Folder of the teachers and taps.py.  [default: teachers/ in the data folder]",
)
@click.option(
    "--cache",
    type=_FOLDER,
    help="Decoded pictures and what the detector finds there, 1.3 GB, made once.  "
    "[default: RUN/cache]",
)
@training_options.run_folder(
    "Where the run lives: checkpoint, log, TensorBoard files.  A run that is there goes on."
)
@click.option(
    "--start",
    metavar="MODEL",
    help="Teach nothing but a deep segmentation head, behind an installed network whose features,"
    " and what codes them, stay as they are.",
)
@click.option("--recipe", "name", type=click.Choice(["short", "long"]), default="short",
              show_default=True, help="For a CPU core, or for an accelerator.")  # fmt: skip
@click.option("--steps", type=click.IntRange(1),
              help="Length of the whole schedule, with --start of the head's.")  # fmt: skip
@click.option("--batch-scale", type=click.FloatRange(0.1), default=1.0, show_default=True,
              help="Factor on every batch size and (its root) on the step size.")  # fmt: skip
@click.option("--minutes", type=click.FloatRange(0.01), help="Stop, and save, after so long.")
@training_options.seed
@training_options.device
@training_options.threads
@click.option("--workers", type=click.IntRange(0), default=0, show_default=True,
              help="Processes that prepare batches; 0: this one does.")  # fmt: skip
@training_options.export(
    "At the end write the averaged weights to this folder and enter them in its manifest."
)
@click.option("--model", "model_id", default="vision-1", show_default=True,
              help="Name of the exported model.")  # fmt: skip
@click.option("--size", type=click.IntRange(32), default=416, show_default=True,
              help="Longer side that the exported model looks at, in pixels.")  # fmt: skip
@training_options.quiet
def command(
    data: Path, teachers: Path | None, cache: Path | None, folder: Path, *, start: str | None,
    name: str, steps: int | None,
    batch_scale: float, minutes: float | None, seed: int, device: str, threads: int, workers: int,
    target: Path | None, model_id: str, size: int, quiet: bool,
) -> int:  # fmt: skip
    r"""Teach the vision network by labels and by two permissively licensed teachers.

    \b
      vcm train vision --data data/ --run runs/vision
      vcm train vision --data data/ --run runs/vision --recipe long --device cuda --workers 14
      vcm train vision --data data/ --run runs/vision --export weights/
      vcm train vision --data data/ --run runs/head --start vision-1 --export weights/

    The same command goes on where the run stopped, to the step; one that has reached its last
    step only exports.  Ctrl-C saves before it stops.
    """
    import torch

    from vcmcodec import pretrained
    from vcmcodec.training import vision, vision_areas, vision_cache, vision_export, vision_recipe
    from vcmcodec.training.vision_pictures import read_samples
    from vcmcodec.training.vision_teacher import Teachers
    from vcmcodec.vision import weights
    from vcmcodec.vision.backend import PROFILE

    training_options.prepare(threads, target, model_id, "vision")
    recipe = dataclasses.replace(vision_recipe.RECIPES[name], seed=seed)
    if steps is not None and start is not None:
        recipe = vision_recipe.with_area_steps(recipe, steps)
    elif steps is not None:
        recipe = vision_recipe.with_steps(recipe, steps)
    if batch_scale != 1.0:
        recipe = vision_recipe.with_batches(recipe, batch_scale)
    cache, teachers = cache or folder / "cache", teachers or data / "teachers"
    if not (cache / "pictures.json").exists():
        if not quiet:
            show.say(f"showing the training pictures to the teachers once: {cache}")
        with training_view(len(read_samples(data)), quiet) as view:
            vision_cache.build(
                data, teachers, cache, device=device,
                progress=lambda done, total: view({"step": done, "total": total}),
            )  # fmt: skip
    taught_by = Teachers(teachers, torch.device(device))
    stopped = _stop_on_signal()

    def teach_areas(network: VisionNetwork) -> Path:
        if not quiet:
            show.say("everything else is done; the deep segmentation head learns")
        with training_view(recipe.areas.steps, quiet) as view:
            return vision_areas.train_areas(
                network.to(device), recipe, data, cache, folder, look=taught_by.areas,
                minutes=minutes, report=view, should_stop=stopped,
            )  # fmt: skip

    if start is not None:
        folder.mkdir(parents=True, exist_ok=True)
        file = pretrained.find(profile=PROFILE, model_id=start)
        model = weights.load(pretrained.checked_path(file), device)
        head = teach_areas(model.network)
        if target is not None:
            vision_export.export_head(model, head, target, model_id)
        return 0
    with training_view(recipe.steps, quiet) as view:
        last = vision.train_vision(
            recipe, data, cache, folder, look=taught_by.look, look_at_stages=taught_by.stages,
            device=device, workers=workers, minutes=minutes,
            report=_Reporter(view), should_stop=stopped,
        )  # fmt: skip
    network, done = vision.load_average(last)
    if done >= recipe.steps and recipe.areas.steps and not stopped():
        teach_areas(network)
    if target is not None:
        vision_export.export(last, target, model_id, longer_side=size)
    return 0


class _Reporter:
    """Hands a step's means to the view, and says a warning once."""

    def __init__(self, view: Callable[[dict[str, float]], None]) -> None:
        self._view, self._said = view, set[str]()

    def __call__(self, step: int, means: dict[str, float], warnings: list[str]) -> None:
        self._view({"step": step, **means})
        for warning in warnings:
            if warning not in self._said:
                self._said.add(warning)
                show.complain(f"warning: step {step}: {warning}", colour="yellow")


def _stop_on_signal() -> Callable[[], bool]:
    stopped: list[int] = []

    def note(number: int, frame: FrameType | None) -> None:
        stopped.append(number)
        signal.signal(number, signal.SIG_DFL)  # the second one ends it on the spot

    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, note)
    return lambda: bool(stopped)
