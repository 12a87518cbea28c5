"""The tensors of a network and of Adam with rows for each user: those of a process's users, and those of all users.

The vector of all parameters and Adam's moments consist of pieces, one for each parameter. A piece has a row for each of
the process's users, or is the same in all processes.
"""

import os
import tempfile
from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor, nn

from training import parts
from training.group import Group

VECTORS = ("adam.first_moment", "adam.second_moment")  # of all parameters
Kind = tuple[tuple[int, ...], torch.dtype]  # the shape and the type of a tensor


def kinds(state: Mapping[str, Tensor]) -> dict[str, Kind]:
    """Return the shape and the type of each tensor of a state."""
    return {name: (tuple(tensor.shape), tensor.dtype) for name, tensor in state.items()}


def check_kinds(found: Mapping[str, Kind], expected: Mapping[str, Kind]) -> None:
    """Raise ValueError unless two states have the same names, shapes and types."""
    if found != expected:
        raise ValueError("the checkpoint is of another network: its tensors have other names, shapes or types")


def _in_a_file(dtype: torch.dtype, shape: tuple[int, ...]) -> Tensor:
    """Make a tensor in a temporary file, whose pages the system can take out of memory; OSError on a full disk."""
    count = int(np.prod(shape, dtype=np.int64))
    with tempfile.NamedTemporaryFile() as file:
        if hasattr(os, "posix_fallocate") and count > 0:
            os.posix_fallocate(file.fileno(), 0, count * dtype.itemsize)
        return torch.from_file(file.name, shared=True, size=count, dtype=dtype).view(shape)


class Piece(NamedTuple):
    """A tensor of a process, and whether it has a row for each of its users; if not, all processes have the same."""

    values: Tensor
    of_users: bool


