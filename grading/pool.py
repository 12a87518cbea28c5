"""A pool of sandboxes, in which the checks of a submission run a few at a time."""

import contextlib
import queue
import time
from collections.abc import Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path

import numpy as np

from grading.checks import Check, Split, Wrong, import_models
from grading.inside.walls import Confinement
from grading.results import Grade, Result, shortened
from grading.sandbox import Sandbox, Unconfined
from grading.session import Session, Unanswered, readable
from grading.submissions import Unreadable, read_submission

SHOWN_MESSAGE = 4000  # characters of the reason for a failed check


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
        if kind is not None:  # do not wait for running checks after Ctrl-C
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
            with sandbox.session(files, check.seconds * self.patience, check.needs_data) as session:
                message = failure(session, check, split)
            return Result(check, not message, time.perf_counter() - started, message, session.printed)
        finally:
            self._free.put(sandbox)


def failure(session: Session, check: Check, split: Split | None) -> str:
    """Import models.py and run a check in a session; return the reason of its failure, "" if it passes.

    Raises:
        OSError, Unconfined: the grader failed, not the submission.
    """
    message = ""
    try:
        import_models(session.ask)
        with np.errstate(all="ignore"):  # a submission can send any numbers
            check.run(session.ask, split)
    except (Wrong, Unanswered) as error:
        message = str(error) or type(error).__name__
    except (OSError, Unconfined):
        raise
    except Exception as error:
        # Answers of the right form can still contradict each other, for instance in size or number.
        message = f"the answers of the submission's process do not fit together ({error!r:.200})"
    return shortened(readable(message), SHOWN_MESSAGE)


def grade(pool: Pool, path: Path, checks: Sequence[Check], split: Split | None) -> Grade:
    """Run checks on a submission: a models.py, or a folder or zip that contains one.

    A submission that cannot be read, or whose models.py cannot be loaded, fails all checks.

    Raises:
        OSError: the grader failed, not the submission.
    """
    try:
        files = read_submission(path).files
    except (Unreadable, OSError, RecursionError) as error:
        return ungraded(path, checks, str(error))
    # First by itself: a models.py that hangs would otherwise hang once for each check.
    alone = pool.submit(IMPORT_ALONE, files, None).result()
    if not alone.passed:
        failed = (Result(check, False, alone.seconds / len(checks), alone.message, alone.printed) for check in checks)
        return Grade(str(path), tuple(failed), "models.py cannot be loaded")
    longest_first = sorted(checks, key=lambda check: -check.seconds)
    results = {check.id: pool.submit(check, files, split) for check in longest_first}
    return Grade(str(path), tuple(results[check.id].result() for check in checks))


def ungraded(path: Path, checks: Sequence[Check], problem: str) -> Grade:
    return Grade(str(path), tuple(Result(check, False, 0.0, problem) for check in checks), problem)


IMPORT_ALONE = Check("import", 0, "models.py can be loaded", lambda ask, split: None)
