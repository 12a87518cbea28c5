"""The walls around a submission stop all attacks on the system, and a table says which wall stops which attack.

    python -m pytest tests/grading/test_walls.py                                # one attack of each kind
    python -m pytest -m long tests/grading/test_walls.py                        # all attacks
    python -m pytest -m exhaustive tests/grading/test_walls.py                  # also without some of the walls
    WRITE_TABLE=1 python -m pytest -m exhaustive tests/grading/test_walls.py    # writes the table in docs/grading.md

The attacks are in submissions/hostile_system.py.
"""

import ast
import contextlib
import hashlib
import os
import re
import select
import shutil
import socket
import subprocess
import sys
import sysconfig
import tempfile
import time
from collections.abc import Collection, Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
import torch
from hostile_system import ATTACKS, REACHED, Attack
from queues import Queues
from sandbox_processes import processes_of

from grading.checks import Wrong, import_models
from grading.inside.system_calls import ARCHITECTURES, CONDITIONAL, DENIED, MISSING
from grading.inside.walls import WALLS
from grading.rubric import RUBRIC
from grading.sandbox import Sandbox
from grading.session import Unanswered

ROOT = Path(__file__).parent.parent.parent
PAGE = ROOT / "docs" / "grading.md"
SITE = Path(torch.__file__).parent.parent
CACHES = {"__pycache__", ".git", ".pytest_cache", ".mypy_cache", ".ruff_cache", "run", "data"}
ASKED = [check for check in RUBRIC if check.id in ("1a-2-basic", "1b-0-basic")]
SECONDS = 10.0
FEW = (
    "reference by its path", "reference through /proc/self/root", "an open descriptor of a file or folder",
    "modules, frames and objects of the grader", "other submissions", "lines appended to the checks",
    "a file's mode changed", "ptrace", "kill(-1)", "a signal by way of a pipe", "a queue removed",
    "a POSIX queue removed", "a queue left for the next session", "TCP", "UDP", "an abstract Unix socket",
    "100 processes", "memory shared and uncounted", "one file of 256 MiB", "a daemon", "a user namespace",
    "another program",
)  # fmt: skip
ALL = tuple(attack.name for attack in ATTACKS)
SIBLING = "import signal; signal.signal(signal.SIGURG, lambda *_: print(1, flush=True)); print(0, flush=True); input()"

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="the walls are Linux's")


@dataclass
class Field:
    """The targets of attacks, and the means to see whether an attack has come through."""

    targets: dict[str, object]  # paths, process IDs and ports that attacks are given
    folder: Path  # contains files like the project's, for attacks that would do harm
    listeners: list[socket.socket]
    sibling: int  # the stdout of a process of the same user, which prints each signal
    queues: Queues

    def heard(self) -> bool:
        """Tell whether a socket was connected to, or the other process got a signal."""
        signalled = bool(select.select([self.sibling], [], [], 0)[0])
        if signalled:
            os.read(self.sibling, 64)
        heard = [each for each in self.listeners if select.select([each], [], [], 0)[0]]
        for each in heard:
            if each.type == socket.SOCK_DGRAM:
                each.recv(64)
            else:
                each.accept()[0].close()
        return signalled or bool(heard) or self.queues.left()

    def restore(self) -> None:
        self.targets |= self.queues.renew()
        shutil.rmtree(self.folder, ignore_errors=True)
        self.folder.mkdir()
        shutil.copyfile(ROOT / "grading" / "checks.py", self.folder / "checks.py")
        (self.folder / "models.pyc").write_bytes(b"code")
        (self.folder / "results.json").write_text("{}")
        (self.folder / "other.py").write_text("secret = 1")
        self.folder.chmod(0o755)

    def state(self) -> str:
        """Compute a digest of the files with their modes and times."""
        digest = hashlib.sha256()
        for path in sorted(self.folder.rglob("*")):
            status = path.lstat()
            digest.update(f"{path} {status.st_mode} {status.st_uid} {status.st_mtime_ns} {os.listxattr(path)}".encode())
            digest.update(path.read_bytes() if path.is_file() else b"")
        return digest.hexdigest()


