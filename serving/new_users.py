"""Users without trained embeddings: new users of the ratings, and any user with a few ratings given."""

from collections.abc import Iterable, Mapping, Sequence
from functools import cached_property
from typing import NamedTuple

import torch
from torch import Tensor
from tqdm import tqdm

from data import Interactions
from metrics import ByForward
from serving.fold_in import Known, NewRows, batches, fold_in
from serving.lookup import Id
from training.scale import Scale
from training.settings import Settings
from training.steps import LossWeights

MANY = 30  # a progress bar shows more new users than these
NO_TABLES = "there are no recommendations for a new user"


class Best(NamedTuple):
    """The items with the highest p for a new user.

    Attributes:
        items, p, scores: (n,) each; ``scores`` are the network's predicted ratings.
        scale: their unit, in which the new user has the ID 0; None if the network was trained without ratings.
    """

    items: Tensor
    p: Tensor
    scores: Tensor
    scale: Scale | None


class NewUsers:
    """The new users of a network.

    Args:
        scorer: the network's.
        ratings: all interactions, in their own unit.
        settings: the settings of the training.
        scale: the unit of the network's predicted ratings; None if it was trained without ratings.
        rows: the rows of the network's new users, which get their embeddings when they are first needed.
    """

    def __init__(
        self, scorer: ByForward, ratings: Interactions, settings: Settings, scale: Scale | None, rows: Sequence[int]
    ) -> None:
        self.scorer, self.ratings, self.settings, self.scale = scorer, ratings, settings, scale
        self._rows = tuple(rows)
        self._waiting = set(rows)
        known = ratings.ratings[ratings.rated]
        self.lowest = known.min().item() if len(known) else -torch.inf
        self.highest = known.max().item() if len(known) else torch.inf

    @cached_property
    def network(self) -> NewRows:
        """The network's predictions for new users; ValueError if it has no tables with the homework's names."""
        trained = torch.ones(self.ratings.num_users, dtype=torch.bool)
        trained[list(self._rows)] = False
        try:
            return NewRows(self.scorer, trained)
        except LookupError as error:
            raise ValueError(f"{NO_TABLES}: {error}") from None

    def fold_in_all(self) -> None:
        """Give all of them their embeddings; ValueError as for ``network``."""
        self.fold_in(self._rows)

    def fold_in(self, rows: Iterable[int]) -> None:
        """Give those of these rows their embeddings that wait for them; ValueError as for ``network``."""
        waiting = sorted(self._waiting.intersection(rows))
        if not waiting:
            return
        offsets = self.ratings.by_user.offsets
        counts = [offsets[row + 1] - offsets[row] for row in waiting]
        with tqdm(total=len(waiting), disable=None if len(waiting) > MANY else True, unit="new user") as bar:
            for batch in batches(counts, self.scorer.num_items):
                self._fold_in(waiting[batch.start : batch.stop], counts[batch.start : batch.stop])
                bar.update(len(batch))

    def _fold_in(self, rows: list[int], counts: list[int]) -> None:
        offsets = self.ratings.by_user.offsets
        places = torch.cat([self._order[offsets[row] : offsets[row + 1]] for row in rows])
        found = self.embeddings(self.ratings.item_ids[places], self._values[places], counts)
        with torch.no_grad():
            for table, embeddings in zip(self.network.tables, found, strict=True):
                table.weight[rows] = embeddings
        self._waiting.difference_update(rows)

    @cached_property
    def _order(self) -> Tensor:
        """The places of all interactions in the order of ``ratings.by_user``: (n,) int64."""
        return torch.argsort(self.ratings.user_ids, stable=True)

    @cached_property
    def _values(self) -> Tensor:
        """The values of all ratings in the network's unit; see ``Scale.targets``."""
        return _no_values(self.ratings.ratings) if self.scale is None else self.scale.targets(self.ratings)

    def embeddings(self, items: Tensor, values: Tensor, counts: Sequence[int]) -> list[Tensor]:
        """Compute the embeddings of users with these interactions.

        Args:
            items: (n,) int64, user after user.
            values: (n,) float32, of their ratings in the network's unit; NaN where an interaction has none.
            counts: the number of interactions of each user.

        Returns:
            (users, embedding_dim) for each table of ``network``.
        """
        weights = LossWeights(self.settings.factorization_weight, self.settings.regression_weight)
        return fold_in(self.network, Known(items, values, counts), weights)

    def best(self, seen: Tensor, ratings: Tensor, n: int) -> Best:
        """Return the n items with the highest p for a user with these items and ratings."""
        scale, values = (None, _no_values(ratings)) if self.scale is None else self.scale.of_new_user(ratings, seen)
        embeddings, network = self.embeddings(seen, values, [len(seen)]), self.network
        with torch.no_grad():
            p = network.predictions(embeddings, network.items).squeeze(0)
            p[seen] = -torch.inf
            best = p.topk(min(n, len(p) - len(seen)))
            _, scores = network.pairs(embeddings, torch.zeros_like(best.indices), best.indices)
        return Best(best.indices, best.values, scores, scale)

    def ratings_of(self, rated: Mapping[Id, float | None] | Sequence[Id]) -> dict[Id, float]:
        """Return the rating of each item, NaN for none.

        Raises:
            ValueError: there is no item, one is given twice, or a rating is missing, unexpected or out of range.
        """
        if len(rated) == 0:
            raise ValueError("there are no items of the new user: expected at least one")
        if isinstance(rated, Mapping):
            return {item: self._checked(item, rating) for item, rating in rated.items()}
        return {item: self._checked(item, None) for item in rated}

    @property
    def need_ratings(self) -> bool:
        """Return whether each of their items needs a rating, because all interactions have one."""
        return self.scale is not None and bool(self.ratings.rated.all())

    def _checked(self, item: Id, rating: float | None) -> float:
        expected = f"expected {self.lowest:g} to {self.highest:g}"
        if self.scale is None and rating is not None:
            raise ValueError(f"{item} is rated {rating:g}: expected no rating, because the network was trained without")
        if rating is None:
            if self.need_ratings:
                raise ValueError(f"{item} has no rating: {expected}")
            return torch.nan
        if not self.lowest <= rating <= self.highest:
            raise ValueError(f"{item} is rated {rating:g}: {expected}")
        return float(rating)


def _no_values(ratings: Tensor) -> Tensor:
    return torch.full_like(ratings, torch.nan)
