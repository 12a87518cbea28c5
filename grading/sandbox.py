"""Where a submission runs: in a process apart, with limits, and cleaned up after.

    with Sandbox() as sandbox, sandbox.session({"models.py": b"…"}, seconds=10) as session:
        session.ask("load")
        weights = session.ask("bias").array("weights")

A session is one worker process, which starts with nothing of an earlier one. It reads Python, torch and its own files,
writes into one empty folder of bounded size, and reaches no network and no other process; its memory, time and number
of processes are bounded (``confinement.py`` has the walls). What it prints is collected, and cut. When the session
ends, so does all that it has started.

Nobody can tell who computed an answer: code that was written with ``worker.py`` at hand can put its own methods in
place of those, and hand over arrays that its network does not hold. ``checks.py`` says what little that gains.
"""

import contextlib
import fcntl
import importlib.util
import json
import os
import shutil
import socket
import subprocess
import sys
import tempfile
from collections.abc import Collection, Iterator, Mapping
from pathlib import Path
from types import TracebackType

from grading.confinement import WALLS, Confinement
from grading.session import MEMORY, WARDEN_TIMEOUT, Session

PIPE = 2**20  # bytes
PASSABLE = 0o711  # of a folder: others pass through it to what they know the name of
START = 120.0  # seconds for it to load torch
CODE, SCRATCH = "code", "scratch"
INSIDE = (
    "__init__",
    "arrays",
    "confinement",
    "guard",
    "kernel",
    "landlock",
    "messages",
    "namespaces",
    "seccomp",
    "survey",
    "warden",
    "worker",
)
PACKETS = socket.SOCK_SEQPACKET if sys.platform == "linux" else socket.SOCK_STREAM
PROGRAM = (
    "import json, sys; settings = json.loads(sys.argv[1]); "
    "sys.path[:] = [settings['root'], *sys.path, *settings['packages']]; "
    "from grading import warden; warden.main(settings)"
)


class Unconfined(ValueError):
    """This machine cannot close off what a submission must not reach; says what."""


