"""Adam, dense and row-wise, and the one vector of parameters that it trains.

Dense Adam moves every row of a table in every step, because the first moment of a row that no rating touches is still
on its way to zero: with 285,000 rows that is 30 times the work of the 768 rows that a batch of 256 looks up. Row-wise
("lazy") Adam leaves a row and its moments as they are until a batch looks the row up again. Its bias correction counts
all steps, not the row's. It is ``torch.optim.SparseAdam`` for the embeddings and Adam for the MLP. Its results differ
from dense Adam's, see docs/scale.md.

``Adam`` and ``SparseAdam`` follow a backward pass. ``DenseAdam`` and ``RowwiseAdam`` take the gradients of a batch's
look-ups.
"""

from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.optim._functional import sparse_adam

from training import parts

BETAS, EPSILON = (0.9, 0.999), 1e-8  # the published values, and the defaults of torch
# Row-wise Adam is the default where the tables have more rows than MANY_ROWS, and more than ROWS_A_LOOKUP times those
# that a batch looks up. Below, dense Adam is as fast or faster (measured on one core).
MANY_ROWS, ROWS_A_LOOKUP = 2**13, 16


def pick_optimizer(name: str, rows: int, batch_size: int) -> str:
    """Return "adam" or "lazy_adam"; "auto" depends on the rows of the tables and those that a batch looks up."""
    if name != "auto":
        return name
    return "lazy_adam" if rows > max(MANY_ROWS, ROWS_A_LOOKUP * 3 * batch_size) else "adam"


class Parameters(NamedTuple):
    """Parameters that Adam trains, with their gradient and moments: four tensors of one shape."""

    values: Tensor
    gradient: Tensor
    first_moment: Tensor
    second_moment: Tensor


class Adam:
    """Adam (Kingma and Ba, 2015) for all parameters of a network, which become slices of one vector.

    Attributes:
        flat: (parameters,) the vector, with a gradient that backward adds to.
        first_moment, second_moment: (parameters,)
        steps_taken: () float32; with the moments all that a checkpoint needs besides the parameters.
        everything: the vector, its gradient and its moments.
    """

    def __init__(self, model: nn.Module, learning_rate: float, epsilon: float = EPSILON) -> None:
        self.flat = parts.flatten(model)
        values, gradient = self.flat.data, self.flat.grad
        assert gradient is not None
        self.first_moment = torch.zeros_like(values)
        self.second_moment = torch.zeros_like(values)
        self.everything = Parameters(values, gradient, self.first_moment, self.second_moment)
        self.steps_taken = torch.zeros((), device=values.device)
        self.learning_rate = learning_rate
        self.epsilon = epsilon

    def by_parameter(self, model: nn.Module) -> dict[Tensor, Parameters]:
        """Return the part of each parameter of the network in the vector."""
        columns = [parts.slices(model, vector) for vector in self.everything]
        return dict(zip(parts.parameters(model), map(Parameters, *columns), strict=True))

    def zero_grad(self) -> None:
        self.everything.gradient.zero_()

    def step(self, learning_rate: float | None = None) -> None:
        """Move all parameters; a learning rate that is given is for this step alone."""
        self.update([self.everything], learning_rate)

    def update(self, trained: Sequence[Parameters], learning_rate: float | None = None) -> None:
        """Move some parameters as ``torch.optim.Adam`` does, without its bookkeeping, which costs as much again."""
        self.steps_taken.add_(1)
        torch._fused_adam_(
            [each.values for each in trained],
            [each.gradient for each in trained],
            [each.first_moment for each in trained],
            [each.second_moment for each in trained],
            [],
            [self.steps_taken] * len(trained),
            lr=self.learning_rate if learning_rate is None else learning_rate,
            beta1=BETAS[0],
            beta2=BETAS[1],
            weight_decay=0.0,
            eps=self.epsilon,
            amsgrad=False,
            maximize=False,
        )


class SparseAdam:
    """Row-wise Adam as torch has it: the definition, which ``RowwiseAdam`` is compared with.

    torch's SparseAdam adds ε to √v, and Adam to √(v / (1 − β₂ᵗ)). Here all parameters have Adam's ε, so that a row that
    every batch looks up is trained as by dense Adam. The network's embeddings get sparse gradients from now on.
    """

    def __init__(self, model: nn.Module, adam: Adam) -> None:
        self.adam = adam
        every = adam.by_parameter(model)
        self.rows: dict[Tensor, Parameters] = {}
        for table in parts.embeddings(model):
            table.sparse = True
            self.rows[table.weight] = every[table.weight]
        self.others = [trained for parameter, trained in every.items() if parameter not in self.rows]

    def zero_grad(self) -> None:
        for weight in self.rows:
            weight.grad = None
        for trained in self.others:
            trained.gradient.zero_()

    def step(self) -> None:
        adam = self.adam
        adam.update(self.others)
        steps_taken = int(adam.steps_taken.item())
        correction = (1 - BETAS[1] ** steps_taken) ** 0.5
        for weight, trained in self.rows.items():
            if weight.grad is None:  # no task reads this table
                continue
            sparse_adam(
                [trained.values],
                [weight.grad],
                [trained.first_moment],
                [trained.second_moment],
                [steps_taken],
                eps=adam.epsilon * correction,
                beta1=BETAS[0],
                beta2=BETAS[1],
                lr=adam.learning_rate,
                maximize=False,
            )


