"""The rows that a network has for each user and each item, copied into a network for other users and items."""

from collections.abc import Callable, Mapping

import torch
from torch import Tensor, nn

from training import parts

Copy = tuple[Tensor, Tensor]  # rows of the old network, and the rows of the new network that they are copied to
FEW_USERS, FEW_ITEMS = 7, 11  # of the small networks that are compared


def copy_rows(
    old: Mapping[str, Tensor], new: nn.Module, users: Copy, items: Copy, make: Callable[[int, int], nn.Module]
) -> None:
    """Copy the rows of users and items, and all other parameters, into a network of the same class.

    Args:
        old: ``parts.state_of`` the old network.
        new: the network to change; its other rows stay.
        users, items: the rows to copy.
        make: makes a network of the same class for any numbers of users and items.

    Raises:
        ValueError: the networks differ in anything but the numbers of users and items, or the network has tensors that
            depend on these numbers in another way than by a row for each.
    """
    has_rows_of = _find_rows(make)
    tensors = parts.state_of(new)
    for name in old.keys() | tensors.keys():
        was, now = (_width(state.get(name), name in has_rows_of) for state in (old, tensors))
        if was != now:
            raise ValueError(f"{name.removeprefix('network.')} was {was}, and is {now}")
    with torch.no_grad():
        for name, tensor in tensors.items():
            if name not in has_rows_of:
                tensor.copy_(old[name])
                continue
            before, after = users if has_rows_of[name] == "user" else items
            tensor[after.to(tensor.device)] = old[name][before].to(tensor.device)


def _find_rows(make: Callable[[int, int], nn.Module]) -> dict[str, str]:
    """Return "user" or "item" for each tensor that has a row for each user or each item, by its name in a checkpoint.

    Networks of different sizes are compared, so that any network that fits the contract can be read.
    """
    with torch.random.fork_rng(devices=[]):
        few, more_users, more_items = (
            {name: tuple(tensor.shape) for name, tensor in parts.state_of(make(users, items)).items()}
            for users, items in ((FEW_USERS, FEW_ITEMS), (FEW_USERS + 1, FEW_ITEMS), (FEW_USERS, FEW_ITEMS + 1))
        )
    found = {}
    for kind, count, others in (("user", FEW_USERS, more_users), ("item", FEW_ITEMS, more_items)):
        for name, shape in few.items():
            if others.get(name) == shape:
                continue
            if name in found or shape[:1] != (count,) or others.get(name) != (count + 1, *shape[1:]):
                raise ValueError(
                    f"models.py has a tensor {name.removeprefix('network.')} of shape {shape} for {FEW_USERS} users "
                    f"and {FEW_ITEMS} items: expected a row for each {kind}, to match it with the earlier network's"
                )
            found[name] = kind
    return found


def _width(tensor: Tensor | None, has_rows: bool) -> str:
    """Describe a tensor, or one of its rows."""
    if tensor is None:
        return "missing"
    shape = tuple(tensor.shape)
    return f"{tensor.dtype} with rows of shape {shape[1:]}" if has_rows else f"{tensor.dtype} of shape {shape}"
