"""A trained run that recommends.

    recommender = Recommender.load("run/mine")
    print(recommender.recommend([42, 7], n=5))          # a DataFrame: user, rank, item, title, p, stars
    print(recommender.predict([42, 42], [1, 50]))       # one row a pair: user, item, title, p, stars
    print(recommender.similar("Toy Story", n=5))
    print(recommender.recommend_new({"Toy Story": 5, "Heat": 2}, n=5))

Users and items go by the ids of the ratings file, whole numbers or texts as there; items also by their titles.
"""

import contextlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path

import numpy as np
import pandas as pd
import torch
from torch import Tensor, nn

import data
from serving.fold_in import NewUser, fold_in
from serving.ids import Id, named, row_of
from serving.loading import load_run
from serving.quartiles import quartiles
from serving.titles import Titles
from training import parts, scoring, setup
from training.evaluation import Clamped
from training.rehearsal import Rehearsal

BLOCK_SCORES, BLOCK_PAIRS = 2**20, 2**16  # scores, and pairs of users and items, held at a time


class Recommender:
    """A network, and the ratings whose users and items it knows.

    Args:
        model: any network of the contract, trained on a part of the ratings, on the CPU.
        ratings: all of them; what a user rated is not recommended.
        factorization_weight, regression_weight, temperature: λ_F, λ_R and T that it was trained with.
        make: makes a network of the same class for other numbers of users and items, to compare ways of ranking on.
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
        self.model, self.ratings = model, ratings
        model.eval()
        rehearsal = Rehearsal(model, ratings.num_users, ratings.num_items, make)
        self.scores, self.notice = scoring.fastest(model, ratings.num_items, rehearsal)
        self.loss = factorization_weight, regression_weight, temperature
        self.epochs = 0
        self._sides: tuple[data.Interactions, data.Interactions, bool] | None = None
        self._titles = Titles(ratings.titles, named(ratings.source_item_ids, torch.arange(ratings.num_items)))
        self._lowest, self._highest = ratings.ratings.min().item(), ratings.ratings.max().item()

    @classmethod
    def load(
        cls,
        logdir: Path | str,
        data_dir: Path | str = "data",
        ratings: Path | str | None = None,
        columns: str | None = None,
        titles: Path | str | None = None,
    ) -> "Recommender":
        """Load the network of a run: after its best epoch where it has a ``best.pt``, else after its last.

        Args:
            logdir: the run's folder.
            data_dir: the folder of the ratings, which are fetched into it where they are missing.
            ratings, columns, titles: as main.py was given them, for a run on ratings of one's own.

        Raises:
            ValueError, OSError: as ``loading.load_run``.
        """
        own, own_titles = (None if path is None else Path(path) for path in (ratings, titles))
        run = load_run(Path(logdir), Path(data_dir), own, columns, own_titles)
        settings = run.settings
        recommender = cls(
            run.model,
            run.ratings,
            settings.factorization_weight,
            settings.regression_weight,
            settings.temperature,
            setup.network_settings(settings).make,
        )
        recommender.epochs = run.epochs
        recommender._sides = run.split.train, run.split.test, settings.clamp
        return recommender

    @torch.no_grad()
    def recommend(self, users: Sequence[Id] | None = None, n: int = 10, include_seen: bool = False) -> pd.DataFrame:
        """The n items with the highest p_ij, equation 1, of each user.

        Args:
            users: ids; None for all users, in the order of their ids.
            n: how many items, at least 1; a user who rated nearly all gets fewer.
            include_seen: recommend also what the user rated.

        Returns:
            A row an item: user, rank from 1, item, title (where the ratings have titles), p, and stars: the predicted
            rating r̂_ij, equation 4, within the range of the ratings.

        Raises:
            ValueError: n is below 1, or a user is not in the ratings.
        """
        _check_positive(n)
        rows = torch.arange(self.ratings.num_users) if users is None else self._users(users)
        frames = [
            self._best(block, self.scores.predict_all_items(block), n, include_seen)
            for block in rows.split(max(1, BLOCK_SCORES // self.ratings.num_items))
        ]
        return pd.concat(frames, ignore_index=True)

    @torch.no_grad()
    def predict(self, users: Sequence[Id], items: Sequence[Id]) -> pd.DataFrame:
        """What the network says of pairs.

        Args:
            users, items: as many ids of each; a text may also be an item's title.

        Returns:
            A row a pair: user, item, title (where the ratings have titles), p and stars, as in ``recommend``.

        Raises:
            ValueError: there are not as many of each, or one is not in the ratings.
        """
        if len(users) != len(items):
            raise ValueError(f"there are {len(users)} users and {len(items)} items: expected as many of each")
        rows, columns = self._users(users), torch.tensor([self.item(item) for item in items], dtype=torch.int64)
        frame = self._described(columns)
        frame.insert(0, "user", named(self.ratings.source_user_ids, rows))
        blocks = list(zip(rows.split(BLOCK_PAIRS), columns.split(BLOCK_PAIRS), strict=True))
        p, stars = zip(*(self.scores.pairs(*block) for block in blocks), strict=True)
        frame["p"] = torch.cat(p).numpy()
        frame["stars"] = self._stars(torch.cat(stars))
        return frame

    @torch.no_grad()
    def similar(self, item: Id, n: int = 10) -> pd.DataFrame:
        """The items whose embeddings, those of equation 1, point most nearly where this item's does.

        Returns:
            A row an item: item, title (where the ratings have titles), and similarity: the cosine, in [−1, 1].

        Raises:
            ValueError: n is below 1, or the item is not in the ratings, or its title is that of several; or models.py
                has no table of items.
        """
        _check_positive(n)
        place = self.item(item)
        with _asking("similar items"):
            weight = parts.item_tables(self.model)["items"][: self.ratings.num_items]
        table = torch.nn.functional.normalize(weight.detach(), dim=1)
        cosines = table @ table[place]
        cosines[place] = -torch.inf
        best = cosines.topk(min(n, len(cosines) - 1))
        frame = self._described(best.indices)
        frame["similarity"] = best.values.numpy()
        return frame

    def recommend_new(self, rated: Mapping[Id, float], n: int = 10) -> pd.DataFrame:
        """Recommendations for somebody who is not in the ratings, from a few ratings; see ``fold_in``.

        Args:
            rated: item (its id or title) → the rating that they give.
            n: how many items.

        Returns:
            As ``recommend``, without the user; the items rated are left out.

        Raises:
            ValueError: nothing is rated, an item is not in the ratings or named twice, or a rating is out of range.
        """
        _check_positive(n)
        items = [self.item(item) for item in rated]
        if not items or len(set(items)) < len(items):
            raise ValueError("nothing is rated" if not items else "two of those rated are the same item")
        for item, rating in rated.items():
            if not self._lowest <= rating <= self._highest:
                raise ValueError(f"{item} is rated {rating:g}: expected {self._lowest:g} to {self._highest:g}")
        seen, stars = torch.tensor(items), torch.tensor([float(rating) for rating in rated.values()])
        with _asking("recommendations for a new user"):
            user = NewUser(self.scores)
        u_fact, u_reg = fold_in(user, seen, stars, *self.loss)
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
        """The test metrics by activity of the users and by popularity of the items, see ``serving.quartiles``.

        Raises:
            ValueError: n is below 1, or this was not loaded from a run, whose test side is known.
        """
        _check_positive(n)
        if self._sides is None:
            raise ValueError("which ratings were tested on is known of a run only: make this by Recommender.load")
        train, test, clamp = self._sides
        return quartiles(Clamped(self.scores, train.ratings) if clamp else self.scores, train, test, n)

    def rated(self, user: Id, n: int = 10) -> pd.DataFrame:
        """What a user rated highest: item, title (where the ratings have titles) and rating; n rows at most."""
        (row,) = self._users([user]).tolist()
        places = (self.ratings.user_ids == row).nonzero().squeeze(1)
        best = places[torch.sort(self.ratings.ratings[places], descending=True, stable=True).indices][:n]
        frame = self._described(self.ratings.item_ids[best])
        frame["rating"] = self.ratings.ratings[best].numpy()
        return frame

    def item(self, wanted: Id) -> int:
        """The row of an item, given by its title, else by its id in the ratings, else by a part of its title.

        Raises:
            ValueError: there is no such item, or the title is that of several.
        """
        ids = self.ratings.source_item_ids
        if not isinstance(wanted, str) or not self.ratings.titles:
            return row_of(ids, wanted, "item")
        if (found := self._titles.exact(wanted)) is not None:
            return found
        try:
            return row_of(ids, wanted, "item")
        except ValueError:
            return self._titles.find(wanted)

    def user(self, wanted: Id) -> int:
        """The row of a user.

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
        frame.insert(0, "user", named(self.ratings.source_user_ids, users[rows]))
        frame.insert(1, "rank", places.numpy() + 1)
        frame["p"] = best.values[rows, places].numpy()
        frame["stars"] = self._stars(self.scores.predict_ratings(users[rows], recommended))
        return frame

    def _described(self, items: Tensor) -> pd.DataFrame:
        frame = pd.DataFrame({"item": named(self.ratings.source_item_ids, items)})
        if self.ratings.titles:
            frame["title"] = [self.ratings.titles[item] for item in items.tolist()]
        return frame

    def _stars(self, ratings: Tensor) -> "np.ndarray[tuple[int], np.dtype[np.float32]]":
        return ratings.clamp(self._lowest, self._highest).numpy()


@contextlib.contextmanager
def _asking(answer: str) -> Iterator[None]:
    """Turn a missing table into a ValueError that names the answer that needs it."""
    try:
        yield
    except LookupError as error:
        raise ValueError(f"there are no {answer}: {error}") from None


def _check_positive(n: int) -> None:
    if n < 1:
        raise ValueError(f"{n} items are asked for: expected at least 1")
