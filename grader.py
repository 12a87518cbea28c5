"""Grade a models.py against the homework's rubric (``rubric.py``).

    python grader.py                                       # the 8 basic points, on the models.py beside it
    python grader.py --hidden                              # all 14
    python grader.py 2-4-hidden                            # one check
    python grader.py --submission student/                 # another models.py, a folder or a zip that holds one
    python grader.py --hidden --submission class/*.zip --csv grades.csv
    python grader.py --hidden --submission student.zip --json results.json     # for Gradescope

Exit status: 0 when all points asked for were reached, 1 when not, 2 when the grader could not run.

A submission runs in processes of its own (``sandbox.py``), a new one for each check, which answer questions with plain
arrays; the points are given here. They never see the ratings of the test side or what is expected of them. This
withstands accidents and most malice, but it is no container: see ``sandbox.py`` for what it does not do.
"""

from cli import command

if __name__ == "__main__":  # before the imports that take a second
    command.begin(when_stopped="stopped before the grading began")

import argparse
import contextlib
import csv
import io
import json
import queue
import signal
import sys
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

if sys.platform == "win32":
    sys.exit("grader.py: error: submissions are kept apart by means that Windows lacks: use Linux, WSL or macOS")

import numpy as np
import torch
from tqdm import tqdm

import data
from cli.arguments import Parser, available_cores
from cli.files import check_folder, write_whole
from grading import submissions
from grading.checks import Split, load
from grading.messages import Unanswered
from grading.oracle import Wrong
from grading.rubric import RUBRIC, Check
from grading.sandbox import Sandbox, readable

HERE = Path(__file__).parent
SPLIT_SEED = 5  # one whose test side is of middling difficulty: its figures are near the middle of the bands
TEST_FRACTION = 0.05
SHOWN_OUTPUT = 2000  # characters of what a submission printed
SHOWN_MESSAGE = 4000  # characters of why a check was not passed


@dataclass(frozen=True)
class Result:
    """What came of one check.

    Attributes:
        check: the line of the rubric.
        passed: all of its points, or none.
        seconds: how long it took.
        message: why it was not passed; "" when it was.
        printed: what the submission printed meanwhile.
    """

    check: Check
    passed: bool
    seconds: float
    message: str = ""
    printed: str = ""

    @property
    def points(self) -> int:
        return self.check.points if self.passed else 0


@dataclass(frozen=True)
class Grade:
    """A submission's results, in the order of the rubric."""

    name: str
    results: tuple[Result, ...]

    @property
    def points(self) -> int:
        return sum(result.points for result in self.results)

    @property
    def most(self) -> int:
        return sum(result.check.points for result in self.results)


class Pool:
    """Sandboxes to run checks in, a few at a time. Use as a context manager.

    Args:
        jobs: how many.
        patience: factor of the time limits.
    """

    def __init__(self, jobs: int, patience: float = 1.0) -> None:
        self.patience = patience
        self._stack = contextlib.ExitStack()
        self._sandboxes = [self._stack.enter_context(Sandbox()) for _ in range(jobs)]
        self._free: queue.LifoQueue[Sandbox] = queue.LifoQueue()  # the one that has started already comes first
        for sandbox in self._sandboxes:
            self._free.put(sandbox)
        self._threads = ThreadPoolExecutor(jobs)

    def __enter__(self) -> "Pool":
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        if kind is not None:  # Ctrl-C, for instance: nobody waits for the checks that are running
            for sandbox in self._sandboxes:
                sandbox.cancel()
        self._threads.shutdown(cancel_futures=True)
        self._stack.close()

    def submit(self, check: Check, files: dict[str, bytes], split: Split | None) -> "Future[Result]":
        """Run a check as soon as a sandbox is free."""
        return self._threads.submit(self._run, check, files, split)

    def _run(self, check: Check, files: dict[str, bytes], split: Split | None) -> Result:
        sandbox = self._free.get()
        try:
            started = time.perf_counter()
            message = ""
            with sandbox.session(files, check.seconds * self.patience) as session:
                try:
                    load(session.ask)
                    with np.errstate(all="ignore"):  # a submission's numbers can be anything
                        check.run(session.ask, split)
                except (Wrong, Unanswered) as error:
                    message = str(error) or type(error).__name__
                except Exception as error:
                    # Answers can be of the right form and still make no sense together: in size or in number, too.
                    message = f"the answers of the submission's process do not fit together ({error!r:.200})"
            message = shortened(readable(message), SHOWN_MESSAGE)
            return Result(check, not message, time.perf_counter() - started, message, session.printed)
        finally:
            self._free.put(sandbox)


