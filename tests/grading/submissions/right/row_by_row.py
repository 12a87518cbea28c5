"""The ids unsqueezed first, [batch, 1, d] all the way, and a bias that is squeezed without a dimension."""

import torch
import torch.nn as nn


class ScaledEmbedding(nn.Embedding):
    def reset_parameters(self):
        self.weight.data.normal_(0, 1.0 / self.embedding_dim)


class ZeroEmbedding(nn.Embedding):
    def reset_parameters(self):
        self.weight.data.zero_()


class MultiTaskNet(nn.Module):
    def __init__(self, num_users, num_items, embedding_dim=32, layer_sizes=[96, 64], embedding_sharing=True):
        super().__init__()
        self.embedding_sharing = embedding_sharing
        # made in both cases, used in one
        U, Q = self.init_shared_user_and_item_embeddings(num_users, num_items, embedding_dim)
        separate = self.init_separate_user_and_item_embeddings(num_users, num_items, embedding_dim)
        if embedding_sharing:
            self.U, self.Q = U, Q
        else:
            self.U_reg, self.Q_reg, self.U_fact, self.Q_fact = separate
        self.B = self.init_item_bias(num_users, num_items)
        self.mlp_layers = self.init_mlp_layers(layer_sizes)
        self.apply(self.init_weights)

    def init_weights(self, module):
        if isinstance(module, nn.Linear):
            nn.init.xavier_uniform_(module.weight)
            nn.init.zeros_(module.bias)

    def init_shared_user_and_item_embeddings(self, num_users, num_items, embedding_dim):
        return ScaledEmbedding(num_users, embedding_dim), ScaledEmbedding(num_items, embedding_dim)

    def init_separate_user_and_item_embeddings(self, num_users, num_items, embedding_dim):
        U_reg, U_fact = ScaledEmbedding(num_users, embedding_dim), ScaledEmbedding(num_users, embedding_dim)
        Q_reg, Q_fact = ScaledEmbedding(num_items, embedding_dim), ScaledEmbedding(num_items, embedding_dim)
        return U_reg, Q_reg, U_fact, Q_fact

    def init_item_bias(self, num_users, num_items):
        return ZeroEmbedding(num_items, 1)

    def init_mlp_layers(self, layer_sizes):
        modules = []
        in_features = layer_sizes[0]
        for out_features in layer_sizes[1:]:
            modules.append(nn.Linear(in_features, out_features))
            modules.append(nn.ReLU())
            in_features = out_features
        modules.append(nn.Linear(in_features, 1))
        return nn.Sequential(*modules)

    def forward(self, user_ids, item_ids):
        users, items = user_ids.unsqueeze(1), item_ids.unsqueeze(1)
        if self.embedding_sharing:
            u_fact = u_reg = self.U(users)
            q_fact = q_reg = self.Q(items)
        else:
            u_fact, q_fact = self.U_fact(users), self.Q_fact(items)
            u_reg, q_reg = self.U_reg(users), self.Q_reg(items)
        predictions = (u_fact * q_fact).sum(-1).squeeze(-1) + self.B(items).squeeze()
        score = self.mlp_layers(torch.cat([u_reg, q_reg, u_reg * q_reg], -1))
        return predictions, score.squeeze(-1).squeeze(-1)
