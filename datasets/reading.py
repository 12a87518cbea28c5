"""Ratings read from a text file of any size, and the place of the first mistake in it.

pandas parses a file block by block. Where that fails or gives something unexpected, the block is checked line by
line, and the error names the first wrong line.
"""

import csv
import functools
import io
import itertools
import re
import sys
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from datasets import jsonlines, layout, parquet, records, textfile, times
from datasets.layout import LARGEST, MISSING, Layout, is_missing, is_number
from datasets.ratings import IdColumn, Ratings, gather, is_whole
from datasets.textfile import Block, InputFile
from datasets.times import TimeColumn

if TYPE_CHECKING:
    import pandas as pd  # imported where it is used: it takes longer to import than MovieLens 100K to read

SAMPLE = 100  # lines that the layout is told from
RECORDS = 2**12  # records of a CSV with quotation marks that are gathered at a time; many lists at once are slow
NO_RATINGS = "{file} {problem}: expected a line for each rating, with user, item and rating"
UNIT = "\x1f"  # replaces "::" and blanks, because pandas is fast with separators of one character only
AROUND = re.compile(rb"^[ \t]+|[ \t]+(?=\r?$)", re.MULTILINE)  # blanks before and after a line
NA_VALUES = (
    "", "NA", "N/A", "n/a", "#N/A", "nan", "NaN", "NAN", "-nan", "<NA>", "NULL", "Null", "null", "None", "none", "\\N",
)  # fmt: skip


class _NotWhole(Exception):
    """A column of IDs holds something other than whole numbers; the argument says which to read as strings."""


def read(file: InputFile, columns: str | None = None, quoting: str = "auto") -> Ratings:
    """Read all ratings of a file.

    Args:
        file: CSV, TSV, ``::``, blanks, ``.inter``, packed by gzip or not; or ``.parquet``.
        columns: ``USER,ITEM,RATING`` or ``USER,ITEM,RATING,TIME``, by name or by number from 1; by default the columns
            with the usual names.
        quoting: ``none`` where quotation marks are ordinary characters; by default they may quote a column of a CSV.

    Raises:
        ValueError: something in the file is wrong; the message names file, line and column, and the remedy.
    """
    is_parquet = file.path.suffix.lower() in (".parquet", ".pq")
    read_once = (
        functools.partial(parquet.read, file.path, columns)
        if is_parquet
        else functools.partial(_read_text, file, columns, quoting)
    )
    with_times = columns is not None and columns.count(",") == 3
    ratings = read_once(with_times)
    if ratings.repeated and not with_times and len(ratings.columns) == 4:  # only then are the times needed
        try:
            ratings = read_once(True)
        except ValueError as error:
            print(f"{error}: of a repeated pair, the later line counts", file=sys.stderr)
    if len(ratings.ratings) < 2:
        raise ValueError(f"{file}: has a single rating: expected at least two, one to train on and one to test on")
    for kind, ids, name in zip(("user", "item"), (ratings.users, ratings.items), ratings.columns, strict=False):
        if len(ids) == 1:
            raise ValueError(
                f"{file}: column {name} has the {kind} '{ids[0]}' in every line: expected at least two {kind}s; "
                f"if the {kind} is in another column, name it with --columns"
            )
    return ratings


def _read_text(file: InputFile, columns: str | None, quoting: str, with_times: bool) -> Ratings:
    """Read IDs as numbers, and the file again where a column of them turns out to hold strings."""
    strings = [False, False]
    while True:
        try:
            return _read_blocks(file, columns, quoting, with_times, strings)
        except _NotWhole as found:
            strings = found.args[0]


def _read_blocks(file: InputFile, columns: str | None, quoting: str, with_times: bool, strings: list[bool]) -> Ratings:
    form: Layout | None = None
    users, items = map(IdColumn, strings)
    parts: list[NDArray[np.float32]] = []
    when: list[NDArray[np.float64]] = []
    for block in jsonlines.as_table(textfile.blocks(file), file, columns):
        quotes = b'"' in block.content
        if form is None:
            lines = list(itertools.islice(_lines(block), SAMPLE))
            if not lines:
                continue
            form = layout.understand(file.path, lines, columns, quoting)
            if form.header:
                block = _below(block, lines[0][1].encode())
        if quotes and form.quoted:
            return records.read_in_fitting_style(functools.partial(_read_records, file, form, with_times))
        if not block.content.strip():
            continue
        table = _parse(block, form, with_times, strings, file)
        users.add(table[form.places[0]])
        items.add(table[form.places[1]])
        if users.has_blank or items.has_blank:
            _check_lines(block, form, strings, file)
        parts.append(table[form.places[2]].to_numpy().astype(np.float32))
        if with_times and form.time is not None:
            found, wrong = times.numbers(table[form.time.place], form.time.dated)
            if wrong is not None:
                line, content = next(itertools.islice(_lines(block), wrong, None))
                raise _wrong_time(file, line, layout.split(content, form.separator, quoted=False), form.time)
            when.append(found)
    if form is None or not parts:
        problem = "has a header and nothing below it" if form else "is empty"
        raise ValueError(NO_RATINGS.format(file=file, problem=problem))
    return gather(users, items, parts, form.columns, when)


