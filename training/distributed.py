"""The processes of a run, usually one: their parts of a batch, their messages, and the reason why one of them ended.

    torchrun --standalone --nproc_per_node 2 main.py

All processes hold the whole network, Adam's state and the ratings, and draw the same random numbers. In a step the
vector of all gradients is summed, or, with row-wise Adam, the gradients of the rows looked up are gathered, so that N
processes take the step that one would, up to rounding (Li et al., PyTorch Distributed, VLDB 2020).
"""

import atexit
import contextlib
import os
import signal
import socket
import time
from collections.abc import Iterator
from datetime import timedelta
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor
from torch.distributed.distributed_c10d import PrefixStore, Store
from torch.distributed.rendezvous import rendezvous

from cli.signals import STOPPING, Stopped

TIMEOUT = timedelta(seconds=20)  # for the other processes, in a step or at the start
ANSWER_SECONDS = 3.0  # for the others to report how they ended


class LostProcess(RuntimeError):
    """Another process ended, or cannot be reached."""


class Group:
    """The processes of a run, ``size`` in all: by default one, which waits for no other. ``rank`` counts from 0."""

    def __init__(self, rank: int = 0, size: int = 1) -> None:
        self.rank, self.size = rank, size
        # The beginning of a command line that starts as many.
        self.launcher = ["python"] if size == 1 else ["torchrun", "--standalone", "--nproc_per_node", str(size)]

    def part(self, n: int) -> slice:
        """Return this process's part of n examples: as long as ``longest_part``, the last parts shorter."""
        length = self.longest_part(n)
        return slice(min(self.rank * length, n), min((self.rank + 1) * length, n))

    def longest_part(self, n: int) -> int:
        return -(-n // self.size)

    def add_up(self, tensor: Tensor) -> Tensor:
        """Put the sum over the processes into a tensor, bit-identical in all of them."""
        return tensor

    def gather(self, tensor: Tensor, out: Tensor) -> Tensor:
        """Put the (n,) tensors of all processes into ``out``, (size, n)."""
        return out.copy_(tensor)

    def from_first(self, value: Any) -> Any:
        """Return the first process's value in all of them."""
        return value

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


class TorchrunGroup(Group):
    """The processes that torchrun started for this run."""

    def __init__(self, rank: int, size: int, store: Store) -> None:
        super().__init__(rank, size)
        self._store = store
        self._store.set(f"process/{rank}", f"{os.getpid()} {socket.gethostname()}")

    def add_up(self, tensor: Tensor) -> Tensor:
        with _lost():
            dist.all_reduce(tensor)
        return tensor

    def gather(self, tensor: Tensor, out: Tensor) -> Tensor:
        with _lost():
            dist.all_gather(list(out.unbind()), tensor)
        return out

    def from_first(self, value: Any) -> Any:
        values = [value]
        with _lost():
            dist.broadcast_object_list(values, 0)
        return values[0]

    def _all(self, value: str | None) -> list[str | None]:
        values: list[str | None] = [None] * self.size
        with _lost():
            dist.all_gather_object(values, value)
        return values

    @contextlib.contextmanager
    def agreement(self) -> Iterator[None]:
        failure = None
        try:
            yield
        except (ValueError, OSError) as error:
            failure = error
        failures = self._all(None if failure is None else str(failure))
        failed = [rank for rank, reason in enumerate(failures) if reason is not None]
        if failed:
            alike = len(set(failures)) == 1
            raise ValueError(f"{'' if alike else f'rank {failed[0]}: '}{failures[failed[0]]}") from failure

    def check_same(self, description: str) -> None:
        values = self._all(description)
        for rank, value in enumerate(values):
            if value != values[0]:
                raise ValueError(f"rank {rank} has other flags or other ratings than rank 0: expected the same")

    @contextlib.contextmanager
    def one_after_the_first(self, name: str) -> Iterator[None]:
        key, first = f"{name}/{os.environ.get('GROUP_RANK', 0)}", os.environ.get("LOCAL_RANK") == "0"
        with _lost():
            while not first and not self._store.check([key]):
                time.sleep(0.05)  # rather than in the store, where signals would not be handled
        try:
            yield
        finally:
            if first:
                self._store.set(key, "")

    def ended(self, reason: str) -> None:
        with contextlib.suppress(RuntimeError):
            self._store.set(f"end/{self.rank}", reason)

    def explain(self, error: LostProcess | Stopped) -> int:
        for each in STOPPING:  # torchrun sends one when it sees that a process failed
            signal.signal(each, signal.SIG_IGN)
        self.ended(f"signal {error.signal_number}" if isinstance(error, Stopped) else "lost")
        _leave()  # so that no process waits for this one
        ends, deadline = self._ends(), time.monotonic() + ANSWER_SECONDS
        while ends is not None and len(ends) + len(self._dead(ends)) < self.size and time.monotonic() < deadline:
            time.sleep(0.05)
            ends = self._ends()
        if ends is None:
            tell(f"rank {self.rank}: the machine where the processes meet cannot be reached: {error}")
            return 0
        missing = [rank for rank in range(self.size) if rank not in ends]
        gone = missing if isinstance(error, LostProcess) else self._dead(ends)
        signals = [int(end.partition(" ")[2]) for end in ends.values() if end.startswith("signal ")]
        failed = {rank: end for rank, end in ends.items() if end != "lost" and not end.startswith("signal ")}
        if signals and not gone and not failed:
            return signals[0]
        if gone:
            ranks = f"rank {' and '.join(map(str, gone))}"
            reason = f"{ranks} ended without a word or does not answer: killed, or on a machine that cannot be reached"
        elif failed:
            reason = "; ".join(f"rank {rank} failed: {end}" for rank, end in failed.items())
        else:
            reason = f"rank {self.rank} lost the others: {error}"
        if self.rank == min(rank for rank in ends if rank not in failed):
            tell(reason)
        return 0

    def _ends(self) -> dict[int, str] | None:
        """Return the reasons that processes gave for their ends so far, or None where the store cannot be reached."""
        try:
            there = [rank for rank in range(self.size) if self._store.check([f"end/{rank}"])]
            return {rank: self._store.get(f"end/{rank}").decode() for rank in there}
        except RuntimeError:
            return None

    def _dead(self, ends: dict[int, str]) -> list[int]:
        """List the processes of this machine that ended without a reason."""
        dead = []
        for rank in [rank for rank in range(self.size) if rank not in ends]:
            with contextlib.suppress(RuntimeError):
                pid, _, host = self._store.get(f"process/{rank}").decode().partition(" ")
                if host == socket.gethostname() and _is_dead(int(pid)):
                    dead.append(rank)
        return dead


def _is_dead(pid: int) -> bool:
    try:
        os.kill(pid, 0)
        with open(f"/proc/{pid}/stat") as file:  # a process that ended may wait for its parent to notice
            return file.read().rpartition(")")[2].split()[0] == "Z"
    except ProcessLookupError:
        return True
    except OSError:
        return False


@contextlib.contextmanager
def _lost() -> Iterator[None]:
    try:
        yield
    except RuntimeError as error:
        raise LostProcess(" ".join(str(error).split())) from None


def _leave() -> None:
    with contextlib.suppress(RuntimeError):
        if dist.is_initialized():
            dist.destroy_process_group()


def join() -> Group:
    """Return the processes that torchrun started, or a group of one; LostProcess if the others cannot be reached."""
    if int(os.environ.get("WORLD_SIZE", "1")) == 1:
        return Group()
    backend = "cpu:gloo,cuda:nccl" if torch.cuda.is_available() and dist.is_nccl_available() else "gloo"
    try:
        store, rank, size = next(rendezvous("env://", timeout=TIMEOUT))
        # torchrun's store outlives a restart, and still has the addresses of processes that ended.
        store = PrefixStore(f"start {os.environ.get('TORCHELASTIC_RESTART_COUNT', 0)}", store)
        dist.init_process_group(backend, store=PrefixStore("group", store), rank=rank, world_size=size,
                                timeout=TIMEOUT)  # fmt: skip
        atexit.register(_leave)  # its threads would abort the process if they still ran at the end
        return TorchrunGroup(rank, size, PrefixStore("run", store))
    except (RuntimeError, ValueError) as error:
        rank = int(os.environ.get("RANK", "0"))
        reason = " ".join(str(error).split())[:200]
        raise LostProcess(f"rank {rank} cannot reach the other processes: {reason}") from None


@contextlib.contextmanager
def only_the_first_speaks() -> Iterator[None]:
    """Drop the output of all processes but the first; the traceback of an error that leaves the body is still shown."""
    if os.environ.get("RANK", "0") == "0" or os.environ.get("WORLD_SIZE", "1") == "1":
        yield
        return
    with open(os.devnull, "w") as null, contextlib.redirect_stdout(null), contextlib.redirect_stderr(null):
        yield
