"""Evaluation during training: how items are scored, which users are ranked, and after which epochs.

All items are scored by one matrix product where that agrees with ``forward``. For a network of equation 1 it is a
hundred times faster, because ``forward`` also computes the rating of every pair.

Ranking takes time in proportion to users × items, training in proportion to the ratings. Where ranking all users would
take more than a fifth of an epoch, and more than a quarter of a second, a fixed sample of them is ranked, over all
items. Both times are estimated from sizes alone, because measured times would give another sample in each run.
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import replace

import torch
from torch import Tensor, nn

from data import Interactions
from metrics import (
    ByForward,
    ItemRanks,
    Model,
    RankingScores,
    Scorer,
    item_ranks,
    mae_score,
    mrr_score,
    mse_score,
    scores_of,
)
from training import parts
from training.divided import UNDIVIDED, Division
from training.rehearsal import Rehearsal
from training.scale import Scale

OWN_UNIT = Scale()
SHARE = 0.2  # of the training time, for the ranking
FEWEST_USERS = 1000  # a sample has at least this many users
# Costs in multiply-adds, measured on one core.
LEAST_WORK = 1e10  # of a ranking by tables that is worth a sample; about a quarter of a second
COMPARISON = 20  # of comparing the score of a test item with that of one other item
LOOKUP = 256  # of looking up and updating an element of an embedding


class ByTables(ByForward):
    """A scorer that computes equation 1 for all items as a product of two tables; LookupError if it lacks them."""

    def __init__(self, model: nn.Module, num_items: int) -> None:
        super().__init__(model, num_items)
        self.tables = parts.factorization_tables(model)
        self.bias = parts.embedding(model, "B")

    def predict_all_items(self, user_ids: Tensor) -> Tensor:
        return self.predict_all_items_for(self.tables.users(user_ids))

    def predict_all_items_for(self, u: Tensor) -> Tensor:
        """Compute p_ij for every item and users with these embeddings: (users, d) → (users, num_items)."""
        return torch.addmm(self.bias.weight.T, u, self.tables.items.weight.T)


def fastest_scorer(model: nn.Module, num_items: int, rehearsal: Rehearsal) -> tuple[ByForward, str]:
    """Return ``ByTables`` if it agrees with ``forward``, else ``ByForward`` and a line that says why."""
    reason = rehearsal.ranking_difference(ByTables)
    if reason is None:
        return ByTables(model, num_items), ""
    return ByForward(model, num_items), f"ranking with forward: {reason}"


class Limited:
    """A scorer whose predicted ratings, in the network's unit, are limited to the range of the training ratings."""

    def __init__(self, scorer: Scorer, scale: Scale) -> None:
        self.scorer, self.scale = scorer, scale

    def predict_ratings(self, user_ids: Tensor, item_ids: Tensor) -> Tensor:
        return self.scale.limit(self.scorer.predict_ratings(user_ids, item_ids), user_ids, item_ids)

    def predict_all_items(self, user_ids: Tensor) -> Tensor:
        return self.scorer.predict_all_items(user_ids)


