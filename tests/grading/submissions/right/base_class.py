"""The network's parts spread over a base class, a mixin and properties; ReLUs subclassed; a main at the end."""

import torch
import torch.nn as nn


class ScaledEmbedding(nn.Embedding):
    def reset_parameters(self):
        self.weight.data.normal_(0, 1.0 / self.embedding_dim)


class ZeroEmbedding(nn.Embedding):
    def reset_parameters(self):
        self.weight.data.zero_()


class UserEmbedding(ScaledEmbedding):
    pass


class ItemEmbedding(ScaledEmbedding):
    pass


class Factorization:
    def factorization(self, u, q, item_ids):
        return u.mul(q).sum(-1).add(self.B.weight.squeeze(1).index_select(0, item_ids))


class Base(nn.Module):
    def __init__(self, num_users, num_items, embedding_dim, embedding_sharing):
        super().__init__()
        self.is_shared = bool(embedding_sharing)
        self.user_bias = ZeroEmbedding(num_users, 1)
        self.global_bias = nn.Parameter(torch.zeros(1), requires_grad=False)
        self.dropout = nn.Dropout(0.0)
        self.register_buffer("counts", torch.zeros(num_items))

    def init_shared_user_and_item_embeddings(self, num_users, num_items, embedding_dim):
        return UserEmbedding(num_users, embedding_dim), ItemEmbedding(num_items, embedding_dim)

    def init_separate_user_and_item_embeddings(self, num_users, num_items, embedding_dim):
        return (
            UserEmbedding(num_users, embedding_dim),
            ItemEmbedding(num_items, embedding_dim),
            UserEmbedding(num_users, embedding_dim),
            ItemEmbedding(num_items, embedding_dim),
        )

    def init_item_bias(self, num_users, num_items):
        return ZeroEmbedding(num_items, 1)

    def init_mlp_layers(self, layer_sizes):
        pairs = zip(layer_sizes, [*layer_sizes[1:], 1])
        linears = [nn.Linear(a, b) for a, b in pairs]
        mlp = nn.Sequential()
        for i, linear in enumerate(linears):
            mlp.add_module(f"linear_{i}", linear)
            if linear is not linears[-1]:
                mlp.add_module(f"relu_{i}", nn.ReLU())
        return mlp


class MultiTaskNet(Factorization, Base):
    def __init__(self, num_users, num_items, embedding_dim=32, layer_sizes=[96, 64], embedding_sharing=True):
        Base.__init__(self, num_users, num_items, embedding_dim, embedding_sharing)
        if self.is_shared:
            self.U, self.Q = self.init_shared_user_and_item_embeddings(num_users, num_items, embedding_dim)
        else:
            (
                self.U_reg,
                self.Q_reg,
                self.U_fact,
                self.Q_fact,
            ) = self.init_separate_user_and_item_embeddings(num_users, num_items, embedding_dim)
        self.B = self.init_item_bias(num_users, num_items)
        self.mlp_layers = self.init_mlp_layers(layer_sizes)

    @property
    def fact_tables(self):
        return (self.U, self.Q) if self.is_shared else (self.U_fact, self.Q_fact)

    @property
    def reg_tables(self):
        return (self.U, self.Q) if self.is_shared else (self.U_reg, self.Q_reg)

    def forward(self, user_ids, item_ids):
        self.counts[item_ids] += 1
        users, items = self.fact_tables
        predictions = self.factorization(users(user_ids), items(item_ids), item_ids)
        users, items = self.reg_tables
        u, q = users(user_ids), items(item_ids)
        stacked = torch.stack([u, q, u * q], dim=1).flatten(1)
        return predictions, self.dropout(self.mlp_layers(stacked)).squeeze(1)


if __name__ == "__main__":
    net = MultiTaskNet(10, 20)
    print(net(torch.arange(10), torch.arange(10)))
