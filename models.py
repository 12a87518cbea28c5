"""The network: two tasks, one set of user and item embeddings or a set for each.

    p_ij = u_i · q_j + b_j                      how likely user i is to watch movie j   (equation 1)
    r̂_ij = f_θ([u_i, q_j, u_i ∗ q_j])           the rating user i would give movie j    (equation 4)

f_θ is a multi-layer perceptron. With shared embeddings both lines read the same u and q, so that each task learns
from the other's gradients; without, each task has tables of its own and the two only share a training loop.
"""

import numbers
from collections.abc import Sequence

import torch
from torch import Tensor, nn


class ScaledEmbedding(nn.Embedding):
    """An embedding drawn from N(0, σ²) with σ = 1/embedding_dim; the padding row, if there is one, is zero.

    The scale is Spotlight's (Kula, 2017): dot products of fresh embeddings start near zero.
    """

    def reset_parameters(self) -> None:
        nn.init.normal_(self.weight, mean=0.0, std=1.0 / self.embedding_dim)
        if self.padding_idx is not None:
            nn.init.zeros_(self.weight.data[self.padding_idx])


class ZeroEmbedding(nn.Embedding):
    """An embedding that starts at zero, for biases."""

    def reset_parameters(self) -> None:
        nn.init.zeros_(self.weight)


class MultiTaskNet(nn.Module):
    """Matrix factorization and a rating MLP over user and item embeddings.

    Args:
        num_users: users have ids in [0, num_users).
        num_items: items have ids in [0, num_items).
        embedding_dim: length d of every u_i and q_j.
        layer_sizes: input width of each linear layer of the MLP. The first is 3·embedding_dim, the length of
            [u, q, u ∗ q]; the last layer's output width is 1.
        embedding_sharing: one pair of tables for both tasks, or a pair for each.
        sparse: give the tables sparse gradients, for optimizers that take them (torch.optim.SparseAdam).

    Attributes:
        U, Q: tables of shape (num_users, d) and (num_items, d), with embedding sharing.
        U_reg, Q_reg, U_fact, Q_fact: without; ``_reg`` serves equation 4 and ``_fact`` equation 1.
        B: item biases, (num_items, 1).
        mlp_layers: Linear, ReLU, …, Linear.

    Raises:
        ValueError: a size is not positive, or layer_sizes does not start with 3·embedding_dim.
    """

    U: ScaledEmbedding
    Q: ScaledEmbedding
    U_reg: ScaledEmbedding
    Q_reg: ScaledEmbedding
    U_fact: ScaledEmbedding
    Q_fact: ScaledEmbedding

    def __init__(
        self,
        num_users: int,
        num_items: int,
        embedding_dim: int = 32,
        layer_sizes: Sequence[int] = (96, 64),
        embedding_sharing: bool = True,
        sparse: bool = False,
    ) -> None:
        super().__init__()
        for name, size in {"num_users": num_users, "num_items": num_items}.items():
            _check_positive(name, size)
        check_sizes(embedding_dim, layer_sizes)
        self.embedding_dim = embedding_dim
        self.embedding_sharing = embedding_sharing

        if embedding_sharing:
            self.U, self.Q = self.init_shared_user_and_item_embeddings(num_users, num_items, embedding_dim)
        else:
            self.U_reg, self.Q_reg, self.U_fact, self.Q_fact = self.init_separate_user_and_item_embeddings(
                num_users, num_items, embedding_dim
            )
        self.B = self.init_item_bias(num_users, num_items)
        for table in self.children():
            if isinstance(table, nn.Embedding):
                table.sparse = sparse

        self.mlp_layers = self.init_mlp_layers(layer_sizes)

    # The init_* methods depend on their arguments alone: graders call them on the class, with any object as self.

    def init_shared_user_and_item_embeddings(
        self, num_users: int, num_items: int, embedding_dim: int
    ) -> tuple[ScaledEmbedding, ScaledEmbedding]:
        """Make U of shape (num_users, embedding_dim) and Q of shape (num_items, embedding_dim), for both tasks."""
        return ScaledEmbedding(num_users, embedding_dim), ScaledEmbedding(num_items, embedding_dim)

    def init_separate_user_and_item_embeddings(
        self, num_users: int, num_items: int, embedding_dim: int
    ) -> tuple[ScaledEmbedding, ScaledEmbedding, ScaledEmbedding, ScaledEmbedding]:
        """Make U_reg, Q_reg, U_fact and Q_fact, in this order, with the shapes of the shared tables."""
        U_reg, Q_reg = ScaledEmbedding(num_users, embedding_dim), ScaledEmbedding(num_items, embedding_dim)
        U_fact, Q_fact = ScaledEmbedding(num_users, embedding_dim), ScaledEmbedding(num_items, embedding_dim)
        return U_reg, Q_reg, U_fact, Q_fact

    def init_item_bias(self, num_users: int, num_items: int) -> ZeroEmbedding:
        """Make B of shape (num_items, 1). A user bias would not change any user's ranking, so there is none."""
        return ZeroEmbedding(num_items, 1)

    def init_mlp_layers(self, layer_sizes: Sequence[int]) -> nn.Sequential:
        """Make Linear, ReLU, …, Linear: 2·len(layer_sizes) − 1 layers whose input widths are layer_sizes.

        Raises:
            ValueError: layer_sizes is empty or has a size below 1.
        """
        _check_layer_sizes(layer_sizes)
        layers: list[nn.Module] = []
        for width, next_width in zip(layer_sizes, [*layer_sizes[1:], 1], strict=True):
            layers += [nn.Linear(width, next_width), nn.ReLU()]
        return nn.Sequential(*layers[:-1])

    @property
    def factorization_tables(self) -> tuple[ScaledEmbedding, ScaledEmbedding]:
        """The user and item tables that equation 1 reads."""
        return (self.U, self.Q) if self.embedding_sharing else (self.U_fact, self.Q_fact)

    @property
    def regression_tables(self) -> tuple[ScaledEmbedding, ScaledEmbedding]:
        """The user and item tables that equation 4 reads."""
        return (self.U, self.Q) if self.embedding_sharing else (self.U_reg, self.Q_reg)

    def forward(self, user_ids: Tensor, item_ids: Tensor) -> tuple[Tensor, Tensor]:
        """Both tasks for pairs of ids.

        Args:
            user_ids: (batch,) integers in [0, num_users).
            item_ids: (batch,) integers in [0, num_items).

        Returns:
            predictions: (batch,) interaction logits p_ij, equation 1.
            score: (batch,) predicted ratings r̂_ij, equation 4.

        Raises:
            IndexError: an id is out of range.
        """
        if self.embedding_sharing:
            return self.forward_with_embedding_sharing(user_ids, item_ids)
        return self.forward_without_embedding_sharing(user_ids, item_ids)

    def forward_with_embedding_sharing(self, user_ids: Tensor, item_ids: Tensor) -> tuple[Tensor, Tensor]:
        """``forward``, looking each id up once for both tasks."""
        self._check_ids_on_gpu(user_ids, item_ids)
        u, q = _rows(self.U, user_ids, "user"), _rows(self.Q, item_ids, "item")
        return self._interaction(u, q, item_ids), self._rating(u, q)

    def forward_without_embedding_sharing(self, user_ids: Tensor, item_ids: Tensor) -> tuple[Tensor, Tensor]:
        """``forward``, with each task's own tables."""
        self._check_ids_on_gpu(user_ids, item_ids)
        u_fact, q_fact = _rows(self.U_fact, user_ids, "user"), _rows(self.Q_fact, item_ids, "item")
        u_reg, q_reg = _rows(self.U_reg, user_ids, "user"), _rows(self.Q_reg, item_ids, "item")
        return self._interaction(u_fact, q_fact, item_ids), self._rating(u_reg, q_reg)

    # One task at a time, for training and ranking. On a GPU these leave ids out of range to torch's own assertion.

    def predict_interactions(self, user_ids: Tensor, item_ids: Tensor) -> Tensor:
        """Interaction logits p_ij alone, equation 1: (batch,) ids of users and items → (batch,)."""
        users, items = self.factorization_tables
        return self._interaction(_rows(users, user_ids, "user"), _rows(items, item_ids, "item"), item_ids)

    def predict_ratings(self, user_ids: Tensor, item_ids: Tensor) -> Tensor:
        """Predicted ratings r̂_ij alone, equation 4: (batch,) ids of users and items → (batch,)."""
        users, items = self.regression_tables
        return self._rating(_rows(users, user_ids, "user"), _rows(items, item_ids, "item"))

    def predict_all_items(self, user_ids: Tensor) -> Tensor:
        """Interaction logits of every item, equation 1 as one matrix product: (users,) → (users, num_items)."""
        users, items = self.factorization_tables
        return torch.addmm(self.B.weight.T, _rows(users, user_ids, "user"), items.weight.T)

    def _interaction(self, u: Tensor, q: Tensor, item_ids: Tensor) -> Tensor:
        b: Tensor = self.B(item_ids)
        return (u * q).sum(-1) + b.squeeze(-1)

    def _rating(self, u: Tensor, q: Tensor) -> Tensor:
        score: Tensor = self.mlp_layers(torch.cat([u, q, u * q], dim=-1))
        return score.squeeze(-1)

    def _check_ids_on_gpu(self, user_ids: Tensor, item_ids: Tensor) -> None:
        """Look at the ids before the look-up: on a CPU it raises by itself, but a GPU's cannot."""
        if user_ids.device.type in ("cuda", "mps"):
            users, items = self.factorization_tables
            _check_range(users, user_ids, "user")
            _check_range(items, item_ids, "item")


