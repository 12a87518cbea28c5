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
from training.divided import UNDIVIDED, Division


class _Bags(NamedTuple):
    """A sparse matrix by rows: the entries of row r begin at ``starts[r]``."""

    columns: Tensor  # (n,) int32 where they are few enough, which saves a third of the time of ``times``
    starts: Tensor  # (rows,) of the same type
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
    """The items that each user rated in a training set, which is on the device of the network.

    Of several processes, each has those of its users.
    """

    def __init__(self, train: Interactions, division: Division = UNDIVIDED) -> None:
        self.train, self.division = train, division
        self.has_gaps = division.total((~train.rated).sum()) > 0  # whether an interaction of any user has no rating

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
        mean = self.division.total((counts * weights).sum()) / self.division.total(counts.sum())
        return (weights / mean).float().to(self.counts.device)

    def sums(self, table: Tensor) -> Tensor:
        """Compute s_i, 0 for a user without ratings, from embeddings of items: (num_items, d) → (num_users, d)."""
        sums: Tensor = _Product.apply(table, *self._matrices)
        return sums

    def sums_but_own(self, table: Tensor, users: Tensor, own: Tensor) -> Tensor:
        """Compute s_i of (batch,) users without the (batch, d) row of one of their items, n_i unchanged: (batch, d)."""
        # Not by indexing, whose gradient several threads add up in another order each time.
        sums = functional.embedding(users, self.sums(table))
        return sums - self.scale[users].unsqueeze(1) * own

    def seen(self, items: Tensor) -> Tensor:
        """Return the items that each user rated, of (k,) different ones: (num_users, k) bool.

        The time is proportional to the number of their ratings, and to the size of the result.
        """
        by_item = self._matrices[1]
        counts = self._item_counts[items]
        places = torch.arange(len(items), device=items.device).repeat_interleave(counts)
        ends = counts.cumsum(0)
        within = torch.arange(len(places), device=items.device) - (ends - counts)[places]
        found = torch.zeros(self.train.num_users, len(items), dtype=torch.bool, device=items.device)
        found[by_item.columns[by_item.starts[items][places] + within], places] = True
        return found

    @torch.no_grad()
    def fold_into(self, model: nn.Module) -> None:
        """Add s_i to the embedding of each user, in each table of users."""
        for users, items in parts.tables(model):
            weight: Tensor = items.weight
            users.weight.add_(self.sums(weight))

    @cached_property
    def _item_counts(self) -> Tensor:
        """Return the number of ratings of each item: (num_items,) int64."""
        return torch.bincount(self.train.item_ids, minlength=self.train.num_items)

    @cached_property
    def _matrices(self) -> tuple[_Bags, _Bags]:
        """Return the matrix with n_i^(−1/2) where user i rated an item, and its transpose.

        The columns of a row are ascending, so that a product reads a table that is larger than the cache from its
        beginning to its end for each row. With the tables of MovieLens 32M this saves a third of the time.
        """
        users, items = self.train.user_ids, self.train.item_ids
        size = torch.int32 if len(users) < 2**31 else torch.int64
        by_item = users.argsort(stable=True)
        by_item = by_item[items[by_item].argsort(stable=True)]
        by_user = by_item[users[by_item].argsort(stable=True)]

        def bags(columns: Tensor, counts: Tensor, values: Tensor) -> _Bags:
            return _Bags(columns.to(size), (counts.cumsum(0) - counts).to(size), values)

        of_users, of_items = users[by_user], users[by_item]
        return (
            bags(items[by_user], self.counts, self.scale[of_users]),
            bags(of_items, self._item_counts, self.scale[of_items]),
        )
