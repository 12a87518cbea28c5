"""Row-wise ("lazy") Adam: a step updates only the embeddings that its batch looks up, so that users are free of charge.

Dense Adam moves every row in every step, because the first moment of a row that no rating touches is still on its way
to zero: with 285,000 rows that is 30 times the work of the 768 that a batch of 256 looks up. Row-wise Adam leaves the
row and its moments as they are until it is looked up again. The bias correction counts all steps, not the row's. This
is ``torch.optim.SparseAdam``; the MLP, which every batch touches whole, has Adam as Kingma and Ba (2015) wrote it.
It is another algorithm than dense Adam, with other results: see docs/scale.md for how they compare.

    EagerRowwiseStep   by autograd and torch's SparseAdam: the definition
    RowwiseStep        the same with the fused step's gradients
"""

import torch
from torch import Tensor, nn
from torch.optim._functional import sparse_adam

from training import parts
from training.adam import BETAS, AdamState, Parameters, adam_update, slices
from training.cuda_graph import GraphStep
from training.fused import FusedStep
from training.steps import EagerStep, Triples, Weights


class RowwiseStep(FusedStep):
    """FusedStep with row-wise Adam.

    Rows that a batch looks up more than once need the sum of their gradients. Each look-up writes its place in the
    batch into ``place``; whichever of a row's look-ups wrote last, all then read the same place and add up there. So
    nothing is sorted, no gradient is kept for rows that nobody looked up, and a row that comes twice is updated twice
    from the same old values to the same new ones.
    """

    name = "row-wise step"

    def __init__(self, model: nn.Module, adam: AdamState, weights: Weights) -> None:
        super().__init__(model, adam, weights)
        start, stop = self.table.numel(), len(self.added_gradient)
        first, second = adam.first_moment, adam.second_moment
        self.table_rows = _Rows(self.table, first[:start].view_as(self.table), second[:start].view_as(self.table))
        self.bias_rows = _Rows(self.bias, first[start:stop], second[start:stop])
        self.mlp = Parameters(self.flat[stop:], self.gradient[stop:], first[stop:], second[stop:])
        # The third column of a batch's block, q⁺ once more, names the rows of the second.
        self.own_columns = torch.tensor([k for k in range(len(self.columns)) if k != 2], device=self.flat.device)
        self.own_rows: dict[int, Tensor] = {}

    def step(self, rows: Tensor, biases: Tensor, ratings: Tensor, sigmoid_sum: Tensor, square_sum: Tensor) -> None:
        work = self.workspace(len(ratings), len(ratings))
        self._gradients(work, rows, biases, ratings, sigmoid_sum, square_sum)
        n = len(ratings)
        if n not in self.own_rows:
            self.own_rows[n] = rows.new_empty(n, len(self.own_columns))
        own = torch.index_select(rows.view(n, -1), 1, self.own_columns, out=self.own_rows[n]).view(-1)
        self.update(own, rows, work.embedding_gradients, biases, work.bias_gradients)

    def update(self, own: Tensor, rows: Tensor, row_gradients: Tensor, biases: Tensor, bias_gradients: Tensor) -> None:
        """Row-wise Adam on the rows and biases looked up, Adam on the MLP.

        Args:
            own: all rows that were looked up, each at least once.
            rows, row_gradients: (k,) and (k, d), the look-ups and the gradient of each.
            biases, bias_gradients: (n · 2,).
        """
        table = self.table_rows.gather(own, rows, row_gradients)
        bias = self.bias_rows.gather(biases, biases, bias_gradients)
        adam_update(self.adam, [table, bias, self.mlp])
        self.table_rows.write_back(own, table)
        self.bias_rows.write_back(biases, bias)


