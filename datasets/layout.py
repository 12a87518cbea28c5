"""The layout of a file of ratings: its separator, its header, and the kinds of its columns."""

import csv
import math
import re
import unicodedata
from pathlib import Path
from typing import NamedTuple

import numpy as np

from datasets import columns, times
from datasets.columns import ALL_USUAL, ASK, FileOptions, Places, plain, untyped
from datasets.formats import plain_name
from datasets.ids import is_whole
from datasets.textfile import RowError, WrongTime
from datasets.times import TimeColumn

LARGEST = float(np.finfo(np.float32).max)
SEPARATORS = ("::", "\t", ";", ",", "|")
QUOTED = (",", ";")  # between these, a column may stand in quotation marks
ALL_QUOTED = ("\t", "|")  # between these, only if all columns of the first line do
BLANKS = " "  # one or more, where a line has none of the separators above
MISSING = frozenset({"", "na", "n/a", "#n/a", "nan", "-nan", "<na>", "null", "none", "\\n"})
STRAY = (
    "has a stray quotation mark: a column that it opens does not end as a quoted column does; "
    "if quotation marks are ordinary characters in this file, give --quoting none"
)


class Layout(NamedTuple):
    """The way to read a line."""

    separator: str  # one of SEPARATORS, or BLANKS
    quoted: bool  # whether a column may stand in quotation marks, with the separator in it
    width: int  # the number of columns
    places: Places
    names: list[str]  # of all columns in messages
    header: bool  # whether the first line that is not blank holds the names of the columns
    time: TimeColumn | None  # None where no column holds times
    counts: bool  # whether the rating is a count
    chosen: bool = False  # whether --columns chooses the columns
    guessed: bool = False  # whether the times were told from their values, in a file without a header
    note: str = ""  # a doubt about the layout, for stderr

    @property
    def dated(self) -> bool:
        """Whether the times are dates."""
        return self.time is not None and self.time.dated

    @property
    def columns(self) -> tuple[str, ...]:
        """The columns of the user, the item, the rating and the time, as shown."""
        user, item, rating = self.names[self.places.user], self.names[self.places.item], self.places.rating
        if rating is not None and not self.counts:
            return (user, item, self.names[rating], *([] if self.time is None else [self.time.name]))
        third = "no rating" if rating is None else f"count {self.names[rating]}"
        return (user, item, third, *([] if self.time is None else [f"time {self.time.name}"]))

    @property
    def needed(self) -> list[int]:
        """The places of all columns that are read."""
        wanted = self.places._replace(time=None if self.time is None else self.time.place)
        return sorted(place for place in wanted if place is not None)

    @property
    def unread(self) -> list[str]:
        """The names of the columns that could hold ratings, in a file with a header and without a rating column."""
        if self.places.rating is not None or not self.header or self.chosen:
            return []
        return [name for place, name in enumerate(self.names) if place not in self.places]

    def wrong_time(self, file: object, line: int, cell: str, unit: str = "line") -> RowError:
        """Return the error for a cell that is not a time."""
        assert self.time is not None
        problem = f", column {self.time.name}: '{cell.strip()[:40]}' is not a time: {times.EXPECTED}"
        return RowError(file, line, f"{problem}; {ASK}") if self.guessed else WrongTime(file, line, problem, unit)


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


def understand(
    path: Path, lines: list[tuple[int, str]], options: FileOptions = columns.DEFAULT, with_times: bool = True
) -> Layout:
    """Tell the layout of a file from its first lines.

    Args:
        path: the file, for its ending and for messages.
        lines: the number and the content of the first lines that are not blank; at least one.
        with_times: whether a column of times is looked for.

    Raises:
        ValueError: the layout is unclear, or the file has no such columns.
        WrongTime: the column of times holds something else.
    """
    separator, quoted = _separator(path, lines, options.quoting)
    rows = [split(line, separator, quoted) for _, line in lines]
    first = [cell.strip() for cell in rows[0]]
    number = lines[0][0]
    where = f"{path}, line {number}"
    note = ""
    if options.columns is not None:
        places, by_name = columns.chosen(options, first, where)
        looks = True if by_name or number == 0 else _has_header(rows, places)  # the keys of JSON are in line 0
        header = looks is True
        if looks is None:
            note = f"{where}: is read as an interaction; if it is a header, choose the columns by name"
    else:
        header = not any(map(is_number, first)) and any(plain(cell) in ALL_USUAL for cell in first)
        places = columns.usual(first, options.counts, where) if header else _without_header(rows, options, where)
    names = [untyped(first[place]) if header else str(place + 1) for place in range(len(first))]
    if header:
        places = places.find_others(first)
    time = None
    if with_times:
        time = _time_column(places, names, lines[1:] if header else lines, rows[1:] if header else rows, path)
    return Layout(
        separator,
        quoted,
        len(first),
        places,
        names,
        header,
        time,
        options.counts,
        chosen=options.columns is not None,
        guessed=places.time == 2 and not header and options.columns is None,
        note=note,
    )


