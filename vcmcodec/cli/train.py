"""`vcm train`: teach the networks again, from pictures."""

from __future__ import annotations

import importlib

import click

# name, module in this package (which has a click command called `command`), one line for --help
TRAININGS = (
    ("scene", "train_scene", "The picture codec."),
    ("vision", "train_vision", "The vision network."),
)


class TrainingTable(click.Group):
    """A group whose commands are imported only when one of them is run."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        """Names in the order of the table."""
        return [name for name, _, _ in TRAININGS]

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        """Import the one command that is asked for."""
        for name, module, _ in TRAININGS:
            if name == cmd_name:
                found = importlib.import_module(f"vcmcodec.cli.{module}").command
                assert isinstance(found, click.Command)
                return found
        return None

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """Write the table's own short help."""
        with formatter.section("Commands"):
            formatter.write_dl([(name, text) for name, _, text in TRAININGS])


@click.group("train", cls=TrainingTable, short_help="Teach the networks again, from pictures.")
def command() -> None:
    """Teach the networks again, from pictures: resumable to the step, watched, and logged."""
