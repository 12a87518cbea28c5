"""The explanations of docs/writeup.md put to the test: the experiments again, each with one thing changed.

    python -m study.probes                        # 3 seeds of each, some twenty minutes on two cores; run/probes.md
    python -m study.probes --epochs 5 --seeds 1   # a look

What is changed: which loss reaches the shared tables, the weights, and the optimizer. Beside the figures stands how
much of the gradient that reaches the shared tables comes from the ratings.
"""

from cli import command

if __name__ == "__main__":  # before the imports that take a second
    command.begin(when_stopped="stopped before the first probe began")

import argparse
import sys
from collections.abc import Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

import data
import main as command_line
from cli.arguments import Parser, available_cores, check_at_least
from cli.files import check_folder, write_whole
from cli.signals import Stopped, stoppable
from metrics import mrr_score, mse_score
from study.processes import results
from study.summary import spread
from tracking.history import EpochMetrics
from train import Trainer
from training import parts
from training.adam import EPSILON
from training.devices import threads_for
from training.flags import parse_arguments
from training.steps import EagerStep


class OnlyInteractionsTeachTables(EagerStep):
    """The MSE trains the MLP, but its gradient ends there: the tables learn from BPR alone."""

    def losses(self, users: Tensor, items: Tensor, negatives: Tensor, ratings: Tensor) -> tuple[Tensor, Tensor]:
        factorization, _ = super().losses(users, items, negatives, ratings)
        with _detached(parts.regression_tables(self.model)):
            _, regression = super().losses(users, items, negatives, ratings)
        return factorization, regression


class OnlyRatingsTeachTables(EagerStep):
    """BPR trains the item bias, but its gradient ends there: the tables learn from the MSE alone."""

    def losses(self, users: Tensor, items: Tensor, negatives: Tensor, ratings: Tensor) -> tuple[Tensor, Tensor]:
        _, regression = super().losses(users, items, negatives, ratings)
        with _detached(parts.factorization_tables(self.model)):
            factorization, _ = super().losses(users, items, negatives, ratings)
        return factorization, regression


@contextmanager
def _detached(tables: parts.Tables) -> Iterator[None]:
    """Let no gradient through what these tables look up."""
    handles = [table.register_forward_hook(lambda _, __, rows: rows.detach()) for table in tables]
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()


class SGDStep(EagerStep):
    """The eager step with plain stochastic gradient descent in Adam's place."""

    def update(self, loss: Tensor) -> None:
        trained = self.adam.everything
        trained.gradient.zero_()
        loss.backward()
        trained.values.sub_(trained.gradient, alpha=self.adam.learning_rate)


@dataclass(frozen=True)
class Probe:
    """An experiment in which something is changed.

    Attributes:
        name: what.
        flags: main.py's.
        step: in place of main.py's.
        learning_rate, epsilon: in place of main.py's, for another step.
    """

    name: str
    flags: str
    step: type[EagerStep] | None = None
    learning_rate: float = 1e-3
    epsilon: float = EPSILON


SHARED, SEPARATE = "--shared_embeddings", "--no_shared_embeddings"
SMALL_EPSILON = 1e-15  # Adam's is 1e-8
SGD_RATE = 1.0  # three times as much, and the MSE grows without bounds at 0.5


def weighted(factorization: float, regression: float) -> str:
    return f"--factorization_weight {factorization} --regression_weight {regression}"


