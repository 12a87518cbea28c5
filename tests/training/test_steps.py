"""steps.py and fused.py: each step against the same mathematics written plainly, and the steps against each other."""

import math
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from runs import Split, fit_in, network, same_result

from data import Interactions
from models import MultiTaskNet
from train import Trainer
from training.adam import Adam, SparseAdam, pick_optimizer
from training.fused import CudaGraph, FusedStep
from training.settings import Settings
from training.steps import EagerStep, LossWeights, Triples, bpr_loss, regression_loss

Array = NDArray[np.float64]
Batch = list[tuple[int, int, int, float]]  # users, items, negatives and ratings


def epochs(data: Interactions, count: int, seed: int = 3) -> Iterator[Triples]:
    generator = torch.Generator().manual_seed(seed)
    for _ in range(count):
        order = torch.randperm(len(data), generator=generator)
        negatives = torch.randint(data.num_items, (len(data),), generator=generator)
        yield Triples(data.user_ids[order], data.item_ids[order], negatives, data.ratings[order])


def test_bpr_loss_is_equation_3() -> None:
    positive, negative = torch.tensor([1.0, -2.0, 0.0]), torch.tensor([0.0, 3.0, 0.0])
    terms = [1 - 1 / (1 + math.exp(-(p - n))) for p, n in zip(positive.tolist(), negative.tolist(), strict=True)]
    assert float(bpr_loss(positive, negative)) == pytest.approx(sum(terms) / 3)
    assert float(bpr_loss(positive, positive)) == 0.5
    assert float(bpr_loss(torch.tensor([200.0]), torch.tensor([-200.0]))) == 0
    assert float(bpr_loss(torch.tensor([-200.0]), torch.tensor([200.0]))) == 1


def test_regression_loss_is_equation_5() -> None:
    assert float(regression_loss(torch.tensor([3.0, 4.5]), torch.tensor([5.0, 4.0]))) == pytest.approx(4.25 / 2)


class PlainStep:
    """Forward, gradients and Adam (Kingma and Ba, 2015, algorithm 1) by hand: a loop over the batch, in float64.

    Row-wise, it moves only those rows of the tables and of B that a batch looks up, each once.
    """

    def __init__(self, net: MultiTaskNet, weights: LossWeights, rowwise: bool) -> None:
        self.loss_weights, self.rowwise = weights, rowwise
        self.weights: dict[str, Array] = {name: w.double().numpy().copy() for name, w in net.state_dict().items()}
        self.fact, self.reg = ("", "") if net.embedding_sharing else ("_fact", "_reg")
        self.depth = (len(net.mlp_layers) + 1) // 2
        self.moments = {name: (np.zeros_like(w), np.zeros_like(w)) for name, w in self.weights.items()}
        self.steps = 0

    def __call__(self, batch: Batch) -> tuple[float, float]:
        w, n = self.weights, len(batch)
        gradient = {name: np.zeros_like(x) for name, x in w.items()}
        factorization = regression = 0.0
        for user, item, negative, rating in batch:
            U, Q = f"U{self.fact}.weight", f"Q{self.fact}.weight"
            difference = w[U][user] @ w[Q][item] + w["B.weight"][item, 0]
            difference -= w[U][user] @ w[Q][negative] + w["B.weight"][negative, 0]
            sigma = 1 / (1 + math.exp(-difference))
            factorization += (1 - sigma) / n
            slope = -self.loss_weights.factorization * sigma * (1 - sigma) / n
            gradient[U][user] += slope * (w[Q][item] - w[Q][negative])
            gradient[Q][item] += slope * w[U][user]
            gradient[Q][negative] -= slope * w[U][user]
            gradient["B.weight"][item] += slope
            gradient["B.weight"][negative] -= slope

            U, Q = f"U{self.reg}.weight", f"Q{self.reg}.weight"
            u, q = w[U][user], w[Q][item]
            inputs = [np.concatenate([u, q, u * q])]
            for layer in range(self.depth):
                out = w[f"mlp_layers.{2 * layer}.weight"] @ inputs[-1] + w[f"mlp_layers.{2 * layer}.bias"]
                inputs.append(np.maximum(out, 0) if layer < self.depth - 1 else out)
            error = inputs[-1][0] - rating
            regression += error**2 / n
            back = np.array([2 * self.loss_weights.regression * error / n])
            for layer in reversed(range(self.depth)):
                if layer < self.depth - 1:
                    back = back * (inputs[layer + 1] > 0)
                gradient[f"mlp_layers.{2 * layer}.weight"] += np.outer(back, inputs[layer])
                gradient[f"mlp_layers.{2 * layer}.bias"] += back
                back = w[f"mlp_layers.{2 * layer}.weight"].T @ back
            to_u, to_q, to_product = back.reshape(3, -1)
            gradient[U][user] += to_u + to_product * q
            gradient[Q][item] += to_q + to_product * u
        self.steps += 1
        for name, g in gradient.items():
            self.adam(name, g, self.touched(name, batch) if self.rowwise else slice(None))
        return factorization, regression

    def touched(self, name: str, batch: Batch) -> slice | list[int]:
        """List the rows of a table or of B that a batch looks up, each once."""
        users, items, negatives, _ = zip(*batch, strict=True)
        if name.startswith("mlp"):
            return slice(None)
        if name.startswith("U"):
            return sorted(set(users))
        return sorted({*items} if name.startswith("Q_reg") else {*items, *negatives})

    def adam(self, name: str, gradient: Array, rows: slice | list[int]) -> None:
        first, second = self.moments[name]
        first[rows] += 0.1 * (gradient[rows] - first[rows])
        second[rows] += 0.001 * (gradient[rows] ** 2 - second[rows])
        corrected = first[rows] / (1 - 0.9**self.steps), second[rows] / (1 - 0.999**self.steps)
        self.weights[name][rows] -= 1e-3 * corrected[0] / (np.sqrt(corrected[1]) + 1e-8)


