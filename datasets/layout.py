"""The layout of a file of ratings: its separator and its columns."""

import csv
import re
from pathlib import Path
from typing import NamedTuple

from datasets import columns, header, times
from datasets.cells import is_missing, is_number, wrong_rating
from datasets.columns import ASK, FileOptions, Places, untyped
from datasets.formats import plain_name
from datasets.textfile import RowError, WrongTime
from datasets.times import TimeColumn

SEPARATORS = ("::", "\t", ";", ",", "|")
QUOTED = (",", ";")  # between these, a column may stand in quotation marks
ALL_QUOTED = ("\t", "|")  # between these, and between blanks, only if all columns of the first line do
BLANKS = " "  # one or more, where a line has none of the separators above
STRAY = (
    "has a stray quotation mark: a column that it opens does not end as a quoted column does; "
    "if quotation marks are ordinary characters in this file, give option quoting none"
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
        line = line.strip(" \t")
    if not quoted:
        return re.split("[ \t]+", line) if separator == BLANKS else line.split(separator)
    return next(csv.reader([line.replace("\r", " ")], delimiter=separator, skipinitialspace=True), [])


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
    number = lines[0][0]
    found = header.read(rows, options, f"{path}, line {number}", is_json=number == 0)
    names = [untyped(cell.strip()) if found.is_there else str(place) for place, cell in enumerate(rows[0], 1)]
    time = None
    if with_times:
        skipped = 1 if found.is_there else 0
        time = _time_column(found.places, names, lines[skipped:], rows[skipped:], path)
    return Layout(
        separator,
        quoted,
        len(rows[0]),
        found.places,
        names,
        found.is_there,
        time,
        options.counts,
        chosen=options.columns is not None,
        guessed=found.places.time == 2 and not found.is_there and options.columns is None,
        note=found.note,
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
        return BLANKS, not unquoted and is_all_quoted(" ".join(first.split()), BLANKS)
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
