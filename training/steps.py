"""One step of training as the homework defines it, and what every way of taking it has in common.

    L = λ_F · L_F + λ_R · L_R,    L_F = mean(1 − σ(p⁺ − p⁻)),    L_R = mean((r̂ − r)²)      (equations 3 and 5)

``EagerStep`` computes L by the network's ``forward``; autograd and Adam do the rest. It is the definition: a faster
step is taken only where it agrees with this one at the start of a run, see ``rehearsal.py``. So a change here, or in
models.py, shows.
"""

from typing import NamedTuple, Protocol

import torch
from torch import Tensor, nn

from training.adam import AdamState, adam_update


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


def joint_loss(factorization: Tensor, regression: Tensor, weights: Weights) -> Tensor:
    """Compute L = λ_F · L_F + λ_R · L_R, from () L_F and L_R to ()."""
    return weights.factorization * factorization + weights.regression * regression


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
    """The step as the homework defines it.

    Args:
        model: any network with ``forward(user_ids, item_ids)`` → (predictions, score).
        adam: of the network's parameters, laid end to end.
        weights: λ_F and λ_R.
    """

    name = "eager step"

    def __init__(self, model: nn.Module, adam: AdamState, weights: Weights) -> None:
        self.model, self.adam, self.weights = model, adam, weights

    def run(self, triples: Triples, batch_size: int) -> Tensor:
        batches = zip(*(column.split(batch_size) for column in triples), strict=True)
        return torch.stack([self.step(*batch) for batch in batches])

    def step(self, users: Tensor, items: Tensor, negatives: Tensor, ratings: Tensor) -> Tensor:
        """Take one step on a batch of triples; returns (2,) L_F and L_R before it."""
        factorization, regression = self.losses(users, items, negatives, ratings)
        self.update(joint_loss(factorization, regression, self.weights))
        return torch.stack([factorization.detach(), regression.detach()]).float()

    def losses(self, users: Tensor, items: Tensor, negatives: Tensor, ratings: Tensor) -> tuple[Tensor, Tensor]:
        """Compute L_F and L_R of a batch of triples."""
        positive, score = self.model(users, items)
        negative, _ = self.model(users, negatives)
        return bpr_loss(positive, negative), regression_loss(score, ratings)

    def update(self, loss: Tensor) -> None:
        """Move the parameters by a step of Adam along the gradient of the loss."""
        trained = self.adam.everything
        trained.gradient.zero_()
        loss.backward()
        adam_update(self.adam, [trained])
