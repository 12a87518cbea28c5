"""Ratings from a text file or a Parquet file of any size, block by block; and where in it something is wrong.

A block is read by pandas. Where pandas stumbles, or what it read is not as it should be, the block is gone through
line by line, and the first line that is wrong is named.
"""

import csv
import io
import itertools
import re
from collections.abc import Iterator
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from datasets import blocks, coding, layout
from datasets.blocks import Block, Source
from datasets.layout import Layout, is_missing, is_number
from datasets.source import CodedRatings

SAMPLE = 100  # lines by which the layout is told
LARGEST = float(np.finfo(np.float32).max)
WHOLE = re.compile(r"0|-?[1-9][0-9]{0,17}")
UNIT = "\x1f"  # a byte that stands in for "::" or blanks: pandas is fast with separators of one character only
AROUND = re.compile(rb"^[ \t]+|[ \t]+(?=\r?$)", re.MULTILINE)  # blanks before and after a line
NA_VALUES = [
    "",
    "NA",
    "N/A",
    "n/a",
    "#N/A",
    "nan",
    "NaN",
    "NAN",
    "-nan",
    "<NA>",
    "NULL",
    "Null",
    "null",
    "None",
    "none",
    "\\N",
]


class _NotWhole(Exception):
    """A column of ids is not of whole numbers: it is to be read again as text."""

    def __init__(self, column: int) -> None:
        super().__init__(column)
        self.column = column


def read(source: Source, columns: str | None = None) -> CodedRatings:
    """All ratings in a file.

    Args:
        source: CSV, TSV, ``::``, ``.inter``, packed by gzip or not; or ``.parquet``.
        columns: ``USER,ITEM,RATING``, by name or by number from 1; by default those with the usual names.

    Raises:
        ValueError: something in it is wrong; the message names file, line and column, and what to do.
        OSError: it cannot be read.
    """
    if source.path.suffix.lower() in (".parquet", ".pq"):
        from datasets import parquet

        ratings = parquet.read(source.path, columns)
    else:
        text = [False, False]
        while True:
            try:
                ratings = _read_text(source, columns, text)
                break
            except _NotWhole as found:
                text[found.column] = True
    check(ratings, source)
    return ratings


def check(ratings: CodedRatings, source: Source) -> None:
    """Raise ValueError where there are too few ratings, users or items to learn from."""
    if len(ratings.ratings) < 2:
        raise ValueError(f"{source}: has a single rating: expected at least two, one to train on and one to test on")
    for kind, ids, name in (("user", ratings.users, ratings.names[0]), ("item", ratings.items, ratings.names[1])):
        if len(ids) == 1:
            raise ValueError(
                f"{source}: column {name} has the {kind} '{ids[0]}' in every line: expected at least two {kind}s; "
                "if that is another column, say so with --columns"
            )


def _read_text(source: Source, columns: str | None, text: list[bool]) -> CodedRatings:
    form: Layout | None = None
    parts: list[NDArray[np.float32]] = []
    users, items = coding.Column(text[0]), coding.Column(text[1])
    for block in blocks.blocks(source):
        if form is None:
            lines = list(itertools.islice(_lines(block), SAMPLE))
            if not lines:
                continue
            form = layout.understand(source.path, lines, columns)
            if form.header:
                end = block.content.find(lines[0][1].encode()) + len(lines[0][1].encode())
                end = (block.content.find(b"\n", end) + 1) or len(block.content)
                block = Block(block.content[end:], block.line + block.content.count(b"\n", 0, end))
        if not block.content.strip():
            continue
        table = _parse(block, form, text, source)
        users.add(table[form.places[0]])
        items.add(table[form.places[1]])
        parts.append(table[form.places[2]].to_numpy().astype(np.float32))
    if not parts:
        what = "has a header and nothing below it" if form else "is empty"
        raise ValueError(f"{source} {what}: expected a line a rating, with user, item and rating")
    assert form is not None
    return coding.finish(users, items, parts, form.names)


def _lines(block: Block) -> Iterator[tuple[int, str]]:
    """The number and the text of each line that is not blank."""
    for number, line in enumerate(io.StringIO(block.content.decode(), newline=None), block.line):
        if line.strip():
            yield number, line.rstrip("\n")


