"""Results of checks, and their formats for one submission: lines, a cause in words, and Gradescope's JSON."""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from cli.text import one_line
from grading.checks import Check
from grading.session import readable
from grading.submissions import FILE

SHOWN_OUTPUT = 2000  # characters of a submission's output
SHOWN_MESSAGE = 4000  # of the reason for a failed check
SHOWN_CAUSE = 300  # of a cause in words
# A place in a submission, as ``describe`` in ``inside/worker.py`` writes it: of a frame, or of a SyntaxError.
PLACE = re.compile(r'(?:  )?(?:File "(.+?)"|(\S.*?)), line (\d+)')


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
    """A submission's results, in the order of the rubric.

    If the submission could not be graded, ``problem`` is the cause in words, and all results have the same message.
    The note says how the submission was read, if that is unusual.
    """

    name: str
    results: tuple[Result, ...]
    problem: str = ""
    note: str = ""

    @property
    def points(self) -> int:
        return sum(result.points for result in self.results)

    @property
    def most(self) -> int:
        return sum(result.check.points for result in self.results)


def ungraded(
    name: str, checks: Sequence[Check], message: str, problem: str = "", printed: str = "", note: str = ""
) -> Grade:
    """Make the grade of a submission that could not be graded.

    Args:
        name: the submission's name.
        checks: the checks, which all fail.
        message: the reason for the submission's author.
        problem: the cause for the table; by default, the message in words.
        printed: the submission's output.
        note: how the submission was read.
    """
    said = shortened(readable(message), SHOWN_MESSAGE)
    results = tuple(Result(check, False, 0.0, said, printed) for check in checks)
    cause = one_line(problem, SHOWN_CAUSE) if problem else in_words(said)
    return Grade(name, results, with_note(note, cause), note)


def report(graded: Grade) -> str:
    """List each check with its points, time and the reason of a failure; the last line is the sum."""
    lines = [graded.note] if graded.note else []
    before = ""
    for result in graded.results:
        check = result.check
        lines.append(f"{check.id:12} {result.points}/{check.points} {result.seconds:6.1f} s  {check.title}")
        reason = "" if graded.problem else explanation(result)
        lines += _indented("as above" if reason and reason == before else reason)
        before = reason
    if graded.problem:
        lines += _indented(explanation(graded.results[0]))
    return "\n".join([*lines, total(graded)])


def _indented(text: str) -> list[str]:
    return [f"    {line}" for line in text.splitlines()]


def explanation(result: Result) -> str:
    """Give the reason of a failure, and then the submission's output; "" if there is neither."""
    return "\n".join([*result.message.splitlines(), *(f"| {line}" for line in shortened(result.printed).splitlines())])


def total(graded: Grade) -> str:
    return f"{graded.points} / {graded.most} points"


def shortened(string: str, longest: int = SHOWN_OUTPUT) -> str:
    """Cut a submission's string, and say how much is missing."""
    more = len(string) - longest
    return string if more <= 0 else f"{string[:longest]}\n[{more:,} more characters]"


def first_cause(graded: Grade) -> str:
    """Name the first failed check and its cause; "" if all passed, or if the submission's problem is the cause.

    Checks that train come last, because they see the effect of a mistake that another check names.
    """
    failed = [result for result in graded.results if not result.passed]
    if graded.problem or not failed:
        return ""
    first = min(failed, key=lambda result: result.check.needs_data)
    return with_note(graded.note, f"{first.check.id}: {in_words(first.message)}")


def with_note(note: str, cause: str) -> str:
    return f"{one_line(note, SHOWN_CAUSE)}; {cause}" if note else cause


def in_words(message: str) -> str:
    """Say the reason of a failure in one line: of an exception, its type, its last line in the submission, its message.

    >>> in_words("  models.py, line 3, in <module>: x\nNameError: name 'x' is not defined")
    "NameError, line 3: name 'x' is not defined"
    """
    lines = message.splitlines()
    places = []
    while lines and lines[0].startswith(("  ", 'File "')):  # the lines of code that led to the exception
        places.append(PLACE.match(lines.pop(0)))
    found = [place for place in places if place is not None]
    if not found or not lines:
        return one_line(message, SHOWN_CAUSE)
    kind, colon, said = " ".join(lines).partition(":")
    quoted, plain, number = found[-1].groups()
    file = quoted or plain
    line = f"line {number}" if file == FILE else f"{file}, line {number}"
    return one_line(f"{kind}, {line}{colon}{said}", SHOWN_CAUSE)


def gradescope(graded: Grade, seconds: float, confined: str) -> dict[str, Any]:
    """Format the results for Gradescope (its documentation, "Autograder Specifications").

    Students see each ``output``. It must not reveal the results of hidden checks. Only instructors see ``extra_data``.
    """
    tests = [
        {
            "name": f"{result.check.id}: {result.check.title}",
            "number": result.check.id,
            "score": result.points,
            "max_score": result.check.points,
            "status": "passed" if result.passed else "failed",
            "output": "" if graded.problem else as_output(result),
            "visibility": "after_published" if result.check.hidden else "visible",
        }
        for result in graded.results
    ]
    visible = Grade(graded.name, tuple(result for result in graded.results if not result.check.hidden))
    points = total(visible) + (" in the visible checks" if visible.results != graded.results else "")
    reason = as_output(graded.results[0]) if graded.problem else ""
    return {
        "score": graded.points,
        "max_score": graded.most,
        "output": "\n".join(filter(None, (points, graded.note, reason))),
        "extra_data": {"confined_by": confined} | ({"problem": graded.problem} if graded.problem else {}),
        "execution_time": round(seconds, 1),
        "tests": tests,
    }


def as_output(result: Result) -> str:
    printed = f"Your code printed:\n{shortened(result.printed)}" if result.printed else ""
    return "\n".join(filter(None, (result.message, printed)))
