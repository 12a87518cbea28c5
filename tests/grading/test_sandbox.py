"""A sandbox: the files that it writes for a submission, and the time in which a session ends."""

import errno
import os
import sys
import threading
import time
from collections.abc import Sequence
from pathlib import Path

import pytest

from grading.checks import import_models
from grading.inside.walls import WALLS
from grading.sandbox import Sandbox
from grading.session import Unanswered
from grading.submissions import Unreadable

NETWORK = b"class MultiTaskNet: pass\n"
SECONDS = 2.0

BEGIN = """
import mmap, os, signal, sys, threading
def forked(code):
    for _ in range(7):
        if os.fork() == 0:
            code()
    code()
def spin():
    while True: pass
"""
WORST = {
    "4,000 files": "for n in range(4000): open(str(n), 'w').write('x')\nspin()",
    "folders as deep as can be": """
while True:
    try:
        os.mkdir('d'); os.chdir('d')
    except OSError: pass
""",
    "folders closed to their owner": "os.umask(0o777)\nfor n in range(1000): os.mkdir(str(n))\nspin()",
    "processes that ignore signals": """
def deaf():
    for number in range(1, 65):
        try: signal.signal(number, signal.SIG_IGN)
        except (OSError, ValueError): pass
    spin()
forked(deaf)
""",
    "4 GiB": "forked(lambda: (bytearray(b'x') * (500 * 2**20), spin()))",
    "a full pipe": "forked(lambda: [os.write(1, b'x' * 65536) for _ in iter(int, 1)])",
    "files written to the disk at once": """
def write():
    with open(str(os.getpid()), 'wb') as file:
        while True:
            file.seek(0)
            file.write(bytes(2**24))
            os.fsync(file.fileno())
forked(write)
""",
    "50 threads": "for _ in range(50): threading.Thread(target=spin).start()",
    "a stopped process": "os.kill(os.getpid(), signal.SIGSTOP)",
}


@pytest.mark.long
@pytest.mark.skipif(sys.platform != "linux", reason="the walls are Linux's")
@pytest.mark.parametrize("walls", [WALLS, WALLS[1:]], ids=["all", "without namespaces"])
def test_every_session_ends_within_two_seconds_of_its_limit(walls: Sequence[str]) -> None:
    with Sandbox(walls) as sandbox:
        sandbox.start()
        for name, code in WORST.items():
            started = time.monotonic()
            files = {"models.py": (BEGIN + code).encode()}
            with sandbox.session(files, SECONDS) as session, pytest.raises(Unanswered):
                import_models(session.ask)
            assert time.monotonic() - started < SECONDS + 2, name
        with sandbox.session({"models.py": NETWORK}, 20) as session:
            import_models(session.ask)


@pytest.mark.parametrize("delay", [0.3, 2.0], ids=["while it starts", "while it answers"])
def test_a_cancelled_session_ends_within_a_second(delay: float) -> None:
    sandbox = Sandbox(unconfined=True)
    ended: list[BaseException] = []

    def check() -> None:
        try:
            with sandbox.session({"models.py": b"while True: pass"}, 60) as session:
                import_models(session.ask)
        except (Unanswered, OSError) as error:
            ended.append(error)

    thread = threading.Thread(target=check)
    thread.start()
    time.sleep(delay)
    cancelled = time.monotonic()
    sandbox.cancel()
    thread.join()
    sandbox.__exit__()
    assert time.monotonic() - cancelled < 1
    assert len(ended) == 1


REFUSED = {
    "a long name": ["x" * 300 + ".py"],
    "a long path": ["/".join(["folder"] * 1000) + "/x.py"],
    "a deep path": ["/".join(["x"] * 1900) + "/x.py"],
    "a file that is also a folder": ["tools.py", "tools.py/more.py"],
    "a folder that is also a file": ["tools/more.py", "tools"],
    "NUL": ["x\0.py"],
    "half of a surrogate pair": ["x\ud800.py"],
}


def test_a_name_that_cannot_be_written_is_the_submissions_fault(tmp_path: Path) -> None:
    """Nothing is left of such a submission, and the next one is graded."""
    with pytest.MonkeyPatch.context() as patch, Sandbox(unconfined=True) as sandbox:
        patch.setattr("tempfile.tempdir", str(tmp_path))
        for kind, names in REFUSED.items():
            files = {"models.py": NETWORK} | dict.fromkeys(names, b"")
            with pytest.raises(Unreadable, match=r"cannot be written \(.+\): rename it"), sandbox.session(files, 10):
                pass
            assert [path.name for path in tmp_path.glob("*/*")] == ["grading"], kind
        with sandbox.session({"models.py": NETWORK, "tools/more/x.py": b""}, 20) as session:
            import_models(session.ask)


def test_a_fault_of_the_machine_is_not_the_submissions(monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: object) -> int:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    with Sandbox(unconfined=True) as sandbox:
        sandbox.start()
        monkeypatch.setattr(Path, "write_bytes", full)
        with pytest.raises(OSError, match="No space left"), sandbox.session({"models.py": NETWORK}, 10):
            pass
