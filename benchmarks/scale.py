"""What a rating costs at the sizes of MovieLens 100K, 1M, 10M and 32M, and what several processes save.

    python benchmarks/scale.py                            # five minutes, 4 GiB at 32M
    python benchmarks/scale.py --processes                # one process against two, in some minutes
    python benchmarks/scale.py --sizes 100k 32m --whole   # whole epochs

The ratings are drawn here with the releases' numbers of users and items, popularity and activity log-normal; their
values are random, because only the cost is looked at. Each size has a trainer of its own as main.py makes it; they take
turns, round by round, in one process and on one thread, so that a busy machine slows all of them down. A round trains
on as many ratings of each as ``--ratings`` says, in steps of the whole network; with ``--whole`` on all of them.
"""

import sys
from pathlib import Path

ROOT = Path(__file__).parent.parent
sys.path[:0] = [str(ROOT), str(ROOT / "benchmarks")]
from cli import command

if __name__ == "__main__":  # before the imports that take a second
    command.begin(when_stopped="stopped")

import argparse
import os
import platform
import resource
import statistics
import subprocess
import time
from collections.abc import Callable
from typing import NamedTuple

import numpy as np
import torch

import train
from cli.arguments import Parser
from data import Interactions
from models import MultiTaskNet
from training.devices import flush_denormals
from training.distributed import ALONE, Group, join
from training.evaluation import Evaluation
from training.settings import OPTIMIZERS, Settings


class Size(NamedTuple):
    """A release of MovieLens."""

    users: int
    items: int
    ratings: int


SIZES = {
    "100k": Size(943, 1682, 100_000),
    "1m": Size(6040, 3706, 1_000_209),
    "10m": Size(69878, 10677, 10_000_054),
    "32m": Size(200948, 84432, 32_000_204),
}


def draw(size: Size, share: float, seed: int) -> Interactions:
    """That share of a release's number of ratings, drawn at random: users and items as often as in the release."""
    rng = np.random.default_rng(seed)
    count = round(size.ratings * share)

    def ids(number: int, sigma: float) -> torch.Tensor:
        weights = np.cumsum(rng.lognormal(0.0, sigma, number))
        return torch.from_numpy(np.searchsorted(weights, rng.random(count) * weights[-1], side="right"))

    users, items = ids(size.users, 1.0), ids(size.items, 1.7)
    ratings = torch.randint(1, 6, (count,), generator=torch.Generator().manual_seed(seed)).float()
    return Interactions(users, items, ratings, size.users, size.items)


def trainer_of(size: Size, side: Interactions, optimizer: str, batch_size: int, group: Group) -> train.Trainer:
    torch.manual_seed(0)
    net = MultiTaskNet(size.users, size.items)
    return train.Trainer(
        net, side, Settings(batch_size=batch_size, optimizer=optimizer), 0, group=group, make=MultiTaskNet
    )


def part(trainer: train.Trainer, order: torch.Tensor) -> Callable[[], object]:
    """Training on these of a trainer's ratings, with everything that an epoch does for them."""
    return lambda: trainer.step.run(trainer.sampler.triples(order), trainer.batch_size)


def measure_sizes(options: argparse.Namespace) -> None:
    """Cost per rating, size by size, as shipped and, like for like, with row-wise Adam everywhere."""
    contenders: dict[str, tuple[Callable[[], object], int]] = {}
    evaluations: dict[str, Evaluation] = {}
    memory: dict[str, float] = {}
    for name in options.sizes:
        size = SIZES[name]
        both = draw(size, 1.0, 0)
        held_out = len(both) // 20
        test, side = both.select(torch.arange(held_out)), both.select(torch.arange(held_out, len(both)))
        del both
        for optimizer in ("auto", "lazy_adam"):
            trainer = trainer_of(size, side, optimizer, options.batch_size, ALONE)
            if optimizer == "auto":
                evaluations[name] = Evaluation(trainer.recommender, side, test)
                label = f"{name} {trainer.optimizer}"
            elif trainer.optimizer == label.split()[1]:
                continue
            else:
                label = f"{name} lazy_adam"
            if options.whole:
                contenders[label] = trainer.run_epoch, len(side)
            else:
                order = torch.randperm(len(side), dtype=torch.int32)[: options.ratings]
                contenders[label] = part(trainer, order), len(order)
        memory[name] = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20
    seconds: dict[str, list[float]] = {label: [] for label in contenders}
    for step in range(options.rounds + 1):
        for label, (work, count) in contenders.items():
            started = time.perf_counter()
            work()
            if step > 0 or options.whole:  # the first round only warms up
                seconds[label].append((time.perf_counter() - started) / count * 1e6)
    base = seconds[next(iter(seconds))]
    print("| size, Adam | users | items | µs a rating | times the first row's | ranking, of an epoch's training |")
    print("| --- | --- | --- | --- | --- | --- |")
    for label, found in seconds.items():
        name = label.split()[0]
        ratios = [a / b for a, b in zip(found, base, strict=True)]
        spread = f"{statistics.median(ratios):.2f} ({min(ratios):.2f}–{max(ratios):.2f})"
        ranking = ""
        if name in evaluations:
            each = evaluations.pop(name)
            each.mrr()
            started = time.perf_counter()
            each.mrr()
            epoch = statistics.median(found) * 1e-6 * len(each.train)
            took = (time.perf_counter() - started) / epoch
            ranking = f"{took:.2f}, {each.ranked:,} of {each.tested:,} test users"
        size = SIZES[name]
        cost = f"{statistics.median(found):.2f} ({min(found):.2f}–{max(found):.2f})"
        print(f"| {label} | {size.users:,} | {size.items:,} | {cost} | {spread} | {ranking} |", flush=True)
    peaks = ", ".join(f"{peak:.2f} GiB with {name}" for name, peak in memory.items())
    print(f"\npeak memory so far, each size beside those before it: {peaks}")


