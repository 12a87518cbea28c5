"""The gradients of the losses written out, for the fused step.

On matrices this small a step's time goes into starting operations, not into arithmetic. So fewer of them are started:
no graph is recorded for autograd, all look-ups are one operation, and every result goes into memory that was set aside
before.
"""

from typing import NamedTuple

import torch
from torch import Tensor, nn

from training import parts
from training.adam import Adam, Lookups, Parameters
from training.steps import LossWeights, Sizes, Triples

# These exact overloads: choosing one by its arguments, in each step, takes longer than its arithmetic.
_relu_backward = torch.ops.aten.threshold_backward.grad_input
_sigmoid_backward = torch.ops.aten.sigmoid_backward.grad_input


class Batch(NamedTuple):
    """The look-ups of n triples, and the places of the losses."""

    rows: Tensor  # (n · columns,) of the table of all embeddings
    biases: Tensor  # (n · 2,) of each triple its item and its negative item
    ratings: Tensor  # (n,)
    sigmoid_sum: Tensor  # () the sum over the batch of σ(p⁺ − p⁻)
    square_sum: Tensor  # () the sum over the batch of (r̂ − r)²


class _Linear(NamedTuple):
    """A layer of the MLP and its gradients, as views of the network's parameters."""

    weight: Tensor  # (out, in), or (in,) for the last layer
    bias: Tensor  # (out,)
    weight_gradient: Tensor
    bias_gradient: Tensor
    weight_transposed: Tensor


