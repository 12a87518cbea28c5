"""Processes of a run as threads of the test's process, for tests without torchrun."""

import threading
from collections.abc import Callable
from queue import Queue
from typing import Any, TypeVar

from torch import Tensor

from training.group import Group

Result = TypeVar("Result")


class ThreadGroup(Group):
    """One of several threads that stand for processes."""

    def __init__(
        self, rank: int, size: int, shared: list[Any], barrier: threading.Barrier, sent: dict[Any, Any]
    ) -> None:
        super().__init__(rank, size)
        self.shared, self.barrier, self.sent = shared, barrier, sent

    def from_all(self, value: Any) -> list[Any]:
        self.shared[self.rank] = value
        self.barrier.wait()
        values = list(self.shared)
        self.barrier.wait()
        return values

    def from_first(self, value: Any) -> Any:
        return self.from_all(value)[0]

    def add_up(self, tensor: Tensor) -> Tensor:
        return tensor.copy_(sum(self.from_all(tensor.clone())))

    def spread(self, tensor: Tensor) -> None:
        tensor.copy_(self.from_first(tensor.clone()))

    def send(self, tensor: Tensor, rank: int) -> None:
        self.sent[self.rank, rank].put(tensor.clone())

    def receive(self, tensor: Tensor, rank: int) -> Tensor:
        return tensor.copy_(self.sent[rank, self.rank].get(timeout=60))


def in_processes(size: int, work: Callable[[Group], Result]) -> list[Result]:
    """Run ``work`` in each of ``size`` threads at once, and return the results by rank."""
    barrier, shared = threading.Barrier(size, timeout=60), [None] * size
    sent: dict[Any, Any] = {(one, other): Queue() for one in range(size) for other in range(size)}
    results: dict[int, Result] = {}
    errors: list[BaseException] = []

    def run(rank: int) -> None:
        try:
            results[rank] = work(ThreadGroup(rank, size, shared, barrier, sent))
        except BaseException as error:
            errors.append(error)
            barrier.abort()

    threads = [threading.Thread(target=run, args=(rank,)) for rank in range(size)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    if errors:
        raise errors[0]
    return [results[rank] for rank in range(size)]
