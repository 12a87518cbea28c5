"""The first difference between two ways of taking three steps.

Only differences by the rounding of float32 are allowed. Where a gradient is only rounding, a step of Adam may have
either sign; there parameters are not compared, and the learning rate is so small that later losses hardly depend on it.
"""

from collections import deque
from typing import Any, NamedTuple

import numpy as np
from torch import Tensor, nn

from training import parts
from training.adam import Adam
from training.steps import Step

LEARNING_RATE = 1e-4
TOLERANCE, LATER_TOLERANCE = 3e-5, 5e-4  # relative to the largest element, in the first step and later
CLEAR = 0.03  # share of a parameter's largest gradient above which Adam's step does not depend on rounding
STEP_TOLERANCE = 2e-3  # relative to the length of a step of Adam
ROUNDING = 4e-7  # relative, of a parameter in three steps: a few units in the last place of float32


class Outcome(NamedTuple):
    """The losses before each of three steps of a network, and the effects of the steps by parameter."""

    losses: Tensor  # (3, 2)
    gradient: dict[str, Tensor]  # of the first step, read from Adam's first moment
    first_moment: dict[str, Tensor]  # after the third step, like the next two
    second_moment: dict[str, Tensor]
    values: dict[str, Tensor]


def by_name(model: nn.Module, vector: Tensor) -> dict[str, Tensor]:
    """Return the part of each parameter in a (number of parameters,) vector, by name; embeddings by attribute."""
    part_of = dict(zip(parts.parameters(model), parts.slices(model, vector), strict=True))
    tables = {table.weight for table in parts.embeddings(model)}
    names = {each: name.removesuffix(".weight") if each in tables else name for name, each in model.named_parameters()}
    return {names[each]: part for each, part in part_of.items()}


def first_difference(expected: Outcome, got: Outcome) -> str | None:
    """Name the first difference: a loss or a gradient of the first step, a parameter's movement, or a later loss."""
    losses = list(zip(("L_F", "L_R"), got.losses.T, expected.losses.T, strict=True))
    for name, one, other in losses:
        if not close(one[:1], other[:1]):
            return name
    for name, gradient in expected.gradient.items():
        if not close(got.gradient[name], gradient):
            return f"∂L/∂{name}"
    for name, gradient in expected.gradient.items():
        clear = gradient.abs() > CLEAR * gradient.abs().max()
        moments = [(got.first_moment, expected.first_moment), (got.second_moment, expected.second_moment)]
        alike = all(close(one[name], other[name], LATER_TOLERANCE) for one, other in moments)
        allowed = STEP_TOLERANCE * LEARNING_RATE + ROUNDING * expected.values[name].abs()
        if not alike or bool(((got.values[name] - expected.values[name]).abs() > allowed)[clear].any()):
            return f"step of {name}"
    return next((name for name, one, other in losses if not close(one, other, LATER_TOLERANCE)), None)


def close(got: Tensor, expected: Tensor, tolerance: float = TOLERANCE) -> bool:
    """Return whether two tensors agree up to a tolerance relative to the largest element."""
    if got.shape != expected.shape or not bool(got.isfinite().all()):
        return False
    largest = expected.abs().max().item() if expected.numel() else 0.0
    return bool(((got - expected).abs() <= tolerance * largest).all())


def state_of(model: nn.Module, step: Step) -> dict[str, Any]:
    """Collect the state of a network and a step besides the parameters, by name: buffers and plain attributes."""
    torchs = vars(nn.Module()).keys()
    found = {f"EagerStep.{name}": _comparable(value) for name, value in vars(step).items()}
    for place, module in model.named_modules():
        own = {name: value for name, value in vars(module).items() if name not in torchs}
        found |= {f"{place}.{name}".lstrip("."): _comparable(value) for name, value in own.items()}
    return found | {name: _comparable(buffer) for name, buffer in model.named_buffers()}


def _comparable(value: Any) -> Any:
    """Return a copy to compare with ==, or the identity of a value that cannot be copied, such as a network."""
    if isinstance(value, Adam):  # its tensors are compared as parameters
        return value.learning_rate, value.epsilon
    if isinstance(value, Tensor) and not isinstance(value, nn.Parameter):
        return tuple(value.shape), value.detach().float().cpu().numpy().tobytes()
    if isinstance(value, np.ndarray):
        return value.shape, value.tobytes()
    if isinstance(value, dict):
        return {name: _comparable(each) for name, each in value.items()}
    if isinstance(value, list | tuple | set | deque):
        return [_comparable(each) for each in value]
    return value if isinstance(value, int | float | str | None) else id(value)
