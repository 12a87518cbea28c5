"""handout.py: the contents of the student's folder and of Gradescope's zip, and arguments that are refused."""

import json
import os
import re
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest
from classroom import ROOT, bodies, fill_in, run, student_folder
from conftest import Refused
from test_main import COURSE_COMMANDS

import handout
from course.autograder import autograder_files
from course.student_folder import ROOMS, TOP, WITHHELD, is_withheld, student_files
from grading.rubric import RUBRIC

FUNCTION_OF = {"1a-0": "init_shared_", "1a-1": "init_separate_", "1a-2": "init_item_bias", "1b-0": "init_mlp_layers"}


@pytest.fixture
def source(tmp_path: Path) -> Path:
    """The contents of the zip for Gradescope, in the place where Gradescope unpacks them."""
    assert handout.main(["autograder", str(tmp_path / "autograder.zip")]) == 0
    with zipfile.ZipFile(tmp_path / "autograder.zip") as archive:
        assert archive.getinfo("run_autograder").external_attr >> 16 == 0o755
        archive.extractall(tmp_path / "source")
    return tmp_path / "source"


def test_nothing_of_the_solution_is_in_the_students_folder() -> None:
    everything = "\n".join(content.decode() for content in student_files().values())
    returned = r"\s*return [\w, ]+\n"  # a line of names is no solution; forward's docstring has them
    lines = {line.strip() for body in bodies().values() for line in body if not re.fullmatch(returned, line)}
    assert len(lines) > 8
    assert [line for line in lines if line in everything] == []
    # The notebook's JSON escapes lines.
    assert [line for line in lines if json.dumps(line)[1:-1] in everything] == []


def test_the_students_folder_has_neither_hidden_checks_nor_answers() -> None:
    files = student_files()
    assert all([*ROOT.glob(pattern)] for pattern in WITHHELD), "a withheld file has another name now"
    assert not any(is_withheld(name) for name in files)
    folders = {name.partition("/")[0] for name in files if "/" in name}
    assert folders == set(ROOMS)
    assert set(TOP) | {"models.py", "HOMEWORK.md", "homework.ipynb", "answers.md", "hand_in.py"} <= files.keys()
    assert files.keys().isdisjoint({"experiments.py", "recommend.py", "handout.py", "README.md"})
    text = "\n".join(content.decode() for content in files.values())
    assert not any(check.title in text for check in RUBRIC if check.hidden)
    assert "user bias would" not in text  # the first question asks for it
    notebook = json.loads(files["homework.ipynb"])
    assert not any(cell.get("outputs") or cell.get("execution_count") for cell in notebook["cells"])


def test_every_file_of_the_students_training_can_be_imported(tmp_path: Path) -> None:
    assert handout.main(["student", str(tmp_path / "homework")]) == 0
    modules = [f"training.{path.stem}" for path in (tmp_path / "homework" / "training").glob("*.py")]
    done = run(tmp_path / "homework", "-c", f"import {', '.join(modules)}")
    assert done.returncode == 0, done.stderr


def test_the_homework_has_the_courses_commands() -> None:
    files = student_files()
    assert all(command in files["HOMEWORK.md"].decode().splitlines() for command in COURSE_COMMANDS)
    cells = ("".join(cell["source"]) for cell in json.loads(files["homework.ipynb"])["cells"])
    flags_of = dict(re.findall(r'"(run/\S+)": "(.+)"', "\n".join(cells)))
    assert [f"python main.py {flags} --logdir {logdir}" for logdir, flags in flags_of.items()] == COURSE_COMMANDS


def test_the_homework_gives_the_points_of_the_rubric() -> None:
    text = (ROOT / "course" / "HOMEWORK.md").read_text("utf-8")
    rows = dict(re.findall(r"^\| ([\w.]+) \| .* \| (\d+) \|$", text, flags=re.MULTILINE))
    for exercise, beginning in {"A1": "1a", "A2": "1b", "B": "2"}.items():
        points = sum(check.points for check in RUBRIC if check.id.startswith(f"{beginning}-"))
        assert int(rows[exercise]) == points
        assert f"({points} points)" in next(line for line in text.splitlines() if f"Exercise {exercise}:" in line)
    assert f"| **{sum(map(int, rows.values()))}** |" in text


def test_the_folder_and_the_zip_are_the_same(tmp_path: Path) -> None:
    for name in ("folder", "one.zip", "two.zip"):
        assert handout.main(["student", str(tmp_path / name)]) == 0
    files = student_files()
    with zipfile.ZipFile(tmp_path / "one.zip") as archive:
        assert {name: archive.read(name) for name in archive.namelist()} == files
    folder = tmp_path / "folder"
    assert {p.relative_to(folder).as_posix(): p.read_bytes() for p in folder.rglob("*") if p.is_file()} == files
    assert (tmp_path / "one.zip").read_bytes() == (tmp_path / "two.zip").read_bytes()


def test_the_zip_for_gradescope_has_the_checks_and_no_solution() -> None:
    files = autograder_files()
    assert {"setup.sh", "run_autograder", "grader.py", "grading/hidden.py", "grading/inside/walls.py"} <= files.keys()
    assert "models.py" not in files
    assert {name.partition("/")[0] for name in files if "/" in name} == {"cli", "datasets", "grading"}


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ("student full", "full is not empty: expected a new folder, or an empty one"),
        ("student file.zip", "file.zip exists: choose another name, or remove it first"),
        ("student file", "file exists: choose another name"),
        ("autograder file.zip", "file.zip exists"),
        ("autograder folder", "path is folder: expected a file that ends in .zip"),
        ("teacher folder", "argument handout: invalid choice: 'teacher'"),
    ],
)
def test_nothing_is_overwritten(
    arguments: str, message: str, refused: Refused, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "full").mkdir()
    for name in ("full/models.py", "file.zip", "file"):
        (tmp_path / name).write_text("mine")
    monkeypatch.chdir(tmp_path)
    errors = refused("handout.py", handout.main, arguments.split())
    assert re.fullmatch(r"handout\.py: error: [^\n]+\n", errors), errors
    assert message in errors
    assert {path.name for path in tmp_path.iterdir()} == {"full", "file.zip", "file"}
    assert (tmp_path / "file.zip").read_text() == "mine"


