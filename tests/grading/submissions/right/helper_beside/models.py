"""Tables and layers come from a package and a file beside this one."""

import torch
from layers import make_mlp
from parts.tables import ScaledEmbedding, ZeroEmbedding
from torch import nn


class MultiTaskNet(nn.Module):
    def __init__(self, num_users, num_items, embedding_dim=32, layer_sizes=[96, 64], embedding_sharing=True):
        super().__init__()
        self.embedding_sharing = embedding_sharing
        if embedding_sharing:
            self.U, self.Q = self.init_shared_user_and_item_embeddings(num_users, num_items, embedding_dim)
        else:
            self.U_reg, self.Q_reg, self.U_fact, self.Q_fact = self.init_separate_user_and_item_embeddings(
                num_users, num_items, embedding_dim
            )
        self.B = self.init_item_bias(num_users, num_items)
        self.mlp_layers = self.init_mlp_layers(layer_sizes)

    def init_shared_user_and_item_embeddings(self, num_users, num_items, embedding_dim):
        return ScaledEmbedding(num_users, embedding_dim), ScaledEmbedding(num_items, embedding_dim)

    def init_separate_user_and_item_embeddings(self, num_users, num_items, embedding_dim):
        return (
            ScaledEmbedding(num_users, embedding_dim),
            ScaledEmbedding(num_items, embedding_dim),
            ScaledEmbedding(num_users, embedding_dim),
            ScaledEmbedding(num_items, embedding_dim),
        )

    def init_item_bias(self, num_users, num_items):
        return ZeroEmbedding(num_items, 1)

    def init_mlp_layers(self, layer_sizes):
        return make_mlp(layer_sizes)

    def forward(self, user_ids, item_ids):
        if self.embedding_sharing:
            fact = reg = (self.U(user_ids), self.Q(item_ids))
        else:
            fact = self.U_fact(user_ids), self.Q_fact(item_ids)
            reg = self.U_reg(user_ids), self.Q_reg(item_ids)
        predictions = torch.sum(torch.mul(*fact), 1) + self.B(item_ids).reshape(-1)
        score = self.mlp_layers(torch.cat([*reg, torch.mul(*reg)], 1)).reshape(-1)
        return predictions, score
