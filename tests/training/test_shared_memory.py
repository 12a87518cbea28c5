"""Sums through shared memory, of threads that stand for processes; ``test_distributed.py`` starts real ones."""

import os
import random
import time
from collections.abc import Callable

import pytest
import torch
from threads import in_processes
from torch import Tensor

from training import shared_memory
from training.group import Group
from training.shared_memory import SharedMemory, share

pytestmark = pytest.mark.skipif(not hasattr(os, "memfd_create"), reason="only Linux has memory without a file")


def parts_of(seed: int, processes: int) -> list[Tensor]:
    """Draw the parts of a sum, of a drawn type and shape."""
    generator = torch.Generator().manual_seed(seed)
    shape = torch.randint(0, 40, (2,), generator=generator).tolist()
    dtype = (torch.float32, torch.float64, torch.int64)[seed % 3]
    return [torch.randn(*shape, generator=generator).mul_(1000).to(dtype) for _ in range(processes)]


@pytest.mark.parametrize("processes", [2, 3, 5])
def test_every_process_reads_the_parts_of_all(processes: int) -> None:
    """Parts of many sums, of processes that arrive and read at different times."""

    def work(group: Group) -> None:
        memory = share(40 * 40 * 8, group.rank, group.from_all)
        assert memory is not None
        clock = random.Random(group.rank)
        for seed in range(60):
            parts = parts_of(seed, processes)
            time.sleep(clock.random() / 500)
            found = memory.write(parts[group.rank])
            group.from_all(None)  # all have written
            time.sleep(clock.random() / 500)
            for part, expected in zip(found, parts, strict=True):
                assert part.dtype == expected.dtype
                assert torch.equal(part, expected)

    in_processes(processes, work)


def test_nothing_remains_open() -> None:
    def work(group: Group) -> SharedMemory | None:
        return share(1000, group.rank, group.from_all)

    in_processes(2, work)
    before = len(os.listdir("/proc/self/fd"))
    found = in_processes(2, work)
    assert len(os.listdir("/proc/self/fd")) == before
    assert None not in found


@pytest.mark.parametrize(
    "change",
    [
        pytest.param(lambda path, mark: (None, mark), id="system without it"),
        pytest.param(lambda path, mark: ("/proc/1/fd/100000", mark), id="process of another machine"),
        pytest.param(lambda path, mark: (path, os.urandom(16)), id="process with the same ID on another machine"),
        pytest.param(lambda path, mark: (__file__, mark), id="another file"),
    ],
)
def test_no_process_uses_it_where_one_cannot(change: Callable[[str, bytes], tuple[str | None, bytes]]) -> None:
    def work(group: Group) -> SharedMemory | None:
        def from_all(value: object) -> list[object]:
            if isinstance(value, tuple) and group.rank == 1:
                value = change(*value)
            return group.from_all(value)

        return share(1000, group.rank, from_all)

    assert in_processes(3, work) == [None, None, None]


def test_a_pipe_of_another_process_is_not_waited_for() -> None:
    reading, writing = os.pipe()
    try:
        with pytest.raises(FileNotFoundError):
            shared_memory._map(f"/proc/self/fd/{reading}", b"", 64)
    finally:
        os.close(reading)
        os.close(writing)
