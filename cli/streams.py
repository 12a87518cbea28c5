"""Standard output and standard error that cannot stop a command.

A terminal may not know λ, a scheduler may have closed a stream, the disk behind a redirection may be full. None of
these is a reason to lose a night's training at its closing line. So characters that a stream cannot carry are
written as escapes ("\\u03bb"), a closed stream is the null device, and what cannot be written is dropped, with a line
about it on stderr at the end. A pipe that nobody reads any more still raises ``BrokenPipeError`` on standard output.
"""

import io
import os
import sys
from typing import Any, TextIO


class _TolerantFile(io.FileIO):
    """The descriptor of a standard stream; the first failure to write is kept in ``lost`` instead of raised."""

    lost: OSError | None = None

    def __init__(self, descriptor: int) -> None:
        super().__init__(descriptor, "w", closefd=False)

    def write(self, data: Any, /) -> int:
        try:
            return super().write(data) or 0
        except OSError as error:
            if isinstance(error, BrokenPipeError) and self.fileno() == 1:
                raise
            self.lost = self.lost or error
            return memoryview(data).nbytes


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
    if isinstance(stream, io.TextIOWrapper) and sys.platform == "win32" and stream.isatty():
        stream.reconfigure(errors="backslashreplace")  # a console takes any character, by a way of its own
        return stream
    _files[name] = file = _TolerantFile(descriptor)
    return io.TextIOWrapper(
        io.BufferedWriter(file),
        encoding=stream.encoding if stream is not None else "utf-8",
        errors="backslashreplace",
        line_buffering=file.isatty() or name == "stderr",
        write_through=isinstance(stream, io.TextIOWrapper) and stream.write_through,  # python -u
    )


def report_losses() -> None:
    """Say on stderr, if that can be written, that standard output could not."""
    file = _files.get("stdout")
    if file is not None and file.lost is not None:
        print(f"standard output could not be written: {file.lost.strerror}", file=sys.stderr, flush=True)
