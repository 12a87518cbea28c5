"""Adam's state, and the one vector of parameters that it trains.

``flatten`` lays a network's parameters end to end, so that Adam is one operation whatever the network has.
"""

from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor, nn

from training import parts

BETAS, EPSILON = (0.9, 0.999), 1e-8  # Adam's, as published and as torch has them by default


def flatten(model: nn.Module) -> nn.Parameter:
    """Lay all parameters of a network, and their gradients, end to end in one vector; the network keeps working.

    The embedding tables come first, so that they also are one table of all their rows; see ``parts.parameters``.

    Returns:
        (number of parameters,) the vector whose slices the network's parameters now are; its gradient is zero.

    Raises:
        ValueError: the parameters are of several types.
    """
    parameters = parts.parameters(model)
    types = {parameter.dtype for parameter in parameters}
    if len(types) > 1 or parameters[0].is_complex():
        found = ", ".join(sorted(map(str, types)))
        raise ValueError(f"models.py has parameters of {found}: expected one type of floating-point numbers")
    flat = nn.Parameter(torch.cat([parameter.detach().reshape(-1) for parameter in parameters]))
    flat.grad = torch.zeros_like(flat)
    for parameter, values, gradient in zip(parameters, slices(model, flat.data), slices(model, flat.grad), strict=True):
        parameter.data, parameter.grad = values, gradient
    return flat


def slices(model: nn.Module, vector: Tensor) -> list[Tensor]:
    """Views of a (number of parameters,) vector: the part of each of ``parts.parameters``, in its shape."""
    parameters = parts.parameters(model)
    views = vector.split([parameter.numel() for parameter in parameters])
    return [view.view_as(parameter) for view, parameter in zip(views, parameters, strict=True)]


class Parameters(NamedTuple):
    """Parameters that Adam trains, with their gradient and moments: four tensors of one shape."""

    values: Tensor
    gradient: Tensor
    first_moment: Tensor
    second_moment: Tensor


class AdamState(NamedTuple):
    """The state of Adam (Kingma and Ba, 2015) for one vector of parameters, on the vector's device."""

    flat: nn.Parameter  # (parameters,), with a gradient
    first_moment: Tensor  # (parameters,)
    second_moment: Tensor  # (parameters,)
    steps_taken: Tensor  # () float32
    learning_rate: float
    epsilon: float = EPSILON

    @property
    def everything(self) -> Parameters:
        """All parameters, whose gradient backward adds to."""
        assert self.flat.grad is not None
        return Parameters(self.flat.data, self.flat.grad, self.first_moment, self.second_moment)


def start_adam(flat: nn.Parameter, learning_rate: float) -> AdamState:
    """Adam before its first step."""
    first_moment, second_moment = torch.zeros_like(flat.data), torch.zeros_like(flat.data)
    return AdamState(flat, first_moment, second_moment, torch.zeros((), device=flat.device), learning_rate)


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
        eps=adam.epsilon,
        amsgrad=False,
        maximize=False,
    )
