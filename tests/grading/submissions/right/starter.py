"""The starter's guard of the shapes, sparse before embedding_sharing, an unused user bias, print in forward."""

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
    def __init__(
        self, num_users, num_items, embedding_dim=32, layer_sizes=[96, 64], sparse=False, embedding_sharing=True
    ):
        super(MultiTaskNet, self).__init__()
        self.embedding_dim = embedding_dim
        self.sparse = sparse
        self.embedding_sharing = embedding_sharing
        self.mlp_layers = self.init_mlp_layers(layer_sizes)
        if embedding_sharing:
            self.U, self.Q = self.init_shared_user_and_item_embeddings(num_users, num_items, embedding_dim)
        else:
            (self.U_reg, self.Q_reg, self.U_fact, self.Q_fact) = self.init_separate_user_and_item_embeddings(
                num_users, num_items, embedding_dim
            )
        self.A = ZeroEmbedding(num_users, 1)
        self.B = self.init_item_bias(num_users, num_items)

    def init_shared_user_and_item_embeddings(self, num_users, num_items, embedding_dim):
        return [ScaledEmbedding(num_users, embedding_dim), ScaledEmbedding(num_items, embedding_dim)]

    def init_separate_user_and_item_embeddings(self, num_users, num_items, embedding_dim):
        U_reg, Q_reg = self.init_shared_user_and_item_embeddings(num_users, num_items, embedding_dim)
        U_fact, Q_fact = self.init_shared_user_and_item_embeddings(num_users, num_items, embedding_dim)
        return U_reg, Q_reg, U_fact, Q_fact

    def init_item_bias(self, num_users, num_items):
        return ZeroEmbedding(num_items, 1)

    def init_mlp_layers(self, layer_sizes):
        mlp_layers = nn.ModuleList([])
        for i, size in enumerate(layer_sizes):
            last = i == len(layer_sizes) - 1
            mlp_layers.append(nn.Linear(size, 1 if last else layer_sizes[i + 1]))
            if not last:
                mlp_layers.append(nn.ReLU())
        return mlp_layers

    def forward(self, user_ids, item_ids):
        print("forward", user_ids.shape, item_ids.shape)
        if self.embedding_sharing:
            predictions, score = self.forward_with_embedding_sharing(user_ids, item_ids)
        else:
            predictions, score = self.forward_without_embedding_sharing(user_ids, item_ids)

        ## Make sure you return predictions and scores of shape (batch_size,)
        if (len(predictions.shape) > 1) or (len(score.shape) > 1):
            raise ValueError("Check your predictions and scores shape!")
        return predictions, score

    def forward_with_embedding_sharing(self, user_ids, item_ids):
        user, item = self.U(user_ids), self.Q(item_ids)
        predictions = torch.sum(user * item, dim=-1) + self.B(item_ids).view(-1)
        x = torch.cat((user, item, user * item), dim=-1)
        for layer in self.mlp_layers:
            x = layer(x)
        return predictions, x.view(-1)

    def forward_without_embedding_sharing(self, user_ids, item_ids):
        user, item = self.U_fact(user_ids), self.Q_fact(item_ids)
        predictions = torch.sum(user * item, dim=-1) + self.B(item_ids).view(-1)
        user, item = self.U_reg(user_ids), self.Q_reg(item_ids)
        x = torch.cat((user, item, user * item), dim=-1)
        for layer in self.mlp_layers:
            x = layer(x)
        return predictions, x.view(-1)
