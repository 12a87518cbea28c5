"""The files of a grading that is stopped or killed at any moment: no result is lost, and the rest can be added."""

import contextlib
import random
import re
import shutil
import signal
import subprocess
import time
from collections.abc import Sequence
from pathlib import Path

import pytest
from test_class import command, folder, pages_in, results_of, rows_of, run

from cli.files import write_whole
from grading import record
from grading.record import Record
from grading.results import Grade, Result, ungraded
from grading.rubric import RUBRIC

__all__ = ["folder"]  # a fixture


def points_in(path: Path) -> list[tuple[str, list[int], str]]:
    """Return each submission's name, the points of its checks and its output."""
    found = results_of(path)
    return [(name, [test["score"] for test in each["tests"]], each["output"]) for name, each in found.items()]


def stopped_after(folder: Path, number: signal.Signals, seconds: float) -> str:
    """Grade the class until a signal some seconds after the beginning; return stderr."""
    with subprocess.Popen(
        command("--csv", "grades.csv"), cwd=folder, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True
    ) as process:
        assert process.stderr is not None
        assert process.stderr.readline().startswith("confined by: ")
        time.sleep(seconds)
        with contextlib.suppress(ProcessLookupError):
            process.send_signal(number)
        sent = time.monotonic()
        process.wait()
        assert time.monotonic() - sent < 2, "heard within a second, plus one for a busy machine"
        assert process.returncode in (1, {signal.SIGINT: 130, signal.SIGTERM: 143, signal.SIGKILL: -9}[number])
        return process.stderr.read()


def assert_nothing_is_lost(folder: Path, moments: Sequence[tuple[signal.Signals, float]]) -> None:
    """Check that a grading that was stopped leaves the beginning of the results, and that the rest can be added."""
    assert run(folder, command("--csv", "whole.csv", "whole", "whole.json")).returncode == 1
    whole = rows_of(folder / "whole.csv")
    for number, seconds in moments:
        for path in ("grades.csv", "results.json"):
            (folder / path).unlink(missing_ok=True)
        shutil.rmtree(folder / "pages", ignore_errors=True)
        errors = stopped_after(folder, number, seconds)
        done = rows_of(folder / "grades.csv")
        assert done == whole[: len(done)]
        results = results_of(folder / "results.json")
        assert list(results)[: len(done) - 1] == [row[0] for row in done[1:]]
        if errors.endswith("stopped\n"):
            said = re.findall(
                r"^(\d) of 7 submissions are graded, in grades\.csv: --rerun-failed", errors, re.MULTILINE
            )
            assert len(done) == len(whole) or said == [str(len(done) - 1)]
        run(folder, command("--rerun-failed", "grades.csv"))
        assert rows_of(folder / "grades.csv") == whole
        assert points_in(folder / "results.json") == points_in(folder / "whole.json")
        assert pages_in(folder / "pages") == pages_in(folder / "whole")


def test_a_killed_grading_leaves_what_was_done_and_can_be_completed(folder: Path) -> None:
    assert_nothing_is_lost(folder, [(signal.SIGKILL, 0.8)])


@pytest.mark.exhaustive
def test_a_grading_can_be_stopped_at_any_moment(folder: Path) -> None:
    draw = random.Random(22)
    signals = [signal.SIGKILL, signal.SIGTERM, signal.SIGINT]
    assert_nothing_is_lost(folder, [(draw.choice(signals), draw.uniform(0, 3)) for _ in range(20)])


class Killed(BaseException):
    """The end of a process between two writes."""


def graded(name: str) -> Grade:
    results = (Result(RUBRIC[0], name != "b", 1.0, "" if name != "b" else "wrong", "printed"),)
    return ungraded(name, RUBRIC[:1], "there is none") if name == "c" else Grade(name, results)


def write_class(folder: Path, earlier: Path | None, monkeypatch: pytest.MonkeyPatch, writes: int) -> bool:
    """Grade what an earlier table lacks; tell whether it was completed within a number of writes."""
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
