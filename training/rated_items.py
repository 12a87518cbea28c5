"""The items that each user rated in the training set, as some ingredients of ``Settings`` use them.

``sums`` is the second interaction term of SVD++ (Koren, "Factorization Meets the Neighborhood", KDD 2008, equation 15),
with the items' own embeddings instead of a second table, as one layer of LightGCN has it (He et al., SIGIR 2020):

    s_i = n_i^(−1/2) · Σ_{k ∈ N(i)} q_k          N(i): the n_i items that user i rated

A user's embedding is then u_i + s_i. While a rating of item j is trained on, j itself is left out of s_i, because it
would give the answer away. For evaluation the sums are added to the table of users.
"""

from functools import cached_property
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional

from data import Interactions
from training import parts

LARGEST_TABLE = 2**25  # up to this many pairs of users and items have a table; more are found by bisection


class _Bags(NamedTuple):
    """A sparse matrix by rows: the entries of row r begin at ``starts[r]``."""

    columns: Tensor  # (n,) int64
    starts: Tensor  # (rows,) int64
    values: Tensor  # (n,) float32

    def times(self, table: Tensor) -> Tensor:
        """Multiply by a table: (columns, d) → (rows, d)."""
        return functional.embedding_bag(self.columns, table, self.starts, mode="sum", per_sample_weights=self.values)


class _Product(torch.autograd.Function):
    """A sparse matrix times a table; several times as fast as autograd's way through an embedding bag."""

    @staticmethod
    def forward(ctx: Any, table: Tensor, matrix: _Bags, transposed: _Bags) -> Tensor:
        ctx.transposed = transposed
        return matrix.times(table)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, None, None]:
        return ctx.transposed.times(gradients[0].contiguous()), None, None


class RatedItems:
    """The items that each user rated in a training set, which is on the device of the network."""

    def __init__(self, train: Interactions) -> None:
        self.train = train

    @cached_property
    def has_gaps(self) -> bool:
        """Whether an interaction has no rating."""
        return not bool(self.train.rated.all())

    @cached_property
    def counts(self) -> Tensor:
        """Return n_i: (num_users,) int64."""
        return torch.bincount(self.train.user_ids, minlength=self.train.num_users)

    @cached_property
    def scale(self) -> Tensor:
        """Return n_i^(−1/2), or 1 for a user without ratings: (num_users,) float32."""
        return self.counts.clamp(min=1).float().rsqrt()

    def user_weights(self, balance: float) -> Tensor:
        """Return weights proportional to n_i^(−balance), whose mean over all ratings is 1: (num_users,) float32."""
        counts = self.counts.cpu().double()  # on the CPU, because Apple's GPUs have no float64
        weights = counts.clamp(min=1) ** -balance
        return (weights / ((counts * weights).sum() / counts.sum())).float().to(self.counts.device)

    def sums(self, table: Tensor) -> Tensor:
        """Compute s_i, 0 for a user without ratings, from embeddings of items: (num_items, d) → (num_users, d)."""
        sums: Tensor = _Product.apply(table, *self._matrices)
        return sums

    def sums_but_own(self, table: Tensor, users: Tensor, own: Tensor) -> Tensor:
        """Compute s_i of (batch,) users without the (batch, d) row of one of their items, n_i unchanged: (batch, d)."""
        # Not by indexing, whose gradient several threads add up in another order each time.
        sums = functional.embedding(users, self.sums(table))
        return sums - self.scale[users].unsqueeze(1) * own

    def penalties(self, users: Tensor, items: Tensor) -> Tensor:
        """Return −∞ where a user rated an item but not all of the k items, else 0: a new (batch, k) float32 tensor.

        Args:
            users: (batch,)
            items: (k,) for all users, or (batch, k).
        """
        if self._table is not None and items.dim() == 1:  # of all users first: many times as fast as pair by pair
            return _unless_all(self._table.index_select(0, items).T.contiguous()).index_select(0, users)
        users = users.unsqueeze(1)
        if self._table is not None:
            return _unless_all(self._table[items, users])
        key = users * self.train.num_items + items
        place = torch.searchsorted(self._pairs, key).clamp_(max=len(self._pairs) - 1)
        return _unless_all(torch.where(torch.eq(self._pairs[place], key), -torch.inf, 0.0))

    @torch.no_grad()
    def fold_into(self, model: nn.Module) -> None:
        """Add s_i to the embedding of each user, in each table of users."""
        for users, items in parts.tables(model):
            weight: Tensor = items.weight
            users.weight.add_(self.sums(weight))

    @cached_property
    def _pairs(self) -> Tensor:
        """Return a number for each pair, ascending: (pairs,)."""
        pairs: Tensor = torch.unique(self.train.user_ids * self.train.num_items + self.train.item_ids)
        return pairs

    @cached_property
    def _table(self) -> Tensor | None:
        """Return −∞ where a user rated an item, else 0: (num_items, num_users) float32; None if that is too large."""
        shape = self.train.num_items, self.train.num_users
        if shape[0] * shape[1] > LARGEST_TABLE:
            return None
        table = torch.zeros(shape, device=self.train.user_ids.device)
        table[self.train.item_ids, self.train.user_ids] = -torch.inf
        return table

    @cached_property
    def _matrices(self) -> tuple[_Bags, _Bags]:
        """Return the matrix with n_i^(−1/2) where user i rated an item, and its transpose."""
        users, items = self.train.user_ids, self.train.item_ids
        values = self.scale[users]
        by_user, by_item = users.argsort(stable=True), items.argsort(stable=True)
        of_items = torch.bincount(items, minlength=self.train.num_items)
        return (
            _Bags(items[by_user], self.counts.cumsum(0) - self.counts, values[by_user]),
            _Bags(users[by_item], of_items.cumsum(0) - of_items, values[by_item]),
        )


def _unless_all(penalties: Tensor) -> Tensor:
    """Replace rows of −∞ by 0: (rows, k)."""
    every = torch.isneginf(penalties.amax(1, keepdim=True))
    return penalties.masked_fill(every, 0.0) if bool(every.any()) else penalties
