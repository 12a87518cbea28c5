"""The cost of a rating at the sizes of MovieLens 100K, 1M, 10M and 32M, and of all that a run does besides training.

    python benchmarks/scale.py                              # whole epochs of the preset tuned, 15 minutes on two cores
    python benchmarks/scale.py --steps homework --ratings 400000    # the homework's step, on some ratings of each size
    torchrun --standalone --nproc_per_node 2 benchmarks/scale.py --sizes 1m 10m

The ratings are drawn with the releases' numbers of users and items, popularity and activity log-normal; their values
are random, because only the cost is measured. Each size is measured in a process of its own, so that its peak memory
is its own, with the number of threads that a run has. Several processes measure all sizes together, one after another.
"""

import sys
from pathlib import Path

ROOT = Path(__file__).parent.parent
sys.path[:0] = [str(ROOT), str(ROOT / "benchmarks")]
from cli import command

if __name__ == "__main__":  # before the imports that take a second
    command.begin(when_stopped="stopped")

import multiprocessing
import resource
import statistics
import tempfile
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from typing import NamedTuple

import numpy as np
import torch
from harness import SIZES, Size, machine, timed

from cli.arguments import Parser
from data import Interactions
from datasets.source import DataSource
from tracking import projector
from tracking.checkpoint import save_tensors
from train import Trainer, evaluation_of
from training import setup
from training.distributed import join
from training.group import ALONE, Group
from training.settings import Settings, preset

NAMES = ("100k", "1m", "10m", "32m")
STEPS = ("tuned", "homework")  # presets
COLUMNS = (
    "size, step", "threads", "µs a rating", "times the first row's", "CPU µs", "an epoch, s", "ranking", "MSE",
    "checkpoint", "PROJECTOR", "GiB",
)  # fmt: skip


class Work(NamedTuple):
    """A trainer to measure: the size of its data, its preset with changed settings, and the most ratings of a round."""

    size: str
    step: str
    ratings: int
    rounds: int
    changed: dict[str, int]


class Cost(NamedTuple):
    """The seconds of a trainer: a rating's in each round, and of the processor in all; all else once; the peak GiB."""

    optimizer: str
    threads: int
    of_a_rating: list[float]
    processor: float
    ratings: int
    ranking: float
    ranked: str
    mse: float
    checkpoint: float
    mebibytes: float
    projector: float
    memory: float


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


def measure(work: Work, group: Group = ALONE) -> Cost:
    """Measure a trainer in this process, or its part of one that several processes have."""
    setup.use_one_thread()
    setup.flush_denormals()
    train_set, test = draw(SIZES[f"ml-{work.size}"])
    settings = Settings(**preset(work.step) | work.changed)
    trainer = setup.make_trainer(settings, train_set, torch.device("cpu"), group=group)
    whole = len(train_set)
    del train_set
    evaluation = evaluation_of(trainer, test)
    with setup.resources_for(trainer.model, trainer.batch_size), tempfile.TemporaryDirectory() as folder:
        with trainer.as_evaluated():
            evaluation.mse()  # warms up, and sorts the ratings for the sums over watched items
        count = min(work.ratings, whole)
        began = time.process_time()
        costs = [timed(lambda: train_on(trainer, count, whole)) / count for _ in range(work.rounds)]
        processor = (time.process_time() - began) / (count * work.rounds)
        checkpoint = Path(folder) / "checkpoint"
        checkpoint.touch()  # of processes other than the first
        with trainer.as_evaluated():
            return Cost(
                trainer.optimizer,
                torch.get_num_threads(),
                costs,
                processor,
                whole,
                timed(evaluation.mrr),
                f"{evaluation.ranked:,} of {evaluation.tested:,} users",
                timed(evaluation.mse),
                timed(lambda: write_checkpoint(trainer, checkpoint)),
                checkpoint.stat().st_size / 2**20,
                timed(lambda: write_items(Path(folder), trainer)),
                resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20,
            )


