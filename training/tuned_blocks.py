"""A loss of a large batch, computed with its derivative a block of examples at a time.

The matrices of the MLP for a whole batch, 78 MB each with 100,000 examples, would fit into no cache, and autograd keeps
several. Here those of a block stay in the cache, and only the derivatives of the loss are kept. So an example costs the
same in a batch of any size.
"""

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor

EXAMPLES = 4096  # of a block; its matrices of 256 columns take 4 MiB


def loss_in_blocks(
    of_block: Callable[..., Tensor], by_example: Sequence[Tensor], others: Sequence[Tensor], given: Sequence[Tensor]
) -> Tensor:
    """Add up the losses of the blocks of a batch.

    Args:
        of_block: computes the loss of a block from its part of each of ``by_example`` and ``given``: () float32.
        by_example: (batch, …) tensors that the loss depends on.
        others: further leaves of autograd that it depends on: the parameters of a layer.
        given: (batch, …) tensors without a gradient.
    """
    loss: Tensor = _Loss.apply(of_block, given, len(by_example), *by_example, *others)
    return loss


class _Loss(torch.autograd.Function):
    """The sum of the losses of the blocks; its derivatives are computed in the forward pass."""

    @staticmethod
    def forward(
        ctx: Any, of_block: Callable[..., Tensor], given: Sequence[Tensor], count: int, *tensors: Tensor
    ) -> Tensor:
        by_example, others = tensors[:count], tensors[count:]
        n = len(by_example[0])
        size = min(EXAMPLES, -(-n // 2))  # at least two blocks, so that the comparison at the start covers several
        slopes = [torch.empty_like(each) for each in by_example]
        other_slopes = [torch.zeros_like(each) for each in others]
        total = by_example[0].new_zeros(())
        for rows in torch.arange(n).split(size):
            block = slice(int(rows[0]), int(rows[-1]) + 1)
            with torch.enable_grad():
                inputs = [each[block].detach().requires_grad_() for each in by_example]
                loss = of_block(*inputs, *(each[block] for each in given))
                found = torch.autograd.grad(loss, [*inputs, *others])
            total += loss.detach()
            for slope, of_rows in zip(slopes, found[:count], strict=True):
                slope[block] = of_rows
            for slope, of_block_alone in zip(other_slopes, found[count:], strict=True):
                slope += of_block_alone
        ctx.slopes = slopes + other_slopes
        return total

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, ...]:
        return (None, None, None, *(slope.mul_(gradients[0]) for slope in ctx.slopes))
