"""A pool of sandboxes, in which the checks of a submission run a few at a time."""

import contextlib
import queue
import time
from collections.abc import Sequence
from concurrent.futures import Future, ThreadPoolExecutor

import numpy as np

from cli.text import one_line
from grading.checks import Check, Split, Wrong, import_models
from grading.inside.walls import Confinement
from grading.results import SHOWN_MESSAGE, Grade, Result, shortened, ungraded
from grading.sandbox import Sandbox
from grading.session import Session, Unanswered, readable
from grading.submissions import Unreadable, Upload

IMPORT_ALONE = Check("import", 0, "models.py can be loaded", lambda ask, split: None)


class Pool:
    """Sandboxes for several jobs at a time, until the end of a ``with`` block. The first starts in the background.

    Patience is a factor of the time limits.

    Raises:
        OSError, Unconfined: from ``confinement`` and ``submit``: the first sandbox does not start.
    """

    def __init__(self, jobs: int, patience: float = 1.0, unconfined: bool = False) -> None:
        self.patience = patience
        self._stack = contextlib.ExitStack()
        self._sandboxes = [self._stack.enter_context(Sandbox(unconfined=unconfined)) for _ in range(jobs)]
        self._free: queue.LifoQueue[Sandbox] = queue.LifoQueue()  # the one that has started comes first
        for sandbox in self._sandboxes:
            self._free.put(sandbox)
        self._threads = ThreadPoolExecutor(jobs)
        self._started = self._threads.submit(self._sandboxes[-1].start)

    @property
    def confinement(self) -> Confinement:
        """The walls around submissions. Waits until the first sandbox has started."""
        self._started.result()
        return self._sandboxes[-1].confinement

    def __enter__(self) -> "Pool":
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        if kind is not None:  # do not wait for running checks
            for sandbox in self._sandboxes:
                sandbox.cancel()
        stopped = kind is not None and not issubclass(kind, Exception)
        self._threads.shutdown(wait=not stopped, cancel_futures=True)
        if not stopped:  # after Ctrl-C, the wardens clean up when this process has ended
            self._stack.close()

    def submit(self, check: Check, files: dict[str, bytes], split: Split | None) -> "Future[Result]":
        """Run a check as soon as a sandbox is free."""
        self._started.result()
        return self._threads.submit(self._run, check, files, split)

    def _run(self, check: Check, files: dict[str, bytes], split: Split | None) -> Result:
        sandbox = self._free.get()
        try:
            started = time.perf_counter()
            with sandbox.session(files, check.seconds * self.patience, check.needs_data) as session:
                message = failure(session, check, split)
            return Result(check, not message, time.perf_counter() - started, message, session.printed)
        finally:
            self._free.put(sandbox)


def failure(session: Session, check: Check, split: Split | None) -> str:
    """Import models.py and run a check in a session; return the reason of its failure, "" if it passes.

    Raises:
        Exception: the grader failed, not the submission.
    """
    message = ""
    try:
        import_models(session.ask)
        with np.errstate(all="ignore"):  # a submission can send any numbers
            check.run(session.ask, split)
    except (Wrong, Unanswered) as error:
        message = str(error) or type(error).__name__
    return shortened(readable(message), SHOWN_MESSAGE)


def grade(pool: Pool, upload: Upload, checks: Sequence[Check], split: Split | None) -> Grade:
    """Run checks on a submission. One that cannot be read, or whose models.py cannot be loaded, fails all checks.

    Raises:
        Exception: the grader failed, not the submission.
    """
    try:
        submission = upload.read()
    except Unreadable as error:
        return ungraded(upload.name, checks, str(error))
    except OSError as error:
        return ungraded(upload.name, checks, f"it cannot be read: {error.strerror or error}")
    note = one_line(submission.note)
    # First by itself: a models.py that hangs would otherwise hang once for each check.
    try:
        alone = pool.submit(IMPORT_ALONE, submission.files, None).result()
    except Unreadable as error:  # the disk does not take a file
        return ungraded(upload.name, checks, str(error), note=note)
    if not alone.passed:
        return ungraded(upload.name, checks, alone.message, printed=alone.printed, note=note)
    longest_first = sorted(checks, key=lambda check: -check.seconds)
    results = {check.id: pool.submit(check, submission.files, split) for check in longest_first}
    return Grade(upload.name, tuple(results[check.id].result() for check in checks), note=note)