PROBES = (
    Probe("shared, 0.999 / 0.001", f"{SHARED} {weighted(0.999, 0.001)}"),
    Probe("shared, 0.99 / 0.01", f"{SHARED} {weighted(0.99, 0.01)}"),
    Probe("shared, 0.9 / 0.1", f"{SHARED} {weighted(0.9, 0.1)}"),
    Probe("shared, 0.5 / 0.5", f"{SHARED} {weighted(0.5, 0.5)}"),
    Probe("shared, 0.99 / 0.01, MSE cut off from the tables", f"{SHARED} {weighted(0.99, 0.01)}",
          OnlyInteractionsTeachTables),
    Probe("shared, 0.5 / 0.5, BPR cut off from the tables", f"{SHARED} {weighted(0.5, 0.5)}", OnlyRatingsTeachTables),
    Probe("separate, 0.99 / 0.01", f"{SEPARATE} {weighted(0.99, 0.01)}"),
    Probe("separate, 0.5 / 0.5", f"{SEPARATE} {weighted(0.5, 0.5)}"),
    Probe("separate, 0.99 / 0.01, Adam with ε = 1e-15", f"{SEPARATE} {weighted(0.99, 0.01)}",
          EagerStep, epsilon=SMALL_EPSILON),
    Probe("separate, 0.5 / 0.5, Adam with ε = 1e-15", f"{SEPARATE} {weighted(0.5, 0.5)}",
          EagerStep, epsilon=SMALL_EPSILON),
    Probe("separate, 0.99 / 0.01, SGD", f"{SEPARATE} {weighted(0.99, 0.01)}", SGDStep, SGD_RATE),
    Probe("separate, 0.5 / 0.5, SGD", f"{SEPARATE} {weighted(0.5, 0.5)}", SGDStep, SGD_RATE),
)  # fmt: skip

SHARE_TRIPLES = 2**12  # over which gradients are averaged when they are compared
SHARE_EPOCHS = (0, 1, 5, 20, 50, 200)  # epochs trained before that


@dataclass(frozen=True)
class Outcome:
    """A probe with one seed.

    Attributes:
        history: the metrics of each epoch.
        shares: epochs trained → ‖λ_R ∇L_R‖ / (‖λ_R ∇L_R‖ + ‖λ_F ∇L_F‖) over the shared tables; empty where they are
            separate, or one loss does not reach them.
    """

    history: list[EpochMetrics]
    shares: dict[int, float]


def run(probe: Probe, seed: int, epochs: int, data_dir: Path) -> Outcome:
    """Train as main.py would, but for what the probe changes; nothing is written."""
    folders = ["--data_dir", str(data_dir), "--logdir", str(data_dir)]  # nothing is written to either
    options = parse_arguments([*probe.flags.split(), "--seed", str(seed), "--device", "cpu", *folders])
    trainer, test = set_up(probe, options)
    history: list[EpochMetrics] = []
    shares = {}
    with threads_for(trainer.model, trainer.batch_size):
        for epoch in range(epochs + 1):
            if probe.step is None and options.shared_embeddings and epoch in SHARE_EPOCHS:
                shares[epoch] = regression_share(trainer)
            if epoch < epochs:
                losses = trainer.run_epoch()
                mrr, mse = mrr_score(trainer.recommender, test, trainer.train), mse_score(trainer.recommender, test)
                history.append(EpochMetrics(**losses._asdict(), test_mrr=mrr, test_mse=mse))
    return Outcome(history, shares)


def set_up(probe: Probe, options: argparse.Namespace) -> tuple[Trainer, data.Interactions]:
    """The trainer and the test side of main.py, with the probe's step."""
    trainer, (_, _, test) = command_line.set_up(options)
    if probe.step is not None:
        adam = trainer.adam._replace(learning_rate=probe.learning_rate, epsilon=probe.epsilon)
        trainer.step = probe.step(trainer.model, adam, trainer.weights)
    return trainer, test


def regression_share(trainer: Trainer) -> float:
    """The part of the MSE in the gradients that reach the shared tables, of the first triples of the training side."""
    draw = torch.Generator().manual_seed(0)
    side, weights = trainer.train, trainer.weights
    users, items, ratings = (column[:SHARE_TRIPLES] for column in (side.user_ids, side.item_ids, side.ratings))
    negatives = torch.randint(side.num_items, (len(users),), generator=draw)
    l_f, l_r = EagerStep(trainer.model, trainer.adam, weights).losses(users, items, negatives, ratings)
    losses = weights.factorization * l_f, weights.regression * l_r
    tables = [table.weight for table in parts.factorization_tables(trainer.model)]
    gradients = (torch.autograd.grad(loss, tables, retain_graph=True) for loss in losses)
    factorization, regression = (torch.cat([each.reshape(-1) for each in every]).norm().item() for every in gradients)
    return float(regression / (regression + factorization))


