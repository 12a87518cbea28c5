"""Grading one submission: its checks run in sandboxes, a few at a time."""

import contextlib
import queue
import time
from collections.abc import Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path

import numpy as np

from grading import submissions
from grading.checks import Check, Split, load
from grading.compare import Wrong
from grading.confinement import Confinement
from grading.messages import Unanswered
from grading.results import Grade, Result, shortened
from grading.sandbox import Sandbox, Unconfined
from grading.session import readable

SHOWN_MESSAGE = 4000  # characters of why a check was not passed


class Pool:
    """Sandboxes to run checks in, a few at a time. Use as a context manager; the first starts in the background.

    Args:
        jobs: how many.
        patience: factor of the time limits.
        unconfined: go on where the machine cannot close off what a submission must not reach.

    Raises:
        OSError, Unconfined: from ``confinement`` and ``submit``: the first sandbox does not start.
    """

    def __init__(self, jobs: int, patience: float = 1.0, unconfined: bool = False) -> None:
        self.patience = patience
        self._stack = contextlib.ExitStack()
        self._sandboxes = [self._stack.enter_context(Sandbox(unconfined=unconfined)) for _ in range(jobs)]
        self._free: queue.LifoQueue[Sandbox] = queue.LifoQueue()  # the one that has started already comes first
        for sandbox in self._sandboxes:
            self._free.put(sandbox)
        self._threads = ThreadPoolExecutor(jobs)
        self._started = self._threads.submit(self._sandboxes[-1].start)

    @property
    def confinement(self) -> Confinement:
        """What submissions are confined by; waits until it is known."""
        self._started.result()
        return self._sandboxes[-1].confinement

    def __enter__(self) -> "Pool":
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        if kind is not None:  # Ctrl-C, for instance: nobody waits for the checks that are running
            for sandbox in self._sandboxes:
                sandbox.cancel()
        self._threads.shutdown(cancel_futures=True)
        self._stack.close()

    def submit(self, check: Check, files: dict[str, bytes], split: Split | None) -> "Future[Result]":
        """Run a check as soon as a sandbox is free."""
        self._started.result()
        return self._threads.submit(self._run, check, files, split)

    def _run(self, check: Check, files: dict[str, bytes], split: Split | None) -> Result:
        sandbox = self._free.get()
        try:
            started = time.perf_counter()
            message = ""
            with sandbox.session(files, check.seconds * self.patience, check.needs_data) as session:
                try:
                    load(session.ask)
                    with np.errstate(all="ignore"):  # a submission's numbers can be anything
                        check.run(session.ask, split)
                except (Wrong, Unanswered) as error:
                    message = str(error) or type(error).__name__
                except (OSError, Unconfined):  # the grader's own trouble
                    raise
                except Exception as error:
                    # Answers can be of the right form and still make no sense together: in size or in number, too.
                    message = f"the answers of the submission's process do not fit together ({error!r:.200})"
            message = shortened(readable(message), SHOWN_MESSAGE)
            return Result(check, not message, time.perf_counter() - started, message, session.printed)
        finally:
            self._free.put(sandbox)


def grade(pool: Pool, path: Path, checks: Sequence[Check], split: Split | None) -> Grade:
    """Run checks on a submission.

    Args:
        pool: where.
        path: a models.py, or a folder or zip that holds one.
        checks: lines of the rubric.
        split: MovieLens 100K; needed by the checks that train.

    Returns:
        A result a check. A submission that cannot be read, or whose models.py cannot be loaded, fails all.

    Raises:
        OSError: it is not the submission that is at fault: the machine no longer does what it did.
    """
    try:
        files = submissions.read(path)
    except (submissions.Unreadable, OSError, RecursionError) as error:
        return ungraded(path, checks, str(error))
    # What hangs when it is loaded would otherwise do so once for each check.
    loads = pool.submit(LOADS, files, None).result()
    if not loads.passed:
        failed = (Result(check, False, loads.seconds / len(checks), loads.message, loads.printed) for check in checks)
        return Grade(str(path), tuple(failed), "models.py cannot be loaded")
    longest_first = sorted(checks, key=lambda check: -check.seconds)
    results = {check.id: pool.submit(check, files, split) for check in longest_first}
    return Grade(str(path), tuple(results[check.id].result() for check in checks))


def ungraded(path: Path, checks: Sequence[Check], problem: str) -> Grade:
    """No points, and why."""
    return Grade(str(path), tuple(Result(check, False, 0.0, problem) for check in checks), problem)


LOADS = Check("load", 0, "models.py can be loaded", lambda ask, split: None)
