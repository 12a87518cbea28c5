"""The plain procedure: the homework's text as code, line by line, with no regard for speed.

It is the baseline of ``speed.py`` and an oracle of the tests. Each batch passes through both heads, once with its
positives and once with its negatives. Three losses are read after each step. The mean reciprocal rank is a loop over
users that sorts the scores of each.

    python benchmarks/plain_trainer.py --factorization_weight 0.99 --regression_weight 0.01 --logdir run/plain
"""

import sys
from pathlib import Path

ROOT = Path(__file__).parent.parent
sys.path[:0] = [str(ROOT), str(ROOT / "benchmarks")]
from cli import command

if __name__ == "__main__":  # before the imports that take a second
    command.begin(when_stopped="stopped")


import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn
from torch.utils.tensorboard import SummaryWriter

import data
from cli.arguments import Parser, add_options, options_of
from data import Interactions
from datasets.source import DataSource
from training import setup
from training.settings import Settings


class PlainTrainer:
    """Training of a network with ``forward(user_ids, item_ids)`` → (predictions, score) by the homework's procedure."""

    def __init__(self, net: nn.Module, train: Interactions, settings: Settings) -> None:
        self.net = net
        self.train = train
        self.settings = settings
        self.optimizer = torch.optim.Adam(net.parameters(), lr=settings.learning_rate)
        self.generator = torch.Generator().manual_seed(settings.seeds.training)

    def fit(self) -> tuple[float, float, float]:
        """Train for an epoch; return the means over its steps of the BPR loss, the MSE and the joint loss."""
        self.net.train()
        order = torch.randperm(len(self.train), generator=self.generator)
        user_ids = self.train.user_ids[order]
        item_ids = self.train.item_ids[order]
        ratings = self.train.ratings[order]
        negative_ids = torch.randint(self.train.num_items, (len(self.train),), generator=self.generator)

        losses = []
        size = self.settings.batch_size_for(len(self.train))
        for start in range(0, len(self.train), size):
            batch = slice(start, start + size)
            positive, score = self.net(user_ids[batch], item_ids[batch])
            negative, _ = self.net(user_ids[batch], negative_ids[batch])
            factorization_loss = (1 - torch.sigmoid(positive - negative)).mean()
            regression_loss = ((score - ratings[batch]) ** 2).mean()
            loss = (
                self.settings.factorization_weight * factorization_loss
                + self.settings.regression_weight * regression_loss
            )

            self.optimizer.zero_grad()
            loss.backward()
            self.optimizer.step()

            losses.append((factorization_loss.item(), regression_loss.item(), loss.item()))
        factorization, regression, joint = np.mean(losses, axis=0).tolist()
        return factorization, regression, joint


def average_ranks(values: NDArray[np.float32]) -> NDArray[np.float64]:
    """Return the rank of each value, 1 for the smallest; equal values share their average rank."""
    _, places, counts = np.unique(values, return_inverse=True, return_counts=True)
    ranks = counts.cumsum() - (counts - 1) / 2
    return np.asarray(ranks[places])


def plain_mrr(net: nn.Module, test: Interactions, train: Interactions | None = None) -> float:
    """Return the mean over users with test ratings of the mean of 1 / rank over their test items."""
    net.eval()
    all_items = torch.arange(test.num_items)
    means = []
    for user in range(test.num_users):
        targets = test.item_ids[test.user_ids == user].numpy()
        if len(targets) == 0:
            continue
        with torch.no_grad():
            predictions, _ = net(torch.full_like(all_items, user), all_items)
        values = -predictions.numpy()
        if train is not None:
            values[train.item_ids[train.user_ids == user].numpy()] = np.finfo(np.float32).max
        means.append((1.0 / average_ranks(values)[targets]).mean())
    return float(np.mean(means))


def plain_mse(net: nn.Module, test: Interactions) -> float:
    """Return the mean of (r̂ − r)² over the test ratings."""
    net.eval()
    with torch.no_grad():
        _, score = net(test.user_ids, test.item_ids)
    return float(((score - test.ratings) ** 2).mean())


def main() -> int:
    """Run an experiment with the flags of ``main.py``; returns the exit status."""
    parser = Parser("Run an experiment by the plain procedure.")
    parser.add_argument("--logdir", type=Path, default=Path("run/plain"), metavar="DIR", help="folder of the run")
    add_options(parser, Settings)
    add_options(parser, DataSource)
    options = parser.parse_args()
    try:
        settings = options_of(Settings, options)
        split = setup.split(data.read(options_of(DataSource, options)), settings)
        network = setup.make_network(settings, split.train.num_users, split.train.num_items, torch.device("cpu"))
    except (ValueError, OSError) as error:
        return command.fail("plain_trainer.py", error)
    setup.use_one_thread()
    setup.flush_denormals()
    plain = PlainTrainer(network, split.train, settings)
    writer = SummaryWriter(str(options.logdir))
    for epoch in range(settings.epochs):
        factorization, regression, joint = plain.fit()
        writer.add_scalar("training/Factorization Loss", factorization, epoch)
        writer.add_scalar("training/MSE", regression, epoch)
        writer.add_scalar("training/Joint Loss", joint, epoch)
        writer.add_scalar("eval/Mean Reciprocal Rank", plain_mrr(network, split.test, split.train), epoch)
        writer.add_scalar("eval/MSE", plain_mse(network, split.test), epoch)
    writer.close()
    print(f"{settings.epochs} epochs; logs in {options.logdir}")
    return 0


if __name__ == "__main__":
    command.end(main)