class FusedGradients:
    """The gradients of a batch by hand.

    The tables, laid end to end, are one table of rows. A batch of n triples looks up one (n, columns · d) block in
    it, whose columns of width d are, for shared and for separate tables,

        shared    u   q⁺  q⁺                   q⁻
        separate  u   q⁺  q⁺    u   q⁺  q⁻           (first three: _reg tables, last three: _fact tables)

    Multiplying the third column by the first makes the first three the MLP's input [u, q, u ∗ q], in place. The
    gradient is a block of the same columns.

    Attributes:
        table, bias, mlp: the table of all rows, (rows, d), the item biases, (num_items,), and all other parameters.
    """

    def __init__(self, model: nn.Module, adam: Adam, loss_weights: LossWeights) -> None:
        shared, (user_table, item_table) = parts.has_shared_tables(model), parts.factorization_tables(model)
        users, items, d = user_table.num_embeddings, item_table.num_embeddings, user_table.embedding_dim
        self.loss_weights, self.embedding_dim, self.device = loss_weights, d, adam.flat.device
        rows = (1 if shared else 2) * (users + items)
        sizes = [rows * d, parts.embedding(model, "B").num_embeddings]
        sizes.append(adam.flat.numel() - sum(sizes))
        columns = [vector.split(sizes) for vector in adam.everything]
        table, self.bias, self.mlp = (Parameters(*each) for each in zip(*columns, strict=True))
        self.table = Parameters(*(each.view(rows, d) for each in table))

        rating = ["users", "items", "items"]
        self.columns = [*rating, "negatives"] if shared else [*rating, "users", "items", "negatives"]
        self.interaction_columns = (0, 1, 3) if shared else (3, 4, 5)
        offsets = torch.tensor([0 if name == "users" else users for name in self.columns])
        offsets[3:] += 0 if shared else users + items  # the _fact tables come second
        self.first_rows = offsets.to(self.device)

        trained = adam.by_parameter(model)
        *self.hidden, output = [
            _Linear(x.weight.data, x.bias.data, trained[x.weight].gradient, trained[x.bias].gradient, x.weight.data.T)
            for x in parts.linear_layers(model)
        ]
        self.output = output._replace(weight=output.weight[0], weight_gradient=output.weight_gradient[0])
        self.workspaces: dict[int, Workspace] = {}

    def batches(self, triples: Triples, batch_size: Sizes, sums: Tensor) -> list[Batch]:
        """List the look-ups of each batch; sums: (2, batches), the places of the losses."""
        rows = torch.stack([getattr(triples, column) for column in self.columns], dim=1).add_(self.first_rows)
        biases = torch.stack([triples.items, triples.negatives], dim=1)
        columns = (
            [each.view(-1) for each in rows.split(batch_size)],
            [each.view(-1) for each in biases.split(batch_size)],
            triples.ratings.split(batch_size),
            sums[0].unbind(),
            sums[1].unbind(),
        )
        return [Batch(*each) for each in zip(*columns, strict=True)]

    def of(self, batch: Batch, rated: Tensor | None = None) -> Lookups:
        """Compute the gradients of a batch.

        Where ratings may be missing, L_R is the mean over ``rated`` of them, a tensor of shape (). The gradients of the
        look-ups are returned, and those of the MLP are written into the vector of all gradients.
        """
        n = len(batch.ratings)
        if n not in self.workspaces:
            self.workspaces[n] = Workspace(self, n)
        work = self.workspaces[n]
        torch.index_select(self.table.values, 0, batch.rows, out=work.embeddings)
        torch.index_select(self.bias.values, 0, batch.biases, out=work.biases)
        self._regression(work, batch.ratings, batch.square_sum, rated)
        self._factorization(work, batch.sigmoid_sum)
        return Lookups(batch.rows, work.embedding_gradients, batch.biases, work.bias_gradients)

    def _regression(self, work: "Workspace", ratings: Tensor, square_sum: Tensor, rated: Tensor | None) -> None:
        """Compute equations 4 and 5: the MLP forwards, then backwards into its gradients and those of u and q."""
        u, q, product = work.regression
        product.mul_(u)
        for layer, x, out in zip(self.hidden, work.inputs[:-1], work.inputs[1:], strict=True):
            torch.addmm(layer.bias, x, layer.weight_transposed, out=out).relu_()
        output = self.output
        error = torch.addmv(output.bias, work.inputs[-1], output.weight, out=work.error).sub_(ratings)
        slope = work.error_slope
        if rated is not None:
            error.masked_fill_(ratings.isnan(), 0.0)
            slope = slope * len(ratings) / rated.clamp(min=1)
        torch.dot(error, error, out=square_sum)

        error.mul_(slope)  # ∂L/∂r̂ = λ_R · 2 (r̂ − r) / n
        torch.mv(work.transposed_inputs[-1], error, out=output.weight_gradient)
        torch.sum(error, 0, keepdim=True, out=output.bias_gradient)
        torch.mul(work.error_column, output.weight, out=work.input_gradients[-1])
        for k in range(len(self.hidden) - 1, -1, -1):
            layer, active, gradient = self.hidden[k], work.inputs[k + 1], work.input_gradients[k + 1]
            _relu_backward(gradient, active, 0, grad_input=gradient)  # passes where the unit was active
            torch.mm(work.transposed_gradients[k + 1], work.inputs[k], out=layer.weight_gradient)
            torch.sum(gradient, 0, out=layer.bias_gradient)
            torch.mm(gradient, layer.weight, out=work.input_gradients[k])

        u_gradient, _, product_gradient = work.regression_gradients  # q's has all that it needs in its own column
        u_gradient.add_(torch.mul(product_gradient, q, out=work.scratch))
        product_gradient.mul_(u)  # will be added to the same row of the table as q's

    def _factorization(self, work: "Workspace", sigmoid_sum: Tensor) -> None:
        """Compute equations 1 and 3: p⁺ − p⁻ = u · (q⁺ − q⁻) + b⁺ − b⁻, and the gradients of u, q⁺, q⁻ and b."""
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
    """The memory for a batch of n triples, and all views into it that a step needs, made once."""

    def __init__(self, gradients: FusedGradients, n: int) -> None:
        d, columns, device = gradients.embedding_dim, len(gradients.columns), gradients.device

        def empty(*shape: int) -> Tensor:
            return torch.empty(shape, device=device)

        self.embeddings, self.embedding_gradients = empty(n * columns, d), empty(n * columns, d)
        block, gradient_block = self.embeddings.view(n, columns, d), self.embedding_gradients.view(n, columns, d)
        self.regression, self.regression_gradients = block[:, :3].unbind(1), gradient_block[:, :3].unbind(1)
        self.interaction = [block[:, k] for k in gradients.interaction_columns]
        self.interaction_gradients = [gradient_block[:, k] for k in gradients.interaction_columns]
        self.shares_columns = gradients.interaction_columns[0] == 0
        self.scratch, self.difference = empty(n, d), empty(n, d)

        # The input of each linear layer, from [u, q, u ∗ q] on, and the gradient of each.
        widths = [layer.weight.shape[0] for layer in gradients.hidden]
        first, first_gradient = block.view(n, columns * d)[:, : 3 * d], gradient_block.view(n, columns * d)[:, : 3 * d]
        self.inputs = [first, *(empty(n, width) for width in widths)]
        self.input_gradients = [first_gradient, *(empty(n, width) for width in widths)]
        self.transposed_inputs = [x.T for x in self.inputs]
        self.transposed_gradients = [x.T for x in self.input_gradients]
        self.error = empty(n)
        self.error_column = self.error.unsqueeze(1)
        self.error_slope = torch.tensor(2.0 * gradients.loss_weights.regression / n, device=device)

        self.biases, self.bias_gradients = empty(2 * n), empty(2 * n)
        self.positive_bias, self.negative_bias = self.biases.view(n, 2).unbind(1)
        self.bias_gradient_pairs = self.bias_gradients.view(n, 2)
        self.signs = torch.tensor([1.0, -1.0], device=device)
        self.logits, self.slope = empty(n), empty(n)
        self.slope_column = self.slope.unsqueeze(1)
        self.logit_slope = torch.full((n,), -gradients.loss_weights.factorization / n, device=device)
