"""Runs of ``main.py`` as processes, several at a time, that end with this one."""

import ctypes
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections import deque
from collections.abc import Sequence
from pathlib import Path
from typing import IO, Any

from tqdm import tqdm

from study.four_experiments import Run
from tracking.record import BAR

MAIN = Path(__file__).parent.parent / "main.py"
GRACE_SECONDS = 30.0  # for a run to write its checkpoint when it is stopped
POLL_SECONDS = 0.25  # between two looks at the progress of the runs


class Child:
    """A ``main.py`` that a terminal's Ctrl-C does not reach, and that ends when this process ends.

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
        """Return the reason why the ended process failed, in a line; None where it did not."""
        status = self.process.returncode
        self._errors.seek(0)
        lines = self._errors.read().decode(errors="replace").strip().splitlines()
        self._errors.close()
        last = lines[-1].removeprefix("main.py: error: ") if lines else ""
        if status < 0:
            return f"killed by {signal.Signals(-status).name}" + f"; its last line: {last}" * bool(last)
        return (last or f"exit status {status}") if status else None


LIBC: Any = ctypes.CDLL(None) if sys.platform == "linux" else None
PR_SET_PDEATHSIG = 1


def _die_with_parent() -> None:
    """Have the kernel send this process SIGTERM when its parent ends, even by SIGKILL."""
    LIBC.prctl(PR_SET_PDEATHSIG, signal.SIGTERM)


def run_all(unfinished: Sequence[Run], jobs: int, total: int) -> dict[Run, str]:
    """Start or resume runs, ``jobs`` at a time; return the reason, in a line, for each run that failed.

    One bar shows the epochs of all ``total`` runs, including those that are finished, which have as many epochs.

    Raises:
        Stopped: a signal asked the process to end; no run is left then.
    """
    if not unfinished:
        return {}
    waiting = deque(unfinished)
    running: dict[Run, Child] = {}
    failures: dict[Run, str] = {}
    written = {run: run.epochs_written() for run in unfinished}
    epochs = unfinished[0].epochs
    finished = epochs * (total - len(unfinished))
    columns, lines = shutil.get_terminal_size()
    with tqdm(
        total=epochs * total, initial=finished + sum(written.values()), disable=None, ncols=columns, nrows=lines,
        bar_format=BAR, smoothing=0,
    ) as bar:  # fmt: skip
        try:
            while waiting or running:
                while waiting and len(running) < jobs:
                    run = waiting.popleft()
                    try:
                        running[run] = Child(run.arguments())
                    except OSError as error:
                        failures[run] = f"cannot be started: {error.strerror}"
                time.sleep(POLL_SECONDS)
                for run, child in list(running.items()):
                    ended = child.process.poll() is not None
                    written[run] = run.epochs_written()
                    if ended:
                        del running[run]
                        if failure := child.failure():
                            failures[run] = failure
                bar.set_postfix_str(f"{total - len(waiting) - len(running)} of {total} runs done", refresh=False)
                bar.update(finished + sum(written.values()) - bar.n)
        finally:
            stop(list(running.values()))
    return failures


def stop(children: Sequence[Child]) -> None:
    """Ask all processes at once to write their checkpoints and end, and wait until they have."""
    for child in children:
        child.process.terminate()
    until = time.monotonic() + GRACE_SECONDS
    for child in children:
        try:
            child.process.wait(max(0.0, until - time.monotonic()))
        except subprocess.TimeoutExpired:
            child.process.kill()
            child.process.wait()
