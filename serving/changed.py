"""Ratings that have changed since a run, in the rows of its network: users and items are matched by their IDs."""

from dataclasses import replace
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from data import Interactions, SourceIds
from tracking.run_data import RunData
from training.rows import comparable, matched

SHOWN = 5  # new items in a line


class Changed(NamedTuple):
    """Ratings of today beside a run of earlier ones.

    Attributes:
        ratings: the ratings of the run's items, by the run's users and the new users.
        new_users: rows of the new users, ascending.
        notice: a line for the user with the numbers of new and of missing users and items.
    """

    ratings: Interactions
    new_users: list[int]
    notice: str


def match(then: RunData, now: Interactions, name: str) -> Changed:
    """Match the ratings of today with the users and items of a run; name: of their source, for the line."""
    users, items = _union(then.user_ids, now.source_user_ids), then.item_ids
    known_users, known_items = matched(users, then.user_ids), matched(items, now.source_item_ids)
    is_new_user = torch.ones(len(users), dtype=torch.bool)
    is_new_user[known_users.one] = False
    user_rows = torch.empty(now.num_users, dtype=torch.int64)
    of_today = matched(users, now.source_user_ids)
    user_rows[of_today.other] = of_today.one
    item_rows = torch.full((now.num_items,), -1)  # of new items
    item_rows[known_items.other] = known_items.one
    kept = now.select(item_rows[now.item_ids] >= 0)
    ratings = replace(
        kept,
        user_ids=user_rows[kept.user_ids],
        item_ids=item_rows[kept.item_ids],
        num_users=len(users),
        num_items=len(items),
        source_user_ids=users,
        source_item_ids=items,
        titles=_titles(items, now, item_rows),
    )
    new_users: list[int] = is_new_user.nonzero().squeeze(1).tolist()
    new_items = [called for called, row in zip(_names(now), item_rows.tolist(), strict=True) if row < 0]
    gone_users, gone_items = len(then.user_ids) + len(new_users) - now.num_users, len(items) - len(known_items.one)
    changes = [
        _counted(len(new_users), "new user", "folded in from their interactions"),
        _counted(len(new_items), "new item", f"not recommended: {_listed(new_items)}"),
        _counted(gone_users, "user", "no longer in it"),
        _counted(gone_items, "item", "no longer in it"),
    ]
    if then.rating_range and not bool(now.rated.any()):
        changes.append("its ratings are gone")
    said = ", ".join(filter(None, changes)) or "it has no new users or items"
    return Changed(ratings, new_users, f"{name} has changed since the run: {said}")


def _union(one: SourceIds, other: SourceIds) -> SourceIds:
    """Return the IDs of both lists, ascending."""
    union = np.union1d(*comparable(one, other))
    return tuple(union.tolist()) if union.dtype == object else torch.from_numpy(union)


def _names(ratings: Interactions) -> tuple[str, ...]:
    """Return the title of each item, or its ID where there are no titles."""
    ids = ratings.source_item_ids
    return ratings.titles or tuple(map(str, ids if isinstance(ids, tuple) else ids.tolist()))


def _titles(items: SourceIds, now: Interactions, item_rows: Tensor) -> tuple[str, ...]:
    """Return the title of each item of the run, or its ID if it is not in the ratings of today; () without titles."""
    if not now.titles:
        return ()
    titles = list(map(str, items if isinstance(items, tuple) else items.tolist()))
    for title, row in zip(now.titles, item_rows.tolist(), strict=True):
        if row >= 0:
            titles[row] = title
    return tuple(titles)


def _counted(count: int, noun: str, said: str) -> str:
    """Write "3 new users are folded in", or "" for none."""
    return f"{count:,} {noun}{'s are' if count > 1 else ' is'} {said}" if count else ""


def _listed(names: list[str]) -> str:
    return ", ".join(names[:SHOWN]) + (", …" if len(names) > SHOWN else "")
