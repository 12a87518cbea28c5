"""The layout of a file of ratings: its separator, its header, and the places of the columns."""

import csv
import math
import re
from pathlib import Path
from typing import NamedTuple

import numpy as np

from datasets import times
from datasets.formats import plain_name
from datasets.times import TimeColumn

LARGEST = float(np.finfo(np.float32).max)
SEPARATORS = ("::", "\t", ";", ",", "|")
QUOTED = (",", ";")  # between these, a column may stand in quotation marks; elsewhere they are ordinary characters
BLANKS = " "  # one or more, where a line has none of the separators above
KINDS = ("user", "item", "rating")
# The usual names of each kind of column, in lower case and without anything but letters and digits.
USUAL = (
    {"user", "userid", "uid", "users", "reviewer", "reviewerid", "customer", "customerid", "member", "memberid"},
    {"item", "itemid", "iid", "items", "movie", "movieid", "product", "productid", "asin", "isbn", "book", "bookid"},
    {"rating", "ratings", "score", "scores", "star", "stars", "starrating", "overall", "bookrating"},
)
MISSING = frozenset({"", "na", "n/a", "#n/a", "nan", "-nan", "<na>", "null", "none", "\\n"})
ASK = "name the columns: --columns USER,ITEM,RATING, by name or number"
STRAY = (
    "has a stray quotation mark: a column that it opens does not end as a quoted column does; "
    "if quotation marks are ordinary characters in this file, give --quoting none"
)
CHOICE = "expected three or four, USER,ITEM,RATING[,TIME], by name or by number from 1"


class Layout(NamedTuple):
    """The way to read a line."""

    separator: str  # one of SEPARATORS, or BLANKS
    quoted: bool  # whether a column may stand in quotation marks, with the separator in it
    width: int  # the number of columns
    places: tuple[int, int, int]  # the positions of the user, the item and the rating, from 0
    names: tuple[str, str, str]  # of these three columns in messages
    header: bool  # whether the first line that is not blank holds the names of the columns
    time: TimeColumn | None  # None where no column holds times

    @property
    def columns(self) -> tuple[str, ...]:
        """The names of all columns that are read."""
        return self.names if self.time is None else (*self.names, self.time.name)


def split(line: str, separator: str, quoted: bool) -> list[str]:
    if separator == BLANKS:
        return re.split("[ \t]+", line.strip(" \t"))
    if not quoted:
        return line.split(separator)
    return next(csv.reader([line.replace("\r", " ")], delimiter=separator, skipinitialspace=True), [])


def is_number(cell: str) -> bool:
    """Return whether a cell holds a finite number as a computer writes it."""
    try:
        return "_" not in cell and math.isfinite(float(cell))
    except ValueError:
        return False


def is_missing(cell: str) -> bool:
    """Return whether a cell is empty, or holds one of the usual words for a missing value."""
    return cell.strip().lower() in MISSING


def plain(name: str) -> str:
    """Return a column's name for comparisons: RecBole's ``user_id:token`` and ``User ID`` are both ``userid``."""
    return re.sub(r"[\W_]+", "", _untyped(name.strip()).lower())


def understand(path: Path, lines: list[tuple[int, str]], columns: str | None, quoting: str = "auto") -> Layout:
    """Tell the layout of a file from its first lines.

    Args:
        path: the file, for its ending and for messages.
        lines: the number and the content of the first lines that are not blank; at least one.
        columns: ``USER,ITEM,RATING`` or ``USER,ITEM,RATING,TIME``, names or numbers from 1; by default the columns with
            the usual names. A column with a usual name for times is read also without a fourth one here.
        quoting: ``none`` where quotation marks are ordinary characters, whatever the separator.

    Raises:
        ValueError: the layout is unclear, or the file has no such columns.
    """
    separator, quoted = _separator(path, lines, quoting)
    rows = [split(line, separator, quoted) for _, line in lines]
    first = [cell.strip() for cell in rows[0]]
    where = f"{path}, line {lines[0][0]}"
    if columns is not None:
        places, header = chosen(columns, first, where)
    elif not any(map(is_number, first)) and any(plain(cell) in set.union(*USUAL) for cell in first):
        places = usual(first, where)
        header = True
    else:
        _check_without_header(rows, first, where)
        places = list(range(len(first)))
        header = False
    names = [_untyped(first[place]) if header else str(place + 1) for place in range(len(first))]
    user, item, rating = places[:3]
    own = (names[user], names[item], names[rating])
    time = _time_column(places, names, header, rows[1:] if header else rows, path)
    return Layout(separator, quoted, len(first), (user, item, rating), own, header, time)


def _time_column(
    places: list[int], names: list[str], header: bool, rows: list[list[str]], path: Path
) -> TimeColumn | None:
    """Return the column of times, None where there is none; raise ValueError where the chosen one holds no times."""
    place = places[3] if len(places) > 3 else time_place(names, places) if header else None
    if place is None:
        return None
    cells = [row[place].strip() for row in rows if len(row) > place and not is_missing(row[place])]
    dated = bool(cells) and not is_number(cells[0])
    if dated and not times.is_date(cells[0]):
        if len(places) > 3:
            raise ValueError(f"{path}, column {names[place]}: '{cells[0][:40]}' is not a time: {times.EXPECTED}")
        return None
    return TimeColumn(place, names[place], dated)


