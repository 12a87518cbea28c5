"""Standard output and standard error that cannot stop a command.

A terminal may not know λ, a scheduler may have closed a stream, the disk behind a redirection may be full. None of
these is a reason to lose a night's training at its closing line. So characters that a stream cannot carry are
written as escapes ("\\u03bb"), the bytes of a file's name that Python could not decode as they are; a closed stream is
the null device, and what cannot be written is dropped, with a line about it on stderr at the end. A pipe that nobody
reads any more still raises ``BrokenPipeError`` on standard output.
"""

import codecs
import io
import os
import select
import sys
from typing import Any, TextIO


class _TolerantFile(io.FileIO):
    """The descriptor of a standard stream; the first failure to write is kept in ``lost`` instead of raised."""

    lost: OSError | None = None
    unread = False  # whether it is a pipe that nobody reads any more

    def __init__(self, descriptor: int) -> None:
        super().__init__(descriptor, "w", closefd=False)

    def write(self, data: Any, /) -> int:
        """Write all of it, waiting where the other end is slow, or drop it; returns its length in bytes."""
        left = memoryview(data).cast("B")
        length = len(left)
        while len(left) > 0:
            try:
                written = super().write(left)
            except OSError as error:
                if isinstance(error, BrokenPipeError) and self.fileno() == 1:
                    self.unread = True
                    raise
                self.lost = self.lost or error
                break
            if written is None:  # the stream does not block, and is full
                select.select([], [self.fileno()], [])
            else:
                left = left[written:]
        return length


CARRY = "cli.streams"  # how characters are written that a stream cannot carry, by the name that codecs have for it


def _carry(error: UnicodeError) -> tuple[str | bytes, int]:
    """Bytes that Python could not decode, in the name of a file, as they were; other characters as escapes."""
    assert isinstance(error, UnicodeEncodeError)
    first = error.object[error.start]
    if "\udc80" <= first <= "\udcff":
        return bytes([ord(first) - 0xDC00]), error.start + 1
    return first.encode("ascii", "backslashreplace"), error.start + 1


codecs.register_error(CARRY, _carry)
_files: dict[str, _TolerantFile] = {}


def protect() -> None:
    """Replace sys.stdout and sys.stderr as described above; open the null device for descriptors that are closed."""
    for descriptor in range(3):  # in this order, because a file gets the lowest number that is free
        try:
            os.fstat(descriptor)
        except OSError:
            os.open(os.devnull, os.O_RDWR)
    sys.stdout = _protected(sys.stdout, 1, "stdout")
    sys.stderr = _protected(sys.stderr, 2, "stderr")


def _protected(stream: TextIO | None, descriptor: int, name: str) -> TextIO:
    if stream is not None and not _is_the_process_own(stream, descriptor):
        return stream  # a notebook's, for instance, or one that was redirected within Python
    if isinstance(stream, io.TextIOWrapper) and sys.platform == "win32" and stream.isatty():
        stream.reconfigure(errors="backslashreplace")  # a console takes any character, by a way of its own
        return stream
    _files[name] = file = _TolerantFile(descriptor)
    unbuffered = isinstance(stream, io.TextIOWrapper) and stream.write_through  # python -u
    return io.TextIOWrapper(
        file if unbuffered else io.BufferedWriter(file),  # as Python's own under -u
        encoding=stream.encoding if stream is not None else "utf-8",
        errors=CARRY,
        line_buffering=file.isatty() or name == "stderr",
        write_through=unbuffered,
    )


def _is_the_process_own(stream: TextIO, descriptor: int) -> bool:
    try:
        return isinstance(stream, io.TextIOWrapper) and stream.fileno() == descriptor
    except (OSError, ValueError):
        return False


def output_is_unread() -> bool:
    """Whether standard output met a pipe that nobody reads, even if who wrote there kept silent about it."""
    return "stdout" in _files and _files["stdout"].unread


def report_losses() -> None:
    """Say on stderr, if that can be written, that standard output could not."""
    file = _files.get("stdout")
    if file is not None and file.lost is not None:
        print(f"standard output could not be written: {file.lost.strerror}", file=sys.stderr, flush=True)
