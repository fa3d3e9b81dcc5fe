"""What a training shows: a bar on a terminal, else a line now and then; standard error only."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from vcmcodec.cli import show

LINE_EVERY = 500  # steps between lines off a terminal


@contextmanager
def training_view(steps: int, quiet: bool) -> Iterator[Callable[[dict[str, float]], None]]:
    """Give a callback for the lines of a run's log (`training.loop.Log`)."""
    if quiet:
        yield lambda line: None
    elif not sys.stderr.isatty():
        yield _print_some
    else:
        from rich.progress import (
            BarColumn,
            MofNCompleteColumn,
            Progress,
            TextColumn,
            TimeRemainingColumn,
        )

        columns = (
            BarColumn(),
            MofNCompleteColumn(),
            TimeRemainingColumn(),
            TextColumn("{task.fields[facts]}"),
        )
        console = show.console(stderr=True)
        with Progress(*columns, console=console, redirect_stdout=False) as bar:
            task = bar.add_task("training", total=steps, facts="")

            def advance(line: dict[str, float]) -> None:
                if _is_evaluation(line):
                    bar.console.print(_text(line))
                else:
                    bar.update(task, completed=line["step"], facts=_text(line))

            yield advance


def _is_evaluation(line: dict[str, float]) -> bool:
    return "loss" not in line and "total" not in line


def _print_some(line: dict[str, float]) -> None:
    if _is_evaluation(line) or line["step"] % LINE_EVERY == 0:
        show.say(f"step {line['step']}: {_text(line)}")


def _text(line: dict[str, float]) -> str:
    return "  ".join(
        f"{name} {value:.4g}" for name, value in line.items() if name not in ("step", "share")
    )