def grade(pool: Pool, path: Path, checks: Sequence[Check], split: Split | None) -> Grade:
    """Run checks on a submission.

    Args:
        pool: where.
        path: a models.py, or a folder or zip that holds one.
        checks: lines of the rubric.
        split: MovieLens 100K; needed by the checks that train.

    Returns:
        A result a check. A submission that cannot be read, or whose models.py cannot be loaded, fails all.
    """
    try:
        files = submissions.read(path)
    except (submissions.Unreadable, OSError, RecursionError) as error:
        return Grade(str(path), tuple(Result(check, False, 0.0, str(error)) for check in checks))
    # What hangs when it is loaded would otherwise do so once for each check.
    loads = pool.submit(LOADS, files, None).result()
    if not loads.passed:
        failed = (Result(check, False, loads.seconds / len(checks), loads.message, loads.printed) for check in checks)
        return Grade(str(path), tuple(failed))
    longest_first = sorted(checks, key=lambda check: -check.seconds)
    results = {check.id: pool.submit(check, files, split) for check in longest_first}
    return Grade(str(path), tuple(results[check.id].result() for check in checks))


LOADS = Check("load", 0, "models.py can be loaded", lambda ask, split: None)


def course_split(data_dir: Path) -> Split:
    """The two sides on which everyone is graded.

    Raises:
        OSError, ValueError: the data cannot be had.
    """
    sides = data.random_train_test_split(data.load(data_dir), TEST_FRACTION, torch.Generator().manual_seed(SPLIT_SEED))
    return Split(*sides)


def report(graded: Grade) -> str:
    """Each check with its points, time, and why it was not passed; the last line is the sum."""
    lines = []
    before: list[str] = []
    for result in graded.results:
        check = result.check
        lines.append(f"{check.id:12} {result.points}/{check.points} {result.seconds:6.1f} s  {check.title}")
        details = [*result.message.splitlines(), *(f"| {line}" for line in shortened(result.printed).splitlines())]
        lines += [f"    {line}" for line in (["as above"] if details and details == before else details)]
        before = details
    return "\n".join([*lines, total(graded)])


def total(graded: Grade) -> str:
    """The last line."""
    return f"{graded.points} / {graded.most} points"


def shortened(text: str, longest: int = SHOWN_OUTPUT) -> str:
    """The beginning of what a submission said."""
    more = len(text) - longest
    return text if more <= 0 else f"{text[:longest]}\n[{more:,} more characters]"


def gradescope(graded: Grade, seconds: float) -> dict[str, Any]:
    """The results in the format of Gradescope's autograder (its documentation, "Autograder Specifications")."""
    tests = [
        {
            "name": f"{result.check.id}: {result.check.title}",
            "number": result.check.id,
            "score": result.points,
            "max_score": result.check.points,
            "status": "passed" if result.passed else "failed",
            "output": "\n".join(filter(None, (result.message, printed_as_output(result)))),
            "visibility": "after_published" if result.check.hidden else "visible",
        }
        for result in graded.results
    ]
    # Students see this line, so that it does not tell them of the hidden checks.
    visible = [result for result in graded.results if not result.check.hidden]
    output = total(Grade(graded.name, tuple(visible))) + (
        " in the visible checks" if visible != [*graded.results] else ""
    )
    return {
        "score": graded.points,
        "max_score": graded.most,
        "output": output,
        "execution_time": round(seconds, 1),
        "tests": tests,
    }


def printed_as_output(result: Result) -> str:
    """What a submission printed, named as such."""
    return f"Your code printed:\n{shortened(result.printed)}" if result.printed else ""


def rows(grades: Sequence[Grade], checks: Sequence[Check]) -> Iterator[list[str]]:
    """A table of several submissions: a header, then a row each."""
    yield ["submission", *(check.id for check in checks), "points"]
    for graded in grades:
        yield [readable(graded.name), *(str(result.points) for result in graded.results), str(graded.points)]


def table(grades: Sequence[Grade], checks: Sequence[Check]) -> str:
    """The rows in columns."""
    cells = [[each.removesuffix("-basic").removesuffix("-hidden") for each in row] for row in rows(grades, checks)]
    widths = [max(map(len, column)) for column in zip(*cells, strict=True)]
    return "\n".join(
        "  ".join(
            [row[0].ljust(widths[0]), *(cell.rjust(width) for cell, width in zip(row[1:], widths[1:], strict=True))]
        )
        for row in cells
    )


