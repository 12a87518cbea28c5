"""Where a submission runs: in a process apart, with limits, and cleaned up after.

    with Sandbox() as sandbox, sandbox.session({"models.py": b"…"}, seconds=10) as session:
        session.ask("load")
        weights = session.ask("bias").array("weights")

A session is one worker process, which starts with nothing of an earlier one. Its memory, time, number of processes and
size of files are bounded; its working directory is empty and its own; what it prints is collected, and cut. When the
session ends all that it started is ended, also what has left its process group or outlived its parent (on Linux;
elsewhere its process group).

This keeps mistakes, and tricks played on Python, from doing harm or gaining points. It is no container: a submission
runs as the user who grades. It can read that user's files, the data set and this project among them, if it finds them;
it can use the network, fill the disk with many files, and send signals to the user's other processes. Where that
matters, run the grader itself in a container, as Gradescope does.

Nor can it tell who computed an answer. Code that was written with ``worker.py`` at hand can put its own methods in
place of those, and hand over arrays that its network does not hold: zeros for a bias that has none, for instance.
"""

import contextlib
import fcntl
import json
import os
import secrets
import select
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from types import TracebackType
from typing import Any

import numpy as np
import torch

from grading.messages import LENGTHS, NO_ANSWER, Answer, Unanswered, lengths, pack, unpack
from grading.warden import BECOME_SUBREAPER, descendants, parents, prctl

