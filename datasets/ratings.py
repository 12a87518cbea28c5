"""Ratings as arrays with consecutive indices instead of the source's IDs, and their cache files."""

import hashlib
import json
import re
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from cli.files import check_folder, write_whole

Ids = NDArray[np.int64] | tuple[str, ...]
CACHE_FORMAT = 4
WHOLE = re.compile(r"0|-?[1-9][0-9]{0,18}")
PART = 2**22  # ratings that are sorted at a time, to save memory


class Ratings(NamedTuple):
    """The ratings of one source, in its order; each pair of a user and an item occurs once."""

    user_ids: NDArray[np.int32]  # (n,) indices into ``users``
    item_ids: NDArray[np.int32]  # (n,) indices into ``items``
    ratings: NDArray[np.float32]  # (n,) NaN for an interaction without a rating
    users: Ids  # the source's ID of each index, in ascending order
    items: Ids
    titles: tuple[str, ...] = ()  # of each item; () where the source has none
    columns: tuple[
        str, ...
    ] = ()  # the names of the source's columns for the user, the item, the rating and the time, if any
    repeated: int = 0  # the number of ratings dropped because a later one has the same user and item
    by_time: bool = False  # whether later means a later time, and not only a later line
    times: NDArray[np.float64] = np.empty(0)  # (n,) NaN for none; (0,) where the source has no times
    parts: NDArray[np.int8] = np.empty(0, np.int8)  # (n,) the source's own split, see ``data.TEST``; (0,) for none


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


def gather(
    users: IdColumn,
    items: IdColumn,
    parts: Sequence[NDArray[np.float32]],
    columns: tuple[str, ...],
    times: Sequence[NDArray[np.float64]] = (),
) -> Ratings:
    """Put the blocks of a source together; of the ratings of one pair, the latest counts.

    Args:
        times: the time of each rating, NaN for none; () where the order in the source decides, as between equal times.
    """
    user_ids, source_users = users.finish()
    item_ids, source_items = items.finish()
    ratings = np.concatenate(parts)
    pairs = user_ids.astype(np.int64) * len(source_items) + item_ids
    ordered = np.sort(pairs)
    repeated = int((ordered[1:] == ordered[:-1]).sum())
    del ordered
    if repeated:
        when = np.concatenate(times) if times else np.zeros(len(pairs))
        order = np.lexsort((np.where(np.isnan(when), -np.inf, when), pairs))  # stable
        last = np.ones(len(pairs), dtype=bool)
        last[order[:-1]] = pairs[order[:-1]] != pairs[order[1:]]
        user_ids, item_ids, ratings = user_ids[last], item_ids[last], ratings[last]
    return Ratings(user_ids, item_ids, ratings, source_users, source_items, (), columns, repeated, bool(times))


def cached(folder: Path, sources: Sequence[Path], options: str, read: Callable[[], Ratings]) -> Ratings:
    """Return the ratings from their cache file, or read them and write it.

    A cache file, in ``folder/cache``, notes the sources' paths, sizes and times of change, and the options, which are
    everything else that the ratings depend on. It is written again where one of them differs, and where it is damaged.
    """
    paths = [str(path.resolve()) for path in sources]
    stats = [path.stat() for path in sources]
    key = repr([options, paths, [(stat.st_size, stat.st_mtime_ns) for stat in stats]])
    name = hashlib.sha256(repr([CACHE_FORMAT, options, paths]).encode()).hexdigest()[:12]
    path = folder / "cache" / f"{sources[0].name}.{name}.npz"
    if (kept := _load(path, key)) is not None:
        return kept
    ratings = read()
    try:
        check_folder(path.parent)
        _save(path, key, ratings)
    except OSError as error:
        print(f"the ratings are not kept for the next start: {error}", file=sys.stderr)
    return ratings


def _save(path: Path, key: str, ratings: Ratings) -> None:
    """Write an archive of numpy's, whose checksums show damage; ratings take a byte each where that is enough."""
    arrays: dict[str, Any] = {name: _packed(value) for name, value in ratings._asdict().items()}
    parts = [ratings.ratings[start : start + PART] for start in range(0, len(ratings.ratings), PART)]
    levels = np.unique(np.concatenate([np.unique(part) for part in parts]))
    if len(levels) <= 256:
        arrays["ratings"] = np.concatenate([np.searchsorted(levels, part).astype(np.uint8) for part in parts])
        arrays["levels"] = levels
    write_whole(lambda file: np.savez(file, key=_packed(key), **arrays), path)


def _load(path: Path, key: str) -> Ratings | None:
    """Return the ratings in a cache file, or None where it is absent, damaged, or made from something else."""
    try:
        with path.open("rb") as file, np.load(file, allow_pickle=False) as arrays:
            if _unpacked(arrays["key"]) != key:
                return None
            fields = {name: _unpacked(arrays[name]) for name in Ratings._fields if name != "ratings"}
            ratings = arrays["ratings"]
            return Ratings(ratings=arrays["levels"][ratings] if ratings.dtype == np.uint8 else ratings, **fields)
    except FileNotFoundError:
        return None
    except Exception as error:  # a damaged file can make the reader raise anything
        print(f"{path} is damaged ({type(error).__name__}): reading the ratings again", file=sys.stderr)
        return None


def _packed(value: Any) -> NDArray[Any]:
    """Return an array as it is, and anything else as the bytes of its JSON."""
    return value if isinstance(value, np.ndarray) else np.frombuffer(json.dumps(value).encode(), dtype=np.uint8)


def _unpacked(array: NDArray[Any]) -> Any:
    if array.dtype != np.uint8:
        return array
    value = json.loads(array.tobytes())
    return tuple(value) if isinstance(value, list) else value
