"""Interactions from a pandas DataFrame, whose columns have types: nothing in it is guessed."""

import sys
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from datasets import times
from datasets.ids import Ids
from datasets.parts import EXPECTED, PARTS
from datasets.ratings import Ratings, each_pair_once

WHOLE_FLOATS = 2.0**53  # below this, a float has all digits of a whole number


def read(
    frame: pd.DataFrame,
    user: str,
    item: str,
    rating: str | None = None,
    time: str | None = None,
    title: str | None = None,
    split: str | None = None,
) -> Ratings:
    """Read interactions; a line on stderr says how many have the same user and item as a later one.

    Args:
        frame: a row for each interaction.
        user, item, rating, time, title, split: names of its columns, as ``data.from_frame`` documents.

    Raises:
        ValueError: a column is not there or has values of a wrong type, or a value is missing; the message names the
            column, the value and the row by its label in the index.
    """
    _check(frame, [name for name in (user, item, rating, time, title, split) if name is not None])
    users, user_names = _ids(frame[user])
    items, item_names = _ids(frame[item])
    ratings = np.full(len(frame), np.nan, dtype=np.float32) if rating is None else _ratings(frame[rating])
    found = each_pair_once(
        Ratings(
            user_ids=users,
            item_ids=items,
            ratings=ratings,
            users=user_names,
            items=item_names,
            titles=() if title is None else _titles(frame[title], items, item_names),
            columns=tuple(name for name in (user, item, rating, time) if name is not None),
            times=np.empty(0) if time is None else _times(frame[time]),
            parts=np.empty(0, dtype=np.int8) if split is None else _parts(frame[split]),
        )
    )
    if found.notes:
        print(f"{len(found.ratings):,} interactions; {'; '.join(found.notes)}", file=sys.stderr)
    return found


def _check(frame: pd.DataFrame, names: list[str]) -> None:
    """Raise ValueError unless a frame has each of these columns once, no two are the same, and it has two rows."""
    if not isinstance(frame, pd.DataFrame):
        raise ValueError(f"frame is {type(frame).__name__}: expected a pandas DataFrame")
    if len(set(names)) < len(names):
        raise ValueError(f"the columns are {', '.join(names)}: expected each once")
    for name in names:
        if list(frame.columns).count(name) != 1:
            there = ", ".join(map(str, frame.columns))
            raise ValueError(f"column {name} is not there, or there twice: expected one of {there}")
    if len(frame) < 2:
        raise ValueError(f"the frame has {len(frame)} rows: expected a row for each interaction, and at least two")


def _ids(column: "pd.Series[Any]") -> tuple[NDArray[np.int32], Ids]:
    """Return the (n,) indices, and the ID of each index in ascending order: whole numbers, or strings."""
    _refuse(column, column.isna(), "the ID is missing")
    values = column.astype(column.cat.categories.dtype) if isinstance(column.dtype, pd.CategoricalDtype) else column
    if pd.api.types.is_float_dtype(values.dtype):
        fractions = (values % 1 != 0) | (values.abs() >= WHOLE_FLOATS)
        _refuse(values, fractions, "is no ID: expected whole numbers or strings")
        values = values.astype("int64")
    kind = pd.api.types.infer_dtype(values)
    if kind == "string":
        codes, names = pd.factorize(values.astype(object), sort=True)
        is_blank = np.array([not name.strip() for name in names])
        _refuse(values, is_blank[codes], "the ID is blank")
        return codes.astype(np.int32), tuple(map(str, names))
    if kind != "integer":
        are_strings = [isinstance(value, str) for value in values]
        _refuse(values, are_strings, "is a string, and others are not: expected IDs of one type")
        raise ValueError(f"column {column.name} has values of type {column.dtype}: expected whole numbers or strings")
    range_of = np.iinfo(np.int64)
    outside = (values > range_of.max) | (values < range_of.min)
    _refuse(values, outside, "does not fit into an ID of 64 bits: convert the IDs to strings")
    codes, numbers = pd.factorize(values.to_numpy(dtype=np.int64), sort=True)
    return codes.astype(np.int32), np.array(numbers)


def _ratings(column: "pd.Series[Any]") -> NDArray[np.float32]:
    """Return (n,) ratings, NaN for none."""
    ratings = _numbers(column, "a rating")
    with np.errstate(over="ignore"):
        small = ratings.astype(np.float32)
    _refuse(column, np.isinf(small), "is not a finite rating of 32 bits")
    if times.are_whole_times(ratings[~np.isnan(ratings)]):
        raise ValueError(f"column {column.name}: all ratings look like times: name it as the time")
    return small


def _times(column: "pd.Series[Any]") -> NDArray[np.float64]:
    """Return (n,) times, those with a date in seconds since 1970; NaN for none."""
    if not pd.api.types.is_datetime64_any_dtype(column.dtype):
        times = _numbers(column, "a time; pandas.to_datetime makes times of strings")
        _refuse(column, np.isinf(times), "is not a time")
        return times
    naive = column if column.dt.tz is None else column.dt.tz_convert(None)
    seconds = (naive - pd.Timestamp(0)) / pd.Timedelta(seconds=1)
    return np.array(seconds, dtype=np.float64)


def _numbers(column: "pd.Series[Any]", expected: str) -> NDArray[np.float64]:
    """Return (n,) numbers, NaN for missing ones."""
    if pd.api.types.is_bool_dtype(column.dtype) or pd.api.types.is_datetime64_any_dtype(column.dtype):
        raise ValueError(f"column {column.name} has values of type {column.dtype}: expected {expected}")
    numbers = pd.to_numeric(column, errors="coerce")
    _refuse(column, numbers.isna() & ~column.isna(), f"is not a number: expected {expected}")
    return np.array(numbers.to_numpy(dtype=np.float64, na_value=np.nan))


def _parts(column: "pd.Series[Any]") -> NDArray[np.int8]:
    """Return the set of each interaction: (n,)."""
    parts = column.map(PARTS)
    _refuse(column, parts.isna(), f"is not the name of a set: {EXPECTED}")
    return np.array(parts, dtype=np.int8)


def _titles(column: "pd.Series[Any]", items: NDArray[np.int32], names: Ids) -> tuple[str, ...]:
    """Return the first title of each item, or its ID where all are missing."""
    firsts = pd.Series(column.to_numpy(dtype=object)).groupby(items).first()
    titles = [str(name) for name in names]
    for row, title in firsts.items():
        if not pd.isna(title):
            titles[int(str(row))] = str(title)
    return tuple(titles)


def _refuse(column: "pd.Series[Any]", wrong: Any, problem: str) -> None:
    """Raise ValueError with this problem for the first value under a mask."""
    places = np.flatnonzero(np.asarray(wrong, dtype=bool))
    if len(places):
        place = int(places[0])
        value = "" if pd.isna(column.iloc[place]) else f" '{column.iloc[place]}'"
        raise ValueError(f"row {column.index[place]}, column {column.name}:{value} {problem}")
