"""init_* methods set attributes themselves and return them too; the bias as one more column of the product."""

import torch as th
import torch.nn as nn


class ScaledEmbedding(nn.Embedding):
    def reset_parameters(self):
        self.weight.data.normal_(0, 1.0 / self.embedding_dim)


class ZeroEmbedding(nn.Embedding):
    def reset_parameters(self):
        self.weight.data.zero_()


class MultiTaskNet(nn.Module):
    def __init__(self, num_users, num_items, embedding_dim=32, layer_sizes=[96, 64], embedding_sharing=True):
        nn.Module.__init__(self)
        self.embedding_sharing = embedding_sharing
        self.init_mlp_layers(layer_sizes)
        self.init_item_bias(num_users, num_items)
        init = (
            self.init_shared_user_and_item_embeddings
            if embedding_sharing
            else self.init_separate_user_and_item_embeddings
        )
        init(num_users, num_items, embedding_dim)

    def init_shared_user_and_item_embeddings(self, num_users, num_items, embedding_dim):
        self.U = ScaledEmbedding(num_users, embedding_dim)
        self.Q = ScaledEmbedding(num_items, embedding_dim)
        return self.U, self.Q

    def init_separate_user_and_item_embeddings(self, num_users, num_items, embedding_dim):
        self.U_fact = ScaledEmbedding(num_users, embedding_dim)
        self.Q_fact = ScaledEmbedding(num_items, embedding_dim)
        self.U_reg = ScaledEmbedding(num_users, embedding_dim)
        self.Q_reg = ScaledEmbedding(num_items, embedding_dim)
        return self.U_reg, self.Q_reg, self.U_fact, self.Q_fact

    def init_item_bias(self, num_users, num_items):
        self.B = ZeroEmbedding(num_items, 1)
        return self.B

    def init_mlp_layers(self, layer_sizes):
        self.mlp_layers = nn.Sequential()
        for i in range(len(layer_sizes)):
            self.mlp_layers.append(nn.Linear(layer_sizes[i], (layer_sizes + [1])[i + 1]))
            self.mlp_layers.append(nn.ReLU())
        del self.mlp_layers[-1]
        return self.mlp_layers

    def forward(self, user_ids, item_ids):
        assert user_ids.shape == item_ids.shape, "one user an item"
        if self.embedding_sharing:
            f = r = [self.U(user_ids), self.Q(item_ids)]
        else:
            f = [self.U_fact(user_ids), self.Q_fact(item_ids)]
            r = [self.U_reg(user_ids), self.Q_reg(item_ids)]
        b = self.B(item_ids)
        one = th.ones_like(b)
        p = th.einsum("bi,bi->b", th.cat([f[0], one], 1), th.cat([f[1], b], 1))
        r.append(r[0] * r[1])
        return p, self.mlp_layers(th.cat(r, 1))[:, 0]
