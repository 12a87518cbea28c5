"""This project beside what one would use instead, on the same splits of MovieLens 100K.

    python benchmarks/peers.py                   # about fifteen minutes, the first time with an installation
    python benchmarks/peers.py --tuned           # half an hour: this project's preset, and the peers tuned like it

The peers come from the package index into an environment of their own, ``benchmarks/.peers``. Each is fitted with its
library's defaults but for 32 factors; this project with ``main.py``'s. MRR is this project's (``metrics.mrr_score``)
for all; MSE is of the test ratings, where a peer predicts any. Mean ± standard deviation over seeds, each a split and
a fit of its own. A peer that cannot be installed or fails is reported in its row.

With ``--tuned`` see ``tuned_peers.py``.
"""

import sys
from pathlib import Path

ROOT = Path(__file__).parent.parent
sys.path[:0] = [str(ROOT), str(ROOT / "benchmarks")]
from cli import command

if __name__ == "__main__":  # before the imports that take a second
    command.begin(when_stopped="stopped")

import statistics
import subprocess
import time

import peer_models
import torch
import tuned_peers
from peer_fits import Result, fit_peer, peers_python, reason

import data
import metrics
import train
from cli.arguments import Parser
from models import MultiTaskNet
from training.devices import flush_denormals, threads_for
from training.settings import Settings


def split_of(interactions: data.Interactions, seed: int) -> tuple[data.Interactions, data.Interactions]:
    return data.random_train_test_split(interactions, 0.05, torch.Generator().manual_seed(seed))


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
        ([r.mrr for r in results if r.mrr is not None], 3),
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
    parser.add_argument("--tuned", action="store_true", help="the preset beside tuned peers")
    parser.add_argument("--draws", type=int, default=16, help="of settings for each tuned peer (%(default)s)")
    options = parser.parse_args()
    if options.seeds < 1 or options.draws < 1:
        parser.error("expected at least 1 seed and 1 draw")
    flush_denormals()
    interactions = data.load(options.data_dir)
    if options.tuned:
        return tuned_peers.compare(interactions, options)
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
        try:
            python = peers_python()
            sides = [split_of(interactions, seed) for seed in range(options.seeds)]
            print_row(name, [fit_peer(name, seed, side, python) for seed, side in enumerate(sides)])
        except subprocess.CalledProcessError as error:
            print(f"| {name} | failed: {reason(error)} | | |", flush=True)
    return 0


if __name__ == "__main__":
    command.end(command_line)