class AllRows:
    """The tensors of a run's only process, which has all users."""

    def common(self, model: nn.Module, vector: Tensor) -> list[Tensor]:
        """Return views of a (parameters,) vector of Adam: its parts that are the same in all of several processes."""
        return []

    def gathered(self, model: nn.Module, state: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Return the state of a trainer with the rows of all users in the first process, and {} in the others."""
        return dict(state)

    def handed_out(self, model: nn.Module, own: Mapping[str, Tensor], whole: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Return the first process's state of all users with the rows of this process's users alone.

        Args:
            own: the state of this process's trainer, which is not changed.
            whole: the state to hand out; not read in the other processes.

        Raises:
            ValueError: it is the state of another network.
        """
        check_kinds(kinds(whole), kinds(own))
        return dict(whole)


class UserRows(AllRows):
    """The rows of users in the tensors of one of several processes.

    Args:
        group: the processes.
        owner: (num_users,) int64, the rank of each user's process.
        of_users: the names in a checkpoint of the network's tensors with a row for each user.
    """

    def __init__(self, group: Group, owner: Tensor, of_users: set[str]) -> None:
        self.group, self.owner, self.of_users = group, owner, of_users
        self.users_of = [(owner == rank).nonzero().squeeze(1) for rank in range(group.size)]
        self.users = self.users_of[group.rank]
        self.num_users = len(owner)

    def copy_rows(self, whole: nn.Module, own: nn.Module) -> None:
        """Copy the network of all users into that of this process's users.

        All other tensors are those of the first process, because a constructor may draw other numbers in each.
        """
        state = parts.state_of(whole)
        with torch.no_grad():
            for name, tensor in parts.state_of(own).items():
                tensor.copy_(state[name][self.users] if name in self.of_users else state[name])
                if name not in self.of_users:
                    self.group.spread(tensor)

    def common(self, model: nn.Module, vector: Tensor) -> list[Tensor]:
        found: list[Tensor] = []
        start = end = 0
        for piece in [*self._pieces(model, vector), Piece(vector[:0], of_users=True)]:
            if piece.of_users and end > start:
                found.append(vector[start:end])
            end += piece.values.numel()
            start = end if piece.of_users else start
        return found

    def _pieces(self, model: nn.Module, vector: Tensor) -> list[Piece]:
        """Return the parts of a (parameters,) vector of Adam, in their order."""
        names = model.named_parameters(remove_duplicate=False)
        of_users = {parameter for name, parameter in names if f"network.{name}" in self.of_users}
        views = zip(parts.parameters(model), parts.slices(model, vector), strict=True)
        return [Piece(view, parameter in of_users) for parameter, view in views]

    def _pieces_of(self, model: nn.Module, name: str, tensor: Tensor) -> list[Piece]:
        """Return the pieces of a tensor of a trainer's state."""
        if name in VECTORS:
            return self._pieces(model, tensor)
        return [Piece(tensor, name in self.of_users)]

    def _whole_shape(self, pieces: Sequence[Piece]) -> tuple[int, ...]:
        """Return the shape of the tensor of all users that pieces are the part of."""
        if len(pieces) > 1:
            return (sum(self._size(piece) for piece in pieces),)
        shape = tuple(pieces[0].values.shape)
        return (self.num_users, *shape[1:]) if pieces[0].of_users else shape

    def _size(self, piece: Piece) -> int:
        size = piece.values.numel()
        return size // len(self.users) * self.num_users if piece.of_users else size

    def gathered(self, model: nn.Module, state: Mapping[str, Tensor]) -> dict[str, Tensor]:
        whole: dict[str, Tensor] = {}
        for name, tensor in state.items():
            pieces = self._pieces_of(model, name, tensor)
            if self.group.rank > 0:
                for piece in pieces:
                    if piece.of_users:
                        self.group.send(piece.values.cpu().contiguous(), 0)
                continue
            shape = self._whole_shape(pieces)
            target = _in_a_file(tensor.dtype, shape)
            for piece, part in zip(pieces, target.view(-1).split([self._size(p) for p in pieces]), strict=True):
                self._gather(piece, part)
            whole[name] = target
        return whole

    def _gather(self, piece: Piece, target: Tensor) -> None:
        """Write a piece, with the rows of the other processes, into the (size,) place for it in the first process."""
        if not piece.of_users:
            target.copy_(piece.values.reshape(-1))
            return
        table = target.view(self.num_users, -1)
        table[self.users] = piece.values.cpu().reshape(len(self.users), -1)
        for rank in range(1, self.group.size):
            users = self.users_of[rank]
            table[users] = self.group.receive(table.new_empty(len(users), table.shape[1]), rank)

    def handed_out(self, model: nn.Module, own: Mapping[str, Tensor], whole: Mapping[str, Tensor]) -> dict[str, Tensor]:
        pieces = {name: self._pieces_of(model, name, tensor) for name, tensor in own.items()}
        given = self.group.from_first(kinds(whole))
        check_kinds(given, {name: (self._whole_shape(pieces[name]), tensor.dtype) for name, tensor in own.items()})
        found: dict[str, Tensor] = {}
        for name, tensor in own.items():
            found[name] = torch.empty_like(tensor, device="cpu")
            source = whole[name].view(-1) if self.group.rank == 0 else None
            parted = source.split([self._size(piece) for piece in pieces[name]]) if source is not None else ()
            for place, piece in enumerate(self._pieces_of(model, name, found[name])):
                self._hand_out(piece, parted[place] if parted else None)
        return found

    def _hand_out(self, piece: Piece, source: Tensor | None) -> None:
        """Fill a piece of each process from the (size,) tensor of all users in the first process."""
        if not piece.of_users:
            if source is not None:
                piece.values.view(-1).copy_(source)
            self.group.spread(piece.values)
        elif source is None:
            self.group.receive(piece.values, 0)
        else:
            table = source.view(self.num_users, -1)
            for rank in range(1, self.group.size):
                self.group.send(table[self.users_of[rank]], rank)
            piece.values.view(len(self.users), -1).copy_(table[self.users])
