"""Many inputs, one after another or side by side; one that fails stops none of the others.

Worker processes only compute: they hand bytes back, and this process alone writes.  So an
interrupted run leaves whole files, and nothing else, behind.
"""

from __future__ import annotations

import functools
import multiprocessing
import os
import signal
import sys
import time
import traceback
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from dataclasses import dataclass, field
from typing import Any, Literal, TypeVar

from vcmcodec.cli import files, show
from vcmcodec.cli.files import Job
from vcmcodec.errors import VcmError

Result = TypeVar("Result")
Existing = Literal["replace", "refuse", "skip"]


@dataclass(frozen=True)
class Product:
    """What became of one input.

    Attributes:
        data: to be written.
        facts: for `--json`, beside the names of source and target.
        line: the same for people.
        pixels: of the picture, for the summary.
        warnings: one sentence each.
    """

    data: bytes
    facts: dict[str, Any]
    line: str
    pixels: int
    warnings: tuple[str, ...] = ()


@dataclass(frozen=True)
class Failure:
    """Why nothing became of an input: a stable code and one line (and a traceback for bugs)."""

    code: str
    message: str
    trace: str = ""


Work = Callable[..., Product]  # of a path or bytes; and of `beside=`, for jobs that have it
# an input, and what is made of its path or bytes; must be picklable for several workers
Piece = tuple[files.Input, Callable[[str | bytes], Result]]


@dataclass(frozen=True)
class Style:
    """How a batch is run and told.

    Attributes:
        what: for the progress bar and the summary, as "encoded".
        workers: processes; 1 stays in this one.
        threads: of each worker; None leaves it to torch where there is one worker.
        existing: what to do where the output is there already.
    """

    what: str
    workers: int = 1
    threads: int | None = None
    existing: Existing = "replace"
    json: bool = False
    quiet: bool = False
    verbose: bool = False


@dataclass
class _Tally:
    done: int = 0
    failed: int = 0
    skipped: int = 0
    num_bytes: int = 0
    pixels: int = 0
    started: float = field(default_factory=time.perf_counter)


def run(work: Work, jobs: Sequence[Job], style: Style) -> int:
    """Do all jobs and tell of each.

    Args:
        work: makes a `Product` of a path or of bytes, and of the path `beside` where a job has one;
            must be picklable for several workers.
        jobs: from `files.plan`.
        style: how.

    Returns:
        The exit code: 0, or 1 where an input failed.
    """
    tally = _Tally()
    todo = []
    for job in jobs:
        if job.target is not None and style.existing != "replace" and job.target.exists():
            _tell_existing(job, style, tally)
        else:
            todo.append(job)
    with show.progress(len(todo), style.what, style.quiet) as bar:
        pieces = [(job.input, _bound(work, job)) for job in todo]
        for job, outcome in zip(todo, outcomes(pieces, style), strict=True):
            _finish(job, outcome, style, tally)
            bar.advance()
    if len(jobs) > 1 and not style.quiet:
        _summarize(style, tally)
    return 1 if tally.failed else 0


def inspect(
    look: Callable[[str | bytes], Result],
    tell: Callable[[str, Result], bool],
    inputs: Sequence[files.Input],
    style: Style,
) -> int:
    """Look at all inputs and tell of each; nothing is written.

    Args:
        look: at a path or bytes.
        tell: given the input's name and what was seen; False where that is a failure.
        inputs: from `files.gather`.
        style: how.

    Returns:
        The exit code: 0, or 1 where an input failed.
    """
    code = 0
    found = outcomes([(each, look) for each in inputs], style)
    for each, outcome in zip(inputs, found, strict=True):
        if isinstance(outcome, Failure):
            fail(each.name, outcome, style)
            code = 1
        elif not tell(each.name, outcome):
            code = 1
    return code


def attempt(work: Callable[[str | bytes], Result], source: str | bytes) -> Result | Failure:
    """Do one piece of work; whatever goes wrong is an answer, not an end."""
    try:
        return work(source)
    except VcmError as error:
        return Failure(error.code, str(error))
    except MemoryError:
        return Failure("limit", "there is not enough memory for this input")
    except Exception as error:  # a bug of ours must not take a million other inputs with it
        message = f"unexpected {type(error).__name__}: {error}; please report this"
        return Failure("internal", message, traceback.format_exc())


def _attempt_input(work: Callable[[str | bytes], Result], each: files.Input) -> Result | Failure:
    """The same, with the reading of standard input a part of what may go wrong."""

    def read_and_work(_: str | bytes) -> Result:
        return work(each.source())

    return attempt(read_and_work, b"")


def fail(
    job_name: str, failure: Failure, style: Style, facts: dict[str, Any] | None = None
) -> None:
    """Tell of one input that failed: a line on standard error, and an object with --json.

    Args:
        job_name: the input's.
        failure: what went wrong.
        style: how it is told.
        facts: for `--json`, between the source and the error.
    """
    message = failure.message.removeprefix(f"{job_name}: ")
    show.complain(message, job_name)
    if failure.trace and style.verbose:
        show.trace(failure.trace)
    if style.json:
        error = {"code": failure.code, "message": message}
        show.json_line({"source": job_name} | (facts or {}) | {"error": error})


