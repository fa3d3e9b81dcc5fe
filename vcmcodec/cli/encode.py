"""`vcm encode`: pictures, or features of them, become `.vcm` files."""

from __future__ import annotations

import functools
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import click

from vcmcodec import catalogue, pretrained
from vcmcodec.bitstream.constants import TaskId
from vcmcodec.bitstream.limits import Limits
from vcmcodec.cli import batch, files, groups, options, show
from vcmcodec.errors import PictureError, RequestError, WeightsError

USUAL_QUALITY = 60.0  # that of `profiles.scene`, which takes torch, and so seconds, to load


@dataclass(frozen=True)
class Settings:
    """What one run of `vcm encode` asks for; sent to every worker process."""

    tasks: tuple[str, ...] | None
    quality: float | None
    base_quality: float | None
    longer_side: int | None
    effort: int | None
    target_bpp: float | None
    target_size: int | None
    groups: str | None
    labels: tuple[tuple[int, str], ...]
    profile: str
    model: str | None
    split: str | None
    vision: str | None
    digest: bool
    text: tuple[tuple[str, str], ...]
    device: str
    limits: Limits


def encode_one(
    settings: Settings, source: str | bytes, beside: Path | None = None
) -> batch.Product:
    """Encode one picture or set of features, a path or the bytes of its file.

    Args:
        settings: what is asked for.
        source: the input.
        beside: the mask or list of boxes that goes with it.
    """
    from vcmcodec import codec, feature_codec, grouping, pixels

    started = time.perf_counter()
    found = feature_codec.as_features(source)
    picture = pixels.read(source, settings.limits) if found is None else None
    image: Any = picture or found
    size: Any = picture or image.geometry
    plan: grouping.GroupPlan | str | None = None
    if settings.groups == codec.AUTO:
        plan = codec.AUTO
    elif beside is not None:
        labels = dict(settings.labels) or None
        try:
            plan = grouping.read(beside, size.height, size.width, labels, settings.limits)
        except PictureError as error:
            raise PictureError(f"groups {beside}: {error}") from error
    asked = codec.EncodeOptions(
        tasks=settings.tasks,
        quality=settings.quality,
        base_quality=settings.base_quality,
        longer_side=settings.longer_side,
        effort=settings.effort,
        target_size=settings.target_size,
        target_bpp=settings.target_bpp,
        profile=settings.profile,
        model=settings.model,
        split=settings.split,
        vision=settings.vision,
        digest=settings.digest,
        text=dict(settings.text) or None,
    )
    encoded = codec.encode_any(
        image, asked, groups=plan, device=settings.device, limits=settings.limits
    )
    seconds = time.perf_counter() - started
    num_bytes = len(encoded.data)
    facts = {
        "width": size.width,
        "height": size.height,
        "bytes": num_bytes,
        "bpp": round(encoded.bpp, 5),
        "groups": max(1, len(encoded.header.groups)),
        "seconds": round(seconds, 4),
    }
    line = (
        f"{size.width} x {size.height}, {show.size(num_bytes)},"
        f" {encoded.bpp:.3f} bits a pixel, {seconds:.2f} s"
    )
    num_pixels = size.height * size.width
    return batch.Product(encoded.data, facts, line, num_pixels, encoded.warnings)


def _pairs(values: tuple[str, ...], option: str) -> tuple[tuple[str, str], ...]:
    pairs = []
    for value in values:
        key, sign, text = value.partition("=")
        if not sign or not key:
            raise click.BadParameter(f"{value!r} is not KEY=VALUE", param_hint=option)
        pairs.append((key.strip(), text.strip()))
    return tuple(pairs)


def _labels(names: tuple[str, ...]) -> tuple[tuple[int, str], ...]:
    pairs = _pairs(names, "--labels")
    if not all(key.isdecimal() for key, _ in pairs):
        raise click.BadParameter("ids are whole numbers: 1=person,2=car", param_hint="--labels")
    return tuple((int(key), text) for key, text in pairs)


def _exclusive(**given: Any) -> None:
    named = [f"--{name.replace('_', '-')}" for name, value in given.items() if value is not None]
    if len(named) > 1:
        raise click.UsageError(f"{' and '.join(named)} exclude each other")


