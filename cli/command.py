"""Start and end of every command: standard streams that do not fail, exit statuses, errors in one line.

    from cli import command
    if __name__ == "__main__":
        command.begin("stopped before the training began")
    import torch  # and other imports that take a second
    …
    if __name__ == "__main__":
        command.end(main)

With these lines, no action of a terminal or a caller ends a command with a traceback.
"""

import errno
import io
import os
import sys
from collections.abc import Callable
from typing import Any, NoReturn

from cli import signals
from cli.text import one_line

DISK_FULL = (errno.ENOSPC, errno.EDQUOT)


def begin(when_stopped: str | None = None, after_bug: int = 1) -> None:
    """Make the standard streams safe to write to, and let Ctrl-C, SIGTERM and SIGHUP end it with one line.

    It is called before torch is imported, whose threads it lets sleep while they wait.

    Args:
        when_stopped: the line, used until the command handles signals itself; None leaves signals as they are.
        after_bug: the exit status after an uncaught exception, which keeps its traceback.
    """

    def exit_after_bug(*error: Any) -> None:
        sys.__excepthook__(*error)
        sys.exit(after_bug)

    sys.excepthook = exit_after_bug
    _open_closed_descriptors()
    if isinstance(sys.stderr, io.TextIOWrapper):
        file = io.BufferedWriter(_LossyFile(2, "w", closefd=False))
        sys.stderr = io.TextIOWrapper(file, encoding=sys.stderr.encoding, line_buffering=True)
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")
            if sys.platform != "win32":
                os.set_blocking(stream.fileno(), True)  # because a caller's pipe may be non-blocking
    # A thread of torch that waits for another one sleeps. By default it spins, and where other processes use the cores,
    # it then takes the core that the other thread needs: ten times as slow. OpenMP reads this when torch is imported.
    os.environ.setdefault("OMP_WAIT_POLICY", "passive")
    if when_stopped is not None:
        signals.end_process(when_stopped)


class _LossyFile(io.FileIO):
    """Standard error, whose lines get lost where they cannot be written: the command continues without them."""

    def write(self, data: Any, /) -> int:
        try:
            return super().write(data)
        except OSError:
            return len(data)


def _open_closed_descriptors() -> None:
    """Replace closed standard streams by the null device, so that no other file gets their numbers."""
    for descriptor in range(3):
        try:
            os.fstat(descriptor)
        except OSError:
            os.open(os.devnull, os.O_RDWR)
    sys.stdout = sys.stdout or os.fdopen(1, "w", encoding="utf-8")
    sys.stderr = sys.stderr or os.fdopen(2, "w", encoding="utf-8", closefd=False)


def end(main: Callable[[], int]) -> NoReturn:
    """Run a command and exit with the status that it returns.

    The status is 1 if the output is a closed pipe, and 1 with a line on stderr if it is a file on a full disk.
    """
    status: str | int | None
    try:
        status = _status(main)
        sys.stdout.flush()
    except BrokenPipeError:
        _discard(1, 2)
        status = 1
    except OSError as error:
        if error.errno not in DISK_FULL:
            raise
        _discard(1)
        status = f"output cannot be written: {error.strerror}"
    sys.exit(status)


def _discard(*descriptors: int) -> None:
    """Connect descriptors to the null device, because the interpreter flushes its streams again at exit."""
    null = os.open(os.devnull, os.O_WRONLY)
    for descriptor in descriptors:
        os.dup2(null, descriptor)


def _status(main: Callable[[], int]) -> str | int | None:
    """Run a command and return its exit status: 130, 143 or 129, after a line on stderr, if a signal stops it."""
    try:
        with signals.stoppable():
            return main()
    except SystemExit as stop:  # --help and wrong flags
        return stop.code
    except signals.Stopped as stopped:
        print("stopped", file=sys.stderr)
        return 128 + stopped.signal_number


def fail(program: str, error: Exception) -> int:
    """Print an error that a user can correct as one line on stderr, and return exit status 2.

    Raises:
        BrokenPipeError: the error is a BrokenPipeError, which ``end`` handles.
    """
    if isinstance(error, BrokenPipeError):
        raise error
    print(f"{program}: error: {one_line(str(error))}", file=sys.stderr)
    return 2
