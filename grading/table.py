"""The table of a class: a row for each submission, with its label, points and problem; as CSV and in columns."""

import csv
import hashlib
import io
from collections.abc import Sequence
from pathlib import Path

from cli.text import printable
from grading.checks import Check
from grading.results import Grade, first_cause

LONGEST_LABEL = 200  # characters
# First characters of cells that spreadsheet programs compute, and the apostrophe, which protects them.
PROTECTED = ("=", "+", "-", "@", "＝", "＋", "－", "＠", "\t", "\r", "'")


def label(name: str) -> str:
    r"""Make a submission's name printable; different names have different labels.

    Characters that are not printable are escaped, and so is the backslash. Of a long name, the label has the end, after
    a digest between "\~" and "~". No escape begins with "\~".
    """
    whole = _escaped(name)
    if len(whole) <= LONGEST_LABEL:
        return whole
    digest = hashlib.sha256(name.encode(errors="surrogatepass")).hexdigest()[:32]
    start = rf"\~{digest}~"
    rest = [_escaped(character) for character in name[-LONGEST_LABEL:]]
    while len(start) + sum(map(len, rest)) > LONGEST_LABEL:
        rest.pop(0)
    return start + "".join(rest)


def _escaped(name: str) -> str:
    return printable(name.replace("\\", r"\\"))


def short_label(name: str) -> str:
    """Make the last part of a submission's path printable. It can be that of others, too."""
    return label(Path(name).name or name)


def header(checks: Sequence[Check]) -> list[str]:
    return ["submission", *(check.id for check in checks), "points", "first cause", "problem"]


def row(graded: Grade) -> list[str]:
    points = [str(result.points) for result in graded.results]
    return [label(graded.name), *points, str(graded.points), first_cause(graded), graded.problem]


def points_of(row: Sequence[str]) -> str:
    return row[-3]


def as_csv(rows: Sequence[Sequence[str]]) -> bytes:
    """Write a table as CSV, with an apostrophe before each cell that a spreadsheet program would compute."""
    file = io.StringIO()
    writer = csv.writer(file, lineterminator="\n")
    writer.writerows([f"'{cell}" if cell.startswith(PROTECTED) else cell for cell in each] for each in rows)
    return file.getvalue().encode()


def from_csv(path: Path, header: Sequence[str]) -> dict[str, list[str]]:
    """Read the rows of an earlier table by their labels.

    Raises:
        ValueError: its header differs from this one, or two rows have the same label.
        OSError: the file cannot be read.
    """
    try:
        with path.open(newline="", encoding="utf-8-sig") as file:  # spreadsheet programs write a byte order mark
            cells = [[cell.removeprefix("'") for cell in each] for each in csv.reader(file)]
    except (UnicodeDecodeError, csv.Error) as error:
        raise ValueError(f"{path} is no table of grades ({error}): expected a CSV file that --csv wrote") from error
    if not cells or cells[0] != header or any(len(each) != len(header) for each in cells):
        raise ValueError(f"{path} is no table of the same checks: expected the columns {', '.join(header)}")
    rows = {each[0]: each for each in cells[1:]}
    if len(rows) < len(cells) - 1:
        raise ValueError(f"{path} has two rows for the same submission: expected one for each")
    return rows


def in_columns(rows: Sequence[Sequence[str]]) -> str:
    """Format labels and points in aligned columns, without the causes and problems."""
    cells = [[each.removesuffix("-basic").removesuffix("-hidden") for each in row[:-2]] for row in rows]
    first, *widths = (max(map(len, column)) for column in zip(*cells, strict=True))
    return "\n".join(
        "  ".join([name.ljust(first), *(cell.rjust(width) for cell, width in zip(points, widths, strict=True))])
        for name, *points in cells
    )