class Sandbox:
    """A warden process, which has loaded torch once, and can run one session at a time.

    Args:
        walls: those to put up, of those that the machine has.
        unconfined: accept that some of what must be closed is open.

    Raises:
        OSError: from ``session``: the warden cannot be started, walls that it had found do not hold any more, or files
            cannot be written for it.
        Unconfined: from ``session`` and ``start``.
    """

    def __init__(self, walls: Collection[str] = WALLS, unconfined: bool = False) -> None:
        self.confinement = Confinement()
        self._walls, self._unconfined = walls, unconfined
        self._root: Path | None = None  # the warden's folder: a new one for each
        self._warden: subprocess.Popen[bytes] | None = None
        self._control: socket.socket | None = None
        self._working = False

    def __enter__(self) -> "Sandbox":
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self._stop()

    @contextlib.contextmanager
    def session(self, files: Mapping[str, bytes], seconds: float, trains: bool = False) -> Iterator[Session]:
        """Start a worker for a submission.

        Args:
            files: the contents of models.py and of what lies beside it, by their paths in the submission.
            seconds: from now on until its last answer.
            trains: whether it will be asked to train.
        """
        control = self.start()
        folder = self._unpack(files)
        ours, theirs = socket.socketpair()
        output, their_output = os.pipe()
        if sys.platform == "linux":
            with contextlib.suppress(OSError):
                fcntl.fcntl(their_output, fcntl.F_SETPIPE_SZ, PIPE)  # a gigabyte of print() is over in a second
        job = {
            "code": str(folder / CODE),
            "scratch": str(folder / SCRATCH),
            "memory": MEMORY,
            "seconds": seconds,
            "trains": trains,
        }
        try:
            socket.send_fds(control, [json.dumps(job).encode()], [theirs.fileno(), their_output])
        finally:
            theirs.close()
            os.close(their_output)
        self._working = True
        ours.setblocking(False)
        os.set_blocking(output, False)
        session = Session(ours, output, self.end_worker, seconds)
        try:
            yield session
        finally:
            session.close()
            remove(folder)

    def _unpack(self, files: Mapping[str, bytes]) -> Path:
        """A new folder with a submission's files in one inner folder, and an empty one."""
        folder = Path(tempfile.mkdtemp(dir=self._root))
        folder.chmod(PASSABLE)
        (folder / SCRATCH).mkdir(mode=0o700)
        for name, content in files.items():
            path = folder / CODE / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(content)
            path.chmod(0o644)
        for inner, _, _ in os.walk(folder / CODE):
            os.chmod(inner, 0o755)
        return folder

    def cancel(self) -> None:
        """From another thread: have everything ended, so that the session's next answer is that there is none."""
        if self._control is not None:
            with contextlib.suppress(OSError):
                self._control.shutdown(socket.SHUT_RDWR)

    def end_worker(self) -> tuple[int | None, str]:
        """End the running worker and all that it started.

        Returns:
            Its exit status, if it had ended by itself, and the limit for which it was ended, if it was.
        """
        if not self._working:
            return None, ""
        self._working = False
        assert self._control is not None
        try:
            self._control.send(b"end")
            self._control.settimeout(WARDEN_TIMEOUT)
            report = json.loads(self._control.recv(4096))
        except (OSError, ValueError):  # the grader is being stopped
            self._stop()
            return None, ""
        if "wall" in report:
            raise OSError(f"a wall around submissions does not stand any more: {report['wall']}: {report['reason']}")
        if not report["gone"]:
            self._stop()  # the warden has ended, too
            raise OSError("a submission has left processes that cannot be ended")
        return report["status"], report["reason"]

    def start(self) -> socket.socket:
        """Have a warden that lives; returns the socket by which it is spoken to."""
        if self._control is not None and self._warden is not None and self._warden.poll() is None:
            return self._control
        self._stop()
        # A copy, lest a submission learn from a traceback where this project and its data are.
        here, root = Path(__file__).parent, Path(tempfile.mkdtemp(prefix="grader-"))
        root.chmod(PASSABLE)
        self._root = root
        (root / here.name).mkdir()
        for name in INSIDE:
            shutil.copyfile(here / f"{name}.py", root / here.name / f"{name}.py")
        ours, theirs = socket.socketpair(socket.AF_UNIX, PACKETS)
        settings = {
            "control": theirs.fileno(),
            "root": str(root),
            "packages": sorted({installed("torch"), installed("numpy")}),
            "walls": [*self._walls],
            "outside": [str(path) for path in (here / "checks.py", here.parent / "models.py", Path("/etc/passwd"))],
        }
        environment = {
            "PATH": os.defpath,
            "LANG": "C.UTF-8",
            "HOME": str(root),
            "CUDA_VISIBLE_DEVICES": "",
            "TORCHDYNAMO_DISABLE": "1",  # compiling takes longer than a check, and processes
            **{f"{library}_NUM_THREADS": "1" for library in ("OMP", "MKL", "OPENBLAS")},
            **{name: os.environ[name] for name in ("LD_LIBRARY_PATH",) if name in os.environ},
        }
        self._warden = subprocess.Popen(
            [sys.executable, "-I", "-B", "-c", PROGRAM, json.dumps(settings)],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            pass_fds=[theirs.fileno()],
            env=environment,
            cwd=root,
            start_new_session=True,  # Ctrl-C is for the grader, which then ends this
        )
        theirs.close()
        self._control = ours
        ours.settimeout(START)
        try:
            self.confinement = Confinement(**json.loads(ours.recv(2**16)))
        except (OSError, ValueError):
            self._stop()
            raise OSError("the process in which submissions run did not start") from None
        if self.confinement.gaps and not self._unconfined:
            self._stop()
            raise Unconfined(self.confinement.refusal())
        return ours

    def _stop(self) -> None:
        """End the warden, which takes what it has started with it."""
        if self._control is not None:
            self._control.close()
            self._control = None
        if self._warden is not None:
            try:
                self._warden.wait(WARDEN_TIMEOUT)
            except subprocess.TimeoutExpired:
                self._warden.kill()
                self._warden.wait()
            self._warden = None
        if self._root is not None:
            remove(self._root)
            self._root = None


def installed(package: str) -> str:
    """The folder that holds a package; it is not imported here."""
    spec = importlib.util.find_spec(package)
    assert spec is not None
    assert spec.origin is not None
    return str(Path(spec.origin).parent.parent)


def remove(folder: Path) -> None:
    """Delete a folder, however deep, also where a submission has taken away its own permissions."""
    delete = ["rm", "-rf", "--", str(folder)]
    if subprocess.run(delete, stderr=subprocess.DEVNULL, check=False).returncode != 0:
        subprocess.run(["chmod", "-R", "u+rwx", "--", str(folder)], stderr=subprocess.DEVNULL, check=False)
        subprocess.run(delete, check=False)
