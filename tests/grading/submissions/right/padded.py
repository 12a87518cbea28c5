"""Row 0 is padding, since the data's ids start at 1; layers of nn.ModuleList and nn.Sequential mixed."""

import torch
import torch.nn as nn


class ScaledEmbedding(nn.Embedding):
    def reset_parameters(self):
        self.weight.data.normal_(0, 1.0 / self.embedding_dim)
        if self.padding_idx is not None:
            self.weight.data[self.padding_idx].fill_(0)


class ZeroEmbedding(nn.Embedding):
    def reset_parameters(self):
        self.weight.data.zero_()


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
        U = ScaledEmbedding(num_users, embedding_dim, padding_idx=0)
        Q = ScaledEmbedding(num_items, embedding_dim, padding_idx=0)
        return U, Q

    def init_separate_user_and_item_embeddings(self, num_users, num_items, embedding_dim):
        U_reg = ScaledEmbedding(num_users, embedding_dim, padding_idx=0)
        Q_reg = ScaledEmbedding(num_items, embedding_dim, padding_idx=0)
        U_fact = ScaledEmbedding(num_users, embedding_dim, padding_idx=0)
        Q_fact = ScaledEmbedding(num_items, embedding_dim, padding_idx=0)
        return U_reg, Q_reg, U_fact, Q_fact

    def init_item_bias(self, num_users, num_items):
        return ZeroEmbedding(num_items, 1)

    def init_mlp_layers(self, layer_sizes):
        mlp_layers = nn.ModuleList()
        for size, next_size in zip(layer_sizes, layer_sizes[1:]):
            mlp_layers.append(nn.Sequential(nn.Linear(size, next_size), nn.ReLU()))
        mlp_layers.append(nn.Linear(layer_sizes[-1], 1))
        return mlp_layers

    def forward(self, user_ids, item_ids):
        if self.embedding_sharing:
            return self.task_1(self.U, self.Q, user_ids, item_ids), self.task_2(self.U, self.Q, user_ids, item_ids)
        p = self.task_1(self.U_fact, self.Q_fact, user_ids, item_ids)
        r = self.task_2(self.U_reg, self.Q_reg, user_ids, item_ids)
        return p, r

    def task_1(self, U, Q, user_ids, item_ids):
        p = torch.zeros_like(user_ids, dtype=torch.float32)
        for k in range(0, U.embedding_dim, 8):
            p = p + (U(user_ids)[:, k : k + 8] * Q(item_ids)[:, k : k + 8]).sum(axis=1)
        return p + self.B(item_ids).squeeze(dim=1)

    def task_2(self, U, Q, user_ids, item_ids):
        x = torch.column_stack((U(user_ids), Q(item_ids), U(user_ids) * Q(item_ids)))
        for layer in self.mlp_layers:
            x = layer(x)
        return x.squeeze(dim=1)
