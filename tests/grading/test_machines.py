"""The grader on machines that lack some walls, and for root and other users: the same points, or a refusal."""

import contextlib
import json
import os
import random
import re
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

import pytest
from hostile import TRICKS
from hostile_system import ATTACKS
from test_walls import ALL, SITE, attacked, field_of_attack
from wrong import COURSE, WRONG, edited

from grading.checks import Check, import_models
from grading.inside.walls import WALLS
from grading.pool import Pool, grade
from grading.rubric import RUBRIC
from grading.sandbox import Sandbox, Unconfined
from grading.session import Unanswered
from grading.submissions import uploads

ROOT = Path(__file__).parent.parent.parent
DENYING = [sys.executable, str(Path(__file__).parent / "without_namespaces.py")]
HIDE_AND_SEEK = "import os\nfor p in ('/work', '/home', '/autograder'):\n    for f in os.walk(p): pass\n"
BY_HAND = [each for each in RUBRIC if not each.needs_data]
QUEUES = (
    "reference by its path", "a signal to a sibling", "a signal by way of a pipe", "a signal by way of a thread's pipe",
    "a sibling's memory moved", "a message read from a queue", "a message written to a queue", "a queue removed",
    "a semaphore changed", "a semaphore removed", "a POSIX queue opened", "a POSIX queue removed",
    "a queue left for the next session", "a POSIX queue left for the next session",
)  # fmt: skip
TWO = [check for check in RUBRIC if check.id in ("1a-2-basic", "2-4-hidden")]
HOSTILE = (
    "lines appended to the checks", "a daemon", "100 processes", "256 MiB in files", "an endless loop at import",
    "an array of 460,000 dimensions", "answers written everywhere", "all file descriptors closed",
)  # fmt: skip

root_only = pytest.mark.skipif(os.geteuid() != 0 or sys.platform != "linux", reason="needs root on Linux")


@pytest.fixture
def open_folder() -> Iterator[Path]:
    """A folder that other users can pass through."""
    with tempfile.TemporaryDirectory() as folder:
        os.chmod(folder, 0o755)
        yield Path(folder)


@pytest.mark.long
def test_grading_others_without_walls_is_refused_in_one_line() -> None:
    for walls in (("limits",), ("seccomp", "user", "limits")):
        with Sandbox(walls) as sandbox, pytest.raises(Unconfined, match=r"could reach .*--unconfined accepts the risk"):
            sandbox.start()
    with Sandbox((), unconfined=True) as sandbox:
        sandbox.start()
        assert sandbox.confinement.gaps == ["files", "network", "other processes"]


@pytest.mark.skipif(sys.platform != "linux", reason="the walls are Linux's")
@pytest.mark.parametrize("without", [*WALLS[:2], *WALLS[3:]])
def test_any_one_of_the_walls_can_be_missing_but_seccomp(without: str) -> None:
    with Sandbox([wall for wall in WALLS if wall != without]) as sandbox:
        sandbox.start()
        assert sandbox.confinement.gaps == []


def test_the_process_of_a_submission_has_never_seen_the_answers() -> None:
    """The process has not imported the reference network, the equations, the checks or the ratings."""
    code = (
        b"import sys\n"
        b"print(sorted(n for n in sys.modules if n.startswith('grading')), file=sys.stderr)\n"
        b"known = {'data', 'datasets', 'metrics', 'train', 'training', 'grader', 'study', 'pandas'}\n"
        b"known |= {n for n in sys.modules if n.startswith('grading.') and not n.startswith('grading.inside')}\n"
        b"print(known & sys.modules.keys(), sys.argv)\n"
    )
    with Sandbox() as sandbox, sandbox.session({"models.py": code}, 20) as session, contextlib.suppress(Unanswered):
        import_models(session.ask)
    assert "set() ['-c']" in session.printed, session.printed
    assert "grading.inside.worker" in session.printed


