"""What row-wise Adam learns beside dense Adam, and in what time.

    python benchmarks/optimizers.py                                               # 1M, three seeds; five minutes
    python benchmarks/optimizers.py --sizes 100k --epochs 200 --rates 0.001
    python benchmarks/optimizers.py --sizes 10m --epochs 4 --seeds 1              # six minutes

Shared embeddings, 0.99 / 0.01, ``main.py``'s batches, one thread. The ratings are MovieLens 100K, and for the other
sizes synthetic ones of their shape (``data.synthetic``). The rows are dense Adam with the learning rate of ``main.py``,
and row-wise Adam with each of ``--rates``: mean ± standard deviation over seeds, each a split and a training of its
own, after the last epoch. MRR is of 2,000 test users at most.
"""

import sys
from pathlib import Path

ROOT = Path(__file__).parent.parent
sys.path[:0] = [str(ROOT), str(ROOT / "benchmarks")]
from cli import command

if __name__ == "__main__":  # before the imports that take a second
    command.begin(when_stopped="stopped")

import time
from typing import NamedTuple

import torch
from scale import SIZES

import data
from cli.arguments import Parser, check_at_least
from models import MultiTaskNet
from study.summary import spread
from train import Trainer
from training.devices import flush_denormals
from training.evaluation import Evaluation
from training.settings import Settings

RANKED = 2000
DENSE = ("adam", Settings().learning_rate)


class Outcome(NamedTuple):
    """After the last epoch; seconds are of the training alone."""

    seconds: float
    factorization_loss: float
    training_mse: float
    test_mse: float
    lowest_test_mse: float
    test_mrr: float


DIGITS = 0, 4, 3, 3, 3, 4  # shown of each


def train(known: data.Interactions, optimizer: str, rate: float, seed: int, epochs: int) -> Outcome:
    side, test = data.random_train_test_split(known, 0.05, torch.Generator().manual_seed(seed))
    torch.manual_seed(seed)
    net = MultiTaskNet(known.num_users, known.num_items)
    trainer = Trainer(net, side, Settings(learning_rate=rate, optimizer=optimizer), seed, make=MultiTaskNet)
    evaluation = Evaluation(trainer.recommender, side, test, RANKED)
    seconds, errors = 0.0, list[float]()
    for _ in range(epochs):
        started = time.perf_counter()
        losses = trainer.run_epoch()
        seconds += time.perf_counter() - started
        errors.append(evaluation.mse())
    return Outcome(seconds, losses.factorization_loss, losses.training_mse, errors[-1], min(errors), evaluation.mrr())


def command_line() -> int:
    parser = Parser(description="Row-wise Adam beside dense Adam.")
    parser.add_argument("--sizes", nargs="+", choices=SIZES, default=["1m"], help="releases (%(default)s)")
    parser.add_argument("--epochs", type=int, default=20, help="of each training (%(default)s)")
    parser.add_argument("--seeds", type=int, default=3, help="splits and trainings (%(default)s)")
    parser.add_argument("--rates", type=float, nargs="+", default=[0.001, 0.003], help="of row-wise Adam (%(default)s)")
    parser.add_argument("--data_dir", type=Path, default=ROOT / "data", help="folder for the data (%(default)s)")
    options = parser.parse_args()
    try:
        check_at_least(options, epochs=1, seeds=1)
        for rate in options.rates:
            Settings(learning_rate=rate)
    except ValueError as error:
        return command.fail("optimizers.py", error)
    torch.set_num_threads(1)
    flush_denormals()
    print("| size, Adam, learning rate | seconds | BPR loss | training MSE | test MSE | lowest test MSE | test MRR |")
    print("| --- | --- | --- | --- | --- | --- | --- |", flush=True)
    for name in options.sizes:
        size = SIZES[name]
        known = data.load(options.data_dir) if name == "100k" else data.synthetic(*size)
        for optimizer, rate in (DENSE, *(("lazy_adam", rate) for rate in options.rates)):
            outcomes = [train(known, optimizer, rate, seed, options.epochs) for seed in range(options.seeds)]
            columns = zip(zip(*outcomes, strict=True), DIGITS, strict=True)
            cells = [spread(values, digits) for values, digits in columns]
            print(f"| {name} {optimizer} {rate:g} | {' | '.join(cells)} |", flush=True)
    return 0


if __name__ == "__main__":
    command.end(command_line)