def train_on(trainer: Trainer, count: int, whole: int) -> None:
    """Train for an epoch, or on this many ratings with everything that an epoch does for them."""
    if count == whole:
        trainer.run_epoch()
        return
    order = torch.randperm(whole, generator=torch.Generator().manual_seed(0), dtype=torch.int32)[:count]
    triples, sizes = trainer.sampler.batches(order)
    trainer.step.run(triples, sizes)


def write_checkpoint(trainer: Trainer, path: Path) -> None:
    """Write the tensors of a checkpoint, in the first process."""
    tensors = trainer.state()
    if trainer.group.rank == 0:
        with path.open("wb") as file:
            save_tensors(tensors, file)


def write_items(folder: Path, trainer: Trainer) -> None:
    """Write the files of the PROJECTOR tab, with the numbers of this process's ratings."""
    counts = torch.bincount(trainer.train.item_ids, minlength=trainer.train.num_items)
    projector.write_items(folder, counts, trainer.train, DataSource(data_dir=folder), trainer.model)


def costs_of(every: Sequence[Work], group: Group) -> Iterator[Cost]:
    """Measure each trainer in a process of its own; several processes measure each together."""
    if group.size > 1:
        yield from (measure(work, group) for work in every)
        return
    spawn = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(1, mp_context=spawn, max_tasks_per_child=1) as pool:
        yield from pool.map(measure, every)


def row(work: Work, cost: Cost, first: float) -> str:
    """Write the row of a trainer, with the times of everything else as shares of an epoch's training."""
    rating = statistics.median(cost.of_a_rating)
    ends = f"{min(cost.of_a_rating) * 1e6:.2f}–{max(cost.of_a_rating) * 1e6:.2f}"
    epoch = rating * cost.ratings
    cells = [
        f"{work.size} {work.step}, {cost.optimizer}",
        f"{cost.threads}",
        f"{rating * 1e6:.2f} ({ends})",
        f"{rating / first:.2f}",
        f"{cost.processor * 1e6:.2f}",
        f"{epoch:.2f}",
        f"{cost.ranking / epoch:.2f}, {cost.ranked}",
        f"{cost.mse / epoch:.2f}",
        f"{cost.checkpoint / epoch:.2f}, {cost.mebibytes:.0f} MiB",
        f"{cost.projector / epoch:.2f}",
        f"{cost.memory:.2f}",
    ]
    return f"| {' | '.join(cells)} |"


def command_line() -> int:
    """Run the command line; returns the exit status."""
    parser = Parser(description="Measure the cost per rating by size.")
    parser.add_argument("--rounds", type=int, default=2, help="number of measured rounds (%(default)s)")
    parser.add_argument("--sizes", nargs="+", choices=NAMES, default=NAMES, help="MovieLens releases (all)")
    parser.add_argument("--steps", nargs="+", choices=STEPS, default=["tuned"], help="presets (tuned)")
    parser.add_argument("--ratings", type=int, default=2**31, help="most ratings in a round (whole epochs)")
    parser.add_argument("--batch_size", type=int, help="ratings per step (that of the preset)")
    options = parser.parse_args()
    if min(options.rounds, options.ratings, options.batch_size or 1) < 1:
        parser.error("expected at least 1 round, 1 rating and a batch of 1")
    group = join()
    changed = {} if options.batch_size is None else {"batch_size": options.batch_size}
    works = [(size, step) for step in options.steps for size in options.sizes]
    every = [Work(size, step, options.ratings, options.rounds, changed) for size, step in works]
    if group.rank == 0:
        print(f"{machine()}; processes: {group.size}; rounds: {options.rounds}; shares are of an epoch's training\n")
        print(f"| {' | '.join(COLUMNS)} |\n|{' --- |' * len(COLUMNS)}", flush=True)
    first: float | None = None
    for work, cost in zip(every, costs_of(every, group), strict=True):
        first = first or statistics.median(cost.of_a_rating)
        if group.rank == 0:
            print(row(work, cost, first), flush=True)
    return 0


if __name__ == "__main__":
    command.end(command_line)
