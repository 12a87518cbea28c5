"""The sampled softmax of a batch with common negatives, with its derivative, a block of the batch at a time.

    Σ_b w_b · −log(exp p⁺ / (exp p⁺ + Σ_c exp p_c))

Autograd would keep several matrices of (batch, k) numbers, and pass over each of them twice. Here the derivative is
computed together with the loss while a block of the matrix is in the processor's cache, and nothing of it is kept.
``training.tuned_losses.softmax_losses`` is the definition.
"""

from typing import Any

import torch
from torch import Tensor

BLOCK = 2**20  # elements of the matrix at a time
LOWEST = -1e9  # p of an item that is left out; finite, so that the softmax over no negatives is finite
LEAST = -80.0  # exponent: results below 1e-38 take processors four times as long as others, and 1e-35 counts for 0, too


def sampled_softmax(
    u: Tensor, positive: Tensor, q: Tensor, bias: Tensor, left_out: tuple[Tensor, Tensor], weights: Tensor
) -> Tensor:
    """Compute the weighted sum of the losses of a batch.

    Args:
        u: (batch, d) embeddings of users.
        positive: (batch,) p⁺.
        q, bias: (k, d) and (k,), of the negatives.
        left_out: the negatives to leave out: either (batch,) users and (num_users, k) bool, or (batch,) items and (k,)
            items that are equal.
        weights: (batch,) w.

    Returns:
        ()
    """
    loss: Tensor = _SampledSoftmax.apply(u, positive, q, bias, left_out, weights)
    return loss


class _SampledSoftmax(torch.autograd.Function):
    """The sum, from (batch, d) u, (batch,) p⁺, (k, d) q and (k,) b."""

    @staticmethod
    def forward(
        ctx: Any,
        u: Tensor,
        positive: Tensor,
        q: Tensor,
        bias: Tensor,
        left_out: tuple[Tensor, Tensor],
        weights: Tensor,
    ) -> Tensor:
        u_slope, positive_slope = torch.empty_like(u), torch.empty_like(positive)
        q_slope, bias_slope = torch.zeros_like(q), torch.zeros_like(bias)
        of_rows, table = left_out
        total = u.new_zeros(())
        size = max(1, BLOCK // len(q))
        for start in range(0, len(u), size):
            block = slice(start, start + size)
            own = of_rows[block]
            p = torch.addmm(bias, u[block], q.T)
            p.masked_fill_(table.index_select(0, own) if table.dim() == 2 else table == own.unsqueeze(1), LOWEST)
            p_positive, w = positive[block], weights[block]
            highest = torch.maximum(p.amax(1), p_positive)
            shares = p.sub_(highest.unsqueeze(1)).clamp_(min=LEAST).exp_()
            own_share = (p_positive - highest).exp()
            sums = shares.sum(1) + own_share
            total += w @ (sums.log() + highest - p_positive)
            slope = w / sums
            shares.mul_(slope.unsqueeze(1))
            positive_slope[block] = slope * own_share - w
            torch.mm(shares, q, out=u_slope[block])
            q_slope.addmm_(shares.T, u[block])
            bias_slope += shares.sum(0)
        ctx.slopes = u_slope, positive_slope, q_slope, bias_slope
        return total

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, ...]:
        return (*(slope.mul_(gradients[0]) for slope in ctx.slopes), None, None)
