"""Records of a CSV file with quotation marks, whose quoted columns may hold separators, line ends and quotation marks.

A quotation mark may also be an ordinary character, as in ``1,2,5,"Amazing`` without a second one. Read by the rules of
quoting, such a column swallows the lines below it. A style of quoting is therefore used only if it fits all of a file.
"""

import contextlib
import csv
import io
import itertools
from collections.abc import Callable, Iterable, Iterator
from typing import Any, TypeVar

from datasets import layout, textfile
from datasets.textfile import InputFile, RowError

STYLES: tuple[dict[str, Any], ...] = (
    {"strict": True},  # "" in a quoted column is a quotation mark
    {"strict": True, "escapechar": "\\"},  # and \" as well
    {"strict": False},  # text may follow a closing quotation mark
)
Result = TypeVar("Result")


def read_in_fitting_style(read: Callable[[dict[str, Any]], Result]) -> Result:
    """Return the result of ``read`` for the first style that fits the file.

    Raises:
        RowError: no style fits; the error is that of the style that fits the most lines.
    """
    failures = []
    for style in STYLES:
        try:
            return read(style)
        except RowError as error:
            failures.append(error)
    raise max(failures, key=lambda error: error.line)


def lines(file: InputFile) -> Iterator[str]:
    """Yield the lines of a file with their ends; LF ends a line, and CR does not."""
    for block in textfile.blocks(file):
        yield from io.StringIO(block.content.decode(), newline="\n")


def parse(
    lines: Iterable[str],
    separator: str,
    width: int,
    style: dict[str, Any],
    is_row: Callable[[list[str], list[str]], bool],
    file: object,
) -> Iterator[tuple[int, list[str]]]:
    """Yield the number of the first line and the columns of each record that is not blank.

    Args:
        width: the number of columns of each record.
        is_row: whether the first list of columns, which may be a line of the record in the second, is a record itself.
        file: for messages.

    Raises:
        RowError: a record has another number of columns, or a quotation mark hardly opens a quoted column: the
            column is never closed, or would hold a line that is a record itself.
    """
    taken: list[str] = []

    def take() -> Iterator[str]:
        for line in lines:
            taken.append(line)
            yield line

    reader = csv.reader(take(), delimiter=separator, skipinitialspace=True, **style)
    spanning = 0  # the first line of the last record that has several
    while True:
        taken.clear()
        line = reader.line_num + 1
        try:
            row = next(reader, None)
        except csv.Error as error:
            raise _mistake(file, line, error) from None
        if row is None:
            return
        if len(taken) == 1 and not taken[0].strip():
            continue
        _check_quotes(taken, separator, style, file, line)
        if len(taken) > 1 and (len(row) != width or _swallows(taken, row, separator, is_row)):
            raise _stray(file, line)
        if len(row) != width:
            if len(layout.split(taken[0], separator, quoted=False)) == width:
                raise _stray(file, line)
            problem = f": has {len(row)} columns: expected {width} as in the first line"
            if spanning:
                problem += f", or the quotation mark in line {spanning} is a stray one and needs option quoting none"
            raise RowError(file, line, problem)
        if len(taken) > 1:
            spanning = line
        yield line, row


def _swallows(taken: list[str], row: list[str], separator: str, is_row: Callable[[list[str], list[str]], bool]) -> bool:
    """Return whether the lines of a record can also be read as several records."""

    def has_row(part: list[str]) -> bool:
        found = [layout.split(part[0].rstrip("\r\n"), separator, quoted=False)]
        with contextlib.suppress(csv.Error):
            found += itertools.islice(csv.reader(part, delimiter=separator, skipinitialspace=True), 1)
        return any(len(cells) == len(row) and is_row(cells, row) for cells in found)

    return any(has_row(taken[place:]) and has_row(taken[:place]) for place in range(1, len(taken)))


def _check_quotes(taken: list[str], separator: str, style: dict[str, Any], file: object, line: int) -> None:
    """Raise RowError where a record with text behind a closing quotation mark has several lines or is never closed."""
    if style["strict"] or not any('"' in each for each in taken):
        return
    try:
        next(csv.reader(taken, delimiter=separator, skipinitialspace=True, strict=True))
    except csv.Error as error:
        if len(taken) > 1 or "end of data" in str(error):
            raise _stray(file, line) from None


def _mistake(file: object, line: int, error: csv.Error) -> RowError:
    if "new-line character" in str(error):
        return RowError(file, line, ": has a CR without an LF in a column: remove it or quote the column")
    return _stray(file, line)


def _stray(file: object, line: int) -> RowError:
    return RowError(file, line, f": {layout.STRAY}")