def parse_arguments(arguments: list[str] | None) -> argparse.Namespace:
    """Read the flags."""
    parser = Parser(description="Grade a models.py against the homework's rubric.")
    ids = ", ".join(check.id for check in RUBRIC)
    parser.add_argument("checks", nargs="*", metavar="CHECK", help=f"run only these: {ids}")
    flag = parser.add_argument
    flag("--hidden", action="store_true", help="the hidden checks too: 14 points")
    flag("--submission", type=Path, nargs="+", action="extend", metavar="PATH", help="a models.py, or a folder or zip")
    flag("--csv", type=Path, metavar="FILE", help="write the points here, a row a submission")
    flag("--json", type=Path, metavar="FILE", help="write the results of one submission here, as Gradescope wants them")
    flag("--jobs", type=int, default=available_cores(), help="checks at a time (%(default)s)")
    flag("--patience", type=float, default=1.0, help="factor of the time limits, for slow machines (%(default)s)")
    flag("--data_dir", type=Path, default=HERE / "data", help="folder for the data (data, beside the grader)")
    options = parser.parse_args(arguments)
    # What follows --submission may be checks: "--submission student.zip 2-4-hidden".
    known = {check.id for check in RUBRIC}
    options.checks += [str(path) for path in options.submission or () if str(path) in known]
    options.submission = [path for path in options.submission or () if str(path) not in known]
    return options


def run(options: argparse.Namespace) -> int:
    """Grade what the options say; returns the exit status.

    Raises:
        ValueError, OSError: the grader cannot run.
    """
    started = time.perf_counter()
    known = {check.id: check for check in RUBRIC}
    for name in options.checks:
        if name not in known:
            raise ValueError(f"there is no check {name}: expected one of {', '.join(known)}")
    checks = [c for c in RUBRIC if (c.id in options.checks if options.checks else options.hidden or not c.hidden)]
    paths = options.submission or [HERE / "models.py"]
    for path in paths:
        if not path.exists():
            raise FileNotFoundError(f"{path} does not exist: expected a models.py, or a folder or zip that holds one")
    if options.json and len(paths) > 1:
        raise ValueError(f"--json takes one submission, not {len(paths)}: for several there is --csv")
    if options.jobs < 1 or not options.patience > 0:
        raise ValueError(f"jobs is {options.jobs} and patience {options.patience}: expected at least 1 and above 0")
    for file in filter(None, (options.csv, options.json)):
        if not file.parent.is_dir() or file.is_dir():
            raise ValueError(f"{file} cannot be written: expected a file in a folder that exists")
        check_folder(file.parent)
    split = course_split(options.data_dir) if any(check.needs_data for check in checks) else None
    torch.set_num_threads(1)
    with Pool(options.jobs, options.patience) as pool:
        bar = tqdm(paths, disable=None if len(paths) > 1 else True, unit="submission")
        grades = [grade(pool, path, checks, split) for path in bar]
    most = sum(check.points for check in checks)
    full = sum(graded.points == most for graded in grades)
    if len(grades) == 1:
        print(report(grades[0]))
    else:
        print(table(grades, checks))
        print(f"{full} of {len(grades)} submissions have all {most} points")
    if options.csv:
        text = io.StringIO()
        csv.writer(text, lineterminator="\n").writerows(rows(grades, checks))
        write_whole(text.getvalue().encode(), options.csv)
    if options.json:
        results = gradescope(grades[0], time.perf_counter() - started)
        write_whole(json.dumps(results, indent=2).encode(), options.json)
    return 0 if full == len(grades) else 1


def main(arguments: list[str] | None = None) -> int:
    """Run the command line.

    Returns:
        Exit status: 0 when all points were reached; 1 when not; 2 after one line on stderr that says what to change;
        130 or 143 after Ctrl-C or SIGTERM.
    """
    options = parse_arguments(arguments)
    try:
        return run(options)
    except (ValueError, OSError) as error:
        return command.fail("grader.py", error)
    except KeyboardInterrupt:
        print("stopped", file=sys.stderr)
        return 130


if __name__ == "__main__":
    signal.signal(signal.SIGINT, signal.default_int_handler)
    signal.signal(signal.SIGTERM, lambda number, _: sys.exit(128 + number))
    command.end(main)
