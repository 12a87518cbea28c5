"""The IDs of users and items: as consecutive indices, and those of several files together."""

import re
from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

Ids = NDArray[np.int64] | tuple[str, ...]
WHOLE = re.compile(r"0|-?[1-9][0-9]{0,18}")


def is_whole(cell: str) -> bool:
    """Return whether a string is a whole number of 64 bits as a computer writes it."""
    return WHOLE.fullmatch(cell) is not None and -(2**63) <= int(cell) < 2**63


class IdColumn:
    """The IDs of one column, gathered block by block.

    Args:
        strings: whether they are strings instead of numbers.
        untyped: whether strings that are all plain whole numbers become numbers in the end.
    """

    def __init__(self, strings: bool = False, untyped: bool = False) -> None:
        self.strings = strings
        self.untyped = untyped
        self.has_blank = False  # whether one of the strings has nothing but blanks
        self._parts: list[NDArray[Any]] = []
        self._codes: dict[str, int] = {}

    def add(self, values: Any) -> None:
        """Add the IDs of a block: int64, or strings."""
        if not self.strings:
            ids = np.asarray(values, dtype=np.int64)
            small = len(ids) == 0 or (ids.min() >= -(2**31) and ids.max() < 2**31)
            self._parts.append(ids.astype(np.int32) if small else ids)
            return
        import pandas as pd

        codes, names = pd.factorize(values)
        self.has_blank = self.has_blank or not all(map(str.strip, map(str, names)))
        new = [self._codes.setdefault(str(name), len(self._codes)) for name in names]
        self._parts.append(np.array(new, dtype=np.int32)[codes])

    def finish(self) -> tuple[NDArray[np.int32], Ids]:
        """Return the (n,) indices, and the ID of each index in ascending order."""
        ids = np.concatenate(self._parts)
        self._parts.clear()
        if self.strings:
            are_whole = self.untyped and all(map(is_whole, self._codes))
            names = sorted(self._codes, key=int if are_whole else None)
            place = np.empty(len(names), dtype=np.int32)
            place[[self._codes[name] for name in names]] = np.arange(len(names), dtype=np.int32)
            return place[ids], np.array(list(map(int, names)), dtype=np.int64) if are_whole else tuple(names)
        least, most = int(ids.min()), int(ids.max())
        if most - least > 4 * len(ids) + 2**20:  # too far apart for a table
            source, codes = np.unique(ids, return_inverse=True)
            return codes.astype(np.int32), source.astype(np.int64)
        ids = ids - ids.dtype.type(least)
        present = np.zeros(most - least + 1, dtype=bool)
        present[ids] = True
        place = np.cumsum(present, dtype=np.int32) - np.int32(1)
        return place[ids], np.flatnonzero(present) + least


def unite(each: Sequence[Ids]) -> tuple[Ids, list[NDArray[np.int32]]]:
    """Return the IDs of several files in ascending order, and for each file the new index of each of its IDs.

    If the IDs of one file are strings, all are. A whole number is then the string that it was read from.
    """
    if len(each) == 1:
        return each[0], [np.arange(len(each[0]), dtype=np.int32)]
    numbers = [ids for ids in each if not isinstance(ids, tuple)]
    if len(numbers) == len(each):
        united = np.unique(np.concatenate(numbers))
        return united, [np.searchsorted(united, ids).astype(np.int32) for ids in numbers]
    strings = [ids if isinstance(ids, tuple) else tuple(map(str, ids.tolist())) for ids in each]
    names = tuple(sorted(set().union(*strings)))
    place = {name: index for index, name in enumerate(names)}
    return names, [np.array([place[name] for name in ids], dtype=np.int32) for ids in strings]
