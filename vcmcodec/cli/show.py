"""What the user sees: lines, colours, progress, JSON.

Results go to standard output; warnings, progress and summaries to standard error.  rich is loaded
only where a terminal shows something that needs it.
"""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, Protocol

import click

if TYPE_CHECKING:
    from rich.console import Console, RenderableType


def printable(text: str) -> str:
    """`text` on one line and without control characters, which names of files may hold."""
    return "".join(
        character
        if character.isprintable()
        else character.encode("unicode_escape", "surrogateescape").decode(
            "ascii", "backslashreplace"
        )
        for character in text
    )


def complain(message: str, name: str | None = None, colour: str = "red") -> None:
    """Write one line to standard error, led by the name of the input it is about."""
    lead = "vcm: " + (f"{name}: " if name else "")
    styled = click.style(printable(lead), fg=colour, bold=True) + printable(message)
    click.echo(styled, err=True, color=_colour_wanted())


def say(message: str) -> None:
    """Write one line of news to standard error."""
    click.echo(printable(message), err=True)


def trace(text: str) -> None:
    """Write a traceback, which has several lines, to standard error."""
    click.echo(text, err=True)


def json_line(facts: dict[str, Any]) -> None:
    """Write one JSON object on one line of standard output."""
    click.echo(json.dumps(facts, ensure_ascii=True, allow_nan=False, default=_plain))


def rich_print(renderable: RenderableType) -> None:
    """Write something of rich's to standard output, in colour only on a terminal."""
    console().print(renderable)


def console(stderr: bool = False) -> Console:
    """A rich console on one of the two standard streams; it obeys NO_COLOR by itself."""
    from rich import console as rich_console

    class Console(rich_console.Console):
        def on_broken_pipe(self) -> None:
            raise BrokenPipeError  # rich would end the program by itself, with another exit code

    stream = sys.stderr if stderr else sys.stdout
    # Off a terminal rich assumes 80 columns and would fold long names and paths.
    return Console(stderr=stderr, width=None if stream.isatty() else 1000, highlight=False)


class Progress(Protocol):
    """What a batch tells of its advance."""

    def advance(self) -> None:
        """One more input is done."""


class _Silent:
    def advance(self) -> None:
        pass


class _Bar:
    def __init__(self, bar: Any, task: Any) -> None:
        self._bar, self._task = bar, task

    def advance(self) -> None:
        self._bar.advance(self._task)


@contextmanager
def progress(total: int, what: str, quiet: bool) -> Iterator[Progress]:
    """Show a bar on standard error where that is a terminal and there is more than one input."""
    if quiet or total < 2 or not sys.stderr.isatty():
        yield _Silent()
        return
    from rich.progress import BarColumn, MofNCompleteColumn, TextColumn, TimeRemainingColumn
    from rich.progress import Progress as RichProgress

    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeRemainingColumn(),
    )
    # Standard output is for results: rich would otherwise send it through its own stream.
    with RichProgress(*columns, console=console(stderr=True), redirect_stdout=False) as bar:
        yield _Bar(bar, bar.add_task(what, total=total))


def size(num_bytes: int) -> str:
    """A size in bytes, with thousands separated."""
    return counted(num_bytes, "byte")


def counted(number: int, thing: str) -> str:
    """How many of something there are, in one word or the other."""
    return f"{number:,} {thing}" if number == 1 else f"{number:,} {thing}s"


def share(part: int, whole: int) -> str:
    """A part in percent of the whole."""
    return f"{100 * part / whole:.1f} %" if whole else "-"


def _colour_wanted() -> bool | None:
    return False if os.environ.get("NO_COLOR") else None


def _plain(value: Any) -> Any:
    """JSON for what is not JSON by itself: bytes as hexadecimal, paths and the rest as text."""
    return value.hex() if isinstance(value, bytes) else str(value)
