"""nn.Sequential within nn.Sequential; matmul; forward returns a list; keyword-only and unused arguments."""

import torch
from torch.nn import Embedding, Linear, Module, ReLU, Sequential


class ScaledEmbedding(Embedding):
    def reset_parameters(self) -> None:
        with torch.no_grad():
            self.weight.copy_(torch.randn_like(self.weight) / self.embedding_dim)


class ZeroEmbedding(Embedding):
    def reset_parameters(self) -> None:
        with torch.no_grad():
            self.weight.fill_(0)


def block(n_in: int, n_out: int) -> Sequential:
    return Sequential(Linear(n_in, n_out), ReLU())


class MultiTaskNet(Module):
    def __init__(
        self,
        num_users: int,
        num_items: int,
        embedding_dim: int = 32,
        layer_sizes: "list[int]" = [96, 64],
        embedding_sharing: bool = True,
        *,
        sparse: bool = False,
        device: "torch.device | None" = None,
    ) -> None:
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

    def init_shared_user_and_item_embeddings(self, num_users: int, num_items: int, embedding_dim: int):
        return ScaledEmbedding(num_users, embedding_dim), ScaledEmbedding(num_items, embedding_dim)

    def init_separate_user_and_item_embeddings(self, num_users: int, num_items: int, embedding_dim: int):
        tables = {}
        for name in ("U_fact", "Q_fact", "U_reg", "Q_reg"):
            tables[name] = ScaledEmbedding(num_users if name[0] == "U" else num_items, embedding_dim)
        return tables["U_reg"], tables["Q_reg"], tables["U_fact"], tables["Q_fact"]

    def init_item_bias(self, num_users: int, num_items: int):
        return ZeroEmbedding(num_items, 1)

    def init_mlp_layers(self, layer_sizes: "list[int]") -> Sequential:
        hidden = Sequential(*[block(a, b) for a, b in zip(layer_sizes, layer_sizes[1:])])
        return Sequential(hidden, Linear(layer_sizes[-1], 1))

    def forward(self, user_ids, item_ids):
        names = ["U", "Q", "U", "Q"] if self.embedding_sharing else ["U_fact", "Q_fact", "U_reg", "Q_reg"]
        ids = [user_ids, item_ids] * 2
        u, q, ur, qr = [getattr(self, name)(i) for name, i in zip(names, ids)]
        product = torch.matmul(u[:, None, :], q[:, :, None])
        predictions = (product + self.B(item_ids)[:, None]).reshape(len(user_ids))
        score = self.mlp_layers(torch.concat([ur, qr, ur * qr], dim=1))
        return [predictions, torch.squeeze(score, 1)]