def _check(settings: Settings) -> None:
    """Refuse what goes together for no picture, before a network is loaded.

    Encoding refuses it, too, but only then, and once for each picture.

    Raises:
        click.UsageError: options that do not go together.
    """
    from vcmcodec.encoding import AUTO, choose_tasks

    spec = catalogue.profile(settings.profile)
    try:
        tasks = {info.task for info in choose_tasks(spec, settings.tasks)}
    except RequestError as error:
        raise click.UsageError(str(error)) from error
    for_people = TaskId.HUMAN in tasks
    wrong = [
        (settings.labels and settings.groups in (None, AUTO),
         "--labels names the groups of a mask, which --groups gives"),
        (settings.text and not for_people,
         "--text is kept with the layers for people, and these files have none"),
    ]  # fmt: skip
    of_kind = _wrong_for_pictures if spec.source == "picture" else _wrong_for_features
    for is_so, why in (*wrong, *of_kind(settings, for_people)):
        if is_so:
            raise click.UsageError(why)
    _check_split(settings)


def _check_split(settings: Settings) -> None:
    """Refuse a split point that the model does not code, where its manifest lists them."""
    if settings.split is None:
        return
    try:
        model = pretrained.find(settings.profile, settings.model)
    except WeightsError:  # encoding says so, of every input
        return
    if model.splits and settings.split not in model.splits:
        listed = ", ".join(model.splits)
        message = f"{model.id} codes no split point {settings.split}; it codes {listed}"
        raise click.BadParameter(message, param_hint="--split")


def _wrong_for_pictures(settings: Settings, for_people: bool) -> list[tuple[Any, str]]:
    name, base = settings.profile, settings.base_quality or 0.0
    quality = USUAL_QUALITY if settings.quality is None else settings.quality
    target = settings.target_bpp or settings.target_size
    return [
        (settings.split, f"profile {name} codes pictures: it has no --split"),
        (settings.vision, f"profile {name} codes pictures: it needs no --vision"),
        (settings.effort and for_people,
         "--effort adapts files for machines alone: name their tasks with --task"),
        (for_people and not target and round(100 * base) > round(100 * quality),
         f"--base-quality {base:g} is above the picture's quality, {quality:g}"),
        (target and settings.base_quality is not None and not for_people,
         "--base-quality and a target cannot both hold for files of a base layer alone"),
        (settings.quality is not None and settings.base_quality is not None and not for_people,
         "files for machines alone have one quality: give --quality or --base-quality, not both"),
    ]  # fmt: skip


def _wrong_for_features(settings: Settings, for_people: bool) -> list[tuple[Any, str]]:
    name = settings.profile
    adapts = catalogue.profile(name).adapts
    return [
        (settings.effort and not adapts,
         f"profile {name} codes features as they are: it takes no --effort"),
        (settings.longer_side,
         "--longer-side is for pictures; features are taken at the network's own size"),
        (settings.quality is not None and settings.base_quality is not None,
         "features have one quality: --quality and --base-quality exclude each other"),
    ]  # fmt: skip


