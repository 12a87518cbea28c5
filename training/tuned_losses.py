"""The ranking losses of single interactions, as the plain way of the tuned step takes them."""

import torch
from torch import Tensor
from torch.nn import functional

from training.steps import bpr_loss


def bounded_losses(positive: Tensor, negative: Tensor) -> Tensor:
    """Compute L_F of each single pair, equation 3, by ``bpr_loss``: two tensors of one shape → that shape."""
    of_pairs = bpr_loss
    for _ in range(positive.dim()):
        of_pairs = torch.vmap(of_pairs)  # so that its mean is over one pair
    try:
        return of_pairs(positive, negative)
    except RuntimeError as error:
        reason = str(error).splitlines()[0]
        raise ValueError(f"bpr_loss of training/steps.py cannot be taken pair by pair: {reason}") from error


def logistic_losses(positive: Tensor, negative: Tensor) -> Tensor:
    """Compute −log σ(p⁺ − p⁻) of each single pair: two tensors of one shape → that shape."""
    return functional.softplus(negative - positive)


def softmax_losses(positive: Tensor, negative: Tensor) -> Tensor:
    """Compute −log(exp p⁺ / (exp p⁺ + Σ exp p⁻)): (batch,) p⁺ and (batch, k) p⁻ → (batch,)."""
    return functional.softplus(negative.logsumexp(1) - positive)


PAIR_LOSSES = {"bounded": bounded_losses, "logistic": logistic_losses}
