"""Tests of the explanations in docs/writeup.md: the experiments again, each with one thing changed.

    python -m study.probes                        # 3 seeds of each, some twenty minutes on two cores
    python -m study.probes --epochs 5 --seeds 1   # a look

The changes are in the losses that reach the shared tables, in the weights, and in the optimizer. The tables also show
which share of the gradient of the shared tables comes from the ratings. They go to LOGDIR/probes.md.
"""

from cli import command

if __name__ == "__main__":  # before the imports that take a second
    command.begin(when_stopped="stopped before the first probe began")

from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass
from functools import partial

import torch
from torch import Tensor, nn

from cli.options import option
from datasets.source import DataSource
from study import trials
from study.summary import spread, table
from study.trials import SplitSettings
from tracking.metric_table import EpochMetrics
from train import Trainer, evaluation_of
from training import parts, setup
from training.adam import Adam
from training.settings import Settings
from training.steps import EagerStep, Optimizer


class OnlyInteractionsTeachTables(EagerStep):
    """A step in which the MSE trains the MLP but not the tables, which learn from BPR alone."""

    def losses(self, users: Tensor, items: Tensor, negatives: Tensor, ratings: Tensor) -> tuple[Tensor, Tensor]:
        factorization, _ = super().losses(users, items, negatives, ratings)
        with _detached(parts.regression_tables(self.model)):
            _, regression = super().losses(users, items, negatives, ratings)
        return factorization, regression


class OnlyRatingsTeachTables(EagerStep):
    """A step in which BPR trains the item bias but not the tables, which learn from the MSE alone."""

    def losses(self, users: Tensor, items: Tensor, negatives: Tensor, ratings: Tensor) -> tuple[Tensor, Tensor]:
        _, regression = super().losses(users, items, negatives, ratings)
        with _detached(parts.factorization_tables(self.model)):
            factorization, _ = super().losses(users, items, negatives, ratings)
        return factorization, regression


@contextmanager
def _detached(tables: parts.Tables) -> Iterator[None]:
    """Stop gradients at the rows that these tables look up."""
    handles = [table.register_forward_hook(lambda _, __, rows: rows.detach()) for table in tables]
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()


ADAM = partial(Adam, learning_rate=Settings().learning_rate)
ADAM_WITH_SMALL_EPSILON = partial(ADAM, epsilon=1e-15)  # the default is 1e-8


def sgd(model: nn.Module) -> Optimizer:
    """Make plain stochastic gradient descent; with a rate of 3 the MSE grows without bounds at 0.5 / 0.5."""
    return torch.optim.SGD(model.parameters(), lr=1.0)


@dataclass(frozen=True)
class Probe:
    """An experiment with one thing changed."""

    name: str  # of its rows in the tables
    shared: bool  # whether the tasks share their tables
    factorization: float  # λ_F
    regression: float  # λ_R
    step: type[EagerStep] | None = None  # None: the default, and then ``optimizer`` is not used
    optimizer: Callable[[nn.Module], Optimizer] = ADAM


PROBES = (
    Probe("shared, 0.999 / 0.001", True, 0.999, 0.001),
    Probe("shared, 0.99 / 0.01", True, 0.99, 0.01),
    Probe("shared, 0.9 / 0.1", True, 0.9, 0.1),
    Probe("shared, 0.5 / 0.5", True, 0.5, 0.5),
    Probe("shared, 0.99 / 0.01, MSE cut off from the tables", True, 0.99, 0.01, OnlyInteractionsTeachTables),
    Probe("shared, 0.5 / 0.5, BPR cut off from the tables", True, 0.5, 0.5, OnlyRatingsTeachTables),
    Probe("separate, 0.99 / 0.01", False, 0.99, 0.01),
    Probe("separate, 0.5 / 0.5", False, 0.5, 0.5),
    Probe("separate, 0.99 / 0.01, Adam with ε = 1e-15", False, 0.99, 0.01, EagerStep, ADAM_WITH_SMALL_EPSILON),
    Probe("separate, 0.5 / 0.5, Adam with ε = 1e-15", False, 0.5, 0.5, EagerStep, ADAM_WITH_SMALL_EPSILON),
    Probe("separate, 0.99 / 0.01, SGD", False, 0.99, 0.01, EagerStep, sgd),
    Probe("separate, 0.5 / 0.5, SGD", False, 0.5, 0.5, EagerStep, sgd),
)
SHARE_TRIPLES = 2**12  # over which gradients are averaged when they are compared
SHARE_EPOCHS = (0, 1, 5, 20, 50, 200)  # numbers of epochs after which they are compared


@dataclass(frozen=True)
class Outcome:
    """The result of a probe with one seed."""

    history: list[EpochMetrics]
    shares: dict[int, float]  # ``regression_share`` by the number of epochs trained; {} where not defined


