"""Ratings read from a text file or a Parquet file of any size, and the place of the first mistake in it.

pandas parses a text file block by block. Where that fails or gives something unexpected, the block is checked line by
line, and the error names the first wrong line.
"""

import csv
import io
import itertools
import re
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from datasets import jsonlines, layout, textfile
from datasets.layout import Layout, is_missing, is_number
from datasets.ratings import IdColumn, Ratings, gather
from datasets.textfile import Block, InputFile

if TYPE_CHECKING:
    import pandas as pd  # imported where it is used: it takes longer to import than MovieLens 100K to read

SAMPLE = 100  # lines that the layout is told from
ROWS = 2**20  # rows of a Parquet file that are read at a time
LARGEST = float(np.finfo(np.float32).max)
WHOLE = re.compile(r"0|-?[1-9][0-9]{0,17}")
UNIT = "\x1f"  # replaces "::" and blanks, because pandas is fast with separators of one character only
AROUND = re.compile(rb"^[ \t]+|[ \t]+(?=\r?$)", re.MULTILINE)  # blanks before and after a line
NA_VALUES = (
    "", "NA", "N/A", "n/a", "#N/A", "nan", "NaN", "NAN", "-nan", "<NA>", "NULL", "Null", "null", "None", "none", "\\N",
)  # fmt: skip


class _NotWhole(Exception):
    """A column of IDs holds something other than whole numbers; the argument says which to read as strings."""


def read(file: InputFile, columns: str | None = None) -> Ratings:
    """Read all ratings of a file.

    Args:
        file: CSV, TSV, ``::``, blanks, ``.inter``, packed by gzip or not; or ``.parquet``.
        columns: ``USER,ITEM,RATING``, by name or by number from 1; by default the columns with the usual names.

    Raises:
        ValueError: something in the file is wrong; the message names file, line and column, and the remedy.
    """
    is_parquet = file.path.suffix.lower() in (".parquet", ".pq")
    ratings = _read_parquet(file.path, columns) if is_parquet else _read_text(file, columns)
    if len(ratings.ratings) < 2:
        raise ValueError(f"{file}: has a single rating: expected at least two, one to train on and one to test on")
    for kind, ids, name in zip(("user", "item"), (ratings.users, ratings.items), ratings.columns, strict=False):
        if len(ids) == 1:
            raise ValueError(
                f"{file}: column {name} has the {kind} '{ids[0]}' in every line: expected at least two {kind}s; "
                f"if the {kind} is in another column, name it with --columns"
            )
    return ratings


def _read_text(file: InputFile, columns: str | None) -> Ratings:
    """Read IDs as numbers, and the file again where a column of them turns out to hold strings."""
    strings = [False, False]
    while True:
        try:
            return _read_blocks(file, columns, strings)
        except _NotWhole as found:
            strings = found.args[0]


def _read_blocks(file: InputFile, columns: str | None, strings: list[bool]) -> Ratings:
    form: Layout | None = None
    users, items = map(IdColumn, strings)
    parts: list[NDArray[np.float32]] = []
    for block in jsonlines.as_table(textfile.blocks(file), file, columns):
        if form is None:
            lines = list(itertools.islice(_lines(block), SAMPLE))
            if not lines:
                continue
            form = layout.understand(file.path, lines, columns)
            if form.header:
                block = _below(block, lines[0][1].encode())
        if not block.content.strip():
            continue
        table = _parse(block, form, strings, file)
        users.add(table[form.places[0]])
        items.add(table[form.places[1]])
        parts.append(table[form.places[2]].to_numpy().astype(np.float32))
    if form is None or not parts:
        problem = "has a header and nothing below it" if form else "is empty"
        raise ValueError(f"{file} {problem}: expected a line for each rating, with user, item and rating")
    return gather(users, items, parts, form.names)


def _lines(block: Block) -> Iterator[tuple[int, str]]:
    """Yield the number and the content of each line that is not blank."""
    for number, line in enumerate(io.StringIO(block.content.decode(), newline=None), block.line):
        if line.strip():
            yield number, line.rstrip("\n")


