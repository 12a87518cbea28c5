"""MovieLens 100K: getting it, checking it, reading it, splitting it; and synthetic ratings of the same shape.

    interactions = data.load("data")                             # fetched on the first call, 5 MB
    train, test = data.random_train_test_split(interactions, 0.05, torch.Generator().manual_seed(0))

The data set is described in F. M. Harper and J. A. Konstan, "The MovieLens Datasets: History and Context", ACM
Transactions on Interactive Intelligent Systems 5(4), 2015. Its licence forbids passing it on, so it is fetched.
"""

import contextlib
import hashlib
import io
import sys
import zipfile
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

import download


class ByUser(NamedTuple):
    """Interactions sorted by user: user i's lie at [offsets[i], offsets[i + 1])."""

    user_ids: Tensor  # (n,) int64, ascending
    item_ids: Tensor  # (n,) int64
    offsets: list[int]  # num_users + 1 positions


@dataclass(frozen=True, eq=False)
class Interactions:
    """Who rated what, and how: aligned 1-D tensors.

    Attributes:
        user_ids: (n,) int64 in [0, num_users).
        item_ids: (n,) int64 in [0, num_items).
        ratings: (n,) float32, finite; stars from 1 to 5 in MovieLens 100K.
        num_users, num_items: how many there are, whether or not these interactions name them all.
        source_user_ids, source_item_ids: (num_users,) and (num_items,) int64, the source's own id of each; by
            default the ids themselves.
        titles: each item's title, or () where the source has none.

    Raises:
        ValueError: the tensors are not of these shapes, types and ranges.
    """

    user_ids: Tensor
    item_ids: Tensor
    ratings: Tensor
    num_users: int
    num_items: int
    source_user_ids: Tensor = field(default_factory=lambda: torch.empty(0, dtype=torch.int64))
    source_item_ids: Tensor = field(default_factory=lambda: torch.empty(0, dtype=torch.int64))
    titles: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        for ids, count, source, kind in (
            (self.user_ids, self.num_users, self.source_user_ids, "user"),
            (self.item_ids, self.num_items, self.source_item_ids, "item"),
        ):
            if ids.dtype != torch.int64 or ids.shape != self.ratings.shape or ids.dim() != 1:
                raise ValueError(
                    f"{kind}_ids must be int64 of shape (n,) like ratings, "
                    f"not {ids.dtype} of shape {tuple(ids.shape)} beside {tuple(self.ratings.shape)}"
                )
            if len(ids) > 0 and not (int(ids.min()) >= 0 and int(ids.max()) < count):
                raise ValueError(f"{kind}_ids reach from {ids.min()} to {ids.max()}: expected 0 to {count - 1}")
            if len(source) == 0:
                object.__setattr__(self, f"source_{kind}_ids", torch.arange(count))
            elif source.shape != (count,):
                raise ValueError(f"source_{kind}_ids has shape {tuple(source.shape)}: expected ({count},)")
        if self.ratings.dtype != torch.float32 or not bool(self.ratings.isfinite().all()):
            raise ValueError(f"ratings must be finite float32 numbers, not {self.ratings.dtype}")
        if self.titles and len(self.titles) != self.num_items:
            raise ValueError(f"there are {len(self.titles)} titles for {self.num_items} items")

    def __len__(self) -> int:
        return len(self.ratings)

    def select(self, index: Tensor) -> "Interactions":
        """The interactions at the positions (or under the boolean mask) in ``index``; the maps stay."""
        return replace(self, user_ids=self.user_ids[index], item_ids=self.item_ids[index], ratings=self.ratings[index])

    def to(self, device: torch.device | str) -> "Interactions":
        """The same interactions with the three aligned tensors on ``device``."""
        return replace(
            self,
            user_ids=self.user_ids.to(device),
            item_ids=self.item_ids.to(device),
            ratings=self.ratings.to(device),
        )

    @cached_property
    def by_user(self) -> ByUser:
        """The interactions sorted by user, each user's in their order here. Sorted once, then kept."""
        user_ids, order = torch.sort(self.user_ids, stable=True)
        counts = torch.bincount(self.user_ids.cpu(), minlength=self.num_users)
        offsets = torch.cat([torch.zeros(1, dtype=torch.int64), counts.cumsum(0)])
        return ByUser(user_ids, self.item_ids[order], offsets.tolist())


