"""The outputs of a network for a batch, with the ingredients of ``Settings`` that change its embeddings and layers.

ForwardBatch    by the network's ``forward``, its look-ups and ReLUs changed by hooks: the definition
TableBatch      by the network's tables: equation 1 as a product of matrices, and equation 4 alone
"""

import contextlib
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from data import Interactions
from training import parts
from training.rated_items import RatedItems
from training.settings import Settings

Dropout = Callable[[Tensor, float], Tensor]  # of a tensor with a probability


def check_parts(model: nn.Module, settings: Settings, train: Interactions) -> None:
    """Raise ValueError where the network lacks the parts that an ingredient changes."""
    try:
        found = parts.tables(model) if settings.watched_items or settings.embedding_dropout else []
    except LookupError as error:
        raise ValueError(f"{error}, which watched_items and embedding_dropout change") from error
    for users, items in found if settings.watched_items else []:
        if (users.num_embeddings, items.num_embeddings) != (train.num_users, train.num_items):
            raise ValueError(
                f"watched_items is for tables of {train.num_users} and {train.num_items} rows: models.py has "
                f"{users.num_embeddings} and {items.num_embeddings}"
            )
    if settings.dropout and not any(isinstance(module, nn.ReLU) for module in model.modules()):
        raise ValueError("models.py has no nn.ReLU layers, whose outputs dropout changes")


class ForwardBatch:
    """The outputs of the network's ``forward`` for a batch of (batch,) users and observed items."""

    def __init__(
        self, model: nn.Module, settings: Settings, rated: RatedItems, dropout: Dropout, users: Tensor, items: Tensor
    ) -> None:
        self.model, self.settings, self.dropout = model, settings, dropout
        self.users, self.items = users, items
        self.places = torch.arange(len(users), device=users.device)
        self.added: dict[nn.Module, Tensor] = {}  # by table of users, (batch, d)
        self.mask: Tensor | None = None
        self.masked: list[nn.Module] = []  # tables
        if settings.watched_items:
            for table, item_table in parts.tables(model):
                self.added[table] = rated.sums_but_own(item_table.weight, users, item_table(items))
        if settings.embedding_dropout:
            table = parts.factorization_tables(model).users
            ones = torch.ones(len(users), table.embedding_dim, device=users.device)
            self.mask = dropout(ones, settings.embedding_dropout)
            self.masked = [table]

    def positive(self) -> Tensor:
        """Compute p⁺: (batch,)."""
        predictions, _ = self._forward(self.places, self.items)
        return predictions

    def scores(self, candidates: Tensor) -> Tensor:
        """Compute p of (k,) items for all examples, or of (batch, k) items, k for each: (batch, k)."""
        every = candidates.expand(len(self.users), candidates.shape[-1])
        predictions, _ = self._forward(self.places.repeat_interleave(every.shape[1]), every.reshape(-1))
        return predictions.view(every.shape)

    def ratings(self) -> Tensor:
        """Compute r̂: (batch,)."""
        layers = [module for module in self.model.modules() if isinstance(module, nn.ReLU)]
        with self._hooks(layers, lambda _, output: self.dropout(output, self.settings.dropout)):
            _, score = self._forward(self.places, self.items, rates=True)
        return score

    def _forward(self, places: Tensor, items: Tensor, rates: bool = False) -> tuple[Tensor, Tensor]:
        """Run the network for the users at these places of the batch and as many items."""

        def changed(table: nn.Module, output: Tensor) -> Tensor:
            rows = output.reshape(len(places), -1)
            if table in self.added:
                rows = rows + self.added[table][places]
            if self.mask is not None and not rates:
                rows = rows * self.mask[places]
            return rows.view_as(output)

        with self._hooks([*dict.fromkeys([*self.added, *self.masked])], changed):
            predictions, score = self.model(self.users[places], items)
        return predictions, score

    @staticmethod
    @contextlib.contextmanager
    def _hooks(modules: Sequence[nn.Module], change: Callable[[nn.Module, Tensor], Tensor]) -> Iterator[None]:
        """Change the outputs of modules; ``forward`` has to call at least one of them."""
        called: list[nn.Module] = []

        def hook(module: nn.Module, _: Any, output: Tensor) -> Tensor:
            called.append(module)
            return change(module, output)

        handles = [module.register_forward_hook(hook) for module in modules]
        try:
            yield
        finally:
            for handle in handles:
                handle.remove()
        if modules and not called:
            kind = type(modules[0]).__name__
            raise ValueError(f"forward in models.py does not call its {kind}, whose output a flag of this run changes")


class TableBatch:
    """The same outputs by the network's tables; LookupError if it lacks those of the homework's names."""

    def __init__(
        self, model: nn.Module, settings: Settings, rated: RatedItems, dropout: Dropout, users: Tensor, items: Tensor
    ) -> None:
        self.settings, self.dropout, self.items = settings, dropout, items
        self.layers: Any = model.mlp_layers
        self.item_table, self.bias = parts.factorization_tables(model).items, parts.embedding(model, "B")
        found: list[tuple[Tensor, Tensor]] = []
        for user_table, item_table in parts.tables(model):
            q = item_table(items)
            if settings.watched_items:  # a look-up in the sum of two tables, so that backward writes one gradient
                with_sums = user_table.weight + rated.sums(item_table.weight)
                own = rated.scale[users].unsqueeze(1)
                u = torch.addcmul(functional.embedding(users, with_sums), own, q, value=-1)
            else:
                u = user_table(users)
            found.append((u, q))
        (self.u_fact, self.q_fact), (self.u_reg, self.q_reg) = found[0], found[-1]
        self.u_fact = dropout(self.u_fact, settings.embedding_dropout)

    def positive(self) -> Tensor:
        """Compute p⁺: (batch,)."""
        p: Tensor = torch.linalg.vecdot(self.u_fact, self.q_fact) + self.bias(self.items).squeeze(-1)
        return p

    def scores(self, candidates: Tensor) -> Tensor:
        """Compute p of (k,) items for all examples, or of (batch, k) items, k for each: (batch, k)."""
        q, bias = self.item_table(candidates), self.bias(candidates).squeeze(-1)
        if candidates.dim() == 1:
            return torch.addmm(bias, self.u_fact, q.T)
        p: Tensor = torch.linalg.vecdot(self.u_fact.unsqueeze(1), q) + bias
        return p

    def ratings(self) -> Tensor:
        """Compute r̂: (batch,)."""
        return self.rate(self.u_reg, self.q_reg)

    def rate(self, u: Tensor, q: Tensor) -> Tensor:
        """Compute r̂ of (n, d) users and as many items: (n,)."""
        outputs = torch.cat([u, q, u * q], dim=-1)
        for layer in self.layers:
            outputs = layer(outputs)
            if isinstance(layer, nn.ReLU):
                outputs = self.dropout(outputs, self.settings.dropout)
        return outputs.squeeze(-1)
