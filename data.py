"""Interactions, and their split into a training and a test side.

    interactions = data.load("data")                             # MovieLens 100K; fetched on the first call, 5 MB
    train, test = data.random_train_test_split(interactions, 0.05, torch.Generator().manual_seed(0))

Where ratings come from is the subject of ``datasets/``.
"""

import argparse
import hashlib
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from datasets import choice, movielens
from datasets import synthetic as synthetic_ratings
from datasets.source import CodedRatings, Ids, SourceRatings


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
        source_user_ids, source_item_ids: the source's own id of each: (num_users,) and (num_items,) int64, or as
            many texts where the source's ids are no whole numbers; by default the ids themselves.
        titles: each item's title, or () where the source has none.

    Raises:
        ValueError: the tensors are not of these shapes, types and ranges.
    """

    user_ids: Tensor
    item_ids: Tensor
    ratings: Tensor
    num_users: int
    num_items: int
    source_user_ids: Tensor | tuple[str, ...] = field(default_factory=lambda: torch.empty(0, dtype=torch.int64))
    source_item_ids: Tensor | tuple[str, ...] = field(default_factory=lambda: torch.empty(0, dtype=torch.int64))
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
            elif len(source) != count or (isinstance(source, Tensor) and source.dim() != 1):
                shape = tuple(source.shape) if isinstance(source, Tensor) else (len(source),)
                raise ValueError(f"source_{kind}_ids has shape {shape}: expected ({count},)")
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
    return _with_contiguous_ids(movielens.load(Path(data_dir)))


def from_flags(options: argparse.Namespace) -> Interactions:
    """The ratings that a command's flags choose, see ``datasets.choice.add_flags``, and ``--data_dir``.

    What was understood of ratings other than MovieLens 100K is said on stderr in one line.

    Raises:
        ValueError: the flags do not go together, or something in the ratings is wrong; the message says where.
        OSError: the ratings are not there, and cannot be fetched.
    """
    choice.check(options)
    if options.ratings is not None:
        return _coded(choice.own(options.ratings, options.columns, options.titles, options.data_dir))
    if options.dataset != choice.DEFAULT:
        return _coded(choice.release(options.dataset, options.data_dir))
    return load(options.data_dir)


def read(source: Any) -> Interactions:
    return from_flags(source)


def synthetic(
    num_users: int = 943, num_items: int = 1682, num_interactions: int = 100_000, seed: int = 0
) -> Interactions:
    """Ratings with MovieLens's shape, at any size, by ``datasets.synthetic.draw``.

    Args:
        num_users, num_items: how many there are; a few may have no rating.
        num_interactions: how many ratings, at most a quarter of all pairs.
        seed: the same seed gives the same ratings.

    Raises:
        ValueError: there are not enough pairs.
    """
    users, items, ratings, _ = synthetic_ratings.draw(num_users, num_items, num_interactions, seed)
    return Interactions(
        torch.from_numpy(users), torch.from_numpy(items), torch.from_numpy(ratings), num_users, num_items
    )


def fingerprint(train: Interactions, test: Interactions) -> str:
    """SHA-256 of the ratings and their split."""
    sha256 = hashlib.sha256()
    for side in (train, test):
        for column in (side.user_ids, side.item_ids, side.ratings):
            sha256.update(column.cpu().numpy().data)
    return sha256.hexdigest()


def _with_contiguous_ids(source: SourceRatings) -> Interactions:
    """Interactions whose ids are 0, 1, … in the order of the source's ids."""
    source_users, user_ids = np.unique(source.users, return_inverse=True)
    source_items, item_ids = np.unique(source.items, return_inverse=True)
    return Interactions(
        torch.from_numpy(user_ids),
        torch.from_numpy(item_ids),
        torch.from_numpy(source.ratings),
        len(source_users),
        len(source_items),
        torch.from_numpy(source_users),
        torch.from_numpy(source_items),
        tuple(source.title_of[item] for item in source_items.tolist()) if source.title_of else (),
    )


def _coded(ratings: CodedRatings) -> Interactions:
    """Interactions of ratings whose ids are 0, 1, … already."""

    def ids(source: Ids) -> Tensor | tuple[str, ...]:
        return source if isinstance(source, tuple) else torch.from_numpy(source)

    return Interactions(
        torch.from_numpy(ratings.user_ids).long(),
        torch.from_numpy(ratings.item_ids).long(),
        torch.from_numpy(ratings.ratings),
        len(ratings.users),
        len(ratings.items),
        ids(ratings.users),
        ids(ratings.items),
        ratings.titles,
    )
