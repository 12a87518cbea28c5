"""The outputs of a network for a batch, with the ingredients of ``Settings`` that change its embeddings and layers.

ForwardBatch    by the network's ``forward``, its look-ups and ReLUs changed by hooks: the definition
TableBatch      by the network's tables: equation 1 as a product of matrices, and equation 4 alone
"""

import contextlib
from collections.abc import Callable, Iterator, Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional

from data import Interactions
from training import parts
from training.rated_items import Embeddings, RatedItems
from training.settings import Settings

Dropout = Callable[[Tensor, float], Tensor]  # of a tensor with a probability


class Pairs(NamedTuple):
    """Pairs to be rated in place of the observed ones: (n,) places of users in the batch, and (n,) items."""

    places: Tensor
    items: Tensor


def check_parts(model: nn.Module, settings: Settings, train: Interactions) -> None:
    """Raise ValueError where the network lacks the parts that an ingredient changes."""
    try:
        found = parts.tables(model) if settings.watched_items or settings.embedding_dropout else []
    except LookupError as error:
        raise ValueError(f"{error}, which watched_items and embedding_dropout change") from error
    if settings.watched_items and len({table for tables in found for table in tables}) < 2 * len(found):
        raise ValueError("models.py has one table for both tasks beside separate ones: leave out watched_items")
    for users, items in found if settings.watched_items else []:
        if (users.num_embeddings, items.num_embeddings) != (train.num_users, train.num_items):
            raise ValueError(
                f"watched_items is for tables of {train.num_users} and {train.num_items} rows: models.py has "
                f"{users.num_embeddings} and {items.num_embeddings}"
            )
    if settings.dropout and not any(isinstance(module, nn.ReLU) for module in model.modules()):
        raise ValueError(
            "the network has no nn.ReLU layers, whose outputs dropout changes: expected layer_sizes of at least two "
            "widths, or dropout 0"
        )


class ForwardBatch:
    """The outputs of the network's ``forward`` for a batch of (batch,) users and observed items."""

    def __init__(
        self, model: nn.Module, settings: Settings, rated: RatedItems, dropout: Dropout, users: Tensor, items: Tensor
    ) -> None:
        self.model, self.settings, self.dropout = model, settings, dropout
        self.users, self.items = users, items
        self.places = torch.arange(len(users), device=users.device)
        self.sums: dict[nn.Module, Tensor] = {}  # of a table's rows
        self.observed: dict[nn.Module, Tensor] = {}  # those of the batch without its own pairs, (batch, d)
        self.mask: Tensor | None = None
        self.masked: list[nn.Module] = []  # tables
        if settings.watched_items:
            for tables in parts.tables(model):
                own = Embeddings(tables.users(users), tables.items(items))
                sums = rated.sums(tables.users.weight, tables.items.weight)
                # Not by indexing, whose gradient several threads add up in another order each time.
                rows = Embeddings(functional.embedding(users, sums.users), functional.embedding(items, sums.items))
                self.sums |= zip(tables, sums, strict=True)
                self.observed |= zip(tables, rated.without_own(rows, users, items, own), strict=True)
        if settings.embedding_dropout:
            table = parts.factorization_tables(model).users
            ones = torch.ones(len(users), table.embedding_dim, device=users.device)
            self.mask = dropout(ones, settings.embedding_dropout)
            self.masked = [table]

    def positive(self) -> Tensor:
        """Compute p⁺: (batch,)."""
        predictions, _ = self._forward(self.places, self.items, observed=True)
        return predictions

    def scores(self, candidates: Tensor, places: Tensor | None = None) -> Tensor:
        """Compute p of (k,) items for some examples, or of (batch, k) items, k for each: (batch, k)."""
        places = self.places if places is None else places
        every = candidates.expand(len(places), candidates.shape[-1])
        predictions, _ = self._forward(places.repeat_interleave(every.shape[1]), every.reshape(-1), observed=False)
        return predictions.view(every.shape)

    def ratings(self, pairs: Pairs | None = None) -> Tensor:
        """Compute r̂ of the observed pairs, (batch,), or of (n,) others."""
        layers = [module for module in self.model.modules() if isinstance(module, nn.ReLU)]
        with self._hooks(layers, lambda _, __, output: self.dropout(output, self.settings.dropout)) as called:
            places, items = (self.places, self.items) if pairs is None else pairs
            _, score = self._forward(places, items, observed=pairs is None, rates=True)
        if not called:
            self._check(layers, called)
        return score

    def _forward(self, places: Tensor, items: Tensor, observed: bool, rates: bool = False) -> tuple[Tensor, Tensor]:
        """Run the network for the users at these places of the batch and as many items, perhaps the observed ones."""
        users = self.users[places]
        of_users = {tables.users for tables in parts.tables(self.model)} if self.sums or self.masked else set()

        def changed(table: nn.Module, ids: Tensor, output: Tensor) -> Tensor:
            is_user = table in of_users
            is_pair = torch.equal(ids.reshape(-1), users if is_user else items)  # else a look-up of the network's own
            if table in self.sums and is_pair and (is_user or observed):
                output = output + self.observed[table][places].view_as(output)
            elif table in self.sums:
                output = output + functional.embedding(ids, self.sums[table])
            if table in self.masked and self.mask is not None and is_pair and not rates:
                output = output * self.mask[places].view_as(output)
            return output

        tables = [*dict.fromkeys([*self.sums, *self.masked])]
        with self._hooks(tables, changed) as called:
            predictions, score = self.model(users, items)
        self._check(tables, called)
        return predictions, score

    @staticmethod
    @contextlib.contextmanager
    def _hooks(
        modules: Sequence[nn.Module], change: Callable[[nn.Module, Tensor, Tensor], Tensor]
    ) -> Iterator[list[nn.Module]]:
        """Change the outputs of modules, by their inputs, and list those that are called."""
        called: list[nn.Module] = []

        def hook(module: nn.Module, inputs: Any, named: dict[str, Tensor], output: Tensor) -> Tensor:
            called.append(module)
            return change(module, inputs[0] if inputs else named["input"], output)

        handles = [module.register_forward_hook(hook, with_kwargs=True) for module in modules]
        try:
            yield called
        finally:
            for handle in handles:
                handle.remove()

    def _check(self, modules: Sequence[nn.Module], called: Sequence[nn.Module]) -> None:
        """Raise ValueError unless ``forward`` called these modules."""
        for module in modules:
            if module not in called:
                name = next(name for name, each in self.model.named_modules() if each is module)
                raise ValueError(
                    f"forward in models.py does not call {name}: leave out watched_items, embedding_dropout and "
                    "dropout, which change its output"
                )


