"""Ratings read from a text file of any size, and the place of the first mistake in it.

pandas parses a file block by block. Where that fails or gives something unexpected, the block is checked line by
line, and the error names the first wrong line.
"""

import csv
import functools
import io
import itertools
import re
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

import numpy as np

from datasets import adjacency, columns, jsonlines, layout, parquet, quoted, records, textfile, times
from datasets.cells import LARGEST, is_missing
from datasets.columns import FileOptions
from datasets.gathering import EXPECTED, Gathered
from datasets.ids import IdColumn, is_whole
from datasets.layout import Layout
from datasets.ratings import Ratings
from datasets.textfile import Block, InputFile, RowError, WrongTime

if TYPE_CHECKING:
    import pandas as pd  # imported where it is used: it takes longer to import than MovieLens 100K to read

SAMPLE = 100  # lines that the layout is told from
UNIT = "\x1f"  # replaces "::" and blanks, because pandas is fast with separators of one character only
DATE = re.compile(rb"\d{4}-\d\d-\d\d([T ]\d\d:[\d:.]*)?")
AROUND = re.compile(rb"^[ \t]+|[ \t]+(?=\r?$)", re.MULTILINE)  # blanks before and after a line
NA_VALUES = (
    "", "NA", "N/A", "n/a", "#N/A", "nan", "NaN", "NAN", "-nan", "<NA>", "NULL", "Null", "null", "None", "none", "\\N",
)  # fmt: skip


class _NotWhole(Exception):
    """A column of IDs holds something other than whole numbers; the argument says which to read as strings."""


def are_lists(file: InputFile) -> bool:
    """Return whether a file holds adjacency lists; raise as ``textfile.blocks``."""
    return not _is_parquet(file) and adjacency.are_lists(file)


def read(file: InputFile, options: FileOptions = columns.DEFAULT, lists: bool = False) -> Ratings:
    """Read all interactions of a file; a pair of a user and an item may occur several times in it.

    If a column with a usual name for times holds something else, a line on stderr says so, and it is not read. The same
    holds for a column with a usual name for sets.

    Args:
        file: CSV, TSV, ``::``, blanks, ``.inter``, JSON Lines, adjacency lists, packed or not; or ``.parquet``.
        lists: whether a file that can be adjacency lists is read as such.

    Raises:
        ValueError: something in the file is wrong; the message names file, line and column, and the remedy.
    """
    read_once = parquet.read if _is_parquet(file) else functools.partial(_read_text, lists=lists)
    try:
        ratings = read_once(file, options, with_times=True)
    except WrongTime as error:
        if options.choose_time:
            raise
        ratings = read_once(file, options, with_times=False)
        ratings = ratings._replace(doubts=(*ratings.doubts, f"{error}: the times are not read"))
    rated = ratings.ratings[~np.isnan(ratings.ratings)].astype(np.float64)
    if times.are_whole_times(rated):
        user, item, rating = ratings.columns[:3]
        raise ValueError(
            f"{file}, column {rating}: all ratings look like times, as seconds since 1970: "
            f"if they are times, give option columns {user},{item},,{rating}"
        )
    return ratings


def _is_parquet(file: InputFile) -> bool:
    return file.path.suffix.lower() in (".parquet", ".pq")


def _read_text(file: InputFile, options: FileOptions, with_times: bool, lists: bool) -> Ratings:
    """Read IDs as numbers, and the file again where a column of them turns out to hold strings."""
    strings = [False, False]
    while True:
        try:
            return _read_blocks(file, options, with_times, lists, strings)
        except _NotWhole as found:
            strings = found.args[0]


def _read_blocks(file: InputFile, options: FileOptions, with_times: bool, lists: bool, strings: list[bool]) -> Ratings:
    gathered: Gathered | None = None
    blocks, note = _table_blocks(file, options, lists)
    for block in blocks:
        quotes = b'"' in block.content
        if gathered is None:
            lines = list(itertools.islice(_lines(block), SAMPLE))
            if not lines:
                continue
            form = layout.understand(file.path, lines, options, with_times)
            form = form._replace(note=note or form.note)
            gathered = Gathered(form, IdColumn(strings[0]), IdColumn(strings[1]), options.unrated)
            if form.header:
                block = _below(block, lines[0][1].encode())
        if quotes and form.quoted:
            return records.read_in_fitting_style(functools.partial(quoted.read, file, form, options))
        if not block.content.strip():
            continue
        _add(_parse(block, form, strings, file), gathered, block, file)
        if gathered.users.has_blank or gathered.items.has_blank:
            _check_lines(block, form, strings, file)
    if gathered is None:
        raise ValueError(f"{file} is empty: {EXPECTED}")
    return gathered.finish(file)


def _table_blocks(file: InputFile, options: FileOptions, lists: bool) -> tuple[Iterator[Block], str]:
    """Return the blocks of a file as blocks of a table, and a line for stderr if they hold adjacency lists."""
    if lists and adjacency.can_be_lists(file):
        if options.counts:
            raise ValueError(f"{file}: {adjacency.NOTE}, which has no counts: leave out option counts")
        return adjacency.as_pairs(file), f"{file}: {adjacency.NOTE}"
    find_needed = functools.partial(columns.needed, options)
    watched = columns.ALL_USUAL if options.columns is None else columns.OTHERS
    return jsonlines.as_table(textfile.blocks(file), file, find_needed, watched), ""


