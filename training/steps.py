"""One step of training as the homework defines it, and what every way of taking it has in common.

    L = λ_F · L_F + λ_R · L_R,    L_F = mean(1 − σ(p⁺ − p⁻)),    L_R = mean((r̂ − r)²)      (equations 3 and 5)

``EagerStep`` computes L with the network's two heads; autograd and Adam do the rest. It is the definition that the
faster steps, ``fused.py`` and ``cuda_graph.py``, are held to.
"""

from typing import NamedTuple, Protocol

import torch
from torch import Tensor

from models import MultiTaskNet
from training.adam import BETAS, EPSILON, AdamState


def bpr_loss(positive: Tensor, negative: Tensor) -> Tensor:
    """Bayesian personalised ranking loss, equation 3: mean of 1 − σ(p⁺ − p⁻).

    This is the homework's bounded form; Rendle et al. (2009) take −log σ.

    Args:
        positive: (batch,) logits of observed items.
        negative: (batch,) logits of sampled items.

    Returns:
        () the mean loss, in [0, 1]; 0.5 where the two cannot be told apart.
    """
    return (1.0 - torch.sigmoid(positive - negative)).mean()


def regression_loss(score: Tensor, ratings: Tensor) -> Tensor:
    """Mean squared error, equation 5: mean of (r̂ − r)².

    Args:
        score: (batch,) predicted ratings.
        ratings: (batch,) observed ratings.

    Returns:
        () the mean, in squared stars.
    """
    return (score - ratings).square().mean()


class Weights(NamedTuple):
    """λ_F and λ_R."""

    factorization: float
    regression: float


class Triples(NamedTuple):
    """An epoch's training examples in the order of training: aligned (n,) tensors on the network's device.

    The negatives of a step that chooses among candidates are (n, candidates).
    """

    users: Tensor
    items: Tensor
    negatives: Tensor
    ratings: Tensor


class Step(Protocol):
    """Something that trains on all batches of an epoch."""

    def run(self, triples: Triples, batch_size: int) -> Tensor:
        """Take one step a batch, the last of which may be smaller; return each step's (L_F, L_R): (steps, 2)."""


class EagerStep:
    """The step as the homework defines it."""

    def __init__(self, model: MultiTaskNet, adam: AdamState, weights: Weights) -> None:
        self.model, self.weights = model, weights
        self.optimizer: torch.optim.Optimizer = torch.optim.Adam(
            [adam.flat], adam.learning_rate, BETAS, EPSILON, fused=True
        )
        self.optimizer.state[adam.flat] = {
            "step": adam.steps_taken,
            "exp_avg": adam.first_moment,
            "exp_avg_sq": adam.second_moment,
        }

    def run(self, triples: Triples, batch_size: int) -> Tensor:
        batches = zip(*(column.split(batch_size) for column in triples), strict=True)
        return torch.stack([self.step(*batch) for batch in batches])

    def step(self, users: Tensor, items: Tensor, negatives: Tensor, ratings: Tensor) -> Tensor:
        """One step on a batch of triples; returns (2,) L_F and L_R before it."""
        # Both rows of items meet the same users: (2, batch) logits from one look-up of u.
        positive, negative = self.model.predict_interactions(users, torch.stack([items, negatives]))
        factorization = bpr_loss(positive, negative)
        regression = regression_loss(self.model.predict_ratings(users, items), ratings)
        loss = self.weights.factorization * factorization + self.weights.regression * regression
        self._update(loss)
        return torch.stack([factorization.detach(), regression.detach()])

    def _update(self, loss: Tensor) -> None:
        self.optimizer.zero_grad(set_to_none=False)
        loss.backward()
        self.optimizer.step()
