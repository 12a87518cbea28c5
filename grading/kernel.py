"""Linux's calls for which Python has no function, by ctypes; on other systems each of them raises OSError."""

import ctypes
import errno
import os
import platform
import sys

MACHINES = ("x86_64", "aarch64")
NO_NEW_PRIVILEGES, PARENT_DIED, SUBREAPER, SECCOMP, DROP_BOUND, AMBIENT = 38, 1, 36, 22, 24, 47  # prctl(2)
CAPABILITIES_VERSION, LAST_CAPABILITY = 0x20080522, 63
SYS_PIVOT_ROOT = {"x86_64": 155, "aarch64": 41}
SYS_CAPSET = {"x86_64": 126, "aarch64": 91}

_libc = ctypes.CDLL(None, use_errno=True)


def call(name: str, *arguments: int | bytes | ctypes.Array[ctypes.c_char] | None) -> int:
    """A function of the C library that returns -1 and sets errno when it fails.

    Raises:
        OSError: it failed, or this system has none of that name.
    """
    if sys.platform != "linux" or not hasattr(_libc, name):
        raise OSError(errno.ENOSYS, f"this system has no {name}")
    typed = [ctypes.c_long(each) if isinstance(each, int) else each for each in arguments]
    if (result := getattr(_libc, name)(*typed)) == -1:
        number = ctypes.get_errno()
        raise OSError(number, f"{name}: {os.strerror(number)}")
    return int(result)


def syscall(number: int, *arguments: int | bytes | ctypes.Array[ctypes.c_char] | None) -> int:
    """A system call that the C library has no function for.

    Raises:
        OSError: it failed, or the kernel does not have it.
    """
    return call("syscall", number, *arguments)


def machine() -> str:
    """The processor's name in the tables of system calls.

    Raises:
        OSError: for this one there are none.
    """
    if (name := platform.machine()) not in MACHINES:
        raise OSError(errno.ENOSYS, f"the numbers of system calls are known for {' and '.join(MACHINES)}, not {name}")
    return name


def prctl(option: int, value: int) -> None:
    """prctl(2) with one argument; nothing on systems without it."""
    if sys.platform == "linux":
        call("prctl", option, value, 0, 0, 0)


def give_up_privileges() -> None:
    """No capabilities in this process, and none to be had by executing a file, whoever owns it."""
    prctl(NO_NEW_PRIVILEGES, 1)
    header = CAPABILITIES_VERSION.to_bytes(4, sys.byteorder) + bytes(4)
    for capability in range(LAST_CAPABILITY + 1):
        try:
            prctl(DROP_BOUND, capability)
        except OSError:  # not allowed without privileges, and then not needed; or past the kernel's last one
            break
    syscall(SYS_CAPSET[machine()], header, bytes(24))
