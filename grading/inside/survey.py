"""The survey of a machine: the walls that can be put up, and the gaps that they leave.

A process like a session's puts the walls up, and then tries harmlessly to reach files, the network and other processes.
An attempt counts only if it succeeds. For some, only the warden can tell: it received a signal, or finds a queue.

The paths that it tries to open tell where the project is. Submissions must not find them in the warden's memory, which
they inherit, so the warden never reads them: they wait in a socket that only the survey's processes read.
"""

import contextlib
import fcntl
import json
import os
import select
import signal
import socket
import struct
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

from grading.inside import landlock, processes
from grading.inside.system_calls import call_denied
from grading.inside.walls import WALLS, Allowance, Confinement, allowance

START = 20.0  # seconds for walls to be put up
USERS = range(60600, 61184)  # IDs that Linux distributions leave unused
IGNORABLE = signal.SIGURG  # a process without a handler for this signal ignores it
FOR_ALL = 0o666  # the mode of a queue: as if an earlier session had left it
CREATE, NO_WAIT, REMOVE = 0o1000, 0o4000, 0  # a flag of msgget, a flag of msgsnd, a command of msgctl
PRIVATE, KEYS = 0, 2**30  # no key of a System V queue; the first key, to which a process ID is added
SMALL = struct.pack("8l", 0, 1, 1, 0, 0, 0, 0, 0)  # a POSIX queue of one message of one byte
Attempt = Callable[[], object]


def survey(wanted: Sequence[str], outside: socket.socket, readable: Sequence[str], folder: Path) -> Confinement:
    """Find out which walls this machine has by putting them up, and the gaps that they leave.

    Args:
        outside: contains a list of paths of files outside the walls, in JSON.
        folder: is where the folders of a session are made for the time being.
    """
    code, scratch = folder / "code", folder / "scratch"
    code.mkdir()
    scratch.mkdir()
    job = {"code": str(code), "scratch": str(scratch), "seconds": 10}
    missing: dict[str, str] = {}
    user = os.getuid()
    if "user" in wanted:
        if user == 0:
            user = _unused_user()
            os.chown(scratch, user, user)
        else:
            missing["user"] = "the grader is not root"
    if "landlock" in wanted and not landlock.version():
        missing["landlock"] = "this kernel has none"
    while True:
        walls = [wall for wall in WALLS if wall in wanted and wall not in missing]
        found = _put_up(walls, allowance(job, walls, user, readable), outside)
        if "wall" not in found:
            break
        missing[found["wall"]] = found["reason"]
    code.rmdir()
    scratch.rmdir()
    gaps = found.get("gaps", ["everything: the process within the walls gave no report"])
    user = user if "user" in walls else os.getuid()
    return Confinement(walls, landlock.version() if "landlock" in walls else 0, user, gaps, missing)


def _unused_user() -> int:
    """Reserve a user ID that no other warden has, by a socket name that is freed when this process ends."""
    for user in USERS:
        with contextlib.suppress(OSError):
            lock = socket.socket(socket.AF_UNIX)
            lock.bind(f"\0models.py grader, user {user}")
            _locks.append(lock)
            return user
    raise OSError(f"more than {len(USERS)} sandboxes at a time")


_locks: list[socket.socket] = []


def _put_up(walls: Sequence[str], rights: Allowance, outside: socket.socket) -> dict[str, Any]:
    """Put walls up around a process that tries to reach things outside; return its reports, completed by traces."""
    warden = os.getpid()
    with _queue_attempts() as queues, _received_signals() as received:

        def try_to_reach(report: int) -> None:
            paths = json.loads(socket.socket(fileno=3).recv(2**16, socket.MSG_PEEK))
            leave_traces(warden)
            processes.write_report(report, {"gaps": reached(paths, queues)})

        null = os.open(os.devnull, os.O_RDWR)
        leader, report = processes.start(walls, rights, outside.fileno(), null, try_to_reach)
        os.close(null)
        found: dict[str, Any] = {}
        while not {"status", "wall"} & found.keys() and select.select([report], [], [], START)[0]:
            if not (news := processes.read_reports(report)):
                break
            found |= news
        os.close(report)
        processes.end(leader)
    traces = [*received, *remove_queues(warden)]
    if traces and "gaps" in found:
        found["gaps"] = sorted({*found["gaps"], "other processes"})
    return found


