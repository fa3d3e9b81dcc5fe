"""`vcm bench bottleneck`: rates of split points, what the edge pays, and how symbols are coded."""

from __future__ import annotations

from pathlib import Path

import click

from vcmcodec.cli import options


@click.command("bottleneck", short_help="Rates of split points, and what the edge pays.")
@click.argument("pictures", required=False, type=click.Path(exists=True, path_type=Path))
@click.option("--limit", type=click.IntRange(1), help="Only so many pictures, in order of name.")
@click.option("--splits", type=options.CommaList(), help="Split points.  [default: the model's]")
@click.option("--quality", type=options.Numbers(), help="Rates, 0 to 100.")
@click.option(
    "--tasks",
    type=options.CommaList(),
    default="detection,segmentation,classification",
    show_default=True,
    help="Tasks that the files are written for.",
)
@click.option("--model", metavar="ID", help="Bottleneck model.  [default: the installed one]")
@click.option("--threads", type=click.IntRange(1), default=1, show_default=True,
              help="Threads of torch.")  # fmt: skip
@click.option("--repeats", type=click.IntRange(1), default=5, show_default=True,
              help="Timed rounds.")  # fmt: skip
@click.option("-q", "--quiet", is_flag=True, help="No progress.")
@options.figures_as_json
def command(
    pictures: Path | None,
    *,
    limit: int | None,
    splits: tuple[str, ...] | None,
    quality: tuple[float, ...] | None,
    tasks: tuple[str, ...],
    model: str | None,
    threads: int,
    repeats: int,
    quiet: bool,
    json_target: str | None,
) -> None:
    """Rates of split points on PICTURES, a folder or one picture, beside what the edge pays.

    Also how the symbols are coded, against one table for all channels and a Huffman code.  PICTURES
    defaults to a photograph of 500x375.
    """
    from vcmcodec.cli import bench
    from vcmcodec.evaluation import bottleneck_bench, corpora

    if pictures is None:
        named = [corpora.photo(500, 375)]
    elif pictures.is_dir():
        named = [corpora.read_picture(path) for path in corpora.list_pictures(pictures, limit)]
    else:
        named = [corpora.read_picture(pictures)]
    with bench.telling(quiet) as progress:
        result = bottleneck_bench.run(
            named,
            splits=splits,
            qualities=quality or bottleneck_bench.LADDER,
            tasks=tasks,
            model=model,
            threads=threads,
            repeats=repeats,
            progress=progress,
        )
    bench.finish({"bottleneck": result}, bottleneck_bench.tables(result), json_target)
