"""Where a submission runs: in a process apart, with limits, and cleaned up after.

    with Sandbox() as sandbox, sandbox.session({"models.py": b"…"}, seconds=10) as session:
        session.ask("load")
        weights = session.ask("bias").array("weights")

A session is one worker process (``worker.py``), which starts with nothing of an earlier one. Its memory, time, number of
processes and size of files are bounded; its working directory is empty and its own; what it prints is collected, and
cut. When the session ends all that it started is ended, also what has left its process group or outlived its parent
(on Linux; elsewhere its process group).

This keeps mistakes, and tricks played on Python, from doing harm or gaining points. It is no container: a submission
runs as the user who grades. It can read that user's files, the data set and this project among them, if it finds them;
it can use the network, fill the disk with many files, and send signals to the user's other processes. Where that
matters, run the grader itself in a container, as Gradescope does.
"""

import contextlib
import fcntl
import json
import os
import select
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from types import TracebackType
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

import worker

MEMORY = 4 * 2**30  # bytes, of all processes of a session together
PROCESSES = 8
PIPE = 2**20  # bytes
PRINTED = 2**14  # bytes that are kept of what a submission prints
PATIENCE = 5.0  # seconds for what the warden does in milliseconds
START = 120.0  # seconds for it to load torch


class Unanswered(Exception):
    """The submission gave no usable answer; says why, to its author."""


class Answer:
    """An answer from a process that nobody has to trust: each accessor checks what it gives."""

    def __init__(self, value: Any) -> None:
        self._value = value

    def _get(self, name: str) -> Any:
        if not isinstance(self._value, dict) or name not in self._value:
            raise Unanswered("the answer from the submission's process has another form than its question asks for")
        return self._value[name]

    def _checked(self, value: Any, kind: type) -> Any:
        if not isinstance(value, kind):
            raise Unanswered("the answer from the submission's process has another form than its question asks for")
        return value

    def __contains__(self, name: str) -> bool:
        return isinstance(self._value, dict) and name in self._value

    def array(self, name: str) -> NDArray[np.float64]:
        """An array, in double precision."""
        return self._array(self._get(name))

    def arrays(self, name: str) -> list[NDArray[np.float64]]:
        """A list of arrays."""
        return [self._array(each) for each in self._checked(self._get(name), list)]

    def named_arrays(self, name: str | None = None) -> dict[str, NDArray[np.float64]]:
        """Arrays by name; the whole answer without one."""
        value = self._checked(self._value if name is None else self._get(name), dict)
        return {key: self._array(each) for key, each in value.items()}

    def texts(self, name: str) -> list[str]:
        """A list of strings."""
        return [self._checked(each, str) for each in self._checked(self._get(name), list)]

    def text_lists(self, name: str) -> list[list[str]]:
        """A list of lists of strings."""
        lists = self._checked(self._get(name), list)
        return [[self._checked(text, str) for text in self._checked(each, list)] for each in lists]

    def integers(self, name: str) -> list[int]:
        """A list of integers."""
        return [self._checked(each, int) for each in self._checked(self._get(name), list)]

    def shapes(self, name: str) -> list[tuple[int, ...]]:
        """A list of shapes."""
        lists = self._checked(self._get(name), list)
        return [tuple(self._checked(size, int) for size in self._checked(each, list)) for each in lists]

    def _array(self, value: Any) -> NDArray[np.float64]:
        return np.asarray(self._checked(value, np.ndarray), dtype=np.float64)