def _parse(block: Block, form: Layout, text: list[bool], source: Source, blanks: bool = True) -> pd.DataFrame:
    """The three columns of a block, which may have lines of nothing but blanks."""
    separator, content = form.separator, block.content
    if separator == "::":
        separator, content = UNIT, content.replace(b"::", UNIT.encode())
    elif separator == layout.BLANKS:
        separator, content = UNIT, AROUND.sub(b"", content)
        content = re.sub(rb"[ \t]+", UNIT.encode(), content)
    quotes = form.quoted and b'"' in content
    kinds: dict[int, Any] = {place: str if text[n] else np.int64 for n, place in enumerate(form.places[:2])}
    kinds[form.places[2]] = np.float64
    try:
        table = pd.read_csv(
            io.BytesIO(content),
            sep=separator,
            header=None,
            names=list(range(form.width)),
            usecols=None if quotes else list(form.places),  # of all columns it says where there are too many
            dtype={**dict.fromkeys(range(form.width), str), **kinds},
            quoting=csv.QUOTE_MINIMAL if form.quoted else csv.QUOTE_NONE,
            skipinitialspace=form.quoted,
            keep_default_na=False,
            na_values=NA_VALUES,
            low_memory=False,
        )
        stars = table[form.places[2]].to_numpy()
        wrong = not (np.abs(stars) <= LARGEST).all()
        wrong = wrong or any(text[n] and bool(table[place].isna().any()) for n, place in enumerate(form.places[:2]))
        if quotes:
            wrong = wrong or not isinstance(table.index, pd.RangeIndex)
        else:  # a line with a column too many would pass unseen, as with 3,5 for 3.5
            wrong = wrong or content.count(separator.encode()) != len(table) * (form.width - 1)
    except (ValueError, OverflowError):  # pandas's own errors are among them
        wrong = True
    if wrong:
        _locate(block, form, text, source)
        if not blanks:
            raise ValueError(f"{source}, below line {block.line}: cannot be read as lines of {form.width} columns each")
        kept = b"\n".join(line for line in block.content.splitlines() if line.strip())
        return _parse(Block(kept, block.line), form, text, source, blanks=False)
    short = quotes and bool(table[form.width - 1].isna().any())  # or only empty, in a column that nobody reads
    if short or (not all(text) and _has_leading_zero(content, separator)):
        _locate(block, form, text, source)
    return table


def _has_leading_zero(content: bytes, separator: str) -> bool:
    """Whether some cell could be a number like 007, which is another id than 7."""
    data = np.frombuffer(content, dtype=np.uint8)
    zeros = np.flatnonzero(data[:-1] == ord("0"))
    zeros = zeros[(data[zeros + 1] >= ord("0")) & (data[zeros + 1] <= ord("9"))]
    before = data[zeros[zeros > 0] - 1]
    return bool(np.isin(before, [ord(separator), ord("\n"), ord('"'), ord(" "), ord("-")]).any()) or 0 in zeros


def _locate(block: Block, form: Layout, text: list[bool], source: Source) -> None:
    """Name the first line of a block that is wrong, if there is one.

    Raises:
        ValueError: with its number, its column and what to do.
        _NotWhole: nothing is wrong but that a column of ids is not of whole numbers.
    """
    not_whole = None
    for number, row in _rows(block, form, source):
        if len(row) != form.width:
            raise ValueError(
                f"{source}, line {number}: has {len(row)} columns: expected {form.width} as in the first line"
            )
        for place, kind, name in zip(form.places, layout.NAMES, form.names, strict=True):
            cell = row[place].strip()
            if is_missing(cell):
                raise ValueError(
                    f"{source}, line {number}, column {name}: the {kind} is missing: fill it in or remove the line"
                )
            if kind == "rating" and not (is_number(cell) and abs(float(cell)) <= LARGEST):
                raise ValueError(
                    f"{source}, line {number}, column {name}: '{cell[:40]}' is no rating: expected a number"
                )
        if not_whole is None:
            for n, place in enumerate(form.places[:2]):
                if not text[n] and not WHOLE.fullmatch(row[place].strip()):
                    not_whole = n
    if not_whole is not None:
        raise _NotWhole(not_whole)


def _rows(block: Block, form: Layout, source: Source) -> Iterator[tuple[int, list[str]]]:
    """The number and the cells of each line, or of each record whose quoted cell goes over several lines."""
    if not form.quoted:
        yield from ((number, form.split(line)) for number, line in _lines(block))
        return
    reader = csv.reader(
        io.StringIO(block.content.decode(), newline=""), delimiter=form.separator, skipinitialspace=True
    )
    last = 0
    try:
        for row in reader:
            if row and any(cell.strip() for cell in row):
                yield block.line + last, row
            last = reader.line_num
    except csv.Error as error:
        raise ValueError(f"{source}, line {block.line + last}: {error}") from None
