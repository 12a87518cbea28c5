"""The processes of a run, usually one. ``distributed.py`` has those that torchrun started."""

import contextlib
import os
from collections.abc import Callable, Iterator
from typing import Any

from torch import Tensor

from cli.signals import Stopped


class LostProcess(RuntimeError):
    """Another process ended, or cannot be reached."""


class Group:
    """The processes of a run, ``size`` in all: by default one, which waits for no other. ``rank`` counts from 0."""

    def __init__(self, rank: int = 0, size: int = 1) -> None:
        self.rank, self.size = rank, size
        # The beginning of a command line that starts as many.
        self.launcher = ["python"] if size == 1 else ["torchrun", "--standalone", "--nproc_per_node", str(size)]

    def add_up(self, tensor: Tensor) -> Tensor:
        """Put the sum over the processes into a tensor, bit-identical in all of them."""
        return tensor

    def begin_add_up(self, tensor: Tensor) -> Callable[[], Tensor]:
        """Begin ``add_up``, and return a function that waits for its end and returns the tensor.

        The next sum can begin after its end.
        """
        return lambda: self.add_up(tensor)

    def spread(self, tensor: Tensor) -> None:
        """Copy a tensor of the first process into those of the others."""

    def send(self, tensor: Tensor, rank: int) -> None:
        """Send a tensor on the CPU to another process, which calls ``receive``."""

    def receive(self, tensor: Tensor, rank: int) -> Tensor:
        """Fill a tensor on the CPU with the one that another process sends."""
        return tensor

    def from_first(self, value: Any) -> Any:
        """Return the first process's value in all of them."""
        return value

    def from_all(self, value: Any) -> list[Any]:
        """Return the values of all processes, by rank."""
        return [value]

    def check_same(self, description: str) -> None:
        """Raise ValueError unless all processes give the same string, which describes their flags and ratings."""

    @contextlib.contextmanager
    def agreement(self) -> Iterator[None]:
        """Raise ValueError or OSError in all processes if the body does in one: the reason of the first that failed."""
        yield

    @contextlib.contextmanager
    def one_after_the_first(self, name: str) -> Iterator[None]:
        """Let one process of each machine run the body before the others, which then find the files that it fetched."""
        yield

    def ended(self, reason: str) -> None:
        """Tell the others why this process ends."""

    def explain(self, error: LostProcess | Stopped) -> int:
        """Find out with the others why the run ends: return a signal's number, or 0 after one process wrote a line."""
        if isinstance(error, Stopped):
            return error.signal_number
        tell(str(error))
        return 0


ALONE = Group()


def tell(line: str) -> None:
    """Write a line on standard error, from any process."""
    with contextlib.suppress(OSError):
        os.write(2, f"main.py: {line}\n".encode())
