"""Times of interactions: the names of their columns, and times as numbers that can be compared.

Seconds since 1970 and fractions of them stay as they are, because times are compared with those of their own file only.
"""

import datetime
import re
from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

# The usual names, in lower case and without anything but letters and digits. The first one in a header counts.
NAMES = (
    "timestamp", "unixtimestamp", "unixtime", "unixreviewtime", "ts", "datetime", "time", "date", "reviewtime",
    "reviewdate", "ratingtime", "ratingdate", "ratedat", "createdat", "eventtime", "dateadded", "timestampms",
)  # fmt: skip
EXPECTED = "expected seconds or milliseconds since 1970, or a date like 2024-05-31 or 2024-05-31T18:30:00Z"
UNITS = (1, 10**3, 10**6, 10**9)  # in a second: milliseconds, microseconds and nanoseconds
FIRST, LAST = 631_152_000, 4_102_444_800  # the starts of 1990 and of 2100 in UTC, in seconds since 1970


class TimeColumn(NamedTuple):
    """A column of times."""

    place: int  # its position, from 0
    name: str  # in messages
    dated: bool  # whether it holds dates in ISO 8601 instead of numbers


def find(header: Sequence[str], others: Sequence[int]) -> int | None:
    """Return the place of the column with a usual name, except ``others``; None where there is none.

    Args:
        header: the plain names of all columns.
    """
    for name in NAMES:
        if name in header and header.index(name) not in others:
            return header.index(name)
    return None


def is_date(cell: str) -> bool:
    """Return whether a cell begins with a date in ISO 8601, and has at most a time of day behind it."""
    if not re.fullmatch(r"\d{4}-\d\d-\d\d([T ]\d\d.*)?", cell):
        return False
    try:
        datetime.date.fromisoformat(cell[:10])
    except ValueError:
        return False
    return True


def are_whole_times(values: NDArray[np.float64]) -> bool:
    """Return whether all values can be times from 1990 to 2099: whole seconds since 1970, or fractions of them."""
    if len(values) == 0 or not (values == np.floor(values)).all():
        return False
    return any(bool(((values >= unit * FIRST) & (values < unit * LAST)).all()) for unit in UNITS)


def have_several_units(values: NDArray[np.float64]) -> bool:
    """Return whether all values can be times from 1990 to 2099, but in different units; NaN is none."""
    known = values[~np.isnan(values)]
    in_unit = [(known >= unit * FIRST) & (known < unit * LAST) for unit in UNITS]
    return sum(bool(found.any()) for found in in_unit) > 1 and bool(np.logical_or.reduce(in_unit).all())


def are_times(cells: Sequence[str]) -> bool:
    """Return whether the cells of a column, one at least, are all times, as dates or as ``are_whole_times``."""
    if cells and all(map(is_date, cells)):
        return True
    return all(re.fullmatch(r"\d{9,19}(\.0*)?", cell) for cell in cells) and are_whole_times(
        np.array(list(map(float, cells)))
    )


def numbers(cells: Any, dated: bool) -> tuple[NDArray[np.float64], int | None]:
    """Return the times as numbers, and the position of the first cell that is not a time, if there is one.

    Args:
        cells: strings, or numbers where these were told from strings already; a missing one is None or NaN.
        dated: whether they are dates. A date without a time zone is in UTC.
    """
    import pandas as pd

    values = pd.Series(cells)
    if values.dtype == bool or (dated and pd.api.types.is_numeric_dtype(values.dtype)):
        values = values.map(str, na_action="ignore")
    if dated:
        dates = pd.to_datetime(values, format="ISO8601", utc=True, errors="coerce")
        found = ((dates - pd.Timestamp(0, tz="UTC")) / pd.Timedelta(seconds=1)).to_numpy(dtype=np.float64)
    else:
        found = pd.to_numeric(values, errors="coerce").to_numpy(dtype=np.float64, na_value=np.nan)
    wrong = ~np.isfinite(found) & values.notna().to_numpy()
    return found.astype(np.float64), int(wrong.argmax()) if wrong.any() else None
