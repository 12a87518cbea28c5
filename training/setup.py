"""The set-up of a run: its split, its network and its trainer; its device, threads and memory.

settings = Settings(seed=1)
split = setup.split(data.load("data"), settings)
trainer = setup.make_trainer(settings, split.train)
"""

import contextlib
import ctypes
import os
import sys
from collections.abc import Iterator
from functools import partial

import torch
from torch import nn

from data import Interactions
from training import network, parts, rows
from training.divided import DividedUsers, check_settings
from training.group import ALONE, Group
from training.settings import Settings
from training.splits import Split, split
from training.trainer import Trainer

__all__ = ["Split", "make_network", "make_trainer", "pick_device", "resources_for", "split", "use_one_thread"]

# From this many multiply-adds in the MLP per step, several threads are faster than one (measured on two cores).
MANY_THREADS_WORK = 2**26
ALL_THREADS = torch.get_num_threads()  # before ``use_one_thread`` lowers it
M_TRIM_THRESHOLD, M_MMAP_THRESHOLD, M_MMAP_MAX = -1, -3, -4  # of mallopt(3)


def make_network(settings: Settings, num_users: int, num_items: int, device: torch.device | str) -> nn.Module:
    """Make the network of models.py on a device, with initial parameters drawn from the seed; see ``network.make``."""
    network.network_class()  # imports models.py, which may draw random numbers, before the seed is set
    torch.manual_seed(settings.seeds.network)
    made = network.make(settings, num_users, num_items)
    try:
        return made.to(device)
    except RuntimeError as error:
        raise ValueError(f"the network does not fit into memory: {str(error).splitlines()[0]}") from error


def make_trainer(
    settings: Settings,
    train: Interactions,
    device: torch.device | str = "cpu",
    eager: bool = False,
    group: Group = ALONE,
) -> Trainer:
    """Make a network, and a trainer of it; of several processes, each makes those of its users.

    Raises:
        ValueError: models.py is wrong, the settings do not fit the network, or several processes cannot train it.
    """
    device = pick_device(device) if isinstance(device, str) else device
    make = partial(network.make, settings)
    if group.size == 1:
        made = make_network(settings, train.num_users, train.num_items, device)
        return Trainer(made, train, settings, eager=eager, make=make)
    group.check_same(f"{settings} {len(train)} {train.num_users} {train.num_items}")
    check_settings(settings, len(train))
    division = DividedUsers(train, group, rows.find_rows(make), device)
    whole = make_network(settings, train.num_users, train.num_items, device)  # so that all rows start as in one process
    with torch.random.fork_rng():
        own = make(len(division.users), train.num_items).to(device)
    division.tensors.copy_rows(whole, own)
    del whole
    return Trainer(own, train, settings, eager=eager, division=division, make=make)


def pick_device(name: str) -> torch.device:
    """Return the device of that name, or raise ValueError; ``auto`` is the first of cuda, mps and cpu that is there."""
    there = {"cuda": torch.cuda.is_available(), "mps": torch.backends.mps.is_available(), "cpu": True}
    usable = [kind for kind, is_there in there.items() if is_there]
    if name == "auto":
        name = usable[0]
    expected = f"expected {', '.join(usable)} or auto on this machine"
    if name.partition(":")[0] not in usable:
        raise ValueError(f"device {name} cannot be used: {expected}")
    try:
        device = torch.device(name)
        torch.zeros(1, device=device)
    except (RuntimeError, AssertionError) as error:
        raise ValueError(f"device {name} cannot be used: {str(error).splitlines()[0]}; {expected}") from error
    if device.type == "cuda":
        os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")  # cuBLAS repeats itself only with fixed buffers
        torch.use_deterministic_algorithms(True)
        torch.utils.deterministic.fill_uninitialized_memory = False  # type: ignore[attr-defined]
    return device


def use_one_thread() -> None:
    """Use one thread outside training, so that sums round alike on any number of cores."""
    torch.set_num_threads(1)


def flush_denormals() -> None:
    """Replace denormal numbers, those below 1e-38, by 0, because processors compute many times more slowly with them.

    Adam's first moments of a ReLU unit that no rating activates any more are denormal after some 800 steps.
    """
    torch.set_flush_denormal(True)


@contextlib.contextmanager
def resources_for(model: nn.Module, batch_size: int) -> Iterator[None]:
    """Train a small network on one thread, a large one on all threads and with ``_freed_memory_kept``.

    Threads that synchronize after every small operation cost more than they save, above all where cores are busy.
    """
    before = torch.get_num_threads()
    work = 3 * batch_size * sum(layer.weight.numel() for layer in parts.linear_layers(model))
    is_large = work >= MANY_THREADS_WORK
    try:
        torch.set_num_threads(ALL_THREADS if is_large else 1)
        with _freed_memory_kept() if is_large else contextlib.nullcontext():
            yield
    finally:
        torch.set_num_threads(before)


@contextlib.contextmanager
def _freed_memory_kept() -> Iterator[None]:
    """Keep the memory of freed tensors in the process for the next ones, where malloc is glibc's; return it at the end.

    By default malloc returns it to the system after each tensor. The system clears each page before it hands it out
    again, which is a third of the time of a step at MovieLens 32M.
    """
    libc = ctypes.CDLL(None) if sys.platform == "linux" else None
    if not hasattr(libc, "mallopt"):  # musl has none
        yield
        return
    assert libc is not None
    try:
        libc.mallopt(M_MMAP_MAX, 0)
        libc.mallopt(M_TRIM_THRESHOLD, -1)  # no size is returned
        yield
    finally:
        libc.mallopt(M_MMAP_MAX, 2**16)  # the default
        libc.mallopt(M_MMAP_THRESHOLD, 2**25)  # the most that malloc chooses by itself, until one of them is set
        libc.mallopt(M_TRIM_THRESHOLD, 2**26)
        libc.malloc_trim(0)
