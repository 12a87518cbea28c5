"""Ratings read from a CSV file with quotation marks, record by record."""

import functools
import itertools
import re
from typing import Any

import numpy as np
from numpy.typing import NDArray

from datasets import layout, records, times
from datasets.cells import LARGEST, MISSING, is_missing, is_number, wrong_rating
from datasets.columns import FileOptions
from datasets.gathering import Gathered
from datasets.ids import IdColumn
from datasets.layout import Layout
from datasets.ratings import Ratings
from datasets.textfile import InputFile, RowError
from datasets.times import TimeColumn

RECORDS = 2**12  # records that are gathered at a time; many lists at once are slow


def read(file: InputFile, form: Layout, options: FileOptions, style: dict[str, Any]) -> Ratings:
    """Read the interactions of a file in one style of quoting; raise as ``reading.read``."""
    user_ids, item_ids = (IdColumn(strings=True, untyped=True) for _ in range(2))
    gathered = Gathered(form, user_ids, item_ids, options.unrated)
    places = form.places
    parsed = records.parse(
        records.lines(file), form.separator, form.width, style, functools.partial(_is_record, form), file
    )
    if form.header:
        next(parsed)
    while rows := list(itertools.islice(parsed, RECORDS)):
        users, items = ([row[place].strip() for _, row in rows] for place in places[:2])
        ratings = None if places.rating is None else _numbers([row[places.rating].strip() for _, row in rows], form)
        has_mistake = places.rating is not None and ratings is None
        if has_mistake or not all(MISSING.isdisjoint(map(str.lower, ids)) for ids in (users, items)):
            for line, row in rows:
                if problem := layout.mistake(row, form):
                    raise RowError(file, line, problem)
        gathered.add(
            np.array(users, dtype=object),
            np.array(items, dtype=object),
            ratings,
            None if form.time is None else _times(rows, form, form.time, file),
            None if places.part is None else [row[places.part] for _, row in rows],
            functools.partial(_line_of, rows),
        )
    return gathered.finish(file)


def _line_of(rows: list[tuple[int, list[str]]], place: int) -> int:
    return rows[place][0]


def _times(rows: list[tuple[int, list[str]]], form: Layout, column: TimeColumn, file: InputFile) -> NDArray[np.float64]:
    cells = [row[column.place].strip() for _, row in rows]
    found, wrong = times.numbers([None if is_missing(cell) else cell for cell in cells], column.dated)
    if wrong is not None:
        raise form.wrong_time(file, rows[wrong][0], cells[wrong])
    return found


def _numbers(cells: list[str], form: Layout) -> NDArray[np.float64] | None:
    """Return ratings as numbers, NaN for a missing one; None where one may be neither."""
    try:
        found = np.array(list(map(float, cells)))
        if not (np.abs(found) <= LARGEST).all():
            raise ValueError
    except ValueError:
        problems = any(wrong_rating(cell, form.counts) for cell in cells)
        return None if problems else np.array([np.nan if is_missing(cell) else float(cell) for cell in cells])
    return None if "_" in "".join(cells) or (form.counts and (found < 0).any()) else found


def _is_record(form: Layout, cells: list[str], record: list[str]) -> bool:
    """Return whether a line within a record has a rating or a time, or IDs like its own, and is a record itself."""
    if form.places.rating is not None:
        cell = cells[form.places.rating]
        return is_missing(cell) or is_number(cell)
    if form.time is not None:
        cell = cells[form.time.place].strip()
        return is_missing(cell) or is_number(cell) or times.is_date(cell)
    for place in form.places[:2]:
        has_digit, record_has = (re.search(r"\d", each[place]) is not None for each in (cells, record))
        if not cells[place].strip() or (record_has and not has_digit):
            return False
    return True
