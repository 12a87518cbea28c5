"""One path through forward: with sharing the separate tables' names are other names of the shared ones."""

import torch
from torch import nn


class ScaledEmbedding(nn.Embedding):
    def reset_parameters(self):
        self.weight.data.normal_(0, 1.0 / self.embedding_dim)


class ZeroEmbedding(nn.Embedding):
    def reset_parameters(self):
        self.weight.data.zero_()


class MultiTaskNet(nn.Module):
    def __init__(
        self, num_users, num_items, embedding_dim=32, layer_sizes=[96, 64], embedding_sharing=True, sparse=False
    ):
        super().__init__()
        if embedding_sharing:
            self.U, self.Q = self.init_shared_user_and_item_embeddings(num_users, num_items, embedding_dim)
            self.U_reg = self.U_fact = self.U
            self.Q_reg = self.Q_fact = self.Q
        else:
            tables = self.init_separate_user_and_item_embeddings(num_users, num_items, embedding_dim)
            self.U_reg, self.Q_reg, self.U_fact, self.Q_fact = tables
        self.B = self.init_item_bias(num_users, num_items)
        self.mlp_layers = self.init_mlp_layers(layer_sizes)

    def init_shared_user_and_item_embeddings(self, num_users, num_items, embedding_dim):
        return tuple(ScaledEmbedding(n, embedding_dim) for n in (num_users, num_items))

    def init_separate_user_and_item_embeddings(self, num_users, num_items, embedding_dim):
        return tuple(ScaledEmbedding(n, embedding_dim) for n in (num_users, num_items, num_users, num_items))

    def init_item_bias(self, num_users, num_items):
        return ZeroEmbedding(num_items, 1)

    def init_mlp_layers(self, layer_sizes):
        relu = nn.ReLU()
        layers = [nn.Linear(layer_sizes[0], layer_sizes[1] if len(layer_sizes) > 1 else 1)]
        for i in range(1, len(layer_sizes)):
            layers.append(relu)
            layers.append(nn.Linear(layer_sizes[i], layer_sizes[i + 1] if i + 1 < len(layer_sizes) else 1))
        return nn.Sequential(*layers)

    def forward(self, user_ids, item_ids):
        u, q = self.U_fact(user_ids), self.Q_fact(item_ids)
        predictions = torch.einsum("bd,bd->b", u, q) + self.B(item_ids).flatten()
        u, q = self.U_reg(user_ids), self.Q_reg(item_ids)
        score = self.mlp_layers(torch.cat([u, q, torch.mul(u, q)], -1)).flatten()
        return predictions, score
