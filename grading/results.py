"""What came of checks, and the forms in which it is told: lines, a table, CSV, and Gradescope's JSON."""

import csv
import io
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from grading.checks import Check
from grading.session import readable

SHOWN_OUTPUT = 2000  # characters of what a submission printed
FORMULA = ("=", "+", "-", "@", "\t", "\r")  # with which a cell starts that spreadsheet programs compute


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
    """A submission's results, in the order of the rubric.

    Attributes:
        problem: why it could not be graded: it cannot be read or loaded, for instance; "" where it was.
    """

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


def gradescope(graded: Grade, seconds: float, confined: str) -> dict[str, Any]:
    """The results in the format of Gradescope's autograder (its documentation, "Autograder Specifications").

    Args:
        seconds: how long it took.
        confined: what the submission was confined by.
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
    # Students see this line, so that it does not tell them of the hidden checks.
    visible = [result for result in graded.results if not result.check.hidden]
    output = total(Grade(graded.name, tuple(visible))) + (
        " in the visible checks" if visible != [*graded.results] else ""
    )
    return {
        "score": graded.points,
        "max_score": graded.most,
        "output": f"{output}\nconfined by: {confined}",
        "extra_data": {"confined_by": confined},
        "execution_time": round(seconds, 1),
        "tests": tests,
    }


def printed_as_output(result: Result) -> str:
    """What a submission printed, named as such."""
    return f"Your code printed:\n{shortened(result.printed)}" if result.printed else ""


def header(checks: Sequence[Check]) -> list[str]:
    """The first row of a table of several submissions."""
    return ["submission", *(check.id for check in checks), "points"]


def row(graded: Grade) -> list[str]:
    """The row of a submission in it."""
    return [label(graded.name), *(str(result.points) for result in graded.results), str(graded.points)]


def label(name: str) -> str:
    """A submission's name as text that can be shown and written: what is not UTF-8 in it, by its bytes."""
    return readable(name.encode(errors="surrogateescape").decode(errors="backslashreplace")).replace("\n", "\ufffd")


def as_csv(header: list[str], rows: Sequence[list[str]]) -> bytes:
    """A table that no spreadsheet program takes for formulas: an apostrophe comes before what could be one."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerows([f"'{cell}" if cell.startswith(FORMULA) else cell for cell in each] for each in [header, *rows])
    return text.getvalue().encode()


def from_csv(path: Path, header: list[str]) -> list[list[str]]:
    """The rows of an earlier table, whose header has to be this one.

    Raises:
        ValueError: it is another.
        OSError: the file cannot be read.
    """
    try:
        with path.open(newline="", encoding="utf-8") as file:
            cells = [[cell[1:] if cell[:1] == "'" and cell[1:].startswith(FORMULA) else cell for cell in each]
                     for each in csv.reader(file)]  # fmt: skip
    except (UnicodeDecodeError, csv.Error) as error:
        raise ValueError(f"{path} is no table of grades: {error}") from error
    if not cells or cells[0] != header or any(len(each) != len(header) for each in cells):
        raise ValueError(f"{path} is no table of the same checks: expected the columns {', '.join(header)}")
    return cells[1:]


def table(rows: Sequence[list[str]]) -> str:
    """The rows in columns."""
    cells = [[each.removesuffix("-basic").removesuffix("-hidden") for each in row] for row in rows]
    widths = [max(map(len, column)) for column in zip(*cells, strict=True)]
    return "\n".join(
        "  ".join(
            [row[0].ljust(widths[0]), *(cell.rjust(width) for cell, width in zip(row[1:], widths[1:], strict=True))]
        )
        for row in cells
    )
