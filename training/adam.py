"""Adam's state, and the one vector of parameters that it trains.

``flatten`` lays a network's parameters end to end, so that Adam is one operation whatever the network has.
"""

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
    for parameter, values, gradient in zip(
        parameters,
        flat.data.split([parameter.numel() for parameter in parameters]),
        flat.grad.split([parameter.numel() for parameter in parameters]),
        strict=True,
    ):
        parameter.data, parameter.grad = values.view_as(parameter), gradient.view_as(parameter)
    return flat


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
