"""Recommendations, predicted ratings and similar items of a trained network.

    recommender = Recommender.load("run/mine")          # or Recommender.of(trainer, interactions)
    print(recommender.recommend([42, 7], n=5))          # a DataFrame: user, rank, item, title, p, stars
    print(recommender.predict([42, 42], [1, 50]))       # a row for each pair: user, item, title, p, stars
    print(recommender.similar("Toy Story", n=5))
    print(recommender.recommend_new({"Toy Story": 5, "Heat": 2}, n=5))

Users and items are given by their IDs in the ratings, which are whole numbers or strings; items also by title. There
are no stars if the network was trained without ratings.
"""

import copy
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import pandas as pd
import torch
from torch import Tensor, nn

import train
from data import Interactions
from serving import saved, tables
from serving.loading import load_run
from serving.lookup import Id, Items, ids_of, row_of
from serving.new_users import NewUsers
from serving.quartiles import quartiles
from tracking.metric_table import History
from training import network, parts, setup
from training.evaluation import OWN_UNIT, fastest_scorer
from training.rehearsal import Rehearsal
from training.scale import Scale
from training.settings import Settings
from training.trainer import Trainer

BLOCK_SCORES, BLOCK_PAIRS = 2**20, 2**16  # scores, and pairs of users and items, in memory at a time


