"""Row-wise ("lazy") Adam: a step updates only the embeddings that its batch looks up, so that users are free of charge.

Dense Adam moves every row in every step, because the first moment of a row that no rating touches is still on its way
to zero: with 285,000 rows that is 30 times the work of the 768 that a batch of 256 looks up. Row-wise Adam leaves the
row and its moments as they are until it is looked up again. The bias correction counts all steps, not the row's. This
is ``torch.optim.SparseAdam``; the MLP, which every batch touches whole, has Adam as Kingma and Ba (2015) wrote it.
It is another algorithm than dense Adam, with other results: see docs/scale.md for how they compare.

    EagerRowwiseStep   by autograd and torch.optim.SparseAdam: the definition
    RowwiseStep        the same with the fused step's gradients
"""

import torch
from torch import Tensor, nn

from models import MultiTaskNet
from training.adam import BETAS, EPSILON, AdamState, Parameters, adam_update, slices
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

    def __init__(self, model: MultiTaskNet, adam: AdamState, weights: Weights) -> None:
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


class EagerRowwiseStep(EagerStep):
    """The homework's step with torch's own optimizers: SparseAdam for the tables and B, Adam for the rest.

    SparseAdam adds ε to √v, Adam to √(v / (1 − β₂ᵗ)). Here all parameters have Adam's, so that a row that every batch
    touches is trained as by dense Adam.
    """

    def __init__(self, model: MultiTaskNet, adam: AdamState, weights: Weights) -> None:
        super().__init__(model, adam, weights)
        self.adam = adam
        self.tables = [module for module in model.modules() if isinstance(module, nn.Embedding)]
        self.embeddings = [table.weight for table in self.tables if table.weight.requires_grad]
        embeddings = {id(weight) for weight in self.embeddings}
        self.others = [x for x in model.parameters() if id(x) not in embeddings and x.requires_grad]
        self.sparse = torch.optim.SparseAdam(self.embeddings, adam.learning_rate, BETAS, EPSILON)
        self.optimizer = torch.optim.Adam(self.others, adam.learning_rate, BETAS, EPSILON, fused=True)
        for parameter, first, second in zip(
            model.parameters(), slices(model, adam.first_moment), slices(model, adam.second_moment), strict=True
        ):
            if parameter.requires_grad:
                optimizer = self.sparse if id(parameter) in embeddings else self.optimizer
                # The count of steps is kept once, in AdamState.
                optimizer.state[parameter] = {"step": adam.steps_taken.clone(), "exp_avg": first, "exp_avg_sq": second}

    def run(self, triples: Triples, batch_size: int) -> Tensor:
        for optimizer in (self.sparse, self.optimizer):
            for state in optimizer.state.values():
                state["step"] = self.adam.steps_taken.clone()
        before = [table.sparse for table in self.tables]
        gradients = [weight.grad for weight in self.embeddings]  # views of the one vector of all gradients
        try:
            for table in self.tables:
                table.sparse = True
            return super().run(triples, batch_size)
        finally:
            for table, sparse in zip(self.tables, before, strict=True):
                table.sparse = sparse
            for weight, gradient in zip(self.embeddings, gradients, strict=True):
                weight.grad = gradient

    def _update(self, loss: Tensor) -> None:
        for weight in self.embeddings:
            weight.grad = None
        self.optimizer.zero_grad(set_to_none=False)
        loss.backward()
        self.adam.steps_taken.add_(1)
        self.sparse.param_groups[0]["eps"] = EPSILON * (1 - BETAS[1] ** self.adam.steps_taken.item()) ** 0.5
        self.sparse.step()
        self.optimizer.step()