@click.command("encode", short_help="Write pictures as .vcm files.")
@options.inputs("PICTURE|FEATURES|DIR|-...")
@options.output("The .vcm file; for several pictures the folder they go to; - for a pipe.")
@click.option(
    "-t",
    "--task",
    "tasks",
    multiple=True,
    type=options.Names(options.TASK_NAMES),
    help="What the file is for.  [default: everything]",
)
@click.option(
    "-Q",
    "--quality",
    type=options.Finite(0, 100),
    help="Of the picture for people; where only machines will look, of all there is."
    "  [default: 60; of files for machines alone what the tasks need]",
)
@click.option(
    "--base-quality",
    type=options.Finite(0, 100),
    help="Of the base layer, which machines read; no more than that for people.  [default: what"
    " the tasks need]",
)
@click.option(
    "--longer-side",
    type=click.IntRange(0),
    metavar="PIXELS",
    help="Reduce larger pictures to this before they are coded; 0: never.  [default: what the tasks"
    " need, where people will not look]",
)
@click.option(
    "--effort",
    type=click.IntRange(0, 1000),
    metavar="LOOKS",
    help="How often the vision network looks while the base layer, a pyramid or a semantic feature"
    " is adapted to it, where people will not look; 0: never, and fast.  Groups are adapted"
    " together, no longer independent.  [default: the tasks model's; of features and of several"
    " groups 0]",
)
@click.option(
    "--target-bpp",
    type=options.Finite(0, min_open=True),
    help="Search the quality for this many bits a pixel, the whole file counted.",
)
@click.option(
    "--target-size",
    type=options.Size(),
    help="Search the quality for a file of at most this size: 20000, 20k, 1.5M.",
)
@click.option(
    "-g",
    "--groups",
    metavar="MASK.png|BOXES.json|DIR|auto",
    help="Code parts of the picture independently of each other: a mask whose pixel values are"
    " group ids, a list of boxes, or a folder with one of them for each picture; auto: the objects"
    " that the vision network finds.  For photos/a/1.png that folder has a/1.json or a/1.png, or"
    " else 1.json or 1.png where no other picture is called 1.",
)
@click.option(
    "--labels",
    type=options.CommaList(),
    default=(),
    metavar="ID=NAME,...",
    help="Labels for the ids of the mask that --groups gives: 1=person,2=car.",
)
@click.option(
    "--profile",
    type=click.Choice([spec.name for spec in catalogue.PROFILES]),
    default=catalogue.PROFILES[0].name,
    show_default=True,
    help="What is coded: scene, the picture; the others, what a vision network makes of it, for"
    " machines alone.",
)
@click.option(
    "--split",
    metavar="NAME",
    help="Where the network is cut, for profiles of features.  [default: the model's first]",
)
@click.option("--model", metavar="ID", help="One of `vcm models`.  [default: the profile's]")
@options.vision
@click.option(
    "--digest", is_flag=True, help="Store a digest of all symbols, which decoding then checks."
)
@click.option(
    "--text",
    multiple=True,
    metavar="KEY=VALUE",
    help="Store a note with what people look at; give it several times.",
)
@options.recursive
@options.keep_extension
@options.existing
@options.parallel
@options.limits("max_pixels")
@options.as_json
@options.loudness
def command(
    inputs: tuple[str, ...],
    output: str,
    *,
    tasks: tuple[tuple[str, ...], ...],
    labels: tuple[str, ...],
    text: tuple[str, ...],
    max_pixels: int,
    recursive: bool,
    keep_extension: bool,
    **given: Any,
) -> int:
    r"""Write pictures, or features of them (`vcm features`), as .vcm files.

    One PICTURE goes to the file -o names; folders and several pictures go to a folder, one
    NAME.vcm each (NAME.jpg.vcm with --keep-extension).

    \b
      vcm encode street.png -o street.vcm
      vcm encode street.png -o street.vcm --task detection --groups boxes.json
      vcm encode photos/ more.jpg -o out/ --quality 60 --jobs 2
      vcm encode street.png -o street.vcm --profile pyramid --task detection
    """
    _exclusive(**{key: given[key] for key in ("quality", "target_bpp", "target_size")})
    settings = Settings(
        tasks=options.flat(tasks),
        labels=_labels(labels),
        text=_pairs(text, "--text"),
        limits=Limits(max_pixels=max_pixels),
        **{name: given[name] for name in Settings.__dataclass_fields__ if name in given},
    )
    _check(settings)
    style = options.style("encoded", output, given)
    from vcmcodec import pixels
    from vcmcodec.encoding import AUTO

    extensions = set(pixels.READ_EXTENSIONS)
    if catalogue.profile(settings.profile).source == "features":
        extensions |= {options.FEATURES}
    found = files.gather(inputs, extensions, recursive)
    reads = options.network_files(settings.vision)
    jobs = files.plan(found, inputs, output, ".vcm", reads, keep_extension)
    where = None if settings.groups == AUTO else settings.groups
    jobs = groups.attach(jobs, where)
    if settings.labels:
        groups.refuse_labels(jobs)
    files.refuse_inputs([job.target for job in jobs], groups.sources(jobs, where))
    return batch.run(functools.partial(encode_one, settings), jobs, style)
