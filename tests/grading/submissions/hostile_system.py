"""Hostile submissions that attack the operating system, not Python. Each tries one thing and prints the result.

Paths, process IDs and ports are given to them. "REACHED …" is printed if an attack comes through, "DENIED …" with the
error that stopped it otherwise. Their MultiTaskNet is worth no point, unless they find another one.
"""

from typing import NamedTuple

REACHED = "REACHED"


class Attack(NamedTuple):
    """An attack."""

    name: str
    code: str  # the body of a function that returns a true value if the attack comes through

    def source(self, targets: dict[str, object]) -> bytes:
        """Write a models.py that runs the attack."""
        body = "\n".join(f"    {line}" for line in self.code.strip().splitlines())
        return (
            f"{PRELUDE}\nT = {targets!r}\n\ndef attack():\n{body}\n\ntry:\n    found = attack()\n"
            f"    print({REACHED!r} if found else 'DENIED', repr(found)[:200], flush=True)\n"
            "except BaseException as error:\n    print('DENIED', repr(error)[:200], flush=True)\n"
            "if 'MultiTaskNet' not in globals():\n    class MultiTaskNet: pass\n"
        ).encode()


PRELUDE = """
import ctypes, fcntl, gc, mmap, os, resource, signal, socket, struct, subprocess, sys, time
from pathlib import Path

libc = ctypes.CDLL(None, use_errno=True)
x86 = os.uname().machine == "x86_64"
libc.syscall.restype = ctypes.c_long

def call(number, *arguments):
    result = libc.syscall(*[ctypes.c_long(each) if isinstance(each, int) else each for each in (number, *arguments)])
    if result < 0:
        raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()))
    return result

def use(path):
    text = Path(path).read_text()
    exec(compile(text, "models.py", "exec"), globals())
    return len(text)

def overwrite(path, text="\\nraise SystemExit('owned')\\n"):
    with open(path, "a") as file:
        return file.write(text)

def forked(code, count=1):
    children = []
    for _ in range(count):
        if (child := os.fork()) == 0:
            try:
                code()
            finally:
                os._exit(0)
        children.append(child)
    return children
"""

