"""grader.py as a student, an instructor and Gradescope use it: output, files and exit status."""

import json
import re
import subprocess
import sys
from pathlib import Path

import pytest
from classes import rows_of
from conftest import Refused
from uploaded import zipped

import grader
from grading.rubric import RUBRIC

ROOT = Path(__file__).parent.parent
BASIC = [check.id for check in RUBRIC if not check.hidden]
MODELS = (ROOT / "models.py").read_text()
NO_BIAS = MODELS.replace("(u * q).sum(-1) + self.B", "(u * q).sum(-1) + 0 * self.B")
OTHER_ORDER = MODELS.replace("torch.cat([u, q, u * q]", "torch.cat([q, u, u * q]")
assert MODELS not in (NO_BIAS, OTHER_ORDER)


def command(*arguments: object) -> list[str]:
    return [sys.executable, str(ROOT / "grader.py"), *map(str, arguments)]


def run(*arguments: object, cwd: Path = ROOT) -> subprocess.CompletedProcess[str]:
    return subprocess.run(command(*arguments), cwd=cwd, capture_output=True, text=True, timeout=120, check=False)


def rest(errors: str) -> str:
    """Return stderr without the line that names the walls."""
    first, _, others = errors.partition("\n")
    assert first.startswith("confined by: ")
    assert first.endswith("no network")
    return others


def test_the_rubric_has_the_courses_points() -> None:
    assert [check.points for check in RUBRIC] == [1] * 12 + [2]
    assert sum(check.points for check in RUBRIC if not check.hidden) == 8
    assert [check.id for check in RUBRIC if check.needs_data] == ["2-2-basic", "2-3-basic"]


def test_all_points_of_this_projects_network_from_any_folder(data_dir: Path, tmp_path: Path) -> None:
    done = run("--data_dir", data_dir, cwd=tmp_path)
    assert (done.returncode, rest(done.stderr)) == (0, "")
    *lines, last = done.stdout.splitlines()
    assert last == "8 / 8 points"
    assert [line.split()[0] for line in lines] == BASIC
    assert all(re.fullmatch(r"\S+ +1/1 +\d+\.\d s  .+", line) for line in lines)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.long
def test_hidden_checks_and_json_for_gradescope(data_dir: Path, tmp_path: Path) -> None:
    (tmp_path / "models.py").write_text(f"{OTHER_ORDER}\nprint('hi')\n")
    json_file = tmp_path / "results.json"
    done = run("--hidden", "--submission", tmp_path, "--json", json_file, "--data_dir", data_dir)
    assert (done.returncode, rest(done.stderr)) == (1, "")
    assert done.stdout.splitlines()[-1] == "8 / 14 points"
    results = json.loads(json_file.read_text())
    assert (results["score"], results["max_score"]) == (8, 14)
    assert results["execution_time"] > 0
    confined = done.stderr.splitlines()[0]
    assert results["output"] == "6 / 8 points in the visible checks"
    assert results["extra_data"] == {"confined_by": confined.removeprefix("confined by: ")}
    tests = results["tests"]
    assert [test["number"] for test in tests] == [check.id for check in RUBRIC]
    assert {test["number"] for test in tests if test["status"] == "failed"} == {
        "2-2-basic", "2-3-basic", "2-4-hidden", "2-5-hidden", "2-7-hidden"
    }  # fmt: skip
    for test, check in zip(tests, RUBRIC, strict=True):
        assert set(test) == {"name", "number", "score", "max_score", "status", "output", "visibility"}
        assert test["visibility"] == ("after_published" if check.hidden else "visible")
        assert test["max_score"] == check.points
        assert test["score"] == (check.points if test["status"] == "passed" else 0)
        assert "Your code printed:\nhi" in test["output"]
    assert "Likely cause: the MLP reads [q, u, u ∗ q] instead of [u, q, u ∗ q]" in tests[9]["output"]


@pytest.mark.long
def test_a_single_check_explains_a_wrong_answer(tmp_path: Path) -> None:
    (tmp_path / "student.py").write_text(NO_BIAS)
    done = run("2-4-hidden", "--submission", tmp_path / "student.py")
    assert (done.returncode, rest(done.stderr)) == (1, "")
    first, message, last = done.stdout.splitlines()
    assert re.match(r"2-4-hidden +0/1 ", first)
    assert re.fullmatch(
        r"    predictions are not those of equation 1, u · q \+ b: \S+ for a pair, expected \S+\. "
        r"Likely cause: the item bias is missing",
        message,
    )
    assert last == "0 / 1 points"


@pytest.mark.long
def test_errors_are_shown_with_the_students_own_lines(tmp_path: Path) -> None:
    wrong = "predictions = undefined + self.B(item_ids).squeeze(-1)"
    code = MODELS.replace(wrong.replace("undefined", "(u * q).sum(-1)"), f"print('before')\n        {wrong}")
    (tmp_path / "models.py").write_text(code)
    done = run("2-0-basic", "2-1-basic", "--submission", tmp_path)
    assert done.returncode == 1
    line = code.splitlines().index(f"        {wrong}") + 1
    assert f"    models.py, line {line}, in forward_with_embedding_sharing: {wrong}\n" in done.stdout
    assert "    NameError: name 'undefined' is not defined\n    | before\n" in done.stdout
    assert "worker" not in done.stdout
    assert str(ROOT) not in done.stdout