@pytest.mark.long
@root_only
def test_no_memory_of_a_submission_has_the_projects_path_or_the_teachers_name(open_folder: Path) -> None:
    """The submission's own search finds none, nor does a search of all processes of its sandbox from outside."""
    teacher, in_the_submission = "teacher-4f1c", "present-93ab"
    project = open_folder / teacher / "homework"
    sandboxes = open_folder / "sandboxes"
    for room in ("grading", "cli"):
        shutil.copytree(ROOT / room, project / room, ignore=shutil.ignore_patterns("__pycache__"))
    sandboxes.mkdir(mode=0o755)
    done = subprocess.run(
        [sys.executable, Path(__file__).parent / "search_memory.py", teacher, in_the_submission],
        env={**os.environ, "HOME": str(project.parent), "USER": teacher, "TMPDIR": str(sandboxes)},
        cwd=project, capture_output=True, text=True, timeout=120, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    inside, outside, grader = json.loads(done.stdout)
    assert inside == [in_the_submission]
    assert sorted(outside.values())[-1] == [in_the_submission]
    assert len(outside) >= 3, "the warden, the leader and the worker"
    assert not [process for process, found in outside.items() if teacher in found]
    assert teacher in grader, "the search finds it where it is"


@pytest.fixture
def project_of_nobody(open_folder: Path) -> Path:
    """A copy of the project for the user nobody, in which Landlock is that of a kernel of 2023."""
    for name in ("grading", "cli", "datasets", "training", "tracking", "tests/grading"):
        shutil.copytree(ROOT / name, open_folder / name, ignore=shutil.ignore_patterns("__pycache__"))
    for path in ROOT.glob("*.py"):
        shutil.copy(path, open_folder)
    with (open_folder / "grading" / "inside" / "landlock.py").open("a") as file:
        file.write("\nfound = version\n\n\ndef version() -> int:\n    return min(4, found())\n")
    return open_folder


def run_as_nobody(project: Path, *arguments: str) -> "subprocess.CompletedProcess[str]":
    """Run Python in a project as the user nobody, without namespaces. The interpreter must be open to this user."""
    environment = {**os.environ, "HOME": str(project), "PYTHONPATH": str(SITE), "PYTHONDONTWRITEBYTECODE": "1"}

    def run(python: str, arguments: Sequence[str]) -> "subprocess.CompletedProcess[str]":
        command = [*DENYING, "--nobody", python, *arguments]
        return subprocess.run(
            command, env=environment, cwd=project, capture_output=True, text=True, timeout=240, check=False
        )

    for python in (sys.executable, f"/usr/bin/python3.{sys.version_info.minor}"):
        if run(python, ["-c", "import torch"]).returncode == 0:
            return run(python, arguments)
    pytest.skip("there is no Python that the user nobody can execute")


ATTACKING = """
import json, os, sys
sys.path[:0] = [os.getcwd(), "tests/grading", "tests/grading/submissions"]
from hostile_system import ATTACKS
from test_walls import ALL, SITE, attacked, field_of_attack
from grading.sandbox import Sandbox
with field_of_attack(real=False) as field, Sandbox() as sandbox:
    sandbox.start()
    through = [each.name for each in ATTACKS if each.name in sys.argv[1:] and attacked(sandbox, each, field)[0]]
print(json.dumps([str(sandbox.confinement), through]))
"""


@root_only
@pytest.mark.parametrize(
    "names",
    [pytest.param(QUEUES, marks=pytest.mark.long), pytest.param(ALL, marks=pytest.mark.exhaustive)],
    ids=["few", "all"],
)
def test_landlock_4_and_seccomp_alone_stop_attacks_by_nobody(names: Sequence[str], project_of_nobody: Path) -> None:
    """The other processes of the user are reached neither by signals nor by queues."""
    done = run_as_nobody(project_of_nobody, "-c", ATTACKING, *names)
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout) == ["Landlock 4, seccomp, no network", []]


LESS = ("fcntl", "msgctl", "kill", "msgsnd", "msgget", "mq_unlink")
HOLE = """

whole = instructions


def instructions(column, process):
    number = (DENIED | CONDITIONAL)["NAME"][column]
    return [(LOAD, 0, 0, 0), (EQUAL, 0, 1, number), (RETURN, 0, 0, ALLOW), *whole(column, process)]
"""
SURVEYING = """
import os, sys
sys.path.insert(0, os.getcwd())
from grading.sandbox import Sandbox
with Sandbox(unconfined=True) as sandbox:
    sandbox.start()
    print(sandbox.confinement)
"""


@root_only
@pytest.mark.parametrize("name", ["mq_open", *(pytest.param(name, marks=pytest.mark.long) for name in LESS)])
def test_the_survey_finds_that_the_filter_allows_a_call(name: str, project_of_nobody: Path) -> None:
    with (project_of_nobody / "grading" / "inside" / "system_calls.py").open("a") as file:
        file.write(HOLE.replace("NAME", name))
    done = run_as_nobody(project_of_nobody, "-c", SURVEYING)
    assert done.returncode == 0, done.stderr
    assert done.stdout == "Landlock 4, seccomp, no network, but open: other processes\n"


@pytest.mark.long
@root_only
@pytest.mark.parametrize(
    ("checks", "points"),
    [(["1a-2-basic", "2-4-hidden"], "2 / 2"), pytest.param([], "8 / 8", marks=pytest.mark.long)],
    ids=["few", "all"],
)
def test_nobodys_right_submission_gets_all_points_within_landlock_4_and_seccomp(
    checks: Sequence[str], points: str, project_of_nobody: Path, data_dir: Path
) -> None:
    (project_of_nobody / "right.py").write_text(COURSE)
    (project_of_nobody / "data").symlink_to(data_dir)
    done = run_as_nobody(project_of_nobody, "grader.py", *checks, "--submission", "right.py")
    assert done.returncode == 0, done.stderr + done.stdout
    assert "confined by: Landlock 4, seccomp, no network" in done.stderr
    assert points in done.stdout


