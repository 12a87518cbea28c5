"""Ratings that were read once, in a form that is read in seconds: ids of four bytes, ratings of one where they fit.

A cache file is an archive of numpy's (``.npz``), whose checksums show damage. It holds what it was made from: the
sources' names, sizes and times of change, and what was asked for. Where that is no longer so, or the file is damaged,
the ratings are read anew.
"""

import hashlib
import json
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from cli.files import check_folder, write_whole
from datasets.source import CodedRatings, Ids

FORMAT = 1
PART = 2**22


def through(folder: Path, sources: Sequence[Path], asked: str, make: Callable[[], CodedRatings]) -> CodedRatings:
    """The ratings from the cache, or from ``make`` where it has none that holds; then they are in it afterwards.

    Args:
        folder: for the cache.
        sources: the files that the ratings come from.
        asked: everything else that they depend on.
    """
    key = [FORMAT, asked, *([str(each.resolve()), (at := each.stat()).st_size, at.st_mtime_ns] for each in sources)]
    name = hashlib.sha256(repr([asked, *(str(each.resolve()) for each in sources)]).encode()).hexdigest()[:12]
    path = folder / "cache" / f"{sources[0].name}.{name}.npz"
    if (kept := load(path, key)) is not None:
        return kept
    ratings = make()
    try:
        check_folder(path.parent)
        save(path, key, ratings)
    except OSError as error:
        print(f"the ratings are not kept for the next start: {error}", file=sys.stderr)
    return ratings


def save(path: Path, key: list[Any], ratings: CodedRatings) -> None:
    """Write a cache file, whole.

    Raises:
        OSError: it cannot be written.
    """
    levels, stars = _levels(ratings.ratings)
    about = {"key": key, "names": ratings.names, "repeated": ratings.repeated}
    arrays = {
        "about": np.frombuffer(json.dumps(about).encode(), dtype=np.uint8),
        "user_ids": ratings.user_ids,
        "item_ids": ratings.item_ids,
        "levels": levels,
        "ratings": stars,
        "users": _packed(ratings.users),
        "items": _packed(ratings.items),
        "titles": _packed(ratings.titles),
    }
    write_whole(lambda file: np.savez(file, **arrays), path)


def load(path: Path, key: list[Any]) -> CodedRatings | None:
    """The ratings in a cache file, or None where it is not there, damaged, or made from something else."""
    try:
        with path.open("rb") as file, np.load(file, allow_pickle=False) as arrays:
            about = json.loads(arrays["about"].tobytes())
            if about["key"] != key:
                return None
            levels, stars = arrays["levels"], arrays["ratings"]
            return CodedRatings(
                arrays["user_ids"],
                arrays["item_ids"],
                levels[stars] if len(levels) else stars,
                _unpacked(arrays["users"]),
                _unpacked(arrays["items"]),
                tuple(_unpacked(arrays["titles"])),
                tuple(about["names"]),
                about["repeated"],
            )
    except FileNotFoundError:
        return None
    except Exception as error:  # whatever a damaged file makes of the reader
        print(f"{path} is damaged ({type(error).__name__}): reading the ratings anew", file=sys.stderr)
        return None


def _levels(ratings: Any) -> tuple[Any, Any]:
    """The different ratings and the place of each among them in a byte; no levels where there are too many."""
    parts = [ratings[start : start + PART] for start in range(0, len(ratings), PART)]
    levels = np.unique(np.concatenate([np.unique(part) for part in parts]))
    if len(levels) > 256:
        return levels[:0], ratings
    return levels, np.concatenate([np.searchsorted(levels, part).astype(np.uint8) for part in parts])


def _packed(ids: Ids | tuple[str, ...]) -> Any:
    """Numbers as they are; texts as the bytes of a JSON list."""
    return ids if isinstance(ids, np.ndarray) else np.frombuffer(json.dumps(ids).encode(), dtype=np.uint8)


def _unpacked(array: Any) -> Any:
    return array if array.dtype == np.int64 else tuple(json.loads(array.tobytes()))
