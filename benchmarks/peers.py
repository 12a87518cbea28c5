"""This project beside what one would use instead, on the same splits of MovieLens 100K.

    python benchmarks/peers.py                   # about fifteen minutes, the first time with an installation

The peers come from the package index into an environment of their own, ``benchmarks/.peers``. Each is fitted with its
library's defaults but for 32 factors; this project with ``main.py``'s. MRR is this project's (``metrics.mrr_score``)
for all; MSE is of the test ratings, where a peer predicts any. Mean ± standard deviation over seeds, each a split and
a fit of its own. A peer that cannot be installed or fails is reported in its row.
"""

import sys
from pathlib import Path

ROOT = Path(__file__).parent.parent
sys.path[:0] = [str(ROOT), str(ROOT / "benchmarks")]
from cli import command

if __name__ == "__main__":  # before the imports that take a second
    command.begin(when_stopped="stopped")

import os
import statistics
import subprocess
import tempfile
import time
import venv
from typing import NamedTuple

import numpy as np
import peer_models
import torch

import data
import metrics
import train
from cli.arguments import Parser
from models import MultiTaskNet
from training.devices import flush_denormals, threads_for
from training.settings import Settings

ENVIRONMENT = ROOT / "benchmarks" / ".peers"
REQUIREMENTS = ["implicit==0.7.2", "scikit-surprise==1.1.5", "cornac==3.0.1", "pandas<4"]


class Result(NamedTuple):
    seconds: float
    mrr: float
    mse: float | None


class Given:
    """A fitted peer as ``metrics`` sees it: a matrix of scores."""

    def __init__(self, scores: torch.Tensor) -> None:
        self.scores = scores

    def predict_all_items(self, user_ids: torch.Tensor) -> torch.Tensor:
        return self.scores[user_ids].clone()

    def predict_ratings(self, user_ids: torch.Tensor, item_ids: torch.Tensor) -> torch.Tensor:
        return self.scores[user_ids, item_ids]


def peers_python() -> Path:
    """The interpreter of the peers' environment, which is made when it is not there."""
    python = ENVIRONMENT / ("Scripts/python.exe" if os.name == "nt" else "bin/python")
    if not (ENVIRONMENT / "complete").exists():
        venv.create(ENVIRONMENT, with_pip=True, clear=True)
        subprocess.run([python, "-m", "pip", "install", "--quiet", *REQUIREMENTS], check=True)
        (ENVIRONMENT / "complete").touch()
    return python


def split_of(interactions: data.Interactions, seed: int) -> tuple[data.Interactions, data.Interactions]:
    return data.random_train_test_split(interactions, 0.05, torch.Generator().manual_seed(seed))


def fit_peer(name: str, seed: int, interactions: data.Interactions, python: Path) -> Result:
    train_side, test = split_of(interactions, seed)
    rows = [torch.stack([x.user_ids, x.item_ids, x.ratings.long()], 1).double().numpy() for x in (train_side, test)]
    with tempfile.TemporaryDirectory() as folder:
        split, result = Path(folder) / "split.npz", Path(folder) / "result.npz"
        np.savez(split, train=rows[0], test=rows[1], num_users=test.num_users, num_items=test.num_items)
        arguments = [peer_models.__file__, name, str(seed), str(split), str(result)]
        subprocess.run([python, *arguments], check=True, capture_output=True, text=True)
        with np.load(result) as file:
            seconds, scores, ratings = float(file["seconds"]), torch.from_numpy(file["scores"]), file["ratings"]
    mse = float(((ratings - test.ratings.numpy()) ** 2).mean()) if len(ratings) else None
    return Result(seconds, metrics.mrr_score(Given(scores), test, train_side), mse)


def fit_ours(sharing: bool, weight: float, seed: int, interactions: data.Interactions, epochs: int) -> Result:
    train_side, test = split_of(interactions, seed)
    torch.manual_seed(seed)
    model = MultiTaskNet(interactions.num_users, interactions.num_items, embedding_sharing=sharing)
    trainer = train.Trainer(model, train_side, Settings(weight, 1 - weight), seed)
    with threads_for(model, trainer.batch_size):
        started = time.perf_counter()
        for _ in range(epochs):
            trainer.run_epoch()
        seconds = time.perf_counter() - started
    return Result(seconds, metrics.mrr_score(model, test, train_side), metrics.mse_score(model, test))


def print_row(name: str, results: list[Result]) -> None:
    cells = []
    for values, digits in (
        ([r.seconds for r in results], 1),
        ([r.mrr for r in results], 3),
        ([r.mse for r in results if r.mse is not None], 2),
    ):
        spread = f" ± {statistics.stdev(values):.{digits}f}" if len(values) > 1 else ""
        cells.append(f"{statistics.mean(values):.{digits}f}{spread}" if values else "–")
    print(f"| {name} | {' | '.join(cells)} |", flush=True)


def command_line() -> int:
    parser = Parser(description="This project beside its peers.")
    parser.add_argument("--seeds", type=int, default=3, help="splits and fits (%(default)s)")
    parser.add_argument("--epochs", type=int, help="of this project's rows, in place of their own")
    names = list(peer_models.PEERS)
    parser.add_argument("--peers", nargs="*", choices=names, default=names, help="which of the peers (all)")
    parser.add_argument("--data_dir", type=Path, default=ROOT / "data", help="folder for the data (%(default)s)")
    options = parser.parse_args()
    if options.seeds < 1:
        parser.error("expected at least 1 seed")
    flush_denormals()
    interactions = data.load(options.data_dir)
    print("| | seconds to fit | test MRR | test MSE |\n| --- | --- | --- | --- |")
    for title, sharing, weight, epochs in (
        ("shared 0.99 / 0.01", True, 0.99, 200),
        ("shared 0.99 / 0.01", True, 0.99, 50),
        ("separate 0.5 / 0.5", False, 0.5, 200),
    ):
        taken = options.epochs or epochs
        results = [fit_ours(sharing, weight, seed, interactions, taken) for seed in range(options.seeds)]
        print_row(f"this project, {title}, {taken} epochs", results)
    for name in options.peers:
        python = peers_python()
        try:
            print_row(name, [fit_peer(name, seed, interactions, python) for seed in range(options.seeds)])
        except subprocess.CalledProcessError as error:
            print(f"| {name} | failed: {error.stderr.strip().splitlines()[-1]} | | |", flush=True)
    return 0


if __name__ == "__main__":
    command.end(command_line)