@contextlib.contextmanager
def field_of_attack(real: bool) -> Iterator[Field]:
    """Make listeners, another process of this user, and paths: to the real packages, or to folders in their place."""
    with contextlib.ExitStack() as stack:
        base = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        base.chmod(0o755)
        folder = base / "decoys"
        packages = [SITE, Path(sysconfig.get_path("stdlib"))] if real else [base / "site", base / "stdlib"]
        for path in packages:
            path.mkdir(exist_ok=True)
        tcp = stack.enter_context(socket.socket(socket.AF_INET))
        udp = stack.enter_context(socket.socket(socket.AF_INET, socket.SOCK_DGRAM))
        unix = stack.enter_context(socket.socket(socket.AF_UNIX))
        abstract = stack.enter_context(socket.socket(socket.AF_UNIX))
        tcp.bind(("127.0.0.1", 0))
        udp.bind(("127.0.0.1", 0))
        unix.bind(str(base / "socket"))
        (base / "socket").chmod(0o777)
        abstract.bind(f"\0walls {os.getpid()}")
        for each in (tcp, unix, abstract):
            each.listen()
        queues = Queues()
        stack.callback(queues.remove)
        sibling = stack.enter_context(
            subprocess.Popen([sys.executable, "-c", SIBLING], stdout=subprocess.PIPE, stdin=subprocess.PIPE)
        )
        stack.callback(sibling.kill)
        assert sibling.stdout is not None
        sibling.stdout.readline()
        maps = Path(f"/proc/{sibling.pid}/maps")
        targets = {
            "project": str(ROOT),
            "reference": str(ROOT / "models.py"),
            "home": str(Path.home()),
            "site": str(packages[0]),
            "stdlib": str(packages[1]),
            "decoys": str(folder),
            "decoy": str(folder / "checks.py"),
            "pyc": str(folder / "models.pyc"),
            "results": str(folder / "results.json"),
            "submissions": str(folder),
            "other": str(folder / "other.py"),
            "grader": os.getpid(),
            "sibling": sibling.pid,
            "address": int(maps.read_text().partition("-")[0], 16),
            "tcp": tcp.getsockname()[1],
            "udp": udp.getsockname()[1],
            "unix": str(base / "socket"),
            "abstract": f"\0walls {os.getpid()}",
        }
        yield Field(targets, folder, [tcp, udp, unix, abstract], sibling.stdout.fileno(), queues)


def attacked(sandbox: Sandbox, attack: Attack, field: Field) -> tuple[bool, str]:
    """Run an attack; return whether it came through, and its output."""
    field.restore()
    before = field.state()
    points, said = 0, ""
    try:
        for check in ASKED:
            files = {"models.py": attack.source(field.targets)}
            with sandbox.session(files, SECONDS) as session, contextlib.suppress(Unanswered, Wrong):
                import_models(session.ask)
                check.run(session.ask, None)
                points += check.points
            said += session.printed
            if REACHED in said or not points:
                break
    except OSError as error:
        return True, f"{said} {error}"
    if "waiting until" in attack.name:
        time.sleep(2)
    heard, changed = field.heard(), field.state() != before
    return points > 0 or REACHED in said or heard or changed, said


def untouched() -> dict[str, str]:
    """Compute digests of the project's contents, and of names, sizes and times in the environment and at home."""
    project, environment = hashlib.sha256(), hashlib.sha256()
    for path in files_below(ROOT):
        project.update(os.fsencode(path) + path.read_bytes())
    for path in [*files_below(SITE), *files_below(Path(sysconfig.get_path("stdlib")))]:
        status = path.lstat()
        line = f"{path} {status.st_size} {status.st_mtime_ns} {status.st_ino} {status.st_mode}"
        environment.update(line.encode())
    home = [(path.name, path.is_file() and path.lstat().st_mtime_ns) for path in sorted(Path.home().iterdir())]
    return {"project": project.hexdigest(), "environment": environment.hexdigest(), "home": repr(home)}


def files_below(place: Path) -> Iterator[Path]:
    for folder, folders, files in os.walk(place):
        folders[:] = sorted({*folders} - CACHES)
        yield from (Path(folder, name) for name in sorted(files))


def test_the_files_inside_import_nothing_from_outside() -> None:
    allowed = {*sys.stdlib_module_names, "numpy", "torch", "grading.inside"}
    assert {name for path in (ROOT / "grading" / "inside").glob("*.py") for name in imported_by(path)} <= allowed


def imported_by(path: Path) -> set[str]:
    """List the packages that a file imports."""
    nodes = [*ast.walk(ast.parse(path.read_text()))]
    names = {alias.name for node in nodes if isinstance(node, ast.Import) for alias in node.names}
    names |= {node.module or "." for node in nodes if isinstance(node, ast.ImportFrom)}
    return {"grading.inside" if name.startswith("grading.inside") else name.partition(".")[0] for name in names}


