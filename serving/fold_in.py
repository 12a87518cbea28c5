"""A new user's embeddings from a few ratings, while the network stays as it is.

The embeddings minimize λ_F · L_F + λ_R · L_R over the ratings given, with every item as a negative once, whatever was
drawn in training, so that the same ratings always give the same embeddings. Few ratings
say little: a Gaussian prior with the mean and the variance of the embeddings of known users says the rest (maximum a
posteriori; as in Salakhutdinov & Mnih, Probabilistic Matrix Factorization, NIPS 2007).
"""

import torch
from torch import Tensor
from torch.func import functional_call

from metrics import ByForward
from training import parts
from training.scoring import ByTables
from training.steps import Weights, bpr_loss, joint_loss, regression_loss

STEPS, LEARNING_RATE = 100, 0.05
SMALLEST_VARIANCE = 1e-6
PRIOR = 0.03  # weight of the prior beside a rating's loss


class NewUser:
    """The predictions of a network for a user whose embeddings are given, in place of a row of its tables.

    Args:
        recommender: of the network; where it ranks by tables, so does this.

    Raises:
        LookupError: the network has no tables of the homework's names, or reads more of a user than these.
    """

    def __init__(self, recommender: ByForward) -> None:
        self.recommender, model = recommender, recommender.model
        self.tables = parts.factorization_tables(model).users, parts.regression_tables(model).users
        self.every = torch.arange(recommender.num_items)
        tables = {module: name for name, module in model.named_modules()}
        self.names = [f"{tables[table]}.weight" for table in self.tables]
        self._check_last_user()

    @torch.no_grad()
    def _check_last_user(self) -> None:
        """Raise LookupError unless the last user's embeddings give the network's predictions for that user."""
        last, items = self.tables[0].num_embeddings - 1, self.every[:100]
        expected = self.recommender.pairs(torch.full_like(items, last), items)
        found = (self._forward(name, table.weight[last], items)[k]
                 for k, (name, table) in enumerate(zip(self.names, self.tables, strict=True)))  # fmt: skip
        if not all(torch.allclose(*both, rtol=1e-4, atol=1e-5) for both in zip(found, expected, strict=True)):
            raise LookupError(f"models.py reads more of a user than the embedding {self.names[0]}")

    def predictions(self, u: Tensor) -> Tensor:
        """Compute p of all items, equation 1: (d,) → (num_items,)."""
        if isinstance(self.recommender, ByTables):
            return self.recommender.predict_all_items_for(u.unsqueeze(0)).squeeze(0)
        return self._forward(self.names[0], u, self.every)[0]

    def score(self, u: Tensor, items: Tensor) -> Tensor:
        """Compute r̂ of some items, equation 4: (d,) and (n,) → (n,)."""
        return self._forward(self.names[1], u, items)[1]

    def _forward(self, name: str, u: Tensor, items: Tensor) -> tuple[Tensor, Tensor]:
        """Run the network for user 0 with this embedding in a table of users."""
        table = {name: u.expand(self.tables[0].num_embeddings, -1)}
        predictions, score = functional_call(self.recommender.model, table, (torch.zeros_like(items), items))
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
    """Find the embeddings of a user who gave these ratings.

    Args:
        user: of the network; it is not changed.
        items: (n,) int64, what was rated; at least one.
        ratings: (n,) float32.
        factorization_weight, regression_weight, temperature: λ_F, λ_R and T, as in training.

    Returns:
        (embedding_dim,) for equation 1 and (embedding_dim,) for equation 4; the same where the network shares them.
    """
    own = {}  # by table, the embedding and the mean and variance of all others
    for table in user.tables:
        known = table.weight.detach()
        mean, variance = known.mean(0), known.var(0, correction=0).clamp(min=SMALLEST_VARIANCE)
        own[table] = mean.clone().requires_grad_(), mean, variance
    rows = [row for row, _, _ in own.values()]
    u_fact, u_reg = rows[0], rows[-1]
    adam = torch.optim.Adam(rows, lr=LEARNING_RATE)
    for _ in range(STEPS):
        p = user.predictions(u_fact)
        bpr = bpr_loss(p[items].unsqueeze(1) / temperature, p / temperature)
        mse = regression_loss(user.score(u_reg, items), ratings)
        prior = torch.stack([((row - mean).square() / variance).sum() for row, mean, variance in own.values()]).sum()
        joint = joint_loss(bpr, mse, Weights(factorization_weight, regression_weight))
        loss = len(items) * joint + PRIOR * prior
        for row, gradient in zip(rows, torch.autograd.grad(loss, rows), strict=True):  # the network gets none
            row.grad = gradient
        adam.step()
    return u_fact.detach(), u_reg.detach()
