"""Inputs that are found, outputs that are planned, and files that appear whole or not at all."""

from __future__ import annotations

import errno
import os
import secrets
import shutil
import sys
from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

import click

from vcmcodec.errors import OutputError, RequestError, VcmError

STANDARD = "-"  # standard input as an input, standard output as an output


@dataclass(frozen=True)
class Input:
    """One input.

    Attributes:
        path: where it is, or None for standard input.
        relative: its name below the folder that was given, from which the output's is made.
        problem: why nothing can become of it, where that is known beforehand.
    """

    path: Path | None
    relative: Path
    problem: VcmError | None = None

    @property
    def name(self) -> str:
        """What messages and JSON call it."""
        return STANDARD if self.path is None else os.fspath(self.path)

    def source(self) -> str | bytes:
        """The path, or what came through standard input.

        Raises:
            VcmError: the problem, where there is one.
        """
        if self.problem is not None:
            raise self.problem
        return sys.stdin.buffer.read() if self.path is None else os.fspath(self.path)


@dataclass(frozen=True)
class Job:
    """One input and where its result goes.

    Attributes:
        input: see there.
        target: None: standard output, or there can be none.
        beside: a further file that goes with this input alone, which the work is then given too.
    """

    input: Input
    target: Path | None
    beside: Path | None = None


def gather(
    arguments: Iterable[str], extensions: Collection[str], recursive: bool | None = False
) -> list[Input]:
    """Find the inputs: files as they are named, and what has one of `extensions` in folders.

    A file that is not there is an input too, and so is a folder without any: they fail when their
    turn comes, and the others do not.  The same file named twice is one input.

    Args:
        arguments: as they were typed.
        extensions: of inputs in folders, with their dots.
        recursive: whether folders in folders are entered; None: no, and there is no --recursive.

    Raises:
        click.UsageError: standard input is named twice.
    """
    found: dict[str, Input] = {}
    for argument in arguments:
        if argument == STANDARD:
            if STANDARD in found:
                raise click.UsageError("standard input (-) can be read only once")
            found[STANDARD] = Input(None, Path("stdin"))
            continue
        path = Path(argument)
        if not path.is_dir():
            found.setdefault(os.path.realpath(path), Input(path, Path(path.name)))
            continue
        try:
            inside = _walk(path, extensions, recursive)
        except RequestError as error:
            found.setdefault(os.path.realpath(path), Input(path, Path(path.name), error))
            continue
        for file, closed in inside:
            found.setdefault(os.path.realpath(file), Input(file, file.relative_to(path), closed))
    return list(found.values())


def _walk(
    folder: Path, extensions: Collection[str], recursive: bool | None
) -> list[tuple[Path, RequestError | None]]:
    """The inputs in a folder, and the folders in it that cannot be read, with the reason.

    Raises:
        RequestError: it holds none, or cannot be read itself.
    """
    inside: list[tuple[Path, RequestError | None]] = []

    def closed(error: OSError) -> None:
        reason = RequestError(error.strerror or str(error))
        if os.fspath(folder) == error.filename:
            raise RequestError(f"{folder}: {reason}") from error
        inside.append((Path(error.filename), reason))

    for parent, folders, names in os.walk(folder, onerror=closed):
        folders[:] = [name for name in folders if recursive and not name.startswith(".")]
        for name in names:
            path = Path(parent, name)
            visible = not name.startswith(".") and path.suffix.lower() in extensions
            if visible and path.is_file():
                inside.append((path, None))
    inside.sort(key=lambda each: each[0])
    if not inside:
        below = " (folders in it are entered with --recursive)" if recursive is False else ""
        kinds = " ".join(sorted(extensions))
        raise RequestError(f"{folder}: the folder holds no input: {kinds}{below}")
    return inside


def plan(
    inputs: Sequence[Input],
    arguments: Sequence[str],
    output: str,
    extension: str,
    reads: Iterable[str | Path] = (),
    keep_extension: bool | None = None,
) -> list[Job]:
    """Say where each result goes, before anything is done.

    One input that was named itself goes to `output` as a file, unless that is a folder or ends in
    a slash; folders and several inputs go to `output` as a folder, one file each.

    Args:
        inputs: from `gather`.
        arguments: what `gather` was given.
        output: what -o was given.
        extension: of results in a folder, with its dot.
        reads: further files that are read, which no result may replace either.
        keep_extension: put `extension` behind that of the input, not in its place; None: the same
            as False, in a command that has no --keep-extension to propose.

    Raises:
        click.UsageError: two results with one name, a result in place of a file that is read, or
            several results for one file.
    """
    several = len(inputs) > 1 or any(os.path.isdir(argument) for argument in arguments)
    if output == STANDARD:
        if several:
            raise click.UsageError("standard output (-) takes the result of one input only")
        refuse_terminal()
        return [Job(inputs[0], None)]
    is_folder = output.endswith((os.sep, "/")) or os.path.isdir(output)
    if not several and not is_folder:
        jobs = [Job(inputs[0], Path(output))]
    elif not is_folder and (os.path.exists(output) or Path(output).suffix.lower() == extension):
        raise click.UsageError(
            f"several results need a folder, and {output} is a file; give it a /"
        )
    else:
        jobs = [Job(each, _within(output, each, extension, keep_extension)) for each in inputs]
    _refuse_clashes(jobs, propose=keep_extension is False)
    refuse_inputs([job.target for job in jobs], [*paths(inputs), *reads])
    return jobs


