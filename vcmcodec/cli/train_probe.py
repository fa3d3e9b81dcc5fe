"""`vcm train probe`: what the parts of semantic runs are worth; their ablations in one table."""

from __future__ import annotations

import dataclasses
import math
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from vcmcodec.cli import options, show

if TYPE_CHECKING:
    from vcmcodec.training.semantic_probe import Findings


@click.command("probe", short_help="Linear probes of semantic runs: their ablations.")
@click.argument(
    "runs",
    metavar="RUN...",
    nargs=-1,
    required=True,
    type=click.Path(exists=True, file_okay=False, path_type=Path),
)
@click.option(
    "--labels",
    required=True,
    type=click.Path(exists=True, dir_okay=False, path_type=Path),
    help="A COCO label file of training pictures: probes are fitted on them.",
)
@click.option(
    "--evaluate",
    required=True,
    type=click.Path(exists=True, dir_okay=False, path_type=Path),
    help="The same of other pictures: probes are tried on them.",
)
@click.option("--limit", type=click.IntRange(1), help="Only so many pictures of each set.")
@click.option("--threads", type=click.IntRange(1), default=1, show_default=True)
@options.json_lines("run")
@click.option("-q", "--quiet", is_flag=True, help="No progress.")
def command(
    runs: tuple[Path, ...], *, labels: Path, evaluate: Path, limit: int | None, threads: int,
    as_json: bool, quiet: bool,
) -> int:  # fmt: skip
    r"""What the parts of semantic runs are worth.

    For every run: average precision of presence by a linear probe on a random start, on the
    self-supervised feature, and on what comes out of the codec at several rates, with estimated
    bits a pixel and errors.  Runs that differ in one option are an ablation of it:

    \b
      vcm train semantic --stage features --data photos/ --run runs/whole
      vcm train semantic --stage features --data photos/ --run runs/open --no-filter
      vcm train semantic --stage codec ... --interactions plain | --one-pass
      vcm train probe runs/whole runs/open --labels train.json --evaluate val.json
    """
    import torch

    from vcmcodec.training import semantic_probe

    torch.set_num_threads(threads)
    sets = semantic_probe.read_sets(labels, evaluate, None, limit)
    say = (lambda line: None) if quiet else show.say
    found = [semantic_probe.run(run, sets, say=say) for run in runs]
    if as_json:
        for one in found:
            show.json_line(_finite(dataclasses.asdict(one)))
    else:
        _print(found)
    return 0


def _finite(value: Any) -> Any:
    """The same with null for what was not measured."""
    if isinstance(value, dict):
        return {key: _finite(one) for key, one in value.items()}
    if isinstance(value, list | tuple):
        return [_finite(one) for one in value]
    return None if isinstance(value, float) and math.isnan(value) else value


def _print(found: list[Findings]) -> None:
    from rich.table import Table

    table = Table(box=None, pad_edge=False)
    for title in ("run", "feature", "presence AP", "bpp", "errors c3 c4 c5"):
        table.add_column(title)
    for one in found:
        for probe in one.probes:
            errors = " ".join(f"{value:.3f}" for value in probe.errors.values())
            bpp = "" if math.isnan(probe.bpp) else f"{probe.bpp:.4f}"
            table.add_row(one.run, probe.name, f"{probe.presence:.1f}", bpp, errors)
    show.rich_print(table)
    for one in found:
        settings = ", ".join(f"{name} {value}" for name, value in one.options.items())
        show.rich_print(
            f"{one.run}: {settings}; filter passes {one.kept:.3f} of the energy, shuts"
            f" {one.closed:.3f} of the gates, {one.price:.3f} bits a value; codec"
            f" {one.macs[0]:.2f} + {one.macs[1]:.2f} kMAC a pixel"
        )
