"""The walls around a submission: limits of its rights that the operating system enforces.

    wall         means                                            stops
    namespaces   own mounts, process numbers and network: a       all files but the readable ones; seeing and signalling
                 root folder of read-only mounts, and a small     other processes; any network; processes that outlive
                 writable tmpfs (``namespaces.py``)               the session; writing more than the tmpfs holds
    landlock     rights to files, TCP, signals                    the same files; TCP; abstract sockets; signals
                 (``landlock.py``)
    seccomp      system calls given up                            sockets of any kind; calls into other processes;
                 (``system_calls.py``)                            queues that outlive a session; modes and times of
                                                                  files; leaving the process group
    user         a user ID that nothing else on the machine       the rights of the grader's user; closed files;
                 has, where the grader is root                    processes beyond a number
    limits       of one process (setrlimit), and of a session     memory, processes, disk and time beyond a bound
                 as a whole (``processes.py``)

After the fork from the warden, and before the first byte of the submission is read, a process puts the walls up around
itself. It cannot take them down again. Each wall is used where the machine has it (``survey.py``). Most attacks are
stopped by two or more walls, so that a mistake in one does not let them through; a test makes the table in
docs/grading.md.

bubblewrap would add nothing: it consists of namespaces, which most containers deny to their processes, also
Gradescope's. Landlock, seccomp and another user ID work there.
"""

import contextlib
import os
import resource
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from grading.inside import landlock, namespaces
from grading.inside.system_calls import give_up_calls, give_up_privileges

WALLS = ("namespaces", "landlock", "seccomp", "user", "limits")
MEMORY = 4 * 2**30  # bytes, of one process, and of all processes of a session together
SCRATCH_BYTES, SCRATCH_FILES = 2**27, 2**12
LARGEST_FILE, OPEN_FILES = 2**26, 64  # of one process
TASKS = 64  # processes and threads of a session


class Unavailable(Exception):
    """A wall that cannot be put up on this machine, and the reason."""

    def __init__(self, wall: str, reason: str) -> None:
        super().__init__(f"{wall}: {reason}")
        self.wall, self.reason = wall, reason


@dataclass(frozen=True)
class Allowance:
    """The rights of a submission's processes."""

    readable: Sequence[str]  # files and folders that can be read, with all below them
    scratch: str  # the only writable folder
    user: int  # the user ID, where the wall of that name is up
    addresses: int  # bytes that one process may have mapped, used or not
    tasks: int  # processes and threads that the user may have
    seconds: float  # of the session; a process may use four times as much CPU time


@dataclass(frozen=True)
class Confinement:
    """The walls of a machine, and the gaps that they leave."""

    walls: Sequence[str] = ()
    landlock: int = 0  # the version of its interface; 0 without
    user: int = -1  # of submissions; the grader's own without the wall of that name
    gaps: Sequence[str] = ("files", "network", "other processes")  # that a submission could still reach
    missing: dict[str, str] = field(default_factory=dict)  # the reason for each wall that is not up

    def __str__(self) -> str:
        words = {"landlock": f"Landlock {self.landlock}", "user": f"user {self.user}"}
        parts = [words.get(wall, wall) for wall in self.walls if wall != "limits"]
        if "network" not in self.gaps:
            parts.append("no network")
        if self.gaps:
            parts.append(f"but open: {', '.join(self.gaps)}")
        return ", ".join(parts)

    def refusal(self) -> str:
        """Say in one line why other people's files are not graded on this machine."""
        reasons = "; ".join(f"{wall}: {reason}" for wall, reason in self.missing.items())
        return (
            f"a submission could reach {', '.join(self.gaps)} on this machine ({reasons or 'walls were left out'}): "
            "--unconfined accepts the risk"
        )