def random_train_test_split(
    interactions: Interactions, test_fraction: float = 0.05, generator: torch.Generator | None = None
) -> tuple[Interactions, Interactions]:
    """Put every interaction at random into exactly one of two sides.

    Args:
        interactions: what to split.
        test_fraction: share of the test side, in (0, 1); its size is rounded to the nearest whole number.
        generator: a CPU generator; by default torch's own.

    Returns:
        train, test.

    Raises:
        ValueError: the fraction is outside (0, 1), or leaves one of the sides empty.
    """
    check_test_fraction(test_fraction)
    test_size = round(test_fraction * len(interactions))
    if not 0 < test_size < len(interactions):
        side = "test" if test_size == 0 else "training"
        raise ValueError(f"test_fraction {test_fraction} of {len(interactions)} ratings leaves the {side} side empty")
    order = torch.randperm(len(interactions), generator=generator).to(interactions.user_ids.device)
    return interactions.select(order[test_size:]), interactions.select(order[:test_size])


def check_test_fraction(test_fraction: float) -> None:
    """Raise ValueError unless the fraction is in (0, 1)."""
    if not 0 < test_fraction < 1:
        raise ValueError(f"test_fraction is {test_fraction}: expected a number between 0 and 1, as 0.05")


def synthetic(
    num_users: int = 943, num_items: int = 1682, num_interactions: int = 100_000, seed: int = 0
) -> Interactions:
    """Ratings with MovieLens's shape, at any size: skewed popularity and activity, and taste to be learned.

    Users and items get latent vectors. A pair is drawn by the user's activity and the item's popularity, both
    log-normal, and kept more often where the vectors agree, so that taste shows in what is watched; no pair comes
    twice. The rating is the agreement plus noise, cut so that 1 to 5 stars come in the shares of MovieLens 100K.

    Args:
        num_users, num_items: how many there are; a few may have no rating.
        num_interactions: how many ratings, at most a quarter of all pairs.
        seed: the same seed gives the same ratings.

    Raises:
        ValueError: there are not enough pairs.
    """
    if not 0 < num_interactions <= num_users * num_items // 4:
        raise ValueError(
            f"{num_interactions} ratings by {num_users} users of {num_items} items: "
            f"expected 1 to {num_users * num_items // 4}, a quarter of all pairs"
        )
    rng = np.random.default_rng(seed)
    user_taste, item_taste = rng.standard_normal((num_users, 8)), rng.standard_normal((num_items, 8))
    activity = np.cumsum(rng.lognormal(0.0, 1.0, num_users))
    popularity = np.cumsum(rng.lognormal(0.0, 1.7, num_items))
    pairs, drawn = np.empty(0, dtype=np.int64), list[NDArray[np.int64]]()
    while len(pairs) < num_interactions:
        while sum(map(len, drawn)) < 1.1 * num_interactions:
            users = np.searchsorted(activity, rng.random(2**18) * activity[-1], side="right")
            items = np.searchsorted(popularity, rng.random(2**18) * popularity[-1], side="right")
            agreement = np.einsum("nd,nd->n", user_taste[users], item_taste[items])
            kept = rng.random(2**18) < 1.0 / (1.0 + np.exp(-agreement))
            drawn.append(users[kept] * num_items + items[kept])
        pairs = np.unique(np.concatenate([pairs, *drawn]))
        drawn.clear()
    users, items = np.divmod(rng.permutation(pairs)[:num_interactions], num_items)
    liking = np.einsum("nd,nd->n", user_taste[users], item_taste[items]) + 2.0 * rng.standard_normal(num_interactions)
    shares = np.array([0.0611, 0.1137, 0.27145, 0.34174])  # of 1, 2, 3 and 4 stars in MovieLens 100K
    ratings = 1 + np.searchsorted(np.quantile(liking, np.cumsum(shares)), liking)
    return Interactions(
        torch.from_numpy(users), torch.from_numpy(items), torch.from_numpy(ratings.astype(np.float32)),
        num_users, num_items,
    )  # fmt: skip


