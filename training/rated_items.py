"""The items that each user rated in the training set, and the users of each item, as some ingredients use them.

``sums`` are embeddings of neighbours: of the items that a user rated, and of the users who rated an item.

    s_i = n_i^(−1/2) · Σ_{k ∈ N(i)} q_k          N(i): the n_i items that user i rated
    t_j = m_j^(−1/2) · Σ_{h ∈ M(j)} u_h          M(j): the m_j users who rated item j

s_i is the second interaction term of SVD++ (Koren, "Factorization Meets the Neighborhood", KDD 2008, equation 15), with
the items' own embeddings instead of a second table; both together are a layer of LightGCN (He et al., SIGIR 2020),
normalized by one degree in place of two. The embeddings are then u_i + s_i and q_j + t_j. While a rating of item j by
user i is trained on, j itself is left out of s_i, and i of t_j, because they would give the answer away. For evaluation
the sums are added to the tables.
"""

from collections.abc import Mapping
from functools import cached_property
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional

from data import Interactions
from training import parts
from training.divided import UNDIVIDED, Division

SUMS = "sums."  # begins the names of t_j in a checkpoint


class _Bags(NamedTuple):
    """A sparse matrix of zeros and ones by rows: the entries of row r begin at ``starts[r]``."""

    columns: Tensor  # (n,) int32 where they are few enough, which saves a third of the time of ``times``
    starts: Tensor  # (rows,) of the same type

    def times(self, table: Tensor) -> Tensor:
        """Multiply by a table: (columns, d) → (rows, d)."""
        return functional.embedding_bag(self.columns, table, self.starts, mode="sum")


class _Product(torch.autograd.Function):
    """A sparse matrix times a table; several times as fast as autograd's way through an embedding bag."""

    @staticmethod
    def forward(ctx: Any, table: Tensor, matrix: _Bags, transposed: _Bags) -> Tensor:
        ctx.transposed = transposed
        return matrix.times(table)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, None, None]:
        return ctx.transposed.times(gradients[0].contiguous()), None, None


class Embeddings(NamedTuple):
    """Rows of users and of items, an embedding each; for a batch, of the user and the item of each example."""

    users: Tensor
    items: Tensor


class RatedItems:
    """The items that each user rated in a training set, and the users of each item, on the device of the network.

    Of several processes, each has those of its users.
    """

    def __init__(self, train: Interactions, division: Division = UNDIVIDED) -> None:
        self.train, self.division = train, division
        self.has_gaps = division.total((~train.rated).sum()) > 0  # whether an interaction of any user has no rating
        self._item_counts = torch.bincount(train.item_ids, minlength=train.num_items)  # of this process's ratings
        self._all_item_counts = division.group.add_up(self._item_counts.clone())  # m_j
        self._marks = torch.zeros(train.num_users, 0, dtype=torch.bool)  # the last result of ``seen``
        self._marked: tuple[Tensor, ...] = ()  # where it is True

    @cached_property
    def counts(self) -> Tensor:
        """Return n_i: (num_users,) int64."""
        return torch.bincount(self.train.user_ids, minlength=self.train.num_users)

    def user_weights(self, balance: float) -> Tensor:
        """Return weights proportional to n_i^(−balance), whose mean over all ratings is 1: (num_users,) float32."""
        counts = self.counts.cpu().double()  # on the CPU, because Apple's GPUs have no float64
        weights = counts.clamp(min=1) ** -balance
        mean = self.division.total((counts * weights).sum()) / self.division.total(counts.sum())
        return (weights / mean).float().to(self.counts.device)

    def sums(self, users: Tensor, items: Tensor) -> Embeddings:
        """Compute s_i and t_j, 0 without ratings, from tables: (num_users, d) and (num_items, d)."""
        by_user, by_item = self._matrices
        of_users = self.division.begin_sum(_Product.apply(users, by_item, by_user))
        of_items: Tensor = _Product.apply(items, by_user, by_item)  # while the processes sum the other product
        scale = self._scale
        return Embeddings(scale.users * of_items, scale.items * of_users())

    def without_own(self, rows: Embeddings, users: Tensor, items: Tensor, own: Embeddings) -> Embeddings:
        """Leave the item of each example out of its user's sum, and the user out of its item's.

        Args:
            rows: (batch, d) each, of the examples' users and items, with all of their sums.
            users, items: (batch,)
            own: (batch, d) each, their rows in the tables.
        """
        scale = self._scale
        return Embeddings(
            torch.addcmul(rows.users, scale.users[users], own.items, value=-1),
            torch.addcmul(rows.items, scale.items[items], own.users, value=-1),
        )

    def seen(self, items: Tensor) -> Tensor:
        """Return the items that each user rated, of (k,) different ones: (num_users, k) bool, until the next call.

        The time is proportional to the number of their ratings: the result of the last call is cleared and used again.
        """
        by_item = self._matrices[1]
        counts = self._item_counts[items]
        places = torch.arange(len(items), device=items.device).repeat_interleave(counts)
        ends = counts.cumsum(0)
        within = torch.arange(len(places), device=items.device) - (ends - counts)[places]
        if self._marks.shape[1] == len(items):
            self._marks[self._marked] = False
        else:
            self._marks = torch.zeros(self.train.num_users, len(items), dtype=torch.bool, device=items.device)
        self._marked = by_item.columns[by_item.starts[items][places] + within], places
        self._marks[self._marked] = True
        return self._marks

    @torch.no_grad()
    def item_sums(self, model: nn.Module) -> dict[str, Tensor]:
        """Return t_j for each of the network's tables of items, by its name in a checkpoint: (num_items, d) each."""
        tables = enumerate(parts.tables(model))
        return {f"{SUMS}{place}": self.sums(users.weight, items.weight).items for place, (users, items) in tables}

    @torch.no_grad()
    def fold_into(self, model: nn.Module, item_sums: Mapping[str, Tensor] | None = None) -> None:
        """Add s_i to the embedding of each user and t_j to that of each item, in all tables.

        Args:
            item_sums: t_j, as ``item_sums`` returns it; by default that of these ratings.
        """
        for place, (users, items) in enumerate(parts.tables(model)):
            sums = self.sums(users.weight, items.weight)
            users.weight.add_(sums.users)
            items.weight.add_(item_sums[f"{SUMS}{place}"] if item_sums else sums.items)

    @cached_property
    def _scale(self) -> Embeddings:
        """Return n_i^(−1/2) and m_j^(−1/2), or 1 without ratings, as columns: (num_users, 1) and (num_items, 1)."""
        counts = self.counts, self._all_item_counts
        return Embeddings(*(each.clamp(min=1).float().rsqrt().unsqueeze(1) for each in counts))

    @cached_property
    def _matrices(self) -> tuple[_Bags, _Bags]:
        """Return the matrix with 1 where a user rated an item, and its transpose.

        The columns of a row are ascending, so that a product reads a table that is larger than the cache from its
        beginning to its end for each row. With the tables of MovieLens 32M this saves a third of the time.
        """
        users, items = self.train.user_ids, self.train.item_ids
        size = torch.int32 if len(users) < 2**31 else torch.int64
        by_item = users.argsort(stable=True)
        by_item = by_item[items[by_item].argsort(stable=True)]
        by_user = by_item[users[by_item].argsort(stable=True)]

        def bags(columns: Tensor, counts: Tensor) -> _Bags:
            return _Bags(columns.to(size), (counts.cumsum(0) - counts).to(size))

        return bags(items[by_user], self.counts), bags(users[by_item], self._item_counts)