class Session:
    """One worker; made by ``Sandbox.session``."""

    def __init__(self, answers: socket.socket, output: int, sandbox: "Sandbox", seconds: float) -> None:
        self._answers = answers
        self._output: int | None = output
        self._sandbox = sandbox
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

    def ask(self, question: str, **arguments: Any) -> Answer:
        """One of the methods of ``worker.Submission``.

        Raises:
            Unanswered: its code failed, took too long, ended the process or gave something that is no answer.
        """
        if self._ended is not None:
            raise self._ended
        try:
            reply = self._exchange(worker.pack([question, arguments]))
        except Unanswered as error:
            self._ended = error
            raise
        if isinstance(reply, dict) and isinstance(reply.get("error"), str):
            raise Unanswered(readable(reply["error"]))
        if not isinstance(reply, dict) or "answer" not in reply:
            raise Unanswered("something that is no answer came from the submission's process")
        return Answer(reply["answer"])

    def _exchange(self, message: bytes) -> Any:
        """Send a message, and receive one, never waiting for the other side beyond the deadline."""
        to_send, received = memoryview(message), bytearray()
        wanted: int | None = None
        while wanted is None or len(received) < wanted:
            if (left := self._deadline - time.monotonic()) <= 0:
                raise Unanswered(f"no answer within {self._seconds:g} seconds: an endless loop, or waiting for input?")
            readers = [fd for fd in (self._answers, self._output) if fd is not None]
            readable, writable, _ = select.select(readers, [self._answers] if to_send else [], [], left)
            if self._output in readable:
                self._read_output()
            try:
                if writable:
                    to_send = to_send[self._answers.send(to_send) :]
                part = self._answers.recv(2**20) if self._answers in readable else None
            except BlockingIOError:
                continue
            except OSError:  # the other side is gone
                part = b""
            if part == b"":
                raise Unanswered(self._end())
            received += part or b""
            if wanted is None and len(received) >= worker.LENGTHS.size:
                try:
                    wanted = worker.LENGTHS.size + sum(worker.lengths(received[: worker.LENGTHS.size]))
                except ValueError:
                    raise Unanswered("something that is no answer came from the submission's process") from None
        try:
            text, payload = worker.lengths(received[: worker.LENGTHS.size])
            start = worker.LENGTHS.size
            return worker.unpack(bytes(received[start : start + text]), bytes(received[start + text : wanted]))
        except ValueError:
            raise Unanswered("something that is no answer came from the submission's process") from None

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
        status, reason = self._sandbox.end_worker()
        if reason == "memory":
            return f"it used more than {MEMORY // 2**30} GiB of memory and was ended"
        if reason == "processes":
            return f"it started more than {PROCESSES} processes and was ended"
        if status is None:
            return "its process ended without an answer"
        if status < 0:
            return f"its process was ended by {signal.Signals(-status).name} before it had answered"
        return f"its process ended, with exit status {status}, before it had answered"

    def close(self) -> None:
        """End the worker, and read what it had printed last."""
        self._answers.close()
        self._sandbox.end_worker()
        deadline = time.monotonic() + PATIENCE
        while self._output is not None and time.monotonic() < deadline:
            if not select.select([self._output], [], [], 0)[0]:
                break
            self._read_output()
        if self._output is not None:
            os.close(self._output)
            self._output = None


