"""A group of commands that are named in a table and imported only when one of them is run."""

from __future__ import annotations

import importlib
from collections.abc import Sequence
from typing import Any

import click

# name, module in this package (which has a click command called `command`), one line for --help
Row = tuple[str, str, str]


class CommandTable(click.Group):
    """A group whose `--help` costs no import of its commands.

    Args:
        table: one row a command, in the order of `--help`.
    """

    def __init__(self, *args: Any, table: Sequence[Row], **settings: Any) -> None:
        super().__init__(*args, **settings)
        self.table = tuple(table)

    def list_commands(self, ctx: click.Context) -> list[str]:
        """Names in the order of the table."""
        return [name for name, _, _ in self.table]

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        """Import the one command that is asked for."""
        for name, module, _ in self.table:
            if name == cmd_name:
                found = importlib.import_module(f"vcmcodec.cli.{module}").command
                assert isinstance(found, click.Command)
                _keep_examples(found)
                return found
        return None

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """Write the table's own short help, where click would import every command."""
        with formatter.section("Commands"):
            formatter.write_dl([(name, text) for name, _, text in self.table])


def _keep_examples(command: click.Command) -> None:
    """Let click see the mark of paragraphs whose lines stay as they are.

    It is a backspace; our docstrings are raw, as linters want them, and hold two characters.
    """
    if command.help:
        command.help = command.help.replace("\\b\n", "\b\n")
    if isinstance(command, click.Group):
        for below in command.commands.values():
            _keep_examples(below)