class Evaluation:
    """The metrics of a network on a test set: rankings of all its users or a sample, and errors over all its ratings.

    Args:
        scorer: of the network to evaluate; or the network, which then ranks by ``forward``.
        train: the training set of this process's users, with ratings in the unit that the network learns; on the
            network's device.
        test: the test set, with ratings in their own unit; on the network's device.
        users: "all", "auto", or the number of users to rank, of whom ``seed`` draws a sample.
        every: evaluate every N epochs, and after the last.
        division: the users of this process, if several evaluate together; each has its users' interactions in ``train``
            and a scorer of them.
        scale: the unit that the network learns. Errors are computed in it, where they cannot overflow, and returned in
            the ratings' own unit. With a baseline, predicted ratings are limited to the range of the training ratings.

    Attributes:
        test: the test set of this process's users, with ratings in the unit that the network learns.
        tested, ranked: the number of users with test interactions, and of those that are ranked.
        users: IDs of the users that this process ranks, ascending; None for all.
        rates: whether ratings are evaluated: the training set and the test set have some.
    """

    def __init__(
        self,
        scorer: ByForward | nn.Module,
        train: Interactions,
        test: Interactions,
        *,
        users: str | int = "auto",
        every: int = 1,
        seed: int = 0,
        division: Division = UNDIVIDED,
        scale: Scale = OWN_UNIT,
    ) -> None:
        self.scorer = ByForward(scorer, train.num_items) if isinstance(scorer, nn.Module) else scorer
        self.rates = bool(division.total(train.rated.any()) > 0 and test.rated.any())
        self.rater: Scorer = self.scorer if scale.baseline is None else Limited(self.scorer, scale)
        self.scale = scale
        self.train, self.every, self.division = train, every, division
        in_units = scale.to_units(test.ratings, test.user_ids, test.item_ids)
        self.test = test if scale.is_own_unit else replace(test, ratings=in_units)
        tested = test.user_ids.unique().cpu()
        self.tested = len(tested)
        if users == "auto":
            users = _affordable_users(self.scorer, division.count(train), test, self.tested)
        self.ranked = self.tested if users == "all" else min(int(users), self.tested)
        self.users: Tensor | None = None
        if self.ranked < self.tested:
            generator = torch.Generator().manual_seed((seed + 1) % 2**64)  # differs from the one that shuffles
            self.users = tested[torch.randperm(self.tested, generator=generator)[: self.ranked]].sort()[0]
        self._ranked_here = self.ranked
        if division.group.size > 1:
            users_here = tested if self.users is None else self.users
            self.users = users_here[division.rows_of(users_here) >= 0]
            self._ranked_here = len(self.users)
            self.test = division.own(self.test)
        self._ratings_here = int(self.test.rated.sum())

    @property
    def notice(self) -> str:
        """Return a line for the user if a sample is ranked, else ""."""
        sample = f"ranking a sample of {self.ranked:,} of {self.tested:,} test users (eval_users)"
        return sample if self.ranked < self.tested else ""

    def is_due(self, epoch: int, epochs: int) -> bool:
        """Return whether to evaluate after this epoch, from 0, of a run of ``epochs``."""
        return (epoch + 1) % self.every == 0 or epoch == epochs - 1

    def mrr(self) -> float:
        """Compute the exact MRR of the ranked users."""
        return self._mean(lambda: mrr_score(self.scorer, self.test, self.train, self.users), self._ranked_here)

    def mse(self) -> float:
        """Compute the MSE over all test ratings, for a third of the cost of training on them; NaN unless ``rates``."""
        return self.scale.spread**2 * self._mean_error(mse_score)

    def mae(self) -> float:
        """Compute the mean absolute error over all test ratings; NaN unless ``rates``."""
        return self.scale.spread * self._mean_error(mae_score)

    def _mean_error(self, error: Callable[[Model, Interactions], float]) -> float:
        if not self.rates:
            return math.nan
        return self._mean(lambda: error(self.rater, self.test), self._ratings_here)

    def _mean(self, own: Callable[[], float], count: int) -> float:
        """Compute the mean over all processes from the mean over this one's ``count`` users or ratings."""
        score = own() if count else 0.0
        if self.division.group.size == 1:
            return score
        sums = torch.tensor([count * score, count], dtype=torch.float64)
        total, number = self.division.group.add_up(sums).tolist()
        return float(total / number)

    def rankings(self, topk: Sequence[int]) -> dict[int, RankingScores]:
        """Compute recall, NDCG and others of the ranked users for each of these k."""
        own = item_ranks(self.scorer, self.test, self.train, topk, self.users) if self._ranked_here else None
        ranks, counts, shown = zip(*filter(None, self.division.group.from_all(own)), strict=True)
        return scores_of(ItemRanks(torch.cat(ranks), torch.cat(counts), torch.stack(shown).any(0)), topk)


def _affordable_users(scorer: ByForward, interactions: int, test: Interactions, tested: int) -> int:
    """Estimate how many users can be ranked in SHARE of an epoch's training time, from the multiply-adds of both."""
    model = scorer.model
    mlp_weights = sum(layer.weight.numel() for layer in parts.linear_layers(model))
    embedding_dim = max((table.embedding_dim for table in parts.embeddings(model)), default=0)
    training = interactions * (3 * mlp_weights + LOOKUP * embedding_dim)  # a backward pass costs two forward passes
    user = test.num_items * (embedding_dim + COMPARISON * len(test) / tested)
    least = LEAST_WORK if isinstance(scorer, ByTables) else 0.0
    return max(FEWEST_USERS, int(max(least, SHARE * training) / user))
