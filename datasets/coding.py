"""Ids of any kind as numbers from 0, in the order of the source's ids; and of pairs that come twice, the last."""

from typing import Any

import numpy as np
from numpy.typing import NDArray

from datasets.source import CodedRatings, Ids


class Column:
    """The ids of one column, gathered block by block."""

    def __init__(self, text: bool) -> None:
        self.text = text
        self._parts: list[NDArray[Any]] = []
        self._codes: dict[str, int] = {}

    def add(self, values: Any) -> None:
        """A block's ids: int64, or texts."""
        if not self.text:
            ids = np.asarray(values, dtype=np.int64)
            small = len(ids) == 0 or (ids.min() >= -(2**31) and ids.max() < 2**31)
            self._parts.append(ids.astype(np.int32) if small else ids)
            return
        import pandas as pd

        codes, names = pd.factorize(values)
        new = [self._codes.setdefault(str(name), len(self._codes)) for name in names]
        self._parts.append(np.array(new, dtype=np.int32)[codes])

    def finish(self) -> tuple[NDArray[np.int32], Ids]:
        """(n,) codes, and the id of each code in ascending order."""
        ids = np.concatenate(self._parts)
        self._parts.clear()
        if self.text:
            names = sorted(self._codes)
            place = np.empty(len(names), dtype=np.int32)
            place[[self._codes[name] for name in names]] = np.arange(len(names), dtype=np.int32)
            return place[ids], tuple(names)
        least, most = int(ids.min()), int(ids.max())
        if most - least > 4 * len(ids) + 2**20:  # too far apart for a table
            source, codes = np.unique(ids, return_inverse=True)
            return codes.astype(np.int32), source.astype(np.int64)
        ids = ids - ids.dtype.type(least)
        there = np.zeros(most - least + 1, dtype=bool)
        there[ids] = True
        place = np.cumsum(there, dtype=np.int32) - np.int32(1)
        return place[ids], np.flatnonzero(there) + least


def finish(users: Column, items: Column, ratings: list[NDArray[np.float32]], names: tuple[str, ...]) -> CodedRatings:
    """All ratings of a file, each pair once: the last one counts."""
    user_ids, source_users = users.finish()
    item_ids, source_items = items.finish()
    values = np.concatenate(ratings)
    pairs = user_ids.astype(np.int64) * len(source_items) + item_ids
    ordered = np.sort(pairs)
    repeated = int((ordered[1:] == ordered[:-1]).sum())
    del ordered
    if repeated:
        order = np.argsort(pairs, kind="stable")
        last = np.ones(len(pairs), dtype=bool)
        last[order[:-1]] = pairs[order[:-1]] != pairs[order[1:]]
        user_ids, item_ids, values = user_ids[last], item_ids[last], values[last]
    return CodedRatings(user_ids, item_ids, values, source_users, source_items, (), names, repeated)
