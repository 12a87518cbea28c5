"""The search for the flags of ``--preset tuned``: random draws, judged on a validation side of the training ratings.

    python -m study.search                          # 40 draws on one split, the best 8 again on three; 25 minutes
    python -m study.search --task rating            # the same for a network that only rates; four minutes
    python -m study.search --task length --splits 6 # how many epochs: three values, on six splits; five minutes
    python -m study.search --draws 4 --again 2 --epochs 1   # a look

Splits are those of the seeds from FIRST_SEED on, which no reported figure uses; their test sides are not looked at.
What was drawn and how it did is written to LOGDIR/search.csv as it comes. A draw is judged by MRR / MSE of the
validation side: one percent of the one is worth one percent of the other; for one task, by its metric alone.
"""

from cli import command

if __name__ == "__main__":  # before the imports that take a second
    command.begin(when_stopped="stopped before the first draw")

import argparse
import contextlib
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
import torch

import data
import main as command_line
from cli.arguments import Parser, available_cores, check_at_least
from cli.files import check_folder, write_whole
from cli.signals import Stopped, stoppable
from study.processes import results
from train import Trainer
from training import preparation
from training.evaluation import Evaluation
from training.flags import parse_arguments

FIRST_SEED = 100
VALIDATION_FRACTION = 0.05


class Task(NamedTuple):
    """What is searched for.

    Attributes:
        fixed: flags besides the preset's.
        space: what is drawn, each value with the same probability; everything else is the preset's.
        first: judged before those at random; all there are, where nothing is drawn.
        score: of an MRR and an MSE; the higher, the better.
    """

    fixed: dict[str, float]
    space: dict[str, Sequence[float]]
    first: tuple[dict[str, float], ...]
    score: Callable[[float, float], float]


# The preset's length while the other flags were searched; the task "length" asked whether less will do.
LONGER = {"epochs": 60, "learning_rate": 0.007}
# How the preset came to be: from one hard negative drawn for each example, to all of a batch's, and what users watched.
HARDEST = {
    "negatives": 6, "shared_negatives": False, "negative_temperature": 0.0, "user_balance": 0.0,
    "watched_items": False,
}  # fmt: skip
TASKS = {
    "both": Task(
        {},
        {
            "negatives": (64, 128, 256),
            "negative_temperature": (2.5, 4.0, 6.0),
            "user_balance": (0.25, 0.4, 0.5),
            "temperature": (1.5, 2.5, 4.0),
            "learning_rate": (0.005, 0.007, 0.01, 0.014),
            "weight_decay": (5e-6, 1e-5, 2e-5),
            "embedding_dropout": (0.1, 0.2, 0.3, 0.4),
            "dropout": (0.3, 0.4, 0.5),
            "embedding_dim": (48, 64, 96),
            "batch_size": (1024, 2048),
            "epochs": (40, 60, 80),
            "regression_weight": (0.003, 0.0055, 0.01),
        },
        (
            LONGER,
            LONGER | HARDEST,
            LONGER | HARDEST | {"watched_items": True},
            LONGER | {"watched_items": False},
            LONGER | {"weight_decay": 5e-6, "embedding_dropout": 0.4},
            LONGER | {"weight_decay": 5e-6, "embedding_dropout": 0.4, "negatives": 128},
        ),
        lambda mrr, mse: mrr / mse,
    ),
    "length": Task({}, {}, (LONGER, {"epochs": 55, "learning_rate": 0.0075}, {}), lambda mrr, mse: mrr / mse),
    "rating": Task(
        {
            "factorization_weight": 0.0,
            "regression_weight": 1.0,
            "user_balance": 0.0,
            "negatives": 1,
            "unseen_negatives": False,
            "shared_negatives": False,
            "negative_temperature": 0.0,
        },
        {
            "learning_rate": (0.0003, 0.001, 0.002, 0.004),
            "weight_decay": (1e-4, 3e-4, 1e-3, 2e-3, 4e-3, 1e-2),
            "dropout": (0.2, 0.4, 0.5),
            "embedding_dim": (16, 32, 64),
            "batch_size": (1024, 2048),
            "epochs": (20, 40, 60),
        },
        (LONGER, LONGER | {"watched_items": False}),
        lambda _, mse: 1 / mse,
    ),
}


def draw(task: Task, number: int) -> dict[str, float]:
    """The flags of the draw with this number, the first before those at random."""
    if number < len(task.first):
        return task.first[number]
    rng = np.random.default_rng(number)
    return {name: values[int(rng.integers(len(values)))] for name, values in task.space.items()}


