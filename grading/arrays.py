"""What a submission made, as plain arrays: its tables, the layers of its MLP, its outputs.

This runs in the submission's process, for ``worker.py``, and knows nothing of what is expected.
"""

import builtins
import sys
from typing import Any, cast

import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import Linear, Module, ModuleDict, ModuleList, Parameter, ReLU, Sequential

# A submission can replace what is in builtins and torch. What arrays are made with is bound here, before that.
globals()["__builtins__"] = dict(vars(builtins))
detach, to, to_numpy = Tensor.detach, Tensor.to, Tensor.numpy
without_overrides, without_dispatch = torch._C.DisableTorchFunction, torch._C._DisableTorchDispatch
set_profile, set_trace = sys.setprofile, sys.settrace


class Unexpected(Exception):
    """The submission's code ran, but gave something that cannot be used."""


def layers_in_order(module: Any) -> list[Module] | None:
    """The layers of nested nn.Sequentials and nn.ModuleLists in order; None where another container is in it."""
    if (parts := parts_of(module)) is None:
        return None if any(True for _ in module.children()) else [module]
    inner = [layers_in_order(part) for part in parts]
    return None if None in inner else [layer for layers in inner for layer in layers or ()]


def parts_of(module: Any) -> list[Module] | None:
    """What a container applies one after the other, one used twice included; None where that is not known."""
    if type(module) is Sequential or (isinstance(module, ModuleList) and type(module).forward is Module.forward):
        return list(module)
    if isinstance(module, ModuleDict) and type(module).forward is Module.forward:
        return list(module.values())
    return None


def layer_name(layer: Module) -> str:
    return next((kind.__name__ for kind in (Linear, ReLU) if isinstance(layer, kind)), type(layer).__name__)


def mlp_parameters(mlp: Any) -> dict[str, Tensor]:
    """The weights and biases of the linear layers in something that holds layers, in the order of registration."""
    modules = mlp.modules() if isinstance(mlp, Module) else mlp if isinstance(mlp, list | tuple) else ()
    linears = [layer for layer in modules if isinstance(layer, Linear)]
    return {
        f"mlp.{place}.{name}": parameter
        for place, layer in enumerate(linears)
        for name, parameter in (("weight", layer.weight), ("bias", layer.bias))
        if parameter is not None
    }


def weight_of(table: Any, what: str) -> Tensor:
    """The parameter of an embedding, or a parameter itself."""
    weight = getattr(table, "weight", table)
    if type(weight) not in (Tensor, Parameter):
        raise Unexpected(f"{what} is {kind_of(table)}: expected an embedding")
    return cast(Tensor, weight)


def plain_tensor(output: Any, what: str, dtype: torch.dtype = torch.float32) -> Tensor:
    """An output, if it is a tensor and no subclass, which could say of itself what it likes."""
    if type(output) is not Tensor:
        raise Unexpected(f"{what}: {kind_of(output)}; expected a torch.Tensor")
    if output.dtype != dtype:
        raise Unexpected(f"{what}: a tensor of {output.dtype}; expected {dtype}")
    return output


def to_array(values: Tensor) -> NDArray[Any]:
    """The numbers of a plain tensor or parameter, with nobody listening."""
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