def enclose(walls: Sequence[str], allowance: Allowance) -> None:
    """Put up the outer walls, all but ``lock``'s, around this process and those that it will fork.

    Where there are namespaces, the first child has to be their init. A wall that cannot be put up is ``Unavailable``.
    """
    other_user = "user" in walls
    if "namespaces" in walls:
        with _wall("namespaces"):
            try:
                namespaces.enter(privileged=True)
            except PermissionError:
                if other_user:
                    _become(allowance.user)
                namespaces.enter(privileged=False)
            owner = f",uid={allowance.user},gid={allowance.user}" if other_user else ""
            options = f"size={SCRATCH_BYTES},nr_inodes={SCRATCH_FILES},mode=700{owner}"
            namespaces.build_root(allowance.readable, allowance.scratch, options)
    if other_user:
        _become(allowance.user)
        for path in allowance.readable:
            if not os.access(path, os.R_OK | os.X_OK if os.path.isdir(path) else os.R_OK):
                raise Unavailable("user", f"{path} is closed to other users than the grader's")
    if "landlock" in walls:
        with _wall("landlock"):
            scratch = landlock.WRITE | landlock.READ
            if "namespaces" not in walls:  # deleted files that are open, and renamed folders, would not be measured
                scratch -= {"remove_file", "remove_dir"}
            rules = [(path, landlock.READ) for path in allowance.readable]
            rules += [(path, landlock.DEVICE) for path in namespaces.DEVICES]
            landlock.restrict([*rules, (allowance.scratch, scratch)])
    if {"namespaces", "landlock", "seccomp", "user"} & {*walls}:
        give_up_privileges()


def lock(walls: Sequence[str], allowance: Allowance) -> None:
    """Put up the inner walls, around the process that will run the submission, but not around its parent."""
    if "limits" in walls:
        limit(allowance)
    if "landlock" in walls:
        with _wall("landlock"):
            landlock.forbid_signals()
    if "seccomp" in walls:
        with _wall("seccomp"):
            give_up_calls()


def limit(allowance: Allowance) -> None:
    """Set limits of this process that it cannot raise again."""
    limits = {
        "DATA": MEMORY,
        "AS": allowance.addresses,
        "CPU": int(allowance.seconds) * 4 + 4,
        "FSIZE": LARGEST_FILE,
        "NOFILE": OPEN_FILES,
        "CORE": 0,
        "MEMLOCK": 0,
        "NPROC": allowance.tasks,
    }
    for name, wanted in limits.items():
        if (kind := getattr(resource, f"RLIMIT_{name}", None)) is not None:
            hard = resource.getrlimit(kind)[1]
            bound = wanted if hard == resource.RLIM_INFINITY else min(wanted, hard)
            with contextlib.suppress(ValueError, OSError):  # macOS lists some limits but does not support them
                resource.setrlimit(kind, (bound, bound))


def allowance(job: dict[str, Any], walls: Sequence[str], user: int, readable: Sequence[str]) -> Allowance:
    """Set the rights of a session within these walls."""
    shares_user = not {"user", "namespaces"} & {*walls}
    return Allowance(
        readable=[*readable, job["code"]],
        scratch=job["scratch"],
        user=user,
        addresses=_mapped() + 2 * MEMORY,
        tasks=TASKS + (_tasks_of_user() if shares_user else 0),
        seconds=job["seconds"],
    )


def _mapped() -> int:
    """Count the bytes of addresses that this process has mapped; 2**46 on systems without /proc."""
    try:
        return int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
    except OSError:
        return 2**46


def _tasks_of_user() -> int:
    count = 0
    for entry in Path("/proc").glob("[0-9]*"):
        with contextlib.suppress(OSError):
            count += len(os.listdir(entry / "task")) if entry.stat().st_uid == os.getuid() else 0
    return count


def _become(user: int) -> None:
    with _wall("user"):
        if os.getresuid() != (user, user, user):
            os.setgroups([])
            os.setresgid(user, user, user)
            os.setresuid(user, user, user)


@contextlib.contextmanager
def _wall(name: str) -> Iterator[None]:
    """Turn an OSError into ``Unavailable`` of this wall."""
    try:
        yield
    except OSError as error:
        raise Unavailable(name, error.strerror or str(error)) from error
