"""
Classes defining user and item latent representations in
factorization models.
"""

import torch
import torch.nn as nn
import torch.nn.functional as F


class ScaledEmbedding(nn.Embedding):
    """
    Embedding layer that initialises its values
    to using a normal variable scaled by the inverse
    of the embedding dimension.
    """

    def reset_parameters(self):
        """
        Initialize parameters.
        """
        self.weight.data.normal_(0, 1.0 / self.embedding_dim)
        if self.padding_idx is not None:
            self.weight.data[self.padding_idx].fill_(0)


class ZeroEmbedding(nn.Embedding):
    """
    Used for biases.
    """

    def reset_parameters(self):
        """
        Initialize parameters.
        """
        self.weight.data.zero_()
        if self.padding_idx is not None:
            self.weight.data[self.padding_idx].fill_(0)


class MultiTaskNet(nn.Module):
    """
    Multitask factorization representation.
    """

    def __init__(self, num_users, num_items, embedding_dim=32, layer_sizes=[96, 64], embedding_sharing=True):
        super().__init__()
        self.embedding_dim = embedding_dim
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
        U = ScaledEmbedding(num_users, embedding_dim)
        Q = ScaledEmbedding(num_items, embedding_dim)
        return U, Q

    def init_separate_user_and_item_embeddings(self, num_users, num_items, embedding_dim):
        U_reg = ScaledEmbedding(num_users, embedding_dim)
        Q_reg = ScaledEmbedding(num_items, embedding_dim)
        U_fact = ScaledEmbedding(num_users, embedding_dim)
        Q_fact = ScaledEmbedding(num_items, embedding_dim)
        return U_reg, Q_reg, U_fact, Q_fact

    def init_item_bias(self, num_users, num_items):
        B = ZeroEmbedding(num_items, 1)
        return B

    def init_mlp_layers(self, layer_sizes):
        layers = []
        for i in range(len(layer_sizes) - 1):
            layers.append(nn.Linear(layer_sizes[i], layer_sizes[i + 1]))
            layers.append(nn.ReLU())
        layers.append(nn.Linear(layer_sizes[-1], 1))
        return nn.Sequential(*layers)

    def forward(self, user_ids, item_ids):
        if self.embedding_sharing:
            predictions, score = self.forward_with_embedding_sharing(user_ids, item_ids)
        else:
            predictions, score = self.forward_without_embedding_sharing(user_ids, item_ids)
        return predictions, score

    def forward_with_embedding_sharing(self, user_ids, item_ids):
        u = self.U(user_ids)
        q = self.Q(item_ids)
        return self.interaction(u, q, user_ids, item_ids), self.rating(u, q, item_ids)

    def forward_without_embedding_sharing(self, user_ids, item_ids):
        u_fact = self.U_fact(user_ids)
        q_fact = self.Q_fact(item_ids)
        u_reg = self.U_reg(user_ids)
        q_reg = self.Q_reg(item_ids)
        return self.interaction(u_fact, q_fact, user_ids, item_ids), self.rating(u_reg, q_reg, item_ids)

    def interaction(self, u, q, user_ids, item_ids):
        b = self.B(item_ids).squeeze(1)
        p = (u * q).sum(dim=1) + b
        return p

    def rating(self, u, q, item_ids):
        x = torch.cat([u, q, u * q], dim=1)
        score = self.mlp_layers(x).squeeze(1)
        return score