ATTACKS = (
    # Reading.
    Attack(
        "reference found by walking the disk",
        """
for start in (T["project"], "/work", "/home", "/autograder"):
    for folder, _, files in os.walk(start):
        if {"grader.py", "models.py"} <= set(files):
            return use(os.path.join(folder, "models.py"))
""",
    ),
    Attack("reference by its path", "return use(T['reference'])"),
    Attack("reference through /proc/self/root", "return use('/proc/self/root' + T['reference'])"),
    Attack("reference through /proc/self/cwd", "return use('/proc/self/cwd' + '/..' * 20 + T['reference'])"),
    Attack("reference through the grader's root", "return use(f'/proc/{T[\"grader\"]}/root' + T['reference'])"),
    Attack("reference through the grader's folder", "return use(f'/proc/{T[\"grader\"]}/cwd/models.py')"),
    Attack("reference by a hard link", "os.link(T['reference'], 'copy.py'); return use('copy.py')"),
    Attack("reference by a symbolic link", "os.symlink(T['reference'], 'copy.py'); return use('copy.py')"),
    Attack("reference by renaming it", "os.rename(T['decoy'], 'copy.py'); return use('copy.py')"),
    Attack(
        "reference by a path descriptor",
        "fd = os.open(T['reference'], os.O_PATH); return use(f'/proc/self/fd/{fd}')",
    ),
    Attack(
        "reference by import",
        """
for name in [name for name in sys.modules if name.startswith("grading")]:
    del sys.modules[name]
sys.path.insert(0, T["project"])
import grading.hidden_oracle as found
return found
""",
    ),
    Attack(
        "an open descriptor of a file or folder",
        """
import stat
for fd in range(4, 1024):
    try:
        mode = os.fstat(fd).st_mode
    except OSError:
        continue
    return fd, oct(mode)
return [fd for fd in range(4) if stat.S_ISREG(os.fstat(fd).st_mode) or stat.S_ISDIR(os.fstat(fd).st_mode)]
""",
    ),
    Attack(
        "modules, frames and objects of the grader",
        """
import inspect
secret = ("data", "metrics", "study", "train")
found = [name for name in sys.modules if name in secret]
found += [name for name in sys.modules if name.startswith("grading.") and not name.startswith("grading.inside")]
spaces = [vars(module) for module in sys.modules.values() if hasattr(module, "__dict__")]
spaces += [each for each in gc.get_objects() if type(each) is dict]
frame = sys._getframe()
while frame:
    spaces.append(frame.f_globals)
    frame = frame.f_back
return found + [name for space in spaces for name in ("RUBRIC", "TOLERANCE", "mrr_score") if space.get(name)]
""",
    ),
    Attack("the grader's memory", "return os.open(f'/proc/{T[\"grader\"]}/mem', os.O_RDWR)"),
    Attack("the grader's environment", "return Path(f'/proc/{T[\"grader\"]}/environ').read_bytes()"),
    Attack("the grader's files", "return os.listdir(f'/proc/{T[\"grader\"]}/fd')"),
    Attack("the home folder listed", "return [n for n in os.listdir(T['home']) if Path(T['home'], n).is_file()]"),
    Attack("/etc/passwd", "return Path('/etc/passwd').read_text()"),
    Attack("the data set and .git", "return os.listdir(T['project'] + '/data'), os.listdir(T['project'])"),
    Attack("other submissions", "return os.listdir(T['submissions']), Path(T['other']).read_text()"),
    Attack("being told of changes of files", "return call(254 if x86 else 27, call(294 if x86 else 26, 0), "
           "T['submissions'].encode(), 0xfff) + 1"),
    # Writing.
    Attack("lines appended to the checks", "return overwrite(T['decoy'])"),
    Attack("a file laid into the project", "return Path(T['decoys'], 'sitecustomize.py').write_text('import os')"),
    Attack("a .pth file among the packages", "return Path(T['site'], 'zz_owned.pth').write_text('import os\\n')"),
    Attack("a sitecustomize.py", "return Path(T['stdlib'], 'sitecustomize.py').write_text('import os\\n')"),
    Attack("a changed .pyc", "return overwrite(T['pyc'])"),
    Attack("results.json written", "return Path(T['results']).write_text('{\"score\": 14}')"),
    Attack("the next submission's folder", "return Path(__file__).parents[2].joinpath('next').mkdir() or 'made'"),
    Attack("its own files", "return overwrite(__file__, '')  or 'opened'"),
    Attack("a file truncated", "os.truncate(T['decoy'], 0); return True"),
    Attack("a file truncated by opening it to read", "return os.open(T['decoy'], os.O_RDONLY | os.O_TRUNC)"),
    Attack("a file deleted", "os.unlink(T['decoy']); return True"),
    Attack("a file's mode changed", "os.chmod(T['decoy'], 0o600); return True"),
    Attack("a file's times changed", "os.utime(T['decoy'], (0, 0)); return True"),
    Attack("a file's attributes changed", "os.setxattr(T['decoy'], 'user.owned', b'1'); return True"),
    Attack("a device made", "os.mknod('disk', 0o60600, os.makedev(254, 0)); return True"),
    # Other processes.
    Attack("ptrace", "return call(101 if x86 else 117, 0x4206, T['sibling'], 0, 0) + 1"),
    Attack(
        "process_vm_readv",
        """
buffer = ctypes.create_string_buffer(16)
local = struct.pack("PN", ctypes.addressof(buffer), 16)
remote = struct.pack("PN", T["address"], 16)
return call(310 if x86 else 270, T["sibling"], local, 1, remote, 1, 0)
""",
    ),
    Attack("pidfd_getfd", "return call(438, call(434, T['sibling'], 0), 1, 0) + 1"),
    Attack("kill(-1)", "os.kill(-1, signal.SIGURG)"),  # the sibling reports this signal; other processes ignore it
    Attack("a signal to the grader", "os.kill(T['grader'], 0); return True"),
    Attack("a signal to the warden", "os.kill(os.getppid(), 0) if os.getppid() else 1 / 0; return True"),
    Attack("a signal to a sibling", "os.kill(T['sibling'], signal.SIGWINCH); return True"),
    Attack(
        "a signal by way of a pipe",
        """
inner, outer = os.pipe()
fcntl.fcntl(inner, fcntl.F_SETOWN, T["sibling"])
fcntl.fcntl(inner, 10, signal.SIGURG)  # F_SETSIG: the default, SIGIO, would kill
fcntl.fcntl(inner, fcntl.F_SETFL, os.O_ASYNC)
os.write(outer, b"x")
""",
    ),
    Attack(
        "a signal by way of a thread's pipe",
        """
inner, outer = os.pipe()
fcntl.fcntl(inner, 15, struct.pack("ii", 1, T["sibling"]))  # F_SETOWN_EX
fcntl.fcntl(inner, 10, signal.SIGURG)
fcntl.fcntl(inner, fcntl.F_SETFL, os.O_ASYNC | os.O_NONBLOCK)
os.write(outer, b"x")
""",
    ),
    Attack("a sibling slowed down", "os.setpriority(os.PRIO_PROCESS, T['sibling'], 5); return True"),
    Attack("a sibling's memory moved", """
page, node, status = struct.pack("P", T["address"]), struct.pack("i", 0), bytes(4)
return call(279 if x86 else 239, T["sibling"], 1, page, node, status, 2) + 1
"""),
    # The queues of the user.
    Attack("a message read from a queue", """
return call(70 if x86 else 188, T["queue"], ctypes.create_string_buffer(64), 56, 0, 0o4000)  # IPC_NOWAIT
"""),
    Attack("a message written to a queue", """
return call(69 if x86 else 189, T["queue"], struct.pack("qq", 1, 1), 8, 0) + 1
"""),
    Attack("a queue removed", "return call(71 if x86 else 187, T['queue'], 0, 0) + 1"),
    Attack("a semaphore changed", """
return call(65 if x86 else 193, T["semaphore"], struct.pack("Hhh", 0, 1, 0), 1) + 1
"""),
    Attack("a semaphore removed", "return call(66 if x86 else 191, T['semaphore'], 0, 0, 0) + 1"),
    Attack("a POSIX queue opened", "return call(240 if x86 else 180, T['mqueue'].encode(), os.O_RDWR, 0, 0) + 1"),
    Attack("a POSIX queue removed", "return call(241 if x86 else 181, T['mqueue'].encode()) + 1"),
    Attack("a queue left for the next session", "call(68 if x86 else 186, T['key'], 0o1666)"),
    Attack("a POSIX queue left for the next session", """
call(240 if x86 else 180, T["left"].encode(), os.O_CREAT | os.O_RDWR, 0o666, 0)
"""),
    # The network.
    Attack("TCP", "return socket.create_connection(('127.0.0.1', T['tcp']), 2)"),
    Attack("TCP, listening", "s = socket.socket(); s.bind(('127.0.0.1', 0)); s.listen(); return True"),
    Attack("UDP", "return socket.socket(2, socket.SOCK_DGRAM).sendto(b'hi', ('127.0.0.1', T['udp']))"),
    Attack("a Unix socket", "socket.socket(socket.AF_UNIX).connect(T['unix']); return True"),
    Attack("an abstract Unix socket", "socket.socket(socket.AF_UNIX).connect(T['abstract']); return True"),
    Attack("a netlink socket", "return socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, 0).fileno()"),
    # More than its share.
    Attack("100 processes", "return len(forked(lambda: time.sleep(2), 100)) >= 100"),
    Attack("8 GiB of memory", "return len(mmap.mmap(-1, 2**33, mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS))"),
    Attack("6 GiB in several processes", """
inner, outer = os.pipe()
forked(lambda: (bytearray(b"x") * 2**30, os.write(outer, b"x"), time.sleep(9)), 6)
for _ in range(6):
    os.read(inner, 1)
time.sleep(1)
return True
"""),
    Attack("memory shared and uncounted", "m = mmap.mmap(-1, 2**28); m.write(b'x' * 2**28); return len(m)"),
    Attack("memory in a memfd", "fd = os.memfd_create('x'); return os.write(fd, bytes(2**20))"),
    Attack("memory in System V's segments", "return call(29 if x86 else 194, 0, 2**20, 0o1600) + 1"),
    Attack("256 MiB in files", """
for number in range(16):
    with open(f"large{number}", "wb") as file:
        file.write(bytes(2**24))
time.sleep(0.5)
return sum(os.stat(f"large{number}").st_size for number in range(16)) == 2**28
"""),
    Attack("one file of 256 MiB", "f = open('l', 'wb')\nfor _ in range(16):\n    f.write(bytes(2**24))\nreturn True"),
    Attack("256 MiB in files that have no name", """
files = []
for number in range(16):
    file = open(f"large{number}", "wb")
    file.write(bytes(2**24))
    file.flush()
    os.unlink(f"large{number}")
    files.append(file)
return files
"""),
    Attack("8,192 files", """
for number in range(8192):
    os.mkdir(str(number))
time.sleep(1)
return len(os.listdir()) >= 8192
"""),
    Attack("8,192 files in a folder that cannot be listed", """
os.mkdir("closed", 0o300)
os.chdir("closed")
for number in range(8192):
    os.mknod(str(number))
time.sleep(1)
return True
"""),
    Attack("256 MiB in a folder that is renamed all the time", """
os.mkdir("0")
def rename():
    for number in range(10**6):
        os.rename(str(number), str(number + 1))
forked(rename)
here = os.open(".", os.O_RDONLY)
for folder in iter(lambda: [name for name in os.listdir(here) if name.isdigit()], None):
    try:
        os.chdir(folder[0])
        break
    except OSError:
        pass
for number in range(16):
    with open(f"large{number}", "wb") as file:
        file.write(bytes(2**24))
time.sleep(1)
return sum(os.stat(f"large{number}").st_size for number in range(16)) == 2**28
"""),
    Attack("limits raised", """
for name in ("RLIMIT_DATA", "RLIMIT_FSIZE"):
    resource.setrlimit(getattr(resource, name), (2**50, 2**50))
return True
"""),
    # Staying.
    Attack("a daemon", """
def stay():
    os.setsid()
    if os.fork() == 0:
        os.setsid()
        time.sleep(25)  # longer than the warden waits, on a slow machine too
forked(stay)
time.sleep(0.3)
"""),
    Attack("waiting until the grader is done, then writing", """
def later():
    os.setsid()
    time.sleep(1.5)
    overwrite(T["results"])
forked(later)
"""),
    # Privileges and parts of the kernel.
    Attack("a mount", """
os.makedirs("m", exist_ok=True)
if libc.mount(b"none", b"m", b"tmpfs", 0, None):
    raise OSError(ctypes.get_errno(), "mount")
libc.umount(b"m")
return True
"""),
    Attack("a user namespace", "return libc.unshare(0x10000000) == 0"),
    Attack("clone into new namespaces", """
child = call(56 if x86 else 220, 0x10000000 | 17, 0, 0, 0, 0)
if child == 0:
    os._exit(0)
return child
"""),
    Attack("chroot", "os.mkdir('r'); os.chroot('r'); return True"),
    Attack("being root", "os.setuid(0); return os.open('/etc/shadow', os.O_RDONLY)"),
    Attack("another program", "return subprocess.run(['/bin/sh', '-c', 'echo'], check=True, capture_output=True)"),
    Attack("io_uring", "return call(425, 8, bytes(120)) + 1"),
    Attack("asynchronous I/O", "return call(206 if x86 else 0, 1, ctypes.create_string_buffer(8)) + 1"),
    Attack("bpf", "return call(321 if x86 else 280, 0, struct.pack('IIII', 1, 4, 8, 1) + bytes(112), 128) + 1"),
    Attack("userfaultfd", "return call(323 if x86 else 282, 1) + 1"),
    Attack("keyctl", "return call(248 if x86 else 217, b'user', b'k', b'x', 1, -3)"),
    Attack("perf_event_open", """
return call(298 if x86 else 241, struct.pack("IIQ", 1, 120, 0) + bytes(104), 0, -1, -1, 0) + 1
"""),
)  # fmt: skip