def _wrong_time(file: InputFile, line: int, row: list[str], time: TimeColumn) -> records.RowError:
    problem = f"'{row[time.place].strip()[:40]}' is not a time: {times.EXPECTED}"
    return records.RowError(file, line, f", column {time.name}: {problem}")


def _lines(block: Block) -> Iterator[tuple[int, str]]:
    """Yield the number and the content of each line that is not blank."""
    for number, line in enumerate(io.StringIO(block.content.decode(), newline="\n"), block.line):
        if line.strip():
            yield number, line.removesuffix("\n").removesuffix("\r")


def _below(block: Block, header: bytes) -> Block:
    """Return the lines below the header."""
    end = block.content.find(header) + len(header)
    end = (block.content.find(b"\n", end) + 1) or len(block.content)
    return Block(block.content[end:], block.line + block.content.count(b"\n", 0, end))


def _parse(
    block: Block, form: Layout, with_times: bool, strings: list[bool], file: InputFile, again: bool = False
) -> "pd.DataFrame":
    """Parse the needed columns of a block, ``again`` without its blank lines where pandas fails because of them."""
    lines = block.content.replace(b"\r\n", b"\n") if b"\r" in block.content else block.content
    content, separator = _with_one_character(lines, form.separator)
    try:
        table = _table(content, separator, form, with_times, strings)
        right = not _has_booleans(content, separator, form)
        right = right and _is_plausible(table, content, separator, form, strings)
    except (ValueError, OverflowError):  # pandas's own errors are among them
        right = False
    if not right:
        _check_lines(block, form, strings, file)
        if again:
            return _table_by_line(block, form, strings)
        kept = b"\n".join(line for line in block.content.split(b"\n") if line.strip())
        return _parse(Block(kept, block.line), form, with_times, strings, file, again=True)
    if not all(strings) and (_has_leading_zero(content, separator) or _has_sign(content, separator)):
        _check_lines(block, form, strings, file)
    return table


def _with_one_character(content: bytes, separator: str) -> tuple[bytes, str]:
    """Replace a separator of several characters by one."""
    if separator == "::":
        return content.replace(b"::", UNIT.encode()), UNIT
    if separator == layout.BLANKS:
        return re.sub(rb"[ \t]+", UNIT.encode(), AROUND.sub(b"", content)), UNIT
    return content, separator


def _table(content: bytes, separator: str, form: Layout, with_times: bool, strings: list[bool]) -> "pd.DataFrame":
    import pandas as pd

    types = [*(str if is_string else np.int64 for is_string in strings), np.float64]
    kinds: dict[int, Any] = dict.fromkeys(range(form.width), str) | dict(zip(form.places, types, strict=True))
    return pd.read_csv(
        io.BytesIO(content),
        sep=separator,
        header=None,
        names=list(range(form.width)),
        usecols=[*form.places, form.time.place] if with_times and form.time is not None else list(form.places),
        dtype=kinds,
        quoting=csv.QUOTE_NONE,
        skipinitialspace=form.quoted,
        keep_default_na=False,
        na_values=NA_VALUES,
        low_memory=False,
        lineterminator="\n" if b"\r" in content else None,  # CR alone ends no line
    )


def _is_plausible(table: "pd.DataFrame", content: bytes, separator: str, form: Layout, strings: list[bool]) -> bool:
    """Return whether nothing is missing, all ratings are finite, and each line has the right number of columns."""
    if not (np.abs(table[form.places[2]].to_numpy()) <= LARGEST).all():
        return False
    if any(is_string and table[place].isna().any() for place, is_string in zip(form.places, strings, strict=False)):
        return False
    return content.count(separator.encode()) == len(table) * (form.width - 1)  # it would ignore 3,5 for 3.5


def _has_leading_zero(content: bytes, separator: str) -> bool:
    """Return whether a cell could be a number like 007, which is a different ID than 7."""
    data = np.frombuffer(b"\n" + content, dtype=np.uint8)
    zeros = 1 + np.flatnonzero(data[1:-1] == ord("0"))
    zeros = zeros[(data[zeros + 1] >= ord("0")) & (data[zeros + 1] <= ord("9"))]
    return bool(np.isin(data[zeros - 1], list(f'{separator}\n" -'.encode())).any())


