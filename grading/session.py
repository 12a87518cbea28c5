"""A session with one worker: questions within a deadline, and answers of bounded size.

Nothing is computed from an answer that does not have the shape of its question. An answer begins with a short text: the
values that are no arrays, and the shapes of the arrays. The content of the arrays is received only after a check has
named the expected shapes and they are equal.
"""

import json
import math
import os
import secrets
import select
import signal
import socket
import time
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from grading.inside.messages import LENGTHS, pack
from grading.inside.processes import DYING, PROCESSES
from grading.inside.walls import MEMORY, SCRATCH_BYTES, SCRATCH_FILES

LONGEST_TEXT = 2**16  # bytes of an answer without the content of its arrays; right ones have less than 2**12
MOST_DIMENSIONS = 4
PRINTED = 2**14  # bytes that are kept of a submission's output
WARDEN_TIMEOUT = DYING + 10.0  # seconds for the warden to end a session, which takes milliseconds, or at most DYING
EXITING = 0.2  # seconds until the exit status of a process that has closed its channel is available
NO_ANSWER = "the submission's process sent something that is not an answer"
TOO_LONG = "the submission's process sent an answer far longer than a right one"
EXCEEDED = {
    "memory": f"it used more than {MEMORY // 2**30} GiB of memory and was ended",
    "processes": f"it started more than {PROCESSES} processes and was ended",
    "disk": f"it wrote more than {SCRATCH_BYTES // 2**20} MiB or {SCRATCH_FILES} files and was ended",
}

Shape = tuple[int, ...]


class Unanswered(Exception):
    """A question without a usable answer, with the reason for the submission's author."""


class Answer:
    """An answer: the shapes of its arrays, by name, and its other values.

    The methods raise Unanswered where the answer has another form.
    """

    def __init__(self, message: Any, size: int, receive: Callable[[int], bytearray]) -> None:
        values, arrays = (_checked(_checked(message, dict).get(key), dict) for key in ("values", "arrays"))
        self._values = values
        self.shapes: dict[str, Shape] = {name: _shape(*_list_of(object, each, 2)) for name, each in arrays.items()}
        self._size = size  # of the content of the arrays, in bytes
        self._receive = receive

    def shape(self, name: str) -> Shape:
        if name not in self.shapes:
            raise Unanswered(NO_ANSWER)
        return self.shapes[name]

    def arrays(self, expected: Mapping[str, Shape]) -> dict[str, NDArray[np.float64]]:
        """Receive all arrays, which must have exactly these names and shapes, in double precision."""
        sizes = {name: 4 * math.prod(shape) for name, shape in expected.items()}
        if self.shapes != expected or self._size != sum(sizes.values()):
            raise Unanswered(NO_ANSWER)
        return {
            name: np.frombuffer(self._receive(sizes[name]), np.float32).astype(np.float64).reshape(shape)
            for name, shape in self.shapes.items()
        }

    def __contains__(self, name: str) -> bool:
        return name in self._values

    def strings(self, name: str, count: int | None = None) -> list[str]:
        """Return a list of strings, which must have this length if it is given."""
        return _list_of(str, self._values.get(name), count)

    def integers(self, name: str, count: int | None = None) -> list[int]:
        """Return a list of integers, which must have this length if it is given."""
        return _list_of(int, self._values.get(name), count)


def _checked(value: Any, kind: type) -> Any:
    if not isinstance(value, kind) or isinstance(value, bool):
        raise Unanswered(NO_ANSWER)
    return value


def _list_of(kind: type, value: Any, count: int | None) -> list[Any]:
    found = [_checked(each, kind) for each in _checked(value, list)]
    if count not in (None, len(found)):
        raise Unanswered(NO_ANSWER)
    return found


def _shape(dtype: object, sizes: object) -> Shape:
    """Check the type and the shape of an array: float32, of at most MOST_DIMENSIONS dimensions."""
    shape = tuple(_list_of(int, sizes, None))
    if dtype != "float32" or len(shape) > MOST_DIMENSIONS or not all(0 <= size < 2**31 for size in shape):
        raise Unanswered(NO_ANSWER)
    return shape


