"""Many runs as processes of their own, some at a time, that end with this one."""

import argparse
import ctypes
import multiprocessing
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections import deque
from collections.abc import Callable, Generator, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from pathlib import Path
from typing import IO, Any, TypeVar

from tqdm import tqdm

from study.four_experiments import Run
from tracking.progress import BAR

Key = TypeVar("Key")
Result = TypeVar("Result")
MAIN = Path(__file__).parent.parent / "main.py"
GRACE_SECONDS = 30.0  # that a run is given to write its checkpoint when it is stopped
POLL_SECONDS = 0.25  # between two looks at how far the runs are


class Child:
    """A ``main.py`` that runs by itself: not reached by the terminal's Ctrl-C, and not living longer than we do.

    Raises:
        OSError: it cannot be started.
    """

    def __init__(self, arguments: Sequence[str]) -> None:
        self._errors: IO[bytes] = tempfile.TemporaryFile()  # noqa: SIM115, open as long as the process lives
        self.process = subprocess.Popen(
            [sys.executable, str(MAIN), *arguments],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=self._errors,
            start_new_session=True,
            preexec_fn=_die_with_parent if sys.platform == "linux" else None,
        )

    def failure(self) -> str | None:
        """Why it failed, in a line, or None; once it has ended."""
        status = self.process.returncode
        self._errors.seek(0)
        lines = self._errors.read().decode(errors="replace").strip().splitlines()
        self._errors.close()
        last = lines[-1].removeprefix("main.py: error: ") if lines else ""
        if status < 0:
            return f"killed by {signal.Signals(-status).name}" + f"; its last words: {last}" * bool(last)
        return (last or f"exit status {status}") if status else None


LIBC = ctypes.CDLL(None) if sys.platform == "linux" else None
PR_SET_PDEATHSIG = 1


def _die_with_parent() -> None:
    """Have the kernel send this process SIGTERM when its parent is gone, even by SIGKILL."""
    assert LIBC is not None
    LIBC.prctl(PR_SET_PDEATHSIG, signal.SIGTERM)


def leave_stopping_to_parent() -> None:
    """In a worker process: a terminal's Ctrl-C reaches it too, and the parent then ends it."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, signal.SIG_DFL)


def results(
    function: Callable[..., Result], work: Mapping[Key, Sequence[Any]], jobs: int
) -> Generator[tuple[Key, Result], None, None]:
    """Call a function with each of these arguments, in so many processes at a time; what comes back, as it comes.

    To be closed, as ``contextlib.closing`` does it: then none of the processes is left, whatever ended the loop.
    """
    pool = ProcessPoolExecutor(jobs, multiprocessing.get_context("spawn"), initializer=leave_stopping_to_parent)
    try:
        started = {pool.submit(function, *arguments): key for key, arguments in work.items()}
        for ended in tqdm(as_completed(started), total=len(started), disable=None, unit="run"):
            yield started[ended], ended.result()
    finally:
        for process in multiprocessing.active_children():
            process.terminate()
        pool.shutdown(cancel_futures=True)


def run_all(unfinished: Sequence[Run], options: argparse.Namespace, total: int) -> dict[Run, str]:
    """Run what is not finished, ``options.jobs`` at a time, with one bar for the epochs of all.

    Args:
        unfinished: the runs to start or to go on with.
        options: the flags.
        total: how many runs there are, with those that are finished.

    Returns:
        Why runs failed, in a line each.

    Raises:
        Stopped: a signal asked for it; by then no run is left running.
    """
    waiting, running, failures = deque(unfinished), dict[Run, Child](), dict[Run, str]()
    written = {run: min(run.epochs_written(), options.epochs) for run in unfinished}
    before = options.epochs * (total - len(unfinished))
    columns, lines = shutil.get_terminal_size()
    with tqdm(
        total=options.epochs * total, initial=before + sum(written.values()), disable=None, ncols=columns, nrows=lines,
        bar_format=BAR, smoothing=0,
    ) as bar:  # fmt: skip
        try:
            while waiting or running:
                while waiting and len(running) < options.jobs:
                    run = waiting.popleft()
                    try:
                        running[run] = Child(run.arguments(options))
                    except OSError as error:
                        failures[run] = f"cannot be started: {error.strerror}"
                time.sleep(POLL_SECONDS)
                for run, child in list(running.items()):
                    ended = child.process.poll() is not None
                    written[run] = min(run.epochs_written(), options.epochs)
                    if ended and (failure := child.failure()):
                        failures[run] = failure
                    if ended:
                        del running[run]
                bar.set_postfix_str(f"{total - len(waiting) - len(running)} of {total} runs done", refresh=False)
                bar.update(before + sum(written.values()) - bar.n)
        finally:
            stop(list(running.values()))
    return failures


def stop(children: Sequence[Child]) -> None:
    """Ask all at once to write their checkpoints and end, and wait until they have."""
    for child in children:
        child.process.terminate()
    until = time.monotonic() + GRACE_SECONDS
    for child in children:
        try:
            child.process.wait(max(0.0, until - time.monotonic()))
        except subprocess.TimeoutExpired:
            child.process.kill()
            child.process.wait()