def check_sizes(embedding_dim: int, layer_sizes: Sequence[int]) -> None:
    """Raise ValueError unless ``MultiTaskNet`` can be made with these."""
    _check_positive("embedding_dim", embedding_dim)
    _check_layer_sizes(layer_sizes)
    if layer_sizes[0] != 3 * embedding_dim:
        raise ValueError(
            f"layer_sizes starts with {layer_sizes[0]}, but the MLP reads [u, q, u ∗ q]: "
            f"expected 3·embedding_dim = {3 * embedding_dim}"
        )


def _check_layer_sizes(layer_sizes: Sequence[int]) -> None:
    if len(layer_sizes) == 0:
        raise ValueError("layer_sizes is empty: expected at least the input width, 3·embedding_dim")
    for size in layer_sizes:
        _check_positive("every one of layer_sizes", size)


def _rows(table: nn.Embedding, ids: Tensor, kind: str) -> Tensor:
    """The rows of a table; an id out of range is named only once the lookup has failed, so checking costs nothing."""
    try:
        rows: Tensor = table(ids)
    except IndexError:
        _check_range(table, ids, kind)
        raise
    return rows


def _check_range(table: nn.Embedding, ids: Tensor, kind: str) -> None:
    wrong = ids[(ids < 0) | (ids >= table.num_embeddings)]
    if wrong.numel() > 0:
        raise IndexError(f"{kind} id {wrong[0].item()} is out of range: expected 0 to {table.num_embeddings - 1}")


def _check_positive(name: str, size: int) -> None:
    if not isinstance(size, numbers.Integral) or size < 1:
        raise ValueError(f"{name} must be a positive integer, not {size!r}")
