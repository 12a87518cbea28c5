"""nn.Sequential of an OrderedDict, bmm, squeeze(-1) twice, the init_* methods as static and class methods."""

from collections import OrderedDict

import torch
import torch.nn as nn


class ScaledEmbedding(nn.Embedding):
    def reset_parameters(self):
        torch.nn.init.normal_(self.weight, mean=0, std=1.0 / self.embedding_dim)


class ZeroEmbedding(nn.Embedding):
    def reset_parameters(self):
        torch.nn.init.zeros_(self.weight)


class MultiTaskNet(nn.Module):
    def __init__(self, num_users, num_items, embedding_dim=32, layer_sizes=None, embedding_sharing=True):
        super().__init__()
        layer_sizes = layer_sizes or [96, 64]
        self.embedding_sharing = embedding_sharing
        self.B = self.init_item_bias(num_users, num_items)
        self.mlp_layers = self.init_mlp_layers(layer_sizes)
        if embedding_sharing is True:
            self.U, self.Q = self.init_shared_user_and_item_embeddings(num_users, num_items, embedding_dim)
        else:
            self.U_reg, self.Q_reg, self.U_fact, self.Q_fact = self.init_separate_user_and_item_embeddings(
                num_users, num_items, embedding_dim
            )

    @staticmethod
    def init_shared_user_and_item_embeddings(num_users, num_items, embedding_dim):
        return ScaledEmbedding(num_users, embedding_dim), ScaledEmbedding(num_items, embedding_dim)

    @classmethod
    def init_separate_user_and_item_embeddings(cls, num_users, num_items, embedding_dim):
        first = cls.init_shared_user_and_item_embeddings(num_users, num_items, embedding_dim)
        second = cls.init_shared_user_and_item_embeddings(num_users, num_items, embedding_dim)
        return first + second

    @staticmethod
    def init_item_bias(num_users, num_items):
        return ZeroEmbedding(num_embeddings=num_items, embedding_dim=1)

    @staticmethod
    def init_mlp_layers(layer_sizes):
        layers = OrderedDict()
        for i, (a, b) in enumerate(zip(layer_sizes[:-1], layer_sizes[1:])):
            layers["linear%d" % i] = nn.Linear(a, b)
            layers["relu%d" % i] = nn.ReLU(inplace=True)
        layers["out"] = nn.Linear(layer_sizes[-1], 1)
        return nn.Sequential(layers)

    def dot(self, u, q):
        return torch.bmm(u.unsqueeze(1), q.unsqueeze(2)).squeeze(-1).squeeze(-1)

    def forward(self, user_ids, item_ids):
        if self.embedding_sharing:
            u, q = self.U(user_ids), self.Q(item_ids)
            ur, qr = u, q
        else:
            u, q = self.U_fact(user_ids), self.Q_fact(item_ids)
            ur, qr = self.U_reg(user_ids), self.Q_reg(item_ids)
        predictions = self.dot(u, q) + self.B(item_ids).squeeze(-1)
        score = self.mlp_layers(torch.cat([ur, qr, ur * qr], dim=1)).squeeze(-1)
        return predictions, score
