"""A preset of this project beside EASE, ALS, BPR, SVD and SVD++, tuned in the same way and scored on the same splits.

    python benchmarks/peers.py                              # sixteen draws of settings for each peer; half an hour
    python benchmarks/peers.py --draws 1 --preset homework  # the libraries' defaults, except for 32 factors

Each peer gets the same number of draws of its settings; the first are its library's defaults with 32 factors. They are
scored on a validation set of one split, which no reported result uses. The best draw is then fitted on the splits of
``study.ablation``, one fit at a time, and scored on the test sets. ALS, BPR and EASE only rank; SVD and SVD++ only
rate. The libraries are installed from the package index into an environment of their own, ``benchmarks/.peers``. A
peer that cannot be installed or fails is reported in its row.
"""

import sys
from pathlib import Path

ROOT = Path(__file__).parent.parent
sys.path[:0] = [str(ROOT), str(ROOT / "benchmarks")]
from cli import command

if __name__ == "__main__":  # before the imports that take a second
    command.begin(when_stopped="stopped")

import argparse
import json
import math
import os
import subprocess
import tempfile
import venv
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial

import numpy as np
import peer_models
import torch

from cli.arguments import Parser, add_options, available_cores, check_at_least, name_or_path, options_of
from data import Interactions
from datasets.source import DataSource
from metrics import mrr_score
from study.ablation import FIRST_SEED
from study.baselines import ItemScores, ease
from study.summary import spread
from study.trials import Scores, fit_and_score, held_out, read, train_and_score
from training import setup
from training.settings import Settings, preset

