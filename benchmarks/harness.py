"""The parts that the benchmarks share: the sizes of the releases, a stopwatch, the name of the machine."""

import os
import platform
import time
from collections.abc import Callable
from typing import NamedTuple

import torch


class Size(NamedTuple):
    """The numbers of users, items and ratings of a MovieLens release, by its README."""

    users: int
    items: int
    ratings: int


SIZES = {
    "ml-100k": Size(943, 1_682, 100_000),
    "ml-latest-small": Size(610, 9_724, 100_836),
    "ml-1m": Size(6_040, 3_706, 1_000_209),
    "ml-10m": Size(69_878, 10_677, 10_000_054),
    "ml-20m": Size(138_493, 26_744, 20_000_263),
    "ml-25m": Size(162_541, 59_047, 25_000_095),
    "ml-32m": Size(200_948, 84_432, 32_000_204),
    "ml-latest": Size(330_975, 83_239, 33_832_162),
}


def timed(work: Callable[[], object]) -> float:
    """Return the seconds that a call takes."""
    started = time.perf_counter()
    work()
    return time.perf_counter() - started


def machine() -> str:
    """Describe the processor, and torch."""
    return f"{platform.machine()}, {os.cpu_count()} cores, torch {torch.__version__}"
