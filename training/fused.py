"""The step of ``steps.py``, three times faster: the same arithmetic with its gradients written out.

On matrices this small a step's time goes into starting operations, not into arithmetic, so ``FusedStep`` starts fewer
of them: no graph is recorded for autograd, all look-ups are one, all table gradients are one sum, and every result
goes into memory that was set aside before.
"""

from typing import NamedTuple

import torch
from torch import Tensor, nn

from training import parts
from training.adam import AdamState, adam_update
from training.steps import Triples, Weights

# These exact overloads: choosing one by its arguments, in each step, takes longer than its arithmetic.
_relu_backward = torch.ops.aten.threshold_backward.grad_input
_sigmoid_backward = torch.ops.aten.sigmoid_backward.grad_input


class _Linear(NamedTuple):
    """A layer of the MLP and its gradients, as views of the network's parameters."""

    weight: Tensor  # (out, in), or (in,) for the last layer
    bias: Tensor  # (out,)
    weight_gradient: Tensor
    bias_gradient: Tensor
    weight_transposed: Tensor


class FusedStep:
    """The same step with its gradients by hand.

    The tables, laid end to end, are one table of rows. A batch of n triples looks up one (n, columns · d) block in
    it, whose columns of width d are, for shared and for separate tables,

        shared    u   q⁺  q⁺                   q⁻
        separate  u   q⁺  q⁺    u   q⁺  q⁻           (first three: _reg tables, last three: _fact tables)

    Multiplying the third column by the first makes the first three the MLP's input [u, q, u ∗ q], in place. The
    gradient is a block of the same columns, and adding its rows to the table they came from is one operation.
    """

    name = "fused step"

    def __init__(self, model: nn.Module, adam: AdamState, weights: Weights) -> None:
        shared, tables = parts.has_shared_tables(model), parts.factorization_tables(model)
        self.adam, self.weights, self.embedding_dim = adam, weights, tables.users.embedding_dim
        self.flat, self.gradient = adam.everything[:2]
        self.trained = [adam.everything]
        users, items = (table.num_embeddings for table in tables)
        shape = ((1 if shared else 2) * (users + items), self.embedding_dim)
        self.table, self.table_gradient = (x[: shape[0] * shape[1]].view(shape) for x in (self.flat, self.gradient))
        bias = parts.embedding(model, "B").weight
        self.bias, self.bias_gradient = bias.data.squeeze(1), _gradient(bias).squeeze(1)
        # What a step adds to and so must be zero before it: all but the MLP's gradients, which it overwrites.
        self.added_gradient = self.gradient[: self.table.numel() + self.bias.numel()]

        columns = {"users": 0, "items": users, "negatives": users}  # where their rows start in the first two tables
        regression, interaction = ["users", "items", "items"], ["users", "items", "negatives"]
        if shared:
            self.columns, self.interaction_columns = [*regression, "negatives"], (0, 1, 3)
            first_rows = [columns[name] for name in self.columns]
        else:
            self.columns, self.interaction_columns = [*regression, *interaction], (3, 4, 5)
            first_rows = [columns[name] + (users + items) * (k > 2) for k, name in enumerate(self.columns)]
        self.first_rows = torch.tensor(first_rows, device=self.flat.device)

        *self.hidden, self.output = [
            _Linear(x.weight.data, x.bias.data, _gradient(x.weight), _gradient(x.bias), x.weight.data.T)
            for x in parts.linear_layers(model)
        ]
        self.output = self.output._replace(weight=self.output.weight[0], weight_gradient=self.output.weight_gradient[0])
        self.workspaces: dict[tuple[int, int], Workspace] = {}

    @torch.inference_mode()
    def run(self, triples: Triples, batch_size: int) -> Tensor:
        rows = torch.stack([getattr(triples, column) for column in self.columns], dim=1).add_(self.first_rows)
        biases = torch.stack([triples.items, triples.negatives], dim=1)
        ratings = triples.ratings.split(batch_size)
        # Each batch's sums of σ(p⁺ − p⁻) and of (r̂ − r)², made into means once the epoch is over.
        sums = triples.ratings.new_empty(2, len(ratings))
        self._steps(
            list(
                zip(
                    rows.view(-1).split(len(self.columns) * batch_size),
                    biases.view(-1).split(2 * batch_size),
                    ratings,
                    *(row.unbind() for row in sums),
                    strict=True,
                )
            )
        )
        self._add_up(sums)
        means = sums / torch.tensor([len(batch) for batch in ratings], device=sums.device)
        means[0] = 1.0 - means[0]
        return means.T

    def _add_up(self, sums: Tensor) -> None:
        """Add what other processes have of the batches."""

    def _steps(self, batches: list[tuple[Tensor, ...]]) -> None:
        for batch in batches:
            self.step(*batch)

    def step(self, rows: Tensor, biases: Tensor, ratings: Tensor, sigmoid_sum: Tensor, square_sum: Tensor) -> None:
        """One step on a batch of n triples.

        Args:
            rows: (n · columns,) rows of the table.
            biases: (n · 2,) of each triple its item and its negative item.
            ratings: (n,).
            sigmoid_sum, square_sum: (), where to put the sums over the batch of σ(p⁺ − p⁻) and of (r̂ − r)².
        """
        work = self.workspace(len(ratings), len(ratings))
        self._gradients(work, rows, biases, ratings, sigmoid_sum, square_sum)
        self._scatter(work, rows, biases)
        adam_update(self.adam, self.trained)

    def workspace(self, n: int, batch: int) -> "Workspace":
        """The memory for n triples of a batch of so many, over which the losses are means."""
        if (n, batch) not in self.workspaces:
            self.workspaces[n, batch] = Workspace(self, n, batch)
        return self.workspaces[n, batch]

    def _gradients(
        self, work: "Workspace", rows: Tensor, biases: Tensor, ratings: Tensor, sigmoid_sum: Tensor, square_sum: Tensor
    ) -> None:
        """Forwards and backwards: the gradients of each look-up of a row or a bias, and the MLP's."""
        torch.index_select(self.table, 0, rows, out=work.embeddings)
        torch.index_select(self.bias, 0, biases, out=work.biases)
        self._regression(work, ratings, square_sum)
        self._factorization(work, sigmoid_sum)

    def _scatter(self, work: "Workspace", rows: Tensor, biases: Tensor) -> None:
        """The gradient of all rows and biases from those of the ones looked up."""
        self.added_gradient.zero_()
        self.table_gradient.index_add_(0, rows, work.embedding_gradients)
        self.bias_gradient.index_add_(0, biases, work.bias_gradients)

    def _regression(self, work: "Workspace", ratings: Tensor, square_sum: Tensor) -> None:
        """Equations 4 and 5: the MLP forwards, then backwards into its gradients and those of u and q."""
        u, q, product = work.regression
        product.mul_(u)
        for layer, x, out in zip(self.hidden, work.inputs[:-1], work.inputs[1:], strict=True):
            torch.addmm(layer.bias, x, layer.weight_transposed, out=out).relu_()
        output = self.output
        error = torch.addmv(output.bias, work.inputs[-1], output.weight, out=work.error).sub_(ratings)
        torch.dot(error, error, out=square_sum)

        error.mul_(work.error_slope)  # ∂L/∂r̂ = λ_R · 2 (r̂ − r) / n
        torch.mv(work.transposed_inputs[-1], error, out=output.weight_gradient)
        torch.sum(error, 0, keepdim=True, out=output.bias_gradient)
        torch.mul(work.error_column, output.weight, out=work.input_gradients[-1])
        for k in range(len(self.hidden) - 1, -1, -1):
            layer, active, gradient = self.hidden[k], work.inputs[k + 1], work.input_gradients[k + 1]
            _relu_backward(gradient, active, 0, grad_input=gradient)  # passes where the unit was active
            torch.mm(work.transposed_gradients[k + 1], work.inputs[k], out=layer.weight_gradient)
            torch.sum(gradient, 0, out=layer.bias_gradient)
            torch.mm(gradient, layer.weight, out=work.input_gradients[k])

        u_gradient, _, product_gradient = work.regression_gradients  # q's has what it needs in its own column
        u_gradient.add_(torch.mul(product_gradient, q, out=work.scratch))
        product_gradient.mul_(u)  # will be added to the same row of the table as q's

    def _factorization(self, work: "Workspace", sigmoid_sum: Tensor) -> None:
        """Equations 1 and 3: p⁺ − p⁻ = u · (q⁺ − q⁻) + b⁺ − b⁻, and the gradients of u, q⁺, q⁻ and b."""
        u, positive, negative = work.interaction
        u_gradient, positive_gradient, negative_gradient = work.interaction_gradients
        difference = torch.sub(positive, negative, out=work.difference)
        p = torch.sum(torch.mul(u, difference, out=work.scratch), 1, out=work.logits)
        sigmoid = p.add_(work.positive_bias).sub_(work.negative_bias).sigmoid_()
        torch.sum(sigmoid, 0, out=sigmoid_sum)

        # ∂L/∂(p⁺ − p⁻) = −λ_F · σ (1 − σ) / n
        _sigmoid_backward(work.logit_slope, sigmoid, grad_input=work.slope)
        slope = work.slope_column
        if work.shares_columns:  # with the regression, whose gradients are already there
            u_gradient.add_(difference.mul_(slope))
            positive_gradient.add_(torch.mul(u, slope, out=work.scratch))
            torch.neg(work.scratch, out=negative_gradient)
        else:
            torch.mul(difference, slope, out=u_gradient)
            torch.mul(u, slope, out=positive_gradient)
            torch.neg(positive_gradient, out=negative_gradient)
        torch.mul(slope, work.signs, out=work.bias_gradient_pairs)


