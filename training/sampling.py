"""The order of the training examples in an epoch, and the negative items that they are paired with."""

from collections.abc import Iterator

import torch
from torch import Tensor

from data import Interactions
from training.steps import Triples

BLOCK = 2**19  # training examples that are looked up at a time, so that memory for them does not grow with their number


class Sampler:
    """Draws an epoch's training examples: every observed interaction once, each with one negative item.

    Args:
        train: observed interactions, on the device of the network.
        batch_size: examples a step.
        generator: of the order and the negative items, on the same device.
        candidates: how many items to draw for each negative; the step chooses. None where the step draws them.
    """

    def __init__(self, train: Interactions, batch_size: int, generator: torch.Generator, candidates: int = 1) -> None:
        self.train, self.generator, self.candidates = train, generator, candidates
        self.block = batch_size * max(1, BLOCK // (batch_size * max(1, candidates)))

    def epoch(self) -> Iterator[Triples]:
        """The examples of an epoch, in a new order, in blocks of many whole batches; the last may be shorter."""
        n = len(self.train)
        size = torch.int32 if n < 2**31 else torch.int64
        order = torch.randperm(n, generator=self.generator, device=self.generator.device, dtype=size)
        return map(self.triples, order.split(self.block))

    def triples(self, chosen: Tensor) -> Triples:
        """The training examples at these positions, each with a new negative item.

        One gather for many steps: a step's batch is then a slice, which copies nothing.
        """
        train = self.train
        columns = (torch.index_select(x, 0, chosen) for x in (train.user_ids, train.item_ids, train.ratings))
        users, items, ratings = columns
        return Triples(users, items, self.negatives(len(chosen)), ratings)

    def negatives(self, n: int) -> Tensor:
        """(n,) items, drawn uniformly from all, as equation 2 has it: an observed one now and then among them.

        Where there are several candidates, (n, candidates).
        """
        shape = (n,) if self.candidates == 1 else (n, self.candidates)
        return torch.randint(self.train.num_items, shape, generator=self.generator, device=self.generator.device)
