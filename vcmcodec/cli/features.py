"""`vcm features`: what a vision network makes of pictures, as files for any other program."""

from __future__ import annotations

import functools
import time
from dataclasses import dataclass
from typing import Any

import click

from vcmcodec.bitstream.limits import Limits
from vcmcodec.cli import batch, files, options, show
from vcmcodec.errors import VcmError

# Of the reference network, as `vision.network`, which takes torch, and so seconds, to load.
SPLITS = ("stem", "c2", "c3", "c4", "c5", "fpn")
OTHER_NETWORKS = ("torchvision:", ".onnx")  # how their names begin or end


@dataclass(frozen=True)
class Settings:
    """What one run of `vcm features` asks for; sent to every worker process."""

    split: str
    model: str | None
    device: str
    limits: Limits


def take_one(settings: Settings, source: str | bytes) -> batch.Product:
    """Features of one picture, a path or the bytes of its file."""
    from vcmcodec import feature_codec, pixels
    from vcmcodec.vision import feature_files

    started = time.perf_counter()
    picture = pixels.read(source, settings.limits)
    found = feature_codec.features(
        picture,
        split=settings.split,
        model=settings.model,
        device=settings.device,
        limits=settings.limits,
    )
    data = feature_files.pack(found)
    seconds = time.perf_counter() - started
    tensors = {name: list(value.shape) for name, value in found.tensors.items()}
    facts = {
        "split": found.split,
        "network": found.model,
        "tensors": tensors,
        "bytes": len(data),
        "seconds": round(seconds, 4),
    }
    line = f"{', '.join(tensors)} of split {found.split}, {show.size(len(data))}, {seconds:.2f} s"
    return batch.Product(data, facts, line, 0, picture.warnings)


@click.command("features", short_help="Write a vision network's features of pictures.")
@options.inputs("PICTURE|DIR|-...")
@options.output("The .safetensors file; for several pictures the folder they go to; - for a pipe.")
@click.option(
    "--split",
    default="fpn",
    show_default=True,
    metavar="NAME",
    help=f"Where the network is cut: {', '.join(SPLITS)}; another --model may have others.",
)
@click.option(
    "--model",
    metavar="ID|FILE",
    help="Another network, as in `vcm analyze`.  [default: the installed one]",
)
@options.recursive
@options.keep_extension
@options.existing
@options.parallel
@options.limits("max_pixels")
@options.as_json
@options.loudness
def command(
    inputs: tuple[str, ...], output: str, *, max_pixels: int, recursive: bool,
    keep_extension: bool, **given: Any,
) -> int:  # fmt: skip
    r"""Write a vision network's features of pictures, as safetensors files.

    One float32 tensor (1, channels, rows, columns) a name; split point, network and sizes stand in
    the metadata.  `vcm encode` codes such files, `vcm decode` gives them back.

    \b
      vcm features street.png -o street.safetensors
      vcm encode street.safetensors -o street.vcm --profile pyramid
      vcm decode street.vcm -o decoded.safetensors
    """
    from vcmcodec import pixels

    settings = Settings(given["split"], given["model"], given["device"], Limits(max_pixels))
    style = options.style("taken", output, given)
    found = files.gather(inputs, pixels.READ_EXTENSIONS, recursive)
    reads = options.network_files(settings.model)
    jobs = files.plan(found, inputs, output, options.FEATURES, reads, keep_extension)
    _check_extensions(jobs)
    _check_split(settings)
    return batch.run(functools.partial(take_one, settings), jobs, style)


def _check_extensions(jobs: list[files.Job]) -> None:
    """Refuse names that promise anything else; those without an extension promise nothing."""
    for job in jobs:
        if job.target is not None and job.target.suffix not in ("", options.FEATURES):
            message = f"{job.target}: features are written as {options.FEATURES}"
            raise click.BadParameter(message, param_hint="--output")


def _check_split(settings: Settings) -> None:
    """Refuse a split point that the network does not have, once and not for every picture."""
    known: tuple[str, ...] = SPLITS
    name = settings.model or ""
    if name.startswith(OTHER_NETWORKS) or name.endswith(OTHER_NETWORKS):
        from vcmcodec.vision.backend import open_backend

        try:
            known = open_backend(name, device=settings.device).splits
        except VcmError:  # taking the features says so, of every picture
            return
    if settings.split not in known:
        listed = ", ".join(known) or "none"
        message = f"the network has no split point {settings.split}; there are {listed}"
        raise click.BadParameter(message, param_hint="--split")
