"""Namespaces: a root folder, process numbers and a network of a process's own (as root, or by user namespaces).

The root folder has read-only mounts of the readable files, and one writable tmpfs. Nothing else has a path in it, and
there is no /proc. The first process that is forked afterwards is the *init* of the PID namespace: when it ends, the
kernel ends every other process of the namespace. The network has no interface that is up.
"""

import os
import signal
from collections.abc import Sequence
from pathlib import Path
from typing import NoReturn

from grading.inside.system_calls import PARENT_DIED, call, call_denied, prctl

DEVICES = ("/dev/null", "/dev/urandom")
MOUNT, IPC, UTS, USER, PID, NETWORK = 0x20000, 0x08000000, 0x04000000, 0x10000000, 0x20000000, 0x40000000
ALL = MOUNT | IPC | UTS | PID | NETWORK
BIND, RECURSIVE, PRIVATE, NO_SET_UID, NO_DEVICES, DETACH = 4096, 16384, 1 << 18, 2, 4, 2
AT_WORKING_FOLDER, SUBTREE, READ_ONLY = -100, 0x8000, 1


def enter(privileged: bool) -> None:
    """Move this process into new namespaces (its children only into that of process numbers), or raise OSError.

    Only root can be privileged, and does without a user namespace.
    """
    if privileged:
        call("unshare", ALL)
        return
    user, group = os.getuid(), os.getgid()
    call("unshare", USER | ALL)
    for name, text in (("setgroups", "deny"), ("uid_map", f"{user} {user} 1"), ("gid_map", f"{group} {group} 1")):
        Path("/proc/self", name).write_text(text)


def build_root(readable: Sequence[str], scratch: str, options: str) -> None:
    """Make a root folder of readable files and a writable tmpfs, scratch, and move into it. All keep their paths.

    OSError is raised where this is not allowed, or the kernel is older than 5.12.
    """
    call("mount", b"none", b"/", None, RECURSIVE | PRIVATE, None)
    root = scratch  # a folder that exists already, and is visible from outside only
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
    call_denied("pivot_root", b".", b".")
    call("umount2", b".", DETACH)
    os.chdir("/")


def be_init() -> NoReturn:
    """Be the first process of a PID namespace: do nothing until the parent ends.

    The submission's processes cannot signal this one: an init receives only signals for which it has a handler.
    """
    prctl(PARENT_DIED, signal.SIGKILL)
    os.closerange(0, 64)
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)  # children are reaped at once
    while True:
        signal.pause()


def _tmpfs(path: str, options: str) -> None:
    call("mount", b"tmpfs", os.fsencode(path), b"tmpfs", NO_SET_UID | NO_DEVICES, options.encode())


def _set(path: str, attributes: int, how: int) -> None:
    change = attributes.to_bytes(8, "little") + bytes(24)
    call_denied("mount_setattr", AT_WORKING_FOLDER, os.fsencode(path), how, change, len(change))