def _within(folder: str, each: Input, extension: str, keep: bool | None) -> Path | None:
    if each.problem is not None:
        return None
    before = each.relative.suffix if keep else ""
    return Path(folder) / each.relative.with_suffix(before + extension)


def _refuse_clashes(jobs: Sequence[Job], propose: bool) -> None:
    """Refuse results of one name, with a way out; `propose`: --keep-extension, where it is one."""
    taken: dict[str, Job] = {}
    for job in jobs:
        if job.target is None:
            continue
        where = place(job.target)
        if where in taken:
            first = taken[where].input
            kept = propose and first.relative.name != job.input.relative.name
            raise click.UsageError(
                f"{first.name} and {job.input.name} would both be written to {job.target};"
                f" {'--keep-extension keeps them apart' if kept else 'write one to another folder'}"
            )
        taken[where] = job


def paths(inputs: Iterable[Input]) -> list[Path]:
    """The files among inputs."""
    return [each.path for each in inputs if each.path is not None]


def refuse_inputs(targets: Iterable[Path | None], reads: Iterable[str | Path]) -> None:
    """Keep results from replacing what they are made of.

    Args:
        targets: where results go; None for standard output.
        reads: every file that is read for them.

    Raises:
        click.UsageError: a target is one of these files, by whatever name.
    """
    sources = {place(path) for path in reads}
    for target in targets:
        if target is not None and place(target) in sources and not is_special(target):
            raise click.UsageError(f"{target} is an input; write the result somewhere else")


def place(path: str | Path) -> str:
    """What all names of one file have in common."""
    return os.path.normcase(os.path.realpath(path))


def refuse_terminal() -> None:
    """Keep bytes off a terminal.

    Raises:
        click.UsageError: standard output is one.
    """
    if sys.stdout.isatty():
        raise click.UsageError("standard output is a terminal; send it to a file or a pipe")


def write_result(target: Path | None, data: bytes) -> None:
    """Write to a file as a whole, or to standard output where `target` is None."""
    if target is not None:
        write_whole(target, data)
        return
    sys.stdout.buffer.write(data)
    sys.stdout.buffer.flush()


def write_whole(target: Path, data: bytes) -> None:
    """Write a file so that it is there whole or as it was before.

    The bytes go to a temporary file beside it, which then takes its name.  Devices and pipes, as
    /dev/null, are written to directly: they must not be replaced.

    Raises:
        OutputError: it cannot be written.
    """
    final = Path(os.path.realpath(target))  # a link stays one, and what it points to is replaced
    try:
        if is_special(final):
            with final.open("wb") as file:
                file.write(data)
            return
        final.parent.mkdir(parents=True, exist_ok=True)
        temporary = final.with_name(f".{secrets.token_hex(8)}.part")  # no name is too long for it
        try:
            with temporary.open("xb") as file:
                file.write(data)
            if final.exists():
                shutil.copymode(final, temporary)
            os.replace(temporary, final)
        finally:
            temporary.unlink(missing_ok=True)
    except BrokenPipeError:
        raise
    except OSError as error:
        raise OutputError(f"{target}: cannot be written: {error.strerror or error}") from error


def check_writable(target: Path) -> None:
    """Raise OutputError where a result could not be written, before it takes long to make."""
    final = Path(os.path.realpath(target))
    if is_special(final):
        return
    try:
        final.parent.mkdir(parents=True, exist_ok=True)
        if final.is_dir():
            raise OSError(errno.EISDIR, os.strerror(errno.EISDIR))
        probe = final.with_name(f".{secrets.token_hex(8)}.part")
        probe.touch(exist_ok=False)
        probe.unlink()
    except OSError as error:
        raise OutputError(f"{target}: cannot be written: {error.strerror or error}") from error


def is_special(path: Path) -> bool:
    """Whether a path is a device or a pipe, which takes many results and loses none."""
    return path.exists() and not path.is_file() and not path.is_dir()