def mistake(row: list[str], form: Layout) -> str | None:
    """Return the first mistake in the columns of a line, as the end of a message; None where there is none."""
    if len(row) != form.width:
        return f": has {len(row)} columns: expected {form.width} as in the first line"
    for place, kind in ((form.places.user, "user"), (form.places.item, "item")):
        if is_missing(row[place]):
            return f", column {form.names[place]}: the {kind} is missing: fill it in or remove the line"
    if form.places.rating is None:
        return None
    cell = row[form.places.rating].strip()
    problem = wrong_rating(cell, form.counts)
    return f", column {form.names[form.places.rating]}: {problem}" if problem else None


def wrong_rating(cell: str, counts: bool) -> str | None:
    """Return the reason why a cell is neither a rating nor missing, or why it is not a count."""
    shown = repr(cell[:40])
    if is_missing(cell):
        return "the count is missing: fill it in or remove the line" if counts else None
    if not is_number(cell) or abs(float(cell)) > LARGEST:
        kind = "count" if counts else "rating"
        if times.is_date(cell):
            return f"{shown} is a time and not a {kind}: name it as the time, --columns USER,ITEM,,TIME"
        return f"{shown} is not a {kind}: expected a number{_odd_character(cell)}"
    if counts and float(cell) < 0:
        return f"{shown} is a negative count: expected at least 0"
    return None


def _odd_character(cell: str) -> str:
    """Name the first character of a cell that is not ASCII, because it may look like another one or like none."""
    for place, character in enumerate(cell, 1):
        if not character.isascii():
            name = unicodedata.name(character, "no name").lower()
            return f"; character {place} is U+{ord(character):04X}, {name}"
    return ""


def _time_column(
    places: Places, names: list[str], lines: list[tuple[int, str]], rows: list[list[str]], path: Path
) -> TimeColumn | None:
    """Return the column of times, None where there is none; raise WrongTime where its first cell is not a time."""
    place = places.time
    if place is None:
        return None
    for (line, _), row in zip(lines, rows, strict=True):
        if len(row) <= place or is_missing(row[place]):
            continue
        cell = row[place].strip()
        dated = not is_number(cell)
        if dated and not times.is_date(cell):
            problem = f", column {names[place]}: '{cell[:40]}' is not a time: {times.EXPECTED}"
            raise WrongTime(path, line, problem)
        return TimeColumn(place, names[place], dated)
    return TimeColumn(place, names[place], dated=False)


def _has_header(rows: list[list[str]], places: Places) -> bool | None:
    """Return whether the first line holds the names of columns that are chosen by number; None where it is unclear."""
    first = [cell.strip() for cell in rows[0]]
    if any(is_number(first[place]) for place in places if place is not None):
        return False
    if any(plain(cell) in ALL_USUAL for cell in first):
        return True
    known = [first[place] for place in (places.rating, places.time) if place is not None]
    if any(times.is_date(cell) for cell in known):
        return False
    if any(not is_missing(cell) for cell in known):
        return True
    for place in (places.user, places.item):
        below = [row[place].strip() for row in rows[1:] if len(row) > place]
        if below and all(map(is_whole, below)):
            return True
    return None


