"""The process beside the grader that starts a submission's processes, limits them, and ends whatever they leave.

``sandbox.py`` starts a copy of this package with clean surroundings. The *warden* loads torch once; then, for each
check, it forks a *worker*, which loads the submission's models.py and answers questions (``worker.py``).
"""

import contextlib
import ctypes
import fcntl
import gc
import io
import json
import os
import resource
import select
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NoReturn

import torch

from grading.worker import Submission, answer_questions

PARENT_DIED, BECOME_SUBREAPER = 1, 36  # prctl(2)
LOOK_EVERY = 0.05  # seconds between looks at a worker's memory, or ten times what a look takes
LARGEST_FILE = 2**26  # bytes that a submission can write into one file


def work(job: dict[str, Any], answers: int, output: int) -> NoReturn:
    """Become the worker: leave everything of the warden's behind, and answer."""
    try:
        os.setsid()
        prctl(PARENT_DIED, signal.SIGKILL)
        null = os.open(os.devnull, os.O_RDONLY)
        # First out of the way of 0 to 3, whatever their numbers are.
        null, output, answers = (fcntl.fcntl(fd, fcntl.F_DUPFD, 16) for fd in (null, output, answers))
        for place, fd in enumerate((null, output, output, answers)):
            os.dup2(fd, place)
        os.closerange(4, 2**20)
        for kind, limit in (
            (resource.RLIMIT_DATA, job["memory"]),
            (resource.RLIMIT_CPU, int(job["seconds"]) * 4 + 4),
            (resource.RLIMIT_FSIZE, LARGEST_FILE),
            (resource.RLIMIT_CORE, 0),
        ):
            hard = resource.getrlimit(kind)[1]
            soft = limit if hard == resource.RLIM_INFINITY else min(limit, hard)
            with contextlib.suppress(ValueError, OSError):  # on systems without this one
                resource.setrlimit(kind, (soft, soft))
        assert isinstance(sys.stdout, io.TextIOWrapper)
        sys.stdout.reconfigure(line_buffering=True)  # what was printed last is not lost with the process
        os.environ["HOME"] = os.environ["TMPDIR"] = job["folder"]
        os.chdir(job["folder"])
        answer_questions(socket.socket(fileno=3), Submission(job["code"]))
    finally:
        os._exit(0)


def prctl(option: int, value: int) -> None:
    """Linux's prctl(2); nothing elsewhere."""
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(option, value, 0, 0, 0)


def parents() -> Iterator[tuple[int, int]]:
    """Every process and its parent; none on systems without /proc."""
    for entry in Path("/proc").glob("[0-9]*/stat"):
        with contextlib.suppress(OSError):
            # The name, in brackets, can hold anything; the parent is the second field after it.
            yield int(entry.parent.name), int(entry.read_text(errors="replace").rpartition(")")[2].split()[1])


def descendants(of: int) -> list[int]:
    """The processes that come from one, itself not among them."""
    children: dict[int, list[int]] = {}
    for process, parent in parents():
        children.setdefault(parent, []).append(process)
    found = list(children.get(of, []))
    for process in found:
        found += children.get(process, [])
    return found


def resident_memory(process: int) -> int:
    """Bytes; 0 of a process that is gone."""
    try:
        return int(Path(f"/proc/{process}/statm").read_text().split()[1]) * resource.getpagesize()
    except (OSError, IndexError):
        return 0


def end_all(worker: int) -> None:
    """End the worker and everything that it started, and wait until nothing of it is left."""
    with contextlib.suppress(ProcessLookupError, PermissionError):
        os.killpg(worker, signal.SIGKILL)
    while True:
        # Stopped first, so that none can start others while the list is made.
        stopped: set[int] = set()
        while new := set(descendants(os.getpid())) - stopped:
            for process in new:
                with contextlib.suppress(ProcessLookupError, PermissionError):
                    os.kill(process, signal.SIGSTOP)
            stopped |= new
        for process in stopped:
            with contextlib.suppress(ProcessLookupError, PermissionError):
                os.kill(process, signal.SIGKILL)
        try:
            while os.waitpid(-1, 0)[0]:
                pass
        except ChildProcessError:  # orphans come to the warden, so that none is left when it has no children
            return


def supervise(control: socket.socket, job: dict[str, Any], answers: int, output: int) -> bool:
    """Run one worker until the other side says so, and report its end: status, and why it was ended.

    Returns:
        False when the other side is gone.
    """
    worker = os.fork()
    if worker == 0:
        work(job, answers, output)
    os.close(answers)
    os.close(output)
    status: int | None = None
    reason, pause = "", LOOK_EVERY
    while not select.select([control], [], [], pause)[0]:
        looked = time.monotonic()
        with contextlib.suppress(ChildProcessError):
            while (ended := os.waitpid(-1, os.WNOHANG))[0]:
                if ended[0] == worker:
                    status = os.waitstatus_to_exitcode(ended[1])
        family = descendants(os.getpid())
        if len(family) > job["processes"]:
            reason = "processes"
        elif sum(map(resident_memory, family)) > job["memory"]:
            reason = "memory"
        if reason:
            end_all(worker)
        pause = max(LOOK_EVERY, 10 * (time.monotonic() - looked))
    with contextlib.suppress(ChildProcessError):
        while status is None and (ended := os.waitpid(worker, os.WNOHANG))[0]:
            status = os.waitstatus_to_exitcode(ended[1])
    there = bool(control.recv(64))
    end_all(worker)
    if there:
        control.send(json.dumps({"status": status, "reason": reason}).encode())
    return there


def main() -> None:
    """Be the warden: a job a message, with the two file descriptors for its worker."""
    control, root = socket.socket(fileno=int(sys.argv[1])), sys.argv[2]
    prctl(BECOME_SUBREAPER, 1)
    torch.set_num_threads(1)
    torch.set_flush_denormal(True)
    torch.optim.Adam([torch.nn.Parameter(torch.zeros(1))], fused=True)  # its imports take a second
    sys.path.pop(0)  # this package's: what is there already stays, and a submission's modules find nothing here
    del sys.argv[1:]
    gc.collect()
    gc.freeze()
    control.send(b"ready")
    while True:
        message, descriptors, _, _ = socket.recv_fds(control, 4096, 2)
        if not message or not supervise(control, json.loads(message), *descriptors):
            break
    subprocess.run(["rm", "-rf", "--", root], stderr=subprocess.DEVNULL, check=False)  # the grader may have been killed
