"""The first and the last line of a command.

    from cli import command
    if __name__ == "__main__":
        command.begin("stopped before the training began")
    import torch  # and whatever else takes a second
    …
    if __name__ == "__main__":
        command.end(main)

Every command has these lines, so that none of them ends in a traceback for what its terminal or its caller does.
"""

import os
import sys
from collections.abc import Callable
from typing import NoReturn

from cli import signals, streams


def begin(when_stopped: str | None = None) -> None:
    """Make the standard streams safe to write to, and Ctrl-C and SIGTERM end the process with one line.

    Args:
        when_stopped: that line; it holds until the command handles signals itself. Without it they stay as they are.
    """
    streams.protect()
    if when_stopped is not None:
        signals.end_process(when_stopped)


def end(main: Callable[[], int]) -> NoReturn:
    """Run a command and exit with the status that it returns.

    It is 1 when the output is no longer read, and 130 or 143, with a line on stderr, when Ctrl-C or SIGTERM stopped a
    command that has nothing more to say about it.
    """
    status: str | int | None
    try:
        try:
            with signals.stoppable():
                status = main()
        except SystemExit as stop:  # --help and wrong flags
            status = stop.code
        except signals.Stopped as stopped:
            print("stopped", file=sys.stderr)
            status = 128 + stopped.signal_number
        sys.stdout.flush()
        if streams.output_is_unread():  # argparse says nothing
            raise BrokenPipeError
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), 1)  # for what the interpreter flushes at exit
        status = 1
    streams.report_losses()
    sys.exit(status)


def fail(program: str, error: Exception) -> int:
    """Report what a person can put right as one line on stderr, without a traceback; returns exit status 2.

    Output that nobody reads any more is no such thing: ``end`` sees to it.
    """
    if isinstance(error, BrokenPipeError):
        raise error
    print(f"{program}: error: {' '.join(str(error).split())}", file=sys.stderr)
    return 2
