"""The processes of a search: started, watched, and ended with this one.

Each works on the study in the log folder, see ``tuning.py``. Another one takes the place of one that is killed.
"""

import contextlib
import multiprocessing
import os
import signal
import sys
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from multiprocessing.context import SpawnProcess

from optuna.exceptions import OptunaError
from sqlalchemy.exc import SQLAlchemyError

from cli.signals import STOPPING
from cli.text import one_line
from study.tuning import STORAGE, Search, work
from training import setup

POLL_SECONDS = 0.25
GRACE_SECONDS = 30.0  # for a process to note that its trial is interrupted
MOST_KILLED = 5  # processes that are replaced


class Failed(Exception):
    """The exception for processes that cannot continue; each has said why on stderr, or its traceback has."""


def run(search: Search, jobs: int, look: Callable[[], None]) -> None:
    """Work on a search in several processes, and call a function several times a second meanwhile.

    No process is left afterwards.

    Raises:
        Failed: a process had an error, or too many of them were killed.
        Stopped: a signal asked the process to end.
    """
    started = jobs
    working = [_start(search, number) for number in range(jobs)]
    try:
        while working:
            time.sleep(POLL_SECONDS)
            look()
            for process in [each for each in working if not each.is_alive()]:
                working.remove(process)
                if not process.exitcode:
                    continue
                if process.exitcode > 0:
                    raise Failed
                name = signal.Signals(-process.exitcode).name
                if started == jobs + MOST_KILLED:
                    print(f"{MOST_KILLED + 1} processes were killed, the last by {name}: fewer --jobs need less memory",
                          file=sys.stderr)  # fmt: skip
                    raise Failed
                print(f"a process was killed by {name}: its settings are tried again", file=sys.stderr)
                working.append(_start(search, started))
                started += 1
    finally:
        _stop(working)


def _start(search: Search, number: int) -> SpawnProcess:
    process = multiprocessing.get_context("spawn").Process(target=_work, args=(search, number), daemon=True)
    with _ignored([each for each in STOPPING if each != signal.SIGTERM]):  # a terminal sends the others here, too
        process.start()
    return process


@contextlib.contextmanager
def _ignored(numbers: Sequence[signal.Signals]) -> Iterator[None]:
    """Ignore signals for a moment, so that a process that is started then ignores them as long as it runs."""
    before = {number: signal.signal(number, signal.SIG_IGN) for number in numbers}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


class Interruption:
    """SIGTERM as KeyboardInterrupt, which is raised only in a context."""

    def __init__(self) -> None:
        self._asked = self._allowed = False
        signal.signal(signal.SIGTERM, self._ask)

    def _ask(self, *_: object) -> None:
        self._asked = True
        if self._allowed:
            self._allowed = False
            raise KeyboardInterrupt

    @contextlib.contextmanager
    def allowed(self) -> Iterator[None]:
        self._allowed = True
        try:
            if self._asked:
                raise KeyboardInterrupt
            yield
        finally:
            self._allowed = False


def _work(search: Search, number: int) -> None:
    """Work as a process that SIGTERM, or the end of its parent, interrupts."""
    interruption = Interruption()
    threading.Thread(target=_end_with_parent, daemon=True).start()
    setup.use_one_thread()
    setup.flush_denormals()
    try:
        work(search, number, interruption.allowed)
    except KeyboardInterrupt:
        pass
    except (SQLAlchemyError, OptunaError) as error:
        path = search.logdir / STORAGE
        print(f"{path} cannot be read or written: {one_line(str(error.__cause__ or error))}", file=sys.stderr)
        sys.exit(2)


def _end_with_parent() -> None:
    parent = multiprocessing.parent_process()
    assert parent is not None
    parent.join()
    os.kill(os.getpid(), signal.SIGTERM)


def _stop(working: list[SpawnProcess]) -> None:
    """Interrupt all processes at once, and wait until they have ended."""
    for process in working:
        process.terminate()
    until = time.monotonic() + GRACE_SECONDS
    for process in working:
        process.join(max(0.0, until - time.monotonic()))
        if process.is_alive():
            process.kill()
            process.join()
