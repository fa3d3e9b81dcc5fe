"""The `vcm` command: a table of commands, and the one place where errors become exit codes.

Exit codes: 0 all done; 1 some input failed, each named on standard error; 2 wrong usage; 130
interrupted.  Commands are imported when they are run, so that `vcm --help` costs click alone.
"""

from __future__ import annotations

import contextlib
import errno
import os
import signal
import sys
from collections.abc import Sequence
from types import FrameType
from typing import Any, NoReturn

import click

from vcmcodec import __version__
from vcmcodec.cli import show
from vcmcodec.cli.table import CommandTable
from vcmcodec.errors import VcmError

COMMANDS = (
    ("encode", "encode", "Write pictures as .vcm files."),
    ("decode", "decode", "Write .vcm files, or parts of them, as pictures."),
    ("analyze", "analyze", "Say what is in pictures: objects, classes, areas."),
    ("features", "features", "Write a vision network's features of pictures."),
    ("info", "info", "Show what is in a file: layers, groups, tasks, and the bytes of each."),
    ("extract", "extract", "Copy a part of a file: tasks, layers, groups; no network is run."),
    ("merge", "merge", "Put parts of a file together again."),
    ("verify", "verify", "Check that files are whole and undamaged."),
    ("models", "models", "List the models that are installed."),
    ("train", "train", "Teach the networks again, from pictures."),
    ("bench", "bench", "Measure rate, distortion, speed and memory."),
)

FULL = (errno.ENOSPC, errno.EDQUOT, errno.EIO, errno.EBADF)

_EPILOG = """\b
Completion of commands and options in the shell:
  bash   eval "$(_VCM_COMPLETE=bash_source vcm)"       in ~/.bashrc
  zsh    eval "$(_VCM_COMPLETE=zsh_source vcm)"        in ~/.zshrc
  fish   _VCM_COMPLETE=fish_source vcm | source        in ~/.config/fish/completions/vcm.fish
"""


class Vcm(CommandTable):
    """The whole command line: a table of commands, and this program's exit codes."""

    def main(
        self,
        args: Sequence[str] | None = None,
        prog_name: str | None = None,
        complete_var: str | None = None,
        standalone_mode: bool = True,
        **extra: Any,
    ) -> Any:
        """Run one command line; as `click.Group.main`, with this program's exit codes."""
        with contextlib.suppress(ValueError):  # only the main thread may set handlers
            signal.signal(signal.SIGTERM, _leave_cleanly)
        _open_closed_streams()
        try:
            code = super().main(args, prog_name, complete_var, False, **extra)
            sys.stdout.flush()
        except click.ClickException as error:
            error.show()
            code = error.exit_code
        except VcmError as error:
            show.complain(str(error))
            code = 1
        except (click.Abort, KeyboardInterrupt):
            show.complain("interrupted")
            code = 130
        except BrokenPipeError:
            # Whoever read our output has seen enough.
            _forget_output()
            code = 141
        except OSError as error:
            if error.errno not in FULL:
                raise
            show.complain(f"standard output: cannot be written: {error.strerror}")
            _forget_output()
            code = 1
        sys.exit(code if isinstance(code, int) else 0)


def _forget_output() -> None:
    """Let what is left to be written go nowhere: Python would complain again at exit."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def _open_closed_streams() -> None:
    """Stand in for standard streams that were closed: nothing comes from there, nothing goes."""
    for name, mode in (("stdin", "r"), ("stdout", "w"), ("stderr", "w")):
        if getattr(sys, name) is None:
            setattr(sys, name, open(os.devnull, mode))  # noqa: SIM115


def _leave_cleanly(number: int, frame: FrameType | None) -> NoReturn:
    """Unwind the stack, so that temporary files go, instead of dying on the spot."""
    raise SystemExit(128 + number)


@click.group(
    cls=Vcm,
    table=COMMANDS,
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100},
    epilog=_EPILOG,
)
@click.version_option(__version__, prog_name="vcm")
def vcm() -> None:
    """Pictures for machines and people, in one file that is read in part.

    Inputs are files, folders, or - for standard input.  Results go to standard output, everything
    else to standard error.
    """
