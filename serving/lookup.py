"""Look-up of users and items by ID, and of items by title.

Titles are found as people write them: "toy story", "The Matrix", "Matrix, The (1999)".
"""

import bisect
import difflib
import re
from collections.abc import Sequence

import torch
from torch import Tensor

from data import SourceIds

Id = int | str

SHOWN = 5  # titles in an error message
YEAR = re.compile(r"\s*\(\d{4}\)\s*$")
ARTICLE = re.compile(r"^(.*), (the|a|an|les?|la|il|das|der|die)$")


def ids_of(ids: SourceIds, rows: Tensor) -> list[int] | list[str]:
    """Return the IDs of rows."""
    if isinstance(ids, tuple):
        return [ids[row] for row in rows.tolist()]
    found: list[int] = ids[rows].tolist()
    return found


def row_of(ids: SourceIds, wanted: Id, kind: str) -> int:
    """Return the row of an ID.

    Raises:
        ValueError: there is no such ID.
    """
    if isinstance(ids, tuple):
        found = bisect.bisect_left(ids, str(wanted))
        if found < len(ids) and ids[found] == str(wanted):
            return found
        raise ValueError(f"{kind} {wanted!r} is not in the ratings: expected one of their IDs, for instance {ids[0]!r}")
    if re.fullmatch(r"-?\d{1,19}", str(wanted)) and abs(int(wanted)) < 2**63:
        found = int(torch.searchsorted(ids, int(wanted)))
        if found < len(ids) and ids[found] == int(wanted):
            return found
    raise ValueError(
        f"{kind} {wanted} is not in the ratings: expected an ID of their {kind}s, "
        f"which are whole numbers from {ids[0]} to {ids[-1]}"
    )


class Items:
    """Items by ID and title.

    Args:
        ids: the ID of each item, ascending.
        titles: the title of each item, with or without a year in parentheses; () if there are none.

    Attributes:
        today: the items of ratings that have changed since, so that a new item is told from a wrong ID; else None.
    """

    def __init__(self, ids: SourceIds, titles: Sequence[str]) -> None:
        self.ids = ids
        self.titles = titles
        self.today: Items | None = None
        self._rows: dict[str, list[int]] = {}  # by the plain form of the title, with and without the year
        for row, title in enumerate(titles):
            plain = _plain(title)
            for form in {plain, _plain(YEAR.sub("", title))} - {""}:
                self._rows.setdefault(form, []).append(row)

    def row(self, wanted: Id) -> int:
        """Return the row of the item with this title, or else this ID, or else this part of its title.

        The year may be missing, and the case of letters may differ.

        Raises:
            ValueError: there is no such item, it is new, or several items have the title; the message names some.
        """
        if self.today is None:
            return self._row(wanted)
        try:
            row = self.today.row(wanted)
        except ValueError:  # it may be an item that is no longer in the ratings
            return self._row(wanted)
        (own_id,) = ids_of(self.today.ids, torch.tensor([row]))
        try:
            return row_of(self.ids, own_id, "item")
        except ValueError:
            raise ValueError(f"item {wanted} is new since the run: the network has to be trained on first") from None

    def _row(self, wanted: Id) -> int:
        if not isinstance(wanted, str) or not self.titles:
            return row_of(self.ids, wanted, "item")
        plain = _plain(wanted)
        found = self._rows.get(plain, [])
        if len(found) == 1:
            return found[0]
        try:
            return row_of(self.ids, wanted, "item")
        except ValueError:
            pass
        if plain and not found:
            found = [row for row, title in enumerate(self.titles) if plain in _plain(title)]
        if len(found) == 1:
            return found[0]
        raise ValueError(self._several(wanted, found) if found else self._none(wanted))

    def _several(self, wanted: str, rows: list[int]) -> str:
        shown = zip(rows, ids_of(self.ids, torch.tensor(rows[:SHOWN])), strict=False)
        names = "; ".join(f"{self.titles[row]} (id {number})" for row, number in shown)
        more = f" and {len(rows) - SHOWN} more" if len(rows) > SHOWN else ""
        return f"{wanted!r} is in {len(rows)} titles: {names}{more}. Expected one of them, with its year, or its id"

    def _none(self, wanted: str) -> str:
        forms = difflib.get_close_matches(_plain(wanted), self._rows, n=3, cutoff=0.7)
        rows = dict.fromkeys(row for form in forms for row in self._rows[form])
        near = "; ".join(self.titles[row] for row in list(rows)[:3])
        hint = f"; similar: {near}" if near else ""
        return f"no title is {wanted!r}{hint}. Expected a title of the ratings, or a part of one"


def _plain(title: str) -> str:
    """Put a title in lower case, with single spaces, and with an article at its end moved to its start."""
    words = " ".join(title.casefold().split())
    year = YEAR.search(words)
    name = words[: year.start()] if year else words
    return ARTICLE.sub(r"\2 \1", name) + (year.group() if year else "")
