"""Results of checks, and their formats: lines, a table, CSV, and Gradescope's JSON."""

import csv
import io
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from grading.checks import Check
from grading.session import readable

SHOWN_OUTPUT = 2000  # characters of a submission's output
FORMULA = ("=", "+", "-", "@", "\t", "\r")  # first characters of cells that spreadsheet programs compute


@dataclass(frozen=True)
class Result:
    """The result of one check, with the reason of a failure ("" if it passed) and the submission's output."""

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
    """A submission's results, in the order of the rubric, and the problem if it could not be graded ("" otherwise)."""

    name: str
    results: tuple[Result, ...]
    problem: str = ""

    @property
    def points(self) -> int:
        return sum(result.points for result in self.results)

    @property
    def most(self) -> int:
        return sum(result.check.points for result in self.results)


def report(graded: Grade) -> str:
    """List each check with its points, time and the reason of a failure; the last line is the sum."""
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
    return f"{graded.points} / {graded.most} points"


def shortened(string: str, longest: int = SHOWN_OUTPUT) -> str:
    """Cut a submission's string, and say how much is missing."""
    more = len(string) - longest
    return string if more <= 0 else f"{string[:longest]}\n[{more:,} more characters]"


def gradescope(graded: Grade, seconds: float, confined: str) -> dict[str, Any]:
    """Format the results for Gradescope (its documentation, "Autograder Specifications").

    Students see ``output``. It must not reveal the results of hidden checks.
    """
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
    visible = Grade(graded.name, tuple(result for result in graded.results if not result.check.hidden))
    output = total(visible) + (" in the visible checks" if visible.results != graded.results else "")
    return {
        "score": graded.points,
        "max_score": graded.most,
        "output": f"{output}\nconfined by: {confined}",
        "extra_data": {"confined_by": confined},
        "execution_time": round(seconds, 1),
        "tests": tests,
    }


def printed_as_output(result: Result) -> str:
    return f"Your code printed:\n{shortened(result.printed)}" if result.printed else ""


def header(checks: Sequence[Check]) -> list[str]:
    """Make the first row of a table of several submissions."""
    return ["submission", *(check.id for check in checks), "points"]


def row(graded: Grade) -> list[str]:
    return [label(graded.name), *(str(result.points) for result in graded.results), str(graded.points)]


def label(name: str) -> str:
    """Make a submission's name printable: bytes that are not UTF-8 are escaped, control characters replaced."""
    return readable(name.encode(errors="surrogateescape").decode(errors="backslashreplace")).replace("\n", "\ufffd")


def as_csv(header: list[str], rows: Sequence[list[str]]) -> bytes:
    """Write a table as CSV, with an apostrophe before each cell that a spreadsheet program would compute."""
    file = io.StringIO()
    writer = csv.writer(file, lineterminator="\n")
    writer.writerows([f"'{cell}" if cell.startswith(FORMULA) else cell for cell in each] for each in [header, *rows])
    return file.getvalue().encode()


def from_csv(path: Path, header: list[str]) -> list[list[str]]:
    """Read the rows of an earlier table.

    Raises:
        ValueError: its header differs from this one.
        OSError: the file cannot be read.
    """
    try:
        with path.open(newline="", encoding="utf-8") as file:
            cells = [[cell[1:] if cell[:1] == "'" and cell[1:].startswith(FORMULA) else cell for cell in each]
                     for each in csv.reader(file)]  # fmt: skip
    except (UnicodeDecodeError, csv.Error) as error:
        raise ValueError(f"{path} is no table of grades ({error}): expected a CSV file that --csv wrote") from error
    if not cells or cells[0] != header or any(len(each) != len(header) for each in cells):
        raise ValueError(f"{path} is no table of the same checks: expected the columns {', '.join(header)}")
    return cells[1:]


def table(rows: Sequence[list[str]]) -> str:
    """Format rows in aligned columns."""
    cells = [[each.removesuffix("-basic").removesuffix("-hidden") for each in row] for row in rows]
    first, *widths = (max(map(len, column)) for column in zip(*cells, strict=True))
    return "\n".join(
        "  ".join([name.ljust(first), *(cell.rjust(width) for cell, width in zip(points, widths, strict=True))])
        for name, *points in cells
    )
