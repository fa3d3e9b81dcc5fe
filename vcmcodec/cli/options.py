"""Options that several commands share, as decorators, and the values they take."""

from __future__ import annotations

import functools
import math
import os
import re
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, TypeVar

import click

from vcmcodec import catalogue
from vcmcodec.bitstream.constants import WIDTHS, LayerId
from vcmcodec.bitstream.limits import Limits
from vcmcodec.cli import batch, files

Command = TypeVar("Command", bound=Callable[..., Any])

TASK_NAMES = [spec.name for spec in catalogue.TASKS]
MACHINE_TASK_NAMES = [spec.name for spec in catalogue.TASKS if spec.layer == LayerId.BASE]
FEATURES = ".safetensors"  # extension of feature files


class CommaList(click.ParamType[tuple[str, ...]]):
    """Several values in one option, separated by commas."""

    name = "list"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        """Split, and leave out what is empty."""
        if isinstance(value, tuple):
            return value
        parts = tuple(part.strip() for part in str(value).split(",") if part.strip())
        if not parts:
            self.fail("nothing is named", param, ctx)
        return parts


class Numbers(CommaList):
    """Numbers in one option, separated by commas."""

    name = "numbers"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        """Split, and read each."""
        try:
            return tuple(float(part) for part in super().convert(value, param, ctx))
        except ValueError:
            self.fail(f"{value!r}: numbers separated by commas are expected", param, ctx)


class Names(CommaList):
    """Several of some known names in one option, separated by commas.

    Args:
        choices: the names.
        together: names that stand for several of them.
    """

    def __init__(
        self, choices: Sequence[str], together: Mapping[str, tuple[str, ...]] | None = None
    ) -> None:
        self.choices, self.together = tuple(choices), dict(together or {})

    def convert(
        self, value: Any, param: click.Parameter | None, ctx: click.Context | None
    ) -> tuple[str, ...]:
        """Split, resolve, and refuse what is not known."""
        names: list[str] = []
        for part in super().convert(value, param, ctx):
            found = self.together.get(part.lower(), (part.lower(),))
            if not set(found) <= set(self.choices):
                known = ", ".join((*self.choices, *self.together))
                self.fail(f"{part!r} is not one of {known}", param, ctx)
            names.extend(found)
        return tuple(dict.fromkeys(names))

    def get_metavar(self, param: click.Parameter, ctx: click.Context) -> str:
        """What `--help` shows behind the option."""
        return "|".join((*self.choices, *self.together)) + ",..."


class Finite(click.FloatRange):
    """A number in a range, but neither NaN nor infinity, which click lets pass."""

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        """Read a number."""
        found = super().convert(value, param, ctx)
        if not math.isfinite(found):
            self.fail(f"{value} is no number that can be counted with", param, ctx)
        return found


class Result(click.Path):
    """A file that will be written at the end of something long, so it is checked at its start.

    Args:
        extensions: that it may have; none: any.
    """

    def __init__(self, *extensions: str) -> None:
        super().__init__(dir_okay=False, path_type=Path)
        self.extensions = extensions

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        """Check extension and folder."""
        path = Path(os.fsdecode(super().convert(value, param, ctx)))
        if self.extensions and path.suffix.lower() not in self.extensions:
            self.fail(f"{value!r} does not end in {' or '.join(self.extensions)}", param, ctx)
        folder = path.absolute().parent
        while not folder.exists():
            folder = folder.parent
        if not folder.is_dir() or not os.access(folder, os.W_OK):
            self.fail(f"{value!r} cannot be written: {folder} is no folder to write to", param, ctx)
        return path


class Size(click.ParamType[int]):
    """A number of bytes: 20000, 20k, 1.5M (powers of 1000) or 20Ki, 1Mi (of 1024)."""

    name = "size"
    _UNITS = {"": 1, "k": 1000, "m": 1000**2, "ki": 1024, "mi": 1024**2}  # noqa: RUF012

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> int:
        """Read number and unit."""
        if isinstance(value, int):
            return value
        match = re.fullmatch(r"(\d+(?:\.\d+)?)\s*(k|m|ki|mi|)b?", str(value).lower())
        if match is None:
            self.fail(f"{value!r} is not a size such as 20000, 20k or 1.5M", param, ctx)
        return int(float(match[1]) * self._UNITS[match[2]])


