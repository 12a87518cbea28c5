"""The walls around a submission: the operating system itself denies it what it must not do.

    wall         what it is                                       what it stops
    namespaces   own mounts, process numbers and network: a       all files but those it needs; seeing other processes
                 root folder of read-only mounts, and a small     or signalling them; any network; a process that
                 tmpfs to write into (``namespaces.py``)          stays; more files, or larger ones, than that holds
    landlock     rights to files, TCP, signals                    the same files; TCP; abstract sockets; signals
                 (``landlock.py``)
    seccomp      system calls given up (``seccomp.py``)           sockets of any kind; calls into other processes;
                                                                  modes and times of files; leaving its process group
    user         a user id that nothing else on the machine       what the grader's user may do; closed files;
                 has, where the grader is root                    processes beyond a number
    limits       of one process (setrlimit), and of all together  memory, processes, disk and time beyond a bound
                 as the warden measures them (``warden.py``)

A process puts them up around itself, after it was forked from the warden and before a byte of the submission is read,
and cannot take them down again. Each is used where the machine has it. Most attacks meet two or more, so that a mistake
in one is not the end; docs/grading.md has the table, which a test makes.

Why not bubblewrap: all it has is namespaces, which containers mostly refuse to their processes, Gradescope's among
them. Landlock, seccomp and a user id of one's own are to be had there. Where namespaces are allowed, what is wanted of
them is the thirty lines of ``namespaces.build_root``.
"""

import contextlib
import os
import resource
import socket
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field

from grading import landlock, namespaces, seccomp
from grading.kernel import give_up_privileges

WALLS = ("namespaces", "landlock", "seccomp", "user", "limits")
SCRATCH_BYTES, SCRATCH_FILES = 2**27, 2**12
LARGEST_FILE, OPEN_FILES = 2**26, 64  # of one process


class Unavailable(OSError):
    """A wall cannot be put up on this machine.

    Attributes:
        wall: which.
        reason: why.
    """

    def __init__(self, wall: str, reason: str) -> None:
        super().__init__(f"{wall}: {reason}")
        self.wall, self.reason = wall, reason


@dataclass(frozen=True)
class Inside:
    """What a submission's processes have.

    Attributes:
        readable: files and folders that can be read, all below them too.
        scratch: the only folder that can be written into.
        user: the id that they get, where the wall of that name is up.
        memory: bytes that one process may allocate.
        addresses: bytes that it may have mapped, be they used or not.
        tasks: processes and threads that the user may have.
        seconds: of CPU time that one process may use.
    """

    readable: Sequence[str]
    scratch: str
    user: int
    memory: int
    addresses: int
    tasks: int
    seconds: float


@dataclass(frozen=True)
class Confinement:
    """What was found out about a machine, before any submission was let in.

    Attributes:
        walls: those that are up.
        landlock: the version of Landlock's interface; 0 without.
        user: the user id; that of the grader where it has no other.
        gaps: what a process inside could reach all the same, and must not.
        missing: why other walls are not up, by their names.
    """

    walls: Sequence[str] = ()
    landlock: int = 0
    user: int = -1
    gaps: Sequence[str] = ("files", "network", "other processes")
    missing: dict[str, str] = field(default_factory=dict)

    def __str__(self) -> str:
        words = {"landlock": f"Landlock {self.landlock}", "user": f"user {self.user}"}
        return ", ".join(
            [
                *(words.get(wall, wall) for wall in self.walls if wall != "limits"),
                *(["no network"] if "network" not in self.gaps else []),
                *([f"but open: {', '.join(self.gaps)}"] if self.gaps else []),
            ]
        )

    def refusal(self) -> str:
        """Why nobody else's files should be let in here, in one line."""
        reasons = "; ".join(f"{wall}: {reason}" for wall, reason in self.missing.items())
        return (
            f"a submission could reach {', '.join(self.gaps)} on this machine ({reasons or 'walls were left out'}): "
            "--unconfined accepts the risk"
        )


