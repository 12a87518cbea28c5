"""Seeds, warnings, logging, threads and prints on the way; nn.Sequential and nn.Linear subclassed."""

import logging
import random
import sys
import warnings

import numpy as np
import torch
import torch.nn as nn

torch.manual_seed(42)
np.random.seed(42)
random.seed(42)
torch.set_num_threads(2)
warnings.warn("this is fine")
logging.basicConfig(level=logging.DEBUG)
print("models.py is imported", file=sys.stderr)


class ScaledEmbedding(nn.Embedding):
    def reset_parameters(self):
        self.weight.data.normal_(0, 1.0 / self.embedding_dim)


class ZeroEmbedding(nn.Embedding):
    def reset_parameters(self):
        self.weight.data.zero_()


class Dense(nn.Linear):
    def reset_parameters(self):
        nn.init.kaiming_normal_(self.weight, nonlinearity="relu")
        nn.init.zeros_(self.bias)


class MLP(nn.Sequential):
    def __init__(self, sizes):
        super().__init__()
        for i, (a, b) in enumerate(zip(sizes, sizes[1:])):
            self.add_module(f"dense{i}", Dense(a, b))
            self.add_module(f"relu{i}", nn.ReLU())
        self.add_module("head", nn.Linear(sizes[-1], 1))

    def forward(self, x):
        return super().forward(x).squeeze(-1)


class MultiTaskNet(nn.Module):
    def __init__(self, num_users, num_items, embedding_dim=32, layer_sizes=[96, 64], embedding_sharing=True):
        super().__init__()
        logging.info("a network for %d users", num_users)
        self.embedding_sharing = embedding_sharing
        self.calls = 0
        if embedding_sharing:
            self.U, self.Q = self.init_shared_user_and_item_embeddings(num_users, num_items, embedding_dim)
        else:
            self.U_reg, self.Q_reg, self.U_fact, self.Q_fact = self.init_separate_user_and_item_embeddings(
                num_users, num_items, embedding_dim
            )
        self.B = self.init_item_bias(num_users, num_items)
        self.mlp_layers = self.init_mlp_layers(layer_sizes)
        print(self)

    def init_shared_user_and_item_embeddings(self, num_users, num_items, embedding_dim):
        return ScaledEmbedding(num_users, embedding_dim), ScaledEmbedding(num_items, embedding_dim)

    def init_separate_user_and_item_embeddings(self, num_users, num_items, embedding_dim):
        U_reg, Q_reg = ScaledEmbedding(num_users, embedding_dim), ScaledEmbedding(num_items, embedding_dim)
        U_fact, Q_fact = ScaledEmbedding(num_users, embedding_dim), ScaledEmbedding(num_items, embedding_dim)
        return U_reg, Q_reg, U_fact, Q_fact

    def init_item_bias(self, num_users, num_items):
        return ZeroEmbedding(num_items, 1)

    def init_mlp_layers(self, layer_sizes):
        return MLP(layer_sizes)

    def forward(self, user_ids, item_ids):
        self.calls += 1
        names = ("U", "Q", "U", "Q") if self.embedding_sharing else ("U_fact", "Q_fact", "U_reg", "Q_reg")
        U_fact, Q_fact, U_reg, Q_reg = (self.get_submodule(name) for name in names)
        predictions = self.B(item_ids).squeeze(-1)
        predictions += torch.einsum("ij,ij->i", U_fact(user_ids), Q_fact(item_ids))
        u, q = U_reg(user_ids), Q_reg(item_ids)
        return predictions, self.mlp_layers(torch.cat([u, q, u * q], dim=-1))
