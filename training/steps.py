"""The losses, and one step of training as the homework defines it.

    L = λ_F · L_F + λ_R · L_R,    L_F = mean(1 − σ(p⁺ − p⁻)),    L_R = mean((r̂ − r)²)      (equations 3 and 5)

``EagerStep`` is the definition. A faster step is taken only where it agrees with this one at the start of a run (see
``rehearsal.py``), so that a change in this file or in models.py always shows.
"""

from typing import NamedTuple, Protocol

import torch
from torch import Tensor, nn


def bpr_loss(positive: Tensor, negative: Tensor) -> Tensor:
    """Compute the Bayesian personalised ranking loss, equation 3: mean of 1 − σ(p⁺ − p⁻).

    This is the homework's bounded form; Rendle et al. (2009) take −log σ. The (batch,) logits of observed and of
    sampled items give a loss () in [0, 1]; it is 0.5 where all logits are equal.
    """
    return (1.0 - torch.sigmoid(positive - negative)).mean()


def regression_loss(score: Tensor, ratings: Tensor) -> Tensor:
    """Compute the mean squared error, equation 5: mean of (r̂ − r)², from (batch,) ratings to () in squared stars."""
    return (score - ratings).square().mean()


def loss_of_rated(score: Tensor, ratings: Tensor) -> Tensor:
    """Compute L_R over the interactions that have a rating, which is NaN for none; 0 if none has one."""
    rated = ~ratings.isnan()
    return regression_loss(score[rated], ratings[rated]) if bool(rated.any()) else 0.0 * score.sum()


Sizes = int | list[int]  # of batches: one number for all, of which the last may be smaller, or the number of each


def rated_in_batches(ratings: Tensor, batch_size: Sizes) -> Tensor:
    """Count the interactions with a rating in each batch: (n,) ratings to (batches,) float32."""
    return torch.stack([(~batch.isnan()).sum() for batch in ratings.split(batch_size)]).float()


class LossWeights(NamedTuple):
    """λ_F and λ_R."""

    factorization: float
    regression: float


def joint_loss(factorization: Tensor, regression: Tensor, weights: LossWeights) -> Tensor:
    """Compute L = λ_F · L_F + λ_R · L_R, from () L_F and L_R to ()."""
    return weights.factorization * factorization + weights.regression * regression


class Triples(NamedTuple):
    """Aligned (n,) tensors of training examples; negatives are (n, 0) for a step that draws them itself.

    A rating is NaN where the interaction has none, and in the unit of ``scale.py``.
    """

    users: Tensor
    items: Tensor
    negatives: Tensor
    ratings: Tensor


class Step(Protocol):
    """A way of training on batches."""

    def run(self, triples: Triples, batch_size: Sizes) -> Tensor:
        """Take one step for each batch; return their L_F and L_R: (steps, 2)."""


class Optimizer(Protocol):
    """The part of ``torch.optim.Optimizer`` that a step calls; the optimizers of this project are in ``adam.py``."""

    def zero_grad(self) -> None: ...

    def step(self) -> None: ...


class EagerStep:
    """The step as the homework defines it, by autograd.

    ``model`` is any network with ``forward(user_ids, item_ids)`` → (predictions, score), ``optimizer`` trains it.
    """

    def __init__(self, model: nn.Module, optimizer: Optimizer, loss_weights: LossWeights) -> None:
        self.model = model
        self.optimizer = optimizer
        self.loss_weights = loss_weights

    def run(self, triples: Triples, batch_size: Sizes) -> Tensor:
        batches = zip(*(column.split(batch_size) for column in triples), strict=True)
        return torch.stack([self.step(*batch) for batch in batches])

    def step(self, users: Tensor, items: Tensor, negatives: Tensor, ratings: Tensor) -> Tensor:
        """Take one step on a batch of triples; return (2,) L_F and L_R before it."""
        factorization, regression = self.losses(users, items, negatives, ratings)
        loss = joint_loss(factorization, regression, self.loss_weights)
        self.optimizer.zero_grad()
        loss.backward()
        self.optimizer.step()
        return torch.stack([factorization.detach(), regression.detach()]).float()

    def losses(self, users: Tensor, items: Tensor, negatives: Tensor, ratings: Tensor) -> tuple[Tensor, Tensor]:
        """Compute L_F and L_R of a batch of triples."""
        positive, score = self.model(users, items)
        negative, _ = self.model(users, negatives)
        return bpr_loss(positive, negative), loss_of_rated(score, ratings)
