"""sparse handed on to the tables, off unless asked for; types, a dataclass, a named tuple returned."""

from __future__ import annotations

import dataclasses
from typing import List, NamedTuple, Tuple

import torch
from torch import Tensor, nn


@dataclasses.dataclass
class Config:
    num_users: int
    num_items: int
    embedding_dim: int
    layer_sizes: List[int]
    sparse: bool


class Outputs(NamedTuple):
    predictions: Tensor
    score: Tensor


class ScaledEmbedding(nn.Embedding):
    def reset_parameters(self) -> None:
        self.weight.data.normal_(0, 1.0 / self.embedding_dim)


class ZeroEmbedding(nn.Embedding):
    def reset_parameters(self) -> None:
        self.weight.data.zero_()


class MultiTaskNet(nn.Module):
    def __init__(
        self,
        num_users: int,
        num_items: int,
        embedding_dim: int = 32,
        layer_sizes: List[int] = [96, 64],
        sparse: bool = False,
        embedding_sharing: bool = True,
    ) -> None:
        super().__init__()
        self.config = Config(num_users, num_items, embedding_dim, layer_sizes, sparse)
        self.embedding_sharing = embedding_sharing
        if embedding_sharing:
            self.U, self.Q = self.init_shared_user_and_item_embeddings(num_users, num_items, embedding_dim, sparse)
        else:
            self.U_reg, self.Q_reg, self.U_fact, self.Q_fact = self.init_separate_user_and_item_embeddings(
                num_users, num_items, embedding_dim, sparse
            )
        self.B = self.init_item_bias(num_users, num_items, sparse)
        self.mlp_layers = self.init_mlp_layers(layer_sizes)

    def init_shared_user_and_item_embeddings(
        self, num_users: int, num_items: int, embedding_dim: int, sparse: bool = False
    ) -> Tuple[ScaledEmbedding, ScaledEmbedding]:
        return (
            ScaledEmbedding(num_users, embedding_dim, sparse=sparse),
            ScaledEmbedding(num_items, embedding_dim, sparse=sparse),
        )

    def init_separate_user_and_item_embeddings(
        self, num_users: int, num_items: int, embedding_dim: int, sparse: bool = False
    ) -> Tuple[ScaledEmbedding, ...]:
        sizes = [num_users, num_items] * 2
        return tuple(ScaledEmbedding(size, embedding_dim, sparse=sparse) for size in sizes)

    def init_item_bias(self, num_users: int, num_items: int, sparse: bool = False) -> ZeroEmbedding:
        return ZeroEmbedding(num_items, 1, sparse=sparse)

    def init_mlp_layers(self, layer_sizes: List[int]) -> nn.ModuleList:
        layers = nn.ModuleList()
        for index in range(1, len(layer_sizes)):
            layers.append(nn.Linear(layer_sizes[index - 1], layer_sizes[index]))
            layers.append(nn.ReLU())
        layers.append(nn.Linear(layer_sizes[-1], 1))
        return layers

    @staticmethod
    def factorize(u: Tensor, q: Tensor, b: Tensor) -> Tensor:
        return torch.linalg.vecdot(u, q) + b

    def regress(self, u: Tensor, q: Tensor) -> Tensor:
        hidden = torch.cat([u, q, u * q], dim=1)
        for layer in self.mlp_layers:
            hidden = layer(hidden)
        return hidden[:, 0]

    def forward(self, user_ids: Tensor, item_ids: Tensor) -> Outputs:
        b = self.B(item_ids)[..., 0]
        if self.embedding_sharing:
            u, q = self.U(user_ids), self.Q(item_ids)
            return Outputs(predictions=self.factorize(u, q, b), score=self.regress(u, q))
        return Outputs(
            predictions=self.factorize(self.U_fact(user_ids), self.Q_fact(item_ids), b),
            score=self.regress(self.U_reg(user_ids), self.Q_reg(item_ids)),
        )
