"""Ctrl-C and SIGTERM: what a command does when it is asked to stop.

What a process was started to ignore, as a script's background jobs ignore Ctrl-C, stays ignored.
"""

import contextlib
import os
import signal
from collections.abc import Iterator

STOPPING = (signal.SIGINT, signal.SIGTERM)


class Stopped(BaseException):
    """A signal asked the process to end."""

    def __init__(self, signal_number: int) -> None:
        super().__init__(signal_number)
        self.signal_number = signal_number


def end_process(message: str) -> None:
    """From now on the two signals end the process on the spot, with a line on stderr and status 130 or 143."""

    def stop(number: int, _: object) -> None:
        with contextlib.suppress(OSError):
            os.write(2, f"{message}\n".encode())
        os._exit(128 + number)

    for each in _heeded():
        signal.signal(each, stop)


@contextlib.contextmanager
def stoppable() -> Iterator[None]:
    """Turn the first Ctrl-C or SIGTERM into ``Stopped``; a second Ctrl-C ends the process on the spot."""

    def stop(number: int, _: object) -> None:
        signal.signal(signal.SIGINT, signal.SIG_DFL)
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
        raise Stopped(number)

    before = {each: signal.signal(each, stop) for each in _heeded()}
    try:
        yield
    finally:
        for each, handler in before.items():
            if signal.getsignal(each) is stop:
                signal.signal(each, handler)


def _heeded() -> list[signal.Signals]:
    return [each for each in STOPPING if signal.getsignal(each) != signal.SIG_IGN]