WAYS = ("eager step", "fused step")
LAZY_WAYS = ("eager row-wise step", "row-wise step")


def make_step(way: str, net: MultiTaskNet, weights: LossWeights, adam: Adam | None = None) -> EagerStep | FusedStep:
    adam = Adam(net, 1e-3) if adam is None else adam
    if way.startswith("eager"):
        return EagerStep(net, SparseAdam(net, adam) if way in LAZY_WAYS else adam, weights)
    return FusedStep(net, adam, weights, lazy=way in LAZY_WAYS, recorded=way == "CUDA graph")


def batches(triples: Triples, batch_size: int) -> list[Batch]:
    columns = (column.split(batch_size) for column in triples)
    return [list(zip(*(column.tolist() for column in batch), strict=True)) for batch in zip(*columns, strict=True)]


@pytest.mark.parametrize("sharing", [True, False])
@pytest.mark.parametrize("layer_sizes", [(12, 7), (9,), (6, 5, 4)])
@pytest.mark.parametrize("weights", [(0.99, 0.01), (0.5, 0.5), (0.0, 1.0), (2.0, 0.0)])
@pytest.mark.parametrize("ways", [WAYS, LAZY_WAYS], ids=["dense", "row-wise"])
def test_two_epochs_equal_the_plain_steps(
    ways: tuple[str, str], weights: tuple[float, float], layer_sizes: tuple[int, ...], sharing: bool, split: Split
) -> None:
    """Batches of 128 triples, then of 16, which leave most rows alone, then of one and of all; the last are short.

    Single parameters may differ by some steps of Adam, where rounding decides a gradient's sign.
    """
    data, _ = split
    plain = PlainStep(network(data, sharing, layer_sizes), LossWeights(*weights), ways is LAZY_WAYS)
    parts = [
        (Triples(*(column[:n] for column in triples)), batch_size)
        for triples, n, batch_size in zip(epochs(data, 4), (300, 300, 20, 300), (128, 16, 1, 10_000), strict=True)
    ]
    expected = [plain(batch) for triples, batch_size in parts for batch in batches(triples, batch_size)]
    for way in ways:
        net = network(data, sharing, layer_sizes)
        adam = Adam(net, 1e-3)
        step = make_step(way, net, LossWeights(*weights), adam)
        losses = torch.cat([step.run(triples, batch_size) for triples, batch_size in parts])
        np.testing.assert_allclose(losses.numpy(), expected, rtol=2e-4, atol=1e-6)
        assert adam.steps_taken.item() == len(expected)
        for name, weight in net.state_dict().items():
            difference = np.abs(weight.numpy() - plain.weights[name])
            assert difference.mean() < 1e-5, name
            assert difference.max() < 4e-3, name


