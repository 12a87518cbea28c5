"""Interactions, and their split into a training set and a test set.

    interactions = data.load("data")                             # MovieLens 100K; fetched on the first call, 5 MB
    train, test = data.random_train_test_split(interactions, 0.05, torch.Generator().manual_seed(0))

``datasets/`` is about the sources of the ratings.
"""

import hashlib
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import torch
from torch import Tensor

from datasets.ids import Ids
from datasets.ratings import Ratings
from datasets.source import DataSource, read_ratings
from datasets.synthetic import draw

if TYPE_CHECKING:
    import pandas as pd  # imported where it is used: it takes longer to import than MovieLens 100K to read

TRAINING, VALIDATION, TEST = range(3)  # the values of ``Interactions.parts``
SourceIds = Tensor | tuple[str, ...]  # of users or items: (n,) int64, or n strings


class ByUser(NamedTuple):
    """Interactions sorted by user: those of user i are at [offsets[i], offsets[i + 1])."""

    user_ids: Tensor  # (n,) int64, ascending
    item_ids: Tensor  # (n,) int64
    offsets: list[int]  # num_users + 1 positions


@dataclass(frozen=True, eq=False)
class Interactions:
    """Ratings of items by users: aligned 1-D tensors.

    Attributes:
        user_ids: (n,) int64 in [0, num_users).
        item_ids: (n,) int64 in [0, num_items).
        ratings: (n,) float32, NaN where an interaction has no rating; stars from 1 to 5 in MovieLens 100K.
        num_users, num_items: the numbers of all users and items, whether or not they occur in these interactions.
        source_user_ids, source_item_ids: the source's own ID of each: (num_users,) and (num_items,) int64, or as
            many strings where the source's IDs are not whole numbers; by default the IDs here.
        titles: the title of each item, or () where the source has none.
        times: (n,) float64 on the CPU, in seconds or the source's own unit, NaN where an interaction has no time;
            None where the source has no times.
        parts: (n,) int8 on the CPU, the source's own split: TRAINING, VALIDATION or TEST; None where it has none.

    Raises:
        ValueError: a tensor has another shape, type or range.
    """

    user_ids: Tensor
    item_ids: Tensor
    ratings: Tensor
    num_users: int
    num_items: int
    source_user_ids: SourceIds = field(default_factory=lambda: torch.empty(0, dtype=torch.int64))
    source_item_ids: SourceIds = field(default_factory=lambda: torch.empty(0, dtype=torch.int64))
    titles: tuple[str, ...] = ()
    times: Tensor | None = None
    parts: Tensor | None = None

    def __post_init__(self) -> None:
        for kind, count in (("user", self.num_users), ("item", self.num_items)):
            self._check_ids(kind, getattr(self, f"{kind}_ids"), count)
            source = getattr(self, f"source_{kind}_ids")
            shape = tuple(source.shape) if isinstance(source, Tensor) else (len(source),)
            if len(source) == 0:
                object.__setattr__(self, f"source_{kind}_ids", torch.arange(count))
            elif shape != (count,):
                raise ValueError(f"source_{kind}_ids has shape {shape}: expected ({count},)")
        if self.ratings.dtype != torch.float32 or bool(self.ratings.isinf().any()):
            raise ValueError(f"ratings must be finite float32 numbers, or NaN for none, not {self.ratings.dtype}")
        if self.titles and len(self.titles) != self.num_items:
            raise ValueError(f"there are {len(self.titles)} titles for {self.num_items} items")
        for name, column, dtype in (("times", self.times, torch.float64), ("parts", self.parts, torch.int8)):
            if column is not None and (column.dtype != dtype or column.shape != self.ratings.shape):
                raise ValueError(
                    f"{name} must be {dtype} of shape (n,) like ratings, not {column.dtype} of shape "
                    f"{tuple(column.shape)} beside {tuple(self.ratings.shape)}"
                )

    def _check_ids(self, kind: str, ids: Tensor, count: int) -> None:
        if ids.dtype != torch.int64 or ids.shape != self.ratings.shape or ids.dim() != 1:
            raise ValueError(
                f"{kind}_ids must be int64 of shape (n,) like ratings, "
                f"not {ids.dtype} of shape {tuple(ids.shape)} beside {tuple(self.ratings.shape)}"
            )
        if len(ids) > 0 and not (int(ids.min()) >= 0 and int(ids.max()) < count):
            raise ValueError(f"{kind}_ids reach from {ids.min()} to {ids.max()}: expected 0 to {count - 1}")

    def __len__(self) -> int:
        return len(self.ratings)

    def select(self, index: Tensor) -> "Interactions":
        """Return the interactions at the positions, or under the boolean mask, in ``index``."""
        times, parts = (None if column is None else column[index.cpu()] for column in (self.times, self.parts))
        return replace(
            self,
            user_ids=self.user_ids[index],
            item_ids=self.item_ids[index],
            ratings=self.ratings[index],
            times=times,
            parts=parts,
        )

    def to(self, device: torch.device | str) -> "Interactions":
        """Return the same interactions with the three aligned tensors on ``device``."""
        columns = {name: getattr(self, name).to(device) for name in ("user_ids", "item_ids", "ratings")}
        return replace(self, **columns)

    @cached_property
    def rated(self) -> Tensor:
        """Whether each interaction has a rating: (n,) bool."""
        return ~self.ratings.isnan()

    @cached_property
    def by_user(self) -> ByUser:
        """The interactions sorted by user, each user's in their order here; sorted once, then kept."""
        user_ids, order = torch.sort(self.user_ids, stable=True)
        ends = torch.bincount(self.user_ids.cpu(), minlength=self.num_users).cumsum(0)
        return ByUser(user_ids, self.item_ids[order], [0, *ends.tolist()])


