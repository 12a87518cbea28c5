"""The processes that torchrun started: their messages, their agreement, and the reason why one of them ended.

    torchrun --standalone --nproc_per_node 2 main.py --preset tuned --batch_size 8192

``divided.py`` divides the users among them.
"""

import atexit
import contextlib
import json
import os
import signal
import socket
import sys
import time
from collections.abc import Callable, Iterator
from datetime import timedelta
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor
from torch.distributed.distributed_c10d import PrefixStore, Store
from torch.distributed.rendezvous import rendezvous

from cli.signals import STOPPING, Stopped
from training.group import Group, LostProcess, tell
from training.shared_memory import SharedMemory, share

TIMEOUT = timedelta(seconds=20)  # for the other processes, in a step or at the start
AWAKE_SECONDS = 0.1  # for the other processes to catch up
ANSWER_SECONDS = 3.0  # for the others to report how they ended
LOST = "lost"  # the end of a process that misses another one


def note_for_torchrun(line: str) -> None:
    """Let torchrun's report, which follows the line, end with it as well."""
    path = os.environ.get("TORCHELASTIC_ERROR_FILE")
    if path is not None:
        said = {"message": line, "extraInfo": {"py_callstack": line, "timestamp": str(int(time.time()))}}
        with contextlib.suppress(OSError), open(path, "w") as file:
            json.dump({"message": said}, file)


class TorchrunGroup(Group):
    """The processes that torchrun started for this run."""

    def __init__(self, rank: int, size: int, store: Store) -> None:
        super().__init__(rank, size)
        self._store = store
        self._store.set(f"process/{rank}", f"{os.getpid()} {socket.gethostname()}")
        self._memory: SharedMemory | None = share(0, rank, self.from_all)

    def add_up(self, tensor: Tensor) -> Tensor:
        return self.begin_add_up(tensor)()

    def begin_add_up(self, tensor: Tensor) -> Callable[[], Tensor]:
        if self._memory is None or tensor.device.type != "cpu":
            return self._begin_sum(tensor)
        if self._memory.size < tensor.nbytes:
            self._memory = share(tensor.nbytes, self.rank, self.from_all)
            return self.begin_add_up(tensor)
        parts = self._memory.write(tensor)
        all_wrote = self._begin_sum(torch.zeros(1))

        def end() -> Tensor:
            all_wrote()
            torch.add(parts[0], parts[1], out=tensor)
            for part in parts[2:]:
                tensor.add_(part)
            return tensor

        return end

    def _begin_sum(self, tensor: Tensor) -> Callable[[], Tensor]:
        """Begin a sum by torch's own means, and return a function that waits for its end and returns the tensor."""
        with _lost():
            work = dist.all_reduce(tensor, async_op=True)

        def end() -> Tensor:
            if tensor.device.type == "cpu":
                stay_awake_until(work.is_completed)
            with _lost():
                work.wait()
            return tensor

        return end

    def spread(self, tensor: Tensor) -> None:
        with _lost():
            dist.broadcast(tensor, 0)

    def send(self, tensor: Tensor, rank: int) -> None:
        with _lost():
            dist.send(tensor, rank)

    def receive(self, tensor: Tensor, rank: int) -> Tensor:
        with _lost():
            dist.recv(tensor, rank)
        return tensor

    def from_first(self, value: Any) -> Any:
        values = [value]
        with _lost():
            dist.broadcast_object_list(values, 0)
        return values[0]

    def from_all(self, value: Any) -> list[Any]:
        values: list[Any] = [None] * self.size
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
        failures = self.from_all(None if failure is None else str(failure))
        failed = [rank for rank, reason in enumerate(failures) if reason is not None]
        if failed:
            alike = len(set(failures)) == 1
            raise ValueError(f"{'' if alike else f'rank {failed[0]}: '}{failures[failed[0]]}") from failure

    def check_same(self, description: str) -> None:
        values = self.from_all(description)
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
            if self.rank == 0:
                self._is_first_to_tell()  # it prints its own error

    def _is_first_to_tell(self) -> bool:
        """Return whether no process has told yet why the run ends."""
        return bool(self._store.add("told", 1) == 1)

    def explain(self, error: LostProcess | Stopped) -> int:
        for each in STOPPING:  # torchrun sends one when it sees that a process failed
            signal.signal(each, signal.SIG_IGN)
        with contextlib.suppress(RuntimeError):
            said = f"signal {error.signal_number}" if isinstance(error, Stopped) else LOST
            self._store.set(f"end/{self.rank}", said)
        _leave()  # so that no process waits for this one
        ends, deadline = self._ends(), time.monotonic() + ANSWER_SECONDS
        while ends is not None and len(ends) + len(self._dead(ends)) < self.size and time.monotonic() < deadline:
            time.sleep(0.05)
            ends = self._ends()
        if ends is None:
            tell(f"rank {self.rank}: the machine where the processes meet cannot be reached: {error}")
            return 0
        dead = self._dead(ends)
        silent = [rank for rank in range(self.size) if rank not in ends and rank not in dead]
        if isinstance(error, Stopped):
            silent = []  # they have had no time to answer
        signals = [int(end.partition(" ")[2]) for end in ends.values() if end.startswith("signal ")]
        failed = {rank: end for rank, end in ends.items() if end != LOST and not end.startswith("signal ")}
        reasons = [
            *(f"rank {rank} was killed or crashed: its process is gone" for rank in dead),
            *(f"rank {rank} failed: {end}" for rank, end in failed.items()),
            *(self._silence(rank) for rank in silent),
        ]
        if signals and not reasons:
            return signals[0]
        reason = "; ".join(reasons) or f"rank {self.rank} lost the others: {error}"
        note_for_torchrun(f"main.py: {reason}")
        with contextlib.suppress(RuntimeError):
            if self._is_first_to_tell():
                tell(reason)
        return 0

    def _silence(self, rank: int) -> str:
        """Describe a process that gave no reason for its end and may still be there."""
        if self._process(rank) is None:
            return f"rank {rank} does not answer: it hangs, or its machine cannot be reached"
        return f"rank {rank} did not answer for {TIMEOUT.seconds} s: its process is stopped or hangs"

    def _ends(self) -> dict[int, str] | None:
        """Return the reasons that processes gave for their ends so far, or None where the store cannot be reached."""
        try:
            there = [rank for rank in range(self.size) if self._store.check([f"end/{rank}"])]
            return {rank: self._store.get(f"end/{rank}").decode() for rank in there}
        except RuntimeError:
            return None

    def _dead(self, ends: dict[int, str]) -> list[int]:
        """List the processes of this machine that ended without a reason."""
        missing = {rank: self._process(rank) for rank in range(self.size) if rank not in ends}
        return [rank for rank, pid in missing.items() if pid is not None and _is_dead(pid)]

    def _process(self, rank: int) -> int | None:
        """Return the ID of a process of this machine, None if the process is of another one."""
        with contextlib.suppress(RuntimeError):
            if self._store.check([f"process/{rank}"]):
                pid, _, host = self._store.get(f"process/{rank}").decode().partition(" ")
                return int(pid) if host == socket.gethostname() else None
        return None


