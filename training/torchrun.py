"""Several processes, started by torchrun: how they meet, talk, and find out which of them failed.

torchrun --standalone --nproc_per_node 2 main.py
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
from training.parallel import Group, LostProcess, tell

TIMEOUT = timedelta(seconds=20)  # for the other processes, in a step or at the start
ANSWER_SECONDS = 3.0  # for the others to say how they ended


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

    def agree(self, failure: Exception | None) -> None:
        failures: list[str | None] = [None] * self.size
        with _lost():
            dist.all_gather_object(failures, None if failure is None else str(failure))
        failed = [rank for rank, reason in enumerate(failures) if reason is not None]
        if failed:
            alike = len(set(failures)) == 1
            raise ValueError(f"{'' if alike else f'rank {failed[0]}: '}{failures[failed[0]]}") from failure

    @contextlib.contextmanager
    def one_after_the_first(self, what: str) -> Iterator[None]:
        key, first = f"{what}/{os.environ.get('GROUP_RANK', 0)}", os.environ.get("LOCAL_RANK") == "0"
        while not first and not self._check([key]):
            time.sleep(0.05)  # rather than in the store, where no signal would be heard
        try:
            yield
        finally:
            if first:
                self._store.set(key, "")

    def _check(self, keys: list[str]) -> bool:
        with _lost():
            return bool(self._store.check(keys))

    def ended(self, reason: str) -> None:
        with contextlib.suppress(RuntimeError):
            self._store.set(f"end/{self.rank}", reason)

    def check_same(self, what: str) -> None:
        others: list[str] = [""] * self.size
        with _lost():
            dist.all_gather_object(others, what)
        for rank, other in enumerate(others):
            if other != others[0]:
                raise ValueError(f"rank {rank} has other flags or other ratings than rank 0: expected the same")

    def explain(self, error: LostProcess | Stopped) -> int:
        for each in STOPPING:  # torchrun sends one when it sees that a process failed
            signal.signal(each, signal.SIG_IGN)
        self.ended(f"signal {error.signal_number}" if isinstance(error, Stopped) else "lost")
        _leave()  # so that nobody waits for this one
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
        """What the processes said of their ends so far, or None where nothing can be learned any more."""
        try:
            there = [rank for rank in range(self.size) if self._store.check([f"end/{rank}"])]
            return {rank: self._store.get(f"end/{rank}").decode() for rank in there}
        except RuntimeError:
            return None

    def _dead(self, ends: dict[int, str]) -> list[int]:
        """The processes of this machine that ended without a word."""
        dead = []
        for rank in range(self.size):
            if rank in ends:
                continue
            with contextlib.suppress(RuntimeError):
                pid, _, host = self._store.get(f"process/{rank}").decode().partition(" ")
                if host == socket.gethostname() and _is_dead(int(pid)):
                    dead.append(rank)
        return dead


def _is_dead(pid: int) -> bool:
    try:
        os.kill(pid, 0)
        with open(f"/proc/{pid}/stat") as file:  # where it may wait for its parent to notice
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
    """The processes that torchrun started, this one among them; a group of one where it was started alone.

    Raises:
        LostProcess: the others cannot be reached.
    """
    if int(os.environ.get("WORLD_SIZE", "1")) == 1:
        return Group()
    backend = "cpu:gloo,cuda:nccl" if torch.cuda.is_available() and dist.is_nccl_available() else "gloo"
    try:
        store, rank, size = next(rendezvous("env://", timeout=TIMEOUT))
        # torchrun's store outlives a restart, and with it the addresses of processes that are no more.
        store = PrefixStore(f"start {os.environ.get('TORCHELASTIC_RESTART_COUNT', 0)}", store)
        dist.init_process_group(backend, store=PrefixStore("group", store), rank=rank, world_size=size,
                                timeout=TIMEOUT)  # fmt: skip
        atexit.register(_leave)  # threads of its own that still ran at the end would abort the process
        return TorchrunGroup(rank, size, PrefixStore("run", store))
    except (RuntimeError, ValueError) as error:
        rank = int(os.environ.get("RANK", "0"))
        reason = " ".join(str(error).split())[:200]
        raise LostProcess(f"rank {rank} cannot reach the other processes: {reason}") from None


@contextlib.contextmanager
def only_the_first_speaks() -> Iterator[None]:
    """Drop what the processes but the first print; a traceback comes after this, and is seen."""
    if os.environ.get("RANK", "0") == "0" or os.environ.get("WORLD_SIZE", "1") == "1":
        yield
        return
    with (
        open(os.devnull, "w") as nowhere,
        contextlib.redirect_stdout(nowhere),
        contextlib.redirect_stderr(nowhere),
    ):
        yield