class Archive(NamedTuple):
    """A published file that carries MovieLens 100K."""

    filename: str
    size: int  # bytes
    sha256: str
    ratings: str  # its member with a line a rating: user, item, rating, time
    titles: str  # its member with a line a movie
    read_titles: Callable[[bytes], dict[int, str]]
    header_lines: int


def _grouplens_titles(member: bytes) -> dict[int, str]:
    """u.item, described in the archive's README: Latin-1, id|title (year)|…"""
    rows = (line.split("|") for line in member.decode("latin-1").split("\n") if line.strip())
    return {int(row[0]): row[1].strip() for row in rows}


def _recbole_titles(member: bytes) -> dict[int, str]:
    """An atomic file of RecBole: UTF-8, a header, then id, title and year between tabs. Its one typo is undone."""
    rows = (line.split("\t") for line in member.decode("utf-8").split("\n")[1:] if line.strip())
    return {int(row[0]): "unknown" if row[1] == "unkonwn" else f"{row[1]} ({row[2]})" for row in rows}


GROUPLENS_URL = "https://files.grouplens.org/datasets/movielens/ml-100k.zip"
GROUPLENS = Archive(
    "ml-100k.zip",
    4_924_029,
    "50d2a982c66986937beb9ffb3aa76efe955bf3d5c6b761f4e3a7cd717c6a3229",
    "ml-100k/u.data",
    "ml-100k/u.item",
    _grouplens_titles,
    header_lines=0,
)
RECBOLE = Archive(
    "recbole-1.2.1-py3-none-any.whl",
    2_130_151,
    "9c9948202011f37eb0a7c6768129313f00d6403ad221ec940d5e2d5d5f33a407",
    "recbole/dataset_example/ml-100k/ml-100k.inter",
    "recbole/dataset_example/ml-100k/ml-100k.item",
    _recbole_titles,
    header_lines=1,
)
# Of the (user, item, rating) triples in the source's order and ids, as little-endian int32.
RATINGS_SHA256 = "360a20f6a6103988bcf221e50b873335450875d7b065b3fa26f3f8a0b34b9ca2"


def load(data_dir: Path | str = "data") -> Interactions:
    """MovieLens 100K: 100,000 ratings of 1 to 5 stars by 943 users of 1,682 movies, in the source's order.

    It comes from the first of these that works, and is checked against published digests whichever it is: the
    unzipped folder ``ml-100k/`` or the archive ``ml-100k.zip`` in ``data_dir``; the wheel of RecBole 1.2.1 there,
    which carries the same ratings; GroupLens's server; the package index that pip is configured for. What was
    fetched is kept in ``data_dir``.

    Args:
        data_dir: folder for the data, made when there is something to put into it.

    Returns:
        Interactions with 943 users and 1,682 items, titles included where the source has them.

    Raises:
        FileNotFoundError: no source works. The message says why, source by source, and what to do.
        OSError: there is no data in ``data_dir``, and none can be put there.
    """
    folder = Path(data_dir)
    here: dict[str, Callable[[], Interactions]] = {
        str(folder / "ml-100k"): lambda: _read_folder(folder / "ml-100k"),
        str(folder / GROUPLENS.filename): lambda: _read_archive(GROUPLENS, (folder / GROUPLENS.filename).read_bytes()),
        str(folder / RECBOLE.filename): lambda: _read_archive(RECBOLE, (folder / RECBOLE.filename).read_bytes()),
    }
    elsewhere: dict[str, Callable[[], Interactions]] = {
        GROUPLENS_URL: lambda: _keep(GROUPLENS, download.from_url(GROUPLENS_URL, GROUPLENS.size), folder),
        "pip download recbole==1.2.1": lambda: _keep(
            RECBOLE,
            download.from_package_index("recbole==1.2.1", RECBOLE.filename, RECBOLE.size, RECBOLE.sha256),
            folder,
        ),
    }
    failures: list[str] = []
    for name, read in {**here, **elsewhere}.items():
        if name == GROUPLENS_URL:
            download.check_folder(folder)
        try:
            interactions = read()
        except (OSError, ValueError) as error:
            reason = "not there" if name in here and isinstance(error, FileNotFoundError) else error
            failures.append(f"{name}: {' '.join(str(reason).split()) or type(error).__name__}")
        else:
            for failure in failures:
                if not failure.endswith(": not there"):
                    print(f"MovieLens 100K: passed over {failure}", file=sys.stderr)
            return interactions
    with contextlib.suppress(OSError):
        folder.rmdir()  # if it is empty, it was made for what did not come
    raise FileNotFoundError(
        "\n  ".join(["MovieLens 100K was not found. Tried:", *failures])
        + f"\nTo place it by hand, put {GROUPLENS_URL} at {folder / GROUPLENS.filename}"
    )


