"""The order of the training examples in an epoch, and the negative items that they are paired with."""

from collections.abc import Iterator

import torch
from torch import Tensor

from data import Interactions
from training.steps import Triples

BLOCK = 2**19  # training examples that are looked up at a time, which bounds the memory for them


class Sampler:
    """A source of training examples: in each epoch every observed interaction once, with a negative item.

    ``candidates`` is the number of items to draw for each example, of which the step chooses the negative; 0 if the
    step draws them itself. The data and the generator are on the device of the network.
    """

    def __init__(self, train: Interactions, batch_size: int, generator: torch.Generator, candidates: int = 1) -> None:
        self.train, self.generator, self.candidates = train, generator, candidates
        self.block = batch_size * max(1, BLOCK // (batch_size * max(1, candidates)))

    def epoch(self) -> Iterator[Triples]:
        """Draw the examples of an epoch in a new order, in blocks of whole batches; the last may be shorter."""
        n = len(self.train)
        size = torch.int32 if n < 2**31 else torch.int64
        order = torch.randperm(n, generator=self.generator, device=self.generator.device, dtype=size)
        return map(self.triples, order.split(self.block))

    def triples(self, chosen: Tensor) -> Triples:
        """Look up the examples at these (n,) positions, each with a new negative item; batches are then slices."""
        train = self.train
        users, items, ratings = (x.index_select(0, chosen) for x in (train.user_ids, train.item_ids, train.ratings))
        return Triples(users, items, self.negatives(len(chosen)), ratings)

    def negatives(self, n: int) -> Tensor:
        """Draw (n,) or (n, candidates) items uniformly from all, observed ones included (equation 2)."""
        shape = (n,) if self.candidates == 1 else (n, self.candidates)
        return torch.randint(self.train.num_items, shape, generator=self.generator, device=self.generator.device)
