"""init_* methods that read attributes of the constructor, and whose arguments all have defaults."""

import torch
from torch import nn


class ScaledEmbedding(nn.Embedding):
    def reset_parameters(self):
        self.weight.data.normal_(0, 1.0 / self.embedding_dim)


class ZeroEmbedding(nn.Embedding):
    def reset_parameters(self):
        self.weight.data.zero_()


class MultiTaskNet(nn.Module):
    def __init__(self, num_users, num_items, embedding_dim=32, layer_sizes=[96, 64], embedding_sharing=True, **kwargs):
        super().__init__()
        self.num_users, self.num_items, self.dim = num_users, num_items, embedding_dim
        self.embedding_sharing = embedding_sharing
        self.activation = nn.ReLU
        if embedding_sharing:
            self.U, self.Q = self.init_shared_user_and_item_embeddings(num_users, num_items, embedding_dim)
        else:
            self.U_reg, self.Q_reg, self.U_fact, self.Q_fact = self.init_separate_user_and_item_embeddings(
                num_users, num_items, embedding_dim
            )
        self.B = self.init_item_bias(num_users, num_items)
        self.mlp_layers = self.init_mlp_layers(layer_sizes)

    def init_shared_user_and_item_embeddings(self, num_users, num_items, embedding_dim):
        return ScaledEmbedding(self.num_users, self.dim), ScaledEmbedding(self.num_items, self.dim)

    def init_separate_user_and_item_embeddings(self, num_users, num_items, embedding_dim):
        U_reg, Q_reg = ScaledEmbedding(self.num_users, self.dim), ScaledEmbedding(self.num_items, self.dim)
        U_fact, Q_fact = ScaledEmbedding(self.num_users, self.dim), ScaledEmbedding(self.num_items, self.dim)
        return U_reg, Q_reg, U_fact, Q_fact

    def init_item_bias(self, num_users, num_items):
        return ZeroEmbedding(self.num_items, 1)

    def init_mlp_layers(self, layer_sizes):
        layers = []
        for i, o in zip(layer_sizes, layer_sizes[1:]):
            layers.extend([nn.Linear(i, o), self.activation()])
        return nn.Sequential(*layers, nn.Linear(layer_sizes[-1], 1))

    def forward(self, user_ids, item_ids):
        user_ids, item_ids = user_ids.long(), item_ids.long()
        batch_size = user_ids.size(0)
        suffix = "" if self.embedding_sharing else "_fact"
        u, q = getattr(self, "U" + suffix)(user_ids), getattr(self, "Q" + suffix)(item_ids)
        p = torch.diagonal(u @ q.T) + self.B(item_ids).view(batch_size)
        suffix = "" if self.embedding_sharing else "_reg"
        u, q = getattr(self, "U" + suffix)(user_ids), getattr(self, "Q" + suffix)(item_ids)
        x = torch.empty(batch_size, 3 * self.dim)
        x[:, : self.dim], x[:, self.dim : 2 * self.dim], x[:, 2 * self.dim :] = u, q, u * q
        return p, self.mlp_layers(x).view(batch_size)