def _has_sign(content: bytes, separator: str) -> bool:
    """Return whether a cell could be +7 or -0, which are different IDs than 7 and 0."""
    if b"+" not in content and b"-" not in content:
        return False
    starts = [before + sign for before in (b"\n", separator.encode()) for sign in (b"+", b"-0")]
    if not content.startswith((b"+", b"-0")) and not any(start in content for start in starts):
        return False
    return re.search(rb"(?m)(^|" + re.escape(separator.encode()) + rb")(\+\d|-0(?![\d.]))", content) is not None


def _has_booleans(content: bytes, separator: str, form: Layout) -> bool:
    """Return whether the first line has True or False in a needed column; pandas reads such a column as 1 and 0."""
    first = content[: 2**16].lstrip().split(b"\n", 1)[0].decode(errors="replace").split(separator)
    return any(first[place].strip().lower() in ("true", "false") for place in form.places if place < len(first))


def _table_by_line(block: Block, form: Layout, strings: list[bool]) -> "pd.DataFrame":
    """Parse a block without pandas, which reads fewer numbers than Python: full-width digits, for instance."""
    import pandas as pd

    rows = [layout.split(line, form.separator, quoted=False) for _, line in _lines(block)]
    kinds = [*(str if is_string else int for is_string in strings), float]
    table: dict[int, list[Any]] = {}
    for place, kind in zip(form.places, kinds, strict=True):
        table[place] = [kind(row[place].strip()) for row in rows]
    if form.time is not None:
        cells = [row[form.time.place].strip() for row in rows]
        table[form.time.place] = [None if is_missing(cell) else cell for cell in cells]
    return pd.DataFrame(table)


def _check_lines(block: Block, form: Layout, strings: list[bool], file: InputFile) -> None:
    """Check a block line by line.

    Raises:
        ValueError: a line is wrong; the message gives its number, its column and the remedy.
        _NotWhole: no line is wrong, but a column of IDs holds something other than whole numbers.
    """
    needed = list(strings)
    for number, line in _lines(block):
        row = layout.split(line, form.separator, quoted=False)
        if problem := layout.mistake(row, form):
            raise ValueError(f"{file}, line {number}{problem}")
        for column, place in enumerate(form.places[:2]):
            needed[column] = needed[column] or not is_whole(row[place].strip())
    if needed != strings:
        raise _NotWhole(needed)


def _read_records(file: InputFile, form: Layout, with_times: bool, style: dict[str, Any]) -> Ratings:
    """Read a CSV file with quotation marks record by record, in one style of quoting."""
    users, items = (IdColumn(strings=True, untyped=True) for _ in range(2))
    parts: list[NDArray[np.float32]] = []
    when: list[NDArray[np.float64]] = []
    is_row = functools.partial(_has_rating, form)
    parsed = records.parse(records.lines(file), form.separator, form.width, style, is_row, file)
    if form.header:
        next(parsed)
    while rows := list(itertools.islice(parsed, RECORDS)):
        user, item, rating = ([row[place].strip() for _, row in rows] for place in form.places)
        numbers = _numbers(rating)
        if numbers is None or not all(MISSING.isdisjoint(map(str.lower, ids)) for ids in (user, item)):
            for line, row in rows:
                if problem := layout.mistake(row, form):
                    raise records.RowError(file, line, problem)
        users.add(np.array(user, dtype=object))
        items.add(np.array(item, dtype=object))
        parts.append(np.array(rating if numbers is None else numbers, dtype=np.float32))
        if with_times and form.time is not None:
            cells = [row[form.time.place].strip() for _, row in rows]
            found, wrong = times.numbers([None if is_missing(cell) else cell for cell in cells], form.time.dated)
            if wrong is not None:
                line, row = rows[wrong]
                raise _wrong_time(file, line, row, form.time)
            when.append(found)
    if not parts:
        raise ValueError(NO_RATINGS.format(file=file, problem="has a header and nothing below it"))
    return gather(users, items, parts, form.columns, when)


def _numbers(cells: list[str]) -> NDArray[np.float64] | None:
    """Return ratings as numbers; None where one may not be a rating."""
    try:
        found = np.array(list(map(float, cells)))
    except ValueError:
        return None
    return found if (np.abs(found) <= LARGEST).all() and "_" not in "".join(cells) else None


def _has_rating(form: Layout, cells: list[str], _: list[str]) -> bool:
    """Return whether a line within a record has a rating, and is therefore a record itself."""
    rating = cells[form.places[2]]
    return is_missing(rating) or is_number(rating)
