"""Namespaces: a process gets a root folder, process numbers and a network of its own (root, or user namespaces).

The root folder is made of read-only mounts of what may be read, and one tmpfs that may be written into; nothing else
has a path in it, and there is no /proc. The first process that is forked afterwards is the *init* of the PID namespace:
when it ends, the kernel ends every other process in there. The network has no interface that is up.
"""

import os
import signal
from collections.abc import Sequence
from pathlib import Path
from typing import NoReturn

from grading.kernel import PARENT_DIED, SYS_PIVOT_ROOT, call, machine, prctl, syscall

DEVICES = ("/dev/null", "/dev/urandom")
MOUNT, IPC, UTS, USER, PID, NETWORK = 0x20000, 0x08000000, 0x04000000, 0x10000000, 0x20000000, 0x40000000
ALL = MOUNT | IPC | UTS | PID | NETWORK
BIND, RECURSIVE, PRIVATE, NO_SET_UID, NO_DEVICES, DETACH = 4096, 16384, 1 << 18, 2, 4, 2
SYS_MOUNT_SETATTR, AT_WORKING_FOLDER, SUBTREE, READ_ONLY = 442, -100, 0x8000, 1


def enter(privileged: bool) -> None:
    """Leave the namespaces that this process has; of that of process numbers, its children only.

    Args:
        privileged: without a user namespace, in which the kernel lets anybody be privileged.

    Raises:
        OSError: it is not allowed.
    """
    if privileged:
        call("unshare", ALL)
        return
    user, group = os.getuid(), os.getgid()
    call("unshare", USER | ALL)
    for name, text in (("setgroups", "deny"), ("uid_map", f"{user} {user} 1"), ("gid_map", f"{group} {group} 1")):
        Path("/proc/self", name).write_text(text)


def build_root(readable: Sequence[str], scratch: str, options: str) -> None:
    """Make a root folder of what is readable, and of a tmpfs for what is writable, and move into it.

    Args:
        readable: files and folders; they keep their paths.
        scratch: a folder; it keeps its path, too.
        options: of the tmpfs at scratch.

    Raises:
        OSError: it is not allowed, or the kernel is older than 5.12.
    """
    call("mount", b"none", b"/", None, RECURSIVE | PRIVATE, None)
    root = scratch  # a folder that exists, and that is seen from outside only
    _tmpfs(root, "size=1m,mode=755")
    for path in [*readable, *DEVICES]:
        target = f"{root}{path}"
        if os.path.isdir(path):
            os.makedirs(target, exist_ok=True)
        else:
            os.makedirs(os.path.dirname(target), exist_ok=True)
            Path(target).touch()
        call("mount", os.fsencode(path), os.fsencode(target), None, BIND | RECURSIVE, None)
        _set(target, READ_ONLY | NO_SET_UID | (0 if path in DEVICES else NO_DEVICES), SUBTREE)
    os.makedirs(root + scratch)
    _tmpfs(root + scratch, options)
    _set(root, READ_ONLY, 0)
    os.chdir(root)
    syscall(SYS_PIVOT_ROOT[machine()], b".", b".")
    call("umount2", b".", DETACH)
    os.chdir("/")


def be_init() -> NoReturn:
    """What the first process of a PID namespace has to do: nothing, until its parent ends.

    Who is its child and ends is gone at once, for nobody asks how. It is no process of the submission, since signals
    that a process has not asked for do not reach this one.
    """
    prctl(PARENT_DIED, signal.SIGKILL)
    os.closerange(0, 64)
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)
    while True:
        signal.pause()


def _tmpfs(path: str, options: str) -> None:
    call("mount", b"tmpfs", os.fsencode(path), b"tmpfs", NO_SET_UID | NO_DEVICES, options.encode())


def _set(path: str, attributes: int, how: int) -> None:
    change = attributes.to_bytes(8, "little") + bytes(24)
    syscall(SYS_MOUNT_SETATTR, AT_WORKING_FOLDER, os.fsencode(path), how, change, len(change))
