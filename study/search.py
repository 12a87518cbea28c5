"""The search for the flags of ``--preset tuned``: random draws, judged on a validation side of the training ratings.

    python -m study.search                          # 64 draws on one split, the best 8 again on three; half an hour
    python -m study.search --draws 4 --again 2 --epochs 1   # a look

Splits are those of the seeds from FIRST_SEED on, which no reported figure uses; their test sides are not looked at.
What was drawn and how it did is written to LOGDIR/search.csv as it comes. A draw is judged by MRR / MSE of the
validation side: one percent of the one is worth one percent of the other.
"""

from cli import command

if __name__ == "__main__":  # before the imports that take a second
    command.begin(when_stopped="stopped before the first draw")

import argparse
import contextlib
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

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
# What is drawn, each value with the same probability; everything else is the preset's.
SPACE: dict[str, Sequence[float]] = {
    "negatives": (3, 6, 10, 16),
    "temperature": (1.5, 2.5, 4.0),
    "learning_rate": (0.007, 0.01, 0.015, 0.022),
    "weight_decay": (2e-6, 5e-6, 1e-5, 2e-5),
    "embedding_dropout": (0.1, 0.2, 0.3, 0.4),
    "dropout": (0.3, 0.4, 0.5),
    "embedding_dim": (32, 64, 96),
    "batch_size": (1024, 2048, 4096),
    "epochs": (40, 60),
    "regression_weight": (0.003, 0.0055, 0.01),
}
# Judged besides: what the preset was first, and steps from there to what it is, which is the first.
FIRST: dict[str, float] = {
    "embedding_dim": 32, "batch_size": 4096, "learning_rate": 0.022, "unseen_negatives": False,
    "embedding_dropout": 0.1,
}  # fmt: skip
UNSEEN = FIRST | {"unseen_negatives": True}
CANDIDATES: tuple[dict[str, float], ...] = (
    {},
    FIRST,
    UNSEEN,
    UNSEEN | {"learning_rate": 0.015},
    UNSEEN | {"learning_rate": 0.01, "batch_size": 2048},
    UNSEEN | {"learning_rate": 0.01, "batch_size": 2048, "embedding_dropout": 0.2, "weight_decay": 7e-6},
    {"learning_rate": 0.01, "embedding_dropout": 0.3, "weight_decay": 1e-5},
)


def draw(number: int) -> dict[str, float]:
    """The flags of the draw with this number, the candidates before those at random."""
    if number < len(CANDIDATES):
        return CANDIDATES[number]
    rng = np.random.default_rng(number)
    return {name: values[int(rng.integers(len(values)))] for name, values in SPACE.items()}


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
            evaluation = Evaluation(trainer.model, train, validation, "all", clamp=options.clamp)
            mrr, mse = evaluation.mrr(), evaluation.mse()
    seconds = time.perf_counter() - started
    return {"epochs": options.epochs, "mrr": mrr, "mse": mse, "score": mrr / mse, "seconds": seconds}


def run_all(options: argparse.Namespace) -> pd.DataFrame:
    """All draws on the first split, then the best of them on the others.

    Raises:
        Stopped: a signal asked for it; by then no draw is left running.
    """
    rows: list[dict[str, Any]] = []
    path = options.logdir / "search.csv"

    def run(work: list[tuple[int, int]]) -> None:
        arguments = {(number, seed): (draw(number), seed, options.data_dir, options.epochs) for number, seed in work}
        with contextlib.closing(results(judge, arguments, options.jobs)) as done:
            for (number, seed), judged in done:
                rows.append({"draw": number, "seed": seed} | draw(number) | judged)
                write_whole(pd.DataFrame(rows).to_csv(index=False).encode(), path)

    run([(number, FIRST_SEED) for number in range(options.draws)])
    first = pd.DataFrame(rows).sort_values("score", ascending=False)
    best = first["draw"].head(options.again).tolist()
    run([(number, FIRST_SEED + other) for number in best for other in (1, 2)])
    return pd.DataFrame(rows)


def main() -> int:
    """Run the search, and print the draws that were judged on all splits, the best first."""
    parser = Parser(description="Search the flags of --preset tuned on validation sides.")
    flag = parser.add_argument
    flag("--draws", type=int, default=64, help="how many (%(default)s)")
    flag("--again", type=int, default=8, help="how many of the best on two splits more (%(default)s)")
    flag("--epochs", type=int, help="in place of those drawn, for a look")
    flag("--jobs", type=int, default=available_cores(), help="how many at a time (%(default)s)")
    flag("--logdir", type=Path, default=Path("run"), help="folder for search.csv (%(default)s)")
    flag("--data_dir", type=Path, default=Path("data"), help="folder for the data (%(default)s)")
    options = parser.parse_args()
    try:
        check_at_least(options, draws=1, again=1, jobs=1)
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
    means = table.groupby("draw").agg(splits=("seed", "size"), mrr=("mrr", "mean"), mse=("mse", "mean"))
    means = means[means["splits"] == means["splits"].max()]
    means["score"] = means["mrr"] / means["mse"]
    flags = pd.DataFrame([draw(number) for number in means.index], index=means.index)
    print(means.join(flags).sort_values("score", ascending=False).to_string())
    return 0


if __name__ == "__main__":
    command.end(main)
