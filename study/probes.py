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
from contextlib import closing
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
from models import MultiTaskNet
from study.processes import results
from study.summary import spread
from tracking.history import EpochMetrics
from train import Trainer
from training.adam import AdamState
from training.devices import threads_for
from training.flags import parse_arguments
from training.steps import EagerStep, Weights, bpr_loss, regression_loss


class OnlyInteractionsTeachTables(MultiTaskNet):
    """The MSE trains the MLP, but its gradient ends there: the tables learn from BPR alone."""

    def _rating(self, u: Tensor, q: Tensor) -> Tensor:
        return super()._rating(u.detach(), q.detach())


class OnlyRatingsTeachTables(MultiTaskNet):
    """BPR trains the item bias, but its gradient ends there: the tables learn from the MSE alone."""

    def _interaction(self, u: Tensor, q: Tensor, item_ids: Tensor) -> Tensor:
        return super()._interaction(u.detach(), q.detach(), item_ids)


class SGDStep(EagerStep):
    """The eager step with plain stochastic gradient descent in Adam's place."""

    def __init__(self, model: MultiTaskNet, adam: AdamState, weights: Weights, rate: float) -> None:
        super().__init__(model, adam, weights)
        self.optimizer = torch.optim.SGD([adam.flat], lr=rate)


class SmallEpsilonStep(EagerStep):
    """The eager step with an ε so small that Adam's steps do not depend on the gradients' scale."""

    def __init__(self, model: MultiTaskNet, adam: AdamState, weights: Weights) -> None:
        super().__init__(model, adam, weights)
        self.optimizer.param_groups[0]["eps"] = SMALL_EPSILON


@dataclass(frozen=True)
class Probe:
    """An experiment in which something is changed.

    Attributes:
        name: what.
        flags: main.py's.
        network: in place of MultiTaskNet.
        sgd_rate: train by plain SGD with this learning rate, in place of Adam.
        small_epsilon: train by Adam with SMALL_EPSILON.
    """

    name: str
    flags: str
    network: type[MultiTaskNet] = MultiTaskNet
    sgd_rate: float | None = None
    small_epsilon: bool = False


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
    Probe("separate, 0.99 / 0.01, Adam with ε = 1e-15", f"{SEPARATE} {weighted(0.99, 0.01)}", small_epsilon=True),
    Probe("separate, 0.5 / 0.5, Adam with ε = 1e-15", f"{SEPARATE} {weighted(0.5, 0.5)}", small_epsilon=True),
    Probe("separate, 0.99 / 0.01, SGD", f"{SEPARATE} {weighted(0.99, 0.01)}", sgd_rate=SGD_RATE),
    Probe("separate, 0.5 / 0.5, SGD", f"{SEPARATE} {weighted(0.5, 0.5)}", sgd_rate=SGD_RATE),
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
            if probe.network is MultiTaskNet and trainer.model.embedding_sharing and epoch in SHARE_EPOCHS:
                shares[epoch] = regression_share(trainer)
            if epoch < epochs:
                losses = trainer.run_epoch()
                mrr, mse = mrr_score(trainer.model, test, trainer.train), mse_score(trainer.model, test)
                history.append(EpochMetrics(**losses._asdict(), test_mrr=mrr, test_mse=mse))
    return Outcome(history, shares)


def set_up(probe: Probe, options: argparse.Namespace) -> tuple[Trainer, data.Interactions]:
    """The trainer and the test side of main.py, with the probe's network, from the same weights, and its optimizer."""
    trainer, (_, _, test) = command_line.set_up(options)
    if probe.network is not MultiTaskNet:
        network = probe.network(
            test.num_users, test.num_items, options.embedding_dim, options.layer_sizes, options.shared_embeddings
        )
        network.load_state_dict(trainer.model.state_dict())
        trainer = Trainer(network, trainer.train, trainer.settings, trainer.seed, eager=True)
    weights = Weights(trainer.settings.factorization_weight, trainer.settings.regression_weight)
    if probe.sgd_rate is not None:
        trainer.step = SGDStep(trainer.model, trainer.adam, weights, probe.sgd_rate)
    elif probe.small_epsilon:
        trainer.step = SmallEpsilonStep(trainer.model, trainer.adam, weights)
    return trainer, test


def regression_share(trainer: Trainer) -> float:
    """The part of the MSE in the gradients that reach the shared tables, of the first triples of the training side."""
    draw = torch.Generator().manual_seed(0)
    side, net = trainer.train, trainer.model
    users, items, ratings = (column[:SHARE_TRIPLES] for column in (side.user_ids, side.item_ids, side.ratings))
    negatives = torch.randint(side.num_items, (len(users),), generator=draw)
    positive, negative = net.predict_interactions(users, torch.stack([items, negatives]))
    losses = (
        trainer.settings.factorization_weight * bpr_loss(positive, negative),
        trainer.settings.regression_weight * regression_loss(net.predict_ratings(users, items), ratings),
    )
    tables = [net.U.weight, net.Q.weight]
    factorization, regression = (
        torch.cat([each.reshape(-1) for each in torch.autograd.grad(loss, tables)]).norm().item() for loss in losses
    )
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
