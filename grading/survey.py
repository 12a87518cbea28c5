"""What a machine has to confine a submission with: found by doing it, before any submission is let in."""

import contextlib
import os
import resource
import select
import socket
import sysconfig
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch

from grading import confinement, landlock
from grading.confinement import Confinement, Inside
from grading.guard import end, fork_guarded, read_reports, tell

START = 20.0  # seconds for walls to be put up
TASKS = 64  # processes and threads of a session
USERS = range(60600, 61184)  # ids that Linux distributions give to nobody
LIBRARIES = ("/lib", "/lib64", "/usr/lib", "/usr/lib64", "/etc/ld.so.cache")


def survey(wanted: Sequence[str], outside: Sequence[str], readable: Sequence[str], folder: Path) -> Confinement:
    """Find out which walls this machine has, by putting them up, and what could be reached all the same.

    Args:
        wanted: the walls to try.
        outside: files that must not be reached.
        readable: what must.
        folder: where there is room for a session's folders.
    """
    code, scratch = folder / "code", folder / "scratch"
    code.mkdir()
    scratch.mkdir()
    job = {"code": str(code), "scratch": str(scratch), "memory": 2**32, "seconds": 10}
    walls = [wall for wall in confinement.WALLS if wall in wanted]
    missing: dict[str, str] = {}
    user = os.getuid()
    if "user" in walls:
        if user == 0:
            user = _unused_user()
        else:
            missing["user"] = "the grader is not root"
    if "landlock" in walls and not landlock.version():
        missing["landlock"] = "this kernel has none"
    warden = os.getpid()

    def try_out(report: int) -> None:
        tell(report, {"gaps": confinement.reached(outside, warden)})

    while True:
        walls = [wall for wall in walls if wall not in missing]
        if "user" in walls:
            os.chown(scratch, user, user)
        null = os.open(os.devnull, os.O_RDWR)
        guard, report = fork_guarded(walls, inside(job, walls, user, readable), null, null, try_out)
        os.close(null)
        found: dict[str, Any] = {}
        while not {"status", "wall"} & found.keys() and select.select([report], [], [], START)[0]:
            if not (news := read_reports(report)):
                break
            found |= news
        os.close(report)
        end(guard)
        if "wall" not in found:
            break
        missing[found["wall"]] = found["reason"]
    code.rmdir()
    scratch.rmdir()
    gaps = found.get("gaps", ["everything: what tried did not come back"])
    confined_user = user if "user" in walls else os.getuid()
    return Confinement(walls, landlock.version() if "landlock" in walls else 0, confined_user, gaps, missing)


def inside(job: dict[str, Any], walls: Sequence[str], user: int, readable: Sequence[str]) -> Inside:
    """What a session may do."""
    memory = job["memory"]
    shares_user = not {"user", "namespaces"} & {*walls}
    return Inside(
        readable=[*readable, job["code"]],
        scratch=job["scratch"],
        user=user,
        memory=memory,
        addresses=_mapped() + 2 * memory,
        tasks=TASKS + (_tasks_of_user() if shares_user else 0),
        seconds=job["seconds"],
    )


def installation() -> list[str]:
    """What Python, torch and numpy are made of: the files and folders that a submission may read."""
    folders = [sysconfig.get_path(name) for name in ("stdlib", "platstdlib")]
    folders += [str(Path(str(package.__file__)).parent.parent) for package in (torch, np)]
    with contextlib.suppress(OSError):
        mapped = Path("/proc/self/maps").read_text().splitlines()
        folders += [line.split(maxsplit=5)[5] for line in mapped if ".so" in line]
    found: list[str] = []
    for path in sorted({*LIBRARIES, *folders}):
        if os.path.exists(path) and not any(path.startswith(f"{each}/") for each in found):
            found.append(path)
    return found


def _unused_user() -> int:
    """A user id that no other warden has: a name that only one process can have, and that ends with it, says so."""
    for user in USERS:
        with contextlib.suppress(OSError):
            lock = socket.socket(socket.AF_UNIX)
            lock.bind(f"\0models.py grader, user {user}")
            _locks.append(lock)
            return user
    raise OSError(f"more than {len(USERS)} sandboxes at a time")


_locks: list[socket.socket] = []


def _mapped() -> int:
    """Bytes of addresses that this process has mapped; 2 to the 46 where that is not known."""
    try:
        return int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
    except OSError:
        return 2**46


def _tasks_of_user() -> int:
    """How many processes and threads the user has."""
    count = 0
    for entry in Path("/proc").glob("[0-9]*"):
        with contextlib.suppress(OSError):
            count += len(os.listdir(entry / "task")) if entry.stat().st_uid == os.getuid() else 0
    return count