def judge(flags: dict[str, float], seed: int, data_dir: Path, epochs: int | None) -> dict[str, Any]:
    """Train with these flags on the split of a seed, and judge on a part of its training side."""
    started = time.perf_counter()
    if epochs is not None:
        flags = flags | {"epochs": epochs}
    texts = [
        f"--{'' if value else 'no-'}{name}" if isinstance(value, bool) else f"--{name}={value}"
        for name, value in flags.items()
    ]
    options = parse_arguments(["--preset=tuned", f"--seed={seed}", "--device=cpu", f"--data_dir={data_dir}", *texts])
    options.logdir = data_dir  # nothing is written
    trainer, _ = command_line.set_up(options)
    train, validation = preparation.split(trainer.train, VALIDATION_FRACTION, seed)
    trainer = Trainer(trainer.model, train, trainer.settings, trainer.seed)
    mrr = mse = float("nan")
    with contextlib.suppress(FloatingPointError):  # a draw that grows without bounds is none of the best
        for _ in range(options.epochs):  # on one thread: as many draws as there are cores train at a time
            trainer.run_epoch()
        with trainer.as_evaluated():
            evaluation = Evaluation(trainer.recommender, train, validation, users="all", clamp=options.clamp)
            mrr, mse = evaluation.mrr(), evaluation.mse()
    return {"epochs": options.epochs, "mrr": mrr, "mse": mse, "seconds": time.perf_counter() - started}


def run_all(options: argparse.Namespace) -> pd.DataFrame:
    """All draws on the first split, then the best of them on the others.

    Raises:
        Stopped: a signal asked for it; by then no draw is left running.
    """
    task, rows = TASKS[options.task], list[dict[str, Any]]()
    path = options.logdir / "search.csv"

    def run(work: list[tuple[int, int]]) -> None:
        arguments = {
            (number, seed): (task.fixed | draw(task, number), seed, options.data_dir, options.epochs)
            for number, seed in work
        }
        with contextlib.closing(results(judge, arguments, options.jobs)) as done:
            for (number, seed), judged in done:
                score = task.score(judged["mrr"], judged["mse"])
                rows.append(
                    {"draw": number, "seed": seed} | task.fixed | draw(task, number) | judged | {"score": score}
                )
                write_whole(pd.DataFrame(rows).to_csv(index=False).encode(), path)

    draws = options.draws if task.space else min(options.draws, len(task.first))
    run([(number, FIRST_SEED) for number in range(draws)])
    first = pd.DataFrame(rows).sort_values("score", ascending=False)
    best = first["draw"].head(options.again).tolist()
    run([(number, FIRST_SEED + other) for number in best for other in range(1, options.splits)])
    return pd.DataFrame(rows)


def main() -> int:
    """Run the search, and print the draws that were judged on all splits, the best first."""
    parser = Parser(description="Search the flags of --preset tuned on validation sides.")
    flag = parser.add_argument
    flag("--task", choices=TASKS, default="both", help="which (%(default)s)")
    flag("--draws", type=int, default=40, help="how many (%(default)s)")
    flag("--again", type=int, default=8, help="how many of the best on further splits (%(default)s)")
    flag("--splits", type=int, default=3, help="on how many splits these, the first included (%(default)s)")
    flag("--epochs", type=int, help="in place of those drawn, for a look")
    flag("--jobs", type=int, default=available_cores(), help="how many at a time (%(default)s)")
    flag("--logdir", type=Path, default=Path("run"), help="folder for search.csv (%(default)s)")
    flag("--data_dir", type=Path, default=Path("data"), help="folder for the data (%(default)s)")
    options = parser.parse_args()
    try:
        check_at_least(options, draws=1, again=1, splits=1, jobs=1)
        if options.epochs is not None:
            check_at_least(options, epochs=1)
        check_folder(options.logdir)
        data.load(options.data_dir)
        torch.set_num_threads(1)
        with stoppable():
            table = run_all(options)
    except (ValueError, OSError) as error:
        return command.fail("study.search", error)
    except Stopped as stopped:
        print(f"stopped; what was judged is in {options.logdir / 'search.csv'}", file=sys.stderr)
        return 128 + stopped.signal_number
    judged = table[["draw", "mrr", "mse"]].fillna({"mrr": 0.0, "mse": np.inf}).groupby("draw")  # those that diverged
    means = judged.mean().assign(splits=judged.size())
    means = means[means["splits"] == means["splits"].max()]
    task = TASKS[options.task]
    means["score"] = [task.score(mrr, mse) for mrr, mse in zip(means["mrr"], means["mse"], strict=True)]
    flags = pd.DataFrame([draw(task, number) for number in means.index], index=means.index)
    print(means.join(flags).sort_values("score", ascending=False).to_string())
    return 0


if __name__ == "__main__":
    command.end(main)
