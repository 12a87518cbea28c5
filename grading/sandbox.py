"""Sandboxes: isolated processes in which submissions run within limits.

    with Sandbox() as sandbox, sandbox.session({"models.py": b"…"}, seconds=10) as session:
        import_models(session.ask)
        bias = session.ask("bias").arrays({"table": (1683, 1)})["table"]

A session is one worker process within walls (``inside/walls.py``), which inherits nothing from earlier sessions. When
it ends, all of its processes are killed and its files deleted.

The worker's answers cannot be trusted: a submission can replace the methods of ``inside/worker.py``, and send arrays
that its network does not contain. ``checks.py`` says which points that can gain.
"""

import contextlib
import errno
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

from grading.inside.walls import WALLS, Confinement
from grading.session import WARDEN_TIMEOUT, Session
from grading.submissions import Unreadable

HERE = Path(__file__).parent
PIPE = 2**20  # bytes
PASSABLE = 0o711  # mode of a folder that other users can pass through but not list
START = 120.0  # seconds for the warden to load torch
AT_ONCE = 0.3  # seconds to wait for a process after Ctrl-C
REMOVING = 1.0  # seconds to wait for the removal of a session's folder
CODE, SCRATCH = "code", "scratch"
REMOVE = 'rm -rf -- "$1" || { chmod -R u+rwx -- "$1"; rm -rf -- "$1"; }'
# errno values that a file's name can cause: too long, odd characters, already a file or a folder.
NAMES = {errno.ENAMETOOLONG, errno.EINVAL, errno.EILSEQ, errno.EEXIST, errno.EISDIR, errno.ENOTDIR, errno.ELOOP}
PACKETS = socket.SOCK_SEQPACKET if sys.platform == "linux" else socket.SOCK_STREAM
PROGRAM = (
    "import json, socket, sys; control, outside = (socket.socket(fileno=int(each)) for each in sys.argv[1:]); "
    "settings = json.loads(control.recv(65536)); "
    "sys.path[:] = [settings['root'], *sys.path, *settings['packages']]; "
    "from grading.inside import warden; warden.main(control, outside, settings)"
)


class Unconfined(ValueError):
    """A machine whose walls leave gaps, with the list of these gaps."""