def measure_processes(options: argparse.Namespace) -> None:
    """One process and two, in turn, size by size and at several batch sizes."""
    print("| size, Adam | batch | processes | µs a rating (best of the rounds) |")
    print("| --- | --- | --- | --- |", flush=True)
    for name in options.sizes:
        for batch_size in options.batches:
            best = {1: [float("inf")], 2: [float("inf")]}
            for _ in range(options.rounds):
                for processes in best:
                    launcher = ["-m", "torch.distributed.run", "--standalone", f"--nproc_per_node={processes}"]
                    arguments = ["--inside", name, "--batch_size", str(batch_size), "--ratings", str(options.ratings)]
                    arguments += ["--optimizer", options.optimizer]
                    done = subprocess.run(
                        [sys.executable, *launcher, __file__, *arguments],
                        env={**os.environ, "OMP_NUM_THREADS": "1"},
                        capture_output=True, text=True, check=True,
                    )  # fmt: skip
                    optimizer, cost = done.stdout.split()
                    best[processes].append(float(cost))
            for processes, costs in best.items():
                print(f"| {name} {optimizer} | {batch_size} | {processes} | {min(costs):.2f} |", flush=True)


def measure_inside(options: argparse.Namespace) -> None:
    """As one of several processes: print the Adam and the cost, once."""
    group, size = join(), SIZES[options.inside]
    share = min(1.0, 4 * options.ratings / size.ratings)
    trainer = trainer_of(size, draw(size, share, 0), options.optimizer, options.batch_size, group)
    work = part(trainer, torch.randperm(len(trainer.train), generator=trainer.generator)[: options.ratings])
    costs = []
    for _ in range(4):
        started = time.perf_counter()
        work()
        costs.append((time.perf_counter() - started) / min(options.ratings, len(trainer.train)) * 1e6)
    if group.rank == 0:
        print(trainer.optimizer, min(costs[1:]))


def command_line() -> int:
    parser = Parser(description="Cost per rating by size, and by number of processes.")
    parser.add_argument("--rounds", type=int, default=5, help="measured rounds (%(default)s)")
    parser.add_argument("--sizes", nargs="+", choices=SIZES, default=list(SIZES), help="releases (all)")
    parser.add_argument("--ratings", type=int, default=400_000, help="of each size in a round (%(default)s)")
    parser.add_argument("--batch_size", type=int, default=256, help="ratings a step (%(default)s)")
    parser.add_argument(
        "--batches", type=int, nargs="+", default=[256, 2048, 8192], help="with --processes (%(default)s)"
    )
    parser.add_argument("--optimizer", choices=OPTIMIZERS, default="auto", help="with --processes")
    parser.add_argument("--whole", action="store_true", help="two whole epochs of each, without a warm-up")
    parser.add_argument("--processes", action="store_true", help="one process against two")
    parser.add_argument("--inside", choices=SIZES, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.rounds < 1 or options.ratings < options.batch_size:
        parser.error("expected at least 1 round and a batch of ratings")
    torch.set_num_threads(1)
    flush_denormals()
    if options.inside:
        measure_inside(options)
        return 0
    print(f"{platform.machine()}, {os.cpu_count()} cores, torch {torch.__version__}, {options.rounds} rounds\n")
    if options.processes:
        measure_processes(options)
        return 0
    if options.whole:
        options.rounds = 1
    measure_sizes(options)
    return 0


if __name__ == "__main__":
    command.end(command_line)
