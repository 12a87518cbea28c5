"""The device that a run trains on, the number of threads, and what makes its numbers repeat."""

import contextlib
import os
from collections.abc import Iterator

import torch
from torch import nn

from training import parts


def pick_device(name: str) -> torch.device:
    """The device of that name; for ``auto`` the first of cuda, mps and cpu that this machine has."""
    if name == "auto":
        name = "cuda" if torch.cuda.is_available() else "mps" if torch.backends.mps.is_available() else "cpu"
    if name.partition(":")[0] not in ("cuda", "mps", "cpu"):
        raise ValueError(f"device {name} cannot be used: expected cuda, mps, cpu or auto")
    try:
        device = torch.device(name)
        torch.zeros(1, device=device)
    except (RuntimeError, AssertionError) as error:
        raise ValueError(f"device {name} cannot be used: {str(error).splitlines()[0]}") from error
    if device.type == "cuda":
        os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")  # cuBLAS repeats itself only with fixed buffers
        torch.use_deterministic_algorithms(True)
        torch.utils.deterministic.fill_uninitialized_memory = False  # type: ignore[attr-defined]
    return device


def use_one_thread() -> None:
    """For everything but training, which ``threads_for`` decides on: sums then round alike on any number of cores."""
    torch.set_num_threads(1)


def flush_denormals() -> None:
    """Take numbers below 1e-38 for 0.

    A ReLU unit that no rating activates any more has no gradient: Adam's first moments of its weights shrink by a tenth
    a step, until after some 800 steps they are denormal numbers, on which processors can be many times slower.
    """
    torch.set_flush_denormal(True)


# Multiply-adds in the MLP of one step from which on more threads than one make it faster (measured on two cores).
MANY_THREADS_WORK = 2**26
ALL_THREADS = torch.get_num_threads()  # before anyone lowers it


@contextlib.contextmanager
def threads_for(model: nn.Module, batch_size: int) -> Iterator[None]:
    """Train a small network on one thread, and put things back as they were afterwards.

    Threads that meet after every small operation cost more than they save, and where another process needs their
    cores, another experiment for instance, they wait for each other a hundred times longer than they work.
    """
    before = torch.get_num_threads()
    work = 3 * batch_size * sum(layer.weight.numel() for layer in parts.linear_layers(model))
    torch.set_num_threads(1 if work < MANY_THREADS_WORK else ALL_THREADS)
    try:
        yield
    finally:
        torch.set_num_threads(before)