@pytest.mark.parametrize("eager", [True, False])
def test_a_resumed_run_is_bit_identical_to_an_uninterrupted_one(eager: bool, split: Split, tmp_path: Path) -> None:
    data, test = split

    for name, epochs, seed in (("whole", 4, 0), ("part", 2, 0), ("part", 4, 1)):
        settings = Settings(optimizer="lazy_adam", batch_size=20, epochs=epochs)
        fit_in(tmp_path / name, Trainer(network(data, True, seed=seed), data, settings, eager=eager), test)
    assert same_result(tmp_path / "whole", tmp_path / "part")


def test_auto_is_dense_for_small_tables_and_row_by_row_for_large_ones() -> None:
    for users, items, batch_size, expected in (
        (943, 1682, 256, "adam"),
        (943, 1682, 1, "adam"),
        (6040, 3706, 256, "adam"),
        (69878, 10677, 256, "lazy_adam"),
        (69878, 10677, 8192, "adam"),
        (200948, 84432, 256, "lazy_adam"),
    ):
        rows = users + items
        assert pick_optimizer("auto", rows, batch_size) == expected
        assert [pick_optimizer(name, rows, batch_size) for name in ("adam", "lazy_adam")] == ["adam", "lazy_adam"]


class Replay:
    """A stand-in for a CUDA graph, which repeats the recorded operations on the recorded tensors."""

    def __init__(self, recorded: CudaGraph) -> None:
        self.recorded, self.count = recorded, 0

    def replay(self) -> None:
        self.count += 1
        self.recorded.steps(self.recorded.captured)


@pytest.mark.parametrize(("longest", "replays"), [(512, 1), (8, 1), (3, 2), (2, 3), (1, 7)])
def test_replayed_steps_are_the_same_steps(
    longest: int, replays: int, split: Split, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Eight batches. Only a GPU can record: a stand-in takes some steps, as recording does."""
    data, _ = split
    recordings = []

    def record(graph: CudaGraph) -> Replay:
        graph.steps(graph.captured[:2])
        recordings.append(Replay(graph))
        return recordings[-1]

    monkeypatch.setattr(CudaGraph, "LONGEST", longest)
    monkeypatch.setattr(CudaGraph, "_record", record)
    results = []
    for way in ("fused step", "CUDA graph"):
        net = network(data, False)
        step = make_step(way, net, LossWeights(0.7, 0.3))
        losses = [step.run(triples, 128).clone() for triples in epochs(data, 3)]
        results.append((torch.cat(losses), torch.cat([p.detach().reshape(-1) for p in net.parameters()])))
    assert [each.count for each in recordings] == [3 * replays]
    assert torch.equal(results[0][0], results[1][0])
    assert torch.equal(results[0][1], results[1][1])


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA GPU")
@pytest.mark.parametrize("optimizer", ["adam", "lazy_adam"])
@pytest.mark.parametrize("sharing", [True, False])
def test_a_cuda_graph_takes_the_steps_of_the_eager_step(sharing: bool, optimizer: str, split: Split) -> None:
    """The sums of a GPU depend on the order in which its threads end, so that the losses agree up to rounding."""
    data, _ = split
    results = []
    for eager in (True, False):
        settings = Settings(batch_size=128, optimizer=optimizer)
        trainer = Trainer(network(data, sharing).cuda(), data, settings, eager=eager)
        if not eager:
            assert not [line for line in trainer.notices if "CUDA graph" in line]
        results.append([trainer.run_epoch() for _ in range(3)])
    for one, other in zip(*results, strict=True):
        assert one == pytest.approx(other, rel=1e-4)
