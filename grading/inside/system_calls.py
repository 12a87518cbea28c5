"""Linux system calls: those that Python lacks, by ctypes, and those that a process gives up (seccomp).

seccomp is the wall against actions that neither Landlock nor namespaces see: sockets of every kind, calls into other
processes, changes of files' modes, times and attributes, queues that outlive a session, memory that no limit counts,
and leaving the process group by which a session is ended. A process gives these calls up for good and for its
children, without any privilege (kernel 3.17 and later). The filter is a list of instructions that the kernel runs
before each system call (classic BPF). It compares numbers and cannot follow pointers. A few calls that take all their
arguments from memory (clone3, openat2) are therefore reported as missing, and the C library uses the older ones.
"""

import ctypes
import errno
import os
import platform
import struct
import sys
from collections.abc import Sequence

NO_NEW_PRIVILEGES, PARENT_DIED, SUBREAPER, SECCOMP, DROP_BOUND = 38, 1, 36, 22, 24  # prctl(2)
CAPABILITIES_VERSION, LAST_CAPABILITY = 0x20080522, 63

ARCHITECTURES = {"x86_64": 0xC000003E, "aarch64": 0xC00000B7}
NEWEST = 462  # of the calls that existed when this was written
FILTER = 2
ALLOW, ERROR, KILL = 0x7FFF0000, 0x00050000, 0x80000000
NAMESPACES = 0x7E020000  # clone's flags for new ones
LOAD, EQUAL, GREATER, ANY_BIT, AND, RETURN = 0x20, 0x15, 0x25, 0x45, 0x54, 0x06

# The numbers of each call on x86-64 and on AArch64; -1 where the processor lacks it.
DENIED = {
    # Sockets. The one to the grader is open already.
    "socket": (41, 198), "socketpair": (53, 199), "connect": (42, 203), "bind": (49, 200), "listen": (50, 201),
    "accept": (43, 202), "accept4": (288, 242),
    # Other processes, and leaving one's own group.
    "ptrace": (101, 117), "process_vm_readv": (310, 270), "process_vm_writev": (311, 271), "kcmp": (312, 272),
    "tkill": (200, 130), "rt_sigqueueinfo": (129, 138), "rt_tgsigqueueinfo": (297, 240),
    "pidfd_send_signal": (424, 424), "pidfd_open": (434, 434), "pidfd_getfd": (438, 438),
    "process_madvise": (440, 440), "process_mrelease": (448, 448), "migrate_pages": (256, 238),
    "move_pages": (279, 239), "get_robust_list": (274, 100), "setsid": (112, 157), "setpgid": (109, 154),
    "setpriority": (141, 140), "ioprio_set": (251, 30), "sched_setparam": (142, 118),
    "sched_setscheduler": (144, 119), "sched_setattr": (314, 274), "sched_setaffinity": (203, 122),
    # Programs, limits, mounts, namespaces.
    "execve": (59, 221), "execveat": (322, 281), "setrlimit": (160, 164), "personality": (135, 92),
    "mount": (165, 40), "umount2": (166, 39), "pivot_root": (155, 41), "chroot": (161, 51), "unshare": (272, 97),
    "setns": (308, 268), "open_tree": (428, 428), "move_mount": (429, 429), "fsopen": (430, 430),
    "fsconfig": (431, 431), "fsmount": (432, 432), "fspick": (433, 433), "mount_setattr": (442, 442),
    "statmount": (457, 457), "listmount": (458, 458), "name_to_handle_at": (303, 264),
    "open_by_handle_at": (304, 265), "quotactl": (179, 60), "quotactl_fd": (443, 443),
    # Modes, owners, times and attributes of files; notifications of changes.
    "chmod": (90, -1), "fchmod": (91, 52), "fchmodat": (268, 53), "fchmodat2": (452, 452), "chown": (92, -1),
    "lchown": (94, -1), "fchown": (93, 55), "fchownat": (260, 54), "utime": (132, -1), "utimes": (235, -1),
    "futimesat": (261, -1), "utimensat": (280, 88), "setxattr": (188, 5), "lsetxattr": (189, 6),
    "fsetxattr": (190, 7), "removexattr": (197, 14), "lremovexattr": (198, 15), "fremovexattr": (199, 16),
    "truncate": (76, 45), "inotify_init": (253, -1), "inotify_init1": (294, 26), "fanotify_init": (300, 262),
    # Memory that no limit counts, and memory that outlives its process.
    "memfd_create": (319, 279), "memfd_secret": (447, 447), "shmget": (29, 194), "shmat": (30, 196),
    "shmctl": (31, 195), "shmdt": (67, 197), "io_setup": (206, 0),
    # Queues and semaphores, which belong to a user and outlive a process.
    "semget": (64, 190), "semop": (65, 193), "semctl": (66, 191), "semtimedop": (220, 192), "msgget": (68, 186),
    "msgsnd": (69, 189), "msgrcv": (70, 188), "msgctl": (71, 187), "mq_open": (240, 180), "mq_unlink": (241, 181),
    "mq_timedsend": (242, 182), "mq_timedreceive": (243, 183), "mq_notify": (244, 184), "mq_getsetattr": (245, 185),
    # Parts of the kernel with the most security flaws.
    "io_uring_setup": (425, 425), "io_uring_enter": (426, 426), "io_uring_register": (427, 427), "bpf": (321, 280),
    "perf_event_open": (298, 241), "userfaultfd": (323, 282), "keyctl": (250, 219), "add_key": (248, 217),
    "request_key": (249, 218), "syslog": (103, 116), "modify_ldt": (154, -1),
}  # fmt: skip
MISSING = {"clone3": (435, 435), "openat2": (437, 437)}
CONDITIONAL = {
    "kill": (62, 129), "tgkill": (234, 131), "prlimit64": (302, 261), "clone": (56, 220), "mmap": (9, 222),
    "open": (2, -1), "openat": (257, 56), "ioctl": (16, 29), "fcntl": (72, 25), "prctl": (157, 167),
}  # fmt: skip
CAPSET = (126, 91)
# The commands of fcntl that remain: duplicates, flags and locks. Others have the kernel signal any process when a file
# or a pipe changes, or take pages that all pipes of a user share.
COMMANDS = (0, 1, 2, 3, 4, 5, 6, 7, 36, 37, 38, 1030)
SET_FLAGS, SIGNALLING = 4, 0o20000  # a command of fcntl, and its flag O_ASYNC
SCHEDULED_TOGETHER = 62  # prctl: PR_SCHED_CORE changes other processes
TERMINALS = (0x5401, 0x5413, 0x5421, 0x5450, 0x5451)  # ioctl: isatty, window size, (non)blocking, close on exec
SHARED_ANONYMOUS = 0x21  # flags of mmap
UNNAMED_FILE = 0o20000000  # of open: O_TMPFILE without O_DIRECTORY