class Workspace:
    """The memory of a step on n triples of a batch, and all views into it that the step needs, made once."""

    def __init__(self, step: FusedStep, n: int, batch: int) -> None:
        d, columns, device = step.embedding_dim, len(step.columns), step.flat.device

        def empty(*shape: int) -> Tensor:
            return torch.empty(shape, device=device)

        self.embeddings, self.embedding_gradients = empty(n * columns, d), empty(n * columns, d)
        block, gradient_block = self.embeddings.view(n, columns, d), self.embedding_gradients.view(n, columns, d)
        self.regression, self.regression_gradients = block[:, :3].unbind(1), gradient_block[:, :3].unbind(1)
        self.interaction = [block[:, k] for k in step.interaction_columns]
        self.interaction_gradients = [gradient_block[:, k] for k in step.interaction_columns]
        self.shares_columns = step.interaction_columns[0] == 0
        self.scratch, self.difference = empty(n, d), empty(n, d)

        # What each linear layer reads, from [u, q, u ∗ q] on, and the gradient of each.
        widths = [layer.weight.shape[0] for layer in step.hidden]
        self.inputs = [block.view(n, -1)[:, : 3 * d], *(empty(n, width) for width in widths)]
        self.input_gradients = [gradient_block.view(n, -1)[:, : 3 * d], *(empty(n, width) for width in widths)]
        self.transposed_inputs = [x.T for x in self.inputs]
        self.transposed_gradients = [x.T for x in self.input_gradients]
        self.error = empty(n)
        self.error_column = self.error.unsqueeze(1)
        self.error_slope = torch.tensor(2.0 * step.weights.regression / batch, device=device)

        self.biases, self.bias_gradients = empty(2 * n), empty(2 * n)
        self.positive_bias, self.negative_bias = self.biases.view(n, 2).unbind(1)
        self.bias_gradient_pairs = self.bias_gradients.view(n, 2)
        self.signs = torch.tensor([1.0, -1.0], device=device)
        self.logits, self.slope = empty(n), empty(n)
        self.slope_column = self.slope.unsqueeze(1)
        self.logit_slope = torch.full((n,), -step.weights.factorization / batch, device=device)


def _gradient(parameter: Tensor) -> Tensor:
    assert parameter.grad is not None
    return parameter.grad