@pytest.mark.parametrize("offline", [False, True])
def test_setup_tries_the_cpu_build_of_torch_first(offline: bool, source: Path, tmp_path: Path) -> None:
    """With stubs of all programs, which log their arguments."""
    programs, log = tmp_path / "programs", tmp_path / "log"
    programs.mkdir()
    pip = f'echo "pip $@" >> {log}' + ('\ncase "$*" in *--index-url*) exit 1;; esac' if offline else "")
    stub = f'#!/bin/sh\nmkdir -p "$3/bin"\ncp {programs}/pip {programs}/python "$3/bin"\n'
    for name, text in {"apt-get": ":", "pip": pip, "python": f'echo "python $@" >> {log}'}.items():
        (programs / name).write_text(f"#!/bin/sh\n{text}\n")
    (programs / "python3").write_text(stub)
    for path in programs.iterdir():
        path.chmod(0o755)
    environment = os.environ | {"AUTOGRADER": str(tmp_path), "PATH": f"{programs}{os.pathsep}{os.environ['PATH']}"}
    subprocess.run(["bash", source / "setup.sh"], env=environment, check=True)
    torch = next(line for line in (ROOT / "requirements.txt").read_text().splitlines() if line.startswith("torch"))
    first, second, third = log.read_text().splitlines()
    assert first.startswith("pip install --index-url https://download.pytorch.org/whl/cpu ")
    assert first.endswith(f" {torch}")
    assert second == "pip install -r requirements.txt"
    assert third.startswith("python -c import data")
    assert source.stat().st_mode & 0o077 == 0


@pytest.mark.long
def test_the_starter_gets_no_points_and_each_message_names_the_function_to_fill_in(
    tmp_path: Path, data_dir: Path
) -> None:
    folder = student_folder(tmp_path / "homework", data_dir)
    done = run(folder, "grader.py")
    assert done.returncode == 1, done.stderr
    visible = sum(check.points for check in RUBRIC if not check.hidden)
    assert done.stdout.splitlines()[-1] == f"0 / {visible} points"
    messages = dict(re.findall(r"^(\d\w?-\d)-basic .*\n((?:    .*\n)+)", done.stdout, flags=re.MULTILINE))
    assert len(messages) == sum(not check.hidden for check in RUBRIC)
    for check, said in messages.items():
        assert re.search(r"models\.py, line \d+, in init_\w+: raise NotImplementedError", said), said
        assert f"exercise A{2 if check == '1b-0' else 1}: {FUNCTION_OF.get(check, 'init_')}" in said
    hidden = run(folder, "grader.py", "--hidden")
    assert (hidden.returncode, hidden.stdout) == (2, "")
    assert re.fullmatch(r"grader\.py: error: --hidden .* has only the visible checks\n", hidden.stderr), hidden.stderr


def test_main_names_the_first_missing_function_of_the_starter_in_one_line(tmp_path: Path, data_dir: Path) -> None:
    done = run(student_folder(tmp_path / "homework", data_dir), "main.py")
    assert (done.returncode, done.stdout) == (2, "")
    assert re.fullmatch(r"main\.py: error: [^\n]+\n", done.stderr), done.stderr
    for words in ("models.py, line ", "init_shared_user_and_item_embeddings", "exercise A1", "HOMEWORK.md"):
        assert words in done.stderr


@pytest.mark.long
def test_each_exercise_that_is_filled_in_raises_the_points(source: Path, tmp_path: Path, data_dir: Path) -> None:
    """From the student's folder through hand_in.py to the autograder, in Gradescope's layout."""
    folder = student_folder(tmp_path / "homework", data_dir)
    (source / "data").symlink_to(data_dir)
    environment = os.environ | {"AUTOGRADER": str(tmp_path), "PYTHON": sys.executable}
    for exercise, visible, all_points in (("A1", 3, 3), ("A2", 4, 5), ("B", 8, 14)):
        fill_in(folder, exercise)
        done = run(folder, "hand_in.py")
        assert done.returncode == 1, done.stderr  # the runs and the answers are missing
        assert f"{visible} / 8 points\n" in done.stdout
        assert done.stdout.count("missing: the points of check ") == 8 - visible
        with zipfile.ZipFile(folder / "submission.zip") as archive:
            archive.extractall(tmp_path / "submission")
        script = ["bash", str(source / "run_autograder")]
        graded = subprocess.run(script, env=environment, capture_output=True, text=True, check=False)
        assert graded.returncode == 0, graded.stderr
        results = json.loads((tmp_path / "results" / "results.json").read_text())
        assert (results["score"], results["max_score"]) == (all_points, 14)


@pytest.mark.long
def test_the_grader_in_a_students_folder_sees_the_files_that_the_student_added(tmp_path: Path, data_dir: Path) -> None:
    folder = student_folder(tmp_path / "homework", data_dir)
    fill_in(folder, "A1", "A2", "B")
    models = folder / "models.py"
    models.write_text(f"import helper\n{models.read_text()}")
    (folder / "helper.py").write_text("own = 1\n")
    assert run(folder, "grader.py", "1a-2-basic").returncode == 0
    (folder / "helper.py").unlink()
    assert "No module named 'helper'" in run(folder, "grader.py", "1a-2-basic").stdout
