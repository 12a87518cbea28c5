"""Baselines without a network: ranking by popularity, rating by means, and EASE.

    for score in baselines.scores(train, test): print(score.name, score.value)

They are fitted to the training ratings alone, and scored like a network.
"""

import math
from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor

from data import Interactions
from metrics import mrr_score, mse_score

ITEM_DAMPING, USER_DAMPING = 25.0, 10.0  # further ratings at the mean of each item and each user


@dataclass(frozen=True)
class Baseline:
    """A recommender with p_ij = n_j, the number of ratings of item j, and r̂_ij = μ + a_i + b_j."""

    popularity: Tensor  # (num_items,) float32 n_j
    mean: float  # μ, of all ratings
    user_bias: Tensor  # (num_users,) float64 a_i, in stars
    item_bias: Tensor  # (num_items,) float64 b_j, in stars

    def predict_all_items(self, user_ids: Tensor) -> Tensor:
        """Score all items, alike for all users: (users,) → (users, num_items)."""
        return self.popularity.repeat(len(user_ids), 1)

    def predict_ratings(self, user_ids: Tensor, item_ids: Tensor) -> Tensor:
        """Predict ratings: (batch,) user IDs and item IDs → (batch,) float64."""
        return self.mean + self.user_bias[user_ids] + self.item_bias[item_ids]


def global_mean(train: Interactions) -> Baseline:
    """Fit popularity, and the mean of all training ratings for every user and item, NaN if there are none."""
    return Baseline(
        torch.bincount(train.item_ids, minlength=train.num_items).float(),
        train.ratings[train.rated].double().mean().item(),
        torch.zeros(train.num_users, dtype=torch.float64),
        torch.zeros(train.num_items, dtype=torch.float64),
    )


def user_and_item_means(train: Interactions) -> Baseline:
    """Fit popularity, and the baseline of Koren, "Factor in the Neighbors", ACM TKDD 4(1), 2010, section 2.1.

    b_j = Σ (r_ij − μ) / (25 + n_j) over the n_j ratings of item j, then
    a_i = Σ (r_ij − μ − b_j) / (10 + n_i) over the n_i ratings by user i,
    with the paper's damping. A user or item without training ratings has a bias of 0.
    """
    base = global_mean(train)
    train = train.select(train.rated)
    residuals = train.ratings.double() - base.mean
    item_bias = _damped_means(train.item_ids, residuals, base.item_bias, ITEM_DAMPING)
    user_bias = _damped_means(train.user_ids, residuals - item_bias[train.item_ids], base.user_bias, USER_DAMPING)
    return Baseline(base.popularity, base.mean, user_bias, item_bias)


def _damped_means(ids: Tensor, values: Tensor, zeros: Tensor, damping: float) -> Tensor:
    """Return the sum of each ID's values / (damping + their number): (n,) ids and values, (ids,) zeros → (ids,)."""
    return zeros.index_add(0, ids, values) / (damping + torch.bincount(ids, minlength=len(zeros)))


class BaselineScore(NamedTuple):
    """A metric of a baseline."""

    name: str  # of the baseline
    metric: str  # its name in ``EpochMetrics``
    value: float


def scores(train: Interactions, test: Interactions) -> list[BaselineScore]:
    """Fit and score the baselines of the four experiments on one split, on the CPU; an MSE is NaN without ratings."""
    mean, means = global_mean(train), user_and_item_means(train)
    rates = bool(train.rated.any() and test.rated.any())
    return [
        BaselineScore("popularity", "test_mrr", mrr_score(mean, test, train)),
        BaselineScore("global mean", "test_mse", mse_score(mean, test) if rates else math.nan),
        BaselineScore("user and item means", "test_mse", mse_score(means, test) if rates else math.nan),
    ]


@dataclass(frozen=True)
class ItemScores:
    """A recommender by the items that a user rated: p_i = x_i · B, where x_i is 1 for the items rated, else 0."""

    rated: Tensor  # (num_users, num_items) float32 x
    weights: Tensor  # (num_items, num_items) float32 B

    def predict_all_items(self, user_ids: Tensor) -> Tensor:
        """Score all items: (users,) → (users, num_items)."""
        return self.rated[user_ids] @ self.weights

    def predict_ratings(self, user_ids: Tensor, item_ids: Tensor) -> Tensor:
        """Return NaN, because this recommender predicts no ratings: (batch,) twice → (batch,)."""
        return torch.full((len(user_ids),), torch.nan)


def ease_bytes(interactions: Interactions) -> int:
    """Return the memory that EASE needs for these users and items."""
    items, users = interactions.num_items, interactions.num_users
    return items * (12 * users + 32 * items)  # x in float64 and float32, and four matrices of all pairs of items


def ease(train: Interactions, penalty: float = 200.0) -> ItemScores:
    """Fit EASE in closed form: Steck, "Embarrassingly Shallow Autoencoders for Sparse Data", WWW 2019, equation 8.

    With P = (XᵀX + λI)⁻¹, B is −P_ij / P_jj, and 0 on the diagonal; ``penalty`` is λ, and the values of the ratings do
    not count. It needs ``ease_bytes`` of memory.
    """
    rated = torch.zeros(train.num_users, train.num_items, dtype=torch.float64)
    rated[train.user_ids, train.item_ids] = 1.0
    gram = rated.T @ rated
    gram.diagonal().add_(penalty)
    inverse = torch.linalg.inv(gram)
    weights = inverse / -inverse.diagonal()
    weights.fill_diagonal_(0.0)
    return ItemScores(rated.float(), weights.float())