class Width(click.ParamType[float]):
    """A width of the decoder, however the number is written."""

    name = "width"

    def convert(
        self, value: Any, param: click.Parameter | None, ctx: click.Context | None
    ) -> float:
        """Read the number, and refuse what is none of the widths."""
        try:
            number = float(value)
        except ValueError:
            number = -1.0
        if number not in WIDTHS.values():
            self.fail(f"{value!r} is not one of {self._listed(', ')}", param, ctx)
        return number

    def get_metavar(self, param: click.Parameter, ctx: click.Context) -> str:
        """What `--help` shows behind the option."""
        return self._listed("|")

    def _listed(self, between: str) -> str:
        return between.join(f"{width:g}" for width in WIDTHS.values())


def class_names(file: Path, option: str) -> tuple[str, ...]:
    """Class names from a file that an option names, one a line.

    Raises:
        click.BadParameter: the file holds none.
    """
    try:
        lines = file.read_text(encoding="utf-8-sig").splitlines()
    except UnicodeDecodeError as error:
        message = f"{file}: class names are expected as text in UTF-8, one a line"
        raise click.BadParameter(message, param_hint=option) from error
    except OSError as error:
        message = f"{file}: {error.strerror or error}"
        raise click.BadParameter(message, param_hint=option) from error
    names = tuple(line.strip() for line in lines if line.strip())
    if not names:
        raise click.BadParameter(f"{file}: holds no class name", param_hint=option)
    return names


def inputs(metavar: str) -> Callable[[Command], Command]:
    """One or more inputs."""
    return click.argument("inputs", nargs=-1, required=True, metavar=metavar)


def output(text: str, metavar: str = "FILE|DIR/|-") -> Callable[[Command], Command]:
    """Where the result goes."""
    return click.option("-o", "--output", required=True, metavar=metavar, callback=named, help=text)


def named(ctx: click.Context, param: click.Parameter, value: str | None) -> str | None:
    """A callback that refuses an empty name, which would only fail once the work is done."""
    if value == "":
        raise click.BadParameter("the name is empty")
    return value


def recursive(command: Command) -> Command:
    """Folders within folders."""
    return click.option(
        "-r",
        "--recursive",
        is_flag=True,
        help="Enter folders within folders; their names are kept.",
    )(command)


def keep_extension(command: Command) -> Command:
    """Names of results in a folder."""
    return click.option(
        "--keep-extension",
        is_flag=True,
        help="Name results IMG.jpg.* instead of IMG.*, so that those of IMG.jpg and IMG.png can lie"
        " in one folder.",
    )(command)


def existing(command: Command) -> Command:
    """What happens to outputs that are there already."""
    for flag, value, text in (
        ("--skip-existing", "skip", "Leave outputs that are there already, and go on."),
        ("--no-overwrite", "refuse", "Fail where an output is there already."),
        ("--overwrite", "replace", "Replace outputs that are there already.  [default]"),
    ):
        command = click.option(
            flag, "existing", flag_value=value, default="replace", type=str, help=text
        )(command)
    return command


def vision(command: Command) -> Command:
    """The network of a model of features, where its weights are the user's own."""
    return click.option(
        "--vision",
        metavar="torchvision:NAME=FILE",
        help="The network that the model of features goes with, where its weights are your own."
        "  [default: the installed one]",
    )(command)


def network_files(*networks: str | None) -> list[Path]:
    """The files that `--model` and `--vision` name, by themselves or as NAME=FILE."""
    named = (part for text in networks if text for part in (text, text.partition("=")[2]))
    return [Path(part) for part in named if part and os.path.isfile(part)]


def parallel(command: Command) -> Command:
    """Processes, threads and device."""
    command = click.option(
        "--device", default="cpu", show_default=True, help="cpu, cuda, cuda:1, ..."
    )(command)
    command = click.option(
        "--threads",
        type=click.IntRange(1),
        help="Threads of each process.  [default: the cores, divided by --jobs]",
    )(command)
    return click.option(
        "-j",
        "--jobs",
        type=click.IntRange(0),
        default=1,
        show_default=True,
        help="Inputs done at once, each in a process of its own; 0 for one a core.",
    )(command)


