"""A class as an instructor grades it: table, results and pages; one submission's trouble is one row."""

import html
import json
import re
import shutil
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
from classes import (
    CAUSE,
    CHECKS,
    HOSTILE,
    MODELS,
    PAGES,
    ROOT,
    ROWS,
    SCORES,
    WRONG,
    command,
    make_class,
    pages_in,
    results_of,
    rows_of,
    run,
    scores_of,
)

import grader
from grading.pool import Pool
from grading.submissions import Submission, Upload

GRADER = [sys.executable, str(ROOT / "grader.py")]


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return make_class(tmp_path)


@pytest.mark.long
def test_a_class_has_a_table_results_and_pages_with_causes_in_words(folder: Path) -> None:
    done = run(folder, command("--csv", "grades.csv"))
    assert done.returncode == 1, done.stderr
    assert rows_of(folder / "grades.csv") == [["submission", *CHECKS, "points", "first cause", "problem"], *ROWS]

    results = results_of(folder / "results.json")
    assert scores_of(results) == SCORES
    syntax = results["class/syntax.py"]
    assert json.dumps(syntax).count("SyntaxError") == 2  # for the student, and for the instructor in extra_data
    assert syntax["extra_data"]["problem"] == "SyntaxError, line 2: invalid syntax"
    confined = done.stderr.splitlines()[0].removeprefix("confined by: ")
    for result in results.values():
        assert result.pop("extra_data")["confined_by"] == confined
        assert confined not in json.dumps(result)

    pages = pages_in(folder / "pages")
    assert {*pages} == PAGES
    for ending in ("md", "html"):
        assert CAUSE.partition(": ")[2] in pages[f"wrong.py.{ending}"]
        assert "1 / 2 points" in pages[f"wrong.py.{ending}"]
        assert pages[f"syntax.py.{ending}"].count("SyntaxError") == 1
    assert f"| {HOSTILE}" in pages["wrong.py.md"]
    assert HOSTILE not in pages["wrong.py.html"]
    assert f"| {html.escape(HOSTILE)}" in pages["wrong.py.html"]
    assert not any(confined in page for page in pages.values())

    # Nothing is left to do but the submissions that could not be graded; the others are not asked again.
    for name in ("syntax.py", "name.py", "empty.py"):
        (folder / "class" / name).write_text(MODELS)
    shutil.rmtree(folder / "pages")
    again = run(folder, command("--rerun-failed", "grades.csv"))
    assert [row[3] for row in rows_of(folder / "grades.csv")[1:]] == ["2", "2", "1", "2", "2", "1", "2"]
    assert [result["score"] for result in results_of(folder / "results.json").values()] == [2, 2, 1, 2, 2, 1, 2]
    assert {name.rpartition(".")[0] for name in pages_in(folder / "pages")} == {"syntax.py", "name.py", "empty.py"}
    assert again.stdout.endswith("5 of 7 submissions have all 2 points\n")
    last = run(folder, command("--rerun-failed", "grades.csv"))
    assert (last.returncode, last.stdout) == (1, again.stdout)
    assert last.stderr == "nothing to grade: grades.csv has all of these submissions\n"


def failing(name: str, error: Exception) -> Upload:
    def read() -> Submission:
        raise error

    return Upload(name, read)


def graded_here(folder: Path, uploads: Sequence[Upload], monkeypatch: pytest.MonkeyPatch, *flags: str) -> int:
    """Run the command in this process on these uploads."""
    monkeypatch.chdir(folder)
    monkeypatch.setattr(grader, "uploads", lambda _: uploads)
    monkeypatch.setattr(grader, "available_cores", lambda: 1)
    return grader.main(["1a-2-basic", *flags, "--submission", "class"])


