"""hand_in.py in a student's folder: the contents of submission.zip, and the lines that name missing things."""

import json
import zipfile
from pathlib import Path

import pytest
from classroom import run

import handout
from course import hand_in
from grading.submissions import read_submission
from study.four_experiments import EXPERIMENTS

ANSWER = "<!-- your answer -->"
RUNS = [experiment.folder for experiment in EXPERIMENTS]


def finished(folder: Path, name: str, epochs: int = 200) -> None:
    """Write the files of a run of this many epochs."""
    place = folder / "run" / name
    place.mkdir(parents=True)
    (place / "metrics.csv").write_text("epoch,test_mse\n" + "".join(f"{epoch},1\n" for epoch in range(epochs)))
    (place / "events.out.tfevents.1").write_bytes(b"\0curves")
    (place / "checkpoint.pt").write_bytes(b"large")


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Return a complete homework, with a stub of the grader that gives all points."""
    place = tmp_path / "homework"
    assert handout.main(["student", str(place)]) == 0
    graded(place, "passed")
    for name in RUNS:
        finished(place, name)
    answers = place / "answers.md"
    answers.write_text(answers.read_text().replace(ANSWER, "It depends."))
    return place


def graded(folder: Path, status: str) -> None:
    """Write a stub of the grader whose only check has this status."""
    results = json.dumps({"tests": [{"name": "1a-2-basic: item bias", "status": status}]})
    (folder / "grader.py").write_text(f"import sys\nopen(sys.argv[2], 'w').write({results!r})\n")


def zipped(folder: Path) -> set[str]:
    with zipfile.ZipFile(folder / "submission.zip") as archive:
        return set(archive.namelist())


def test_the_experiments_are_those_of_the_homework() -> None:
    assert hand_in.EXPERIMENTS == EXPERIMENTS


@pytest.mark.long
def test_a_complete_submission(folder: Path) -> None:
    """It contains the student's own files, including packages, but no files that were handed out."""
    (folder / "layers.py").write_text("own = 1\n")
    (folder / "parts").mkdir()
    (folder / "parts" / "__init__.py").write_text("")
    (folder / "run" / "notes.txt").write_text("of a run")
    finished(folder, "another", 250)
    finished(folder, "short", 3)
    done = run(folder, "hand_in.py")
    assert (done.returncode, done.stdout, done.stderr) == (0, "submission.zip is made; nothing is missing\n", "")
    files = ("metrics.csv", "events.out.tfevents.1")
    runs = {f"run/{name}/{file}" for name in [*RUNS, "another"] for file in files}
    assert zipped(folder) == {"models.py", "layers.py", "parts/__init__.py", "answers.md"} | runs
    assert read_submission(folder / "submission.zip").files.keys() == {"models.py", "layers.py", "parts/__init__.py"}
    assert run(folder, "hand_in.py").returncode == 0  # overwrites the first one


def test_each_thing_that_is_missing_is_named(folder: Path) -> None:
    graded(folder, "failed")
    answers = folder / "answers.md"
    text = answers.read_text()
    second, third = text.index("## Question 2"), text.index("## Question 3")
    answers.write_text(text[:second].replace("It depends.", ANSWER) + text[third:])
    (folder / "run" / RUNS[1] / "metrics.csv").unlink()
    metrics = folder / "run" / RUNS[2] / "metrics.csv"
    metrics.write_text("".join(metrics.read_text().splitlines(keepends=True)[:-1]))
    done = run(folder, "hand_in.py")
    assert done.returncode == 1, done.stderr
    assert done.stdout.splitlines() == [
        "missing: the points of check 1a-2-basic: item bias",
        "missing: an answer to question 1 in answers.md",
        "missing: an answer to question 2 in answers.md",
        f"missing: the experiment run/{RUNS[1]}: 0 of 200 epochs",
        f"missing: the experiment run/{RUNS[2]}: 199 of 200 epochs",
        "submission.zip is made; missing: 5",
    ]
    assert {name.split("/")[1] for name in zipped(folder) if "/" in name} == {RUNS[0], RUNS[3]}


def test_a_submission_with_models_py_only(tmp_path: Path) -> None:
    """The folder is as handed out, but without answers.md and with a grader that cannot run."""
    folder = tmp_path / "homework"
    assert handout.main(["student", str(folder)]) == 0
    (folder / "answers.md").unlink()
    (folder / "grader.py").write_text("raise SystemExit(2)\n")
    done = run(folder, "hand_in.py")
    assert done.returncode == 1, done.stderr
    assert "missing: the visible checks, which could not run\n" in done.stdout
    assert done.stdout.splitlines()[-1] == "submission.zip is made; missing: 6"
    assert zipped(folder) == {"models.py"}


def test_without_models_py_there_is_no_zip(folder: Path) -> None:
    (folder / "models.py").unlink()
    done = run(folder, "hand_in.py")
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr == "hand_in.py: error: models.py is missing: expected it beside hand_in.py\n"
    assert not (folder / "submission.zip").exists()