class Sandbox:
    """A warden process, which has loaded torch once, and can run one session at a time."""

    def __init__(self) -> None:
        self._root = Path(tempfile.mkdtemp(prefix="grader-"))
        self._mark = f"GRADER_SANDBOX={os.urandom(8).hex()}"
        self._warden: subprocess.Popen[bytes] | None = None
        self._control: socket.socket | None = None
        self._working = False

    def __enter__(self) -> "Sandbox":
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self._stop()
        remove(self._root)

    @contextlib.contextmanager
    def session(self, files: Mapping[str, bytes], seconds: float) -> Iterator[Session]:
        """Start a worker for a submission.

        Args:
            files: the contents of models.py and of what lies beside it, by their paths in the submission.
            seconds: from now on until its last answer.
        """
        folder = Path(tempfile.mkdtemp(dir=self._root))
        code, empty = folder / "code", folder / "empty"
        empty.mkdir()
        for name, content in files.items():
            (code / name).parent.mkdir(parents=True, exist_ok=True)
            (code / name).write_bytes(content)
        control = self._start()
        ours, theirs = socket.socketpair()
        output, their_output = os.pipe()
        if sys.platform == "linux":
            fcntl.fcntl(their_output, fcntl.F_SETPIPE_SZ, PIPE)  # a gigabyte of print() is over in a second
        job = {
            "code": str(code),
            "folder": str(empty),
            "memory": MEMORY,
            "processes": PROCESSES,
            "seconds": seconds,
        }
        try:
            socket.send_fds(control, [json.dumps(job).encode()], [theirs.fileno(), their_output])
        finally:
            theirs.close()
            os.close(their_output)
        self._working = True
        ours.setblocking(False)
        os.set_blocking(output, False)
        session = Session(ours, output, self, seconds)
        try:
            yield session
        finally:
            session.close()
            remove(folder)

    def end_worker(self) -> tuple[int | None, str]:
        """End the running worker and all that it started.

        Returns:
            Its exit status, if it had ended by itself, and the limit for which it was ended, if it was.
        """
        if not self._working:
            return None, ""
        self._working = False
        assert self._control is not None
        try:
            self._control.send(b"end")
            self._control.settimeout(PATIENCE)
            report = json.loads(self._control.recv(4096))
            return report["status"], report["reason"]
        except (OSError, ValueError):  # the submission has killed the warden, or stopped it
            if self._warden is not None:
                self._warden.kill()
            self._stop()
            return None, ""

    def _start(self) -> socket.socket:
        """The warden's socket; of a new one where there is none."""
        if self._control is not None and self._warden is not None and self._warden.poll() is None:
            return self._control
        self._stop()
        # A copy, lest a submission learn from its traceback where this project and its data are.
        program = self._root / "worker.py"
        shutil.copyfile(worker.__file__, program)
        packages = {str(Path(str(package.__file__)).parent.parent) for package in (torch, np)}
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        name, value = self._mark.split("=")
        environment = {
            "PATH": os.defpath,
            "LANG": "C.UTF-8",
            "HOME": str(self._root),
            "CUDA_VISIBLE_DEVICES": "",
            name: value,
            **{f"{library}_NUM_THREADS": "1" for library in ("OMP", "MKL", "OPENBLAS")},
            **{name: os.environ[name] for name in ("LD_LIBRARY_PATH",) if name in os.environ},
        }
        self._warden = subprocess.Popen(
            [sys.executable, "-I", str(program), str(theirs.fileno()), *sorted(packages)],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            pass_fds=[theirs.fileno()],
            env=environment,
            cwd=self._root,
            start_new_session=True,  # Ctrl-C is for the grader, which then ends this
        )
        theirs.close()
        self._control = ours
        ours.settimeout(START)
        try:
            started = ours.recv(64) == b"ready"
        except OSError:
            started = False
        if not started:
            self._stop()
            raise RuntimeError("the process for submissions did not start")
        return ours

    def _stop(self) -> None:
        """End the warden; it takes what it has started with it, and what it cannot any more is found by its mark."""
        if self._control is not None:
            self._control.close()
            self._control = None
        if self._warden is not None:
            try:
                self._warden.wait(PATIENCE)
            except subprocess.TimeoutExpired:
                self._warden.kill()
                self._warden.wait()
            self._warden = None
        for environment in Path("/proc").glob("[0-9]*/environ"):
            with contextlib.suppress(OSError):
                if self._mark.encode() in environment.read_bytes():
                    os.kill(int(environment.parent.name), signal.SIGKILL)


def readable(text: str) -> str:
    """Text of a submission without the characters that steer a terminal."""
    return "".join(each if each.isprintable() or each in "\n\t" else "\ufffd" for each in text.replace("\r\n", "\n"))


def remove(folder: Path) -> None:
    """Delete a folder, also where a submission has taken away its own permissions."""

    def allow(_: Any, path: str, __: Any) -> None:
        with contextlib.suppress(OSError):
            os.chmod(os.path.dirname(path), 0o700)
            os.chmod(path, 0o700)
            if os.path.isdir(path):
                shutil.rmtree(path, ignore_errors=True)
            else:
                os.unlink(path)

    shutil.rmtree(folder, onerror=allow)