MEMORY = 4 * 2**30  # bytes, of all processes of a session together
PROCESSES = 8
PIPE = 2**20  # bytes
PRINTED = 2**14  # bytes that are kept of what a submission prints
PATIENCE = 5.0  # seconds for what the warden does in milliseconds
DYING = 0.2  # seconds in which a process that has closed its channel is over, and its exit status known
START = 120.0  # seconds for it to load torch
CODE, EMPTY = "code", "empty"
PACKETS = socket.SOCK_SEQPACKET if sys.platform == "linux" else socket.SOCK_STREAM
PROGRAM = "import sys; sys.path[:] = [sys.argv[2], *sys.path, *sys.argv[3:]]; from grading import warden; warden.main()"


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
        time.sleep(DYING)
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
    """A warden process, which has loaded torch once, and can run one session at a time.

    Raises:
        OSError: from ``session``: the warden cannot be started, or files cannot be written for it.
    """

    def __init__(self) -> None:
        self._root: Path | None = None  # the warden's folder: a new one for each
        self._warden: subprocess.Popen[bytes] | None = None
        self._control: socket.socket | None = None
        self._working = False

    def __enter__(self) -> "Sandbox":
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self._stop()

    @contextlib.contextmanager
    def session(self, files: Mapping[str, bytes], seconds: float) -> Iterator[Session]:
        """Start a worker for a submission.

        Args:
            files: the contents of models.py and of what lies beside it, by their paths in the submission.
            seconds: from now on until its last answer.
        """
        control = self._start()
        try:
            folder = self._unpack(files)
        except OSError:  # an earlier submission has deleted what it could find
            self._stop()
            control = self._start()
            folder = self._unpack(files)
        ours, theirs = socket.socketpair()
        output, their_output = os.pipe()
        if sys.platform == "linux":
            with contextlib.suppress(OSError):
                fcntl.fcntl(their_output, fcntl.F_SETPIPE_SZ, PIPE)  # a gigabyte of print() is over in a second
        job = {
            "code": str(folder / CODE),
            "folder": str(folder / EMPTY),
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

    def _unpack(self, files: Mapping[str, bytes]) -> Path:
        """A new folder with a submission's files in one inner folder, and an empty one."""
        folder = Path(tempfile.mkdtemp(dir=self._root))
        (folder / EMPTY).mkdir()
        for name, content in files.items():
            path = folder / CODE / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(content)
        return folder

    def cancel(self) -> None:
        """From another thread: have everything ended, so that the session's next answer is that there is none."""
        if self._control is not None:
            with contextlib.suppress(OSError):
                self._control.shutdown(socket.SHUT_RDWR)

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
        # A copy, lest a submission learn from a traceback where this project and its data are.
        here, root = Path(__file__).parent, Path(tempfile.mkdtemp(prefix="grader-"))
        self._root = root
        (root / here.name).mkdir()
        for name in ("__init__.py", "messages.py", "worker.py", "warden.py"):
            shutil.copyfile(here / name, root / here.name / name)
        packages = {str(Path(str(package.__file__)).parent.parent) for package in (torch, np)}
        ours, theirs = socket.socketpair(socket.AF_UNIX, PACKETS)
        environment = {
            "PATH": os.defpath,
            "LANG": "C.UTF-8",
            "HOME": str(root),
            "CUDA_VISIBLE_DEVICES": "",
            "TORCHDYNAMO_DISABLE": "1",  # compiling takes longer than a check, and processes
            **{f"{library}_NUM_THREADS": "1" for library in ("OMP", "MKL", "OPENBLAS")},
            **{name: os.environ[name] for name in ("LD_LIBRARY_PATH",) if name in os.environ},
        }
        prctl(BECOME_SUBREAPER, 1)  # what a warden leaves that was killed comes to this process, not to init
        with _lock:
            self._warden = subprocess.Popen(
                [sys.executable, "-I", "-B", "-c", PROGRAM, str(theirs.fileno()), str(root), *sorted(packages)],
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                pass_fds=[theirs.fileno()],
                env=environment,
                cwd=root,
                start_new_session=True,  # Ctrl-C is for the grader, which then ends this
            )
            _wardens.add(self._warden.pid)
        theirs.close()
        self._control = ours
        ours.settimeout(START)
        try:
            started = ours.recv(64) == b"ready"
        except OSError:
            started = False
        if not started:
            self._stop()
            raise OSError("the process in which submissions run did not start")
        return ours

    def _stop(self) -> None:
        """End the warden; it takes what it has started with it, or, if it was killed, leaves that to this process."""
        if self._control is not None:
            self._control.close()
            self._control = None
        if self._warden is not None:
            try:
                self._warden.wait(PATIENCE)
            except subprocess.TimeoutExpired:
                self._warden.kill()
                self._warden.wait()
            killed = self._warden.returncode != 0
            with _lock:
                _wardens.discard(self._warden.pid)
                if killed:
                    end_orphans()
            self._warden = None
        if self._root is not None:
            remove(self._root)
            self._root = None


# Of all sandboxes in this process: the wardens that live. The lock is held while one starts, or orphans are looked for.
_wardens: set[int] = set()
_lock = threading.Lock()


def end_orphans() -> None:
    """End what a killed warden has left: it has come to this process, but is neither of its session nor a warden."""
    until = time.monotonic() + PATIENCE
    while time.monotonic() < until and (
        orphans := [
            process
            for process, parent in parents()
            if parent == os.getpid() and process not in _wardens and _session_of(process) not in (os.getsid(0), None)
        ]
    ):
        for process in orphans:
            for each in [*descendants(process), process]:
                with contextlib.suppress(ProcessLookupError, PermissionError):
                    os.kill(each, signal.SIGKILL)
            with contextlib.suppress(ChildProcessError):
                os.waitpid(process, os.WNOHANG)


def _session_of(process: int) -> int | None:
    try:
        return os.getsid(process)
    except ProcessLookupError:
        return None


def readable(text: str) -> str:
    """Text of a submission without the characters that steer a terminal."""
    return "".join(each if each.isprintable() or each in "\n\t" else "\ufffd" for each in text.replace("\r\n", "\n"))


def remove(folder: Path) -> None:
    """Delete a folder, however deep, also where a submission has taken away its own permissions."""
    delete = ["rm", "-rf", "--", str(folder)]
    if subprocess.run(delete, stderr=subprocess.DEVNULL, check=False).returncode != 0:
        subprocess.run(["chmod", "-R", "u+rwx", "--", str(folder)], stderr=subprocess.DEVNULL, check=False)
        subprocess.run(delete, check=False)