class _Rows:
    """A table of parameters, (rows, …), of which a step updates some rows.

    Attributes:
        values, first_moment, second_moment: (rows, …).
        place: (rows,) scratch, the place in the batch at which a row was looked up.
        memory: for k rows, their places, the sums of their gradients, and the copies that are updated.
    """

    def __init__(self, values: Tensor, first_moment: Tensor, second_moment: Tensor) -> None:
        self.values, self.first_moment, self.second_moment = values, first_moment, second_moment
        self.place = torch.zeros(len(values), dtype=torch.int64, device=values.device)
        self.memory: dict[int, tuple[Tensor, Tensor, Parameters]] = {}

    def gather(self, own: Tensor, lookups: Tensor, gradients: Tensor) -> Parameters:
        """Copies of the rows ``own``, with the sums of the gradients of all look-ups, which name no others.

        A row that comes twice is copied twice.
        """
        k = len(own)
        if k not in self.memory:
            empty = [self.values.new_empty(k, *self.values.shape[1:]) for _ in range(5)]
            self.memory[k] = torch.arange(k, device=own.device), empty[0], Parameters(*empty[1:])
        places, sums, rows = self.memory[k]
        self.place.index_copy_(0, own, places)
        sums.zero_().index_add_(0, self.place[lookups], gradients)
        torch.index_select(sums, 0, self.place[own], out=rows.gradient)
        torch.index_select(self.values, 0, own, out=rows.values)
        torch.index_select(self.first_moment, 0, own, out=rows.first_moment)
        torch.index_select(self.second_moment, 0, own, out=rows.second_moment)
        return rows

    def write_back(self, own: Tensor, rows: Parameters) -> None:
        """Copies go back to where they came from."""
        self.values.index_copy_(0, own, rows.values)
        self.first_moment.index_copy_(0, own, rows.first_moment)
        self.second_moment.index_copy_(0, own, rows.second_moment)


class RowwiseGraphStep(RowwiseStep, GraphStep):
    """RowwiseStep's steps as a CUDA graph."""

    name = "CUDA graph"


class EagerRowwiseStep(EagerStep):
    """The homework's step with SparseAdam for all embeddings and Adam for the other parameters.

    SparseAdam adds ε to √v, Adam to √(v / (1 − β₂ᵗ)). Here all parameters have Adam's, so that a row that every batch
    touches is trained as by dense Adam.
    """

    def __init__(self, model: nn.Module, adam: AdamState, weights: Weights) -> None:
        super().__init__(model, adam, weights)
        self.tables = parts.embeddings(model)
        columns = (slices(model, column) for column in adam.everything)
        every = [Parameters(*each) for each in zip(*columns, strict=True)]
        by_parameter: dict[Tensor, Parameters] = dict(zip(parts.parameters(model), every, strict=True))
        self.rows = {table.weight: by_parameter[table.weight] for table in self.tables}
        self.others = [trained for parameter, trained in by_parameter.items() if parameter not in self.rows]

    def run(self, triples: Triples, batch_size: int) -> Tensor:
        before = [table.sparse for table in self.tables]
        try:
            for table in self.tables:
                table.sparse = True
            return super().run(triples, batch_size)
        finally:
            for table, sparse in zip(self.tables, before, strict=True):
                table.sparse = sparse
            for weight, trained in self.rows.items():
                weight.grad = trained.gradient

    def update(self, loss: Tensor) -> None:
        for weight in self.rows:
            weight.grad = None
        for trained in self.others:
            trained.gradient.zero_()
        loss.backward()
        adam_update(self.adam, self.others)
        correction = (1 - BETAS[1] ** self.adam.steps_taken.item()) ** 0.5
        for weight, trained in self.rows.items():
            if weight.grad is None:  # no task reads this table
                continue
            sparse_adam(
                [trained.values],
                [weight.grad],
                [trained.first_moment],
                [trained.second_moment],
                [int(self.adam.steps_taken.item())],
                eps=self.adam.epsilon * correction,
                beta1=BETAS[0],
                beta2=BETAS[1],
                lr=self.adam.learning_rate,
                maximize=False,
            )
