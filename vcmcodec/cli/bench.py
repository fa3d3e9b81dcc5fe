"""`vcm bench`: how small, how near, how fast, beside other codecs in the same run."""

from __future__ import annotations

import math
import re
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from vcmcodec.cli import (
    bench_bottleneck,
    bench_machine,
    bench_pyramid,
    bench_tasks,
    bench_vision,
    files,
    options,
    show,
)

if TYPE_CHECKING:
    from vcmcodec.evaluation.rate_distortion import RateDistortion
    from vcmcodec.evaluation.report import Table
    from vcmcodec.evaluation.rivals import Rival
    from vcmcodec.evaluation.subject import Subject

_FOLDER = click.Path(exists=True, file_okay=False, path_type=Path)
LINE_EVERY = 30.0  # seconds between lines of one stage off a terminal


def _shared(command: Callable[..., Any]) -> Callable[..., Any]:
    """Options of every measurement."""
    command = click.option("-q", "--quiet", is_flag=True, help="No progress.")(command)
    command = click.option(
        "--model", metavar="ID", help="Name of our model.  [default: the profile's]"
    )(command)
    command = click.option(
        "--threads", type=click.IntRange(1), default=2, show_default=True, help="Threads of torch."
    )(command)
    return options.figures_as_json(command)


@click.group("bench", short_help="Measure rate, distortion, speed and memory.")
def command() -> None:
    """Measure rate, distortion, speed and memory beside other codecs, both sides in one run."""


command.add_command(bench_vision.command)
command.add_command(bench_tasks.command)
command.add_command(bench_pyramid.command)
command.add_command(bench_bottleneck.command)
command.add_command(bench_machine.analyze_command)
command.add_command(bench_machine.objects_command)


@command.command("rd", short_help="Size and nearness to the original.")
@click.argument("folder", metavar="DIR", type=_FOLDER)
@click.option("--limit", type=click.IntRange(1), help="Only so many pictures, in order of name.")
@click.option("--quality", type=options.Numbers(), help="Our ladder of qualities, 0 to 100.")
@click.option(
    "--rivals",
    type=options.CommaList(),
    default="jpeg,webp,avif",
    show_default=True,
    help="Codecs to compare with, or none.",
)
@click.option(
    "--tasks",
    type=options.CommaList(),
    default="human",
    show_default=True,
    help="Tasks that our files are written for, or all.",
)
@click.option(
    "--published",
    type=click.Path(exists=True, path_type=Path),
    multiple=True,
    help="Published curves to set beside: a CompressAI result file, or a folder of them.",
)
@click.option("--structure", is_flag=True, help="Also measure what layers and groups cost.")
@click.option("--groups", type=_FOLDER, help="Group maps for --structure, NAME.png a picture.")
@click.option(
    "--plot", type=options.Result(".png", ".svg"), help="Write the curves as .png or .svg."
)
@click.option(
    "--html", type=options.Result(), help="Write a page with curves, figures and pictures."
)
@click.option(
    "--html-pictures",
    type=click.IntRange(0),
    default=3,
    show_default=True,
    help="Pictures on the page.",
)
@click.option("--no-cache", is_flag=True, help="Measure the rivals again.")
@_shared
def rate_distortion_command(
    *,
    folder: Path,
    plot: Path | None,
    html: Path | None,
    html_pictures: int,
    json_target: str | None,
    quiet: bool,
    **asked: Any,
) -> None:
    """Rate and distortion on the pictures of DIR: whole files, real bytes, BD-rate.

    PSNR is the mean over pictures of each picture's RGB PSNR.  BD-rate is of the averaged curves,
    over the interval that both cover.  Results of rivals are kept in the user's cache.
    """
    from vcmcodec.evaluation import report

    with telling(quiet) as progress:
        subject, rivals = _sides(asked)
        result, structure = _measure(folder, subject, rivals, asked, progress)
        if plot is not None:
            _plot(result, subject, plot)
        if html is not None:
            _page(result, subject, rivals, (folder, html, html_pictures), progress)
    tables = list(report.rate_distortion_tables(result))
    facts: dict[str, Any] = {"rate_distortion": result}
    if structure is not None:
        from vcmcodec.evaluation.structure import tables as structure_tables

        tables += structure_tables(structure)
        facts["structure"] = structure
    finish(facts, tables, json_target)


@command.command("speed", short_help="Time, and multiplications a pixel.")
@click.argument("picture", required=False, type=click.Path(exists=True, path_type=Path))
@click.option("--repeats", type=click.IntRange(1), default=7, show_default=True,
              help="Timed rounds.")  # fmt: skip
@click.option("--quality", type=options.Finite(0, 100), default=50.0, show_default=True,
              help="Of the full file, 0 to 100.")  # fmt: skip
@_shared
def speed_command(
    *,
    picture: Path | None,
    repeats: int,
    quality: float,
    threads: int,
    model: str | None,
    json_target: str | None,
    quiet: bool,
) -> None:
    """Time of encoding and decoding, with peers in turns, and multiplications a pixel.

    PICTURE defaults to a photograph of 768x512; of a folder, its first picture is taken.
    """
    from vcmcodec.evaluation import corpora, speed

    named = corpora.picture_or_photo(picture, 768, 512)
    with telling(quiet) as progress:
        result = speed.run(
            named,
            threads=threads,
            repeats=repeats,
            quality=quality,
            model=model,
            progress=progress,
        )
    finish({"speed": result}, speed.tables(result), json_target)


@command.command("scale", short_help="Time and memory over the size of a picture.")
@click.option("--megapixels", type=options.Numbers(), default="0.4,2,12,100", show_default=True,
              help="Sizes of the pictures.")  # fmt: skip