def _is_dead(pid: int) -> bool:
    try:
        os.kill(pid, 0)
        with open(f"/proc/{pid}/stat") as file:  # a process that ended may wait for its parent to notice
            return file.read().rpartition(")")[2].split()[0] == "Z"
    except ProcessLookupError:
        return True
    except OSError:
        return False


def stay_awake_until(done: Callable[[], bool]) -> None:
    """Wait for up to ``AWAKE_SECONDS`` without sleeping, because a core that fell asleep takes long to wake up.

    Where there are fewer cores than processes, the others need this one: return at once.
    """
    if int(os.environ.get("LOCAL_WORLD_SIZE", "1")) > (os.cpu_count() or 1) or not hasattr(os, "sched_yield"):
        return
    deadline = time.monotonic() + AWAKE_SECONDS
    while not done() and time.monotonic() < deadline:
        os.sched_yield()


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
    hook = sys.excepthook
    try:
        store, rank, size = next(rendezvous("env://", timeout=TIMEOUT))
        # torchrun's store outlives a restart, and still has the addresses of processes that ended.
        store = PrefixStore(f"start {os.environ.get('TORCHELASTIC_RESTART_COUNT', 0)}", store)
        dist.init_process_group(backend, store=PrefixStore("group", store), rank=rank, world_size=size,
                                timeout=TIMEOUT)  # fmt: skip
        sys.excepthook = hook  # torch's own would print nothing, because this one exits
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