class TableBatch:
    """The same outputs by the network's tables; LookupError if it lacks those of the homework's names."""

    def __init__(
        self, model: nn.Module, settings: Settings, rated: RatedItems, dropout: Dropout, users: Tensor, items: Tensor
    ) -> None:
        self.settings, self.dropout, self.items = settings, dropout, items
        self.layers: Any = model.mlp_layers
        self.bias = parts.embedding(model, "B")
        relus = sum(isinstance(layer, nn.ReLU) for layer in model.modules())
        self.in_blocks = relus < 2 or not settings.dropout  # else the masks of a block would be drawn in another order
        found: list[tuple[Embeddings, Tensor]] = []
        for tables in parts.tables(model):
            rows, all_items = Embeddings(tables.users(users), tables.items(items)), tables.items.weight
            if settings.watched_items:  # a look-up in the sum of two tables, so that backward writes one gradient
                sums, own = rated.sums(tables.users.weight, tables.items.weight), rows
                all_items = all_items + sums.items
                of_users = functional.embedding(users, tables.users.weight + sums.users)
                rows = rated.without_own(
                    Embeddings(of_users, functional.embedding(items, all_items)), users, items, own
                )
            found.append((rows, all_items))
        ((u_fact, self.q_fact), self.all_items), ((self.u_reg, self.q_reg), self.all_items_reg) = found[0], found[-1]
        self.u_fact = dropout(u_fact, settings.embedding_dropout)

    def positive(self) -> Tensor:
        """Compute p⁺: (batch,)."""
        p: Tensor = torch.linalg.vecdot(self.u_fact, self.q_fact) + self.bias(self.items).squeeze(-1)
        return p

    def candidates(self, items: Tensor) -> tuple[Tensor, Tensor]:
        """Return the embeddings and biases of items of any shape: (…, d) and (…)."""
        return functional.embedding(items, self.all_items), self.bias(items).squeeze(-1)

    def scores(self, candidates: Tensor, places: Tensor | None = None) -> Tensor:
        """Compute p of (k,) items for some examples, or of (batch, k) items, k for each: (batch, k)."""
        q, bias = self.candidates(candidates)
        if candidates.dim() == 1:
            return torch.addmm(bias, self.u_fact if places is None else self.u_fact[places], q.T)
        p: Tensor = torch.linalg.vecdot(self.u_fact.unsqueeze(1), q) + bias
        return p

    def ratings(self, pairs: Pairs | None = None) -> Tensor:
        """Compute r̂ of the observed pairs, (batch,), or of (n,) others."""
        return self.rate(*self.rated_rows(pairs))

    def rated_rows(self, pairs: Pairs | None = None) -> Embeddings:
        """Return the embeddings of equation 4 of the observed pairs, (batch, d) each, or of (n,) others."""
        if pairs is None:
            return Embeddings(self.u_reg, self.q_reg)
        # Not by indexing, whose gradient several threads add up in another order each time.
        return Embeddings(*map(functional.embedding, pairs, (self.u_reg, self.all_items_reg)))

    def rate(self, u: Tensor, q: Tensor) -> Tensor:
        """Compute r̂ of (n, d) users and as many items: (n,)."""
        outputs = torch.cat([u, q, u * q], dim=-1)
        for layer in self.layers:
            outputs = layer(outputs)
            if isinstance(layer, nn.ReLU):
                outputs = self.dropout(outputs, self.settings.dropout)
        return outputs.squeeze(-1)
