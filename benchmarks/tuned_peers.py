"""``main.py --preset tuned`` beside peers that are tuned like it: ``python benchmarks/peers.py --tuned``.

Each peer gets the same number of draws of its settings, the first its library's defaults with 32 factors. They are
judged on a validation side of the split on which ``study.search`` chose the preset's: part of the training side, so
that no test side takes part. The best is then fitted on fresh splits, those of ``study.ablation``, with all cores to
itself. ALS and EASE only rank; SVD and SVD++ rate.
"""

import argparse
import json
import statistics
import subprocess
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import NamedTuple

import numpy as np
from peer_fits import Result, fit_peer, peers_python, reason

import data
import main as command_line
from cli.arguments import available_cores
from metrics import mrr_score
from study.ablation import FIRST_SEED as FIRST_FRESH
from study.baselines import ease
from study.search import FIRST_SEED as FIRST_SEARCHED
from study.search import VALIDATION_FRACTION
from study.summary import spread
from training import preparation
from training.devices import threads_for
from training.evaluation import Evaluation
from training.flags import parse_arguments

Sides = tuple[data.Interactions, data.Interactions]
Settings = dict[str, float]
SPACES: dict[str, dict[str, Sequence[float]]] = {
    "EASE": {"penalty": (50, 75, 100, 150, 200, 250, 300, 350, 400, 450, 500, 600, 700, 800, 1000, 1500)},
    "implicit-als": {
        "factors": (16, 32, 64, 128),
        "regularization": (0.01, 0.1, 1.0, 3.0, 10.0),
        "alpha": (0.5, 1.0, 2.0, 5.0, 10.0),
        "iterations": (15, 30),
    },
    "surprise-svd": {
        "n_factors": (16, 32, 64, 128),
        "n_epochs": (20, 40, 60),
        "lr_all": (0.003, 0.005, 0.01),
        "reg_all": (0.02, 0.05, 0.08, 0.12),
    },
    "surprise-svdpp": {
        "n_factors": (16, 32, 64),
        "n_epochs": (20, 30, 40),
        "lr_all": (0.003, 0.005, 0.007, 0.01),
        "reg_all": (0.02, 0.05, 0.08, 0.12),
    },
}
RATERS = ("surprise-svd", "surprise-svdpp")


class Choice(NamedTuple):
    """The best settings of a peer, and what they reached on the validation side."""

    settings: Settings
    validation: float


def draws(name: str, number: int) -> list[Settings]:
    """So many settings of a peer: EASE's first penalties; else the library's defaults with 32 factors, then draws."""
    space = SPACES[name]
    if name == "EASE":
        return [{"penalty": penalty} for penalty in space["penalty"][:number]]
    rng = np.random.default_rng(0)
    drawn = [{key: values[int(rng.integers(len(values)))] for key, values in space.items()} for _ in range(number - 1)]
    return [{}, *drawn]


def fit(name: str, seed: int, sides: Sides, settings: Settings) -> Result:
    """Fit a peer and judge it on the second side."""
    if name != "EASE":
        return fit_peer(name, seed, sides, peers_python(), {**settings, **({"ranks": False} if name in RATERS else {})})
    started = time.perf_counter()
    table = ease(sides[0], settings["penalty"])
    seconds = time.perf_counter() - started
    return Result(seconds, mrr_score(table, sides[1], sides[0]), None)


def choose(name: str, sides: Sides, number: int) -> Choice:
    """The best of a number of draws, by the MRR or, of those that rate, the MSE of the second side."""
    drawn = draws(name, number)
    with ThreadPoolExecutor(available_cores()) as pool:  # each fit is a process of its own
        results = list(pool.map(lambda settings: fit(name, FIRST_SEARCHED, sides, settings), drawn))
    scores = [-(result.mse or 0.0) if name in RATERS else (result.mrr or 0.0) for result in results]
    best = max(range(len(drawn)), key=scores.__getitem__)
    return Choice(drawn[best], abs(scores[best]))


def fit_ours(seed: int, options: argparse.Namespace) -> Result:
    """The preset, trained and judged as main.py does."""
    flags = ["--preset=tuned", f"--seed={seed}", "--device=cpu", f"--data_dir={options.data_dir}"]
    flags += [] if options.epochs is None else [f"--epochs={options.epochs}"]
    own = parse_arguments([*flags, f"--logdir={options.data_dir}"])  # nothing is written
    trainer, (_, _, test) = command_line.set_up(own)
    with threads_for(trainer.model, trainer.batch_size):
        started = time.perf_counter()
        for _ in range(own.epochs):
            trainer.run_epoch()
        seconds = time.perf_counter() - started
        with trainer.as_evaluated():
            evaluation = Evaluation(trainer.recommender, trainer.train, test, users="all", clamp=own.clamp)
            return Result(seconds, evaluation.mrr(), evaluation.mse())


def row(name: str, results: Sequence[Result]) -> str:
    """A row of the table: mean ± standard deviation over splits."""
    columns = list(zip(*results, strict=True))
    cells = [
        "–" if None in column else spread(column, digits) for column, digits in zip(columns, (1, 4, 3), strict=True)
    ]
    return f"| {name} | {' | '.join(cells)} |"


def compare(known: data.Interactions, options: argparse.Namespace) -> int:
    """Choose, fit and print; returns the exit status."""
    fraction = parse_arguments([]).test_fraction
    train, _ = preparation.split(known, fraction, FIRST_SEARCHED)
    searched = preparation.split(train, VALIDATION_FRACTION, FIRST_SEARCHED)
    names = ["EASE", *(name for name in options.peers if name in SPACES)]
    chosen: dict[str, Choice] = {}
    for name in names:
        try:
            if name != "EASE":
                peers_python()  # once, before several threads want it
            chosen[name] = choose(name, searched, options.draws)
        except subprocess.CalledProcessError as error:
            print(f"{name} failed: {reason(error)}", flush=True)
            continue
        metric = "MSE" if name in RATERS else "MRR"
        print(
            f"{name}: {json.dumps(chosen[name].settings)}, validation {metric} {chosen[name].validation:.4f}",
            flush=True,
        )
    seeds = range(FIRST_FRESH, FIRST_FRESH + options.seeds)
    print(f"\n| {options.seeds} fresh splits | seconds to fit | test MRR | test MSE |\n| --- | --- | --- | --- |")
    print(row("this project, --preset tuned", [fit_ours(seed, options) for seed in seeds]), flush=True)
    seconds: dict[str, float] = {}
    for name, choice in chosen.items():
        try:
            results = [fit(name, seed, preparation.split(known, fraction, seed), choice.settings) for seed in seeds]
        except subprocess.CalledProcessError as error:
            print(f"| {name} | failed: {reason(error)} | | |", flush=True)
            continue
        seconds[name] = statistics.fmean(result.seconds for result in results)
        print(row(name, results), flush=True)
    if {"implicit-als", "surprise-svdpp"} <= seconds.keys():
        print(f"\nALS and SVD++ together: {seconds['implicit-als'] + seconds['surprise-svdpp']:.1f} s")
    return 0