class Recommender:
    """A trained network with the interactions of its users and items.

    Args:
        model: any network that fits the contract, trained on a part of the interactions, on the CPU.
        ratings: all interactions; a user's own items are not recommended to that user.
        settings: the settings of the training; by default the homework's.
        make: the function that makes a network of the same class for other numbers of users and items. The ways of
            ranking are compared on such a network.
        scale: the unit of the network's predicted ratings; None if it was trained without ratings.
        new_users: rows of users without trained embeddings, which are folded in from their interactions.

    Attributes:
        scorer: the fastest way of ranking that agrees with ``forward``.
        notice: a line for the user if that is not the fast way, otherwise "".
        new_users: the users without trained embeddings.
        changes: a line for the user if the ratings of a loaded run have changed since the run, otherwise "".
        epochs: the number of epochs that a loaded run was trained.
    """

    def __init__(
        self,
        model: nn.Module,
        ratings: Interactions,
        settings: Settings | None = None,
        make: Callable[[int, int], nn.Module] | None = None,
        scale: Scale | None = OWN_UNIT,
        new_users: Sequence[int] = (),
    ) -> None:
        self.model = model.eval()
        self.ratings = ratings
        self.settings = settings or Settings()
        self.scale = scale
        rehearsal = Rehearsal(model, ratings.num_users, ratings.num_items, make)
        self.scorer, self.notice = fastest_scorer(model, ratings.num_items, rehearsal)
        self.changes = ""
        self.epochs = 0
        self._split: setup.Split | None = None
        self._source_ratings = ratings
        self._items = Items(ratings.source_item_ids, ratings.titles)
        self.new_users = NewUsers(self.scorer, ratings, self.settings, scale, new_users)

    @classmethod
    def load(
        cls,
        path: Path | str,
        options: Mapping[str, Any] | None = None,
        make: Callable[[int, int], nn.Module] | None = None,
    ) -> "Recommender":
        """Load the network of a run, from its folder, or a recommender that ``save`` wrote, from its file.

        A run recommends after its best epoch if it has a ``best.pt``, otherwise after its last. Its ratings are read
        again. If they have changed, users and items are matched by their IDs, and new users are folded in.

        Args:
            path: the run's folder, or the file.
            options: the options of the ratings in place of those that the run noted, by their names in
                ``datasets.source.DataSource``, for instance {"ratings": "moved.csv"}.
            make: makes the network of a file for a number of users and a number of items; by default that of models.py.

        Raises:
            ValueError, OSError: as for ``loading.load_run`` and ``saved.read``.
        """
        if Path(path).is_file():
            found = saved.read(Path(path), make)
            return cls(found.model, found.ratings, found.settings, found.make, found.scale)
        run = load_run(Path(path), options or {})
        make = partial(network.make, run.settings)
        recommender = cls(run.model, run.ratings, run.settings, make, run.scale, run.new_users)
        recommender.changes, recommender.epochs = run.notice, run.epochs
        if run.rating_range and not bool(run.ratings.rated.any()):
            recommender.new_users.lowest, recommender.new_users.highest = run.rating_range
        recommender._split, recommender._source_ratings = run.split, run.source_ratings
        if run.notice:
            recommender._items.today = Items(run.source_ratings.source_item_ids, run.source_ratings.titles)
        return recommender

    def save(self, path: Path | str) -> None:
        """Write the network and the interactions to a file for ``load``; OSError if that fails."""
        self.new_users.fold_in_all()
        saved.write(Path(path), self.model, self.ratings, self.settings, self.scale)

    @classmethod
    def of(cls, trainer: Trainer, interactions: Interactions, history: History | None = None) -> "Recommender":
        """Make a recommender of a network in training, which it copies.

        Args:
            trainer: the trainer of the network.
            interactions: all interactions, of the same users and items as the trainer's.
            history: the result of ``train.fit``. If a validation set chose an epoch, the network after it recommends.

        Raises:
            ValueError: the numbers of users and items differ, or the trainer has other epochs than the history.
        """
        if history is not None and trainer.epoch != history.trained:
            raise ValueError(
                f"the trainer has trained {trainer.epoch} epochs, and {history.trained} with this history: expected "
                "the trainer of the history, before it trains on"
            )
        sizes, own = ((each.num_users, each.num_items) for each in (interactions, trainer.train))
        if sizes != own:
            raise ValueError(
                f"there are {sizes[0]} users and {sizes[1]} items: expected those of the training set, "
                f"{own[0]} and {own[1]}"
            )
        with trainer.as_evaluated() if history is None else train.recommending(trainer, history):
            model = copy.deepcopy(trainer.model).cpu()
        return cls(model, interactions, trainer.settings, scale=trainer.scale if trainer.rates else None)

    @torch.no_grad()
    def recommend(self, users: Sequence[Id] | None = None, n: int = 10, include_seen: bool = False) -> pd.DataFrame:
        """Recommend to each user the n items with the highest p_ij, equation 1.

        Args:
            users: IDs; None for all users, in the order of their IDs.
            n: the number of items, at least 1. A user who rated nearly all items gets fewer.
            include_seen: whether to recommend the items that the user rated, too.

        Returns:
            A row for each item: user, rank from 1, item, title (if the ratings have titles), p, and stars: the
            predicted rating r̂_ij, equation 4, within the range of the ratings (if there are ratings).

        Raises:
            ValueError: n is below 1, or a user is not in the ratings.
        """
        _check_positive(n)
        rows = torch.arange(self.ratings.num_users) if users is None else self._users(users)
        self.new_users.fold_in(rows.tolist())
        frames = [
            self._best(block, self.scorer.predict_all_items(block), n, include_seen)
            for block in rows.split(max(1, BLOCK_SCORES // self.ratings.num_items))
        ]
        return pd.concat(frames, ignore_index=True)

    @torch.no_grad()
    def predict(self, users: Sequence[Id], items: Sequence[Id]) -> pd.DataFrame:
        """Predict p and stars for pairs of a user and an item.

        Args:
            users, items: IDs, one user per item; items also by title.

        Returns:
            A row for each pair: user, item, title (if the ratings have titles), p and stars, as in ``recommend``.

        Raises:
            ValueError: the numbers of users and items differ, or one of them is not in the ratings.
        """
        if len(users) != len(items):
            raise ValueError(f"there are {len(users)} users and {len(items)} items: expected an item for each user")
        rows, columns = self._users(users), torch.tensor([self.item(item) for item in items], dtype=torch.int64)
        self.new_users.fold_in(rows.tolist())
        frame = tables.of_items(self.ratings, columns)
        frame.insert(0, "user", ids_of(self.ratings.source_user_ids, rows))
        p, scores = torch.empty(len(rows)), torch.empty(len(rows))
        for start in range(0, len(rows), BLOCK_PAIRS):
            block = slice(start, start + BLOCK_PAIRS)
            p[block], scores[block] = self.scorer.pairs(rows[block], columns[block])
        frame["p"] = p.numpy()
        self._add_stars(frame, self.scale, scores, rows, columns)
        return frame

    @torch.no_grad()
    def similar(self, item: Id, n: int = 10) -> pd.DataFrame:
        """Find the n items whose embeddings of equation 1 have the largest cosine with this item's.

        Returns:
            A row for each item: item, title (if the ratings have titles), and similarity: the cosine, in [−1, 1].

        Raises:
            ValueError: n is below 1, no item or several items fit, or models.py has no table of items.
        """
        _check_positive(n)
        row = self.item(item)
        try:
            embeddings = parts.item_tables(self.model)["items"][: self.ratings.num_items]
        except LookupError as error:
            raise ValueError(f"there are no similar items: {error}") from None
        return tables.of_similar(self.ratings, embeddings, row, n)

    def recommend_new(self, rated: Mapping[Id, float | None] | Sequence[Id], n: int = 10) -> pd.DataFrame:
        """Recommend to a new user from a few interactions; see ``fold_in``.

        Args:
            rated: the rating of each item, by the item's ID or title. If the network was trained without ratings, a
                list of items; if some interactions have no rating, None is a rating, too.
            n: the number of items.

        Returns:
            A row for each item, as in ``recommend`` but without a user; the items given are left out.

        Raises:
            ValueError: there is no item, one is not in the ratings or given twice, or a rating is wrong or missing.
        """
        _check_positive(n)
        ratings = self.new_users.ratings_of(rated)
        items = [self.item(item) for item in ratings]
        if len(set(items)) < len(rated):
            raise ValueError("two of the rated items are the same item: expected each item once")
        found = self.new_users.best(torch.tensor(items), torch.tensor(list(ratings.values())), n)
        frame = tables.of_items(self.ratings, found.items)
        frame.insert(0, "rank", range(1, len(frame) + 1))
        frame["p"] = found.p.numpy()
        self._add_stars(frame, found.scale, found.scores, torch.zeros_like(found.items), found.items)
        return frame

    def quartiles(self, n: int = 10) -> pd.DataFrame:
        """Compute the test metrics by activity of the users and popularity of the items; see ``serving.quartiles``.

        Raises:
            ValueError: n is below 1, or there is no test set, because the recommender was not loaded from a run, or
                because its ratings have changed since.
        """
        _check_positive(n)
        if self.changes:
            raise ValueError("there is no test set any more, because the ratings have changed since the run")
        if self._split is None:
            raise ValueError("there is no test set: expected a run, loaded by Recommender.load")
        return quartiles(self.scorer, self._split.train, self._split.test, n, self.scale)

    def rated(self, user: Id, n: int = 10) -> pd.DataFrame:
        """Return the n items that a user rated highest, or without ratings the latest ones; see ``tables.of_user``."""
        self.user(user)
        return tables.of_user(self._source_ratings, user, n)

    def item(self, wanted: Id) -> int:
        """Return the row of an item, given by its title, or else its ID, or else a part of its title.

        Raises:
            ValueError: there is no such item, several items have the title, or the item is new since the run.
        """
        return self._items.row(wanted)

    def user(self, wanted: Id) -> int:
        """Return the row of a user, given by ID.

        Raises:
            ValueError: there is no such user.
        """
        return row_of(self.ratings.source_user_ids, wanted, "user")

    def _users(self, users: Sequence[Id]) -> Tensor:
        if isinstance(users, str | int):
            raise ValueError(f"users is {users!r}: expected a list of IDs")
        return torch.tensor([self.user(user) for user in users], dtype=torch.int64)

    def _best(self, users: Tensor, scores: Tensor, n: int, include_seen: bool) -> pd.DataFrame:
        if not include_seen:
            offsets, items = self.ratings.by_user.offsets, self.ratings.by_user.item_ids
            for row, user in enumerate(users.tolist()):
                scores[row, items[offsets[user] : offsets[user + 1]]] = -torch.inf
        best = scores.topk(min(n, scores.shape[1]))
        rows, places = (best.values > -torch.inf).nonzero(as_tuple=True)
        recommended = best.indices[rows, places]
        frame = tables.of_items(self.ratings, recommended)
        frame.insert(0, "user", ids_of(self.ratings.source_user_ids, users[rows]))
        frame.insert(1, "rank", places.numpy() + 1)
        frame["p"] = best.values[rows, places].numpy()
        scores = self.scorer.predict_ratings(users[rows], recommended)
        self._add_stars(frame, self.scale, scores, users[rows], recommended)
        return frame

    def _add_stars(
        self, frame: pd.DataFrame, scale: Scale | None, scores: Tensor, users: Tensor, items: Tensor
    ) -> None:
        """Add the predicted ratings to a table, unless the network was trained without ratings."""
        if scale is not None:
            stars = scale.from_units(scores, users, items)
            frame["stars"] = stars.clamp(self.new_users.lowest, self.new_users.highest).numpy()


def _check_positive(n: int) -> None:
    if n < 1:
        raise ValueError(f"the number of items is {n}: expected at least 1")
