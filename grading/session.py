"""Asking one worker questions, without ever waiting for it beyond a deadline or trusting what it says."""

import os
import secrets
import select
import signal
import socket
import time
from collections.abc import Callable
from typing import Any

from grading.confinement import SCRATCH_BYTES, SCRATCH_FILES
from grading.guard import DYING, PROCESSES
from grading.messages import LENGTHS, NO_ANSWER, Answer, Unanswered, lengths, pack, unpack

MEMORY = 4 * 2**30  # bytes, of all processes of a session together
PRINTED = 2**14  # bytes that are kept of what a submission prints
WARDEN_TIMEOUT = DYING + 10.0  # seconds for what the warden does in milliseconds, or in DYING where something resists
EXITING = 0.2  # seconds in which a process that has closed its channel is over, and its exit status known


class Session:
    """One worker; made by ``Sandbox.session``."""

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
        """What the submission printed, on stdout and stderr, cut; without what would steer a terminal."""
        text = readable(self._printed.decode(errors="replace")).strip()
        return text + (f"\n[{self._dropped:,} more bytes]" if self._dropped else "")

    def ask(self, question: str, /, **arguments: Any) -> Answer:
        """One of the methods of ``worker.Submission``.

        Raises:
            Unanswered: its code failed, took too long, ended the process or gave something that is no answer.
        """
        if self._ended is not None:
            raise self._ended
        token = secrets.token_hex(8)  # what was written before the question came cannot be its answer
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
        """Send a message, and receive one, never waiting for the other side beyond the deadline."""
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
            except OSError:  # the other side is gone
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
        """End the worker; returns how it had ended by itself."""
        time.sleep(EXITING)
        status, reason = self._end_worker()
        if reason == "memory":
            return f"it used more than {MEMORY // 2**30} GiB of memory and was ended"
        if reason == "processes":
            return f"it started more than {PROCESSES} processes and was ended"
        if reason == "disk":
            return f"it wrote more than {SCRATCH_BYTES // 2**20} MiB or {SCRATCH_FILES} files and was ended"
        if status is None:
            return "its process ended without an answer"
        if status < 0:
            return f"its process was ended by {signal.Signals(-status).name} before it had answered"
        return f"its process ended, with exit status {status}, before it had answered"

    def close(self) -> None:
        """End the worker, and read what it had printed last."""
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


def readable(text: str) -> str:
    """Text of a submission without the characters that steer a terminal."""
    return "".join(each if each.isprintable() or each in "\n\t" else "\ufffd" for each in text.replace("\r\n", "\n"))