def _read_folder(folder: Path) -> Interactions:
    titles = folder / "u.item"
    return _interactions(GROUPLENS, (folder / "u.data").read_bytes(), titles.read_bytes() if titles.exists() else b"")


def _read_archive(archive: Archive, payload: bytes) -> Interactions:
    """Check an archive as a whole, then read its two members in memory: no path in it ever reaches the disk."""
    sha256 = hashlib.sha256(payload).hexdigest()
    if (len(payload), sha256) != (archive.size, archive.sha256):
        page = " (a web page; is there a login page in between?)" if payload.lstrip()[:1] == b"<" else ""
        raise ValueError(
            f"{len(payload):,} bytes with SHA-256 {sha256[:12]}…{page}, "
            f"expected {archive.size:,} with {archive.sha256[:12]}…"
        )
    with zipfile.ZipFile(io.BytesIO(payload)) as members:
        return _interactions(archive, members.read(archive.ratings), members.read(archive.titles))


def _interactions(archive: Archive, ratings: bytes, titles: bytes) -> Interactions:
    """Parse the two members; ids become contiguous in the order of the source's ids."""
    if not ratings.strip():
        raise ValueError("no ratings in the file")
    rows = np.loadtxt(io.BytesIO(ratings), dtype=np.int64, usecols=(0, 1, 2), skiprows=archive.header_lines, ndmin=2)
    if hashlib.sha256(rows.astype("<i4").tobytes()).hexdigest() != RATINGS_SHA256:
        raise ValueError(f"{len(rows):,} ratings that are not the 100,000 of MovieLens 100K")
    source_users, user_ids = np.unique(rows[:, 0], return_inverse=True)
    source_items, item_ids = np.unique(rows[:, 1], return_inverse=True)
    return Interactions(
        torch.from_numpy(user_ids),
        torch.from_numpy(item_ids),
        torch.from_numpy(rows[:, 2].astype(np.float32)),
        len(source_users),
        len(source_items),
        torch.from_numpy(source_users),
        torch.from_numpy(source_items),
        _titles(archive, titles, source_items.tolist()),
    )


def _titles(archive: Archive, member: bytes, source_items: list[int]) -> tuple[str, ...]:
    """The title of each item, or () with a warning: ratings are not given up for them."""
    try:
        title_of = archive.read_titles(member) if member else {}
        return tuple(title_of[item] for item in source_items) if title_of else ()
    except (ValueError, LookupError) as error:
        print(f"MovieLens 100K: no titles, because {archive.titles} is damaged: {error!r}", file=sys.stderr)
        return ()


def _keep(archive: Archive, payload: bytes, folder: Path) -> Interactions:
    """Read what was fetched and, now that it is known to be right, keep it in ``folder``."""
    interactions = _read_archive(archive, payload)
    download.store(payload, folder / archive.filename)
    return interactions
