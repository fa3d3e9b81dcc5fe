"""`vcm decode`: `.vcm` files, or parts of them, become pictures, or the features they hold."""

from __future__ import annotations

import functools
import io
import os
import time
from dataclasses import dataclass
from typing import Any

import click

from vcmcodec.bitstream.limits import Limits
from vcmcodec.cli import batch, files, options, show
from vcmcodec.errors import FormatError, RequestError

FEATURES = options.FEATURES.removeprefix(".")
TRANSPARENT = "transparent"  # the one background that is no colour


@dataclass(frozen=True)
class Settings:
    """What one run of `vcm decode` asks for; sent to every worker process."""

    groups: tuple[str, ...] | None
    width: float | None
    background: str | None
    longer_side: int | None
    tasks: tuple[str, ...] | None
    format: str
    device: str
    limits: Limits


def decode_one(settings: Settings, source: str | bytes) -> batch.Product:
    """Decode one file, a path or its bytes, to the bytes of a picture or feature file."""
    from vcmcodec import codec, pixels

    if settings.format == FEATURES:
        return _decode_features(settings, source)
    started = time.perf_counter()
    with codec.open(source, limits=settings.limits) as reader:
        try:
            decoded = reader.inspect(
                groups=settings.groups,
                width=settings.width,
                background=settings.background,
                longer_side=settings.longer_side,
                device=settings.device,
            )
        except FormatError as error:
            if settings.width is None and len(reader.layers) > 1:
                error.args = (f"{error}; --width 0.25 decodes what the base layer shows",)
            raise
        bytes_read, bytes_whole = reader.bytes_read, reader.size
    image = decoded.image
    out = io.BytesIO()
    pixels.save(image, out, settings.format)
    seconds = time.perf_counter() - started
    facts = {
        "width": image.width,
        "height": image.height,
        "mode": image.mode,
        "bytes": out.tell(),
        "bytes_read": bytes_read,
        "layer": decoded.layer.name.lower(),
        "groups": decoded.groups,
        "absent": round(decoded.absent, 5),
        "seconds": round(seconds, 4),
    }
    line = (
        f"{image.width} x {image.height} {image.mode}, read {show.size(bytes_read)} of"
        f" {show.size(bytes_whole)}, {seconds:.2f} s"
    )
    return batch.Product(out.getvalue(), facts, line, 0, decoded.warnings)


def _decode_features(settings: Settings, source: str | bytes) -> batch.Product:
    """Decode the features of one file to the bytes of a safetensors file."""
    from vcmcodec import codec, feature_codec
    from vcmcodec.vision import feature_files

    started = time.perf_counter()
    with codec.open(source, limits=settings.limits) as reader:
        decoded = feature_codec.inspect(
            reader, tasks=settings.tasks, groups=settings.groups, device=settings.device
        )
        bytes_read, bytes_whole = reader.bytes_read, reader.size
    data = feature_files.pack(decoded.features)
    seconds = time.perf_counter() - started
    tensors = {name: list(value.shape) for name, value in decoded.features.tensors.items()}
    facts = {
        "split": decoded.features.split,
        "tensors": tensors,
        "bytes": len(data),
        "bytes_read": bytes_read,
        "groups": decoded.groups,
        "absent": round(decoded.absent, 5),
        "seconds": round(seconds, 4),
    }
    line = (
        f"{', '.join(tensors)} of split {decoded.features.split}, read {show.size(bytes_read)} of"
        f" {show.size(bytes_whole)}, {seconds:.2f} s"
    )
    return batch.Product(data, facts, line, 0, decoded.warnings)


def _format_of(given: str | None, output: str) -> str:
    """The format asked for, else that of the output's extension, else PNG.

    Raises:
        click.BadParameter: neither pictures nor features are written under that extension.
    """
    from vcmcodec import pixels

    name = output.rsplit("/", 1)[-1]
    if given is None and name.endswith(options.FEATURES) and not os.path.isdir(output):
        return FEATURES
    if given is not None or "." not in name or os.path.isdir(output):
        return given or "png"
    try:
        pixels.save_format(name)
    except RequestError as error:
        raise click.BadParameter(str(error), param_hint="--output") from error
    return name.rsplit(".", 1)[1].lower()