Argument = int | bytes | ctypes.Array[ctypes.c_char] | None
Instruction = tuple[int, int, int, int]

_libc = ctypes.CDLL(None, use_errno=True)


def call(name: str, *arguments: Argument) -> int:
    """Call a function of the C library, and raise OSError if it fails (returns -1 and sets errno) or is missing."""
    if sys.platform != "linux" or not hasattr(_libc, name):
        raise OSError(errno.ENOSYS, f"this system has no {name}")
    typed = [ctypes.c_long(each) if isinstance(each, int) else each for each in arguments]
    if (result := getattr(_libc, name)(*typed)) == -1:
        number = ctypes.get_errno()
        raise OSError(number, f"{name}: {os.strerror(number)}")
    return int(result)


def syscall(number: int, *arguments: Argument) -> int:
    """Make a system call by its number, as ``call`` does."""
    return call("syscall", number, *arguments)


def call_denied(name: str, *arguments: Argument) -> int:
    """Make one of the system calls that submissions are denied, as ``call`` does."""
    return syscall(DENIED[name][processor_column()], *arguments)


def prctl(option: int, value: int) -> None:
    """Call prctl(2) with one argument; do nothing on systems other than Linux."""
    if sys.platform == "linux":
        call("prctl", option, value, 0, 0, 0)


def processor_column() -> int:
    """Return the column of this processor in the tables of numbers, or raise OSError if there is none."""
    machines = tuple(ARCHITECTURES)
    if (name := platform.machine()) not in machines:
        raise OSError(errno.ENOSYS, f"no numbers of system calls for {name}, only for {' and '.join(machines)}")
    return machines.index(name)


def give_up_privileges() -> None:
    """Drop all capabilities of this process, and forbid gaining any by executing a file."""
    prctl(NO_NEW_PRIVILEGES, 1)
    header = CAPABILITIES_VERSION.to_bytes(4, sys.byteorder) + bytes(4)
    for capability in range(LAST_CAPABILITY + 1):
        try:
            prctl(DROP_BOUND, capability)
        except OSError:  # not allowed without privileges, and then not needed; or past the kernel's last one
            break
    syscall(CAPSET[processor_column()], header, bytes(24))