def test_a_submission_on_which_the_grader_fails_is_one_row(
    folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    files = {"models.py": MODELS.encode()}
    right = [Upload(name, lambda: Submission(files)) for name in ("first.py", "last.py")]
    bug = failing("bug.zip", IndexError("\x1b[31m" + "x" * 9000))
    deep = failing("deep.zip", RecursionError("too deep"))
    disk = failing("disk.zip", PermissionError(13, "Permission denied", "/secret/place"))
    judged = Upload("judged.py", lambda: Submission({"models.py": b"judge"}))
    unwritten = Upload("unwritten.zip", lambda: Submission({**files, "x" * 300 + ".py": b""}))
    submit = Pool.submit

    def submit_or_fail(pool: Pool, check: Any, files: dict[str, bytes], split: Any) -> Any:
        if files["models.py"] == b"judge":
            raise OSError("the wall seccomp cannot be put up any more")
        return submit(pool, check, files, split)

    monkeypatch.setattr(Pool, "submit", submit_or_fail)
    uploads = [right[0], bug, deep, disk, judged, unwritten, right[1]]
    flags = ("--csv", "grades.csv", "--feedback", "pages", "--json", "results.json")
    assert graded_here(folder, uploads, monkeypatch, *flags) == 1
    rows = {row[0]: row[1:] for row in rows_of(folder / "grades.csv")[1:]}
    assert list(rows) == [each.name for each in uploads]
    assert rows["first.py"] == rows["last.py"] == ["1", "1", "", ""]
    assert re.fullmatch(r"the grader failed: IndexError.{100,300}", rows["bug.zip"][-1])
    assert rows["deep.zip"][-1] == "the grader failed: RecursionError('too deep')"
    assert rows["disk.zip"][-1] == "it cannot be read: Permission denied"
    assert "the wall seccomp" in rows["judged.py"][-1]
    assert "cannot be written" in rows["unwritten.zip"][-1]
    output, errors = capsys.readouterr()
    assert all(line.isprintable() for line in (output + errors).splitlines())
    assert len(errors) < 12_000
    student = "".join(pages_in(folder / "pages").values())
    student += json.dumps([result["tests"] for result in results_of(folder / "results.json").values()])
    assert "the grader failed on this submission, which is not graded yet" in student
    assert "wall" not in student


@pytest.mark.long
def test_a_grader_that_fails_on_all_submissions_has_not_run(
    folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    for error, is_bug, count in ((OSError("no sandbox"), False, 1), (KeyError("bug"), True, 2)):
        uploads = [failing(f"{n}.py", ValueError()) for n in range(count)]

        def grade_or_fail(*_: object, error: Exception = error) -> None:
            raise error

        monkeypatch.setattr(grader, "grade", grade_or_fail)
        assert graded_here(folder, uploads, monkeypatch, "--csv", "grades.csv", "--json", "results.json") == 2
        errors = capsys.readouterr().err.splitlines()
        assert errors[-1].startswith("grader.py: error: the grader failed: ")
        assert ("Traceback (most recent call last):" in errors) == is_bug
        assert [row[-1][:19] for row in rows_of(folder / "grades.csv")[1:]] == ["the grader failed: "] * count
    assert graded_here(folder, uploads[:1], monkeypatch, "--json", "gradescope.json") == 2
    assert not (folder / "gradescope.json").exists()


def test_a_grader_that_cannot_write_its_table_ends_with_the_number_of_graded_submissions(
    folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    (folder / "out").mkdir()

    def remove() -> Submission:
        shutil.rmtree(folder / "out")
        return Submission({"models.py": b""})

    right = Upload("right.py", lambda: Submission({"models.py": MODELS.encode()}))
    uploads = [right, Upload("remover.py", remove), Upload("never.py", remove)]
    assert graded_here(folder, uploads, monkeypatch, "--csv", "out/grades.csv") == 2
    *_, count, reason = capsys.readouterr().err.splitlines()
    assert count == "1 of 3 submissions are graded, in out/grades.csv: --rerun-failed with this file grades the others"
    assert reason == "grader.py: error: out/grades.csv cannot be written: No such file or directory"


def test_the_same_path_is_graded_once_and_a_note_is_shown(
    folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    done = run(folder, [*GRADER, "1a-2-basic", "--submission", *["class/right.py"] * 3])
    assert done.stdout.endswith("1 / 1 points\n")
    note = "the code cells of hw.ipynb are graded"
    upload = Upload("hw.ipynb", lambda: Submission({"models.py": WRONG.encode()}, note))
    flags = ("--csv", "grades.csv", "--feedback", "pages", "--json", "results.json")
    assert graded_here(folder, [upload], monkeypatch, *flags) == 1
    assert rows_of(folder / "grades.csv")[1][-2].startswith(f"{note}; 1a-2-basic: the item bias starts")
    assert note in capsys.readouterr().out
    assert note in json.loads((folder / "results.json").read_text())["submissions"]["hw.ipynb"]["output"]
    assert note.replace("_", "\\_") in (folder / "pages" / "hw.ipynb.md").read_text()
    assert note in (folder / "pages" / "hw.ipynb.html").read_text()


def test_a_folder_for_gradescope_is_one_submission_even_if_it_looks_like_a_class(folder: Path) -> None:
    for name in ("doejane_11_21_models.py", "roejohn_12_22_models.py"):
        (folder / "class" / name).write_text(MODELS)
    for path in (folder / "class").iterdir():
        if "_models" not in path.name:
            path.unlink()
    arguments = [*GRADER, "1a-2-basic", "--submission", "class", "--json", "results.json"]
    done = run(folder, arguments)
    results = json.loads((folder / "results.json").read_text())
    assert (done.returncode, results["score"], results["max_score"]) == (1, 0, 1)
    assert "there is" in results["output"]
    done = run(folder, [*arguments, "--csv", "grades.csv"])
    results = json.loads((folder / "results.json").read_text())["submissions"]
    assert (done.returncode, [result["score"] for result in results.values()]) == (0, [1, 1])
    assert list(results) == [row[0] for row in rows_of(folder / "grades.csv")[1:]]


@pytest.mark.long
def test_an_endless_loop_at_import_says_so_once(folder: Path) -> None:
    (folder / "class" / "loop.py").write_text("while True: pass\n")
    flags = ["--submission", "class/loop.py", "--csv", "grades.csv", "--patience", "0.1"]
    done = run(folder, [*GRADER, *CHECKS, *flags])
    problem = "no answer within 1 s: an endless loop, or waiting for input?"
    assert done.stdout.count(problem) == 1
    assert rows_of(folder / "grades.csv")[1] == ["class/loop.py", "0", "0", "0", "", problem]
