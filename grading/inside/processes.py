"""The processes of a session: started inside walls, measured while they run, and ended together.

    the *leader* puts up the walls (``walls.py``) and forks
        the init of its PID namespace, where there is one, and
        the *worker*, which does the session's work.

The seccomp wall keeps them in the leader's process group, so that one signal to the group ends the session. Where there
is a PID namespace, the kernel ends all of its processes with its init.
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

from grading.inside import namespaces, walls
from grading.inside.system_calls import PARENT_DIED, prctl
from grading.inside.walls import Allowance, Unavailable

PROCESSES = 8
HELPERS = 2  # the leader and the init
DYING = 5.0  # seconds in which all processes of a session are gone


def start(
    wanted: Sequence[str], allowance: Allowance, answers: int, output: int, work: Callable[[int], None]
) -> tuple[int, int]:
    """Start the processes of a session within the wanted walls.

    Args:
        wanted, allowance: the walls to put up, and the rights that they leave.
        answers, output: become the worker's file descriptor 3, and its stdout and stderr.
        work: is called in the worker with the descriptor for its reports.

    Returns:
        The process ID of the leader and of its process group; and a descriptor to read reports from. A report is a line
        of JSON: {"status": …} when the worker has ended, {"wall": …, "reason": …} for a wall that could not be put up.
    """
    report, theirs = os.pipe()
    if (leader := os.fork()) == 0:
        _lead(wanted, allowance, (output, answers, theirs), work)
    os.close(theirs)
    return leader, report


def _lead(
    wanted: Sequence[str], allowance: Allowance, descriptors: tuple[int, int, int], work: Callable[[int], None]
) -> NoReturn:
    """Close the warden's descriptors, put up walls, fork the worker, and report its exit status."""
    try:
        os.setsid()
        # Move all of them above 4 first: their numbers can be among 0 to 4 already.
        null = os.open(os.devnull, os.O_RDONLY)
        null, output, answers, report = (fcntl.fcntl(fd, fcntl.F_DUPFD, 16) for fd in (null, *descriptors))
        for place, fd in enumerate((null, output, output, answers, report)):
            os.dup2(fd, place)
        os.closerange(5, 2**20)
        warden = os.getppid()
        try:
            walls.enclose(wanted, allowance)
            signal.signal(signal.SIGTERM, lambda *_: os.killpg(0, signal.SIGKILL))
            prctl(PARENT_DIED, signal.SIGTERM)  # after the change of user, which would reset it
            if os.getppid() != warden:
                os._exit(0)
            if "namespaces" in wanted and os.fork() == 0:
                namespaces.be_init()
            if (worker := os.fork()) == 0:
                signal.signal(signal.SIGTERM, signal.SIG_DFL)
                prctl(PARENT_DIED, signal.SIGKILL)
                walls.lock(wanted, allowance)
                work(4)
                os._exit(0)
            for fd in range(4):
                os.close(fd)
            write_report(4, {"status": os.waitstatus_to_exitcode(os.waitpid(worker, 0)[1])})
        except Unavailable as error:
            write_report(4, {"wall": error.wall, "reason": error.reason})
    finally:
        os._exit(0)


def write_report(report: int, message: dict[str, Any]) -> None:
    os.write(report, json.dumps(message).encode() + b"\n")


def read_reports(report: int) -> dict[str, Any]:
    """Merge all reports until now into one dictionary."""
    os.set_blocking(report, False)
    text = b""
    with contextlib.suppress(BlockingIOError):
        while part := os.read(report, 2**16):
            text += part
    found: dict[str, Any] = {}
    for line in text.splitlines():
        found |= json.loads(line)
    return found


def end(leader: int) -> bool:
    """Kill a session's process group, and return whether all of its processes are gone."""
    with contextlib.suppress(ProcessLookupError, PermissionError):
        os.killpg(leader, signal.SIGKILL)
    deadline = time.monotonic() + DYING
    with contextlib.suppress(ChildProcessError):
        while time.monotonic() < deadline:  # the warden is a subreaper, and inherits all orphans
            if not os.waitpid(-1, os.WNOHANG)[0]:
                time.sleep(0.001)
        return False
    return True


def resident_memory(group: int) -> dict[int, int]:
    """Measure the memory of each process of a process group, in bytes; none on systems without /proc."""
    found = {}
    for entry in Path("/proc").glob("[0-9]*/stat"):
        with contextlib.suppress(OSError):
            # The program's name, in brackets, can contain any character. The other fields follow it.
            fields = entry.read_text(errors="replace").rpartition(")")[2].split()
            if int(fields[2]) == group and fields[0] != "Z":
                found[int(entry.parent.name)] = int(fields[21]) * resource.getpagesize()
    return found


def disk_use(folder: str) -> tuple[int, int]:
    """Return the bytes and the number of all files and folders below a folder; 2**62 where one cannot be listed."""
    size = count = 0
    try:
        for _, folders, files, fd in os.fwalk(folder, onerror=_unless_gone):
            for name in (*folders, *files):
                with contextlib.suppress(FileNotFoundError):
                    size += os.stat(name, dir_fd=fd, follow_symlinks=False).st_blocks * 512
                    count += 1
            if count > walls.SCRATCH_FILES:
                break
    except (OSError, RecursionError):
        return 2**62, 2**62
    return size, count


def _unless_gone(error: OSError) -> None:
    if not isinstance(error, FileNotFoundError):
        raise error


def exceeded_limit(leader: int, own: int, scratch: str | None) -> str:
    """Return the limit that the processes of a session exceed together; "" for none.

    Args:
        own: bytes of memory that each process inherited from the warden, which do not count.
        scratch: the folder to measure; None where the kernel bounds it.
    """
    used = resident_memory(leader)
    if len(used) > PROCESSES + HELPERS:
        return "processes"
    if sum(max(0, each - own) for each in used.values()) > walls.MEMORY:
        return "memory"
    if scratch is not None:
        size, count = disk_use(scratch)
        if size > walls.SCRATCH_BYTES or count > walls.SCRATCH_FILES:
            return "disk"
    return ""
