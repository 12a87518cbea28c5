"""Everything in the constructor, without any init_* method; weights made right after nn.Embedding's own."""

import torch
from torch import nn
from torch.nn import functional as F


class ScaledEmbedding(nn.Embedding):
    def __init__(self, n, d):
        super().__init__(n, d)
        nn.init.normal_(self.weight, std=1 / d)


class ZeroEmbedding(nn.Embedding):
    def __init__(self, n, d):
        super().__init__(n, d)
        nn.init.constant_(self.weight, 0.0)


class MultiTaskNet(nn.Module):
    def __init__(self, num_users, num_items, embedding_dim=32, layer_sizes=(96, 64), embedding_sharing=True):
        super().__init__()
        self.shared = embedding_sharing
        if self.shared:
            self.U = ScaledEmbedding(num_users, embedding_dim)
            self.Q = ScaledEmbedding(num_items, embedding_dim)
        else:
            for task in ("reg", "fact"):
                setattr(self, "U_" + task, ScaledEmbedding(num_users, embedding_dim))
                setattr(self, "Q_" + task, ScaledEmbedding(num_items, embedding_dim))
        self.B = ZeroEmbedding(num_items, 1)
        sizes = list(layer_sizes) + [1]
        layers = []
        for n_in, n_out in zip(sizes, sizes[1:]):
            layers += [nn.Linear(n_in, n_out), nn.ReLU()]
        layers.pop()
        self.mlp_layers = nn.Sequential(*layers)

    def forward(self, user_ids, item_ids):
        U_f, Q_f = (self.U, self.Q) if self.shared else (self.U_fact, self.Q_fact)
        U_r, Q_r = (self.U, self.Q) if self.shared else (self.U_reg, self.Q_reg)
        p = (F.embedding(user_ids, U_f.weight) * F.embedding(item_ids, Q_f.weight)).sum(1)
        p = p + F.embedding(item_ids, self.B.weight)[:, 0]
        u, q = U_r.weight[user_ids], Q_r.weight[item_ids]
        r = self.mlp_layers(torch.hstack([u, q, u * q]))
        return p, r[:, 0]