def give_up_calls() -> None:
    """Give up the system calls above, or raise OSError where this kernel or processor has no such filter."""
    prctl(NO_NEW_PRIVILEGES, 1)
    install(instructions(processor_column(), os.getpid()))


def install(program: list[Instruction]) -> None:
    """Have the kernel run a filter before each system call of this process and its children, or raise OSError."""
    packed = b"".join(struct.pack("HBBI", *each) for each in program)
    code = ctypes.create_string_buffer(packed, len(packed))
    header = struct.pack("HxxxxxxP", len(program), ctypes.addressof(code))
    call("prctl", SECCOMP, FILTER, header, 0, 0)


def instructions(column: int, process: int) -> list[Instruction]:
    """Make the filter of a process, which may send signals to itself, for the processor of this column."""
    refuse, missing = _error(errno.EPERM), _error(errno.ENOSYS)
    conditions: dict[str, list[Instruction]] = {
        "kill": _unless_equal(_low(0), process, refuse),
        "tgkill": _unless_equal(_low(0), process, refuse),
        "prlimit64": [*_unless_equal(_low(2), 0, refuse), *_unless_equal(_low(2) + 4, 0, refuse)],
        "clone": _if_any(_low(0), NAMESPACES, refuse),
        "mmap": _if_masked(_low(3), SHARED_ANONYMOUS, SHARED_ANONYMOUS, _error(errno.ENOMEM)),
        "open": _opening(1),
        "openat": _opening(2),
        "ioctl": _unless_among(_low(1), TERMINALS, _error(errno.ENOTTY)),
        "fcntl": [
            *_unless_among(_low(1), COMMANDS, _error(errno.EINVAL)),
            *_if_equal(_low(1), SET_FLAGS, _if_any(_low(2), SIGNALLING, refuse)),
        ],
        "prctl": _if_equal(_low(0), SCHEDULED_TOGETHER, [_error(errno.EINVAL)]),
    }
    program: list[Instruction] = [
        (LOAD, 0, 0, 4),
        (EQUAL, 1, 0, [*ARCHITECTURES.values()][column]),
        (RETURN, 0, 0, KILL),
        (LOAD, 0, 0, 0),
        (GREATER, 0, 1, NEWEST),  # newer calls, and the second set of calls that x86-64 has (x32)
        missing,
    ]
    for numbers, answer in ((DENIED, refuse), (MISSING, missing)):
        for number in (each[column] for each in numbers.values() if each[column] >= 0):
            program += [(EQUAL, 0, 1, number), answer]
    for call_name, condition in conditions.items():
        if (number := CONDITIONAL[call_name][column]) >= 0:
            block = [*condition, (RETURN, 0, 0, ALLOW)]
            program += [(EQUAL, 0, len(block), number), *block]
    return [*program, (RETURN, 0, 0, ALLOW)]


def _opening(flags: int) -> list[Instruction]:
    """Refuse files that are in no folder, which could not be counted, and truncation by opening a file to read."""
    return [
        *_if_any(_low(flags), UNNAMED_FILE, _error(errno.EOPNOTSUPP)),
        *_if_masked(_low(flags), os.O_TRUNC | os.O_ACCMODE, os.O_TRUNC, _error(errno.EACCES)),
    ]


def _error(number: int) -> Instruction:
    return (RETURN, 0, 0, ERROR | number)


def _low(argument: int) -> int:
    """Return the offset of an argument's lower half on little-endian processors; the upper half follows it."""
    return 16 + 8 * argument


def _unless_equal(where: int, value: int, answer: Instruction) -> list[Instruction]:
    return [(LOAD, 0, 0, where), (EQUAL, 1, 0, value), answer]


def _unless_among(where: int, values: Sequence[int], answer: Instruction) -> list[Instruction]:
    tests = [(EQUAL, len(values) - at, 0, each) for at, each in enumerate(values)]
    return [(LOAD, 0, 0, where), *tests, answer]


def _if_equal(where: int, value: int, then: list[Instruction]) -> list[Instruction]:
    return [(LOAD, 0, 0, where), (EQUAL, 0, len(then), value), *then]


def _if_any(where: int, bits: int, answer: Instruction) -> list[Instruction]:
    return [(LOAD, 0, 0, where), (ANY_BIT, 0, 1, bits), answer]


def _if_masked(where: int, mask: int, value: int, answer: Instruction) -> list[Instruction]:
    return [(LOAD, 0, 0, where), (AND, 0, 0, mask), (EQUAL, 0, 1, value), answer]
