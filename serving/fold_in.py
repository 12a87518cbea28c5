"""A new user's embeddings from a few ratings, while the network stays as it is.

The embeddings minimize λ_F · L_F + λ_R · L_R over the ratings given, with every item as a negative once, whatever was
drawn in training, so that the same ratings always give the same embeddings. Few ratings
say little: a Gaussian prior with the mean and the variance of the embeddings of known users says the rest (maximum a
posteriori; as in Salakhutdinov & Mnih, Probabilistic Matrix Factorization, NIPS 2007).
"""

import torch
from torch import Tensor

from models import MultiTaskNet

STEPS, LEARNING_RATE = 100, 0.05
SMALLEST_VARIANCE = 1e-6
PRIOR = 0.03  # weight of the prior beside a rating's loss


@torch.enable_grad()
def fold_in(
    model: MultiTaskNet,
    items: Tensor,
    ratings: Tensor,
    factorization_weight: float,
    regression_weight: float,
    temperature: float = 1.0,
) -> tuple[Tensor, Tensor]:
    """The embeddings of a user who gave these ratings.

    Args:
        model: the network; it is not changed.
        items: (n,) int64, what was rated; at least one.
        ratings: (n,) float32.
        factorization_weight, regression_weight, temperature: λ_F, λ_R and T, as in training.

    Returns:
        (embedding_dim,) for equation 1 and (embedding_dim,) for equation 4; the same where the network shares them.
    """
    tables = [model.factorization_tables, model.regression_tables]
    known = [users.weight.detach() for users, _ in tables]
    priors = [(table.mean(0), table.var(0, correction=0).clamp(min=SMALLEST_VARIANCE)) for table in known]
    rows = [mean.clone().requires_grad_() for mean, _ in priors]
    if model.embedding_sharing:
        rows[1] = rows[0]
    q_fact, q_reg = tables[0][1].weight.detach(), tables[1][1].weight.detach()[items]
    bias = model.B.weight.detach().squeeze(1)
    apart = [(row, *prior) for row, prior in zip(rows, priors, strict=True)][: 1 if model.embedding_sharing else 2]
    own = [row for row, _, _ in apart]
    adam = torch.optim.Adam(own, lr=LEARNING_RATE)
    for _ in range(STEPS):
        p = q_fact @ rows[0] + bias
        bpr = (1.0 - torch.sigmoid((p[items].unsqueeze(1) - p) / temperature)).mean(1).sum()
        u = rows[1].expand_as(q_reg)
        mse = (model.mlp_layers(torch.cat([u, q_reg, u * q_reg], 1)).squeeze(1) - ratings).square().sum()
        prior = torch.stack([((row - mean).square() / variance).sum() for row, mean, variance in apart]).sum()
        loss = factorization_weight * bpr + regression_weight * mse + PRIOR * prior
        for row, gradient in zip(own, torch.autograd.grad(loss, own), strict=True):  # the network gets none
            row.grad = gradient
        adam.step()
    return rows[0].detach(), rows[1].detach()