@pytest.mark.long
def test_a_class_gets_a_table_and_a_csv(tmp_path: Path) -> None:
    """Files, folders and zips of several students give a table and a CSV, even if one of them cannot be read."""
    code = MODELS.encode()
    (tmp_path / "right.py").write_bytes(code)
    (tmp_path / "folder" / "submission").mkdir(parents=True)
    (tmp_path / "folder" / "submission" / "models.py").write_text("from helper import MultiTaskNet\n")
    (tmp_path / "folder" / "submission" / "helper.py").write_text(NO_BIAS)
    (tmp_path / "zip.zip").write_bytes(zipped({"models.py": code}))
    inner = {"homework/submission/models.py": code, "__MACOSX/homework/models.py": b""}
    (tmp_path / "inner.zip").write_bytes(zipped(inner))
    (tmp_path / "out.zip").write_bytes(zipped({"models.py": code, "../models.py": code}))
    (tmp_path / "nothing" / "models.py").mkdir(parents=True)
    (tmp_path / "notes.zip").write_bytes(b"Rar!\x00")
    names = ("right.py", "folder", "zip.zip", "inner.zip", "out.zip", "nothing", "notes.zip")
    submissions = [tmp_path / name for name in names]
    checks = ("1a-2-basic", "2-4-hidden", "2-7-hidden")
    done = run(*checks, "--submission", *submissions, "--csv", tmp_path / "grades.csv")
    assert done.returncode == 1
    progress = rest(done.stderr).splitlines()
    assert [line.partition(":")[0] for line in progress] == [f"{n} of 7  {name}" for n, name in enumerate(names, 1)]
    assert all(re.search(r" 4 points.*, about \d\d:\d\d left$", line) for line in progress[:-1])
    first, *rows, last = done.stdout.splitlines()
    assert first.split() == ["submission", "1a-2", "2-4", "2-7", "points"]
    points = ["1 1 2 4", "1 0 0 1", "1 1 2 4", "1 1 2 4", *["0 0 0 0"] * 3]
    assert [row.split() for row in rows] == [[str(s), *p.split()] for s, p in zip(submissions, points, strict=True)]
    assert last == "3 of 7 submissions have all 4 points"
    table = rows_of(tmp_path / "grades.csv")
    assert table[0] == ["submission", *checks, "points", "first cause", "problem"]
    assert [row[:-2] for row in table[1:]] == [[str(s), *p.split()] for s, p in zip(submissions, points, strict=True)]
    assert [bool(row[-1]) for row in table[1:]] == [False] * 4 + [True] * 3
    assert [row[-2].partition(":")[0] for row in table[1:]] == ["", "2-4-hidden", *[""] * 5]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ("2-9-basic", "there is no check 2-9-basic: expected one of 1a-0-basic, "),
        ("--submission nowhere.py", "nowhere.py does not exist: expected a models.py, or a folder or zip"),
        ("--submission models.py nowhere", "nowhere does not exist"),
        ("--json out.csv --csv out.csv", "--json is out.csv, which is the table: expected another file"),
        ("--feedback models.py", "models.py is a file: expected a folder"),
        ("--hidden\x1b[31m\u202e", "unrecognized arguments: --hidden\\x1b[31m\\u202e"),
        ("--submission \x1b[31m" + "x" * 3000, "…"),
        ("--json nowhere/out.json", "nowhere/out.json cannot be written: expected a file in a folder that exists"),
        ("--csv tests", "tests cannot be written"),
        ("--jobs 0", "--jobs is 0: expected at least 1"),
        ("--patience nan", "--patience is nan"),
        ("--data_dir models.py", "models.py is a file: expected a folder"),
        ("--rerun-failed nowhere.csv", "nowhere.csv does not exist: expected a table that --csv wrote"),
        ("--rerun-failed pyproject.toml", "pyproject.toml is no table of the same checks: expected the columns"),
        ("--hiden", "unrecognized arguments: --hiden"),
    ],
)
def test_a_grader_that_cannot_run_gives_the_reason_in_one_line(
    arguments: str, message: str, refused: Refused, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The grader is called in this process."""
    monkeypatch.chdir(ROOT)
    errors = refused("grader.py", grader.main, arguments.split())
    assert re.fullmatch(r"grader\.py: error: [^\n]+\n", errors), errors
    assert message in errors
    assert errors[:-1].isprintable()
    assert len(errors) < 1100


def test_torch_is_loaded_only_for_the_checks_that_train() -> None:
    """Loading torch takes a second, and the processes of submissions load it themselves."""
    program = "import sys, grader; sys.exit(grader.main(['2-4-hidden']) or 'torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", program], cwd=ROOT, check=False).returncode == 0


def test_a_system_without_fcntl_is_refused_in_one_line() -> None:
    """The grader also runs as if Windows had started it: walls need fcntl, which Windows does not have."""
    program = "import runpy, sys; sys.modules['fcntl'] = None; runpy.run_path('grader.py', run_name='__main__')"
    done = subprocess.run([sys.executable, "-c", program], cwd=ROOT, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout) == (2, "")
    expected = "this system cannot confine submissions: expected Linux, macOS, or WSL on Windows"
    assert done.stderr == f"grader.py: error: {expected}\n"


@pytest.mark.parametrize("fault", ["import grading.pool; grading.pool.Pool = 0 ", "sys.modules['tqdm'] = None"])
def test_a_bug_has_a_traceback_and_not_the_status_of_missing_points(fault: str) -> None:
    program = f"import runpy, sys; {fault}; runpy.run_path('grader.py', run_name='__main__')"
    command = [sys.executable, "-c", program, "1a-2-basic"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr.startswith("Traceback (most recent call last):\n")
