"""A submission's tables, MLP layers and outputs as plain arrays."""

import builtins
import sys
from collections.abc import Sequence
from typing import Any, cast

import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import Linear, Module, ModuleDict, ModuleList, Parameter, ReLU, Sequential

# A submission can replace functions in builtins and torch: bind ours before it is loaded.
globals()["__builtins__"] = dict(vars(builtins))
detach, to, to_numpy = Tensor.detach, Tensor.to, Tensor.numpy
without_overrides, without_dispatch = torch._C.DisableTorchFunction, torch._C._DisableTorchDispatch
set_profile, set_trace = sys.setprofile, sys.settrace


class Unexpected(Exception):
    """A value from the submission's code that cannot be used."""


def layers_in_order(module: Any) -> list[Module] | None:
    """List the layers of nested nn.Sequentials and nn.ModuleLists in order; None for other containers."""
    if (parts := parts_of(module)) is None:
        return None if any(True for _ in module.children()) else [module]
    inner = [layers_in_order(part) for part in parts]
    return None if None in inner else [layer for layers in inner for layer in layers or ()]


def parts_of(module: Any) -> list[Module] | None:
    """List the modules that a container applies in order, with repetitions; None where the order is unclear."""
    if type(module) is Sequential or (isinstance(module, ModuleList) and type(module).forward is Module.forward):
        return list(module)
    if isinstance(module, ModuleDict) and type(module).forward is Module.forward:
        return list(module.values())
    return None


def layer_name(layer: Module) -> str:
    return next((kind.__name__ for kind in (Linear, ReLU) if isinstance(layer, kind)), type(layer).__name__)


def mlp_parameters(mlp: Any) -> dict[str, Tensor]:
    """Return the weights and biases of the linear layers in a module or list, in the order of registration."""
    modules = mlp.modules() if isinstance(mlp, Module) else mlp if isinstance(mlp, list | tuple) else ()
    linears = [layer for layer in modules if isinstance(layer, Linear)]
    return {
        f"mlp.{place}.{name}": parameter
        for place, layer in enumerate(linears)
        for name, parameter in (("weight", layer.weight), ("bias", layer.bias))
        if parameter is not None
    }


def weight_of(table: Any, name: str) -> Tensor:
    """Return the parameter of an embedding, or a parameter itself."""
    weight = getattr(table, "weight", table)
    if type(weight) not in (Tensor, Parameter):
        raise Unexpected(f"{name} is {kind_of(table)}: expected an embedding")
    return cast(Tensor, weight)


def plain_tensor(output: Any, name: str, dtype: torch.dtype) -> Tensor:
    """Return an output if it is a tensor, not of a subclass, whose methods could lie."""
    if type(output) is not Tensor:
        raise Unexpected(f"{name}: {kind_of(output)}; expected a torch.Tensor")
    if output.dtype != dtype:
        raise Unexpected(f"{name}: a tensor of {output.dtype}; expected {dtype}")
    return output


def dtype_of(module: Any) -> torch.dtype:
    """Return the type of a module's first parameter of floating-point numbers."""
    return next((each.dtype for each in module.parameters() if each.is_floating_point()), torch.float32)


def outputs_of(net: Any, users: Tensor, items: Tensor) -> tuple[Tensor, Tensor]:
    """Compute the predictions and the score of a network for pairs of IDs."""
    outputs = net(users, items)
    try:
        predictions, score = outputs
    except (TypeError, ValueError):
        raise Unexpected(f"forward returned {kind_of(outputs)}: expected two tensors, predictions and score") from None
    dtype = dtype_of(net)
    return plain_tensor(predictions, "predictions", dtype), plain_tensor(score, "score", dtype)


def parameters_of(module: Any, names: Sequence[str], mlp: Any) -> dict[str, Tensor]:
    """Return the parameters of a module by name: its tables, "mlp.0.weight", …; all others as "other.NAME"."""
    found = {name: weight_of(getattr(module, name), name) for name in names if hasattr(module, name)}
    found |= mlp_parameters(mlp)
    known = {id(parameter) for parameter in found.values()}
    others = {name: each for name, each in module.named_parameters() if id(each) not in known}
    # Integers cannot learn.
    return found | {f"other.{name}": each for name, each in others.items() if each.is_floating_point()}


def to_array(values: Tensor) -> NDArray[Any]:
    """Return the numbers of a plain tensor or parameter, without calling any hook of the submission."""
    set_profile(None)
    set_trace(None)
    with without_overrides(), without_dispatch():
        return to_numpy(to(detach(values), torch.float32))


def kind_of(value: Any) -> str:
    if value is None:
        return "None"
    if isinstance(value, tuple | list):
        return f"a {type(value).__name__} of {len(value)}"
    if isinstance(value, Tensor):
        return f"a {type(value).__name__} of shape {tuple(value.shape)}"
    return f"a {type(value).__name__}"