def enclose(walls: Sequence[str], inside: Inside) -> None:
    """Put up the outer walls around this process and those that it will fork: all but ``lock``'s.

    Where there are namespaces, its first child has to be their init.

    Raises:
        Unavailable: one of the walls cannot be put up.
    """
    other_user = "user" in walls
    if "namespaces" in walls:
        with _wall("namespaces"):
            try:
                namespaces.enter(privileged=True)
            except PermissionError:
                if other_user:
                    _become(inside.user)
                namespaces.enter(privileged=False)
            owner = f",uid={inside.user},gid={inside.user}" if other_user else ""
            options = f"size={SCRATCH_BYTES},nr_inodes={SCRATCH_FILES},mode=700{owner}"
            namespaces.build_root(inside.readable, inside.scratch, options)
    if other_user:
        _become(inside.user)
        for path in inside.readable:
            if not os.access(path, os.R_OK | os.X_OK if os.path.isdir(path) else os.R_OK):
                raise Unavailable("user", f"{path} is closed to other users than the grader's")
    if "landlock" in walls:
        with _wall("landlock"):
            scratch = landlock.WRITE | landlock.READ
            if "namespaces" not in walls:  # nothing vanishes from the sight of who measures how much there is
                scratch -= {"remove_file"}
            rules = [(path, landlock.READ) for path in inside.readable]
            rules += [(path, landlock.DEVICE) for path in namespaces.DEVICES]
            landlock.restrict([*rules, (inside.scratch, scratch)])
    if {"namespaces", "landlock", "seccomp", "user"} & {*walls}:
        give_up_privileges()


def lock(walls: Sequence[str], inside: Inside) -> None:
    """Put up the inner walls, around the process that will run the submission and that its parent is to outlive.

    Raises:
        Unavailable: one of the walls cannot be put up.
    """
    if "limits" in walls:
        limit(inside)
    if "landlock" in walls:
        with _wall("landlock"):
            landlock.forbid_signals()
    if "seccomp" in walls:
        with _wall("seccomp"):
            seccomp.install()


def limit(inside: Inside) -> None:
    """Bounds of this process that it cannot raise again."""
    limits = {
        "DATA": inside.memory,
        "AS": inside.addresses,
        "CPU": int(inside.seconds) * 4 + 4,
        "FSIZE": LARGEST_FILE,
        "NOFILE": OPEN_FILES,
        "CORE": 0,
        "MEMLOCK": 0,
        "NPROC": inside.tasks,
    }
    for name, wanted in limits.items():
        if (kind := getattr(resource, f"RLIMIT_{name}", None)) is not None:
            hard = resource.getrlimit(kind)[1]
            bound = wanted if hard == resource.RLIM_INFINITY else min(wanted, hard)
            with contextlib.suppress(ValueError, OSError):  # macOS has some of them in name only
                resource.setrlimit(kind, (bound, bound))


def reached(outside: Sequence[str], process: int) -> list[str]:
    """What this process can reach of the outside, tried without doing harm.

    Args:
        outside: files that must be closed.
        process: one that must be out of reach.
    """
    ways: dict[str, list[Callable[[], object]]] = {
        "files": [
            *(lambda path=path: os.close(os.open(path, os.O_RDONLY)) for path in outside),
            *(lambda path=path: os.close(os.open(path, os.O_WRONLY)) for path in outside),
            lambda: os.listdir("/proc/self"),
        ],
        "network": [
            lambda: socket.socket(socket.AF_INET, socket.SOCK_DGRAM).connect(("127.0.0.1", 9)),
            lambda: _refused(lambda: socket.create_connection(("127.0.0.1", 9), 1)),
        ],
        "other processes": [lambda: os.kill(process, 0)],
    }
    found = []
    for what, tries in ways.items():
        for attempt in tries:
            with contextlib.suppress(OSError):
                attempt()
                found.append(what)
    return sorted({*found})


def _refused(connect: Callable[[], object]) -> None:
    """A connection that is refused shows that there is a network."""
    with contextlib.suppress(ConnectionRefusedError):
        connect()


def _become(user: int) -> None:
    with _wall("user"):
        if os.getresuid() != (user, user, user):
            os.setgroups([])
            os.setresgid(user, user, user)
            os.setresuid(user, user, user)


@contextlib.contextmanager
def _wall(name: str) -> Iterator[None]:
    """What fails in here makes this wall unavailable."""
    try:
        yield
    except Unavailable:
        raise
    except OSError as error:
        raise Unavailable(name, error.strerror or str(error)) from error
