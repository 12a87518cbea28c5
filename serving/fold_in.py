"""The embeddings of new users, from a few interactions of each, for a network that does not change.

The embeddings minimize λ_F · L_F + λ_R · L_R over a user's interactions, of which L_R reads those with a rating. L_F
is equation 3 for every ranking loss that the network was trained with, and every item is a negative. If there are
more than ``MANY_ITEMS``, each step draws its negatives, and the learning rate falls, so that the draws average out.
The seed is fixed, so that the same interactions always give the same embeddings. Few interactions determine little.
Therefore a Gaussian prior with the mean and variance of the users' trained embeddings is added (maximum a posteriori,
as in Salakhutdinov & Mnih, Probabilistic Matrix Factorization, NIPS 2007).
"""

from collections.abc import Iterator, Sequence
from typing import NamedTuple

import torch
from torch import Tensor
from torch.func import functional_call

from metrics import ByForward
from training import parts
from training.evaluation import ByTables
from training.steps import LossWeights, bpr_loss, joint_loss, loss_of_rated

STEPS, LEARNING_RATE = 100, 0.05
MANY_ITEMS, NEGATIVES = 2**11, 2**9  # of more items than these, so many negatives are drawn for a step
PAIRS = 2**20  # of a positive and a negative in a step, at most
FEWEST = 16  # a user has the room of this many positives in a batch, because the predictions for negatives need some
SMALLEST_VARIANCE = 1e-6
PRIOR = 0.03  # weight of the prior relative to the loss of one rating


class Known(NamedTuple):
    """The interactions of new users, user after user.

    Attributes:
        items: (n,) int64.
        ratings: (n,) float32, in the network's unit; NaN where an interaction has none.
        counts: the number of interactions of each user.
    """

    items: Tensor
    ratings: Tensor
    counts: Sequence[int]


class NewRows:
    """The predictions of a network for new users, who have rows of embeddings outside its tables.

    Args:
        scorer: the network's; predictions are computed in the same way, by tables or by ``forward``.
        trained: (users,) bool, the users whose embeddings are trained, in the first rows of a table; by default all.

    Attributes:
        items: (num_items,) int64, all items.
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
        users = [table.weight.detach() for table in self.tables]
        if trained is not None:  # a table may have more rows than there are users
            users = [table[: len(trained)][trained] for table in users]
        self.means = [each.mean(0) for each in users]
        self.variances = [each.var(0, correction=0).clamp(min=SMALLEST_VARIANCE) for each in users]

    @torch.no_grad()
    def _check_last_user(self) -> None:
        """Raise LookupError unless the last user's embeddings give the network's predictions for that user."""
        last, items = self.tables[0].num_embeddings - 1, self.items[:100]
        rows = [table.weight[last:] for table in self.tables]
        found = self.pairs(rows, torch.zeros_like(items), items)
        expected = self.scorer.pairs(torch.full_like(items, last), items)
        if not all(
            torch.allclose(one, other, rtol=1e-4, atol=1e-5) for one, other in zip(found, expected, strict=True)
        ):
            raise LookupError(f"models.py reads more about a user than the embedding {self._names[0]}")

    def pairs(self, rows: Sequence[Tensor], users: Tensor, items: Tensor) -> tuple[Tensor, Tensor]:
        """Compute p and r̂, equations 1 and 4, of pairs of a new user and an item.

        Args:
            rows: (new users, embedding_dim) for each of ``tables``.
            users, items: (n,) int64 each.

        Returns:
            (n,) and (n,).
        """
        tables = dict(zip(self._names, rows, strict=True))
        # A module that is registered twice would not get its own table back if names were tied.
        predictions, score = functional_call(self.scorer.model, tables, (users, items), tie_weights=False)
        return predictions, score

    def predictions(self, rows: Sequence[Tensor], items: Tensor) -> Tensor:
        """Compute p of all new users and some items: (n,) items → (new users, n)."""
        if isinstance(self.scorer, ByTables):
            return torch.addmm(self.scorer.bias(items).T, rows[0], self.scorer.tables.items(items).T)
        users = torch.arange(len(rows[0]))
        p, _ = self.pairs(rows, users.repeat_interleave(len(items)), items.repeat(len(users)))
        return p.view(len(users), len(items))


def _negatives(num_items: int) -> int:
    """Return the number of negatives in a step."""
    return num_items if num_items <= MANY_ITEMS else NEGATIVES


def batches(counts: Sequence[int], num_items: int) -> Iterator[range]:
    """Divide users with these numbers of interactions into batches of at most PAIRS pairs, or of a single user."""
    most = PAIRS // _negatives(num_items)
    start = total = 0
    for place, count in enumerate(counts):
        room = max(FEWEST, count)
        if total + room > most and place > start:
            yield range(start, place)
            start, total = place, 0
        total += room
    if counts:
        yield range(start, len(counts))


@torch.enable_grad()
def fold_in(network: NewRows, known: Known, weights: LossWeights) -> list[Tensor]:
    """Find the embeddings of new users with these interactions; those of a user without any are the means.

    Args:
        network: the network.
        known: a batch of users, see ``batches``.
        weights: λ_F and λ_R, as in training.

    Returns:
        (users, embedding_dim) for each of the network's tables.
    """
    items, counts = known.items, known.counts
    rows = [mean.repeat(len(counts), 1).requires_grad_() for mean in network.means]
    users = torch.arange(len(counts)).repeat_interleave(torch.tensor(counts))
    generator = torch.Generator().manual_seed(0)
    negatives = network.items
    number = min(_negatives(len(negatives)), max(1, PAIRS // max(1, len(items))))  # the second is for a single user
    adam = torch.optim.Adam(rows, lr=LEARNING_RATE)
    for step in range(STEPS if len(items) else 0):
        if number < len(network.items):
            negatives = torch.randint(len(network.items), (number,), generator=generator)
            adam.param_groups[0]["lr"] = LEARNING_RATE * (1 - step / STEPS)
        positive, score = network.pairs(rows, users, items)
        negative = network.predictions(rows, negatives)[users]
        bpr = bpr_loss(positive.unsqueeze(1), negative)
        of_users = zip(counts, score.split(counts), known.ratings.split(counts), strict=True)
        mse = torch.stack([count * loss_of_rated(own, ratings) for count, own, ratings in of_users]).sum() / len(items)
        loss = len(items) * joint_loss(bpr, mse, weights) + PRIOR * _prior(network, rows)
        for row, gradient in zip(rows, torch.autograd.grad(loss, rows), strict=True):  # none for the network
            row.grad = gradient
        adam.step()
    return [row.detach() for row in rows]


def _prior(network: NewRows, rows: Sequence[Tensor]) -> Tensor:
    """Compute −2 log of the Gaussian prior of all new users, without its constant: ()."""
    tables = zip(rows, network.means, network.variances, strict=True)
    return torch.stack([((row - mean).square() / variance).sum() for row, mean, variance in tables]).sum()
