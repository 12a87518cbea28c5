"""The order of the training examples in an epoch, and the negative items that they are paired with."""

from collections.abc import Iterator

import torch
from torch import Tensor

from data import Interactions
from training.divided import UNDIVIDED, Division
from training.steps import Sizes, Triples

BLOCK = 2**19  # training examples that are looked up at a time, which bounds the memory for them


class Sampler:
    """A source of training examples: in each epoch every observed interaction once, with a negative item.

    Several processes draw the same numbers, and each takes its users' examples.

    Args:
        train: the interactions of this process's users, on the device of the network like the generator.
        draws: False for a step that draws its negatives itself; the examples then have none.
    """

    def __init__(
        self,
        train: Interactions,
        batch_size: int,
        generator: torch.Generator,
        draws: bool = True,
        division: Division = UNDIVIDED,
    ) -> None:
        self.train, self.generator, self.draws, self.division = train, generator, draws, division
        self.batch_size = batch_size
        self.block = batch_size * max(1, BLOCK // batch_size)

    def epoch(self) -> Iterator[tuple[Triples, Sizes]]:
        """Draw the examples of an epoch in a new order, in blocks of whole batches; the last may be shorter."""
        n = self.division.count(self.train)
        size = torch.int32 if n < 2**31 else torch.int64
        order = torch.randperm(n, generator=self.generator, device=self.generator.device, dtype=size)
        return map(self.batches, order.split(self.block))

    def batches(self, chosen: Tensor) -> tuple[Triples, Sizes]:
        """Look up the examples of batches at these (n,) positions in the training set of all users, and their sizes."""
        negatives = self.negatives(len(chosen))
        own = self.division.batches(chosen, negatives, self.batch_size)
        return self._look_up(own.positions, own.negatives), own.sizes

    def triples(self, chosen: Tensor) -> Triples:
        """Look up the examples at these (n,) positions, each with a new negative item; batches are then slices."""
        return self._look_up(chosen, self.negatives(len(chosen)))

    def _look_up(self, chosen: Tensor, negatives: Tensor) -> Triples:
        train = self.train
        users, items, ratings = (x.index_select(0, chosen) for x in (train.user_ids, train.item_ids, train.ratings))
        return Triples(users, items, negatives, ratings)

    def negatives(self, n: int) -> Tensor:
        """Draw (n,) items uniformly from all, observed ones included (equation 2); (n, 0) unless ``draws``."""
        device = self.generator.device
        if not self.draws:
            return torch.empty(n, 0, dtype=torch.int64, device=device)
        return torch.randint(self.train.num_items, (n,), generator=self.generator, device=device)
