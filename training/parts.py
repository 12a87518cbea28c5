"""The tables, layers and parameters of a network, and its tensors in a checkpoint.

The contract does not require the homework's names of tables and layers: LookupError names the one that is missing.
"""

from collections.abc import Mapping
from typing import NamedTuple

import torch
from torch import Tensor, nn


class Tables(NamedTuple):
    """The user and item embeddings that a task reads."""

    users: nn.Embedding
    items: nn.Embedding


def factorization_tables(model: nn.Module) -> Tables:
    """Return the tables of equation 1: U and Q, or U_fact and Q_fact."""
    return _tables(model, "_fact")


def regression_tables(model: nn.Module) -> Tables:
    """Return the tables of equation 4: U and Q, or U_reg and Q_reg."""
    return _tables(model, "_reg")


def _tables(model: nn.Module, suffix: str) -> Tables:
    if has_shared_tables(model):
        suffix = ""
    elif not hasattr(model, f"U{suffix}"):
        raise LookupError(f"models.py has no nn.Embedding U or U{suffix}")
    return Tables(embedding(model, f"U{suffix}"), embedding(model, f"Q{suffix}"))


def tables(model: nn.Module) -> list[Tables]:
    """Return the tables of equation 1 and those of equation 4; one pair where they are shared."""
    return list(dict.fromkeys((factorization_tables(model), regression_tables(model))))


def item_tables(model: nn.Module) -> dict[str, Tensor]:
    """Return the items' tables, (items, d) embeddings or parameters, by their titles in TensorBoard, or LookupError."""
    found: dict[str, Tensor] = {}
    for name in ("U", "Q", "Q_fact", "Q_reg"):
        table = getattr(model, name, None)
        matrix = getattr(table, "weight", table)
        if isinstance(matrix, Tensor) and matrix.dim() == 2:
            found[name] = matrix
    names = {"items": "Q"} if "U" in found else {"items": "Q_fact", "items, rating": "Q_reg"}
    if not found.keys() >= {*names.values()}:
        raise LookupError("models.py has no tables Q, or Q_fact and Q_reg")
    return {title: found[name] for title, name in names.items()}


def has_shared_tables(model: nn.Module) -> bool:
    return isinstance(getattr(model, "U", None), nn.Embedding)


def embedding(model: nn.Module, name: str) -> nn.Embedding:
    """Return the embedding with this attribute's name; LookupError if there is none."""
    found = getattr(model, name, None)
    if not isinstance(found, nn.Embedding):
        raise LookupError(f"models.py has no nn.Embedding {name}")
    return found


def linear_layers(model: nn.Module) -> list[nn.Linear]:
    """List all linear layers in the order of registration, except that the one of output width 1 is last."""
    layers = [layer for layer in model.modules() if isinstance(layer, nn.Linear)]
    return sorted(layers, key=lambda layer: layer.out_features == 1)


def embeddings(model: nn.Module) -> list[nn.Embedding]:
    """List all embeddings: the homework's tables, then the item bias, then any others."""
    names = ("U", "Q", "B") if has_shared_tables(model) else ("U_reg", "Q_reg", "U_fact", "Q_fact", "B")
    homeworks = [getattr(model, name, None) for name in names]
    return list(dict.fromkeys(each for each in (*homeworks, *model.modules()) if isinstance(each, nn.Embedding)))


def parameters(model: nn.Module) -> list[nn.Parameter]:
    """List all parameters except whole numbers, each once: those of ``embeddings``, then the others."""
    first = [parameter for each in embeddings(model) for parameter in each.parameters()]
    every = dict.fromkeys([*first, *model.parameters()])
    return [parameter for parameter in every if parameter.is_floating_point() or parameter.is_complex()]


def flatten(model: nn.Module) -> nn.Parameter:
    """Make all parameters, and their gradients, slices of one vector: Adam is then one operation for any network.

    The embedding tables come first, so that they also are one table of all their rows; see ``parameters``. The gradient
    of the (number of parameters,) vector is zero. ValueError if the parameters are of several types.
    """
    every = parameters(model)
    types = {parameter.dtype for parameter in every}
    if len(types) > 1 or every[0].is_complex():
        found = ", ".join(sorted(map(str, types)))
        raise ValueError(f"models.py has parameters of {found}: expected one type of floating-point numbers")
    flat = nn.Parameter(torch.cat([parameter.detach().reshape(-1) for parameter in every]))
    flat.grad = torch.zeros_like(flat)
    for parameter, values, gradient in zip(every, slices(model, flat.data), slices(model, flat.grad), strict=True):
        parameter.data, parameter.grad = values, gradient
    return flat


def slices(model: nn.Module, vector: Tensor) -> list[Tensor]:
    """Return views of a (number of parameters,) vector: the part of each of ``parameters``, in its shape."""
    every = parameters(model)
    views = vector.split([parameter.numel() for parameter in every])
    return [view.view_as(parameter) for view, parameter in zip(views, every, strict=True)]


def state_of(model: nn.Module) -> dict[str, Tensor]:
    """Return the tensors of a network's state_dict, by their names in a checkpoint."""
    state = model.state_dict().items()
    return {f"network.{name}": value for name, value in state if isinstance(value, Tensor)}


def load_state(model: nn.Module, tensors: Mapping[str, Tensor]) -> None:
    """Copy the tensors of ``state_of`` from a checkpoint into a network; ValueError if they do not fit it."""
    own, found = state_of(model), {name: x for name, x in tensors.items() if name.startswith("network.")}
    for name in own.keys() | found.keys():
        was, now = _kind_of(found.get(name)), _kind_of(own.get(name))
        if was != now:
            raise ValueError(f"{name.removeprefix('network.')} was {was}, and is {now}")
    state = {name.removeprefix("network."): value for name, value in found.items()}
    model.load_state_dict(state, strict=False)  # a network may keep more than tensors


def _kind_of(tensor: Tensor | None) -> str:
    return "missing" if tensor is None else f"{tensor.dtype} of shape {tuple(tensor.shape)}"