def _add(table: "pd.DataFrame", gathered: Gathered, block: Block, file: InputFile) -> None:
    """Add the interactions of a block to those gathered."""
    form, places = gathered.form, gathered.form.places
    found = None
    if form.time is not None:
        found, wrong = times.numbers(table[form.time.place], form.time.dated)
        if wrong is not None:
            line, content = _line(block, wrong)
            raise form.wrong_time(file, line, layout.split(content, form.separator, quoted=False)[form.time.place])
    gathered.add(
        table[places.user],
        table[places.item],
        None if places.rating is None else table[places.rating].to_numpy(),
        found,
        None if places.part is None else table[places.part],
        lambda place: _line(block, place)[0],
    )


def _lines(block: Block) -> Iterator[tuple[int, str]]:
    """Yield the number and the content of each line that is not blank."""
    for number, line in enumerate(io.StringIO(block.content.decode(), newline="\n"), block.line):
        if line.strip():
            yield number, line.removesuffix("\n").removesuffix("\r")


def _line(block: Block, place: int) -> tuple[int, str]:
    """Return the number and the content of the line at a place among those that are not blank."""
    return next(itertools.islice(_lines(block), place, None))


def _below(block: Block, header: bytes) -> Block:
    """Return the lines below the header."""
    end = block.content.find(header) + len(header)
    end = (block.content.find(b"\n", end) + 1) or len(block.content)
    return Block(block.content[end:], block.line + block.content.count(b"\n", 0, end))


def _parse(block: Block, form: Layout, strings: list[bool], file: InputFile, again: bool = False) -> "pd.DataFrame":
    """Parse the needed columns of a block, ``again`` without its blank lines where pandas fails because of them."""
    lines = block.content.replace(b"\r\n", b"\n") if b"\r" in block.content else block.content
    content, separator = _with_one_character(lines, form.separator)
    try:
        table = _table(content, separator, form, strings)
        right = _is_plausible(table, form, strings) and _has_width(content, separator, form.width, len(table))
    except (ValueError, OverflowError):  # pandas's own errors are among them
        right = False
    if not right:
        _check_lines(block, form, strings, file)
        if again:
            return _table_by_line(block, form, strings)
        kept = b"\n".join(line for line in block.content.split(b"\n") if line.strip())
        return _parse(Block(kept, block.line), form, strings, file, again=True)
    if not all(strings):
        cells = DATE.sub(b"", content) if form.dated else content  # a date has leading zeros, too
        if _has_leading_zero(cells, separator) or _has_sign(cells, separator):
            _check_lines(block, form, strings, file)
    return table


def _with_one_character(content: bytes, separator: str) -> tuple[bytes, str]:
    """Replace a separator of several characters by one."""
    if separator == "::":
        return content.replace(b"::", UNIT.encode()), UNIT
    if separator == layout.BLANKS:
        return re.sub(rb"[ \t]+", UNIT.encode(), AROUND.sub(b"", content)), UNIT
    return content, separator


def _table(content: bytes, separator: str, form: Layout, strings: list[bool]) -> "pd.DataFrame":
    """Parse with pandas, which tells the type of each column that is not read as strings."""
    import pandas as pd

    places = form.places
    is_string = dict(zip(places[:2], strings, strict=True)) | {places.part: True}
    return pd.read_csv(
        io.BytesIO(content),
        sep=separator,
        header=None,
        names=list(range(form.width)),
        usecols=form.needed,
        dtype={place: str for place in form.needed if is_string.get(place)},
        quoting=csv.QUOTE_NONE,
        skipinitialspace=form.quoted,
        keep_default_na=False,
        na_values=NA_VALUES,
        low_memory=False,
        lineterminator="\n" if b"\r" in content else None,  # CR alone ends no line
    )


def _is_plausible(table: "pd.DataFrame", form: Layout, strings: list[bool]) -> bool:
    """Return whether no ID is missing, whole numbers were found where IDs are no strings, and ratings are numbers."""
    for place, is_string in zip(form.places[:2], strings, strict=True):
        if table[place].isna().any() if is_string else table[place].dtype != np.int64:  # 1.0 and True are no numbers
            return False
    if form.places.rating is None:
        return True
    ratings = table[form.places.rating].to_numpy()
    if ratings.dtype not in (np.int64, np.float64):
        return False
    if form.counts:
        return bool(((ratings >= 0) & (ratings <= LARGEST)).all())
    return not (np.abs(ratings) > LARGEST).any()


def _has_width(content: bytes, separator: str, width: int, rows: int) -> bool:
    """Return whether each line has the right number of columns; pandas would ignore 3,5 for 3.5, and fill 3 up."""
    kept = (ord(separator), ord("\n"))
    marks = content.translate(None, bytes(each for each in range(256) if each not in kept))
    line = separator.encode() * (width - 1) + b"\n"
    if not marks.endswith(b"\n"):
        marks += b"\n"
    return marks == line * rows or re.sub(rb"\n+", b"\n", marks).removeprefix(b"\n") == line * rows


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


def _table_by_line(block: Block, form: Layout, strings: list[bool]) -> "pd.DataFrame":
    """Parse a block without pandas, which reads fewer numbers than Python: full-width digits, for instance."""
    import pandas as pd

    rows = [layout.split(line, form.separator, quoted=False) for _, line in _lines(block)]
    table: dict[int, list[Any]] = {}
    for place in form.needed:
        table[place] = [None if is_missing(row[place]) else row[place].strip() for row in rows]
    for place, is_string in zip(form.places[:2], strings, strict=True):
        table[place] = [cell if is_string else int(cell) for cell in table[place]]
    if form.places.rating is not None:
        table[form.places.rating] = [np.nan if cell is None else float(cell) for cell in table[form.places.rating]]
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
            raise RowError(file, number, problem)
        for column, place in enumerate(form.places[:2]):
            needed[column] = needed[column] or not is_whole(row[place].strip())
    if needed != strings:
        raise _NotWhole(needed)