def workers(jobs: int) -> int:
    """Processes for `--jobs`."""
    return jobs or os.cpu_count() or 1


def json_lines(thing: str) -> Callable[[Command], Command]:
    """Results for programs, an object for each thing."""
    return click.option(
        "--json", "as_json", is_flag=True, help=f"Print one JSON object a line for each {thing}."
    )


as_json = json_lines("input")


def figures_as_json(command: Callable[..., Any]) -> Callable[..., Any]:
    """All figures of a measurement for programs; and no result of it replaces what it reads."""

    @functools.wraps(command)
    def checked(*args: Any, **given: Any) -> Any:
        _keep_apart(click.get_current_context())
        return command(*args, **given)

    return click.option(
        "--json",
        "json_target",
        is_flag=False,
        flag_value=files.STANDARD,
        callback=_json_target,
        metavar="[FILE.json]",
        help="Write all figures as JSON: to a file, or (-, or no name) in place of the tables.",
    )(checked)


def _keep_apart(ctx: click.Context) -> None:
    """Refuse results of a measurement in place of what it reads, or of one another.

    Raises:
        click.UsageError: two options name one file.
    """
    written: dict[str, str] = {}
    read: list[Path] = []
    for param in ctx.command.params:
        value = ctx.params.get(str(param.name))
        is_result = isinstance(param.type, Result) or param.name == "json_target"
        for one in value if isinstance(value, tuple) else (value,):
            if isinstance(one, Path) or (isinstance(one, str) and one != files.STANDARD):
                if not is_result:
                    read += network_files(os.fspath(one))
                    continue
                if files.place(one) in written and not files.is_special(Path(one)):
                    raise click.UsageError(f"two results would be written to {one}")
                written[files.place(one)] = os.fspath(one)
    files.refuse_inputs(map(Path, written.values()), read)


def _json_target(ctx: click.Context, param: click.Parameter, value: str | None) -> str | None:
    # `--json photo.png` would else replace a picture that was meant as the argument.
    if value not in (None, files.STANDARD) and not str(value).lower().endswith(".json"):
        raise click.BadParameter(f"{value}: a file that ends in .json, or - for standard output")
    return value


def loudness(command: Command) -> Command:
    """How much is said on standard error."""
    command = click.option("-v", "--verbose", is_flag=True, help="Tell of every input.")(command)
    return click.option("-q", "--quiet", is_flag=True, help="Say nothing but errors.")(command)


def limits(*names: str) -> Callable[[Command], Command]:
    """Options that raise the limits called `names`, `max_pixels` and so on."""

    def decorate(command: Command) -> Command:
        for name in reversed(names):
            command = click.option(
                "--" + name.replace("_", "-"),
                type=click.IntRange(1),
                default=getattr(Limits(), name),
                show_default=True,
                help=_LIMITS[name],
            )(command)
        return command

    return decorate


_LIMITS = {
    "max_pixels": "Refuse pictures of more pixels.",
    "max_groups": "Refuse files with more groups.",
    "max_header_bytes": "Refuse files with a larger header.",
    "max_substream_bytes": "Refuse files with a larger substream.",
}
FILE_LIMITS = tuple(_LIMITS)


def flat(values: tuple[tuple[str, ...], ...]) -> tuple[str, ...] | None:
    """What an option given several times names altogether; None where it was not given."""
    return tuple(value for group in values for value in group) or None


def limits_of(given: dict[str, Any]) -> Limits:
    """The limits that `limits` read from the command line."""
    return Limits(**{name: given[name] for name in FILE_LIMITS if name in given})


def style(what: str, output: str, given: dict[str, Any]) -> batch.Style:
    """How a batch is run, from the options of `existing`, `parallel`, `as_json` and `loudness`.

    Raises:
        click.UsageError: standard output would have to carry both a file and JSON.
    """
    if output == files.STANDARD and given["as_json"]:
        raise click.UsageError("standard output (-) carries the result; --json has no place there")
    return batch.Style(
        what=what,
        workers=workers(given.get("jobs", 1)),
        threads=given.get("threads"),
        existing=given["existing"],
        json=given["as_json"],
        quiet=given["quiet"],
        verbose=given["verbose"],
    )
