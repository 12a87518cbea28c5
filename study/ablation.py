"""The tuned preset on fresh splits, with each of its ingredients taken away, and with one task alone.

    python -m study.ablation                          # ten splits of the preset, five of the others; 20 minutes
    python -m study.ablation --seeds 2 --epochs 1     # a look
    python -m study.ablation --preset_only --first_seed 15 --seeds 10     # twenty other splits; four minutes

Beside it stands EASE in closed form on the same splits. The differences are split by split, with 95 % intervals
(Student's t). The splits are those of the seeds from FIRST_SEED on, none of which was used to choose a flag; those of
``study.search.FIRST_SEED`` and above were. The tables go to LOGDIR/ablation.md.
"""

from cli import command

if __name__ == "__main__":  # before the imports that take a second
    command.begin(when_stopped="stopped before the first run")

import argparse
import statistics
import sys
import time
from collections.abc import Sequence
from contextlib import closing
from pathlib import Path
from typing import NamedTuple

import torch

import data
import main as command_line
from cli.arguments import Parser, available_cores, check_at_least
from cli.files import check_folder, write_whole
from cli.signals import Stopped, stoppable
from metrics import mrr_score
from study.baselines import ease
from study.processes import results
from study.summary import half_interval, spread
from training import preparation
from training.evaluation import Evaluation
from training.flags import parse_arguments

FIRST_SEED = 5
PRESET, EASE = "the preset", "EASE, λ = 200"
# The best of ``python -m study.search --task rating``.
ONLY_RATES = (
    "--regression_weight 1 --learning_rate 0.002 --weight_decay 0.01 --dropout 0.2 --batch_size 2048 --epochs 60 "
    "--user_balance 0 --negatives 1 --no-unseen_negatives --no-shared_negatives --negative_temperature 0"
)
OWN_NEGATIVES = "--no-shared_negatives --negative_temperature 0"
VARIANTS = {
    PRESET: "",
    "one negative, drawn": f"--negatives 1 {OWN_NEGATIVES} --no-unseen_negatives",
    "of six drawn for each rating the hardest": f"--negatives 6 {OWN_NEGATIVES}",
    "negatives that the user may have rated": "--no-unseen_negatives",
    "users weighted by their ratings": "--user_balance 0",
    "users without what they watched": "--no-watched_items",
    "temperature 1": "--temperature 1",
    "no weight decay": "--weight_decay 0",
    "constant learning rate": "--lr_schedule constant",
    "no dropout of u": "--embedding_dropout 0",
    "no dropout in the MLP": "--dropout 0",
    "weights of the last epoch": "--average_last 0",
    "output's bias from its usual start": "--no-start_at_mean",
    "ratings not cut to their range": "--no-clamp",
    "ranking alone, λ_R = 0": "--regression_weight 0",
    "rating alone, λ_F = 0": "--factorization_weight 0",
    "rating alone, with values of its own": f"--factorization_weight 0 {ONLY_RATES}",
    "separate tables": "--no_shared_embeddings",
}


class Scores(NamedTuple):
    """What a network does on the test side of a split."""

    mrr: float
    mse: float
    seconds: float


def run(flags: str, seed: int, epochs: int | None, data_dir: Path) -> Scores:
    """Train and evaluate as main.py would; nothing is written."""
    more = [f"--seed={seed}", "--device=cpu", f"--data_dir={data_dir}", f"--logdir={data_dir}"]
    more += [] if epochs is None else [f"--epochs={epochs}"]
    options = parse_arguments(["--preset=tuned", *flags.split(), *more])
    trainer, (_, _, test) = command_line.set_up(options)
    started = time.perf_counter()
    try:
        for _ in range(options.epochs):  # on one thread: as many runs as there are cores train at a time
            trainer.run_epoch()
    except FloatingPointError:  # without what held it
        return Scores(float("nan"), float("nan"), float("nan"))
    seconds = time.perf_counter() - started
    with trainer.as_evaluated():
        evaluation = Evaluation(trainer.recommender, trainer.train, test, users="all", clamp=options.clamp)
        return Scores(evaluation.mrr(), evaluation.mse(), seconds)