@click.option("--quality", type=options.Finite(0, 100), default=50.0, show_default=True,
              help="Of the file, 0 to 100.")  # fmt: skip
@_shared
def scale_command(
    *,
    megapixels: tuple[float, ...],
    quality: float,
    threads: int,
    model: str | None,
    json_target: str | None,
    quiet: bool,
) -> None:
    """Time and peak memory over the size of a picture, each in a fresh process."""
    from vcmcodec.evaluation import scale

    with telling(quiet) as progress:
        result = scale.run(
            megapixels, threads=threads, quality=quality, model=model, progress=progress
        )
    finish({"scale": result}, (scale.table(result),), json_target)


@command.command("oddities", short_help="Pictures unlike any photograph.")
@click.option("--quality", type=options.Finite(0, 100), default=60.0, show_default=True,
              help="Of the files, 0 to 100.")  # fmt: skip
@_shared
def oddities_command(
    *, quality: float, threads: int, model: str | None, json_target: str | None, quiet: bool
) -> None:
    """Pictures unlike any photograph: noise, text, stripes, one pixel; WebP beside."""
    from vcmcodec.evaluation import oddities
    from vcmcodec.evaluation.subject import Subject
    from vcmcodec.evaluation.timing import torch_threads

    with telling(quiet) as progress, torch_threads(threads):
        result = oddities.run(
            quality=quality, threads=threads, subject=Subject(model=model), progress=progress
        )
    finish({"oddities": result}, (oddities.table(result),), json_target)


def _sides(asked: dict[str, Any]) -> tuple[Subject, tuple[Rival, ...]]:
    """Return ours and the rivals as the options name them."""
    from vcmcodec.evaluation.rivals import choose
    from vcmcodec.evaluation.subject import Subject

    tasks = None if asked["tasks"] == ("all",) else asked["tasks"]
    names = () if asked["rivals"] == ("none",) else asked["rivals"]
    return Subject(tasks=tasks, model=asked["model"]), choose(names)


def _measure(
    folder: Path,
    subject: Subject,
    rivals: tuple[Rival, ...],
    asked: dict[str, Any],
    progress: Callable[[str], None],
) -> tuple[RateDistortion, Any]:
    """Run the comparison and, where it is asked for, the cost of structure."""
    from vcmcodec.evaluation import published, rate_distortion, structure
    from vcmcodec.evaluation.rival_cache import RivalCache, default_path
    from vcmcodec.evaluation.subject import LADDER
    from vcmcodec.evaluation.timing import torch_threads

    shared = {
        "qualities": asked["quality"] or LADDER,
        "limit": asked["limit"],
        "threads": asked["threads"],
        "progress": progress,
    }
    with torch_threads(asked["threads"]):
        result = rate_distortion.run(
            folder,
            subject=subject,
            rivals=rivals,
            published=[c for path in asked["published"] for c in published.read_curves(path)],
            cache=RivalCache(None if asked["no_cache"] else default_path()),
            **shared,
        )
        if not asked["structure"]:
            return result, None
        return result, structure.run(folder, maps=asked["groups"], model=asked["model"], **shared)


def _plot(result: RateDistortion, subject: Subject, target: Path) -> None:
    from vcmcodec.evaluation import charts

    title = f"{len(result.pictures)} pictures, whole files, means over pictures"
    charts.save_chart(charts.draw_curves(result.curves, subject=subject.title, title=title), target)


def _page(
    result: RateDistortion,
    subject: Subject,
    rivals: tuple[Rival, ...],
    where: tuple[Path, Path, int],
    progress: Callable[[str], None],
) -> None:
    from vcmcodec.evaluation import gallery, page

    folder, target, limit = where
    exhibits = gallery.collect(
        folder, result.measurements, subject, rivals, limit=limit, progress=progress
    )
    text = page.html_page(result, exhibits, subject.title)
    files.write_whole(target, text.encode("utf-8"))


@contextmanager
def telling(quiet: bool) -> Iterator[Callable[[str], None]]:
    """Show on standard error what is being measured: a status on a terminal, else plain lines."""
    console = show.console(stderr=True)
    if quiet:
        yield lambda line: None
    elif not console.is_terminal:
        yield _stage_lines()
    else:
        with console.status("starting") as status:
            yield lambda line: status.update(show.printable(line))


def _stage_lines() -> Callable[[str], None]:
    """Write every stage as a line; lines that differ in numbers alone are one, told now and then.

    So the log of a run over thousands of pictures stays short, and still tells how far it is.
    """
    told: dict[str, float] = {}

    def tell(line: str) -> None:
        stage, now = re.sub(r"\d+", "", line), time.monotonic()
        if now - told.get(stage, -math.inf) >= LINE_EVERY:
            told[stage] = now
            show.say(line)

    return tell


def finish(facts: dict[str, Any], tables: Any, json_target: str | None) -> None:
    """Print the tables and write the JSON."""
    from vcmcodec.evaluation.report import to_json

    if json_target == files.STANDARD:
        click.echo(to_json(facts), nl=False)
        return
    if json_target is not None:
        files.write_whole(Path(json_target), to_json(facts).encode("utf-8"))
    for table in tables:
        _print_table(table)


def _print_table(table: Table) -> None:
    from rich import table as rich_table
    from rich.text import Text

    shown = rich_table.Table(title=table.title, title_justify="left", pad_edge=False)
    for i, name in enumerate(table.columns):
        shown.add_column(name, justify="left" if i == 0 else "right", overflow="fold")
    for row in table.rows:
        # Text, since names of files may hold what rich takes for markup.
        shown.add_row(*(Text(cell) for cell in row))
    show.rich_print(shown)
    for note in table.notes:
        show.rich_print(Text(note, style="dim"))
    click.echo()
