"""The embeddings of a new user, from a few interactions, for a network that does not change.

The embeddings minimize λ_F · L_F + λ_R · L_R over the interactions given, of which L_R reads those with a rating. Every
item is a negative once, unlike in training, so that the same interactions always give the same embeddings. Few
interactions determine little. Therefore a Gaussian prior with the mean and variance of the users' trained embeddings is
added (maximum a posteriori, as in Salakhutdinov & Mnih, Probabilistic Matrix Factorization, NIPS 2007).
"""

import torch
from torch import Tensor
from torch.func import functional_call

from metrics import ByForward
from training import parts
from training.evaluation import ByTables
from training.steps import LossWeights, bpr_loss, joint_loss, loss_of_rated

STEPS, LEARNING_RATE = 100, 0.05
SMALLEST_VARIANCE = 1e-6
PRIOR = 0.03  # weight of the prior relative to the loss of one rating


class NewUser:
    """The predictions of a network for a user with given embeddings.

    Args:
        scorer: the network's; predictions are computed in the same way, by tables or by ``forward``.
        trained: (users,) bool, the users whose embeddings are trained; by default all.

    Attributes:
        tables: the users' tables of equations 1 and 4; a single one if the network shares them.
        means, variances: of the trained embeddings in each table, (embedding_dim,) each.

    Raises:
        LookupError: the network has no tables with the homework's names, or reads more about a user than these.
    """

    def __init__(self, scorer: ByForward, trained: Tensor | None = None) -> None:
        self.scorer = scorer
        self.items = torch.arange(scorer.num_items)
        self.tables = [pair.users for pair in parts.tables(scorer.model)]
        names = {module: f"{name}.weight" for name, module in scorer.model.named_modules()}
        self._names = [names[table] for table in self.tables]
        self._check_last_user()
        users = [table.weight.detach() if trained is None else table.weight.detach()[trained] for table in self.tables]
        self.means = [each.mean(0) for each in users]
        self.variances = [each.var(0, correction=0).clamp(min=SMALLEST_VARIANCE) for each in users]

    @torch.no_grad()
    def _check_last_user(self) -> None:
        """Raise LookupError unless the last user's embeddings give the network's predictions for that user."""
        last, items = self.tables[0].num_embeddings - 1, self.items[:100]
        p, score = self.scorer.pairs(torch.full_like(items, last), items)
        rows = [table.weight[last] for table in self.tables]
        for found, expected in (
            (self._forward(self._names[0], rows[0], items)[0], p),
            (self.score(rows[-1], items), score),
        ):
            if not torch.allclose(found, expected, rtol=1e-4, atol=1e-5):
                raise LookupError(f"models.py reads more about a user than the embedding {self._names[0]}")

    def predictions(self, u: Tensor) -> Tensor:
        """Compute p of all items, equation 1: (d,) → (num_items,)."""
        if isinstance(self.scorer, ByTables):
            return self.scorer.predict_all_items_for(u.unsqueeze(0)).squeeze(0)
        return self._forward(self._names[0], u, self.items)[0]

    def score(self, u: Tensor, items: Tensor) -> Tensor:
        """Compute r̂ of some items, equation 4: (d,) and (n,) → (n,)."""
        return self._forward(self._names[-1], u, items)[1]

    def _forward(self, name: str, u: Tensor, items: Tensor) -> tuple[Tensor, Tensor]:
        """Call the network for user 0, with this embedding in every row of a table."""
        table = {name: u.expand(self.tables[0].num_embeddings, -1)}
        predictions, score = functional_call(self.scorer.model, table, (torch.zeros_like(items), items))
        return predictions, score


@torch.enable_grad()
def fold_in(
    user: NewUser,
    items: Tensor,
    ratings: Tensor,
    factorization_weight: float,
    regression_weight: float,
    temperature: float = 1.0,
) -> tuple[Tensor, Tensor]:
    """Find the embeddings of a user with these interactions.

    Args:
        user: the new user of a network.
        items: (n,) int64. Without one, the embeddings are the means of all users'.
        ratings: (n,) float32, in the network's unit; NaN where an interaction has none.
        factorization_weight, regression_weight, temperature: λ_F, λ_R and T, as in training.

    Returns:
        (embedding_dim,) for equation 1 and (embedding_dim,) for equation 4; the same if the network shares them.
    """
    if len(items) == 0:
        return user.means[0], user.means[-1]
    rows = [mean.clone().requires_grad_() for mean in user.means]
    weights = LossWeights(factorization_weight, regression_weight)
    adam = torch.optim.Adam(rows, lr=LEARNING_RATE)
    for _ in range(STEPS):
        p = user.predictions(rows[0])
        bpr = bpr_loss(p[items].unsqueeze(1) / temperature, p / temperature)
        mse = loss_of_rated(user.score(rows[-1], items), ratings)
        prior = sum(
            ((row - mean).square() / variance).sum()
            for row, mean, variance in zip(rows, user.means, user.variances, strict=True)
        )
        loss = len(items) * joint_loss(bpr, mse, weights) + PRIOR * prior
        for row, gradient in zip(rows, torch.autograd.grad(loss, rows), strict=True):  # none for the network
            row.grad = gradient
        adam.step()
    return rows[0].detach(), rows[-1].detach()