def random_train_test_split(
    interactions: Interactions, test_fraction: float = 0.05, generator: torch.Generator | None = None
) -> tuple[Interactions, Interactions]:
    """Put every interaction at random into either the training set or the test set, and return these two.

    Args:
        test_fraction: share of the test set, in (0, 1); its size is rounded to the nearest whole number.
        generator: a CPU generator; by default torch's own.

    Raises:
        ValueError: the fraction is outside (0, 1), or leaves one of the sets empty.
    """
    if not 0 < test_fraction < 1:
        raise ValueError(f"test_fraction is {test_fraction}: expected a number between 0 and 1, as 0.05")
    test_size = round(test_fraction * len(interactions))
    if not 0 < test_size < len(interactions):
        empty = "test" if test_size == 0 else "training"
        raise ValueError(f"test_fraction {test_fraction} of {len(interactions)} ratings leaves the {empty} set empty")
    order = torch.randperm(len(interactions), generator=generator).to(interactions.user_ids.device)
    return interactions.select(order[test_size:]), interactions.select(order[:test_size])


def load(data_dir: Path | str = "data") -> Interactions:
    """Load MovieLens 100K: 100,000 ratings of 1 to 5 stars by 943 users of 1,682 movies, in the source's order.

    It comes from the first of these sources that works, and is checked against published digests: the unzipped folder
    ``ml-100k/`` or the archive ``ml-100k.zip`` in ``data_dir``; the wheel of RecBole 1.2.1 there, which carries the
    same ratings; GroupLens's server; the package index that pip is configured for. A download is kept in ``data_dir``.

    Args:
        data_dir: folder for the data, made when there is something to put into it.

    Raises:
        FileNotFoundError: no source works. The message gives the reason for each source, and the remedy.
        OSError: there is no data in ``data_dir``, and none can be put there.
    """
    return read(DataSource(data_dir=Path(data_dir)))


def read(source: DataSource) -> Interactions:
    """Read the ratings of a source; a line on stderr says how ratings other than MovieLens 100K were read.

    Raises:
        ValueError: something in the ratings is wrong; the message says where.
        OSError: the ratings are absent and cannot be fetched, or cannot be read.
    """
    return _interactions(read_ratings(source))


def from_frame(
    frame: "pd.DataFrame",
    user: str = "user",
    item: str = "item",
    rating: str | None = "rating",
    time: str | None = None,
    title: str | None = None,
    split: str | None = None,
) -> Interactions:
    """Make interactions from a pandas DataFrame with a row for each.

    Of the rows of one user and item the latest counts, or without times the last; a line on stderr counts the others.

    Args:
        frame: the rows.
        user, item: columns of the IDs, whole numbers or strings.
        rating: column of the ratings, NaN for an interaction without one; None if there are no ratings.
        time: column of the times, numbers or datetimes.
        title: column of the items' titles.
        split: column of the data's own split, "train", "validation" or "test" in each row.

    Raises:
        ValueError: a column is not there, or a value is missing or of a wrong type; the message names row and column.
    """
    from datasets import frame as frames

    return _interactions(frames.read(frame, user, item, rating, time, title, split))


def synthetic(
    num_users: int = 943, num_items: int = 1682, num_interactions: int = 100_000, seed: int = 0
) -> Interactions:
    """Draw ratings of MovieLens's shape and any size, see ``datasets.synthetic.draw``."""
    return _interactions(draw(num_users, num_items, num_interactions, seed))


def fingerprint(train: Interactions, test: Interactions, validation: Interactions | None = None) -> str:
    """Return the SHA-256 of the ratings and their split."""
    sha256 = hashlib.sha256()
    for part in (train, test) if validation is None else (train, test, validation):
        for column in (part.user_ids, part.item_ids, part.ratings):
            sha256.update(column.cpu().numpy().data)
    return sha256.hexdigest()


def _interactions(ratings: Ratings) -> Interactions:
    return Interactions(
        torch.from_numpy(ratings.user_ids).long(),
        torch.from_numpy(ratings.item_ids).long(),
        torch.from_numpy(ratings.ratings),
        len(ratings.users),
        len(ratings.items),
        _as_tensor(ratings.users),
        _as_tensor(ratings.items),
        ratings.titles,
        torch.from_numpy(ratings.times) if len(ratings.times) else None,
        torch.from_numpy(ratings.parts) if len(ratings.parts) else None,
    )


def _as_tensor(ids: Ids) -> SourceIds:
    return ids if isinstance(ids, tuple) else torch.from_numpy(ids)
