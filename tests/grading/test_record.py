"""The files of a grading that is stopped or killed at any moment: no result is lost, and the rest can be added."""

import contextlib
import os
import random
import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import IO

import pytest
from classes import PAGES, ROOT, ROWS, SCORES, command, make_class, pages_in, results_of, rows_of, run, scores_of
from sandbox_processes import processes_of

from cli.files import write_whole
from grading import record
from grading.record import Record
from grading.results import Grade, Result, ungraded
from grading.rubric import RUBRIC

STATUS = {signal.SIGINT: 130, signal.SIGTERM: 143, signal.SIGKILL: -9}


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return make_class(tmp_path)


@contextlib.contextmanager
def grading(folder: Path) -> Iterator["subprocess.Popen[str]"]:
    """Start to grade the class, and wait until the sandboxes are ready."""
    with subprocess.Popen(
        command("--csv", "grades.csv"), cwd=folder, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True
    ) as process:
        assert errors_of(process).readline().startswith("confined by: ")
        yield process


def errors_of(process: "subprocess.Popen[str]") -> IO[str]:
    assert process.stderr is not None
    return process.stderr


def assert_nothing_is_lost(folder: Path) -> int:
    """Check that there is the beginning of the results, and that the rest can be added; return the number of rows."""
    done = rows_of(folder / "grades.csv")
    results = results_of(folder / "results.json")
    assert done[1:] == ROWS[: len(done) - 1]
    assert [*results][: len(done) - 1] == [*SCORES][: len(done) - 1]
    assert run(folder, command("--rerun-failed", "grades.csv")).returncode == 1
    assert rows_of(folder / "grades.csv")[1:] == ROWS
    assert scores_of(results_of(folder / "results.json")) == SCORES
    assert {*pages_in(folder / "pages")} == PAGES
    return len(done) - 1


@pytest.mark.long
def test_a_killed_grading_leaves_what_was_done_and_can_be_completed(folder: Path) -> None:
    with grading(folder) as process:
        assert any(line.startswith("1 of 7") for line in errors_of(process))
        process.kill()
    assert process.returncode == -signal.SIGKILL
    assert 1 <= assert_nothing_is_lost(folder) < 7


@pytest.mark.exhaustive
@pytest.mark.parametrize("seed", range(20))
def test_a_grading_can_be_stopped_at_any_moment(seed: int, folder: Path) -> None:
    draw = random.Random(seed)
    number = draw.choice([signal.SIGKILL, signal.SIGTERM, signal.SIGINT])
    with grading(folder) as process:
        time.sleep(draw.uniform(0, 3))
        process.send_signal(number)
        sent = time.monotonic()
        process.wait()
        assert time.monotonic() - sent < 2, "heard within a second, plus one for a busy machine"
        errors = errors_of(process).read()
    assert process.returncode in (1, STATUS[number])
    done = assert_nothing_is_lost(folder)
    if errors.endswith("stopped\n"):
        said = re.findall(r"^(\d) of 7 submissions are graded, in grades\.csv: --rerun-failed", errors, re.MULTILINE)
        assert done == 7 or said == [str(done)]


class Killed(BaseException):
    """The end of a process between two writes."""


def graded(name: str) -> Grade:
    results = (Result(RUBRIC[0], name != "b", 1.0, "" if name != "b" else "wrong", "printed"),)
    return ungraded(name, RUBRIC[:1], "there is none") if name == "c" else Grade(name, results)


def write_class(folder: Path, earlier: Path | None, monkeypatch: pytest.MonkeyPatch, writes: int) -> bool:
    """Grade the submissions that an earlier table lacks; return whether a number of writes was enough."""
    left = [None] * writes

    def write_or_die(payload: bytes, path: Path) -> None:
        if not left:
            raise Killed
        left.pop()
        write_whole(payload, path)

    monkeypatch.setattr(record, "write_whole", write_or_die)
    files = Record(RUBRIC[:1], folder / "grades.csv", folder / "results.json", folder / "pages", earlier)
    todo = [name for name in "abcd" if files.lacks(name)]
    with contextlib.suppress(Killed):
        files.begin(todo)
        for name in todo:
            files.add(graded(name))
        return True
    return False


def test_a_grading_that_ends_between_any_two_writes_can_be_completed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert write_class(tmp_path, None, monkeypatch, writes=100)
    table = rows_of(tmp_path / "grades.csv")
    whole = [table, (tmp_path / "results.json").read_text(), pages_in(tmp_path / "pages")]
    for writes in range(2, 100):
        folder = tmp_path / str(writes)
        folder.mkdir()
        completed = write_class(folder, None, monkeypatch, writes)
        rows = rows_of(folder / "grades.csv")
        assert rows == table[: len(rows)]
        assert write_class(folder, folder / "grades.csv", monkeypatch, writes=100)
        found = [rows_of(folder / "grades.csv"), (folder / "results.json").read_text(), pages_in(folder / "pages")]
        assert found == whole
        if completed:
            break
    assert writes == 2 + 4 * 4, "table and JSON at the beginning; then two pages, JSON and table for each"


def wait_for(condition: Callable[[], bool]) -> bool:
    deadline = time.monotonic() + 20
    while not condition() and time.monotonic() < deadline:
        time.sleep(0.05)
    return condition()


@pytest.mark.skipif(not Path("/proc/self").exists(), reason="looks at processes in /proc")
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGKILL])
def test_a_stopped_grader_leaves_no_process_and_no_folder(number: signal.Signals, tmp_path: Path) -> None:
    (tmp_path / "models.py").write_text("import os, time\nos.fork()\ntime.sleep(100)\n")
    environment = {**os.environ, "TMPDIR": str(tmp_path)}
    with subprocess.Popen(
        [sys.executable, str(ROOT / "grader.py"), "--submission", str(tmp_path), "1a-2-basic"],
        env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
    ) as process:  # fmt: skip
        assert process.stderr is not None
        assert process.stderr.readline().startswith("confined by: ")
        # The grader, the warden, a session's leader, its worker, and the worker's child.
        assert wait_for(lambda: len(processes_of(tmp_path)) >= 5)
        process.send_signal(number)
        sent = time.monotonic()
        process.wait()
        assert time.monotonic() - sent < 2, "heard within a second, plus one for a busy machine"
        output, errors = process.communicate(timeout=20)
    assert process.returncode == STATUS[number]
    assert (output, errors) == ("", "" if number == signal.SIGKILL else "stopped\n")
    assert wait_for(lambda: [*processes_of(tmp_path), *tmp_path.glob("grader-*")] == [])