class Lookups(NamedTuple):
    """The rows and item biases that k triples look up, each as often as it is looked up, and the gradient of each."""

    rows: Tensor  # (k · columns,) places in the table of all embeddings
    row_gradients: Tensor  # (k · columns, d)
    biases: Tensor  # (2 · k,)
    bias_gradients: Tensor  # (2 · k,)


class DenseAdam:
    """Adam on all parameters, from the gradients of a batch's look-ups. The MLP's is in ``adam`` before an update.

    Args:
        table, bias, mlp: (rows, d) all embeddings, (num_items,) the item biases, and all other parameters.
    """

    def __init__(self, adam: Adam, table: Parameters, bias: Parameters, mlp: Parameters) -> None:
        self.adam, self.table, self.bias = adam, table, bias
        self.added_gradient = adam.everything.gradient[: table.values.numel() + bias.values.numel()]

    def update(self, lookups: Lookups) -> None:
        """Update from the look-ups of a batch."""
        self.added_gradient.zero_()
        self.table.gradient.index_add_(0, lookups.rows, lookups.row_gradients)
        self.bias.gradient.index_add_(0, lookups.biases, lookups.bias_gradients)
        self.adam.step()


class RowwiseAdam:
    """Row-wise Adam on the rows and item biases that a batch looks up, and Adam on the MLP; Args as ``DenseAdam``."""

    def __init__(self, adam: Adam, table: Parameters, bias: Parameters, mlp: Parameters) -> None:
        self.adam, self.mlp = adam, mlp
        self.table, self.bias = _Rows(table), _Rows(bias)

    def update(self, lookups: Lookups) -> None:
        block = lookups.rows.view(len(lookups.biases) // 2, -1)
        own = torch.cat([block[:, :2], block[:, 3:]], dim=1).view(-1)  # the third column looks up q⁺ again
        table = self.table.gather(own, lookups.rows, lookups.row_gradients)
        bias = self.bias.gather(lookups.biases, lookups.biases, lookups.bias_gradients)
        self.adam.update([table, bias, self.mlp])
        self.table.write_back(own, table)
        self.bias.write_back(lookups.biases, bias)


class _Rows:
    """A table of parameters, (rows, …), of which a step updates some rows.

    Rows that a batch looks up more than once need the sum of their gradients. Each look-up writes its place in the
    batch into ``place``; all look-ups of a row then read the one place that was written last, and add up there. So
    nothing is sorted, and a row that comes twice is updated twice from the same old values to the same new ones.
    """

    def __init__(self, table: Parameters) -> None:
        self.table = table
        self.place = torch.zeros(len(table.values), dtype=torch.int64, device=table.values.device)
        self.memory: dict[int, tuple[Tensor, Tensor, Parameters]] = {}  # of k rows: places, sums and copies

    def gather(self, own: Tensor, lookups: Tensor, gradients: Tensor) -> Parameters:
        """Copy the k rows ``own``, with the sums of the gradients of all look-ups, which are of no other rows."""
        k = len(own)
        if k not in self.memory:
            empty = [self.table.values.new_empty(k, *self.table.values.shape[1:]) for _ in range(5)]
            self.memory[k] = torch.arange(k, device=own.device), empty[0], Parameters(*empty[1:])
        places, sums, copies = self.memory[k]
        self.place.index_copy_(0, own, places)
        sums.zero_().index_add_(0, self.place[lookups], gradients)
        torch.index_select(sums, 0, self.place[own], out=copies.gradient)
        torch.index_select(self.table.values, 0, own, out=copies.values)
        torch.index_select(self.table.first_moment, 0, own, out=copies.first_moment)
        torch.index_select(self.table.second_moment, 0, own, out=copies.second_moment)
        return copies

    def write_back(self, own: Tensor, copies: Parameters) -> None:
        self.table.values.index_copy_(0, own, copies.values)
        self.table.first_moment.index_copy_(0, own, copies.first_moment)
        self.table.second_moment.index_copy_(0, own, copies.second_moment)
