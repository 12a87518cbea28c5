"""The users of a run, divided among its processes: the interactions, rows and moments of each.

A user's embedding, its moments and the user's interactions are needed only in the process that has the user. Items and
the MLP are in all processes. A step sums their gradients over the processes in a collective operation, and takes the
batch that a single process would take: each process computes on its own users' interactions of it.

Inside a process a user is a row, counted from 0 among its own users: in the network, in Adam, in ``RatedItems`` and in
the examples of a batch. Everywhere else, also in the checkpoint, the IDs are those of all users.
"""

import heapq
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from data import Interactions
from metrics import ByForward
from training.group import ALONE, Group
from training.settings import Settings
from training.steps import Sizes
from training.user_rows import AllRows, UserRows

# Several processes are slower than one with smaller batches, because each step waits for all of them (docs/scale.md).
LEAST_DIVIDED = 4096
USER_COST = 4  # interactions whose work in an epoch is that of a user's row, in its 93 steps (measured roughly)


def check_settings(settings: Settings, interactions: int) -> None:
    """Raise ValueError if several processes cannot take this step, or if it would be slower than in one process."""
    batch_size = settings.batch_size_for(interactions)
    remedy = "start without torchrun"
    if interactions >= LEAST_DIVIDED:
        remedy = f"give preset tuned and batch_size {LEAST_DIVIDED} or more, or {remedy}"
    if settings.homework_step or settings.optimizer == "lazy_adam":
        name = "optimizer lazy_adam" if settings.optimizer == "lazy_adam" else "the homework's step"
        raise ValueError(
            f"{name} is for one process, because it is meant for batches that are too small to divide: {remedy}"
        )
    if batch_size < LEAST_DIVIDED:
        raise ValueError(
            f"a batch of {batch_size:,} is too small to divide, because every step waits for all processes: {remedy}"
        )


def owners(counts: Tensor, size: int) -> Tensor:
    """Divide users among ``size`` processes, evenly by their work.

    From the user with the most interactions to the one with the fewest, each goes to the process with the least work so
    far (Graham, 1969).

    Args:
        counts: (num_users,) int64, each user's number of training interactions.

    Returns:
        (num_users,) int64, the rank of each user's process.
    """
    found = torch.empty_like(counts)
    order = counts.argsort(descending=True, stable=True)
    loads = [(0, rank) for rank in range(size)]
    ranks = []
    for work in (counts[order] + USER_COST).tolist():
        load, rank = loads[0]
        heapq.heapreplace(loads, (load + work, rank))
        ranks.append(rank)
    found[order] = torch.tensor(ranks, dtype=found.dtype)
    return found


class OwnBatches(NamedTuple):
    """This process's examples of batches: their positions in its training set, negatives, and numbers in each batch."""

    positions: Tensor
    negatives: Tensor
    sizes: Sizes


class Sum(NamedTuple):
    """A process's part of a sum over the processes, and the sum, whose gradient its autograd does not pass on."""

    part: Tensor
    total: Tensor


class Division:
    """The division of a run in one process: all users are in it."""

    group: Group = ALONE
    tensors = AllRows()

    def own(self, interactions: Interactions) -> Interactions:
        """Return the interactions of this process's users."""
        return interactions

    def local(self, interactions: Interactions) -> Interactions:
        """Return interactions of this process's users, with their rows as IDs."""
        return interactions

    def rows_of(self, user_ids: Tensor) -> Tensor:
        """Return the rows of users, −1 for those of other processes: (n,) to (n,) int64."""
        return user_ids

    def count(self, own: Interactions) -> int:
        """Return the number of training interactions of all users, from those of this process's users."""
        return len(own)

    def count_users(self, own: Interactions) -> int:
        """Return the number of all users, from the interactions of this process's users."""
        return own.num_users

    def total(self, number: Tensor) -> float:
        """Sum a number over the processes, in float64."""
        return float(self.group.add_up(number.cpu().double()))

    def batches(self, chosen: Tensor, negatives: Tensor, batch_size: int) -> OwnBatches:
        """Find this process's examples of batches.

        Args:
            chosen: (n,) positions in the training set of all users.
            negatives: (n,) items, or (n, 0).
            batch_size: the number of positions in a batch of all processes.
        """
        return OwnBatches(chosen, negatives, batch_size)

    def scorer(self, scorer: ByForward) -> ByForward:
        """Return a scorer of this process's users by their IDs, from one by their rows."""
        return scorer

    def seed(self, seed: int, epoch: int) -> None:
        """Seed torch's own random numbers for an epoch, differently in each process of several."""

    def check_state(self, name: str) -> None:
        """Raise ValueError if the network keeps something from step to step, and there are several processes.

        Args:
            name: the name of a buffer or attribute that a step changes, or "".
        """

    def begin_sum(self, part: Tensor) -> Callable[[], Tensor]:
        """Begin to sum a tensor over the processes, and return a function that waits for the sum and returns it.

        The sum's gradient reaches the part of each process in ``add_up``.
        """
        return lambda: part

    def add_up(self, gradients: Sequence[Tensor]) -> None:
        """After a backward pass, sum gradients in place over the processes, and those of ``begin_sum`` with them."""

    def shares(self, ratings: Sequence[Tensor]) -> Tensor:
        """Return this process's shares of batches: of their interactions, and of those with a rating.

        Args:
            ratings: those of this process in each batch.

        Returns:
            (batches, 2) float32
        """
        return torch.ones(len(ratings), 2, device=ratings[0].device)