def time_place(header: list[str], others: list[int]) -> int | None:
    """Return the place of the column with a usual name for times, except ``others``; None where there is none."""
    return times.find([plain(name) for name in header], others)


def usual(header: list[str], where: str) -> list[int]:
    """Return the places of the columns with the usual names; raise ValueError unless there is one of each kind."""
    places = []
    for kind, names in zip(KINDS, USUAL, strict=True):
        found = [name for name in header if plain(name) in names]
        if not found:
            raise ValueError(f"{where}: no column for the {kind} in {', '.join(header)}: {ASK}")
        if len(found) > 1:
            raise ValueError(f"{where}: {' and '.join(found)} could each be the {kind}: {ASK}")
        places.append(header.index(found[0]))
    return places


def chosen(columns: str, first: list[str], where: str) -> tuple[list[int], bool]:
    """Return the places of the chosen columns, and whether there is a header; raise ValueError unless they fit."""
    wanted = [each.strip() for each in columns.split(",")]
    if len(wanted) not in (3, 4) or len(set(wanted)) != len(wanted) or not all(wanted):
        raise ValueError(f"columns is '{columns}': {CHOICE}")
    if all(each.isdecimal() for each in wanted):
        places = [int(each) - 1 for each in wanted]
        if not all(0 <= place < len(first) for place in places):
            raise ValueError(f"{where}: has {len(first)} columns, and columns is '{columns}'")
        return places, not is_number(first[places[2]])
    untyped = [_untyped(name) for name in first]
    for each in wanted:
        if each not in untyped and each not in first:
            listed = ", ".join(first)
            raise ValueError(f"{where}: no column is called '{each}' among {listed}; by number: 1 to {len(first)}")
    places = [untyped.index(each) if each in untyped else first.index(each) for each in wanted]
    return places, True


def mistake(row: list[str], form: Layout) -> str | None:
    """Return the first mistake in the columns of a line, as the end of a message; None where there is none."""
    if len(row) != form.width:
        return f": has {len(row)} columns: expected {form.width} as in the first line"
    for place, kind, name in zip(form.places, KINDS, form.names, strict=True):
        cell = row[place].strip()
        if is_missing(cell):
            return f", column {name}: the {kind} is missing: fill it in or remove the line"
        if kind == "rating" and not (is_number(cell) and abs(float(cell)) <= LARGEST):
            return f", column {name}: {cell[:40]!r} is not a rating: expected a number"
    return None


def _untyped(name: str) -> str:
    """Return a column's name without the type that RecBole writes behind it."""
    return re.sub(r":(token|float)(_seq)?$", "", name)


def _check_without_header(rows: list[list[str]], first: list[str], where: str) -> None:
    """Raise ValueError unless the lines can be user, item, rating and possibly a time."""
    fits = len(first) in (3, 4) and all(
        is_number(cell) or (place == 3 and times.is_date(cell.strip()))
        for row in rows
        for place, cell in enumerate(row[:4])
        if place >= 2 and not is_missing(cell)
    )
    if not fits and len(rows) > 1 and not any(map(is_number, first)):
        raise ValueError(f"{where}: none of the columns {', '.join(first)} has a usual name: {ASK}")
    if len(first) not in (3, 4) or not is_number(first[2]):
        raise ValueError(f"{where}: no header, and not user, item, rating in this order: {ASK}")
    if len(first) == 4 and not (is_number(first[3]) or times.is_date(first[3]) or is_missing(first[3])):
        raise ValueError(f"{where}: column 4 is '{first[3]}', and not a time: {ASK}")


def _separator(path: Path, lines: list[tuple[int, str]], quoting: str) -> tuple[str, bool]:
    """Return the separator of the columns, and whether a column may be quoted."""
    name = plain_name(path.name)
    unquoted = quoting == "none" or name.endswith((".inter", ".dat", "u.data"))
    quotes = {each: each in QUOTED and not unquoted for each in SEPARATORS}
    number, first = lines[0]
    fitting = [each for each in SEPARATORS if len(split(first, each, quotes[each])) >= 3]
    if len(fitting) > 1:
        widths = {each: {len(split(line, each, quotes[each])) for _, line in lines} for each in fitting}
        fitting = [each for each in fitting if len(widths[each]) == 1] or fitting
    expected = {".csv": ",", ".tsv": "\t", ".inter": "\t", ".dat": "::"}.get(Path(name).suffix)
    if len(fitting) > 1 and expected in fitting:
        fitting = [expected]
    if not any(each in first for each in SEPARATORS) and len(split(first, BLANKS, False)) >= 3:
        return BLANKS, False
    if not fitting and '"' in first and any(len(split(first, each, quoted=False)) >= 3 for each in QUOTED):
        raise ValueError(f"{path}, line {number}: {STRAY}")
    if not fitting:
        raise ValueError(
            f"{path}, line {number}: fewer than three columns in '{first[:60]}': "
            "expected user, item and rating, with a comma, a tab, ';', '|', '::' or blanks between them"
        )
    if len(fitting) > 1:
        raise ValueError(f"{path}, line {number}: both {fitting[0]!r} and {fitting[1]!r} could separate the columns")
    return fitting[0], quotes[fitting[0]]
