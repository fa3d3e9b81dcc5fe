"""`vcm verify`: is every byte of a file as it was written?"""

from __future__ import annotations

import dataclasses
from typing import Any

import click

from vcmcodec import edit
from vcmcodec.cli import batch, files, options, show
from vcmcodec.errors import TruncatedError


@click.command("verify", short_help="Check that files are whole and undamaged.")
@options.inputs("FILE|DIR|-...")
@click.option(
    "--deep", is_flag=True, help="Decode all symbols as well; this needs the model and its time."
)
@options.recursive
@options.limits(*options.FILE_LIMITS)
@options.as_json
@options.loudness
def command(inputs: tuple[str, ...], *, deep: bool, recursive: bool, **given: Any) -> int:
    """Check that files are whole and undamaged.

    Header, directory, the checksum of every substream, and the group map against the group table;
    no model is needed, unless --deep is given.  The exit code is 1 where anything is wrong.
    """
    limits = options.limits_of(given)
    style = batch.Style(
        "verified", json=given["as_json"], quiet=given["quiet"], verbose=given["verbose"]
    )

    def look(source: str | bytes) -> edit.Report:
        if not deep:
            return edit.verify(source, limits=limits)
        from vcmcodec.deep import decode_symbols

        return edit.verify(source, deep=True, decode_symbols=decode_symbols, limits=limits)

    def tell(name: str, report: edit.Report) -> bool:
        if not style.json and not style.quiet:
            _print(name, report, style.verbose)
        if not report.ok:
            batch.fail(name, _failure(report), style, dataclasses.asdict(report))
        elif style.json:
            show.json_line({"source": name} | dataclasses.asdict(report))
        return report.ok

    return batch.inspect(look, tell, files.gather(inputs, {".vcm"}, recursive), style)


def _failure(report: edit.Report) -> batch.Failure:
    """How much is damaged, with the code of the first finding."""
    codes = [finding.code for finding in report.findings if finding.problem is not None]
    message = f"damaged: {len(codes)} of {show.counted(len(report.findings), 'substream')}"
    return batch.Failure(codes[0] if codes else TruncatedError.code, message)


def _print(name: str, report: edit.Report, verbose: bool) -> None:
    state = "ok" if report.ok else "damaged"
    parts = f"{show.counted(len(report.findings), 'substream')}, {show.size(report.num_bytes)}"
    click.echo(f"{show.printable(name)}: {state} ({parts})")
    for warning in report.warnings:
        click.echo(f"  {show.printable(warning)}")
    for finding in report.findings:
        if finding.problem is not None or verbose:
            where = f"{finding.layer} {finding.kind}, group {finding.group}, tile {finding.tile}"
            click.echo(f"  {where}: {show.printable(finding.problem or 'ok')}")