def _tell_existing(job: Job, style: Style, tally: _Tally) -> None:
    if style.existing == "refuse":
        tally.failed += 1
        fail(job.input.name, Failure("output", f"{job.target} is there already"), style)
        return
    tally.skipped += 1
    if style.json:
        show.json_line({"source": job.input.name, "target": str(job.target), "skipped": True})
    elif style.verbose:
        show.say(f"{job.input.name}: {job.target} is there already; skipped")


def _finish(job: Job, outcome: Product | Failure, style: Style, tally: _Tally) -> None:
    if isinstance(outcome, Product):
        try:
            files.write_result(job.target, outcome.data)
        except VcmError as error:
            outcome = Failure(error.code, str(error))
    if isinstance(outcome, Failure):
        tally.failed += 1
        fail(job.input.name, outcome, style)
        return
    tally.done += 1
    tally.num_bytes += len(outcome.data)
    tally.pixels += outcome.pixels
    if not style.quiet:
        for warning in outcome.warnings:
            show.complain(f"warning: {warning}", job.input.name, colour="yellow")
    target = files.STANDARD if job.target is None else str(job.target)
    if style.json and job.target is not None:
        named = {"source": job.input.name, "target": target}
        show.json_line(named | outcome.facts | {"warnings": list(outcome.warnings)})
    elif style.verbose and not style.quiet:
        show.say(f"{job.input.name} -> {target}: {outcome.line}")


def _summarize(style: Style, tally: _Tally) -> None:
    seconds = time.perf_counter() - tally.started
    parts = [f"{tally.done} {style.what}"]
    if tally.done:
        parts.append(show.size(tally.num_bytes))
    if tally.pixels:
        parts.append(f"{8 * tally.num_bytes / tally.pixels:.3f} bits a pixel")
    parts += [f"{tally.failed} failed"] * bool(tally.failed)
    parts += [f"{tally.skipped} skipped"] * bool(tally.skipped)
    show.say(", ".join(parts) + f" in {seconds:.1f} s")


def outcomes(pieces: Sequence[Piece[Result]], style: Style) -> Iterator[Result | Failure]:
    """What becomes of every piece of work, in the order of the pieces."""
    if style.workers < 2 or len(pieces) < 2:
        start_worker(style.threads)
        for each, work in pieces:
            yield _attempt_input(work, each)
        return
    waiting = deque(pieces)
    while waiting:
        yield from _in_parallel(waiting, min(style.workers, len(waiting)), style)


def _in_parallel(
    waiting: deque[Piece[Result]], workers: int, style: Style
) -> Iterator[Result | Failure]:
    """Work through `waiting` until it is empty or a worker has died.

    A dead worker breaks the whole pool without a word on whose fault it was, so the pieces that
    were under way are then tried one by one, in a process beside this one.
    """
    running: deque[tuple[Piece[Result], Future[Result | Failure]]] = deque()
    pool = _pool(workers, style)
    try:
        while waiting or running:
            while waiting and len(running) < 4 * workers:
                piece = waiting[0]
                running.append((piece, _submitted(pool, piece)))
                waiting.popleft()
            outcome = running[0][1].result()
            running.popleft()
            yield outcome
    except BrokenProcessPool:
        pool.shutdown(wait=False, cancel_futures=True)
        yield from _one_by_one([piece for piece, _ in running], style)
    except BaseException:
        for child in multiprocessing.active_children():
            child.terminate()
        raise
    finally:
        pool.shutdown(cancel_futures=True)


def _one_by_one(pieces: Sequence[Piece[Result]], style: Style) -> Iterator[Result | Failure]:
    pool = _pool(1, style)
    try:
        for piece in pieces:
            outcome: Result | Failure
            try:
                outcome = _submitted(pool, piece).result()
            except BrokenProcessPool:
                pool.shutdown()
                pool = _pool(1, style)
                message = "the worker process died, most likely for want of memory"
                outcome = Failure("internal", message)
            yield outcome
    finally:
        pool.shutdown(cancel_futures=True)


def _submitted(pool: ProcessPoolExecutor, piece: Piece[Result]) -> Future[Result | Failure]:
    """A piece that is under way, or has failed already: there is nothing to read."""
    each, work = piece
    source = attempt(lambda _: each.source(), b"")
    if not isinstance(source, Failure):
        return pool.submit(attempt, work, source)
    failed: Future[Result | Failure] = Future()
    failed.set_result(source)
    return failed


def _bound(work: Work, job: Job) -> Work:
    return work if job.beside is None else functools.partial(work, beside=job.beside)


def _pool(workers: int, style: Style) -> ProcessPoolExecutor:
    threads = style.threads or max(1, (os.cpu_count() or 1) // workers)
    # Spawned, not forked: torch's thread pools do not survive a fork.
    return ProcessPoolExecutor(
        workers,
        mp_context=multiprocessing.get_context("spawn"),
        initializer=start_worker,
        initargs=(threads, True),
    )


def start_worker(threads: int | None, own_process: bool = False) -> None:
    """Set a process up for work.

    Args:
        threads: that torch may use, or None to let it choose.
        own_process: die in silence on Ctrl-C, which the terminal sends to every process; the
            parent does the talking.
    """
    if own_process:
        signal.signal(signal.SIGINT, signal.SIG_DFL)
        signal.signal(signal.SIGTERM, signal.SIG_DFL)
    if threads is None:
        return
    for name in ("OMP_NUM_THREADS", "MKL_NUM_THREADS"):  # what torch starts with
        os.environ[name] = str(threads)
    if "torch" in sys.modules:
        sys.modules["torch"].set_num_threads(threads)
