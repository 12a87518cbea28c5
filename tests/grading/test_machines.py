"""The grader on machines that lack some walls, and for root and other users: the same points, or a refusal."""

import contextlib
import json
import os
import shutil
import subprocess
import sys
import tempfile
import zipfile
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from hostile_system import ATTACKS
from test_walls import attacked, field_of_attack
from wrong import COURSE

from grading.checks import import_models
from grading.inside.walls import WALLS
from grading.pool import Pool, grade
from grading.rubric import RUBRIC
from grading.sandbox import Sandbox, Unconfined
from grading.session import Unanswered

ROOT = Path(__file__).parent.parent.parent
DENYING = [sys.executable, str(Path(__file__).parent / "without_namespaces.py")]
HIDE_AND_SEEK = "import os\nfor p in ('/work', '/home', '/autograder'):\n    for f in os.walk(p): pass\n"
BY_HAND = [each for each in RUBRIC if not each.needs_data]

root_only = pytest.mark.skipif(os.geteuid() != 0 or sys.platform != "linux", reason="needs root on Linux")


@pytest.fixture
def open_folder() -> Iterator[Path]:
    """A folder that other users can pass through."""
    with tempfile.TemporaryDirectory() as folder:
        os.chmod(folder, 0o755)
        yield Path(folder)


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
        b"print(known & sys.modules.keys(), sys.argv, sys.orig_argv[1:], sys.modules['__main__'].settings)\n"
    )
    with Sandbox() as sandbox, sandbox.session({"models.py": code}, 20) as session, contextlib.suppress(Unanswered):
        import_models(session.ask)
    assert "set() ['-c'] [] {}" in session.printed, session.printed
    assert "grading.inside.worker" in session.printed


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
        assert "Landlock" in confined
        assert "seccomp" in confined
        assert "no network" in confined
        assert "namespaces" not in confined


@root_only
@pytest.mark.exhaustive
def test_no_attack_comes_through_where_namespaces_are_denied() -> None:
    with field_of_attack(real=False) as field, Sandbox([wall for wall in WALLS if wall != "namespaces"]) as sandbox:
        through = {each.name: attacked(sandbox, each, field) for each in ATTACKS}
    assert {name: said for name, (came, said) in through.items() if came} == {}


@pytest.mark.parametrize(
    ("honest", "checks"),
    [
        pytest.param(4, ("1a-2-basic", "2-4-hidden"), marks=pytest.mark.long),
        pytest.param(27, None, marks=pytest.mark.exhaustive),
    ],
)
def test_a_class_with_hostile_submissions_among_the_others(
    honest: int, checks: tuple[str, ...] | None, tmp_path: Path
) -> None:
    """The others get the same points as alone."""
    asked = [check for check in (BY_HAND if checks is None else RUBRIC) if checks is None or check.id in checks]
    hostile = [each for each in ATTACKS if each.name in ("lines appended to the checks", "a daemon", "100 processes")]
    wrong = COURSE.replace("u * q", "u + q")
    assert wrong != COURSE
    with field_of_attack(real=True) as field:
        targets = field.targets | {"decoy": str(ROOT / "grading" / "checks.py")}
        files = {f"{n:02}": (wrong if n % 3 == 0 else COURSE).encode() for n in range(honest)}
        names = [*list(files)[: honest // 2], *(each.name for each in hostile), *list(files)[honest // 2 :]]
        files |= {each.name: each.source(targets) for each in hostile}
        for name, content in files.items():
            with zipfile.ZipFile(tmp_path / f"{name}.zip", "w") as archive:
                archive.writestr("models.py", content)
        torch.set_num_threads(1)
        before = (ROOT / "grading" / "checks.py").read_bytes()
        with Pool(jobs=2) as pool:
            together = {name: grade(pool, tmp_path / f"{name}.zip", asked, None).points for name in names}
        with Pool(jobs=2) as pool:
            alone = {name: grade(pool, tmp_path / f"{name}.zip", asked, None).points for name in ("00", "01")}
    assert (ROOT / "grading" / "checks.py").read_bytes() == before
    assert alone["01"] == sum(check.points for check in asked) > alone["00"]
    assert together == {
        name: 0 if name in {each.name for each in hostile} else alone["00" if int(name) % 3 == 0 else "01"]
        for name in names
    }