def reached(outside: Sequence[str], queues: Sequence[Attempt]) -> list[str]:
    """Try to reach files, the network and other processes' queues, and return the kinds of things reached."""
    ways: dict[str, list[Attempt]] = {
        "files": [
            *(lambda path=path: os.close(os.open(path, os.O_RDONLY)) for path in outside),
            *(lambda path=path: os.close(os.open(path, os.O_WRONLY)) for path in outside),
            lambda: os.listdir("/proc/self"),
        ],
        "network": [
            lambda: socket.socket(socket.AF_INET, socket.SOCK_DGRAM).connect(("127.0.0.1", 9)),
            lambda: socket.create_connection(("127.0.0.1", 9), 1),
        ],
        "other processes": [*queues],
    }
    found = []
    for kind, attempts in ways.items():
        for attempt in attempts:
            with contextlib.suppress(OSError):
                with contextlib.suppress(ConnectionRefusedError):  # it shows that there is a network
                    attempt()
                found.append(kind)
    return sorted({*found})


def leave_traces(process: int) -> None:
    """Try to signal a process, directly and by way of a pipe, and to leave queues, which outlive this process."""
    attempts: list[Attempt] = [
        lambda: os.kill(process, IGNORABLE),
        lambda: _signal_by_a_pipe(process),
        lambda: call_denied("msgget", KEYS + process, CREATE | FOR_ALL),
        lambda: call_denied("mq_open", _name(process, "left"), os.O_CREAT | os.O_RDWR, FOR_ALL, SMALL),
    ]
    for attempt in attempts:
        with contextlib.suppress(OSError):
            attempt()


def _signal_by_a_pipe(process: int) -> None:
    """Have the kernel signal a process when a pipe is written to."""
    if not hasattr(fcntl, "F_SETSIG"):  # the signal could not be chosen, and would end the process
        return
    reader, writer = os.pipe()
    try:
        fcntl.fcntl(reader, fcntl.F_SETOWN, process)
        fcntl.fcntl(reader, fcntl.F_SETSIG, IGNORABLE)
        fcntl.fcntl(reader, fcntl.F_SETFL, os.O_ASYNC)
        os.write(writer, b"x")
    finally:
        os.close(reader)
        os.close(writer)


@contextlib.contextmanager
def _received_signals() -> Iterator[list[int]]:
    """Collect the signals that this process receives."""
    received: list[int] = []
    before = signal.signal(IGNORABLE, lambda number, _: received.append(number))
    try:
        yield received
    finally:
        signal.signal(IGNORABLE, before)


def remove_queues(process: int) -> list[str]:
    """Remove the queues that were left for a process, and return their kinds."""
    found = []
    with contextlib.suppress(OSError):
        call_denied("msgctl", call_denied("msgget", KEYS + process, 0), REMOVE, None)
        found.append("System V")
    with contextlib.suppress(OSError):
        call_denied("mq_unlink", _name(process, "left"))
        found.append("POSIX")
    return found


@contextlib.contextmanager
def _queue_attempts() -> Iterator[list[Attempt]]:
    """Make a System V and a POSIX queue, and yield the attempts to use and to remove them; none for a missing kind."""
    attempts: list[Attempt] = []
    with contextlib.ExitStack() as stack:
        with contextlib.suppress(OSError):
            queue = call_denied("msgget", PRIVATE, FOR_ALL)
            message = struct.pack("ll", 1, 0)
            stack.callback(_remove, "msgctl", queue, REMOVE, None)
            attempts += [
                lambda: call_denied("msgsnd", queue, message, 8, NO_WAIT),
                lambda: call_denied("msgctl", queue, REMOVE, None),
            ]
        with contextlib.suppress(OSError):
            name = _name(os.getpid(), "own")
            opened = call_denied("mq_open", name, os.O_CREAT | os.O_RDWR, FOR_ALL, SMALL)
            stack.callback(_remove, "mq_unlink", name)
            os.fchmod(opened, FOR_ALL)  # without the mask of new files
            os.close(opened)
            attempts += [
                lambda: os.close(call_denied("mq_open", name, os.O_RDWR, 0, None)),
                lambda: call_denied("mq_unlink", name),
            ]
        yield attempts


def _name(process: int, kind: str) -> bytes:
    return f"models.py-grader-{process}-{kind}".encode()


def _remove(name: str, *arguments: int | bytes | None) -> None:
    with contextlib.suppress(OSError):  # the survey has removed the queue
        call_denied(name, *arguments)
