"""Users without trained embeddings: those who are new in the ratings, and any user who is given by a few ratings."""

from collections.abc import Iterable, Mapping, Sequence
from functools import cached_property

import torch
from torch import Tensor

from data import Interactions
from metrics import ByForward
from serving.fold_in import NewUser, fold_in
from serving.lookup import Id
from training.scale import Scale
from training.settings import Settings

NO_TABLES = "there are no recommendations for a new user"


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
    def network(self) -> NewUser:
        """The network's predictions for a new user; ValueError if it has no tables with the homework's names."""
        trained = torch.ones(self.ratings.num_users, dtype=torch.bool)
        trained[list(self._rows)] = False
        try:
            return NewUser(self.scorer, trained)
        except LookupError as error:
            raise ValueError(f"{NO_TABLES}: {error}") from None

    def fold_in_all(self) -> None:
        """Give all of them their embeddings; ValueError as for ``network``."""
        self.fold_in(self._rows)

    def fold_in(self, rows: Iterable[int]) -> None:
        """Give those of these rows their embeddings that wait for them; ValueError as for ``network``."""
        for row in sorted(self._waiting.intersection(rows)):
            own = self.ratings.user_ids == row
            found = self.embeddings(self.ratings.item_ids[own], self.ratings.ratings[own])
            with torch.no_grad():
                for table, u in zip(self.network.tables, found, strict=False):  # one table if the tasks share it
                    table.weight[row] = u
            self._waiting.remove(row)

    def embeddings(self, items: Tensor, ratings: Tensor) -> tuple[Tensor, Tensor]:
        """Compute the embeddings of a user with these items and ratings, NaN for none; see ``fold_in.fold_in``."""
        in_units = torch.full_like(ratings, torch.nan) if self.scale is None else self.scale.to_units(ratings)
        settings = self.settings
        return fold_in(
            self.network,
            items,
            in_units,
            settings.factorization_weight,
            settings.regression_weight,
            settings.temperature,
        )

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