SEARCH_SEED, VALIDATION_FRACTION = 100, 0.05  # of the split on which draws are scored
REQUIREMENTS = ("implicit==0.7.2", "scikit-surprise==1.1.5", "pandas<4")
SPACES: dict[str, dict[str, Sequence[float]]] = {
    "EASE": {"penalty": (50, 75, 100, 150, 250, 300, 350, 400, 450, 500, 600, 700, 800, 1000, 1500)},
    "implicit-als": {
        "factors": (16, 32, 64, 128),
        "regularization": (0.01, 0.1, 1.0, 3.0, 10.0),
        "alpha": (0.5, 1.0, 2.0, 5.0, 10.0),
        "iterations": (15, 30),
    },
    "implicit-bpr": {
        "factors": (16, 32, 64, 128),
        "regularization": (0.001, 0.01, 0.03, 0.1),
        "learning_rate": (0.003, 0.01, 0.03),
        "iterations": (50, 100, 200),
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


def peers_python() -> Path:
    """Return the interpreter of the peers' environment, which is made on the first call.

    Raises:
        subprocess.CalledProcessError: a library cannot be installed.
    """
    folder = ROOT / "benchmarks" / ".peers"
    python = folder / ("Scripts/python.exe" if os.name == "nt" else "bin/python")
    if not (folder / "complete").exists():
        venv.create(folder, with_pip=True, clear=True)
        install = [str(python), "-m", "pip", "install", "--quiet", *REQUIREMENTS]
        subprocess.run(install, check=True, stderr=subprocess.PIPE, text=True)
        (folder / "complete").touch()
    return python


def rows_of(interactions: Interactions) -> torch.Tensor:
    """Return (n, 3) float64 users, items and ratings."""
    return torch.stack([interactions.user_ids, interactions.item_ids, interactions.ratings.double()], 1)


def fit_peer(name: str, seed: int, split: setup.Split, settings: dict[str, float]) -> Scores:
    """Fit a peer on the training set of a split, and score it on the held-out set.

    Raises:
        subprocess.CalledProcessError: it failed.
    """
    if name == "EASE":
        return fit_and_score(partial(ease, penalty=settings.get("penalty", 200.0)), split)
    test = held_out(split)
    with tempfile.TemporaryDirectory() as folder:
        given, result = Path(folder) / "split.npz", Path(folder) / "result.npz"
        train_rows, test_rows = rows_of(split.train), rows_of(test)
        np.savez(given, train=train_rows, test=test_rows, num_users=test.num_users, num_items=test.num_items)
        arguments = [peer_models.__file__, name, str(seed), str(given), str(result), json.dumps(settings)]
        subprocess.run([peers_python(), *arguments], check=True, capture_output=True, text=True)
        with np.load(result) as file:
            seconds = float(file["seconds"])
            if "ratings" in file:
                return Scores(math.nan, float(((file["ratings"] - test.ratings.numpy()) ** 2).mean()), seconds)
            scores = ItemScores(torch.from_numpy(file["users"]), torch.from_numpy(file["items"]).T)
    return Scores(mrr_score(scores, test, split.train), math.nan, seconds)


def draw(space: dict[str, Sequence[float]], number: int) -> dict[str, float]:
    """Draw a value at random for each setting; draw 0 is the library's defaults."""
    if number == 0:
        return {}
    rng = np.random.default_rng(number)
    return {name: values[int(rng.integers(len(values)))] for name, values in space.items()}


def choose(name: str, split: setup.Split, draws: int) -> tuple[dict[str, float], Scores]:
    """Return the best of a number of draws, by MRR or, of a peer that rates, MSE, and its validation scores."""
    space = SPACES[name]
    if name == "EASE":
        tried = [{}, *({"penalty": penalty} for penalty in space["penalty"])][:draws]
    else:
        tried = [draw(space, number) for number in range(draws)]
        peers_python()  # before several threads need it
    with ThreadPoolExecutor(available_cores()) as pool:  # each fit is a process
        found = list(pool.map(partial(fit_peer, name, SEARCH_SEED, split), tried))
    best = max(range(len(tried)), key=lambda n: -found[n].mse if math.isnan(found[n].mrr) else found[n].mrr)
    return tried[best], found[best]


def row(name: str, results: Sequence[Scores]) -> str:
    """Write a row of the table: mean ± standard deviation over splits."""
    seconds = spread([each.seconds for each in results], 1)
    mrr, mse = spread([each.mrr for each in results], 4), spread([each.mse for each in results], 3)
    return f"| {name} | {seconds} | {mrr} | {mse} |"


def reason(error: subprocess.CalledProcessError) -> str:
    """Return the last line of a failed process."""
    return ((error.stderr or "").strip() or str(error)).splitlines()[-1]


def compare(options: argparse.Namespace, source: DataSource) -> None:
    """Choose the settings of each peer, fit all on each split, and print the table.

    Raises:
        ValueError, OSError: the ratings cannot be read.
    """
    interactions = read(source)
    searched = setup.split(interactions, Settings(seed=SEARCH_SEED, validation_fraction=VALIDATION_FRACTION))
    chosen: dict[str, dict[str, float]] = {}
    for name in ("EASE", *options.peers):
        try:
            chosen[name], scores = choose(name, searched, options.draws)
        except subprocess.CalledProcessError as error:
            print(f"{name} failed: {reason(error)}", flush=True)
            continue
        metric = f"MSE {scores.mse:.4f}" if math.isnan(scores.mrr) else f"MRR {scores.mrr:.4f}"
        print(f"{name}: {json.dumps(chosen[name])}, validation {metric}", flush=True)
    epochs = {} if options.epochs is None else {"epochs": options.epochs}
    seeds = range(FIRST_SEED, FIRST_SEED + options.seeds)
    every = [Settings(**preset(options.preset) | epochs | {"seed": seed, "eval_users": "all"}) for seed in seeds]
    print(f"\n| {options.seeds} fresh splits | seconds to fit | test MRR | test MSE |\n| --- | --- | --- | --- |")
    own = [train_and_score(settings, source) for settings in every]
    print(row(f"this project, --preset {options.preset}", own), flush=True)
    for name, settings in chosen.items():
        try:
            results = [fit_peer(name, each.seed, setup.split(interactions, each), settings) for each in every]
        except subprocess.CalledProcessError as error:
            print(f"| {name} | failed: {reason(error)} | | |", flush=True)
            continue
        print(row(name, results), flush=True)


def command_line() -> int:
    """Run the command line; returns the exit status."""
    parser = Parser("Compare a preset with tuned models of other libraries.")
    flag = parser.add_argument
    flag("--seeds", type=int, default=10, metavar="N", help="number of splits (default: %(default)s)")
    flag("--draws", type=int, default=16, metavar="N", help="draws of settings for each peer (default: %(default)s)")
    flag("--preset", type=name_or_path, default="tuned", metavar="NAME|FILE",
         help="settings of this project (default: %(default)s)")  # fmt: skip
    flag("--epochs", type=int, metavar="N", help="epochs of this project (default: the preset's)")
    names = [name for name in SPACES if name != "EASE"]
    flag("--peers", nargs="*", choices=names, default=names, help="peers beside EASE (default: all)")
    add_options(parser, DataSource)
    options = parser.parse_args()
    try:
        check_at_least(options, seeds=1, draws=1)
        compare(options, options_of(DataSource, options))
    except (ValueError, OSError) as error:
        return command.fail("peers.py", error)
    return 0


if __name__ == "__main__":
    command.end(command_line)