def tables(outcomes: dict[Probe, list[Outcome]]) -> str:
    """Two tables in Markdown: the metrics, and the share of the MSE in the gradients of shared tables."""
    rows = [
        "| | BPR loss | training MSE | test MSE | lowest test MSE | test MRR | highest test MRR |",
        "| --- | --- | --- | --- | --- | --- | --- |",
    ]
    for probe, found in outcomes.items():
        last = [outcome.history[-1] for outcome in found]
        cells = [
            spread([metrics.factorization_loss for metrics in last], 4),
            spread([metrics.training_mse for metrics in last], 3),
            spread([metrics.test_mse for metrics in last], 3),
            spread([min(metrics.test_mse for metrics in outcome.history) for outcome in found], 3),
            spread([metrics.test_mrr for metrics in last], 4),
            spread([max(metrics.test_mrr for metrics in outcome.history) for outcome in found], 4),
        ]
        rows.append(f"| {probe.name} | {' | '.join(cells)} |")
    with_shares = {probe: found for probe, found in outcomes.items() if found[0].shares}
    epochs = list(next(iter(with_shares.values()))[0].shares)
    rows += [
        "",
        f"| share of the MSE in the tables' gradient, after | {' | '.join(f'{each} epochs' for each in epochs)} |",
        f"| --- |{' --- |' * len(epochs)}",
    ]
    for probe, found in with_shares.items():
        cells = [spread([outcome.shares[epoch] for outcome in found], 3) for epoch in epochs]
        rows.append(f"| {probe.name} | {' | '.join(cells)} |")
    return "\n".join(rows)


def run_all(options: argparse.Namespace) -> dict[Probe, list[Outcome]]:
    """All probes with each seed, several at a time.

    Raises:
        Stopped: a signal asked for it; by then no probe is left running.
    """
    outcomes: dict[Probe, list[Outcome]] = {probe: [] for probe in PROBES}
    work = {
        (probe, seed): (probe, seed, options.epochs, options.data_dir)
        for seed in range(options.seeds)
        for probe in PROBES
    }
    with closing(results(run, work, options.jobs)) as done:
        for (probe, _), outcome in done:
            outcomes[probe].append(outcome)
    return outcomes


def main() -> int:
    """Run all probes, and print and store their tables."""
    parser = Parser(description="Put the explanations of docs/writeup.md to the test.")
    flag = parser.add_argument
    flag("--epochs", type=int, default=200, help="passes over the training ratings (%(default)s)")
    flag("--seeds", type=int, default=3, help="how many seeds, from 0 (%(default)s)")
    flag("--jobs", type=int, default=available_cores(), help="how many at a time (%(default)s)")
    flag("--logdir", type=Path, default=Path("run"), help="folder for probes.md (%(default)s)")
    flag("--data_dir", type=Path, default=Path("data"), help="folder for the data (%(default)s)")
    options = parser.parse_args()
    try:
        check_at_least(options, epochs=1, seeds=1, jobs=1)
        check_folder(options.logdir)
        data.load(options.data_dir)
        with stoppable():
            text = tables(run_all(options))
            write_whole(f"{text}\n".encode(), options.logdir / "probes.md")
    except (ValueError, OSError) as error:
        return command.fail("study.probes", error)
    except Stopped as stopped:
        print("stopped; nothing is kept", file=sys.stderr)
        return 128 + stopped.signal_number
    print(text)
    return 0


if __name__ == "__main__":
    command.end(main)
