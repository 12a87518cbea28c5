"""Recommendations, predicted ratings and similar items of a trained run.

    recommender = Recommender.load("run/mine")
    print(recommender.recommend([42, 7], n=5))          # a DataFrame: user, rank, item, title, p, stars
    print(recommender.predict([42, 42], [1, 50]))       # a row for each pair: user, item, title, p, stars
    print(recommender.similar("Toy Story", n=5))
    print(recommender.recommend_new({"Toy Story": 5, "Heat": 2}, n=5))

Users and items are given by their IDs in the ratings, which are whole numbers or strings; items also by title.
"""

import contextlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import partial
from pathlib import Path

import numpy as np
import pandas as pd
import torch
from torch import Tensor, nn

import data
from serving.fold_in import NewUser, fold_in
from serving.loading import load_run
from serving.lookup import Id, Items, ids_of, row_of
from serving.quartiles import quartiles
from training import network, parts, setup
from training.evaluation import Clamped, fastest_scorer
from training.rehearsal import Rehearsal

BLOCK_SCORES, BLOCK_PAIRS = 2**20, 2**16  # scores, and pairs of users and items, in memory at a time


class Recommender:
    """A trained network with the ratings of its users and items.

    Args:
        model: any network that fits the contract, trained on a part of the ratings, on the CPU.
        ratings: all ratings; the items that a user rated are not recommended.
        factorization_weight, regression_weight, temperature: λ_F, λ_R and T of the training.
        make: the function that makes a network of the same class for other numbers of users and items. The ways of
            ranking are compared on such a network.

    Attributes:
        scorer: the fastest way of ranking that agrees with ``forward``.
        notice: a line for the user if that is not the fast way, otherwise "".
        epochs: the number of epochs that a loaded run was trained.
    """

    def __init__(
        self,
        model: nn.Module,
        ratings: data.Interactions,
        factorization_weight: float = 0.99,
        regression_weight: float = 0.01,
        temperature: float = 1.0,
        make: Callable[[int, int], nn.Module] | None = None,
    ) -> None:
        self.model = model.eval()
        self.ratings = ratings
        self.factorization_weight = factorization_weight
        self.regression_weight = regression_weight
        self.temperature = temperature
        rehearsal = Rehearsal(model, ratings.num_users, ratings.num_items, make)
        self.scorer, self.notice = fastest_scorer(model, ratings.num_items, rehearsal)
        self.epochs = 0
        self._split: setup.Split | None = None
        self._clamp = False
        self._items = Items(ratings.source_item_ids, ratings.titles)
        self._lowest = ratings.ratings.min().item()
        self._highest = ratings.ratings.max().item()

    @classmethod
    def load(
        cls,
        logdir: Path | str,
        data_dir: Path | str = "data",
        ratings: Path | str | None = None,
        columns: str | None = None,
        titles: Path | str | None = None,
        quoting: str = "auto",
    ) -> "Recommender":
        """Load the network of a run after its best epoch if it has a ``best.pt``, otherwise after its last.

        Args:
            logdir: the run's folder.
            data_dir: the folder of the ratings, which are fetched into it if they are missing.
            ratings, columns, titles, quoting: as given to main.py, for a run on your own ratings.

        Raises:
            ValueError, OSError: as for ``loading.load_run``.
        """
        own, own_titles = (None if path is None else Path(path) for path in (ratings, titles))
        run = load_run(Path(logdir), Path(data_dir), own, columns, own_titles, quoting)
        recommender = cls(
            run.model,
            run.ratings,
            run.settings.factorization_weight,
            run.settings.regression_weight,
            run.settings.temperature,
            partial(network.make, run.settings),
        )
        recommender.epochs = run.epochs
        recommender._split = run.split
        recommender._clamp = run.settings.clamp
        return recommender

    @torch.no_grad()
    def recommend(self, users: Sequence[Id] | None = None, n: int = 10, include_seen: bool = False) -> pd.DataFrame:
        """Recommend to each user the n items with the highest p_ij, equation 1.

        Args:
            users: IDs; None for all users, in the order of their IDs.
            n: the number of items, at least 1. A user who rated nearly all items gets fewer.
            include_seen: whether to recommend the items that the user rated, too.

        Returns:
            A row for each item: user, rank from 1, item, title (if the ratings have titles), p, and stars: the
            predicted rating r̂_ij, equation 4, within the range of the ratings.

        Raises:
            ValueError: n is below 1, or a user is not in the ratings.
        """
        _check_positive(n)
        rows = torch.arange(self.ratings.num_users) if users is None else self._users(users)
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
        frame = self._described(columns)
        frame.insert(0, "user", ids_of(self.ratings.source_user_ids, rows))
        p, stars = torch.empty(len(rows)), torch.empty(len(rows))
        for start in range(0, len(rows), BLOCK_PAIRS):
            block = slice(start, start + BLOCK_PAIRS)
            p[block], stars[block] = self.scorer.pairs(rows[block], columns[block])
        frame["p"] = p.numpy()
        frame["stars"] = self._stars(stars)
        return frame

    @torch.no_grad()
    def similar(self, item: Id, n: int = 10) -> pd.DataFrame:
        """Find the n items whose embeddings of equation 1 have the largest cosine with this item's.

        Returns:
            A row for each item: item, title (if the ratings have titles), and similarity: the cosine, in [−1, 1].

        Raises:
            ValueError: n is below 1, the item is not in the ratings, several items have its title, or models.py has no
                table of items.
        """
        _check_positive(n)
        place = self.item(item)
        with _needed_for("similar items"):
            weight = parts.item_tables(self.model)["items"][: self.ratings.num_items]
        table = torch.nn.functional.normalize(weight.detach(), dim=1)
        cosines = table @ table[place]
        cosines[place] = -torch.inf
        best = cosines.topk(min(n, len(cosines) - 1))
        frame = self._described(best.indices)
        frame["similarity"] = best.values.numpy()
        return frame

    def recommend_new(self, rated: Mapping[Id, float], n: int = 10) -> pd.DataFrame:
        """Recommend to a new user from a few ratings; see ``fold_in``.

        Args:
            rated: the rating of each item, by the item's ID or title.
            n: the number of items.

        Returns:
            A row for each item, as in ``recommend`` but without a user; rated items are left out.

        Raises:
            ValueError: there is no rating, an item is not in the ratings or given twice, or a rating is out of range.
        """
        _check_positive(n)
        items = [self.item(item) for item in rated]
        if not items:
            raise ValueError("there are no ratings of the new user: expected at least one")
        if len(set(items)) < len(items):
            raise ValueError("two of the rated items are the same item: expected each item once")
        for item, rating in rated.items():
            if not self._lowest <= rating <= self._highest:
                raise ValueError(f"{item} is rated {rating:g}: expected {self._lowest:g} to {self._highest:g}")
        seen, stars = torch.tensor(items), torch.tensor([float(rating) for rating in rated.values()])
        with _needed_for("recommendations for a new user"):
            user = NewUser(self.scorer)
        u_fact, u_reg = fold_in(user, seen, stars, self.factorization_weight, self.regression_weight, self.temperature)
        with torch.no_grad():
            p = user.predictions(u_fact)
            p[seen] = -torch.inf
            best = p.topk(min(n, len(p) - len(seen)))
            ratings = user.score(u_reg, best.indices)
        frame = self._described(best.indices)
        frame.insert(0, "rank", np.arange(1, len(frame) + 1))
        frame["p"] = best.values.numpy()
        frame["stars"] = self._stars(ratings)
        return frame

    def quartiles(self, n: int = 10) -> pd.DataFrame:
        """Compute the test metrics by activity of the users and popularity of the items; see ``serving.quartiles``.

        Raises:
            ValueError: n is below 1, or there is no test set, because the recommender was not loaded from a run.
        """
        _check_positive(n)
        if self._split is None:
            raise ValueError("there is no test set: expected a run, loaded by Recommender.load")
        train, test = self._split.train, self._split.test
        return quartiles(Clamped(self.scorer, train.ratings) if self._clamp else self.scorer, train, test, n)

    def rated(self, user: Id, n: int = 10) -> pd.DataFrame:
        """Return the n items that a user rated highest: item, title (if the ratings have titles) and rating."""
        (row,) = self._users([user]).tolist()
        places = (self.ratings.user_ids == row).nonzero().squeeze(1)
        best = places[torch.sort(self.ratings.ratings[places], descending=True, stable=True).indices][:n]
        frame = self._described(self.ratings.item_ids[best])
        frame["rating"] = self.ratings.ratings[best].numpy()
        return frame

    def item(self, wanted: Id) -> int:
        """Return the row of an item, given by its title, or else its ID, or else a part of its title.

        Raises:
            ValueError: there is no such item, or several items have the title.
        """
        return self._items.row(wanted)

    def user(self, wanted: Id) -> int:
        """Return the row of a user, given by ID.

        Raises:
            ValueError: there is no such user.
        """
        return row_of(self.ratings.source_user_ids, wanted, "user")

    def _users(self, users: Sequence[Id]) -> Tensor:
        return torch.tensor([self.user(user) for user in users], dtype=torch.int64)

    def _best(self, users: Tensor, scores: Tensor, n: int, include_seen: bool) -> pd.DataFrame:
        if not include_seen:
            offsets, items = self.ratings.by_user.offsets, self.ratings.by_user.item_ids
            for row, user in enumerate(users.tolist()):
                scores[row, items[offsets[user] : offsets[user + 1]]] = -torch.inf
        best = scores.topk(min(n, scores.shape[1]))
        rows, places = (best.values > -torch.inf).nonzero(as_tuple=True)
        recommended = best.indices[rows, places]
        frame = self._described(recommended)
        frame.insert(0, "user", ids_of(self.ratings.source_user_ids, users[rows]))
        frame.insert(1, "rank", places.numpy() + 1)
        frame["p"] = best.values[rows, places].numpy()
        frame["stars"] = self._stars(self.scorer.predict_ratings(users[rows], recommended))
        return frame

    def _described(self, items: Tensor) -> pd.DataFrame:
        frame = pd.DataFrame({"item": ids_of(self.ratings.source_item_ids, items)})
        if self.ratings.titles:
            frame["title"] = [self.ratings.titles[item] for item in items.tolist()]
        return frame

    def _stars(self, ratings: Tensor) -> "np.ndarray[tuple[int], np.dtype[np.float32]]":
        return ratings.clamp(self._lowest, self._highest).numpy()


@contextlib.contextmanager
def _needed_for(answer: str) -> Iterator[None]:
    """Turn a LookupError for a table into a ValueError that names the answer that needs the table."""
    try:
        yield
    except LookupError as error:
        raise ValueError(f"there are no {answer}: {error}") from None


def _check_positive(n: int) -> None:
    if n < 1:
        raise ValueError(f"the number of items is {n}: expected at least 1")
