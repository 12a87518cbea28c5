"""The fused steps of ``fused.py`` and ``rowwise.py``, taken by several processes together.

A process computes the gradients of its part of a batch, as means over the whole batch, and the sum of the parts is the
batch's gradient. One collective operation a step brings it to all, and then all move their parameters in the same way.
"""

import torch
from torch import Tensor, nn

from training.adam import AdamState, adam_update
from training.fused import FusedStep, Workspace
from training.parallel import Group
from training.rowwise import RowwiseStep
from training.steps import EagerStep, Triples, Weights


class SharedStep(FusedStep):
    """FusedStep of several processes: the gradients of all parameters are summed, one number a parameter."""

    name = "fused step of several processes"

    def __init__(self, model: nn.Module, adam: AdamState, weights: Weights, group: Group) -> None:
        super().__init__(model, adam, weights)
        self.group = group

    def _add_up(self, sums: Tensor) -> None:
        self.group.add_up(sums)

    def step(self, rows: Tensor, biases: Tensor, ratings: Tensor, sigmoid_sum: Tensor, square_sum: Tensor) -> None:
        work, mine = _part(self, self.group, rows, biases, ratings)
        if work is None:
            self.gradient.zero_()
            sigmoid_sum.zero_()
            square_sum.zero_()
        else:
            self._gradients(work, *mine, sigmoid_sum, square_sum)
            self._scatter(work, *mine[:2])
        self.group.add_up(self.gradient)
        adam_update(self.adam, self.trained)


class SharedRowwiseStep(RowwiseStep):
    """RowwiseStep of several processes: the gradients of the rows looked up are gathered.

    Which rows these are everybody knows, because all draw the same batches. A process sends, end to end, the gradients
    of its part's rows, of its part's biases, and of the MLP: for a part of n triples (3 or 5)·d·n + 2·n numbers and
    the MLP's, whatever the tables' sizes.
    """

    name = "row-wise step of several processes"

    def __init__(self, model: nn.Module, adam: AdamState, weights: Weights, group: Group) -> None:
        super().__init__(model, adam, weights)
        self.group = group

    def _add_up(self, sums: Tensor) -> None:
        self.group.add_up(sums)

    def step(self, rows: Tensor, biases: Tensor, ratings: Tensor, sigmoid_sum: Tensor, square_sum: Tensor) -> None:
        n, width = len(ratings), len(self.own_columns) * self.embedding_dim
        longest = self.group.longest_part(n)
        sizes = [longest * width, longest * 2, len(self.mlp.gradient)]
        sent = self.flat.new_zeros(sum(sizes))
        row_gradients, bias_gradients, mlp_gradient = sent.split(sizes)
        work, mine = _part(self, self.group, rows, biases, ratings)
        if work is None:
            sigmoid_sum.zero_()
            square_sum.zero_()
        else:
            self._gradients(work, *mine, sigmoid_sum, square_sum)
            block = work.embedding_gradients.view(len(mine[2]), len(self.columns), self.embedding_dim)
            block[:, 1] += block[:, 2]  # both are q⁺
            row_gradients[: len(mine[2]) * width] = block.index_select(1, self.own_columns).view(-1)
            bias_gradients[: len(mine[2]) * 2] = work.bias_gradients
            mlp_gradient.copy_(self.mlp.gradient)
        received = self.group.gather(sent, sent.new_empty(self.group.size, len(sent)))
        all_rows, all_biases, all_mlp = received.split(sizes, dim=1)
        torch.sum(all_mlp, 0, out=self.mlp.gradient)
        own = rows.view(n, -1).index_select(1, self.own_columns).view(-1)
        self.update(
            own,
            own,
            all_rows.reshape(-1, self.embedding_dim)[: len(own)],
            biases,
            all_biases.reshape(-1)[: len(biases)],
        )


def _part(
    step: FusedStep, group: Group, rows: Tensor, biases: Tensor, ratings: Tensor
) -> tuple[Workspace | None, tuple[Tensor, Tensor, Tensor]]:
    """This process's part of a batch, and the memory for it; None where the batch has less than one triple for each."""
    n = len(ratings)
    part = group.part(n)
    mine = (
        rows.view(n, -1)[part].reshape(-1),
        biases.view(n, 2)[part].reshape(-1),
        ratings[part],
    )
    return (step.workspace(len(mine[2]), n) if len(mine[2]) > 0 else None), mine


class SharedEagerStep(EagerStep):
    """EagerStep of several processes: each computes the losses of its part of a batch, as a share of their means."""

    name = "step of several processes"

    def __init__(self, model: nn.Module, adam: AdamState, weights: Weights, group: Group) -> None:
        super().__init__(model, adam, weights)
        self.group = group

    def run(self, triples: Triples, batch_size: int) -> Tensor:
        return self.group.add_up(super().run(triples, batch_size))

    def step(self, users: Tensor, items: Tensor, negatives: Tensor, ratings: Tensor) -> Tensor:
        part = self.group.part(len(ratings))
        self.share = len(ratings[part]) / len(ratings)
        if self.share == 0:
            self.update(None)
            return torch.zeros(2, device=ratings.device)
        return self.share * super().step(users[part], items[part], negatives[part], ratings[part])

    def update(self, loss: Tensor | None) -> None:
        trained = self.adam.everything
        trained.gradient.zero_()
        if loss is not None:
            (self.share * loss).backward()
        self.group.add_up(trained.gradient)
        adam_update(self.adam, [trained])
