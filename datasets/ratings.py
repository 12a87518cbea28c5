"""Ratings as arrays with consecutive indices instead of the source's IDs."""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from datasets import ids
from datasets.ids import Ids

TRAINING, VALIDATION, TEST = range(3)  # the parts; where a pair is in several, the highest counts


class Ratings(NamedTuple):
    """The interactions of one source, in its order; in the end, each pair of a user and an item occurs once."""

    user_ids: NDArray[np.int32]  # (n,) indices into ``users``
    item_ids: NDArray[np.int32]  # (n,) indices into ``items``
    ratings: NDArray[np.float32]  # (n,) NaN for an interaction without a rating
    users: Ids  # the source's ID of each index, in ascending order
    items: Ids
    titles: tuple[str, ...] = ()  # of each item; () where the source has none
    columns: tuple[str, ...] = ()  # the source's columns for the user, the item, the rating and the time, as shown
    times: NDArray[np.float64] = np.empty(0)  # (n,) NaN for none; (0,) where the source has no times
    parts: NDArray[np.int8] = np.empty(0, np.int8)  # (n,) the source's own split, see ``data.TEST``; (0,) for none
    split_by: str = ""  # the source of the parts, as shown
    notes: tuple[str, ...] = ()  # the reasons why there are fewer interactions than lines, with the numbers of lines
    doubts: tuple[str, ...] = ()  # lines for stderr on columns in doubt or not read


def unite(each: Sequence[Ratings]) -> Ratings:
    """Put the interactions of several files one after the other, with the titles, columns and names of the first."""
    if len(each) == 1:
        return each[0]
    users, user_places = ids.unite([ratings.users for ratings in each])
    items, item_places = ids.unite([ratings.items for ratings in each])
    has_times = any(len(ratings.times) for ratings in each)
    times = [ratings.times if len(ratings.times) else np.full(len(ratings.ratings), np.nan) for ratings in each]
    return each[0]._replace(
        user_ids=np.concatenate([place[file.user_ids] for place, file in zip(user_places, each, strict=True)]),
        item_ids=np.concatenate([place[file.item_ids] for place, file in zip(item_places, each, strict=True)]),
        ratings=np.concatenate([ratings.ratings for ratings in each]),
        users=users,
        items=items,
        times=np.concatenate(times) if has_times else np.empty(0),
        parts=np.concatenate([ratings.parts for ratings in each]),
        notes=tuple(note for ratings in each for note in ratings.notes),
        doubts=tuple(doubt for ratings in each for doubt in ratings.doubts),
    )


def each_pair_once(ratings: Ratings) -> Ratings:
    """Keep one of the interactions of each pair of a user and an item.

    An interaction of the test set counts before one of the validation set, and this before one of the training set.
    Within a set the one with the latest time counts, and of equal times, or without times, the last one. An interaction
    without a time is older than all others.
    """
    pairs = ratings.user_ids.astype(np.int64) * len(ratings.items) + ratings.item_ids
    ordered = np.sort(pairs)
    repeated = int((ordered[1:] == ordered[:-1]).sum())
    del ordered
    if not repeated:
        return ratings
    by_time = len(ratings.times) > 0
    times = np.where(np.isnan(ratings.times), -np.inf, ratings.times) if by_time else np.zeros(len(pairs))
    parts = ratings.parts if len(ratings.parts) else np.zeros(len(pairs), np.int8)
    order = np.lexsort((times, parts, pairs))  # stable
    is_last = np.ones(len(pairs), dtype=bool)
    is_last[:-1] = pairs[order[:-1]] != pairs[order[1:]]
    kept = np.zeros(len(pairs), dtype=bool)
    kept[order[is_last]] = True
    of_pair = np.cumsum(is_last) - is_last  # for each place in the order, the number of the pair
    held_out = int((parts[order] != parts[order[is_last]][of_pair]).sum())
    notes = list(ratings.notes)
    if repeated > held_out:
        time = ratings.columns[3].removeprefix("time ") if len(ratings.columns) > 3 else "time"
        later = f"one with a later {'column ' * time.isdecimal()}{time}" if by_time else "a later one"
        notes.append(f"{repeated - held_out:,} more were of the same user and item as {later}")
    if held_out:
        notes.append(f"left out: {held_out:,} with the same user and item as one in the test or validation set")
    return ratings._replace(
        user_ids=ratings.user_ids[kept],
        item_ids=ratings.item_ids[kept],
        ratings=ratings.ratings[kept],
        times=ratings.times[kept] if by_time else ratings.times,
        parts=ratings.parts[kept] if len(ratings.parts) else ratings.parts,
        notes=tuple(notes),
    )
