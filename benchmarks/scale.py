"""The cost of a rating at the sizes of MovieLens 100K, 1M, 10M and 32M, in one process or several.

    python benchmarks/scale.py                                              # five minutes, 4 GiB at 32M
    python benchmarks/scale.py --sizes 100k 32m --rounds 1 --ratings 32000204   # whole epochs
    torchrun --standalone --nproc_per_node 2 benchmarks/scale.py --sizes 100k --batch_size 8192

The ratings are drawn with the releases' numbers of users and items, popularity and activity log-normal; their values
are random, because only the cost is measured. Each size has a trainer of its own. The trainers take turns, round by
round, on one thread of each process, so that a busy machine slows all of them down.
"""

import sys
from pathlib import Path

ROOT = Path(__file__).parent.parent
sys.path[:0] = [str(ROOT), str(ROOT / "benchmarks")]
from cli import command

if __name__ == "__main__":  # before the imports that take a second
    command.begin(when_stopped="stopped")

import resource
import statistics
from collections.abc import Callable, Sequence
from functools import partial
from typing import NamedTuple

import numpy as np
import torch
from harness import SIZES, Size, machine, timed

from cli.arguments import Parser
from data import Interactions
from train import Trainer
from training import setup
from training.distributed import Group, join
from training.evaluation import Evaluation
from training.settings import Settings, preset

NAMES = ("100k", "1m", "10m", "32m")


class Contender(NamedTuple):
    """A trainer, the work that is timed, and the number of ratings in it."""

    size: str
    trainer: Trainer
    test: Interactions
    work: Callable[[], object]
    ratings: int


def draw(size: Size) -> tuple[Interactions, Interactions]:
    """Draw a training and a test set of a release's size."""
    rng = np.random.default_rng(0)

    def ids(number: int, sigma: float) -> torch.Tensor:
        weights = np.cumsum(rng.lognormal(0.0, sigma, number))
        return torch.from_numpy(np.searchsorted(weights, rng.random(size.ratings) * weights[-1], side="right"))

    users = ids(size.users, 1.0)
    items = ids(size.items, 1.7)
    ratings = torch.from_numpy(rng.integers(1, 6, size.ratings).astype(np.float32))
    everything = Interactions(users, items, ratings, size.users, size.items)
    held_out = size.ratings // 20
    return everything.select(torch.arange(held_out, size.ratings)), everything.select(torch.arange(held_out))


def contenders(name: str, ratings: int, batch_size: int, group: Group) -> list[Contender]:
    """Make the default trainer of a size, and one with row-wise Adam where that is not the default.

    Several processes have one of the preset tuned, because they take large batches alone.
    """
    train_set, test = draw(SIZES[f"ml-{name}"])
    count = min(ratings, len(train_set))
    order = torch.randperm(len(train_set), generator=torch.Generator().manual_seed(0), dtype=torch.int32)[:count]
    made: list[Contender] = []
    values = preset("tuned") if group.size > 1 else {}
    for optimizer in ("auto", "lazy_adam") if group.size == 1 else ("adam",):
        if made and made[0].trainer.optimizer == optimizer:
            continue
        settings = Settings(**values | {"batch_size": batch_size, "optimizer": optimizer})
        trainer = setup.make_trainer(settings, train_set, torch.device("cpu"), group=group)
        work = trainer.run_epoch if count == len(train_set) else partial(train_on, trainer, order)
        made.append(Contender(name, trainer, test, work, count))
    return made


def train_on(trainer: Trainer, order: torch.Tensor) -> None:
    """Train on these of a trainer's ratings, with everything that an epoch does for them."""
    triples, sizes = trainer.sampler.batches(order)
    trainer.step.run(triples, sizes)


def spread(values: Sequence[float]) -> str:
    """Write a median and its range."""
    return f"{statistics.median(values):.2f} ({min(values):.2f}–{max(values):.2f})"


def ranking_cost(contender: Contender, microseconds: float, group: Group) -> str:
    """Write the time of ranking the test users as a share of an epoch's training."""
    evaluation = Evaluation(
        contender.trainer.scorer, contender.trainer.train, contender.test, division=contender.trainer.division
    )
    evaluation.mrr()
    share = timed(evaluation.mrr) / (microseconds * 1e-6 * contender.trainer.count)
    return f"{share:.2f}, {evaluation.ranked:,} of {evaluation.tested:,} test users"


def measure(every: Sequence[Contender], rounds: int, group: Group) -> None:
    """Time all contenders in turn, and let the first process print a row for each."""
    turns = [[timed(each.work) / each.ratings * 1e6 for each in every] for _ in range(rounds + 1)]
    costs = list(zip(*turns[1:], strict=True))  # of each contender; the first round warms up
    ranked = set[str]()
    for contender, found in zip(every, costs, strict=True):
        ratios = [one / first for one, first in zip(found, costs[0], strict=True)]
        ranking = "" if contender.size in ranked else ranking_cost(contender, statistics.median(found), group)
        ranked.add(contender.size)
        size = SIZES[f"ml-{contender.size}"]
        if group.rank == 0:
            label = f"{contender.size} {contender.trainer.optimizer} | {size.users:,} | {size.items:,}"
            print(f"| {label} | {spread(found)} | {spread(ratios)} | {ranking} |", flush=True)


def command_line() -> int:
    """Run the command line; returns the exit status."""
    parser = Parser(description="Measure the cost per rating by size.")
    parser.add_argument("--rounds", type=int, default=5, help="number of measured rounds (%(default)s)")
    parser.add_argument("--sizes", nargs="+", choices=NAMES, default=NAMES, help="MovieLens releases (all)")
    parser.add_argument("--ratings", type=int, default=400_000, help="ratings of each size in a round (%(default)s)")
    parser.add_argument("--batch_size", type=int, default=256, help="ratings per step (%(default)s)")
    options = parser.parse_args()
    if options.rounds < 1 or options.batch_size < 1 or options.ratings < options.batch_size:
        parser.error("expected at least 1 round and at least one batch of ratings")
    setup.use_one_thread()
    setup.flush_denormals()
    group = join()
    every: list[Contender] = []
    memory: list[str] = []
    for name in options.sizes:
        every += contenders(name, options.ratings, options.batch_size, group)
        memory.append(f"{resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20:.2f} GiB with {name}")
    if group.rank == 0:
        print(f"{machine()}; processes: {group.size}; rounds: {options.rounds}\n")
        print("| size, Adam | users | items | µs a rating | times the first row's | ranking, of an epoch's training |")
        print("| --- | --- | --- | --- | --- | --- |")
    measure(every, options.rounds, group)
    if group.rank == 0:
        print(f"\npeak memory so far, each size beside those before it: {', '.join(memory)}")
    return 0


if __name__ == "__main__":
    command.end(command_line)
