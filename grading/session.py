"""A session with one worker: questions within a deadline, and answers whose form is checked."""

import os
import secrets
import select
import signal
import socket
import time
from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray

from grading.inside.messages import LENGTHS, lengths, pack, unpack
from grading.inside.processes import DYING, PROCESSES
from grading.inside.walls import MEMORY, SCRATCH_BYTES, SCRATCH_FILES

PRINTED = 2**14  # bytes that are kept of a submission's output
WARDEN_TIMEOUT = DYING + 10.0  # seconds for the warden to end a session, which takes milliseconds, or at most DYING
EXITING = 0.2  # seconds until the exit status of a process that has closed its channel is available
NO_ANSWER = "the submission's process sent something that is not an answer"
EXCEEDED = {
    "memory": f"it used more than {MEMORY // 2**30} GiB of memory and was ended",
    "processes": f"it started more than {PROCESSES} processes and was ended",
    "disk": f"it wrote more than {SCRATCH_BYTES // 2**20} MiB or {SCRATCH_FILES} files and was ended",
}


class Unanswered(Exception):
    """A question without a usable answer, with the reason for the submission's author."""


class Answer:
    """An answer, whose methods return values by name. They raise Unanswered where a value has another form."""

    def __init__(self, value: Any) -> None:
        self._value = value

    def _get(self, name: str) -> Any:
        return _checked(self._value, dict).get(name)

    def __contains__(self, name: str) -> bool:
        return isinstance(self._value, dict) and name in self._value

    def array(self, name: str) -> NDArray[np.float64]:
        """Return an array in double precision."""
        return _array(self._get(name))

    def arrays(self, name: str) -> list[NDArray[np.float64]]:
        return [_array(each) for each in _checked(self._get(name), list)]

    def named_arrays(self, name: str | None = None) -> dict[str, NDArray[np.float64]]:
        """Return arrays by name; without a name here, the whole answer."""
        value = _checked(self._value if name is None else self._get(name), dict)
        return {key: _array(each) for key, each in value.items()}

    def strings(self, name: str) -> list[str]:
        return _list_of(str, self._get(name))

    def integers(self, name: str) -> list[int]:
        return _list_of(int, self._get(name))


def _checked(value: Any, kind: type) -> Any:
    if not isinstance(value, kind):
        raise Unanswered(NO_ANSWER)
    return value


def _list_of(kind: type, value: Any) -> list[Any]:
    return [_checked(each, kind) for each in _checked(value, list)]


def _array(value: Any) -> NDArray[np.float64]:
    return np.asarray(_checked(value, np.ndarray), dtype=np.float64)


class Session:
    """Questions to one worker. ``Sandbox.session`` makes it."""

    def __init__(
        self, answers: socket.socket, output: int, end_worker: Callable[[], tuple[int | None, str]], seconds: float
    ) -> None:
        self._answers = answers
        self._output: int | None = output
        self._end_worker = end_worker
        self._seconds = seconds
        self._deadline = time.monotonic() + seconds
        self._printed = bytearray()
        self._dropped = 0
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
        try:
            reply = self._exchange(pack([token, question, arguments]))
            if not isinstance(reply, dict) or reply.get("token") != token or not {"answer", "error"} & reply.keys():
                raise Unanswered(NO_ANSWER)
        except Unanswered as error:
            self._ended = error
            raise
        if "error" in reply:
            raise Unanswered(readable(str(reply["error"])))
        return Answer(reply["answer"])

    def _exchange(self, message: bytes) -> Any:
        """Send a message and receive one before the deadline."""
        to_send, received = memoryview(message), bytearray()
        wanted: int | None = None
        while True:
            if (left := self._deadline - time.monotonic()) <= 0:
                raise Unanswered(f"no answer within {self._seconds:g} seconds: an endless loop, or waiting for input?")
            readers = [fd for fd in (self._answers, self._output) if fd is not None]
            ready, writable, _ = select.select(readers, [self._answers] if to_send else [], [], left)
            if self._output in ready:
                self._read_output()
            try:
                if writable:
                    to_send = to_send[self._answers.send(to_send) :]
                part = self._answers.recv(2**20) if self._answers in ready else None
            except BlockingIOError:
                continue
            except OSError:  # the worker is gone
                part = b""
            if part == b"":
                raise Unanswered(self._end())
            received += part or b""
            try:
                if wanted is None and len(received) >= LENGTHS.size:
                    text, payload = lengths(bytes(received[: LENGTHS.size]))
                    start, wanted = LENGTHS.size + text, LENGTHS.size + text + payload
                if wanted is not None and len(received) >= wanted:
                    return unpack(bytes(received[LENGTHS.size : start]), bytes(received[start:wanted]))
            except ValueError:
                raise Unanswered(NO_ANSWER) from None

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

    def _end(self) -> str:
        """End the worker, and say how it had ended by itself."""
        time.sleep(EXITING)
        status, reason = self._end_worker()
        if reason:
            return EXCEEDED[reason]
        if status is None:
            return "its process ended without an answer"
        if status < 0:
            return f"its process was ended by {signal.Signals(-status).name} before it had answered"
        return f"its process ended, with exit status {status}, before it had answered"

    def close(self) -> None:
        """End the worker, and read the last of its output."""
        self._answers.close()
        self._end_worker()
        deadline = time.monotonic() + WARDEN_TIMEOUT
        while self._output is not None and time.monotonic() < deadline:
            if not select.select([self._output], [], [], 0)[0]:
                break
            self._read_output()
        if self._output is not None:
            os.close(self._output)
            self._output = None


def readable(string: str) -> str:
    """Replace the control characters in a submission's string."""
    return "".join(each if each.isprintable() or each in "\n\t" else "\ufffd" for each in string.replace("\r\n", "\n"))