def _without_header(rows: list[list[str]], options: FileOptions, where: str) -> Places:
    """Return the places of the columns of a file without a header.

    Raises:
        ValueError: the lines cannot be user, item, and possibly a rating and a time, in this order.
    """
    first = [cell.strip() for cell in rows[0]]
    width = len(first)
    third, fourth = (
        [row[place].strip() for row in rows if len(row) > place and not is_missing(row[place])] for place in (2, 3)
    )
    no_names = f"{where}: none of the columns {', '.join(first)} has a usual name: {ASK}"
    fits = all(map(is_number, third)) and all(is_number(cell) or times.is_date(cell) for cell in fourth)
    if width == 3 and times.are_times(third) and not options.counts:
        return Places(0, 1, None, 2)
    if (width not in (2, 3, 4) or not fits) and len(rows) > 1 and not any(map(is_number, first)):
        raise ValueError(no_names)
    if width == 4 and fits and times.are_times(third):
        raise ValueError(f"{where}: column 3 looks like times: name the columns, as --columns 1,2,4,3 or 1,2,,3")
    if options.counts and width == 2:
        raise ValueError(f"{where}: has no column for the count: {ASK}")
    if width not in (2, 3, 4) or (width > 2 and not is_number(first[2]) and not is_missing(first[2])):
        raise ValueError(f"{where}: no header, and not user, item, rating in this order: {ASK}")
    if width == 4 and not (is_number(first[3]) or times.is_date(first[3]) or is_missing(first[3])):
        raise ValueError(f"{where}: column 4 is '{first[3]}', and not a time: {ASK}")
    if not any(is_number(cell) or times.is_date(cell) for cell in first[2:]) and not _are_ids(rows):
        raise ValueError(no_names)
    return Places(0, 1, *(place if place < width else None for place in (2, 3)))


def _are_ids(rows: list[list[str]]) -> bool:
    """Return whether the first two columns of the first line look like IDs, and not like the names of columns."""
    first = [cell.strip() for cell in rows[0][:2]]
    for place, cell in enumerate(first):
        below = [row[place].strip() for row in rows[1:] if len(row) > place]
        if below and all(map(is_whole, below)) and not is_whole(cell):
            return False
    return any(character.isdigit() for character in "".join(first))


def is_all_quoted(line: str, separator: str) -> bool:
    """Return whether each column of a line stands in quotation marks."""
    cells = [cell.strip() for cell in line.split(separator)]
    return all(len(cell) >= 2 and cell[0] == cell[-1] == '"' for cell in cells)


def _separator(path: Path, lines: list[tuple[int, str]], quoting: str) -> tuple[str, bool]:
    """Return the separator of the columns, and whether a column may be quoted."""
    name = plain_name(path.name)
    unquoted = quoting == "none" or name.endswith((".inter", ".dat", "u.data"))
    number, first = lines[0]
    quotes = {
        each: not unquoted and (each in QUOTED or (each in ALL_QUOTED and is_all_quoted(first, each)))
        for each in SEPARATORS
    }
    widths = {each: len(split(first, each, quotes[each])) for each in SEPARATORS}
    fitting = [each for each in SEPARATORS if widths[each] >= 3] or [each for each in SEPARATORS if widths[each] == 2]
    if len(fitting) > 1:
        all_widths = {each: {len(split(line, each, quotes[each])) for _, line in lines} for each in fitting}
        fitting = [each for each in fitting if len(all_widths[each]) == 1] or fitting
    expected = {".csv": ",", ".tsv": "\t", ".inter": "\t", ".dat": "::"}.get(Path(name).suffix)
    if len(fitting) > 1 and expected in fitting:
        fitting = [expected]
    if not any(each in first for each in SEPARATORS) and len(split(first, BLANKS, False)) >= 2:
        return BLANKS, False
    if not fitting and '"' in first and any(len(split(first, each, quoted=False)) >= 2 for each in QUOTED):
        raise ValueError(f"{path}, line {number}: {STRAY}")
    if not fitting:
        raise ValueError(
            f"{path}, line {number}: a single column in '{first[:60]}': expected user, item and possibly a rating, "
            "with a comma, a tab, ';', '|', '::' or blanks between them"
        )
    if len(fitting) > 1:
        raise ValueError(f"{path}, line {number}: both {fitting[0]!r} and {fitting[1]!r} could separate the columns")
    return fitting[0], quotes[fitting[0]]