def run(probe: Probe, seed: int, epochs: int, source: DataSource, split: SplitSettings) -> Outcome:
    """Train as main.py does, with the probe's change."""
    setup.use_one_thread()
    setup.flush_denormals()
    settings = Settings(
        factorization_weight=probe.factorization,
        regression_weight=probe.regression,
        shared_embeddings=probe.shared,
        seed=seed,
        **split,
    )
    train, _, test = setup.split(trials.read(source), settings)
    trainer = setup.make_trainer(settings, train, torch.device("cpu"))
    if probe.step is not None:
        trainer.step = probe.step(trainer.model, probe.optimizer(trainer.model), trainer.loss_weights)
    evaluation = evaluation_of(trainer, test)
    history: list[EpochMetrics] = []
    shares = {}
    for epoch in range(epochs + 1):
        if probe.step is None and probe.shared and epoch in SHARE_EPOCHS:
            shares[epoch] = regression_share(trainer)
        if epoch < epochs:
            losses = trainer.run_epoch()
            metrics = EpochMetrics(**losses._asdict(), test_mrr=evaluation.mrr(), test_mse=evaluation.mse())
            history.append(metrics)
    return Outcome(history, shares)


def regression_share(trainer: Trainer) -> float:
    """Compute ‖λ_R ∇L_R‖ / (‖λ_R ∇L_R‖ + ‖λ_F ∇L_F‖) over the shared tables, for the first training ratings."""
    train = trainer.train
    users, items, ratings = (column[:SHARE_TRIPLES] for column in (train.user_ids, train.item_ids, train.ratings))
    negatives = torch.randint(train.num_items, (len(users),), generator=torch.Generator().manual_seed(0))
    step = EagerStep(trainer.model, trainer.adam, trainer.loss_weights)
    factorization_loss, regression_loss = step.losses(users, items, negatives, ratings)
    tables = [table.weight for table in parts.factorization_tables(trainer.model)]

    def norm(loss: Tensor) -> float:
        gradients = torch.autograd.grad(loss, tables, retain_graph=True)
        return float(torch.cat([gradient.reshape(-1) for gradient in gradients]).norm())

    factorization = norm(trainer.loss_weights.factorization * factorization_loss)
    regression = norm(trainer.loss_weights.regression * regression_loss)
    return regression / (regression + factorization)


def tables(outcomes: dict[Probe, list[Outcome]]) -> str:
    """Write two tables in Markdown: the metrics, and the share of the MSE in the gradients of shared tables."""
    rows = []
    for probe, found in outcomes.items():
        histories = [outcome.history for outcome in found]
        last = [history[-1] for history in histories]
        columns = {
            "BPR loss": spread([each.factorization_loss for each in last], 4),
            "training MSE": spread([each.training_mse for each in last], 3),
            "test MSE": spread([each.test_mse for each in last], 3),
            "lowest test MSE": spread([min(each.test_mse for each in history) for history in histories], 3),
            "test MRR": spread([each.test_mrr for each in last], 4),
            "highest test MRR": spread([max(each.test_mrr for each in history) for history in histories], 4),
        }
        rows.append([probe.name, *columns.values()])
    with_shares = {probe: found for probe, found in outcomes.items() if found[0].shares}
    epochs = list(next(iter(with_shares.values()))[0].shares)
    share_rows = [
        [probe.name, *(spread([outcome.shares[epoch] for outcome in found], 3) for epoch in epochs)]
        for probe, found in with_shares.items()
    ]
    title = "share of the MSE in the tables' gradient, after"
    shares = table([title, *(f"{epoch} epochs" for epoch in epochs)], share_rows)
    return f"{table(['', *columns], rows)}\n\n{shares}"


@dataclass(frozen=True)
class Options(trials.Options):
    """The options of the command."""

    seeds: int = option(3, "number of seeds, each with a split of its own", metavar="N", least=1)
    epochs: int = option(200, "epochs of each run", metavar="N", least=1)


def make_tables(options: Options, source: DataSource, split: SplitSettings) -> str:
    """Run all probes with each seed, several at a time, and write the tables."""
    outcomes: dict[Probe, list[Outcome]] = {probe: [] for probe in PROBES}
    work = {
        (probe, seed): (probe, seed, options.epochs, source, split) for seed in range(options.seeds) for probe in PROBES
    }
    with closing(trials.results(run, work, options.jobs)) as done:
        for (probe, _), outcome in done:
            outcomes[probe].append(outcome)
    return tables(outcomes)


def main() -> int:
    """Run the command line; returns the exit status."""
    description = "Test the explanations of docs/writeup.md."
    return trials.write_tables("study.probes", description, Options, make_tables, "probes.md")


if __name__ == "__main__":
    command.end(main)