def run_ease(seed: int, known: data.Interactions) -> Scores:
    """EASE on the split of a seed; it predicts no ratings."""
    train, test = preparation.split(known, parse_arguments([]).test_fraction, seed)
    started = time.perf_counter()
    table = ease(train)
    seconds = time.perf_counter() - started
    return Scores(mrr_score(table, test, train), float("nan"), seconds)


def run_all(options: argparse.Namespace, known: data.Interactions) -> dict[str, dict[int, Scores]]:
    """All variants, the preset on twice as many splits.

    Raises:
        Stopped: a signal asked for it; by then no run is left running.
    """
    first, names = options.first_seed, [PRESET] if options.preset_only else [*VARIANTS]
    seeds = range(first, first + options.seeds)
    work = [(PRESET, seed + options.seeds) for seed in seeds] + [(name, seed) for seed in seeds for name in names]
    found: dict[str, dict[int, Scores]] = {name: {} for name in (*names, EASE)}
    for seed in range(first, first + 2 * options.seeds):
        found[EASE][seed] = run_ease(seed, known)
    arguments = {(name, seed): (VARIANTS[name], seed, options.epochs, options.data_dir) for name, seed in work}
    with closing(results(run, arguments, options.jobs)) as done:
        for (name, seed), scores in done:
            found[name][seed] = scores
    return found


def interval(values: Sequence[float], digits: int) -> str:
    """Mean of differences [95 % interval]."""
    if any(value != value for value in values):
        return "–"
    mean = statistics.fmean(values)
    if len(values) < 2:
        return f"{mean:+.{digits}f}"
    half = half_interval(values)
    return f"{mean:+.{digits}f} [{mean - half:+.{digits}f}, {mean + half:+.{digits}f}]"


def tables(found: dict[str, dict[int, Scores]]) -> str:
    """Two tables in Markdown: the preset and EASE on all splits, and the variants minus the preset."""
    rows = [f"| {len(found[PRESET])} splits | test MRR | test MSE | seconds |", "| --- | --- | --- | --- |"]
    for name in (PRESET, EASE):
        columns = list(zip(*found[name].values(), strict=True))
        cells = [spread(column, digits) for column, digits in zip(columns, (4, 3, 1), strict=True)]
        rows.append(f"| {name} | {' | '.join(cells)} |")
    few = min(map(len, found.values()))
    rows += ["", f"| {few} splits, minus the preset | MRR | MSE |", "| --- | --- | --- |"]
    for name, scores in found.items():
        if name == PRESET:
            continue
        pairs = [(score, found[PRESET][seed]) for seed, score in sorted(scores.items())]
        mrr = interval([one.mrr - other.mrr for one, other in pairs], 4)
        mse = interval([one.mse - other.mse for one, other in pairs], 3)
        title = name if len(pairs) == few else f"{name}, {len(pairs)} splits"
        rows.append(f"| {title} | {mrr} | {mse} |")
    return "\n".join(rows)


def main() -> int:
    """Run everything, and print and store the tables."""
    parser = Parser(description="The tuned preset on fresh splits, and without each of its ingredients.")
    flag = parser.add_argument
    flag("--seeds", type=int, default=5, help="splits of each variant; the preset has twice as many (%(default)s)")
    flag("--first_seed", type=int, default=FIRST_SEED, help="of the splits (%(default)s)")
    flag("--preset_only", action="store_true", help="only the preset, and EASE beside it")
    flag("--epochs", type=int, help="in place of the preset's, for a look")
    flag("--jobs", type=int, default=available_cores(), help="how many at a time (%(default)s)")
    flag("--logdir", type=Path, default=Path("run"), help="folder for ablation.md (%(default)s)")
    flag("--data_dir", type=Path, default=Path("data"), help="folder for the data (%(default)s)")
    options = parser.parse_args()
    try:
        check_at_least(options, seeds=1, jobs=1, first_seed=0)
        if options.epochs is not None:
            check_at_least(options, epochs=1)
        check_folder(options.logdir)
        known = data.load(options.data_dir)
        torch.set_num_threads(1)
        with stoppable():
            text = tables(run_all(options, known))
            write_whole(f"{text}\n".encode(), options.logdir / "ablation.md")
    except (ValueError, OSError) as error:
        return command.fail("study.ablation", error)
    except Stopped as stopped:
        print("stopped; nothing is kept", file=sys.stderr)
        return 128 + stopped.signal_number
    print(text)
    return 0


if __name__ == "__main__":
    command.end(main)