class Session:
    """Questions to one worker. ``Sandbox.session`` makes it."""

    def __init__(
        self, channel: socket.socket, output: int, end_worker: Callable[[], tuple[int | None, str]], seconds: float
    ) -> None:
        self._channel = channel
        self._output: int | None = output
        self._end_worker = end_worker
        self._seconds = seconds
        self._deadline = time.monotonic() + seconds
        self._printed = bytearray()
        self._dropped = 0
        self._unread = 0  # bytes of the last answer's arrays
        self._ended: Unanswered | None = None

    @property
    def printed(self) -> str:
        """The submission's stdout and stderr, shortened, without control characters."""
        printed = readable(self._printed.decode(errors="replace")).strip()
        return printed + (f"\n[{self._dropped:,} more bytes]" if self._dropped else "")

    def ask(self, question: str, /, **arguments: Any) -> Answer:
        """Call a method of ``worker.Submission``.

        Raises:
            Unanswered: the submission's code failed, took too long, ended the process or sent no valid answer.
        """
        if self._ended is not None:
            raise self._ended
        token = secrets.token_hex(8)  # an answer that was written before the question cannot contain it
        while self._unread:  # the arrays of the last answer, of which no check needed more than the shapes
            self._receive_content(min(self._unread, 2**20))
        self._send(pack(arguments, token=token, method=question))
        length, self._unread = LENGTHS.unpack(self._receive(LENGTHS.size))
        if length > LONGEST_TEXT:
            raise self._end(TOO_LONG)
        received = self._receive(length)
        try:
            message = _checked(json.loads(received), dict)
            if message.get("token") != token:
                raise Unanswered(NO_ANSWER)
            error = _checked(message["error"], str) if "error" in message else ""
            answer = Answer(message, self._unread, self._receive_content)
        except (ValueError, RecursionError, Unanswered):
            raise self._end(NO_ANSWER) from None
        if "error" in message:
            raise Unanswered(readable(error))
        return answer

    def _send(self, message: bytes) -> None:
        to_send = memoryview(message)
        while to_send:
            self._wait([], [self._channel])
            try:
                to_send = to_send[self._channel.send(to_send) :]
            except BlockingIOError:
                continue
            except OSError:  # the worker is gone
                raise self._end() from None

    def _receive_content(self, count: int) -> bytearray:
        self._unread -= count
        return self._receive(count)

    def _receive(self, count: int) -> bytearray:
        """Receive exactly this number of bytes."""
        received = bytearray()
        while len(received) < count:
            self._wait([self._channel], [])
            try:
                part = self._channel.recv(min(count - len(received), 2**20))
            except BlockingIOError:
                continue
            except OSError:  # the worker is gone
                part = b""
            if not part:
                raise self._end()
            received += part
        return received

    def _wait(self, readers: list[socket.socket], writers: list[socket.socket]) -> None:
        """Wait until a socket is ready, before the deadline, and read the submission's output meanwhile."""
        while True:
            left = self._deadline - time.monotonic()
            if left <= 0:
                raise self._end(f"no answer within {self._seconds:g} s: an endless loop, or waiting for input?")
            watched: list[socket.socket | int] = [*readers]
            if self._output is not None:
                watched.append(self._output)
            ready, writable, _ = select.select(watched, writers, [], left)
            if self._output in ready:
                self._read_output()
            if writable or any(reader in ready for reader in readers):
                return

    def _read_output(self) -> None:
        assert self._output is not None
        try:
            part = os.read(self._output, 2**20)
        except BlockingIOError:
            return
        if not part:
            os.close(self._output)
            self._output = None
        room = max(0, PRINTED - len(self._printed))
        self._printed += part[:room]
        self._dropped += len(part) - min(room, len(part))

    def _end(self, reason: str = "") -> Unanswered:
        """Note that no further question can be answered, for this reason or because the worker has ended."""
        self._ended = Unanswered(reason or self._how_it_ended())
        return self._ended

    def _how_it_ended(self) -> str:
        time.sleep(EXITING)
        status, exceeded = self._end_worker()
        if exceeded:
            return EXCEEDED[exceeded]
        if status is None:
            return "its process ended without an answer"
        if status < 0:
            return f"its process was ended by {signal_name(-status)} before it had answered"
        return f"its process ended, with exit status {status}, before it had answered"

    def close(self) -> None:
        """End the worker, and read the last of its output."""
        self._channel.close()
        self._end_worker()
        deadline = time.monotonic() + WARDEN_TIMEOUT
        while self._output is not None and time.monotonic() < deadline:
            if not select.select([self._output], [], [], 0)[0]:
                break
            self._read_output()
        if self._output is not None:
            os.close(self._output)
            self._output = None


def signal_name(number: int) -> str:
    names = {each.value: each.name for each in signal.Signals}
    return names.get(number, f"signal {number}")


def readable(string: str) -> str:
    """Replace the control characters in a submission's string."""
    return "".join(each if each.isprintable() or each in "\n\t" else "\ufffd" for each in string.replace("\r\n", "\n"))