@pytest.mark.parametrize(
    ("column", "header"),
    [(0, "/usr/include/x86_64-linux-gnu/asm/unistd_64.h"), (1, "/usr/include/asm-generic/unistd.h")],
    ids=[*ARCHITECTURES],
)
def test_system_calls_have_the_numbers_of_the_kernels_headers(column: int, header: str) -> None:
    if not Path(header).exists():
        pytest.skip(f"needs {header}")
    found = re.findall(r"#define __NR(?:3264)?_(\w+)\s+(\d+)", Path(header).read_text())
    expected = {name: int(number) for name, number in found}
    given = {name: numbers[column] for name, numbers in (DENIED | MISSING | CONDITIONAL).items()}
    newer = {name for name, number in given.items() if number > max(expected.values())}
    assert {name: given[name] for name in given.keys() - newer} == {
        name: expected.get(name, -1) for name in given.keys() - newer
    }


@pytest.mark.parametrize("names", [FEW, pytest.param(ALL, marks=pytest.mark.long)], ids=["few", "all"])
def test_no_attack_comes_through(names: Collection[str], tmp_path_factory: pytest.TempPathFactory) -> None:
    """No attack changes a byte, leaves a process or exceeds its time either."""
    folder = tmp_path_factory.mktemp("sandboxes")
    before = untouched()
    said: dict[str, str] = {}
    with pytest.MonkeyPatch.context() as patch, field_of_attack(real=True) as field:
        patch.setattr(tempfile, "tempdir", str(folder))
        for path in (folder, *folder.parents):  # other users must be able to pass through
            if path.is_relative_to(tempfile.gettempdir()) or "pytest" in path.name:
                path.chmod(0o755)
        with Sandbox() as sandbox:
            sandbox.start()
            assert sandbox.confinement.gaps == []
            for attack in [each for each in ATTACKS if each.name in names]:
                started = time.monotonic()
                through, said[attack.name] = attacked(sandbox, attack, field)
                assert not through, f"{attack.name}: {said[attack.name]}"
                assert time.monotonic() - started < 2 * SECONDS, attack.name
                assert len(processes_of(folder)) == 1, f"{attack.name}: more than the warden is left"
                assert not [path for path in folder.glob("*/*") if path.name != "grading"], attack.name
    assert said.keys() == {*names}
    assert list(folder.iterdir()) == []
    assert untouched() == before


def stopped_by(walls: Collection[str]) -> dict[str, bool]:
    """Tell for each attack whether these walls stop it."""
    with field_of_attack(real=False) as field, Sandbox(walls, unconfined=True) as sandbox:
        sandbox.start()
        assert {*sandbox.confinement.walls} == {*walls}, sandbox.confinement.missing
        return {attack.name: not attacked(sandbox, attack, field)[0] for attack in ATTACKS}


@pytest.mark.exhaustive
@pytest.mark.skipif(os.geteuid() != 0, reason="only root has all walls")
def test_the_table_says_which_wall_stops_which_attack() -> None:
    """Each wall alone, and all walls but one, give the table in docs/grading.md."""
    for wall in WALLS:
        with Sandbox([wall], unconfined=True) as sandbox:
            sandbox.start()
            if missing := sandbox.confinement.missing:
                pytest.skip(f"each wall has to stand by itself, and here one does not: {missing}")
    without_any = stopped_by(())
    alone = {wall: stopped_by([wall]) for wall in WALLS}
    without = {wall: stopped_by([each for each in WALLS if each != wall]) for wall in WALLS}
    assert sum(without_any.values()) <= 6, without_any  # nearly all attacks succeed without walls
    lines = [f"| attack | {' | '.join(WALLS)} | comes through without |", f"| --- |{' :-: |' * len(WALLS)} --- |"]
    for attack in ATTACKS:
        marks = ["●" if alone[wall][attack.name] else "" for wall in WALLS]
        missed = ", ".join(wall for wall in WALLS if not without[wall][attack.name])
        lines.append(f"| {attack.name} | {' | '.join(marks)} | {missed or 'none'} |")
    table = "\n".join(lines)
    begin, end = "<!-- walls -->\n", "\n<!-- /walls -->"
    page = PAGE.read_text()
    head, tail = page.partition(begin)[0] + begin, end + page.partition(end)[2]
    if os.environ.get("WRITE_TABLE"):
        PAGE.write_text(head + table + tail)
    else:
        assert page == head + table + tail