def _below(block: Block, header: bytes) -> Block:
    """Return the lines below the header."""
    end = block.content.find(header) + len(header)
    end = (block.content.find(b"\n", end) + 1) or len(block.content)
    return Block(block.content[end:], block.line + block.content.count(b"\n", 0, end))


def _parse(block: Block, form: Layout, strings: list[bool], file: InputFile, again: bool = False) -> "pd.DataFrame":
    """Parse the three columns of a block, ``again`` without its blank lines where pandas fails because of them."""
    content, separator = _with_one_character(block.content, form.separator)
    quotes = form.quoted and b'"' in content
    try:
        table = _table(content, separator, form, strings, quotes)
        right = _is_plausible(table, content, separator, form, strings, quotes)
    except (ValueError, OverflowError):  # pandas's own errors are among them
        right = False
    if not right:
        _check_lines(block, form, strings, file)
        if again:
            raise ValueError(f"{file}, below line {block.line}: cannot be read as lines of {form.width} columns each")
        kept = b"\n".join(line for line in block.content.splitlines() if line.strip())
        return _parse(Block(kept, block.line), form, strings, file, again=True)
    short = quotes and bool(table[form.width - 1].isna().any())  # or an unused column is empty
    if short or (not all(strings) and _has_leading_zero(content, separator)):
        _check_lines(block, form, strings, file)
    return table


def _with_one_character(content: bytes, separator: str) -> tuple[bytes, str]:
    """Replace a separator of several characters by one."""
    if separator == "::":
        return content.replace(b"::", UNIT.encode()), UNIT
    if separator == layout.BLANKS:
        return re.sub(rb"[ \t]+", UNIT.encode(), AROUND.sub(b"", content)), UNIT
    return content, separator


def _table(content: bytes, separator: str, form: Layout, strings: list[bool], quotes: bool) -> "pd.DataFrame":
    import pandas as pd

    types = [*(str if is_string else np.int64 for is_string in strings), np.float64]
    kinds: dict[int, Any] = dict.fromkeys(range(form.width), str) | dict(zip(form.places, types, strict=True))
    return pd.read_csv(
        io.BytesIO(content),
        sep=separator,
        header=None,
        names=list(range(form.width)),
        usecols=None if quotes else list(form.places),  # only with all columns does pandas report excess columns
        dtype=kinds,
        quoting=csv.QUOTE_MINIMAL if form.quoted else csv.QUOTE_NONE,
        skipinitialspace=form.quoted,
        keep_default_na=False,
        na_values=NA_VALUES,
        low_memory=False,
    )


def _is_plausible(
    table: "pd.DataFrame", content: bytes, separator: str, form: Layout, strings: list[bool], quotes: bool
) -> bool:
    """Return whether nothing is missing, all ratings are finite, and each line has the right number of columns."""
    if not (np.abs(table[form.places[2]].to_numpy()) <= LARGEST).all():
        return False
    if any(is_string and table[place].isna().any() for place, is_string in zip(form.places, strings, strict=False)):
        return False
    if quotes:
        return type(table.index).__name__ == "RangeIndex"  # pandas makes an index of excess columns
    return content.count(separator.encode()) == len(table) * (form.width - 1)  # it would ignore 3,5 for 3.5


def _has_leading_zero(content: bytes, separator: str) -> bool:
    """Return whether a cell could be a number like 007, which is a different ID than 7."""
    data = np.frombuffer(b"\n" + content, dtype=np.uint8)
    zeros = 1 + np.flatnonzero(data[1:-1] == ord("0"))
    zeros = zeros[(data[zeros + 1] >= ord("0")) & (data[zeros + 1] <= ord("9"))]
    return bool(np.isin(data[zeros - 1], list(f'{separator}\n" -'.encode())).any())