class Sandbox:
    """A warden process within these walls, as far as the machine has them. It runs one session at a time.

    Raises:
        OSError: from ``session``: the warden does not start, or a wall cannot be put up any more.
        Unconfined: from ``session`` and ``start``, unless gaps are accepted.
        Unreadable: from ``session``: the submission has a file that cannot be written to this disk.
    """

    def __init__(self, walls: Collection[str] = WALLS, unconfined: bool = False) -> None:
        self.confinement = Confinement()
        self._walls, self._unconfined = walls, unconfined
        self._root: Path | None = None  # the warden's folder
        self._warden: subprocess.Popen[bytes] | None = None
        self._control: socket.socket | None = None
        self._working = self._cancelled = False
        self._removals: list[subprocess.Popen[bytes]] = []

    def __enter__(self) -> "Sandbox":
        return self

    def __exit__(self, *_: object) -> None:
        self._stop()

    @contextlib.contextmanager
    def session(self, files: Mapping[str, bytes], seconds: float, trains: bool = False) -> Iterator[Session]:
        """Start a worker for models.py and the files beside it, by their paths, with a time limit for all answers.

        If it trains, the modules that it needs for that are loaded before.
        """
        control = self.start()
        folder = self._unpack(files)
        try:
            session = self._start_worker(control, folder, seconds, trains)
            try:
                yield session
            finally:
                session.close()
        finally:
            self._remove(folder)

    def _start_worker(self, control: socket.socket, folder: Path, seconds: float, trains: bool) -> Session:
        ours, theirs = socket.socketpair()
        output, their_output = os.pipe()
        if sys.platform == "linux":
            with contextlib.suppress(OSError):
                fcntl.fcntl(their_output, fcntl.F_SETPIPE_SZ, PIPE)  # reads a gigabyte of output within a second
        job = {"code": str(folder / CODE), "scratch": str(folder / SCRATCH), "seconds": seconds, "trains": trains}
        try:
            socket.send_fds(control, [json.dumps(job).encode()], [theirs.fileno(), their_output])
        except OSError:
            ours.close()
            os.close(output)
            raise
        finally:
            theirs.close()
            os.close(their_output)
        self._working = True
        ours.setblocking(False)
        os.set_blocking(output, False)
        return Session(ours, output, self.end_worker, seconds)

    def _unpack(self, files: Mapping[str, bytes]) -> Path:
        """Make a folder with a submission's files in one inner folder, and an empty one.

        Raises:
            Unreadable: the disk does not take the name of a file, or it is also a folder's.
        """
        folder = Path(tempfile.mkdtemp(dir=self._root))
        folder.chmod(PASSABLE)
        (folder / SCRATCH).mkdir(mode=0o700)
        try:
            for name, content in files.items():
                path = folder / CODE / name
                path.parent.mkdir(parents=True, exist_ok=True)
                path.write_bytes(content)
                path.chmod(0o644)
        except (OSError, ValueError, RecursionError) as error:
            self._remove(folder)
            if isinstance(error, OSError) and error.errno not in NAMES:
                raise
            reason = error.strerror if isinstance(error, OSError) else error
            raise Unreadable(f"the file {name!r:.100} cannot be written ({reason}): rename it") from None
        for inner, _, _ in os.walk(folder / CODE):
            os.chmod(inner, 0o755)
        return folder

    def _remove(self, folder: Path) -> None:
        """Delete a session's folder, in the background after a second: some submissions make 10,000 nested folders."""
        self._removals = [each for each in self._removals if each.poll() is None]
        removal = start_removing(folder)
        try:
            removal.wait(AT_ONCE if self._cancelled else REMOVING)
        except subprocess.TimeoutExpired:
            self._removals.append(removal)

    def cancel(self) -> None:
        """End the running session from another thread, for good; its next question is unanswered."""
        self._cancelled = True
        if self._control is not None:
            with contextlib.suppress(OSError):
                self._control.shutdown(socket.SHUT_RDWR)
        if self._root is not None:
            self._removals.append(start_removing(self._root))

    def end_worker(self) -> tuple[int | None, str]:
        """End the running worker and all that it started.

        Returns:
            The exit status, None if the worker had not ended by itself; and the limit that it exceeded, "" for none.
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
            raise OSError(f"the wall {report['wall']} cannot be put up any more: {report['reason']}")
        if not report["gone"]:
            self._stop()  # the warden has ended, too
            raise OSError("a submission has left processes that cannot be ended")
        return report["status"], report["reason"]

    def start(self) -> socket.socket:
        """Start a warden unless one is alive, and return the socket to it."""
        if self._control is not None and self._warden is not None and self._warden.poll() is None:
            return self._control
        self._stop()
        root = Path(tempfile.mkdtemp(prefix="grader-"))
        root.chmod(PASSABLE)
        self._root = root
        # The warden runs a copy, so that a traceback does not tell a submission where this project and its data are.
        shutil.copytree(HERE / "inside", root / "grading" / "inside", ignore=shutil.ignore_patterns("__pycache__"))
        (root / "grading" / "__init__.py").touch()
        settings = {
            "root": str(root),
            "packages": sorted({installed("torch"), installed("numpy")}),
            "walls": [*self._walls],
        }
        outside = [str(path) for path in (HERE / "checks.py", HERE.parent / "models.py", Path("/etc/passwd"))]
        ours, theirs = socket.socketpair(socket.AF_UNIX, PACKETS)
        to_survey, of_survey = socket.socketpair()
        ours.send(json.dumps(settings).encode())
        to_survey.send(json.dumps(outside).encode())
        to_survey.close()
        environment = {
            "PATH": os.defpath,
            "LANG": "C.UTF-8",
            "HOME": str(root),
            "CUDA_VISIBLE_DEVICES": "",
            "TORCHDYNAMO_DISABLE": "1",  # compiling takes longer than a check, and further processes
            **{f"{library}_NUM_THREADS": "1" for library in ("OMP", "MKL", "OPENBLAS")},
            **{name: os.environ[name] for name in ("LD_LIBRARY_PATH",) if name in os.environ},
        }
        self._warden = subprocess.Popen(
            [sys.executable, "-I", "-B", "-c", PROGRAM, str(theirs.fileno()), str(of_survey.fileno())],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            pass_fds=[theirs.fileno(), of_survey.fileno()],
            env=environment,
            cwd=root,
            start_new_session=True,  # Ctrl-C reaches the grader only, which then ends the warden
        )
        theirs.close()
        of_survey.close()
        self._control = ours
        if self._cancelled:  # meanwhile
            self.cancel()
        ours.settimeout(START)
        try:
            self.confinement = Confinement(**json.loads(ours.recv(2**16)))
        except (OSError, ValueError):
            self._warden.kill()  # it may be loading torch, and would not notice that it is to end
            self._stop()
            raise OSError("the process in which submissions run did not start") from None
        if self.confinement.gaps and not self._unconfined:
            self._stop()
            raise Unconfined(self.confinement.refusal())
        return ours

    def _stop(self) -> None:
        """End the warden, which first ends all processes that it started; and remove its folder."""
        if self._control is not None:
            self._control.close()
            self._control = None
        if self._warden is not None:
            try:
                self._warden.wait(AT_ONCE if self._cancelled else WARDEN_TIMEOUT)
            except subprocess.TimeoutExpired:
                self._warden.kill()  # the kernel then ends its processes (PARENT_DIED)
                self._warden.wait()
            self._warden = None
        if self._root is not None:
            self._removals.append(start_removing(self._root))
            self._root = None
        while self._removals:
            with contextlib.suppress(subprocess.TimeoutExpired):  # a removal that takes longer goes on by itself
                self._removals.pop(0).wait(AT_ONCE if self._cancelled else None)


def installed(package: str) -> str:
    """Find the folder of a package without importing it."""
    spec = importlib.util.find_spec(package)
    assert spec is not None
    assert spec.origin is not None
    return str(Path(spec.origin).parent.parent)


def start_removing(folder: Path) -> "subprocess.Popen[bytes]":
    """Delete a folder of any depth in the background, even if a submission has removed permissions in it."""
    command = ["sh", "-c", REMOVE, "remove", str(folder)]
    return subprocess.Popen(command, stderr=subprocess.DEVNULL, start_new_session=True)  # Ctrl-C does not reach it
