"""Ctrl-C, SIGTERM and SIGHUP, the signals that stop a command.

``command.end`` and ``main.report_end`` turn a stop into an exit status.

SIGHUP comes when the terminal is closed or its connection breaks; Windows has no such signal. A signal that the process
was started to ignore stays ignored: a script's background jobs ignore Ctrl-C, and nohup's command ignores SIGHUP.
"""

import contextlib
import os
import signal
from collections.abc import Iterator

STOPPING: tuple[signal.Signals, ...] = tuple(
    getattr(signal, name) for name in ("SIGINT", "SIGTERM", "SIGHUP") if hasattr(signal, name)
)


class Stopped(BaseException):
    """The exception for a signal that asked the process to stop."""

    def __init__(self, signal_number: int) -> None:
        super().__init__(signal_number)
        self.signal_number = signal_number


def end_process(message: str) -> None:
    """Make these signals end the process at once, with a line on stderr and exit status 130, 143 or 129."""

    def stop(number: int, _: object) -> None:
        with contextlib.suppress(OSError):
            os.write(2, f"{message}\n".encode())
        os._exit(128 + number)

    for each in _not_ignored():
        signal.signal(each, stop)


@contextlib.contextmanager
def stoppable() -> Iterator[None]:
    """Turn the first of these signals into ``Stopped``; a second Ctrl-C ends the process at once."""
    stopping = _not_ignored()

    def stop(number: int, _: object) -> None:
        for each in stopping:
            signal.signal(each, signal.SIG_DFL if each == signal.SIGINT else signal.SIG_IGN)
        raise Stopped(number)

    before = {each: signal.signal(each, stop) for each in stopping}
    try:
        yield
    finally:
        for each, handler in before.items():
            if signal.getsignal(each) is stop:
                signal.signal(each, handler)


def _not_ignored() -> list[signal.Signals]:
    return [each for each in STOPPING if signal.getsignal(each) != signal.SIG_IGN]