def _check_colour(background: str | None) -> None:
    """Refuse what is no colour before anything is decoded."""
    from vcmcodec import pixels

    if background is None or background == TRANSPARENT:
        return
    try:
        pixels.parse_colour(background)
    except RequestError as error:
        raise click.BadParameter(str(error), param_hint="--background") from error


def _check_transparency(settings: Settings) -> None:
    """Refuse parts of pictures in a format that cannot say what is missing, before decoding."""
    from vcmcodec import pixels

    if settings.format == FEATURES or pixels.holds_transparency(settings.format):
        return
    name = pixels.save_format(settings.format)
    if settings.background == TRANSPARENT:
        raise click.UsageError(f"{name} has no transparency; --background takes a colour, too")
    if settings.groups and settings.background is None:
        raise click.UsageError(
            f"{name} has no transparency for what --groups leaves out: give a --background colour,"
            " or write PNG"
        )


@click.command("decode", short_help="Write .vcm files, or parts of them, as pictures.")
@options.inputs("FILE|DIR|-...")
@options.output(
    "The picture, or .safetensors file, its format told by the extension; for several files the"
    " folder they go to; - for a pipe."
)
@click.option(
    "-g",
    "--groups",
    "groups",
    multiple=True,
    type=options.CommaList(),
    metavar="LABEL|ID,...",
    help="Only these groups; no byte of the others is read.  A label means all that bear it.",
)
@click.option(
    "-t",
    "--task",
    "tasks",
    multiple=True,
    type=options.Names(options.MACHINE_TASK_NAMES),
    help="Of features, only what these tasks read.  [default: what the file was written for]",
)
@click.option(
    "-w",
    "--width",
    type=options.Width(),
    help="How much of the networks runs; 0.25 reads the base layer alone.  [default: all there is]",
)
@click.option(
    "--background",
    metavar="COLOUR|transparent",
    help="What stands where nothing was decoded: a name, #rrggbb, or transparent.  [default:"
    " transparent, which JPEG, PPM and BMP cannot be]",
)
@click.option(
    "--longer-side",
    type=click.IntRange(1),
    metavar="PIXELS",
    help="Reduce pictures to so many pixels, where they are larger; takes less time than decoding"
    " them whole.",
)
@click.option(
    "--format",
    type=click.Choice(["png", "jpg", "webp", "avif", "tiff", "ppm", "bmp", FEATURES]),
    help="Of the results, whatever they are called; safetensors for files of features, which no"
    " picture comes of.  [default: by the extension, else png]",
)
@options.recursive
@options.existing
@options.parallel
@options.limits(*options.FILE_LIMITS)
@options.as_json
@options.loudness
def command(
    inputs: tuple[str, ...],
    output: str,
    *,
    groups: tuple[tuple[str, ...], ...],
    tasks: tuple[tuple[str, ...], ...],
    width: float | None,
    format: str | None,
    recursive: bool,
    **given: Any,
) -> int:
    r"""Write .vcm files, or parts of them, as pictures, or as features where they hold these.

    \b
      vcm decode street.vcm -o street.png
      vcm decode street.vcm -o person.png --groups person --background transparent
      vcm decode street.vcm -o preview.png --width 0.25
      vcm decode out/ -o thumbnails/ --longer-side 256 --format jpg
      vcm decode out/ -o png/
      vcm decode features.vcm -o features.safetensors
    """
    wanted = _format_of(format, output)
    if tasks and wanted != FEATURES:
        raise click.UsageError("--task goes with features: write to a .safetensors file")
    if wanted == FEATURES and (width or given["background"] or given["longer_side"]):
        raise click.UsageError("features have no --width, --background or --longer-side")
    _check_colour(given["background"])
    settings = Settings(
        groups=options.flat(groups),
        width=width,
        background=given["background"],
        longer_side=given["longer_side"],
        tasks=options.flat(tasks),
        format=wanted,
        device=given["device"],
        limits=options.limits_of(given),
    )
    _check_transparency(settings)
    style = options.style("decoded", output, given)
    found = files.gather(inputs, {".vcm"}, recursive)
    jobs = files.plan(found, inputs, output, f".{wanted}")
    return batch.run(functools.partial(decode_one, settings), jobs, style)
