"""A session's processes: started inside walls, measured while they run, and ended together.

    a *guard*, which puts up the walls (``confinement.py``) and forks
        the init of its PID namespace, where there is one, and
        the *worker*, which does the session's work.

None of them can leave the guard's process group, so that one signal to the group ends the session; where there is a
PID namespace, the kernel ends what is in it with its init.
"""

import contextlib
import fcntl
import json
import os
import resource
import signal
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NoReturn

from grading import confinement, namespaces
from grading.confinement import Inside, Unavailable
from grading.kernel import PARENT_DIED, prctl

PROCESSES = 8
HELPERS = 2  # the guard and the init
DYING = 5.0  # seconds in which all processes of a session are gone


def fork_guarded(
    walls: Sequence[str], inside: Inside, answers: int, output: int, work: Callable[[int], None]
) -> tuple[int, int]:
    """Start a session.

    Args:
        walls: those to put up.
        inside: what it may do.
        answers, output: what become the worker's file 3, and its stdout and stderr.
        work: what the worker does; it is given the file into which it can report.

    Returns:
        The guard, who leads the session's process group; and the file from which reports come: a line of JSON each,
        {"status": …} when the worker has ended or {"wall": …, "reason": …} of one that could not be put up.
    """
    report, theirs = os.pipe()
    if (guard := os.fork()) == 0:
        _guard(walls, inside, (output, answers, theirs), work)
    os.close(theirs)
    return guard, report


def _guard(
    walls: Sequence[str], inside: Inside, descriptors: tuple[int, int, int], work: Callable[[int], None]
) -> NoReturn:
    """Leave everything of the warden's behind, put up walls, fork the worker, and say how it ended."""
    try:
        os.setsid()
        # First out of the way of 0 to 4, whatever their numbers are.
        null = os.open(os.devnull, os.O_RDONLY)
        null, output, answers, report = (fcntl.fcntl(fd, fcntl.F_DUPFD, 16) for fd in (null, *descriptors))
        for place, fd in enumerate((null, output, output, answers, report)):
            os.dup2(fd, place)
        os.closerange(5, 2**20)
        warden = os.getppid()
        try:
            confinement.enclose(walls, inside)
            signal.signal(signal.SIGTERM, lambda *_: os.killpg(0, signal.SIGKILL))
            prctl(PARENT_DIED, signal.SIGTERM)  # after the change of user, which would undo it
            if os.getppid() != warden:
                os._exit(0)
            if "namespaces" in walls and os.fork() == 0:
                namespaces.be_init()
            if (worker := os.fork()) == 0:
                signal.signal(signal.SIGTERM, signal.SIG_DFL)
                prctl(PARENT_DIED, signal.SIGKILL)
                confinement.lock(walls, inside)
                work(4)
                os._exit(0)
            for fd in range(4):
                os.close(fd)
            tell(4, {"status": os.waitstatus_to_exitcode(os.waitpid(worker, 0)[1])})
        except Unavailable as error:
            tell(4, {"wall": error.wall, "reason": error.reason})
    finally:
        os._exit(0)


def tell(report: int, message: dict[str, Any]) -> None:
    """Report something."""
    os.write(report, json.dumps(message).encode() + b"\n")


def read_reports(report: int) -> dict[str, Any]:
    """All that has been reported until now, in one dictionary."""
    os.set_blocking(report, False)
    text = b""
    with contextlib.suppress(BlockingIOError):
        while part := os.read(report, 2**16):
            text += part
    found: dict[str, Any] = {}
    for line in text.splitlines():
        found |= json.loads(line)
    return found


def end(guard: int) -> bool:
    """End a session's process group; returns whether nothing of it is left."""
    with contextlib.suppress(ProcessLookupError, PermissionError):
        os.killpg(guard, signal.SIGKILL)
    deadline = time.monotonic() + DYING
    with contextlib.suppress(ChildProcessError):
        while time.monotonic() < deadline:  # the warden is a subreaper: whose parent has ended becomes its child
            if not os.waitpid(-1, os.WNOHANG)[0]:
                time.sleep(0.001)
        return False
    return True


def resident_memory(group: int) -> dict[int, int]:
    """The processes of a process group and how much memory each has, in bytes; none on systems without /proc."""
    found = {}
    for entry in Path("/proc").glob("[0-9]*/stat"):
        with contextlib.suppress(OSError):
            # The name, in brackets, can hold anything; the others follow it.
            fields = entry.read_text(errors="replace").rpartition(")")[2].split()
            if int(fields[2]) == group and fields[0] != "Z":
                found[int(entry.parent.name)] = int(fields[21]) * resource.getpagesize()
    return found


def disk_use(folder: str) -> tuple[int, int]:
    """Bytes and number of all that lies below a folder; far too many of them where it cannot be walked through."""
    size = count = 0
    try:
        for _, folders, files, fd in os.fwalk(folder):
            for name in (*folders, *files):
                size += os.stat(name, dir_fd=fd, follow_symlinks=False).st_blocks * 512
                count += 1
            if count > confinement.SCRATCH_FILES:
                break
    except FileNotFoundError:
        pass
    except (OSError, RecursionError):
        return 2**62, 2**62
    return size, count


def over_limit(guard: int, own: int, memory: int, scratch: str | None) -> str:
    """The limit that a session as a whole has passed, or "".

    Args:
        guard: of the session.
        own: bytes that each of its processes had of the warden when it was forked.
        memory: bytes that they may have together beyond that.
        scratch: the folder to be measured; None where the kernel bounds it.
    """
    used = resident_memory(guard)
    if len(used) > PROCESSES + HELPERS:
        return "processes"
    if sum(max(0, each - own) for each in used.values()) > memory:
        return "memory"
    if scratch is not None:
        size, count = disk_use(scratch)
        if size > confinement.SCRATCH_BYTES or count > confinement.SCRATCH_FILES:
            return "disk"
    return ""
