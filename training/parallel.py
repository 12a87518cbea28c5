"""The processes of a run: what they share out, exchange and agree on. Most often there is one.

All hold the whole network, Adam's state and the ratings, and draw the same random numbers. A step costs one collective
operation: the vector of all gradients is summed, or, with row-wise Adam, the gradients of the rows looked up are
gathered. After it all have the same gradient, so that N processes take the step that one would, up to rounding (data
parallelism; Li et al., PyTorch Distributed, VLDB 2020).
"""

import contextlib
import os
from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor

from cli.signals import Stopped


class LostProcess(RuntimeError):
    """Another process ended, or cannot be reached."""


class Group:
    """The processes of a run, and which of them this is; by default it is alone, and has nobody to wait for.

    Attributes:
        rank: this process's number, from 0.
        size: how many there are.
        launcher: what a command line begins with that starts as many.
    """

    def __init__(self, rank: int = 0, size: int = 1) -> None:
        self.rank, self.size = rank, size
        self.launcher = ["python"] if size == 1 else ["torchrun", "--standalone", "--nproc_per_node", str(size)]

    def part(self, n: int) -> slice:
        """Which of n examples are this process's: the parts are as long as ``longest_part``, the last ones shorter."""
        length = self.longest_part(n)
        return slice(min(self.rank * length, n), min((self.rank + 1) * length, n))

    def longest_part(self, n: int) -> int:
        return -(-n // self.size)

    def add_up(self, tensor: Tensor) -> Tensor:
        """Put the sum over the processes into a tensor, with the same bits in all of them."""
        return tensor

    def gather(self, tensor: Tensor, out: Tensor) -> Tensor:
        """Put everyone's (n,) tensor into ``out``, (size, n)."""
        return out.copy_(tensor)

    def from_first(self, value: Any) -> Any:
        """The first process's value, whatever the others have."""
        return value

    def check_same(self, what: str) -> None:
        """Raise ValueError unless all processes were given the same, as flags and ratings put in words."""

    @contextlib.contextmanager
    def agreement(self) -> Iterator[None]:
        """What is done inside is done by all or fails in all.

        Raises:
            ValueError, OSError: it failed here; or elsewhere, with the first one's reason and, unless all failed
                alike, its rank.
        """
        failure = None
        try:
            yield
        except (ValueError, OSError) as error:
            failure = error
        self.agree(failure)

    def agree(self, failure: Exception | None) -> None:
        """Go on only if nobody failed; see ``agreement``."""
        if failure is not None:
            raise failure

    @contextlib.contextmanager
    def one_after_the_first(self, what: str) -> Iterator[None]:
        """On each machine one process goes first, because what it fetches is there for the others."""
        yield

    def ended(self, reason: str) -> None:
        """Leave word of why this process ends."""

    def explain(self, error: LostProcess | Stopped) -> int:
        """Find out, with the others, why the run ends; if not by a signal, the first that still can says it on stderr.

        Returns:
            The number of the signal that stopped the run, or 0 where a process failed.
        """
        if isinstance(error, Stopped):
            return error.signal_number
        tell(str(error))
        return 0


ALONE = Group()


def mean(group: Group, total: float, count: int) -> float:
    """The mean over all processes of values of which this one has the sum and the number."""
    total, count = group.add_up(torch.tensor([total, count], dtype=torch.float64)).tolist()
    return total / count


def tell(line: str) -> None:
    """Write a line on standard error from whichever process."""
    with contextlib.suppress(OSError):
        os.write(2, f"main.py: {line}\n".encode())