UNDIVIDED = Division()


class DividedUsers(Division):
    """The division of a run in several processes, from the point of view of one of them.

    Args:
        train: the training set of all users.
        group: the processes.
        has_rows_of: "user" or "item" for each tensor of the network with a row for each, by its name in a checkpoint.
        device: the device of the network.

    Attributes:
        interactions: the number of training interactions of all users.
        owner: (num_users,) int64, the rank of each user's process.
        users: IDs of this process's users, ascending.
        places: (interactions,) int32, the position of each training interaction among those of this process; −1 for
            those of others.

    Raises:
        ValueError: a process would have no training interaction.
    """

    tensors: UserRows

    def __init__(
        self, train: Interactions, group: Group, has_rows_of: Mapping[str, str], device: torch.device | str = "cpu"
    ) -> None:
        counts = torch.bincount(train.user_ids.cpu(), minlength=train.num_users)
        active = int((counts > 0).sum())
        if active < group.size:
            raise ValueError(f"{active} users cannot be divided among {group.size} processes: start fewer of them")
        self.group = group
        self.sums: list[Sum] = []  # since the last ``add_up``
        self.num_users, self.interactions = train.num_users, len(train)
        self.owner = owners(counts, group.size)
        self.users = (self.owner == group.rank).nonzero().squeeze(1)
        self.tensors = UserRows(group, self.owner, {name for name, kind in has_rows_of.items() if kind == "user"})
        self.rows = torch.full((train.num_users,), -1)
        self.rows[self.users] = torch.arange(len(self.users))
        is_own = self._is_own(train)
        self.places = is_own.cumsum(0, dtype=torch.int32).sub_(1).masked_fill_(~is_own, -1).to(device)

    def _is_own(self, interactions: Interactions) -> Tensor:
        users = interactions.user_ids
        return self.owner.to(users.device)[users] == self.group.rank

    def own(self, interactions: Interactions) -> Interactions:
        return interactions.select(self._is_own(interactions))

    def local(self, interactions: Interactions) -> Interactions:
        rows = self.rows_of(interactions.user_ids)
        return replace(
            interactions, user_ids=rows, num_users=len(self.users), source_user_ids=torch.arange(len(self.users))
        )

    def rows_of(self, user_ids: Tensor) -> Tensor:
        return self.rows.to(user_ids.device)[user_ids]

    def count(self, own: Interactions) -> int:
        return self.interactions

    def count_users(self, own: Interactions) -> int:
        return self.num_users

    def batches(self, chosen: Tensor, negatives: Tensor, batch_size: int) -> OwnBatches:
        places = self.places[chosen]
        is_own = places >= 0
        sizes = torch.stack([each.sum() for each in is_own.split(batch_size)]).tolist()
        return OwnBatches(places[is_own], negatives[is_own], sizes)

    def scorer(self, scorer: ByForward) -> ByForward:
        return OwnScorer(scorer, self)

    def seed(self, seed: int, epoch: int) -> None:
        torch.manual_seed(int(np.random.SeedSequence([seed, epoch, self.group.rank]).generate_state(1, np.uint64)[0]))

    def check_state(self, name: str) -> None:
        if name:
            raise ValueError(
                f"models.py keeps {name} from step to step, which would differ in each process: start without torchrun"
            )

    def begin_sum(self, part: Tensor) -> Callable[[], Tensor]:
        added_up = self.group.begin_add_up(part.detach().clone())

        def end() -> Tensor:
            total = added_up()
            if part.requires_grad:
                self.sums.append(Sum(part, total.requires_grad_()))
            return total

        return end

    def add_up(self, gradients: Sequence[Tensor]) -> None:
        sums, self.sums = self.sums, []
        of_sums = [torch.zeros_like(total) if total.grad is None else total.grad for _, total in sums]
        every = [each.view(-1) for each in (*gradients, *of_sums)]
        joined = every[0] if len(every) == 1 else torch.cat(every)  # itself, or a copy
        totals = self.group.add_up(joined).split([len(each) for each in every])
        for each, total in zip(every, totals, strict=True):
            each.copy_(total)
        torch.autograd.backward([part for part, _ in sums], of_sums)

    def shares(self, ratings: Sequence[Tensor]) -> Tensor:
        own = torch.tensor([[len(each), int((~each.isnan()).sum())] for each in ratings], dtype=torch.float64)
        whole = self.group.add_up(own.clone())
        return (own / whole.clamp(min=1)).float().to(ratings[0].device)


class OwnScorer(ByForward):
    """A scorer of a process's users by their IDs, from one by their rows.

    The scores of other users are any numbers: metrics may compute them, and do not read them.
    """

    def __init__(self, scorer: ByForward, division: Division) -> None:
        super().__init__(scorer.model, scorer.num_items)
        self.by_rows, self.division = scorer, division

    def pairs(self, user_ids: Tensor, item_ids: Tensor) -> tuple[Tensor, Tensor]:
        return self.by_rows.pairs(self.division.rows_of(user_ids).clamp(min=0), item_ids)

    def predict_all_items(self, user_ids: Tensor) -> Tensor:
        return self.by_rows.predict_all_items(self.division.rows_of(user_ids).clamp(min=0))
