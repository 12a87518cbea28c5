"""The cache files of ratings, which are read faster than their sources."""

import hashlib
import json
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from cli.files import check_folder, write_whole
from datasets.ratings import Ratings

FORMAT = 5
PART = 2**22  # ratings that are sorted at a time, to save memory


def cached(folder: Path, sources: Sequence[Path], options: str, read: Callable[[], Ratings]) -> Ratings:
    """Return the ratings from their cache file, or read them and write it.

    A cache file, in ``folder/cache``, notes the sources' paths, sizes and times of change, and the options, which are
    everything else that the ratings depend on. It is written again where one of them differs, and where it is damaged.
    """
    paths = [str(path.resolve()) for path in sources]
    stats = [path.stat() for path in sources]
    key = repr([options, paths, [(stat.st_size, stat.st_mtime_ns) for stat in stats]])
    name = hashlib.sha256(repr([FORMAT, options, paths]).encode()).hexdigest()[:12]
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
    """Write an archive of numpy's, whose checksums show damage; ratings and times are packed."""
    arrays: dict[str, Any] = {name: packed(value) for name, value in ratings._asdict().items()}
    parts = [ratings.ratings[start : start + PART] for start in range(0, len(ratings.ratings), PART)]
    levels = np.unique(np.concatenate([np.unique(part) for part in parts]))
    if len(levels) <= 256:
        arrays["ratings"] = np.concatenate([np.searchsorted(levels, part).astype(np.uint8) for part in parts])
        arrays["levels"] = levels
    if len(ratings.times) and _fits_int32(ratings.times):
        arrays["times"] = ratings.times.astype(np.int32)
    write_whole(lambda file: np.savez(file, key=packed(key), **arrays), path)


def _load(path: Path, key: str) -> Ratings | None:
    """Return the ratings in a cache file, or None where it is absent, damaged, or made from something else."""
    try:
        with path.open("rb") as file, np.load(file, allow_pickle=False) as arrays:
            if unpacked(arrays["key"]) != key:
                return None
            fields = {name: unpacked(arrays[name]) for name in Ratings._fields if name != "ratings"}
            ratings = arrays["ratings"]
            fields["times"] = fields["times"].astype(np.float64)
            return Ratings(ratings=arrays["levels"][ratings] if ratings.dtype == np.uint8 else ratings, **fields)
    except FileNotFoundError:
        return None
    except Exception as error:  # a damaged file can make the reader raise anything
        print(f"{path} is damaged ({type(error).__name__}): reading the ratings again", file=sys.stderr)
        return None


def _fits_int32(times: NDArray[np.float64]) -> bool:
    """Return whether times are whole numbers, as seconds since 1970 are; NaN is none."""
    return bool((np.abs(times) < 2**31).all()) and bool((times == np.floor(times)).all())


def packed(value: Any) -> NDArray[Any]:
    """Return an array as it is, and any other value as the bytes of its JSON."""
    return value if isinstance(value, np.ndarray) else np.frombuffer(json.dumps(value).encode(), dtype=np.uint8)


def unpacked(array: NDArray[Any]) -> Any:
    """Return the value of ``packed``, a list as a tuple."""
    if array.dtype != np.uint8:
        return array
    value = json.loads(array.tobytes())
    return tuple(value) if isinstance(value, list) else value
