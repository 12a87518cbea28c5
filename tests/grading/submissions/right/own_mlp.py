"""A class of its own for the MLP, with the ReLU called in its forward, and a helper class for the tables."""

import torch
import torch.nn as nn
import torch.nn.functional as F


class ScaledEmbedding(nn.Embedding):
    def reset_parameters(self):
        self.weight.data.normal_(0, 1.0 / self.embedding_dim)


class ZeroEmbedding(nn.Embedding):
    def reset_parameters(self):
        self.weight.data.zero_()


class MLP(nn.Module):
    def __init__(self, sizes):
        super().__init__()
        self.out = nn.Linear(sizes[-1], 1)
        self.hidden = nn.ModuleList(nn.Linear(a, b) for a, b in zip(sizes[:-1], sizes[1:]))

    def forward(self, x):
        for layer in self.hidden:
            x = F.relu(layer(x))
        return self.out(x)


class Tables(nn.Module):
    """A user and an item table."""

    def __init__(self, users, items):
        super().__init__()
        self.users, self.items = users, items

    def forward(self, user_ids, item_ids):
        return self.users(user_ids), self.items(item_ids)


class MultiTaskNet(nn.Module):
    def __init__(self, num_users, num_items, embedding_dim=32, layer_sizes=[96, 64], embedding_sharing=True):
        super().__init__()
        if embedding_sharing:
            self.U, self.Q = self.init_shared_user_and_item_embeddings(num_users, num_items, embedding_dim)
            self.fact = self.reg = Tables(self.U, self.Q)
        else:
            self.U_reg, self.Q_reg, self.U_fact, self.Q_fact = self.init_separate_user_and_item_embeddings(
                num_users, num_items, embedding_dim
            )
            self.reg = Tables(self.U_reg, self.Q_reg)
            self.fact = Tables(self.U_fact, self.Q_fact)
        self.B = self.init_item_bias(num_users, num_items)
        self.mlp_layers = self.init_mlp_layers(layer_sizes)

    def init_shared_user_and_item_embeddings(self, num_users, num_items, embedding_dim):
        return ScaledEmbedding(num_users, embedding_dim), ScaledEmbedding(num_items, embedding_dim)

    def init_separate_user_and_item_embeddings(self, num_users, num_items, embedding_dim):
        reg = self.init_shared_user_and_item_embeddings(num_users, num_items, embedding_dim)
        fact = self.init_shared_user_and_item_embeddings(num_users, num_items, embedding_dim)
        return (*reg, *fact)

    def init_item_bias(self, num_users, num_items):
        return ZeroEmbedding(num_items, 1)

    def init_mlp_layers(self, layer_sizes):
        return MLP(layer_sizes)

    def forward(self, user_ids, item_ids):
        u, q = self.fact(user_ids, item_ids)
        predictions = (u * q).sum(1, keepdim=True).add(self.B(item_ids)).squeeze(1)
        u, q = self.reg(user_ids, item_ids)
        score = self.mlp_layers(torch.cat([u, q, u * q], 1)).squeeze(1)
        return predictions, score
