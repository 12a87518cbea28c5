"""The interactions of a file, gathered block by block."""

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from datasets import columns, times
from datasets.ids import IdColumn
from datasets.layout import Layout
from datasets.parts import PartColumn
from datasets.ratings import Ratings

EXPECTED = "expected a line for each rating, with user, item and rating"


class Gathered:
    """The interactions of a file.

    Args:
        form: the layout of the file.
        users, items: empty columns of IDs.
        unrated: the ratings that mean that there is none.
    """

    def __init__(self, form: Layout, users: IdColumn, items: IdColumn, unrated: Sequence[float] = ()) -> None:
        self.form = form
        self.users = users
        self.items = items
        self.unrated = np.array(unrated, dtype=np.float32)
        self.part_column = None if form.places.part is None else PartColumn(form.names[form.places.part])
        self._zeros = 0  # counts of 0
        self._ratings: list[NDArray[np.float32]] = []
        self._times: list[NDArray[np.float64]] = []
        self._parts: list[NDArray[np.int8]] = []

    def add(
        self,
        users: Any,
        items: Any,
        ratings: NDArray[Any] | None,
        times: NDArray[np.float64] | None,
        parts: Any,
        line_of: Callable[[int], int],
    ) -> None:
        """Add a block, as aligned arrays; None for a column that the file does not have.

        Args:
            users, items: as for ``IdColumn.add``.
            ratings: finite, or NaN for none; counts are at least 0 and are not ratings, and a count of 0 is left out.
            times: NaN for none.
            parts: strings that may be names of sets.
            line_of: returns the line of the interaction at a position.
        """
        kept: NDArray[np.bool_] | slice = slice(None)
        if self.form.counts and ratings is not None:
            self._zeros += int((ratings == 0).sum())
            kept = ratings != 0
            ratings = None
        users = users[kept]
        self.users.add(users)
        self.items.add(items[kept])
        self._ratings.append(np.full(len(users), np.nan, np.float32) if ratings is None else ratings.astype(np.float32))
        if times is not None:
            self._times.append(times[kept])
        if self.part_column is not None:
            self._parts.append(self.part_column.read(parts, line_of)[kept])

    def finish(self, file: object, unit: str = "line") -> Ratings:
        """Return all interactions; a pair may still occur several times.

        Args:
            file: for messages.
            unit: "row" where the file has no lines.

        Raises:
            ValueError: there is no interaction, a set has a wrong name, or only the first values in column 3 are times.
        """
        if not self._ratings:
            raise ValueError(f"{file} has a header and nothing below it: {EXPECTED}")
        if not sum(map(len, self._ratings)):
            raise ValueError(f"{file}: all {self._zeros:,} counts are 0: expected a count above 0 for each interaction")
        found = np.concatenate(self._times) if self._times else np.empty(0)
        found = found if np.isfinite(found).any() else np.empty(0)
        if self.form.guessed and not self.form.dated and not times.are_whole_times(found[~np.isnan(found)]):
            problem = "column 3 holds times in the first lines, and other numbers below"
            raise ValueError(f"{file}: {problem}: {columns.ASK}")
        several_units = ""
        if times.have_several_units(found):
            name = self.form.columns[-1].removeprefix("time ")
            several_units = f"{file}, column {name}: has times in seconds and in fractions of them: they are not read"
            found = np.empty(0)
        parts, unread = self._finish_parts(file, unit)
        ratings = np.concatenate(self._ratings)
        notes = self._replace_unrated(ratings)
        user_ids, users = self.users.finish()
        item_ids, items = self.items.finish()
        return Ratings(
            user_ids,
            item_ids,
            ratings,
            users,
            items,
            columns=self.form.columns,
            times=found,
            parts=parts,
            split_by="" if self.part_column is None else f"column {self.part_column.name}",
            notes=notes,
            doubts=tuple(doubt for doubt in (self.form.note, several_units, unread) if doubt),
        )

    def _replace_unrated(self, ratings: NDArray[np.float32]) -> tuple[str, ...]:
        """Replace the ratings that are none by NaN, and return notes on them and on counts of 0."""
        notes = [f"left out: {self._zeros:,} with a count of 0"] if self._zeros else []
        if len(self.unrated):
            is_none = np.isin(ratings, self.unrated)
            ratings[is_none] = np.nan
            shown = " or ".join(f"{each:g}" for each in self.unrated)
            notes.append(f"no rating: {int(is_none.sum()):,} lines with {shown}")
        if self.form.unread:
            counts = [name for name in self.form.unread if columns.plain(name) in columns.COUNTS]
            remedy = "is a count, give option counts; if it is a rating, option columns"
            hint = f" (if {counts[0]} {remedy})" if counts else ""
            notes.append(f"not read: {', '.join(self.form.unread)[:200]}{hint}")
        return tuple(notes)

    def _finish_parts(self, file: object, unit: str) -> tuple[NDArray[np.int8], str]:
        """Return the sets, and the reason for not reading their column, if there is one."""
        if self.part_column is None:
            return np.empty(0, np.int8), ""
        if reason := self.part_column.reason_against(file, unit):
            return np.empty(0, np.int8), reason
        return np.concatenate(self._parts), ""
