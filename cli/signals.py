"""Ctrl-C and SIGTERM, the two signals that stop a command.

``command.end`` and ``main.report_end`` turn a stop into an exit status.

A signal that the process was started to ignore stays ignored. A script's background jobs ignore Ctrl-C, for example.
"""

import contextlib
import os
import signal
from collections.abc import Iterator

STOPPING = (signal.SIGINT, signal.SIGTERM)


class Stopped(BaseException):
    """The exception for a signal that asked the process to stop."""

    def __init__(self, signal_number: int) -> None:
        super().__init__(signal_number)
        self.signal_number = signal_number


def end_process(message: str) -> None:
    """Make both signals end the process at once, with a line on stderr and exit status 130 or 143."""

    def stop(number: int, _: object) -> None:
        with contextlib.suppress(OSError):
            os.write(2, f"{message}\n".encode())
        os._exit(128 + number)

    for each in _not_ignored():
        signal.signal(each, stop)


@contextlib.contextmanager
def stoppable() -> Iterator[None]:
    """Turn the first Ctrl-C or SIGTERM into ``Stopped``; a second Ctrl-C ends the process at once."""

    def stop(number: int, _: object) -> None:
        signal.signal(signal.SIGINT, signal.SIG_DFL)
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
        raise Stopped(number)

    before = {each: signal.signal(each, stop) for each in _not_ignored()}
    try:
        yield
    finally:
        for each, handler in before.items():
            if signal.getsignal(each) is stop:
                signal.signal(each, handler)


def _not_ignored() -> list[signal.Signals]:
    return [each for each in STOPPING if signal.getsignal(each) != signal.SIG_IGN]