@pytest.mark.long
@root_only
def test_gradescopes_scripts_where_namespaces_are_denied(data_dir: Path, open_folder: Path) -> None:
    """As root, as Gradescope runs them; the project's files are closed to others, and cannot be found."""
    (open_folder / "source").mkdir()
    for path in (*ROOT.glob("*.py"), ROOT / "requirements.txt"):
        shutil.copy(path, open_folder / "source")
    for name in ("grading", "cli", "datasets", "training", "tracking"):
        shutil.copytree(ROOT / name, open_folder / "source" / name, ignore=shutil.ignore_patterns("__pycache__"))
    (open_folder / "source" / "data").symlink_to(data_dir)
    subprocess.run(["chmod", "-R", "go-rwx", open_folder / "source"], check=True)  # as the end of setup.sh does
    (open_folder / "submission").mkdir()
    environment = {**os.environ, "AUTOGRADER": str(open_folder), "PYTHON": sys.executable}
    for code, score in ((COURSE, 14), (HIDE_AND_SEEK + f"exec(open({str(ROOT / 'models.py')!r}).read())", 0)):
        (open_folder / "submission" / "models.py").write_text(code)
        done = subprocess.run(
            [*DENYING, ROOT / "course" / "gradescope" / "run_autograder"],
            env=environment, capture_output=True, text=True, timeout=120, check=False,
        )  # fmt: skip
        assert done.returncode == 0, done.stderr
        results = json.loads((open_folder / "results" / "results.json").read_text())
        assert results["score"] == score, results
        confined = results["extra_data"]["confined_by"]
        assert re.fullmatch(r"Landlock \d+, seccomp(, user \d+)?, no network", confined)


@root_only
@pytest.mark.exhaustive
def test_no_attack_comes_through_where_namespaces_are_denied() -> None:
    with field_of_attack(real=False) as field, Sandbox([wall for wall in WALLS if wall != "namespaces"]) as sandbox:
        through = {each.name: attacked(sandbox, each, field) for each in ATTACKS}
    assert {name: said for name, (came, said) in through.items() if came} == {}


def points_of(files: Mapping[str, bytes], folder: Path, checks: Sequence[Check]) -> dict[str, int]:
    """Grade one submission after the other with the same sandboxes."""
    points = {}
    with Pool(jobs=2) as pool:
        for name, content in files.items():
            (folder / name).write_bytes(content)
            points[name] = grade(pool, uploads([folder / name])[0], checks, None).points
    return points


def hostile_files(targets: dict[str, object]) -> dict[str, bytes]:
    """Make ten submissions that attack the system, the grader's answers or the reading of uploads."""
    attacks = {each.name: each.source(targets) for each in ATTACKS if each.name in HOSTILE}
    tricks = {each.name: each.files["models.py"].encode() for each in TRICKS if each.name in HOSTILE}
    assert {*attacks, *tricks} == {*HOSTILE}
    end = b"PK\5\6" + bytes(18)
    zips = {"two disks": b"PK\6\7" + bytes(12) + b"\2\0\0\0" + end, "no end": b"PK\3\4" + bytes(1000)}
    return {f"{n}.py": code for n, code in enumerate([*attacks.values(), *tricks.values()])} | {
        f"{name}.zip": content for name, content in zips.items()
    }


@pytest.mark.parametrize(
    ("others", "checks", "seeds"),
    [
        pytest.param(6, TWO, [0], marks=pytest.mark.long),
        pytest.param(20, BY_HAND, [1, 2, 3], marks=pytest.mark.exhaustive),
    ],
)
def test_a_class_with_ten_hostile_submissions(
    others: int, checks: Sequence[Check], seeds: Sequence[int], tmp_path: Path
) -> None:
    """In any order, the others get the same points as alone."""
    edited_checks = ROOT / "grading" / "checks.py"
    before = edited_checks.read_bytes()
    right = [COURSE, (ROOT / "models.py").read_text()]
    wrong = [edited(mistake.edits) for mistake in WRONG[:: -(len(WRONG) // 18)]]
    honest = {f"honest {n}.py": code.encode() for n, code in enumerate([*right, *wrong][:others])}
    assert len(honest) == others
    alone = points_of(honest, tmp_path, checks)
    assert alone["honest 0.py"] == sum(check.points for check in checks) > min(alone.values())
    with field_of_attack(real=True) as field:
        files = [*(honest | hostile_files(field.targets | {"decoy": str(edited_checks)})).items()]
        for seed in seeds:
            random.Random(seed).shuffle(files)
            together = points_of(dict(files), tmp_path, checks)
            assert {name: together[name] for name in alone} == alone
    assert edited_checks.read_bytes() == before
