"""Adam's state, and the one vector of parameters that it trains.

``flatten`` lays a network's parameters end to end, so that Adam is one operation whatever the network has.
"""

from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor, nn

from models import MultiTaskNet


def flatten(model: MultiTaskNet) -> nn.Parameter:
    """Lay all parameters of a network, and their gradients, end to end in one vector; the network keeps working.

    The embedding tables come first, in the network's order, so that they also are one table of all their rows.

    Returns:
        (number of parameters,) the vector whose slices the network's parameters now are; its gradient is zero.
    """
    parameters = list(model.parameters())
    flat = nn.Parameter(torch.cat([parameter.detach().reshape(-1) for parameter in parameters]))
    flat.grad = torch.zeros_like(flat)
    for parameter, values, gradient in zip(parameters, slices(model, flat.data), slices(model, flat.grad), strict=True):
        parameter.data, parameter.grad = values, gradient
    return flat


def slices(model: MultiTaskNet, vector: Tensor) -> list[Tensor]:
    """Views of a (number of parameters,) vector: the part of each of the network's parameters, in its shape."""
    parameters = list(model.parameters())
    parts = vector.split([parameter.numel() for parameter in parameters])
    return [part.view_as(parameter) for part, parameter in zip(parts, parameters, strict=True)]


class AdamState(NamedTuple):
    """What Adam (Kingma and Ba, 2015) knows of one vector of parameters, on the vector's device."""

    flat: nn.Parameter  # (parameters,), with a gradient
    first_moment: Tensor  # (parameters,)
    second_moment: Tensor  # (parameters,)
    steps_taken: Tensor  # () float32
    learning_rate: float


BETAS, EPSILON = (0.9, 0.999), 1e-8  # Adam's, as published and as torch has them by default


def start_adam(flat: nn.Parameter, learning_rate: float) -> AdamState:
    """Adam before its first step."""
    first_moment, second_moment = torch.zeros_like(flat.data), torch.zeros_like(flat.data)
    return AdamState(flat, first_moment, second_moment, torch.zeros((), device=flat.device), learning_rate)


class Parameters(NamedTuple):
    """Parameters that Adam trains, with their gradient and moments: four tensors of one shape."""

    values: Tensor
    gradient: Tensor
    first_moment: Tensor
    second_moment: Tensor


def adam_update(adam: AdamState, trained: Sequence[Parameters]) -> None:
    """What ``torch.optim.Adam.step`` comes down to; its bookkeeping would take as long as the arithmetic."""
    adam.steps_taken.add_(1)
    torch._fused_adam_(
        [each.values for each in trained],
        [each.gradient for each in trained],
        [each.first_moment for each in trained],
        [each.second_moment for each in trained],
        [],
        [adam.steps_taken] * len(trained),
        lr=adam.learning_rate,
        beta1=BETAS[0],
        beta2=BETAS[1],
        weight_decay=0.0,
        eps=EPSILON,
        amsgrad=False,
        maximize=False,
    )