def _check_lines(block: Block, form: Layout, strings: list[bool], file: InputFile) -> None:
    """Check a block line by line.

    Raises:
        ValueError: a line is wrong; the message gives its number, its column and the remedy.
        _NotWhole: no line is wrong, but a column of IDs holds something other than whole numbers.
    """
    needed = list(strings)
    for number, row in _rows(block, form, file):
        where = f"{file}, line {number}"
        if len(row) != form.width:
            raise ValueError(f"{where}: has {len(row)} columns: expected {form.width} as in the first line")
        for place, kind, name in zip(form.places, layout.KINDS, form.names, strict=True):
            cell = row[place].strip()
            if is_missing(cell):
                raise ValueError(f"{where}, column {name}: the {kind} is missing: fill it in or remove the line")
            if kind == "rating" and not (is_number(cell) and abs(float(cell)) <= LARGEST):
                raise ValueError(f"{where}, column {name}: '{cell[:40]}' is not a rating: expected a number")
        for column, place in enumerate(form.places[:2]):
            needed[column] = needed[column] or not WHOLE.fullmatch(row[place].strip())
    if needed != strings:
        raise _NotWhole(needed)


def _rows(block: Block, form: Layout, file: InputFile) -> Iterator[tuple[int, list[str]]]:
    """Yield the number and the cells of each line, or of each record whose quoted cell has several lines."""
    if not form.quoted:
        yield from ((number, layout.split(line, form.separator, quoted=False)) for number, line in _lines(block))
        return
    content = io.StringIO(block.content.decode(), newline="")
    reader = csv.reader(content, delimiter=form.separator, skipinitialspace=True)
    last = 0
    try:
        for row in reader:
            if row and any(cell.strip() for cell in row):
                yield block.line + last, row
            last = reader.line_num
    except csv.Error as error:
        raise ValueError(f"{file}, line {block.line + last}: {error}") from None


def _read_parquet(path: Path, columns: str | None) -> Ratings:
    """Read a Parquet file, whose columns have names."""
    try:
        import pyarrow as pa
        from pyarrow import parquet
    except ImportError:
        raise ValueError(f"{path} is a Parquet file, and reading it needs pyarrow: pip install pyarrow") from None
    with path.open("rb") as opened:
        try:
            return _read_batches(parquet.ParquetFile(opened), path, columns)
        except pa.ArrowInvalid as error:
            raise ValueError(f"{path} is damaged or not a Parquet file: {str(error).splitlines()[0]}") from None


def _read_batches(file: Any, path: Path, columns: str | None) -> Ratings:
    """Read a ``pyarrow.parquet.ParquetFile`` batch by batch."""
    import pyarrow as pa

    schema = file.schema_arrow
    header = [str(name) for name in schema.names]
    places = layout.usual(header, str(path)) if columns is None else layout.chosen(columns, header, str(path))[0]
    names = [header[place] for place in places]
    users, items = (IdColumn(not pa.types.is_integer(schema.field(name).type)) for name in names[:2])
    parts: list[NDArray[np.float32]] = []
    row = 1
    for batch in file.iter_batches(batch_size=ROWS, columns=names):
        series = [batch.column(batch.schema.get_field_index(name)).to_pandas() for name in names]
        for values, kind, name in zip(series, layout.KINDS, names, strict=True):
            if (gaps := values.isna().to_numpy()).any():
                place = f"{path}, row {row + int(gaps.argmax())}, column {name}"
                raise ValueError(f"{place}: the {kind} is missing: remove the row")
        for ids, values in zip((users, items), series, strict=False):
            ids.add(values.astype(str) if ids.strings else values)
        parts.append(_ratings_of(series[2], schema.field(names[2]), path, row))
        row += len(series[2])
    if row == 1:
        raise ValueError(f"{path} is empty: expected a row for each rating, with user, item and rating")
    return gather(users, items, parts, tuple(names))


def _ratings_of(values: "pd.Series[Any]", field: Any, path: Path, row: int) -> NDArray[np.float32]:
    """Return the ratings of a batch whose first row has the number ``row``."""
    try:
        ratings = values.to_numpy().astype(np.float64)
    except (ValueError, TypeError):
        raise ValueError(f"{path}, column {field.name}: is of {field.type}: expected numbers") from None
    if (wrong := ~(np.abs(ratings) <= LARGEST)).any():
        place = int(wrong.argmax())
        raise ValueError(f"{path}, row {row + place}, column {field.name}: '{ratings[place]}' is not a rating")
    return ratings.astype(np.float32)
