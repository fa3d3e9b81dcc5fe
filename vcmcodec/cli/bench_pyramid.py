"""`vcm bench pyramid`: what fusing the levels of a pyramid saves, from trained runs."""

from __future__ import annotations

from pathlib import Path

import click

from vcmcodec.cli import options

_RUN = click.Path(exists=True, file_okay=False, path_type=Path)


@click.command("pyramid", short_help="What fusing a pyramid's levels saves.")
@click.argument("fused", metavar="RUN", type=_RUN)
@click.option("--joined", type=_RUN, help="A run with `vcm train pyramid --joined`.")
@click.option(
    "--alone",
    multiple=True,
    type=_RUN,
    help="Runs with one coded level each: `vcm train pyramid --levels p3`, and so on.",
)
@options.figures_as_json
def command(
    fused: Path, *, joined: Path | None, alone: tuple[Path, ...], json_target: str | None
) -> None:
    r"""What fusing a pyramid's levels saves, from the evaluations that trained runs logged.

    RUN codes all levels in one latent.  All runs must have been trained alike and evaluated on the
    same pictures.

    \b
      vcm train pyramid --data photos/ --evaluate kodak/ --run runs/fused
      vcm train pyramid --data photos/ --evaluate kodak/ --run runs/joined --joined
      vcm train pyramid --data photos/ --evaluate kodak/ --run runs/p3 --levels p3
      vcm bench pyramid runs/fused --joined runs/joined --alone runs/p3 --alone runs/p4 ...
    """
    from vcmcodec.cli import bench
    from vcmcodec.evaluation import pyramid_runs

    result = pyramid_runs.compare(fused, joined, alone)
    bench.finish({"pyramid": result}, pyramid_runs.tables(result), json_target)
