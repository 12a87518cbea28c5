"""Landlock: rights to files, TCP and signals that a process gives up without any privilege (kernel 5.13 and later).

A file that is not listed as readable or writable cannot be opened by any path, link or mount: the kernel looks at the
file, not at its name. Newer kernels deny more, by the version ("ABI") that they report:

    1  opening, executing, creating, deleting files         4  TCP: bind and connect
    2  moving and linking files between folders             5  ioctl on devices
    3  truncating files                                     6  signals to, and abstract sockets of, other processes

Landlock does not cover chmod, chown, the times and attributes of files, UDP and other sockets. seccomp does.
"""

import os
import stat
import struct
from collections.abc import Iterable

from grading.inside.system_calls import NO_NEW_PRIVILEGES, prctl, syscall

CREATE_RULESET, ADD_RULE, RESTRICT_SELF = 444, 445, 446
PATH_BENEATH, ASK_VERSION = 1, 1

# Rights to files, in the kernel's order, and the version from which they can be denied.
RIGHTS = (
    "execute", "write_file", "read_file", "read_dir", "remove_dir", "remove_file", "make_char", "make_dir",
    "make_reg", "make_sock", "make_fifo", "make_block", "make_sym", "refer", "truncate", "ioctl_dev",
)  # fmt: skip
SINCE = {"refer": 2, "truncate": 3, "ioctl_dev": 5}
OF_FILES = {"execute", "write_file", "read_file", "truncate", "ioctl_dev"}
READ = frozenset({"read_file", "read_dir"})
DEVICE = frozenset({"read_file", "write_file"})
WRITE = frozenset(RIGHTS) - {"execute", "make_char", "make_block", "make_sock", "ioctl_dev"}
Rule = tuple[str, frozenset[str]]  # a file or folder, and the rights to it
TCP, NO_ABSTRACT_SOCKETS, NO_SIGNALS = 0b11, 0b01, 0b10


def version() -> int:
    """Return the version of this kernel's Landlock; 0 where there is none."""
    try:
        return syscall(CREATE_RULESET, None, 0, ASK_VERSION)
    except OSError:
        return 0


def restrict(rules: Iterable[Rule]) -> None:
    """Restrict this process and its children to these rights, each to a file or to a folder and all below it.

    Where the kernel can, also forbid TCP, and signalling any process but descendants.

    Raises:
        OSError: this kernel has no Landlock.
    """
    abi = version()
    handled = {right for right in RIGHTS if SINCE.get(right, 1) <= abi}
    scoped = NO_ABSTRACT_SOCKETS | NO_SIGNALS if abi >= 6 else 0
    _enforce(abi, handled, TCP if abi >= 4 else 0, scoped, rules)


def forbid_signals() -> None:
    """Forbid signalling any process but descendants."""
    if (abi := version()) >= 6:
        _enforce(abi, set(), 0, NO_SIGNALS, ())


def _enforce(abi: int, handled: set[str], network: int, scoped: int, rules: Iterable[Rule]) -> None:
    attributes = struct.pack("QQQ", _bits(handled), network, scoped)[: 24 if abi >= 6 else 16 if abi >= 4 else 8]
    ruleset = syscall(CREATE_RULESET, attributes, len(attributes), 0)
    try:
        for path, rights in rules:
            _allow(ruleset, path, rights & handled)
        prctl(NO_NEW_PRIVILEGES, 1)
        syscall(RESTRICT_SELF, ruleset, 0)
    finally:
        os.close(ruleset)


def _allow(ruleset: int, path: str, rights: frozenset[str]) -> None:
    try:
        fd = os.open(path, os.O_PATH | os.O_CLOEXEC)
    except FileNotFoundError:
        return
    try:
        if not stat.S_ISDIR(os.fstat(fd).st_mode):
            rights = rights & OF_FILES
        syscall(ADD_RULE, ruleset, PATH_BENEATH, struct.pack("=Qi", _bits(rights), fd), 0)
    finally:
        os.close(fd)


def _bits(rights: Iterable[str]) -> int:
    return sum(1 << RIGHTS.index(right) for right in rights)
