"""The rows that a network has for each user and each item, copied into a network for other users and items."""

from collections.abc import Callable, Mapping
from functools import partial
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from data import SourceIds
from training import network, parts
from training.scale import Scale
from training.trainer import Trainer

FEW_USERS, FEW_ITEMS = 7, 11  # of the small networks that are compared


class Rows(NamedTuple):
    """The rows of the IDs that occur in two lists: ``one[n]`` in the first list is ``other[n]`` in the second."""

    one: Tensor  # (n,) int64
    other: Tensor


def matched(one: SourceIds, other: SourceIds) -> Rows:
    """Find the IDs that are in both lists, and return their rows; a number is the same ID as the string of it."""
    _, rows, other_rows = np.intersect1d(*comparable(one, other), assume_unique=True, return_indices=True)
    return Rows(torch.from_numpy(rows), torch.from_numpy(other_rows))


def comparable(one: SourceIds, other: SourceIds) -> tuple[NDArray[Any], NDArray[Any]]:
    """Return two lists of IDs as arrays of one type, strings if either list has strings."""
    if isinstance(one, Tensor) and isinstance(other, Tensor):
        return one.numpy(), other.numpy()
    first, second = (np.array([str(each) for each in _listed(ids)], dtype=object) for ids in (one, other))
    return first, second


def _listed(ids: SourceIds) -> list[int] | list[str]:
    return list(ids) if isinstance(ids, tuple) else ids.tolist()


def copy_rows(
    old: Mapping[str, Tensor], new: nn.Module, users: Rows, items: Rows, make: Callable[[int, int], nn.Module]
) -> None:
    """Copy the rows of users and items, and all other parameters, into a network of the same class.

    Args:
        old: ``parts.state_of`` the old network.
        new: the network to change; its other rows stay.
        users, items: the rows to copy, from the old network to the new one.
        make: makes a network of the same class for any numbers of users and items.

    Raises:
        ValueError: the networks differ in anything but the numbers of users and items, or the network has tensors that
            depend on these numbers in another way than by a row for each.
    """
    has_rows_of = find_rows(make)
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
            old_rows, new_rows = users if has_rows_of[name] == "user" else items
            tensor[new_rows.to(tensor.device)] = old[name][old_rows].to(tensor.device)


def find_rows(make: Callable[[int, int], nn.Module]) -> dict[str, str]:
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
                    f"and {FEW_ITEMS} items: expected a row for each {kind}, to be copied to networks of other sizes"
                )
            found[name] = kind
    return found


def _width(tensor: Tensor | None, has_rows: bool) -> str:
    """Describe a tensor, or one of its rows."""
    if tensor is None:
        return "missing"
    shape = tuple(tensor.shape)
    return f"{tensor.dtype} with rows of shape {shape[1:]}" if has_rows else f"{tensor.dtype} of shape {shape}"


def start_from(
    trainer: Trainer, old: nn.Module, user_ids: SourceIds, item_ids: SourceIds, scale: Scale | None
) -> tuple[int, int]:
    """Copy a trained network into a trainer of a network of the same shape that has not taken a step.

    Users and items are matched by their IDs in the source; rows of new ones keep their initial values.

    Args:
        trainer: the trainer.
        old: the trained network.
        user_ids, item_ids: the IDs of its users and items.
        scale: the unit of its predicted ratings; None if it was trained without ratings.

    Returns:
        The numbers of users and of items whose rows were copied.

    Raises:
        ValueError: no user or no item is in both, or as for ``copy_rows``.
    """
    users, items = matched(user_ids, trainer.train.source_user_ids), matched(item_ids, trainer.train.source_item_ids)
    for kind, rows in (("user", users), ("item", items)):
        if len(rows.one) == 0:
            raise ValueError(f"no {kind} of the earlier run is in the ratings: expected ratings with the same IDs")
    own = trainer.division.rows_of(users.other)  # of several processes, each has some of the users
    own_users = Rows(users.one[own >= 0], own[own >= 0])
    copy_rows(parts.state_of(old), trainer.model, own_users, items, partial(network.make, trainer.settings))
    if scale is not None and trainer.rates:
        _change_unit(trainer.model, scale, trainer.scale)
    return len(users.one), len(items.one)


@torch.no_grad()
def _change_unit(model: nn.Module, was: Scale, now: Scale) -> None:
    """Change the last layer of the MLP so that the same ratings are predicted in another unit.

    With baselines in both units the output is a residual, whose mean is 0. With one of them the biases are left out.
    Factors that differ are left out, too: the network learns anew what they predict.
    """
    outputs = [layer for layer in parts.linear_layers(model) if layer.out_features == 1]
    shift = was.mean - now.mean if was.baseline is None or now.baseline is None else 0.0
    if (was.spread == now.spread and shift == 0) or len(outputs) != 1 or outputs[0].bias is None:
        return
    outputs[0].weight.mul_(was.spread / now.spread)
    outputs[0].bias.mul_(was.spread / now.spread).add_(shift / now.spread)
